"""Deterministic weights: the same name and shape give the same float32 values on any machine.

NumPy's PCG64, seeded by the CRC-32 of the name, draws the numbers. He scaling and a BatchNorm near the identity keep
activations near 1 through deep networks.
"""

import json
import zlib

import numpy as np

from tests.paths import GOLDEN


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of one entry of a PyTorch state dict; the prefix `module.` does not count."""
    name = name.removeprefix("module.")
    x = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.array(1, dtype=np.int64)
    if leaf in ("weight", "running_var"):
        return _scale(name, x)
    if leaf == "init_cam":
        return np.array([[0.9, 0.0, 0.0]], np.float32)
    if leaf == "init_pose":  # near the identity rotation in the (3, 2) layout
        base = np.tile(np.array([1, 0, 0, 1, 0, 0], np.float32), shape[-1] // 6)[None]
        return (base + 0.2 * x).astype(np.float32)
    return (x * {"bias": 0.05, "init_shape": 0.3}.get(leaf, 0.1)).astype(np.float32)


def _scale(name: str, x: np.ndarray) -> np.ndarray:
    """Multiplicative entries: BatchNorm variance and scale, then convolution and linear weights."""
    if name.endswith("running_var"):
        return (1.0 + 0.2 * np.tanh(x)).astype(np.float32)
    if x.ndim == 1:
        return (0.35 + 0.05 * np.tanh(x)).astype(np.float32)
    gain = 0.01 if name.split(".")[-2] in ("decpose", "decshape", "deccam") else 1.0
    return (x * gain * np.sqrt(2.0 / np.prod(x.shape[1:]))).astype(np.float32)


def schema(backbone: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every entry of the official state dict of 'res50' or 'hr48'."""
    entries = json.loads((GOLDEN / f"schema_official_{backbone}.json").read_text())
    return {name: tuple(shape) for name, shape in entries.items()}


def state_dict(backbone: str) -> dict[str, np.ndarray]:
    """Name -> values of every entry of the official state dict of 'res50' or 'hr48'."""
    return {name: values(name, shape) for name, shape in schema(backbone).items()}


def official(backbone: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The image (2, 3, 256, 192) and what the official model makes of it (with `bbox_info` (2, 3), also an input)."""
    image = np.random.Generator(np.random.PCG64(7)).standard_normal((2, 3, 256, 192)).astype(np.float32)
    return image, dict(np.load(GOLDEN / f"official_{backbone}_out.npz"))
