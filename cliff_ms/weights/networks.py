"""What a network is to whoever runs one, and the two ways to run one: MindSpore and ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mindspore import Tensor

from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import CLIFF, FullFrameCLIFF, build_model
from cliff_ms.weights.checkpoint import Weights, load_into

if TYPE_CHECKING:
    import onnxruntime

# (inputs, center, size, img_hw, focal_length) -> (rotmat, betas, cam_crop, cam_full), all float32 arrays over a batch.
Network = Callable[..., tuple[np.ndarray, ...]]


def load_model(weights: Weights) -> CLIFF:
    """The network that weights are of, with these weights.

    Args:
        weights: Those of a whole model.

    Returns:
        The network.

    Raises:
        InputError: They are of an encoder only, or do not fit the network.
    """
    if weights.meaning.part != "model":
        raise InputError(
            f"{weights.path} holds only an encoder ({weights.meaning.origin}): a training can start from it, but it "
            "predicts no body; give the weights of a whole model."
        )
    net = build_model(weights.meaning.model)
    load_into(net, weights.arrays, str(weights.path))
    return net


def mindspore_network(cliff: CLIFF, config: ModelConfig) -> Network:
    """The network run by MindSpore on the device that `runtime.setup_device` chose."""
    net = FullFrameCLIFF(cliff, config.bbox_norm)
    net.set_train(False)

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(t.asnumpy() for t in net(*(Tensor(a) for a in arrays)))

    return run


def onnx_network(path: Path) -> tuple[Network, int | None]:
    """A network run by ONNX Runtime on the CPU.

    Args:
        path: An .onnx file that `export_network` wrote.

    Returns:
        The network, and the only batch size that it takes; None if it takes any.

    Raises:
        InputError: If ONNX Runtime is not installed, or the file is truncated or foreign.
    """
    session = onnx_session(path)
    names = [i.name for i in session.get_inputs()]
    batch_size = session.get_inputs()[0].shape[0]

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(session.run(None, dict(zip(names, arrays, strict=True)))[:4])

    return run, batch_size if isinstance(batch_size, int) else None


def onnx_session(path: Path) -> "onnxruntime.InferenceSession":
    """ONNX Runtime on the CPU, ready to run a file.

    Raises:
        InputError: If it is not installed, or the file is truncated or foreign.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError("The ONNX Runtime engine needs the package onnxruntime: pip install onnxruntime.") from None
    options = onnxruntime.SessionOptions()
    # Its threads otherwise keep the cores busy between calls, which the fit and the drawing need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own, with no other base
        raise InputError(f"{path} is not a readable ONNX file, or truncated ({str(error).splitlines()[0]}).") from None
