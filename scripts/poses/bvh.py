"""Reader of BVH files: a tree of bones with offsets, then Euler angles frame by frame."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.io.errors import InputError
from poses.motion import PERIOD, Motion, chain


@dataclass
class _Tree:
    bones: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)


def read_bvh(path: Path, period: float = PERIOD) -> Motion:
    """Read a file whose zero pose faces +z with y up, or turn the result.

    Args:
        path: The file.
        period: Seconds between frames taken.

    Returns:
        The motion; at rest all angles are zero.

    Raises:
        InputError: If the file is no BVH file or is cut off.
    """
    head, _, motion = path.read_text(encoding="latin-1").partition("MOTION")
    lines = motion.split("\n")
    try:
        tree = _read_tree(head)
        lines = [line for line in lines if line.strip()]
        count, duration = int(lines[0].split()[-1]), float(lines[1].split()[-1])
        step = max(1, round(period / duration))
        values = np.array([line.split() for line in lines[2 : 2 + count : step]], np.float64)
        local, offsets = _pose(tree, values)
    except (ValueError, IndexError, ZeroDivisionError):
        raise InputError(f"Motion '{path}' is no whole BVH file; get it again.") from None
    rotations, positions = chain(tree.parents, local, offsets)
    return Motion(tree.bones, rotations, positions, np.broadcast_to(np.eye(3), rotations.shape[1:]))


def _read_tree(head: str) -> _Tree:
    tree, above, bone = _Tree(), [], -1
    for line in head.splitlines():
        word, *rest = line.split() or [""]
        if word in ("ROOT", "JOINT"):
            bone = len(tree.bones)
            tree.bones.append(" ".join(rest))
            tree.parents.append(above[-1] if above else -1)
        elif word == "End":
            bone = -1  # a tip: its offset is of no use here
        elif word == "{":
            above.append(bone)
        elif word == "}":
            above.pop()
        elif word == "OFFSET" and bone >= 0:
            tree.offsets.append([float(value) for value in rest])
        elif word == "CHANNELS":
            tree.channels.append(rest[1:])
    return tree


def _pose(tree: _Tree, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, J, 3, 3) and offsets (T, J, 3) relative to the parent, from rows of channels."""
    count = len(values)
    local = np.tile(np.eye(3), (count, len(tree.bones), 1, 1))
    offsets = np.tile(np.array(tree.offsets), (count, 1, 1))
    first = 0
    for bone, channels in enumerate(tree.channels):
        columns = dict(zip(channels, values[:, first : first + len(channels)].T, strict=True))
        first += len(channels)
        turns = [name for name in columns if name.endswith("rotation")]
        if turns:  # about the axes that turn with the bone, in the order of the file
            angles = np.stack([columns[name] for name in turns], 1)
            axes = "".join(name[0] for name in turns)
            local[:, bone] = Rotation.from_euler(axes, angles, degrees=True).as_matrix()
        if tree.parents[bone] < 0:  # elsewhere MakeHuman writes zeros, and bones keep their length
            for axis, name in enumerate(("Xposition", "Yposition", "Zposition")):
                offsets[:, bone, axis] = columns.get(name, offsets[:, bone, axis])
    if values.shape[1] != first:
        raise ValueError("a row has another number of values than there are channels")
    return local, offsets
