"""Pickles that name classes of pandas and PyTorch, read without running anything in them.

A DataFrame is read without pandas: its pickles hold plain arrays inside a few wrappers, and versions of pandas cannot
read each other's. Read here: those of pandas 1.0 (AGORA's) to 3.
"""

import io
from collections import OrderedDict
from pathlib import Path

import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import require_file
from cliff_ms.io.packages import optional_module
from cliff_ms.io.pickles import ARRAY_GLOBALS, load_pickle


def read_dataframe(path: str | Path) -> dict[str, np.ndarray]:
    """Read a pickled pandas DataFrame.

    Args:
        path: The file.

    Returns:
        Name of a column -> (N,) array of its N rows, of objects where they are lists.

    Raises:
        InputError: Missing or truncated file, no DataFrame, or one that names more than arrays and pandas' wrappers.
    """
    frame = load_pickle(require_file(path, "Dataframe"), _FRAME_GLOBALS, "table of numbers")
    try:
        columns = _columns(frame)
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration):
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
    content = load_pickle(require_file(path, "File"), _TENSOR_GLOBALS, "tensor")
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a pickled dict of tensors, but got {type(content).__name__}.")
    arrays = {}
    for key, value in content.items():
        array = value.detach().numpy() if hasattr(value, "detach") else value
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
            arrays[key] = array
    return arrays


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


def _rebuild_tensor(*arguments: object) -> object:
    torch = optional_module("torch")

    return torch._utils._rebuild_tensor_v2(*arguments)


def _load_storage(data: bytes) -> object:
    """A tensor's numbers, to the CPU; PyTorch's own function would run what the bytes name."""
    torch = optional_module("torch")

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


_GLOBALS = {**ARRAY_GLOBALS, "builtins.slice": slice, "collections.OrderedDict": OrderedDict}
_FRAME_GLOBALS = {**_GLOBALS, "pandas": _Wrapper}
_TENSOR_GLOBALS = {
    **_GLOBALS,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch.storage._load_from_bytes": _load_storage,
}


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
