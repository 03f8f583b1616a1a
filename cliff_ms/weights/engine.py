"""The network of a weights file, run by MindSpore or ONNX Runtime."""

import tempfile
from pathlib import Path

from cliff_ms.io.errors import InputError
from cliff_ms.weights.checkpoint import Weights
from cliff_ms.weights.export import export_network
from cliff_ms.weights.networks import Network, load_model, mindspore_network, onnx_network


def load_network(weights: Weights, engine: str, batch_size: int) -> tuple[Network, int]:
    """Set up a network for inference.

    Args:
        weights: A file of weights, or an exported .onnx.
        engine: 'mindspore', on the device that `runtime.setup_device` chose, or 'onnxruntime', on the CPU.
        batch_size: People that go through the network at once; an .onnx has its own.

    Returns:
        The network and its batch size.

    Raises:
        InputError: If the file is foreign, or of the other engine.
    """
    if weights.path.suffix == ".onnx":
        if engine != "onnxruntime":
            raise InputError(f"{weights.path} is an ONNX file: run it with --engine onnxruntime.")
        return onnx_network(weights.path)
    cliff, meaning = load_model(weights), weights.meaning
    if engine == "mindspore":
        return mindspore_network(cliff, meaning.model), batch_size
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cliff.onnx"
        export_network(cliff, meaning, file, "onnx", batch_size)
        return onnx_network(file)
