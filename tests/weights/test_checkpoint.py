"""Weights files: bit-identical round trips, and every wrong pair, file or network is refused by name."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mindspore import nn

from cliff_ms import runtime
from cliff_ms.body.errors import expected_deviations
from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import build_model
from cliff_ms.weights import checkpoint
from cliff_ms.weights.checkpoint import (
    WeightsMeta,
    load_encoder,
    load_into,
    load_weights,
    parameter_arrays,
    save_weights,
    side_car,
)
from cliff_ms.weights.networks import load_model

SMALL = ModelConfig(encoder="res18", width=0.125, crop_hw=(64, 48))
META = WeightsMeta(
    SMALL, "a test", body="toy", metrics={"mpjpe_mm": 1.5}, num_batches_tracked={"*": 3, "encoder.bn1": 4}
)
SUFFIXES = (".ckpt", ".safetensors")
DEVIATIONS = tuple(float(x) for x in range(1, 86))


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    runtime.setup_device("CPU")


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"weights{request.param}"


class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.encoder = nn.SequentialCell([nn.Conv2d(3, 4, 3, has_bias=True), nn.BatchNorm2d(4)])
        self.regressor = nn.Dense(4, 2)


def random_arrays(net, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(p.shape).astype(np.float32) for n, p in net.parameters_and_names()}


def same(a, b):
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


@given(
    st.dictionaries(
        st.text("abc.01_", min_size=1),
        hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=4), elements=st.floats(width=32)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None)
def test_arrays_survive_bit_by_bit(tmp_path_factory, arrays):
    folder = tmp_path_factory.mktemp("weights")
    for suffix in SUFFIXES:
        save_weights(folder / f"w{suffix}", arrays, META)
        weights = load_weights(folder / f"w{suffix}")
        assert same(weights.arrays, arrays)
        assert weights.meaning == META


def test_measured_errors_travel_and_are_checked(tmp_path):
    path = tmp_path / "w.safetensors"
    arrays = {"a": np.zeros(3, np.float32)}
    save_weights(path, arrays, dataclasses.replace(META, error_deviations=DEVIATIONS))
    meaning = load_weights(path).meaning
    assert meaning.error_deviations == DEVIATIONS
    np.testing.assert_array_equal(meaning.expected_deviations(), DEVIATIONS)
    np.testing.assert_array_equal(META.expected_deviations(), expected_deviations())
    values = json.loads(side_car(path).read_text())
    for wrong in (DEVIATIONS[:84], (0.0, *DEVIATIONS[1:]), (float("nan"), *DEVIATIONS[1:]), ("x", *DEVIATIONS[1:]), 3):
        side_car(path).write_text(json.dumps(values | {"error_deviations": wrong}))
        with pytest.raises(InputError, match=r"w.safetensors.json: .*error_deviations"):
            load_weights(path)
    del values["error_deviations"]  # as side-cars were written before
    side_car(path).write_text(json.dumps(values))
    assert load_weights(path).meaning == META


def test_only_the_pair_is_left_and_anyone_may_read_it(path):
    for seed in (0, 1):  # the second replaces the first
        save_weights(path, random_arrays(Net(), seed), META)
    assert sorted(path.parent.iterdir()) == [path, side_car(path)]
    assert [f.stat().st_mode & 0o777 for f in path.parent.iterdir()] == [0o644, 0o644]
    written = json.loads(side_car(path).read_text())
    assert written["format"] == 1
    assert written["model"]["encoder"] == "res18"
    assert written["rot6d_layout"] == "3x2"
    assert same(load_weights(path).arrays, random_arrays(Net(), 1))


@pytest.mark.parametrize("renames_before_the_kill", [0, 1])
def test_killed_while_replacing(path, monkeypatch, renames_before_the_kill):
    before = random_arrays(Net(), 0)
    save_weights(path, before, META)
    rename, done = type(path).replace, []

    def replace(self, target):
        if len(done) == renames_before_the_kill:
            raise KeyboardInterrupt
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(type(path), "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_weights(path, random_arrays(Net(), 1), dataclasses.replace(META, origin="another"))
    assert done == [path][:renames_before_the_kill]
    if renames_before_the_kill == 0:
        weights = load_weights(path)
        assert same(weights.arrays, before)
        assert weights.meaning == META
    else:
        with pytest.raises(InputError, match="sha256 differs"):
            load_weights(path)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:], lambda b: b""])
def test_altered_weights_are_refused(path, damage):
    save_weights(path, random_arrays(Net()), META)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="sha256 differs"):
        load_weights(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "not a side-car of format 1"),
        ({"rot6d_layout": "2x3"}, "'rot6d_layout' must be '3x2', but got '2x3'"),
        ({"part": "head"}, "part must be one of model, encoder, but got 'head'"),
        ({"bodi": "smpl"}, "unknown key 'bodi'; the nearest known key is 'body'"),
        ({"model": {"encoder": "vit"}}, "model.encoder must be one of"),
        ({"model": {"encoder": 5}}, "model.encoder must be one of res18, .*, but got 5"),
        ({"model": None}, "'model' must be a mapping"),
        ({"sha256": None}, "sha256 differs"),
    ],
)
def test_foreign_side_car_is_refused(tmp_path, change, said):
    path = tmp_path / "w.safetensors"
    save_weights(path, random_arrays(Net()), META)
    values = json.loads(side_car(path).read_text())
    side_car(path).write_text(json.dumps(values | change))
    with pytest.raises(InputError, match=said):
        load_weights(path)


def test_a_side_car_of_before_the_loss_moved_to_training(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, random_arrays(Net()), META)
    values = json.loads(side_car(path).read_text())
    values["model"]["full_frame_loss"] = False
    side_car(path).write_text(json.dumps(values))
    assert load_weights(path).meaning == META


def test_an_exported_network_has_a_meaning_but_no_arrays(tmp_path):
    with checkpoint.file_with_side_car(tmp_path / "net.onnx", META, (".onnx",)) as file:
        file.write_bytes(b"a graph")
    weights = load_weights(tmp_path / "net.onnx")
    assert weights.meaning == META
    with pytest.raises(InputError, match="must end in .ckpt or .safetensors, but ends in '.onnx'"):
        _ = weights.arrays


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format": 1}', '{"format": 1, "model": {}}'])
def test_side_car_must_be_one(tmp_path, text):
    path = tmp_path / "w.safetensors"
    save_weights(path, random_arrays(Net()), META)
    side_car(path).write_text(text)
    with pytest.raises(InputError, match=r"w\.safetensors\.json"):
        load_weights(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.ckpt", "There is no file"),
        ("bare.ckpt", "has no side-car bare.ckpt.json beside it"),
        ("w.pt", r"is a PyTorch file: convert it first with python convert.py --to mindspore .*w.pt .*w.ckpt"),
        ("w.pth", "is a PyTorch file"),
        ("w.h5", "must end in .ckpt or .safetensors, but ends in '.h5'"),
    ],
)
def test_wrong_file_is_refused(tmp_path, name, said):
    (tmp_path / "bare.ckpt").write_bytes(b"x")
    with pytest.raises(InputError, match=said):
        load_weights(tmp_path / name)


def test_foreign_content_with_a_matching_side_car_is_refused(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write_arrays", lambda target, arrays: target.write_bytes(b"junk" * 99))
    save_weights(path, {}, META)
    with pytest.raises(InputError, match=f"is not a {path.suffix} weights file"):
        _ = load_weights(path).arrays


def test_targets_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.ckpt").mkdir()
    for target, said in (
        (tmp_path / "w.npz", "must end in .ckpt or .safetensors"),
        (tmp_path / "none" / "w.ckpt", "there is no folder"),
        (tmp_path / "folder.ckpt", "it is a folder"),
    ):
        with pytest.raises(InputError, match=said):
            save_weights(target, {}, META)


def test_disk_failure_leaves_the_previous_pair(path, monkeypatch):
    save_weights(path, random_arrays(Net()), META)

    def fail(target, arrays):
        target.with_name("left-over").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_arrays", fail)
    with pytest.raises(InputError, match="No space left on device"):
        save_weights(path, random_arrays(Net(), 1), META)
    assert sorted(path.parent.iterdir()) == [path, side_car(path)]
    assert same(load_weights(path).arrays, random_arrays(Net()))


def test_load_into_is_strict_and_all_or_nothing():
    net = Net()
    before, good = parameter_arrays(net), random_arrays(net)
    weight = good["encoder.0.weight"]
    without = {n: a for n, a in good.items() if n != "encoder.1.gamma"}
    for wrong, said in (
        (without, r"1 missing \(encoder.1.gamma\)"),
        (good | {"head.x": weight}, r"1 extra \(head.x\)"),
        (
            good | {"encoder.0.weight": weight[:2]},
            r"1 misshapen \(encoder.0.weight is \(2, 3, 3, 3\) float32, expected",
        ),
        (good | {"encoder.0.weight": weight.astype(np.float16)}, r".*is \(4, 3, 3, 3\) float16, expected"),
        ({f"net.{n}": a for n, a in good.items()}, r"8 missing .* and 3 more\); 8 extra \(net.encoder.* and 3 more\)"),
    ):
        with pytest.raises(InputError, match=f"a.ckpt does not fit the network: {said}"):
            load_into(net, wrong, "a.ckpt")
        assert same(parameter_arrays(net), before)
    load_into(net, good, "a.ckpt")
    assert same(parameter_arrays(net), good)
    good["encoder.0.weight"][:] = 7  # the network keeps its own copy
    assert not (parameter_arrays(net)["encoder.0.weight"] == 7).any()


def test_model_and_encoder_files(tmp_path):
    net = build_model(SMALL)
    arrays = random_arrays(net)
    save_weights(tmp_path / "model.ckpt", arrays, META)
    weights = load_weights(tmp_path / "model.ckpt")
    assert weights.meaning == META
    assert same(parameter_arrays(load_model(weights)), arrays)

    encoder = checkpoint.encoder_entries(arrays)
    save_weights(tmp_path / "encoder.ckpt", encoder, dataclasses.replace(META, part="encoder"))
    with pytest.raises(InputError, match="holds only an encoder"):
        load_model(load_weights(tmp_path / "encoder.ckpt"))
    for name in ("encoder.ckpt", "model.ckpt"):
        fresh = build_model(SMALL)
        head = {n: a for n, a in parameter_arrays(fresh).items() if not n.startswith("encoder.")}
        load_encoder(fresh, load_weights(tmp_path / name))
        assert same(parameter_arrays(fresh), encoder | head)
    wider = build_model(dataclasses.replace(SMALL, width=0.25))
    with pytest.raises(InputError, match="misshapen"):
        load_encoder(wider, load_weights(tmp_path / "encoder.ckpt"))


def test_safetensors_file_is_plain(tmp_path):
    arrays = random_arrays(Net())
    save_weights(tmp_path / "w.safetensors", arrays, META)
    assert same(safetensors.numpy.load_file(tmp_path / "w.safetensors"), arrays)
