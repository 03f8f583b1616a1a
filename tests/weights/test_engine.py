"""The engine that is taken where nobody chooses, and the cache of what it runs."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import build_model
from cliff_ms.weights.checkpoint import WeightsMeta, load_weights, parameter_arrays, save_weights
from cliff_ms.weights.engine import load_network, resolve_engine
from cliff_ms.weights.export import example_inputs

pytestmark = pytest.mark.usefixtures("graph_mode")
MODEL = ModelConfig("keypoints", width=0.0625)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_weights(tmp_path / "w.safetensors", parameter_arrays(build_model(MODEL)), WeightsMeta(MODEL, "test"))
    return load_weights(tmp_path / "w.safetensors")


def cached():
    return sorted(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.onnx"))


def test_onnx_runtime_on_the_cpu_unless_asked_otherwise(weights):
    assert resolve_engine("auto", weights) == "onnxruntime"
    assert resolve_engine("mindspore", weights) == "mindspore"


@pytest.mark.slow
def test_a_network_is_exported_once_and_again_when_damaged(weights):
    inputs = example_inputs(MODEL, 2)
    expected = load_network(weights, "mindspore", 2)[0](*inputs)
    assert not cached()
    for what in ("new", "kept", "damaged"):
        if what == "damaged":
            cached()[0].write_bytes(cached()[0].read_bytes()[:-50])
        before = cached()[0].stat().st_mtime_ns if cached() else 0
        network, batch_size = load_network(weights, "auto", 2)
        assert batch_size == 2 and len(cached()) == 1
        assert (cached()[0].stat().st_mtime_ns == before) == (what == "kept")
        for ours, theirs in zip(network(*inputs), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    three = example_inputs(MODEL, 3)
    assert load_network(weights, "auto", 3)[0](*three)[0].shape == (3, 24, 3, 3)
    assert len(cached()) == 1  # one file for all batch sizes


def test_a_cache_that_cannot_be_written_is_done_without(weights, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_network(weights, "auto", 1)[0](*example_inputs(MODEL, 1))[0].shape == (1, 24, 3, 3)


def test_an_onnx_file_needs_its_engine(weights):
    with pytest.raises(InputError, match="is an ONNX file: run it with --engine onnxruntime"):
        load_network(dataclasses.replace(weights, path=Path("a.onnx")), "mindspore", 1)
