"""Raw files of data sets opened: MATLAB's two formats and CDF. Libraries are loaded when needed."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import require_file
from cliff_ms.io.packages import optional_module

if TYPE_CHECKING:
    import h5py


def read_mat(path: Path, key: str, plain: bool = False) -> Any:
    """One variable of a MATLAB file of version 5 or 7.

    Args:
        path: The file.
        key: Name of the variable.
        plain: Structs as objects with attributes, and no axes of length 1.

    Raises:
        InputError: Missing, damaged or foreign file, or no such variable.
    """
    from scipy import io

    path = require_file(path, "File")
    try:
        content = io.loadmat(path, variable_names=[key], struct_as_record=not plain, squeeze_me=plain)
    except (NotImplementedError, ValueError, TypeError, OSError, EOFError, zlib.error, io.matlab.MatReadError) as error:
        raise InputError(f"{path}: no MATLAB file of version 5 or 7 that can be read ({error}).") from None
    if key not in content:
        raise InputError(f"{path}: the variable '{key}' is missing, so this is not the data set's file.")
    return content[key]


@contextmanager
def open_hdf5(path: Path) -> Iterator["h5py.File"]:
    """Open an HDF5 file, such as MATLAB's version 7.3.

    Raises:
        InputError: Missing, damaged or foreign file, or a data set that is asked for and not there.
    """
    h5py = optional_module("h5py")
    path = require_file(path, "File")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise InputError(f"{path}: not the HDF5 file (MATLAB 7.3) that was expected ({reason}).") from None


def hdf5_array(file: "h5py.File", key: str, *shape: int) -> np.ndarray:
    """One array of an HDF5 file, (n, *shape); axes of length 1 are dropped.

    Raises:
        InputError: If it has another shape.
        KeyError: If it is missing; `open_hdf5` says so.
    """
    array = np.asarray(file[key])
    count = array.shape[0] if array.ndim else 0
    if array.size != count * int(np.prod(shape)):
        expected = ", ".join(["N", *map(str, shape)])
        raise InputError(f"{file.filename}: '{key}' must have shape ({expected}), but has {array.shape}.")
    return array.reshape(count, *shape)


def read_cdf(path: Path, key: str, *shape: int) -> np.ndarray:
    """One variable of a CDF file whose records are flattened, (n, *shape).

    Raises:
        InputError: Missing, damaged or foreign file, or a variable of another shape.
    """
    cdflib = optional_module("cdflib")
    path = require_file(path, "File")
    try:
        array = np.asarray(cdflib.CDF(path).varget(key), np.float64)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: no CDF file with a variable '{key}' ({error}).") from None
    width = int(np.prod(shape))
    if not array.ndim or array.shape[-1] != width or array.size % width:
        raise InputError(f"{path}: '{key}' must be rows of {width} numbers, but has shape {array.shape}.")
    return array.reshape(-1, *shape)
