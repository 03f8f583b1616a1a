"""Arrays by name in a file: MindSpore's `.ckpt`, or `.safetensors`, which needs no MindSpore."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from cliff_ms.io.errors import InputError


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name, of whatever type, whether it has a side-car or not.

    Args:
        path: A `.ckpt` or `.safetensors` file.

    Returns:
        Name -> array.

    Raises:
        InputError: If it is no file of its kind.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        import mindspore as ms

        return {name: parameter.asnumpy() for name, parameter in ms.load_checkpoint(str(path)).items()}
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"{path} is not a {path.suffix} weights file: {_first_line(error).rstrip('.')}.") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name.

    Args:
        path: Target, `.ckpt` or `.safetensors`.
        arrays: Name -> array.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        if path.suffix == ".safetensors":
            safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
            return
        import mindspore as ms

        ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()], str(path))
    except (safetensors.SafetensorError, RuntimeError) as error:  # how they report a full disk
        raise OSError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
