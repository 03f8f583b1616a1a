"""The forms in which PyTorch weights go round: each is read, or refused in one true sentence."""

import argparse
import gzip
import json
import logging
import pathlib
import re
import tarfile
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from cliff_ms.io.errors import InputError
from cliff_ms.weights.pytorch import from_torch, to_mindspore
from cliff_ms.weights.sources import read_source
from tests.toys.state_dict import blank_state, renamed

KEY = "fc1.weight"


@pytest.fixture(scope="module")
def state():
    return blank_state("res50")


@pytest.fixture(scope="module")
def arrays(state):
    return from_torch(state, "a.pt")[0]


def same(a, b):
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and np.array_equal(a[n], b[n]) for n in a)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def raw(state):
    """Other numbers under the same names: what must not be taken."""
    return {
        key: value + 1 if value.ndim == 0 else (value[..., :1] - 1).expand(value.shape) for key, value in state.items()
    }


def floats(state, convert):
    return {key: convert(value) if value.ndim else value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.module.", "model.", "model._orig_mod.", "module.model.module."]
)
def test_wrappers_are_taken_off(state, arrays, prefix):
    assert same(from_torch({"state_dict": prefixed(state, prefix), "epoch": 3}, "a.pt")[0], arrays)


def test_wrappers_inside_and_around_a_part(state, arrays):
    inside = {k.replace("encoder.", "encoder._orig_mod.module."): v for k, v in state.items()}
    assert same(from_torch(prefixed(inside, "model."), "a.pt")[0], arrays)
    mixed = {("module." if key.startswith("encoder.") else "") + key: value for key, value in state.items()}
    with pytest.raises(
        InputError, match=r"several modules \(module.encoder.conv1.weight and \S+\): save the network's"
    ):
        from_torch(mixed, "a.pt")
    with pytest.raises(InputError, match="some entries twice, inside wrappers and outside: fc1.bias is one"):
        from_torch({"model.fc1.bias": state["fc1.bias"], **state}, "a.pt")


def test_what_lies_beside_a_wrapped_network_is_left_out(state, arrays, caplog):
    body = {"smpl.v_template": torch.zeros(6890, 3), "smpl.faces": torch.zeros(2, 3).int()}
    with caplog.at_level(logging.INFO):
        assert same(from_torch({"state_dict": prefixed(state, "model.") | body}, "lightning.ckpt")[0], arrays)
    assert caplog.messages == ["lightning.ckpt: left out 2 entries beside 'model.*': smpl.v_template, smpl.faces ..."]
    for inside in (prefixed(state | body, "model."), state | body):
        with pytest.raises(InputError, match=r"2 extra \(smpl.v_template, smpl.faces\)"):
            from_torch(inside, "a.pt")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(state, kind, caplog):
    half = floats(state, lambda value: value.to(kind))
    with caplog.at_level(logging.INFO):
        arrays, _ = from_torch(half, "half.pt")
    assert caplog.messages == [f"half.pt: 278 arrays of {str(kind)[6:]} became float32, which loses nothing."]
    assert all(a.dtype == np.float32 for a in arrays.values())
    np.testing.assert_array_equal(arrays["regressor.fc1.bias"], half["fc1.bias"].float().numpy())


def test_double_precision_is_rounded_and_said(state, arrays, caplog):
    double = floats(state, torch.Tensor.double)
    with caplog.at_level(logging.INFO):
        assert same(from_torch(double, "double.pt")[0], arrays)
        rounded, _ = from_torch(double | {KEY: double[KEY] + 0.1}, "double.pt")
    assert caplog.messages == [
        "double.pt: 278 arrays of float64 became float32, which loses nothing.",
        "double.pt: 278 arrays of float64 became float32, 1 of them rounded.",
    ]
    np.testing.assert_array_equal(rounded["regressor.fc1.weight"], (double[KEY] + 0.1).float().numpy())


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, about its own quantised tensors
def test_values_that_are_no_weights_are_named(state):
    shape = tuple(state[KEY].shape)
    nan = torch.zeros(shape)
    nan[3, 4] = np.nan
    for value, said in (
        (nan, "holds values that are not finite"),
        (nan.double(), "holds values that are not finite"),
        (torch.full((1, 1), 1e39, dtype=torch.float64).expand(shape), "holds values that are too large for float32"),
        (state[KEY].char(), "is int8, and weights are floats: what was quantised cannot be converted"),
        (state[KEY].to(torch.float8_e4m3fn), "is float8_e4m3fn, and weights are floats"),
        (state[KEY].cfloat(), "is complex64, and weights are floats"),
        (torch.quantize_per_tensor(state[KEY], 1.0, 0, torch.qint8), "is qint8, and weights are floats"),
        (torch.zeros(shape).to_sparse(), "is sparse: save plain dense tensors"),
        (torch.empty(shape, device="meta"), "is on the device 'meta': save plain"),
    ):
        with pytest.raises(InputError, match=rf"a.pt: {KEY} {said}"):
            from_torch(state | {KEY: value}, "a.pt")


def test_tensors_of_every_make(state, tmp_path, arrays):
    """With gradients, strides, shared memory, the negative bit; as NumPy arrays."""
    bias = state["fc1.bias"].clone()
    odd = {
        "fc1.bias": torch.nn.Parameter(bias),
        "fc2.bias": torch.complex(torch.zeros(1024), -state["fc2.bias"]).conj().imag,
        "fc1.weight": state["fc1.weight"].t().contiguous().t(),
        "decpose.bias": state["decpose.bias"].numpy(),
    }
    torch.save(state | odd, tmp_path / "odd.pt")
    assert same(to_mindspore(tmp_path / "odd.pt")[0], arrays)
    shared, _ = from_torch(state | {"fc1.bias": bias, "fc2.bias": bias}, "a.pt")
    np.testing.assert_array_equal(shared["regressor.fc2.bias"], bias.numpy())


def ema_files(state):
    other = raw(state)
    lightning = prefixed(other, "model.") | prefixed(state, "model_ema.module.")
    lucidrains = prefixed(other, "online_model.") | prefixed(state, "ema_model.") | {"initted": torch.tensor(True)}
    averaged_model = prefixed(state, "module.") | {"n_averaged": torch.tensor(5)}
    return {
        "state_dict_ema": {"state_dict": other, "state_dict_ema": state, "arch": "x", "optimizer": {}},
        "model_ema": {"model": other, "model_ema": averaged_model},
        "ema": {"model": prefixed(other, "module."), "ema": prefixed(averaged_model, "module."), "opt": {"state": {}}},
        "ema.module": {"model": other, "ema": {"module": state, "updates": 9}},
        "ema_state_dict": {"model_state_dict": other, "ema_state_dict": state},
        "params_ema": {"params": other, "params_ema": state, "ema": {}},
        "model_ema.*": {"state_dict": lightning},
        "ema_model.*": lucidrains,
    }


def test_averaged_weights_are_taken_and_said(state, arrays, caplog):
    assert not same(from_torch(raw(state), "a.pt")[0], arrays)
    for where, content in ema_files(state).items():
        caplog.clear()
        with caplog.at_level(logging.INFO):
            found, meta = from_torch(content, "a.pt")
        assert same(found, arrays), where
        assert caplog.messages == [f"a.pt: took the averaged weights ({where}), which such files are evaluated with."]
        assert meta.origin == f"official CLIFF res50, a.pt (averaged: {where})"


def test_what_openmmlab_calls_ema_are_the_raw_weights(state, arrays):
    """Its hooks swap the two before they save."""
    average, other = (renamed(s, "backbone.", "head.") for s in (state, raw(state)))
    mmengine = prefixed(other, "module.") | {"steps": torch.tensor(7)}
    mmcv = {"ema_" + k.replace(".", "_"): v for k, v in other.items() if k.endswith(("weight", "bias"))}
    for content in ({"state_dict": average, "ema_state_dict": mmengine}, {"state_dict": average | mmcv}):
        found, meta = from_torch({"meta": {}, **content}, "mm.pth")
        assert same(found, arrays)
        assert "averaged" in meta.origin


def test_averages_without_names_are_refused(state):
    with pytest.raises(InputError, match="no state dict of tensors.* below 'ema': decay, shadow_params"):
        from_torch({"model": state, "ema": {"decay": 0.9, "shadow_params": list(state.values())}}, "a.pt")


def test_safetensors_alone_and_in_shards(state, arrays, tmp_path):
    whole = {k: v.contiguous() for k, v in prefixed(state, "model.").items()}
    safetensors.torch.save_file(whole, tmp_path / "a.safetensors", metadata={"format": "pt", "body": "unknown"})
    found, meta = to_mindspore(tmp_path / "a.safetensors")
    assert same(found, arrays)
    assert (meta.body, meta.num_batches_tracked) == ("smpl", {"*": 9})
    for part in (0, 1):
        safetensors.torch.save_file(dict(list(whole.items())[part::2]), tmp_path / f"part-{part}.safetensors")
    index = tmp_path / "a.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {k: f"part-{i % 2}.safetensors" for i, k in enumerate(whole)}}))
    assert same(to_mindspore(index)[0], arrays)
    (tmp_path / "part-1.safetensors").unlink()
    for name, content, said in (
        ("a.safetensors.index.json", None, "Cannot read .*part-1.safetensors: No such file"),
        ("a.safetensors.index.json", b"{}", "has no 'weight_map'"),
        ("a.safetensors", b"\0" * 64, r"is not a .safetensors file, or it is truncated or damaged \("),
        ("none.safetensors", None, "Cannot read .*none.safetensors: No such file"),
    ):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=said):
            read_source(tmp_path / name)


def test_what_trainers_leave_beside_the_weights(state, arrays, tmp_path):
    beside = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.Path("x")),
        "optimizer": torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict(),
        "scaler": {"scale": 65536.0},
    }
    torch.save({"model_state_dict": state, **beside}, tmp_path / "model_best.pth.tar")
    assert same(to_mindspore(tmp_path / "model_best.pth.tar")[0], arrays)


@pytest.mark.filterwarnings("ignore")  # PyTorch's, about TorchScript
def test_files_that_are_something_else_are_called_what_they_are(tmp_path):
    module, weights = torch.nn.Linear(3, 2), tmp_path / "w.pt"
    torch.save(module.state_dict(), weights)
    torch.jit.save(torch.jit.script(module), tmp_path / "scripted.pt")
    torch.export.save(torch.export.export(module, (torch.ones(1, 3),)), tmp_path / "exported.pt2")
    torch.save(module, tmp_path / "module.pt")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(weights, "w.pt")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(weights, "w.pt")
    (tmp_path / "w.pt.gz").write_bytes(gzip.compress(weights.read_bytes()))
    (tmp_path / "pointer.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    (tmp_path / "page.pt").write_text("\n<!DOCTYPE html><html>")
    (tmp_path / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    for name, said in {
        "scripted.pt": "is a TorchScript archive, a program",
        "exported.pt2": "is a torch.export archive, a program",
        "module.pt": "holds the Python object torch.nn.modules.linear.Linear, .*; save only the state dict",
        "a.zip": "is a zip archive or NumPy.s .npz, not a file of torch.save",
        "a.tar": "is a tar archive",
        "w.pt.gz": "is compressed",
        "pointer.pt": "is a pointer of Git LFS",
        "page.pt": "is a web page",
        "keras.h5": "is an HDF5 file",
    }.items():
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name)) + " .*" + said):
            read_source(tmp_path / name)
