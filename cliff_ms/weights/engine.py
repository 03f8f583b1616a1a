"""The network of a weights file, run by MindSpore or ONNX Runtime; and what the project brings to run."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cliff_ms.config import Config
from cliff_ms.io.errors import InputError
from cliff_ms.weights.checkpoint import WeightsMeta, load_model, model_differences

if TYPE_CHECKING:
    from cliff_ms.inference.predict import Network

ENGINES = ("mindspore", "onnxruntime")
_MODEL_ZOO = Path(__file__).resolve().parents[2] / "model_zoo"
BUNDLED_MODEL = _MODEL_ZOO / "cliff_keypoints.safetensors"
HELD_OUT = _MODEL_ZOO / "heldout"  # synthetic people that no bundled model was trained on: annotations.npz, pictures


def bundled_model() -> Path:
    """The weights used when the user names none: a keypoint model (COCO-17 or OpenPose-25) trained on synthetic people.

    Raises:
        InputError: If this copy of the project lacks them.
    """
    if not BUNDLED_MODEL.is_file():
        raise InputError(
            f"The bundled model {BUNDLED_MODEL} is missing in this copy of the project: name weights with --ckpt, or "
            "get the file and its .json from the repository."
        )
    return BUNDLED_MODEL


def check_model(config: Config, meta: WeightsMeta, where: str) -> None:
    """Check that weights are of the network that a configuration describes.

    Args:
        config: The configuration; only its `model` counts.
        meta: What the weights mean.
        where: Their file, for the message.

    Raises:
        InputError: They are of another one; every difference is named.
    """
    differing = model_differences(meta.model, config.model)
    if differing:
        raise InputError(
            f"{where} holds weights of another 'model' than --config describes: {differing}; name the configuration "
            "that they were trained with."
        )


def load_network(ckpt: Path, engine: str, batch_size: int) -> tuple["Network", WeightsMeta, int]:
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
    from cliff_ms.inference.predict import mindspore_network
    from cliff_ms.weights import export as deploy

    if ckpt.suffix == ".onnx":
        if engine != "onnxruntime":
            raise InputError(f"{ckpt} is an ONNX file: run it with --engine onnxruntime.")
        return deploy.onnx_network(ckpt)
    cliff, meta = load_model(ckpt)
    if engine == "mindspore":
        return mindspore_network(cliff, meta.model), meta, batch_size
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cliff.onnx"
        deploy.export_network(cliff, meta, file, "onnx", batch_size)
        return deploy.onnx_network(file)
