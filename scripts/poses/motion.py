"""Motion of one skeleton, whatever file it came from. Frame: x to the person's left, y up, z forward."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

_DETOUR = np.radians(40)
PERIOD = 1 / 30  # s between frames; those that change little are thinned out anyway


@dataclass(frozen=True)
class Motion:
    """T frames of a skeleton of J bones.

    Attributes:
        bones: Names of the J bones.
        rotations: (T, J, 3, 3), from the bone's frame to the world.
        positions: (T, J, 3), of the bone's joint in the world, in units of the file.
        rest: (J, 3, 3), the rotations while the person stands in a known pose, all limbs near those of a T-pose or
            hanging down.
    """

    bones: Sequence[str]
    rotations: np.ndarray
    positions: np.ndarray
    rest: np.ndarray

    def turned(self, axes: np.ndarray) -> "Motion":
        """The same in the frame that a rotation (3, 3) takes the file's frame to."""
        return Motion(self.bones, axes @ self.rotations @ axes.T, self.positions @ axes.T, axes @ self.rest @ axes.T)

    def frames(self, chosen: np.ndarray) -> "Motion":
        """Some of the frames, by a mask (T,) or rows."""
        return replace(self, rotations=self.rotations[chosen], positions=self.positions[chosen])

    def steady(self, bones: Iterable[str]) -> "Motion":
        """Leave out frames where a bone turns away and back, as when angles were averaged across a full turn."""
        turns = self.rotations[:, [self.bones.index(bone) for bone in bones]]
        back = np.zeros(len(turns), bool)
        way = _angle(turns[1:], turns[:-1])
        back[1:-1] = (way[1:] + way[:-1] - _angle(turns[2:], turns[:-2]) > _DETOUR).any(1)
        return self.frames(~back)


def _angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between rotations (..., 3, 3), rad."""
    trace = np.einsum("...ij,...ij", first, second)
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))


def chain(parents: Sequence[int], local: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics.

    Args:
        parents: Of the J bones, each before its children; negative for a root.
        local: (T, J, 3, 3) rotations relative to the parent.
        offsets: (T, J, 3) or (J, 3), of each bone's joint in the parent's frame.

    Returns:
        Rotations (T, J, 3, 3) and positions (T, J, 3) in the world.
    """
    rotations = local.copy()
    positions = np.broadcast_to(offsets, (*local.shape[:2], 3)).copy()
    for bone, parent in enumerate(parents):
        if parent >= 0:
            rotations[:, bone] = rotations[:, parent] @ local[:, bone]
            turned = (rotations[:, parent] @ positions[:, bone, :, None])[..., 0]
            positions[:, bone] = positions[:, parent] + turned
    return rotations, positions
