"""One formula for NumPy arrays and MindSpore tensors: the library that computes it goes by the type of the input."""

import importlib
import types
from typing import TYPE_CHECKING, Union

import numpy as np

if TYPE_CHECKING:
    from mindspore import Tensor

Array = Union["Tensor", np.ndarray]


class _OnFirstUse(types.ModuleType):
    """A module that is imported when something of it is asked for: arrays need not wait for MindSpore.

    MindSpore's compiler takes it for the module itself; it knows no import statement inside a function.
    """

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self.__name__), name)


_ops = _OnFirstUse("mindspore.ops")


def library(array: Array) -> types.ModuleType:
    """What has `stack`, `sqrt`, `sin` and so on for this kind of array, inside a graph too.

    Args:
        array: NumPy array or MindSpore tensor.

    Returns:
        `numpy` or `mindspore.ops`.
    """
    return np if isinstance(array, np.ndarray) else _ops
