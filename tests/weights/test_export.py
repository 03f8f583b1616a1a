"""Exported networks compute the same; what cannot be exported says so."""

import numpy as np
import pytest

import mindspore as ms
from mindspore import Tensor, nn

from cliff_ms.body.smpl import SMPL
from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import FullFrameCLIFF, build_model
from cliff_ms.weights.checkpoint import WeightsMeta, load_weights
from cliff_ms.weights.engine import load_network
from cliff_ms.weights.export import example_inputs, export_network
from cliff_ms.weights.networks import mindspore_network, onnx_network, onnx_session
from cliff_ms.weights.onnx_graph import EXPORT_BATCH
from tests.toys.body import toy_body

pytestmark = pytest.mark.usefixtures("graph_mode")
META = WeightsMeta(
    ModelConfig(encoder="res18", width=0.125, crop_hw=(64, 48)), "random", "toy", error_deviations=(0.25,) * 85
)
INPUTS = ("inputs", "center", "bbox_size", "img_hw", "focal_length")


@pytest.fixture(scope="module")
def cliff():
    net = build_model(META.model)
    net.set_train(False)
    return net


@pytest.mark.slow
def test_mindir_takes_any_batch_and_is_bit_identical(cliff, tmp_path):
    assert export_network(cliff, META, tmp_path / "net.mindir", "mindir") == 0
    graph = nn.GraphCell(ms.load(str(tmp_path / "net.mindir")))
    for batch in (1, 3):
        inputs = example_inputs(META.model, batch)
        expected = mindspore_network(cliff, META.model)(*inputs)
        for got, want in zip(graph(*(Tensor(a) for a in inputs)), expected, strict=True):
            np.testing.assert_array_equal(got.asnumpy(), want)
    assert load_weights(tmp_path / "net.mindir").meaning == META


def full_frame(cliff, meta, body=None):
    net = FullFrameCLIFF(cliff, meta.model.bbox_norm, SMPL(body) if body else None)
    net.set_train(False)
    return lambda inputs: [t.asnumpy() for t in net(*(Tensor(a) for a in inputs))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("meta", "body"),
    [(META, None), (META, toy_body()), (WeightsMeta(ModelConfig("keypoints", width=0.125), "x"), None)],
)
def test_onnx_takes_any_batch_and_names_what_goes_in_and_out(tmp_path, meta, body):
    path, cliff = tmp_path / "net.onnx", build_model(meta.model)
    cliff.set_train(False)
    assert export_network(cliff, meta, path, "onnx", body=body) < 1e-5
    assert load_weights(path).meaning == meta
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.json"]
    session, expected = onnx_session(path), full_frame(cliff, meta, body)
    assert {i.name: i.shape[0] for i in session.get_inputs()} == dict.fromkeys(INPUTS, "N")
    outputs = ["pred_rotmat", "pred_betas", "pred_cam_crop", "pred_cam_full", *(["vertices", "joints"] if body else [])]
    assert [(o.name, o.shape[0]) for o in session.get_outputs()] == [(name, "N") for name in outputs]
    for batch in (1, 3, 8, EXPORT_BATCH):
        inputs = example_inputs(meta.model, batch)
        got = session.run(outputs, dict(zip(INPUTS, inputs, strict=True)))
        for ours, theirs in zip(got, expected(inputs), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_onnx_of_one_batch_size(cliff, tmp_path):
    assert export_network(cliff, META, tmp_path / "two.onnx", "onnx", 2) < 1e-5
    network, batch_size = onnx_network(tmp_path / "two.onnx")
    assert batch_size == 2
    inputs = example_inputs(META.model, 2)
    for got, want in zip(network(*inputs), full_frame(cliff, META)(inputs), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert load_network(load_weights(tmp_path / "two.onnx"), "auto", 5)[1] == 2
    export_network(cliff, META, tmp_path / "any.onnx", "onnx")
    assert load_network(load_weights(tmp_path / "any.onnx"), "auto", 5)[1] == 5


def test_what_cannot_be_exported_or_read_is_said(cliff, tmp_path):
    with pytest.raises(InputError, match="Ascend"):
        export_network(cliff, META, tmp_path / "net.air", "air")
    with pytest.raises(InputError, match="must end in .onnx"):
        export_network(cliff, META, tmp_path / "net.mindir", "onnx")
    export_network(cliff, META, tmp_path / "net.onnx", "onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "net.onnx").read_bytes()[:1000])
    with pytest.raises(InputError, match="no side-car"):
        load_weights(tmp_path / "cut.onnx")
    (tmp_path / "cut.onnx.json").write_bytes((tmp_path / "net.onnx.json").read_bytes())
    with pytest.raises(InputError, match="sha256 differs"):
        load_weights(tmp_path / "cut.onnx")
