"""The network of a weights file, run by MindSpore or ONNX Runtime."""

import os
import tempfile
from pathlib import Path

import mindspore as ms

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import prepare_output_dir, remove_unfinished
from cliff_ms.weights.checkpoint import Weights, side_car
from cliff_ms.weights.export import export_network
from cliff_ms.weights.networks import Network, load_model, mindspore_network, onnx_network

_KEPT = 8  # networks in the cache, up to 400 MB each


def resolve_engine(engine: str, weights: Weights) -> str:
    """Choose the engine where nobody has: MindSpore on Ascend and GPU, ONNX Runtime on the CPU and for an .onnx.

    MindSpore hands oneDNN plain layouts, for which only AVX2 has a fast 3x3 convolution: on a processor ONNX Runtime
    takes half the time for a network that reads pixels.

    Args:
        engine: 'auto', 'mindspore' or 'onnxruntime'.
        weights: What it is to run.

    Returns:
        'mindspore' or 'onnxruntime'.
    """
    if engine != "auto":
        return engine
    on_cpu = ms.get_context("device_target") == "CPU"
    return "onnxruntime" if on_cpu or weights.path.suffix == ".onnx" else "mindspore"


def load_network(weights: Weights, engine: str, batch_size: int) -> tuple[Network, int]:
    """Set up a network for inference.

    What ONNX Runtime runs is exported once and kept in the user's cache folder.

    Args:
        weights: A file of weights, or an exported .onnx.
        engine: 'mindspore', on the device that `runtime.setup_device` chose, 'onnxruntime', on the CPU, or 'auto', see
            `resolve_engine`.
        batch_size: People that go through the network at once; an .onnx may have its own.

    Returns:
        The network and its batch size.

    Raises:
        InputError: If the file is foreign, or of the other engine.
    """
    engine = resolve_engine(engine, weights)
    if weights.path.suffix == ".onnx":
        if engine != "onnxruntime":
            raise InputError(f"{weights.path} is an ONNX file: run it with --engine onnxruntime.")
        network, fixed_batch_size = onnx_network(weights.path)
        return network, fixed_batch_size or batch_size
    if engine == "mindspore":
        return mindspore_network(load_model(weights), weights.meaning.model), batch_size
    return _exported(weights), batch_size


def _exported(weights: Weights) -> Network:
    """The network from the cache; where it is not there, or damaged, it is exported, and checked, anew."""
    cached = _cache_folder() / f"{weights.sha256[:32]}-mindspore{ms.__version__}.onnx"
    remove_unfinished(cached.parent)
    try:
        return onnx_network(cached)[0]
    except InputError:
        cliff = load_model(weights)
    try:
        prepare_output_dir(cached.parent)
        export_network(cliff, weights.meaning, cached, "onnx")
        _forget_oldest(cached.parent)
        return onnx_network(cached)[0]
    except InputError:  # no room, or a home that cannot be written
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "cliff.onnx"
            export_network(cliff, weights.meaning, file, "onnx")
            return onnx_network(file)[0]


def _forget_oldest(folder: Path) -> None:
    by_age = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-_KEPT]:
        path.unlink(missing_ok=True)
        side_car(path).unlink(missing_ok=True)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cliff_ms" / "networks"
