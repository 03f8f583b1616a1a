"""SMPL: its files, its Cell for graphs, and its skinning in NumPy."""

from cliff_ms.body.files import Body as Body
from cliff_ms.body.files import load_body as load_body
