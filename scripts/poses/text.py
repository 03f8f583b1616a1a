"""Readers of motion as rows of numbers for a fixed skeleton: DeepMimic's humanoid, and CMU's as exponential maps."""

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.io.errors import InputError
from poses.motion import PERIOD, Motion, chain

# DeepMimic's humanoid: bone -> parent, offset in rough metres, column of the frame, how many numbers turn it. It faces
# x with z to its right, and its arms hang.
_HUMANOID = {
    "root": (None, (0, 0, 0), 4, 4),
    "chest": ("root", (0, 0.24, 0), 8, 4),
    "neck": ("chest", (0, 0.22, 0), 12, 4),
    "right_hip": ("root", (0, 0, 0.085), 16, 4),
    "right_knee": ("right_hip", (0, -0.42, 0), 20, 1),
    "right_ankle": ("right_knee", (0, -0.41, 0), 21, 4),
    "right_shoulder": ("chest", (-0.02, 0.24, 0.18), 25, 4),
    "right_elbow": ("right_shoulder", (0, -0.27, 0), 29, 1),
    "right_wrist": ("right_elbow", (0, -0.26, 0), 0, 0),
    "left_hip": ("root", (0, 0, -0.085), 30, 4),
    "left_knee": ("left_hip", (0, -0.42, 0), 34, 1),
    "left_ankle": ("left_knee", (0, -0.41, 0), 35, 4),
    "left_shoulder": ("chest", (-0.02, 0.24, -0.18), 39, 4),
    "left_elbow": ("left_shoulder", (0, -0.27, 0), 43, 1),
    "left_wrist": ("left_elbow", (0, -0.26, 0), 0, 0),
}
_HUMANOID_AXES = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
_HUMANOID_WIDTH = 44  # seconds, the root's place, then the turns

# CMU's skeleton in the benchmark of motion prediction, from 0: parents, and offsets in units of the file.
_CMU_PARENTS = (
    -1, 0, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11, 0, 13, 14, 15, 16, 17, 18, 15, 20, 21, 22, 23, 24, 25, 23, 27, 15, 29, 30,
    31, 32, 33, 34, 32, 36,
)  # fmt: skip
_LEVEL = np.cos(np.radians(50))  # of the heading from the z axis, up to which tilts are those of people who walk
_CMU_OFFSETS = {
    2: (1.657, -1.803, 0.625), 3: (2.597, -7.136, 0), 4: (2.492, -6.848, 0), 5: (0.197, -0.541, 2.146),
    8: (-1.611, -1.803, 0.625), 9: (-2.595, -7.130, 0), 10: (-2.468, -6.780, 0), 11: (-0.230, -0.633, 2.134),
    14: (0.020, 2.055, -0.141), 15: (0.010, 2.064, -0.059), 17: (0.007, 1.567, 0.150), 18: (0.034, 1.560, -0.100),
    21: (3.542, 0.904, -0.174), 22: (4.865, 0, 0), 23: (3.356, 0, 0),
    30: (-3.498, 0.760, -0.326), 31: (-5.026, 0, 0), 32: (-3.364, 0, 0),
}  # fmt: skip


def read_humanoid(path: Path, period: float = PERIOD) -> Motion:
    """Read DeepMimic's format: JSON with "Frames" of 44 numbers.

    Args:
        path: The file.
        period: Seconds between frames taken.

    Returns:
        The motion; at rest the arms hang. Bones are called as SMPL's joints where those exist.

    Raises:
        InputError: If the file holds something else.
    """
    try:
        frames = np.array(json.loads(path.read_text(encoding="utf-8"))["Frames"], np.float64)
        frames = frames[:: max(1, round(period / frames[0, 0]))]
    except (ValueError, KeyError, IndexError, TypeError, OverflowError):
        frames = np.empty((0, 0))
    if frames.shape[1:] != (_HUMANOID_WIDTH,):
        raise InputError(f"Motion '{path}' is not in DeepMimic's format: rows of {_HUMANOID_WIDTH} numbers expected.")
    bones = list(_HUMANOID)
    local = np.tile(np.eye(3), (len(frames), len(bones), 1, 1))
    for bone, (_, _, column, width) in enumerate(_HUMANOID.values()):
        if width == 4:  # w x y z
            local[:, bone] = Rotation.from_quat(frames[:, [column + 1, column + 2, column + 3, column]]).as_matrix()
        elif width == 1:  # a hinge about z
            local[:, bone] = Rotation.from_euler("z", frames[:, [column]]).as_matrix()
    parents = [bones.index(parent) if parent else -1 for parent, *_ in _HUMANOID.values()]
    offsets = np.array([offset for _, offset, *_ in _HUMANOID.values()], np.float64)
    rotations, positions = chain(parents, local, offsets)
    rest = np.broadcast_to(np.eye(3), rotations.shape[1:])
    return Motion(bones, rotations, positions, rest).turned(_HUMANOID_AXES)


def read_exponential_maps(path: Path) -> Motion:
    """Read a file of the motion prediction benchmark: rows of 117 numbers, a place and 38 exponential maps.

    Args:
        path: The file.

    Returns:
        The motion; at rest a T-pose with legs 20 degrees apart. All frames, since the file does not say how long one
        lasts, but for those in which people face along the x axis, where these files tilt them at random. Bones are
        called '0' to '37'.

    Raises:
        InputError: If the file holds something else.
    """
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError:
        rows = np.empty((0, 0))
    count = len(_CMU_PARENTS)
    if rows.shape[1:] != (3 + 3 * count,):
        raise InputError(f"Motion '{path}' is not of the benchmark: rows of {3 + 3 * count} numbers expected.")
    # The files' matrices act on row vectors, hence the sign.
    local = Rotation.from_rotvec(-rows[:, 3:].reshape(-1, 3)).as_matrix().reshape(-1, count, 3, 3)
    offsets = np.array([_CMU_OFFSETS.get(bone, (0, 0, 0)) for bone in range(count)], np.float64)
    rotations, positions = chain(_CMU_PARENTS, local, offsets)
    bones = [str(bone) for bone in range(count)]
    motion = Motion(bones, rotations, positions, np.broadcast_to(np.eye(3), rotations.shape[1:]))
    front = rotations[:, 0, :, 2]
    return motion.frames(np.abs(front[:, 2]) > _LEVEL * np.hypot(front[:, 0], front[:, 2]))
