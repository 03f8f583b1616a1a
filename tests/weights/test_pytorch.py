"""PyTorch checkpoints: bit-identical round trips, every dialect, and every misfit named."""

import dataclasses
import json
import logging
import os
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliff_ms import cli
from cliff_ms.commands import convert
from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import build_model
from cliff_ms.weights.checkpoint import WeightsMeta, load_encoder, load_weights, parameter_arrays, save_weights
from cliff_ms.weights.pytorch import from_torch, parameter_shapes, save_torch, to_mindspore, to_torch
from cliff_ms.weights.sources import read_source
from tests.golden import weights
from tests.paths import GOLDEN
from tests.toys.state_dict import blank_state, renamed

RELEASED = {"bbox_norm": "released", "crop_style": "rounded", "crop_hw": (256, 192)}


def encoder_of(state):
    return {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")}


def identical(a, b):
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a
    )


def same_arrays(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


def module_tree(schema):
    """A PyTorch module with exactly these parameters and buffers."""
    root = torch.nn.Module()
    for name, shape in schema.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        if leaf in ("weight", "bias"):
            module.register_parameter(leaf, torch.nn.Parameter(torch.empty(shape)))
        else:
            module.register_buffer(leaf, torch.empty(shape, dtype=torch.int64 if leaf[:4] == "num_" else torch.float32))
    return root


def run_convert(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, args)])
    with pytest.raises(SystemExit) as caught:
        cli.run(convert.main)
    return caught.value.code


@pytest.mark.slow
def test_command_line_round_trip_is_bit_identical(tmp_path, monkeypatch, capsys):
    state = {f"module.{n}": torch.tensor(a) for n, a in weights.state_dict("res50").items()}
    state["module.encoder.layer2.0.bn1.num_batches_tracked"] = torch.tensor(2**40)
    torch.save({"model": state, "epoch": 5, "best": np.float64(69.0), "seen": np.arange(3)}, tmp_path / "official.pt")
    for suffix in (".ckpt", ".safetensors"):
        ours, back = tmp_path / f"ours{suffix}", tmp_path / f"back{suffix}.pt"
        assert run_convert(monkeypatch, "--to", "mindspore", tmp_path / "official.pt", ours) == 0
        assert "official CLIFF res50, official.pt; model with encoder res50, 278 arrays" in capsys.readouterr().out
        assert load_weights(ours).meaning == WeightsMeta(
            ModelConfig(encoder="res50", **RELEASED),
            "official CLIFF res50, official.pt",
            num_batches_tracked={"*": 1, "encoder.layer2.0.bn1": 2**40},
        )
        assert run_convert(monkeypatch, "--to", "torch", ours, back) == 0
        written = torch.load(back, weights_only=True)["model"]
        assert identical(written, state)
    net = module_tree(json.loads((GOLDEN / "schema_official_res50.json").read_text()))
    net.load_state_dict({n.removeprefix("module."): v for n, v in written.items()}, strict=True)
    assert identical(net.state_dict(), {n.removeprefix("module."): v for n, v in state.items()})


@pytest.mark.slow
def test_hr48_names_and_shapes():
    state = blank_state("hr48")
    arrays, meta = from_torch({"model": state}, "hr48.pt")
    assert meta.model == ModelConfig(encoder="hr48", **RELEASED)
    assert {n: a.shape for n, a in arrays.items()} == parameter_shapes(meta.model, "model")
    back = to_torch(arrays, meta)["model"]
    assert identical({n.removeprefix("module."): v for n, v in back.items()}, state)
    encoder, meta = from_torch(encoder_of(state) | {"classifier.weight": torch.zeros(1000, 2048)}, "hrnet.pth")
    assert (meta.part, meta.model.encoder) == ("encoder", "hr48")
    assert same_arrays(encoder, {n: a for n, a in arrays.items() if n.startswith("encoder.")})


def test_each_entry_goes_to_its_own_name():
    state = blank_state("res50")
    arrays, _ = from_torch(state, "a.pt")
    batch_norm = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for name, array in arrays.items():
        *path, leaf = name.removeprefix("regressor.").split(".")
        assert np.all(array == state[".".join([*path, batch_norm.get(leaf, leaf)])].numpy()), name


@given(st.randoms(use_true_random=False), st.sampled_from(["", "module."]))
@settings(max_examples=5, deadline=None)
def test_order_of_keys_does_not_matter(random, prefix):
    state = blank_state("res50")
    expected, meta = from_torch(state, "a.pt")
    keys = list(state)
    random.shuffle(keys)
    arrays, again = from_torch({"state_dict": {prefix + k: state[k] for k in keys}}, "a.pt")
    assert same_arrays(arrays, expected)
    assert again == meta


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_wrong_entry_is_named(data):
    state = blank_state("res50")
    key = data.draw(st.sampled_from([k for k in state if not k.endswith("num_batches_tracked")]))
    value = state.pop(key)
    wrong = {
        f"1 missing ({key})": {},
        f"1 missing ({key}); 1 extra ({key}_)": {key + "_": value},
        f"1 misshapen ({key} is {(1, *value.shape)} float32, expected {tuple(value.shape)} float32)": {
            key: value[None]
        },
        "1 extra (encoder.layer5.weight)": {key: value, "encoder.layer5.weight": value},
        "1 extra (conv.num_batches_tracked)": {key: value, "conv.num_batches_tracked": torch.tensor(1)},
    }
    for said, entries in wrong.items():
        with pytest.raises(InputError) as caught:
            from_torch(state | entries, "some.pt")
        assert "some.pt, read as official CLIFF res50, does not fit that network: " in str(caught.value)
        assert said in str(caught.value)


def test_batch_norm_counters():
    state = blank_state("res50")
    counters = [k for k in state if k.endswith("num_batches_tracked")]
    bare = {k: v for k, v in state.items() if k not in counters}
    arrays, meta = from_torch(bare, "old.pt")
    assert meta.num_batches_tracked == {}
    written = to_torch(arrays, meta)["model"]
    assert {int(written[f"module.{k}"]) for k in counters} == {0}
    _, meta = from_torch(state | {counters[3]: torch.tensor(7, dtype=torch.int32)}, "old.pt")
    assert sorted(meta.num_batches_tracked.values()) == [7, 9]
    _, meta = from_torch(state | {k: torch.tensor(70000.0).half() for k in counters}, "half.pt")  # infinite
    assert meta.num_batches_tracked == {}
    with pytest.raises(InputError, match=f"{counters[3]} must be one number"):
        from_torch(state | {counters[3]: torch.tensor([9])}, "old.pt")


def test_mmhuman3d(caplog):
    state = blank_state("res50")
    expected, _ = from_torch(state, "a.pt")
    body = {"body_model_train.v_template": torch.zeros(6890, 3), "body_model_test.faces": torch.zeros(1, 3).int()}
    content = {"meta": {"epoch": 250}, "state_dict": renamed(state, "backbone.", "head.") | body}
    with caplog.at_level(logging.WARNING):
        arrays, meta = from_torch(content, "resnet50_cliff.pth")
    assert same_arrays(arrays, expected)
    assert meta.model == ModelConfig(encoder="res50", bbox_norm="released", crop_hw=(256, 192), crop_style="affine")
    assert "crops of b x 4b/3 px" in meta.origin
    assert len(caplog.records) == 1


def test_hmr_gets_three_zero_columns_for_the_location():
    state = renamed(blank_state("res50"), "", "")
    columns = torch.arange(2205.0).expand(1024, 2205)
    arrays, meta = from_torch({"model": state | {"fc1.weight": columns}, "total_step_count": 7}, "spin.pt")
    expected, _ = from_torch(blank_state("res50"), "a.pt")
    widened = arrays.pop("regressor.fc1.weight")
    expected.pop("regressor.fc1.weight")
    assert same_arrays(arrays, expected)
    assert np.array_equal(widened[3], [*range(2048), 0, 0, 0, *range(2048, 2205)])
    assert meta.model == ModelConfig(encoder="res50", crop_hw=(224, 224), location_input=True)
    with pytest.raises(InputError, match=r"fc1.weight is \(1024, 2208\) float32, expected \(1024, 2205\)"):
        from_torch(state, "spin.pt")


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["res18", "res50"])
def test_torchvision_encoder(encoder, tmp_path, monkeypatch):
    shapes = parameter_shapes(ModelConfig(encoder=encoder), "encoder")
    arrays = {n: np.full(shape, i, np.float32) for i, (n, shape) in enumerate(shapes.items())}
    meta = WeightsMeta(ModelConfig(encoder=encoder), "made up", part="encoder", num_batches_tracked={"*": 5})
    plain = to_torch(arrays, meta)
    assert {"conv1.weight", "layer4.1.bn2.running_var", "layer4.1.bn2.num_batches_tracked"} <= plain.keys()
    torch.save(plain | {"fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet.pth")

    assert run_convert(monkeypatch, "--to", "mindspore", tmp_path / "resnet.pth", tmp_path / "encoder.ckpt") == 0
    weights = load_weights(tmp_path / "encoder.ckpt")
    loaded, meta = weights.arrays, weights.meaning
    assert same_arrays(loaded, arrays)
    assert (meta.part, meta.model.encoder, meta.num_batches_tracked) == ("encoder", encoder, {"*": 5})
    net = build_model(meta.model)
    load_encoder(net, weights)
    assert same_arrays({n: a for n, a in parameter_arrays(net).items() if n.startswith("encoder.")}, arrays)

    assert run_convert(monkeypatch, "--to", "torch", tmp_path / "encoder.ckpt", tmp_path / "back.pt") == 0
    assert identical(torch.load(tmp_path / "back.pt", weights_only=True), plain)
    with pytest.raises(InputError, match="needs a whole model"):
        to_torch(loaded, meta, "official")


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(encoder="keypoints"),
        ModelConfig(encoder="res18", width=0.125, crop_hw=(64, 48), location_input=False),
    ],
)
def test_our_own_conventions_travel_through_pytorch(model, tmp_path):
    arrays = parameter_arrays(build_model(model))
    meta = WeightsMeta(model, "trained here", body="toy", metrics={"mpjpe_mm": 80.5}, num_batches_tracked={"*": 3})
    meta = dataclasses.replace(meta, error_deviations=tuple(0.1 * k for k in range(1, 86)))
    save_torch(tmp_path / "a.pt", to_torch(arrays, meta))
    loaded, again = to_mindspore(tmp_path / "a.pt")
    assert same_arrays(loaded, arrays)
    assert again == meta


def test_neighbours_of_cliff_are_refused_with_the_reason():
    fc1 = "model.head.fc1.weight"
    for state, said in (
        ({fc1: torch.zeros(1024, 869), "model.head.decpose.weight": torch.zeros(132, 1024)}, "BEDLAM's SMPL-X head"),
        ({"decshape.weight": torch.zeros(11, 1024)}, "BEDLAM's SMPL-X head"),
        ({fc1: torch.zeros(1024, 880), "model.backbone.stage4.0.weight": torch.zeros(1)}, "720 features"),
        ({"smpl_head.transformer.token": torch.zeros(1), "backbone.x": torch.zeros(1)}, "4D-Humans or CameraHMR"),
        ({"conv1.weight": torch.zeros(1), "stage4.0.branches.0.weight": torch.zeros(1)}, "pose-HRNet"),
    ):
        with pytest.raises(InputError, match=f"x.ckpt cannot be converted: it .*{said}"):
            from_torch({"state_dict": state}, "x.ckpt")
    with pytest.raises(InputError, match=r"not a known kind of weights .* its first entries are a, b, c, d, e\.$"):
        from_torch({k: torch.zeros(1) for k in "abcdefg"}, "x.pt")
    with pytest.raises(InputError, match=r"not a known kind of weights \(mmhuman3d CLIFF\)"):
        from_torch(blank_state("res50"), "x.pt", "mmhuman3d")
    for content in ({}, [1], {"model": {"a": 1}}, {"epoch": 3, "path": "x"}):
        with pytest.raises(InputError, match="holds no state dict of tensors"):
            from_torch(content, "x.pt")
    with pytest.raises(InputError, match="holds some entries twice"):
        from_torch({"module.a": torch.zeros(1), "a": torch.zeros(1)}, "x.pt")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("as_zip", [True, False])
def test_unsafe_and_damaged_files(tmp_path, as_zip):
    path = tmp_path / "a.pt"
    torch.save({"model": Malicious(str(tmp_path / "pwned"))}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(InputError, match=r"refused: it holds the Python object \w+\.mkdir"):
        read_source(path)
    assert not (tmp_path / "pwned").exists()
    torch.save({"model": {"a": torch.zeros(1000)}}, path, _use_new_zipfile_serialization=as_zip)
    whole = path.read_bytes()
    for damaged in (b"", whole[:99], whole[: len(whole) // 2], whole[:-9], b"hello", bytes(range(256)) * 9):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="is not a PyTorch weights file, or it is truncated or damaged"):
            read_source(path)
    for missing in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(InputError, match="Cannot read"):
            read_source(missing)


def test_command_line_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    torch.save(blank_state("res50")["fc1.bias"], tmp_path / "a.pt")
    net = build_model(ModelConfig(encoder="res18", width=0.125))
    model = WeightsMeta(ModelConfig(encoder="res18", width=0.25), "not what it says")
    save_weights(tmp_path / "a.safetensors", parameter_arrays(net), model)
    for args, said in (
        (("mindspore", "a.pt", "b.onnx"), "b.onnx must end in .ckpt or .safetensors"),
        (("mindspore", "a.pt", "none/b.ckpt"), "there is no folder"),
        (("mindspore", "a.pt", "b.ckpt"), "holds no state dict of tensors"),
        (("mindspore", "none.pt", "b.ckpt"), "No such file"),
        (("torch", "a.safetensors", "b.ckpt"), "b.ckpt must end in .pt or .pth"),
        (("torch", "a.pt", "b.pt"), "is a PyTorch file"),
        (("torch", "a.pt", "a.pt"), "would be overwritten"),
        (("torch", "a.safetensors", "b.pt"), "do not fit the network res18"),
        (("torch", "a.safetensors", "b.pt", "--dialect", "hmr"), "'hmr' can only be read"),
    ):
        paths = [tmp_path / name for name in args[1:3]]
        assert run_convert(monkeypatch, "--to", args[0], *paths, *args[3:]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert said in error
        assert len(error.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "a.safetensors", "a.safetensors.json"]


def test_a_whole_model_can_give_its_encoder():
    model = ModelConfig(encoder="res18", width=0.125)
    arrays = parameter_arrays(build_model(model))
    plain = to_torch(arrays, WeightsMeta(model, "trained here"), "imagenet")
    assert "conv1.weight" in plain
    assert not any(key.startswith(("fc", "dec", "init", "module", "encoder")) for key in plain)
