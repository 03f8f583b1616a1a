"""The network of a weights file, run by MindSpore or ONNX Runtime."""

import tempfile
from pathlib import Path

from cliff_ms.io.errors import InputError
from cliff_ms.weights.checkpoint import WeightsMeta
from cliff_ms.weights.export import export_network
from cliff_ms.weights.networks import Network, load_model, mindspore_network, onnx_network


def load_network(ckpt: Path, engine: str, batch_size: int) -> tuple[Network, WeightsMeta, int]:
    """Set up a network for inference.

    Args:
        ckpt: Weights with their side-car (.ckpt, .safetensors), or an exported .onnx.
        engine: 'mindspore', on the device that `runtime.setup_device` chose, or 'onnxruntime', on the CPU.
        batch_size: People that go through the network at once; an .onnx has its own.

    Returns:
        The network, what its weights mean, and its batch size.

    Raises:
        InputError: If the file is missing, truncated, foreign, or of the other engine.
    """
    if ckpt.suffix == ".onnx":
        if engine != "onnxruntime":
            raise InputError(f"{ckpt} is an ONNX file: run it with --engine onnxruntime.")
        return onnx_network(ckpt)
    cliff, meta = load_model(ckpt)
    if engine == "mindspore":
        return mindspore_network(cliff, meta.model), meta, batch_size
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cliff.onnx"
        export_network(cliff, meta, file, "onnx", batch_size)
        return onnx_network(file)
