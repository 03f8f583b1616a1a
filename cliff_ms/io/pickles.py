"""Python pickles of arrays (SMPL's bodies, 3DPW's sequences, MoSh fits), read without running anything in them."""

import codecs
import copyreg
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from scipy import sparse

from cliff_ms.io.errors import InputError


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str, *_: object) -> np.ndarray:
    """How protocol 5 spells an array."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


# What the arrays of NumPy 1 and 2 name, for `load_pickle`.
ARRAY_GLOBALS = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": codecs.encode,  # how protocol 2 spells bytes
    **{
        f"numpy.{core}.{name}": value
        for core in ("core", "_core")
        for name, value in (
            ("multiarray._reconstruct", np.zeros(0).__reduce__()[0]),
            ("multiarray.scalar", np.float64(0).__reduce__()[0]),
            ("numeric._frombuffer", _from_buffer),
        )
    },
}


def load_pickle(path: Path, allowed: Mapping[str, object], content: str) -> object:
    """Read a pickle that may name some globals only: any other is refused before anything is called or imported.

    Args:
        path: The file.
        allowed: What is put for each name: 'module.name' for one global, 'package' for all that lie in it.
        content: What such a file holds, for the message, such as 'table of numbers'.

    Returns:
        What the file holds. Python 2's strings are read as Latin-1.

    Raises:
        InputError: Truncated or no pickle, or a file that names anything else.
    """
    try:
        with open(path, "rb") as file:
            return _RestrictedUnpickler(file, allowed, content).load()
    except InputError as error:
        raise InputError(f"{path}: {error}.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        raise InputError(f"{path}: not a readable pickle, or truncated ({error}).") from None


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, allowed: Mapping[str, object], content: str) -> None:
        super().__init__(file, encoding="latin1")
        self._allowed, self._content = allowed, content

    def find_class(self, module: str, name: str) -> object:
        """Called by pickle for each global that the file names."""
        for key in (f"{module}.{name}", module.split(".")[0]):
            if key in self._allowed:
                return self._allowed[key]
        raise InputError(f"it names '{module}.{name}', which no {self._content} needs; it was refused, nothing was run")


def read_pickle(path: Path) -> dict:
    """Read a pickled dict of arrays, numbers, strings and lists of them.

    Python 2's pickles, and NumPy 1's and 2's, are read alike. Arrays of chumpy and sparse matrices of scipy come as
    stand-ins that `to_array` opens.

    Args:
        path: The file.

    Returns:
        The dict.

    Raises:
        InputError: Truncated or no pickle, no dict, or a file that names anything but array types.
    """
    content = load_pickle(path, _SMPL_GLOBALS, "file of arrays")
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a pickled dict of arrays, but got {type(content).__name__}.")
    return content


def to_array(value: object, path: Path, key: str) -> np.ndarray:
    """The numbers of one value of such a dict.

    Args:
        value: An array, a list, or a stand-in of `read_pickle`.
        path: The file, for messages.
        key: Where in the file, for messages.

    Returns:
        The array, finite, of floats or integers.

    Raises:
        InputError: If it is none.
    """
    if isinstance(value, _Opaque):
        value = value.array(path, key)
    if sparse.issparse(value):
        value = value.toarray()
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: '{key}' must be an array of numbers, but got {type(value).__name__}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{path}: '{key}' holds values that are not finite.")
    return array


class _Opaque:
    """Stands in for a class that a pickle names: it stores its state and runs nothing."""

    def __init__(self, *args: object) -> None:
        self.state: dict = {}

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    def array(self, path: Path, key: str) -> np.ndarray:
        """The numbers inside: a chumpy array, a chumpy selection of one, or a sparse matrix."""
        state = self.state
        if "x" in state:  # chumpy.ch.Ch
            return np.asarray(state["x"])
        if {"a", "idxs", "preferred_shape"} <= state.keys():  # chumpy.reordering.Select
            inner = state["a"]
            inner = inner.array(path, key) if isinstance(inner, _Opaque) else np.asarray(inner)
            return inner.ravel()[np.asarray(state["idxs"])].reshape(state["preferred_shape"])
        if {"data", "indices", "indptr", "_shape"} <= state.keys():  # scipy.sparse.csc_matrix
            parts = (state["data"], state["indices"], state["indptr"])
            return sparse.csc_matrix(parts, shape=state["_shape"]).toarray()
        raise InputError(f"{path}: '{key}' is stored in a form that is not known from SMPL files.")


_SMPL_GLOBALS = {
    **ARRAY_GLOBALS,
    "copy_reg._reconstructor": copyreg._reconstructor,
    "copyreg._reconstructor": copyreg._reconstructor,
    "__builtin__.object": object,
    "builtins.object": object,
    "chumpy": _Opaque,
    **{f"scipy.sparse.{module}.csc_matrix": _Opaque for module in ("csc", "_csc")},
}
