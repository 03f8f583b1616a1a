"""What detectors mean by COCO's joints: points of the body beside its own joints.

A person's hip, to those who label photos and to networks that have learnt from them, is not the middle of the ball
joint. The table holds where on the bundled body the bundled detector (`inference.pose_detector`) puts each joint, and
how widely it scatters about that place; measured by `scripts/measure_markers.py` on rendered people.
"""

from typing import NamedTuple

import numpy as np

from cliff_ms.keypoints import COCO17, SMPL24


class Marker(NamedTuple):
    """Where the left one of a joint is seen; the right one is its mirror image.

    Attributes:
        bone: The joint of the tree that it moves with, without 'left_': the joint itself or its parent.
        offset: (3,) cm from the body's joint, along the axes of that bone at rest (x to the left, y up, z forward).
        spread: cm, the median distance of detected joints from there.
        astray: Share of detected joints that are farther away than four times that: another limb, or another person's.
        strays: cm, the median distance of those.
    """

    bone: str
    offset: tuple[float, float, float]
    spread: float
    astray: float
    strays: float

    def bone_of(self, side: str) -> str:
        """Name in SMPL24, for 'left', 'right' or ''."""
        return self.bone if self.bone in SMPL24 else f"{side}_{self.bone}"

    def mirror_of(self, side: str) -> np.ndarray:
        """(3,) what the offset is multiplied by on that side."""
        return np.array((-1 if side == "right" else 1, 1, 1))


MARKERS = {
    "nose": Marker("head", (0.0, 1.6, -1.1), 1.6, 0.10, 9),
    "eye": Marker("head", (-0.2, 0.5, -0.8), 1.6, 0.08, 9),
    "ear": Marker("head", (-0.7, 0.1, 0.6), 1.9, 0.05, 13),
    "shoulder": Marker("collar", (-0.3, 2.3, -1.0), 2.5, 0.05, 15),
    "elbow": Marker("elbow", (-0.1, 0.2, 0.9), 2.0, 0.14, 15),
    "wrist": Marker("elbow", (0.1, 0.1, 0.3), 1.7, 0.18, 20),
    "hip": Marker("pelvis", (0.1, 2.8, 1.0), 3.4, 0.02, 19),
    "knee": Marker("hip", (0.1, 0.6, 0.3), 1.9, 0.10, 19),
    "ankle": Marker("knee", (0.4, 1.6, -0.1), 1.5, 0.15, 29),
}


def place_markers(names: tuple[str, ...]) -> tuple[list[int], list[int], np.ndarray]:
    """Where the markers are among joints.

    Args:
        names: K joints; those of COCO's 17 among them have a marker.

    Returns:
        Rows of the M that have one, the joint of the tree that each moves with, and its offset from the body's own
        joint (M, 3) m, along the axes of the body at rest.
    """
    rows = [k for k, name in enumerate(names) if name in COCO17]
    bones, offsets = [], []
    for name in (names[k] for k in rows):
        side, _, part = name.rpartition("_")
        marker = MARKERS[part]
        bones.append(SMPL24.index(marker.bone_of(side)))
        offsets.append(np.array(marker.offset) / 100 * marker.mirror_of(side))
    return rows, bones, np.array(offsets).reshape(-1, 3)


def of_coco(attribute: str, names: tuple[str, ...]) -> np.ndarray:
    """A number of the marker of each of K joints, (K,); of those beyond COCO's, the middle one of COCO's."""
    known = {name: getattr(MARKERS[name.rpartition("_")[2]], attribute) for name in COCO17}
    middle = np.median(list(known.values()))
    return np.array([known.get(name, middle) for name in names])
