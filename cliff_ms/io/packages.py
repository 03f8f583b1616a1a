"""Python packages that the installation leaves out unless they are asked for."""

import importlib
from types import ModuleType

from cliff_ms.io.errors import InputError


def optional_module(name: str) -> ModuleType:
    """Import a package that only some work needs.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"This needs the Python package '{name}': pip install {name}.") from None
