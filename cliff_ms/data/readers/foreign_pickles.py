"""Pickles that name classes of pandas and PyTorch, read without running anything in them.

A DataFrame is read without pandas: its pickles hold plain arrays inside a few wrappers, and versions of pandas cannot
read each other's. Read here: those of pandas 1.0 (AGORA's) to 3.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import require_file

_BROKEN = (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError)


def read_dataframe(path: str | Path) -> dict[str, np.ndarray]:
    """Read a pickled pandas DataFrame.

    Args:
        path: The file.

    Returns:
        Name of a column -> (N,) array of its N rows, of objects where they are lists.

    Raises:
        InputError: Missing or truncated file, no DataFrame, or one that names more than arrays and pandas' wrappers.
    """
    frame = _load(require_file(path, "Dataframe"), _FrameUnpickler)
    try:
        columns = _columns(frame)
    except _BROKEN:
        raise InputError(f"{path}: not a pickled pandas DataFrame with named columns.") from None
    if len({len(column) for column in columns.values()}) > 1:
        raise InputError(f"{path}: the columns of this DataFrame have different lengths; copy or download it again.")
    return columns


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read a pickled dict of PyTorch tensors, on whatever device they were, or of arrays.

    Args:
        path: The file.

    Returns:
        The tensors and arrays of numbers in it; other entries are left out.

    Raises:
        InputError: Missing or truncated file, no dict, or one that names more than tensors and arrays.
    """
    content = _load(require_file(path, "File"), _TensorUnpickler)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a pickled dict of tensors, but got {type(content).__name__}.")
    arrays = {}
    for key, value in content.items():
        array = value.detach().numpy() if hasattr(value, "detach") else value
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
            arrays[key] = array
    return arrays


def _load(path: Path, unpickler: type[pickle.Unpickler]) -> object:
    try:
        with path.open("rb") as file:
            return unpickler(file, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path}: {error}.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except _BROKEN as error:
        raise InputError(f"{path}: not a readable pickle, or truncated ({error}).") from None


class _Wrapper:
    """Stands in for a class or function of pandas: it keeps what it is given."""

    def __new__(cls, *args: object) -> "_Wrapper":
        wrapper = super().__new__(cls)
        wrapper.args, wrapper.state = args, None
        return wrapper

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str, *_: object) -> np.ndarray:
    """How protocol 5 spells an array."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


_ARRAY_GLOBALS = {
    ("multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numeric", "_frombuffer"): _from_buffer,
}
_GLOBALS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("builtins", "slice"): slice,
    ("collections", "OrderedDict"): OrderedDict,
    **{(f"numpy.{core}.{m}", n): value for core in ("core", "_core") for (m, n), value in _ARRAY_GLOBALS.items()},
}


class _FrameUnpickler(pickle.Unpickler):
    """Resolves arrays, and puts `_Wrapper` for all of pandas; any other name is refused before anything is called."""

    def find_class(self, module: str, name: str) -> object:
        """Called by pickle for each global that the file names."""
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        if module.split(".")[0] == "pandas":
            return _Wrapper
        raise InputError(
            f"it names '{module}.{name}', which no table of numbers needs; it was refused, nothing was run"
        )


class _TensorUnpickler(pickle.Unpickler):
    """Resolves arrays and PyTorch's tensors only, see `_FrameUnpickler`."""

    def find_class(self, module: str, name: str) -> object:
        """Called by pickle for each global that the file names."""
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            import torch

            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_storage
        raise InputError(f"it names '{module}.{name}', which no tensor needs; it was refused, nothing was run")


def _load_storage(data: bytes) -> object:
    """A tensor's numbers, to the CPU; PyTorch's own function would run what the bytes name."""
    import torch

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _columns(frame: _Wrapper) -> dict[str, np.ndarray]:
    """The blocks of a DataFrame cut into columns: a block holds several columns of one type, one a row."""
    manager = frame.state["_mgr"] if "_mgr" in frame.state else frame.state["_data"]
    if manager.args:  # since pandas 1.3
        blocks, axes = manager.args
        blocks = [block.args[:2] for block in blocks]
    else:
        stored = manager.state[-1]["0.14.1"]
        axes, blocks = stored["axes"], [(block["values"], block["mgr_locs"]) for block in stored["blocks"]]
    names = _values(axes[0].args[1]["data"])
    columns = {}
    for values, place in blocks:
        values = _values(values)
        for name, column in zip(names[place], values if values.ndim == 2 else values[None], strict=True):
            columns[str(name)] = column
    return columns


def _values(array: "np.ndarray | _Wrapper") -> np.ndarray:
    """The array itself, or the one inside a pandas array of strings."""
    return array if isinstance(array, np.ndarray) else next(x for x in array.state if isinstance(x, np.ndarray))
