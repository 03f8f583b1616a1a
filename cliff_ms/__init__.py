"""CLIFF (Li et al., ECCV 2022) in MindSpore: 3D human pose and shape in the full-frame camera."""

import importlib

from cliff_ms import runtime as runtime  # sets the CPU kernel work-around before anything can load MindSpore

__version__ = "0.1.0"
__all__ = ["CLIFF", "SMPL", "load_body"]

_HOME = {"CLIFF": "cliff_ms.models.cliff", "SMPL": "cliff_ms.body.smpl", "load_body": "cliff_ms.body.files"}


def __getattr__(name: str) -> object:
    """Import the public names on first use: `import cliff_ms` does not wait for MindSpore."""
    if name not in _HOME:
        raise AttributeError(f"module 'cliff_ms' has no attribute '{name}'.")
    return getattr(importlib.import_module(_HOME[name]), name)
