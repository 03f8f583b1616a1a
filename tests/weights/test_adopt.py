"""MindSpore weights without a side-car: the shapes tell the network, the user the rest."""

import sys

import numpy as np
import pytest

import mindspore as ms

from cliff_ms import cli
from cliff_ms.commands import convert
from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import build_model
from cliff_ms.weights.adopt import Conventions, adopt, is_mindspore
from cliff_ms.weights.checkpoint import WeightsMeta, load_weights, parameter_arrays, save_weights, side_car

RES18 = ModelConfig("res18", width=0.125, crop_hw=(64, 48), crop_style="rounded", bbox_norm="released")
SAID = ("--bbox_norm", "released", "--crop_style", "rounded", "--crop_hw", "64", "48", "--body", "toy")


def bare(path, model, part="model"):
    """Weights on their own, as somebody may have been sent them; returns the arrays."""
    arrays = parameter_arrays(build_model(model))
    if part == "encoder":
        arrays = {name: array for name, array in arrays.items() if name.startswith("encoder.")}
    save_weights(path, arrays, WeightsMeta(model, "x", part=part))
    side_car(path).unlink()
    return arrays


def same(a, b):
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and np.array_equal(a[n], b[n]) for n in a)


def run_convert(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["convert.py", "--to", "mindspore", *map(str, args)])
    with pytest.raises(SystemExit) as caught:
        cli.run(convert.main)
    return caught.value.code


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_the_refusal_leads_to_a_side_car(tmp_path, monkeypatch, capsys, suffix):
    source, target = tmp_path / f"old{suffix}", tmp_path / f"NEW{suffix}"
    arrays = bare(source, RES18)
    with pytest.raises(InputError, match=rf"or make it: python convert.py --to mindspore {source} NEW{suffix}\.$"):
        load_weights(source)
    assert run_convert(monkeypatch, source, target) == 2
    said = "--bbox_norm eq5|released --crop_hw H W --body NAME --crop_style affine|rounded."
    assert capsys.readouterr().err.endswith(f"do not tell how it was trained: say so with {said}\n")
    assert run_convert(monkeypatch, source, target, *SAID) == 0
    weights = load_weights(target)
    assert same(weights.arrays, arrays)
    assert weights.meaning == WeightsMeta(RES18, f"MindSpore weights {source.name}, conventions by hand", body="toy")
    for args, text in (
        (SAID, "goes with MindSpore weights without a side-car: "),
        (("--dialect", "hmr"), "is MindSpore's"),
    ):
        assert run_convert(monkeypatch, target, tmp_path / "again.ckpt", *args) == 2
        assert text in capsys.readouterr().err
    assert run_convert(monkeypatch, target, tmp_path / "again.ckpt") == 0  # the other format, with what it means
    again = load_weights(tmp_path / "again.ckpt")
    assert same(again.arrays, arrays)
    assert again.meaning == weights.meaning


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        (ModelConfig("keypoints", width=0.0625, joint_set="openpose25"), ["--bbox_norm", "--crop_hw", "--body"]),
        (ModelConfig("keypoints", width=0.0625, location_input=False), ["--crop_hw", "--body"]),
        (ModelConfig("res18", width=0.25, location_input=False), ["--crop_hw", "--body", "--crop_style"]),
    ],
)
def test_only_what_matters_and_no_shape_tells_is_asked(tmp_path, model, asked):
    path = tmp_path / "a.ckpt"
    arrays = bare(path, model)
    with pytest.raises(InputError) as caught:
        adopt(path, Conventions())
    assert [word for word in str(caught.value).split() if word.startswith("--")] == asked
    found, meta = adopt(path, Conventions("eq5", "affine", (256, 192), "smpl"))
    assert same(found, arrays)
    assert meta.model == model


def test_an_encoder_needs_no_conventions(tmp_path):
    arrays = bare(tmp_path / "a.ckpt", RES18, "encoder")
    found, meta = adopt(tmp_path / "a.ckpt", Conventions())
    assert same(found, arrays)
    assert (meta.part, meta.model) == ("encoder", ModelConfig("res18", width=0.125))


def test_a_checkpoint_of_a_training(tmp_path):
    """As MindSpore's ModelCheckpoint writes it: wrapped, in half precision, with moments and counters."""
    arrays = parameter_arrays(build_model(RES18))
    for prefix in ("", "network."):
        moments = {f"{m}.{prefix}{name}": array for m in ("moment1", "moment2") for name, array in arrays.items()}
        counters = {"global_step": np.array([7], np.int32), "learning_rate": np.array(0.1, np.float32)}
        saved = {prefix + name: array for name, array in arrays.items()} | moments | counters
        half = [{"name": name, "data": ms.Tensor(array.astype(np.float16))} for name, array in saved.items()]
        ms.save_checkpoint(half, str(tmp_path / "a.ckpt"))
        found, _ = adopt(tmp_path / "a.ckpt", Conventions("released", "rounded", (64, 48), "smpl"))
        assert same(found, {name: array.astype(np.float16).astype(np.float32) for name, array in arrays.items()})


def test_arrays_of_another_network_are_refused(tmp_path):
    arrays = bare(tmp_path / "a.ckpt", RES18)
    missing = {name: array for name, array in arrays.items() if name != "encoder.bn1.gamma"}
    for entries, said in (
        ({"a": np.zeros(2, np.float32)}, "holds no arrays of CLIFF"),
        ({"encoder.a": np.zeros(2, np.float32)}, "has none of the encoders here"),
        (missing, r"read as res18, does not fit that network: 1 missing \(encoder.bn1.gamma\)"),
        (arrays | {"regressor.x.y": np.zeros(2, np.float32)}, r"1 extra \(regressor.x.y\)"),
        (
            arrays | {"encoder.bn1.gamma": np.full(8, np.nan, np.float32)},
            "encoder.bn1.gamma holds values that are not f",
        ),
    ):
        ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in entries.items()], str(tmp_path / "b.ckpt"))
        assert is_mindspore(tmp_path / "b.ckpt")
        with pytest.raises(InputError, match=said):
            adopt(tmp_path / "b.ckpt", Conventions("eq5", "affine", (64, 48), "smpl"))
    with pytest.raises(InputError, match="the conventions given: .*crop_hw must be at least 32"):
        adopt(tmp_path / "a.ckpt", Conventions("eq5", "affine", (8, 8), "smpl"))
