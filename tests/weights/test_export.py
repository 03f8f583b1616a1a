"""Exported networks compute the same; what cannot be exported says so."""

import numpy as np
import pytest

import mindspore as ms
from mindspore import Tensor, nn

from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import build_model
from cliff_ms.weights.checkpoint import WeightsMeta, load_weights
from cliff_ms.weights.export import example_inputs, export_network
from cliff_ms.weights.networks import mindspore_network, onnx_network
from tests.toys.body import toy_body

pytestmark = pytest.mark.usefixtures("graph_mode")
META = WeightsMeta(
    ModelConfig(encoder="res18", width=0.125, crop_hw=(64, 48)), "random", "toy", error_deviations=(0.25,) * 85
)


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


@pytest.mark.slow
@pytest.mark.parametrize("with_body", [False, True])
def test_onnx_runs_in_onnx_runtime(cliff, tmp_path, with_body):
    path = tmp_path / "net.onnx"
    assert export_network(cliff, META, path, "onnx", 2, toy_body() if with_body else None) < 1e-5
    network, batch_size = onnx_network(path)
    assert (load_weights(path).meaning, batch_size) == (META, 2)
    inputs = example_inputs(META.model, 2)
    for got, want in zip(network(*inputs), mindspore_network(cliff, META.model)(*inputs), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.json"]


def test_keypoint_network_exports(tmp_path):
    meta = WeightsMeta(ModelConfig(encoder="keypoints"), origin="random")
    assert export_network(build_model(meta.model), meta, tmp_path / "k.onnx", "onnx") < 1e-5


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
