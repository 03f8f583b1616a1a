"""CLIFF (Li et al., ECCV 2022) in MindSpore: 3D human pose and shape in the full-frame camera."""

import importlib
from typing import TYPE_CHECKING

from cliff_ms import runtime as runtime  # sets the CPU kernel work-around before anything can load MindSpore

if TYPE_CHECKING:
    from cliff_ms.body.files import load_body as load_body
    from cliff_ms.body.smpl import SMPL as SMPL
    from cliff_ms.inference.predict import People as People
    from cliff_ms.inference.predict import load_predictor as load_predictor
    from cliff_ms.models.cliff import CLIFF as CLIFF

__version__ = "0.1.0"
__all__ = ["CLIFF", "SMPL", "People", "load_body", "load_predictor"]

_HOME = {
    "CLIFF": "cliff_ms.models.cliff",
    "SMPL": "cliff_ms.body.smpl",
    "People": "cliff_ms.inference.predict",
    "load_body": "cliff_ms.body.files",
    "load_predictor": "cliff_ms.inference.predict",
}


def __getattr__(name: str) -> object:
    """Import the public names on first use: `import cliff_ms` does not wait for MindSpore."""
    if name not in _HOME:
        raise AttributeError(f"module 'cliff_ms' has no attribute '{name}'.")
    return getattr(importlib.import_module(_HOME[name]), name)
