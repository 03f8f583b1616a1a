"""Regressors: joints as sparse, non-negative averages of surface vertices."""

import numpy as np
from scipy.optimize import nnls

from body.assets import JOINT_NAMES, MIRROR_JOINTS, PARENTS
from body.decimate import sphere_directions

_CONES, _PER_CONE = 24, 14
_SUM_TO_ONE = 1e3  # weight of that row in the least squares, against residuals in metres

# Vertices of the base mesh that carry landmarks: midline ones, then left ones, whose mirror images are the right ones.
MIDLINE_LANDMARKS = {"nose": 5054, "chin": 5211, "head_top": 881}
LEFT_LANDMARKS = {
    "eye": 13352, "ear": 12110, "big_toe": 11630, "small_toe": 13093, "heel": 12453,
    "thumb": 9348, "index": 8595, "middle": 8787, "ring": 8982, "pinky": 9171,
}  # fmt: skip
_TOES, _FINGERS = ("big_toe", "small_toe", "heel"), ("thumb", "index", "middle", "ring", "pinky")
# The order in which the smplx package appends vertices as joints 24 to 44.
EXTRA_VERTICES = (
    *("nose", "right_eye", "left_eye", "right_ear", "left_ear"),
    *(f"left_{name}" for name in _TOES),
    *(f"right_{name}" for name in _TOES),
    *(f"left_{name}" for name in _FINGERS),
    *(f"right_{name}" for name in _FINGERS),
)

# Keypoints as averages of joints and landmarks.
_NECK = {"neck": 0.6, "left_shoulder": 0.2, "right_shoulder": 0.2}
_THORAX = {"neck": 0.5, "left_shoulder": 0.25, "right_shoulder": 0.25}
_MID_HIPS = {"left_hip": 0.5, "right_hip": 0.5}
_JAW = {"nose": 0.5, "chin": 0.5}
# The left leg comes first, as in the regressor file that SPIN, CLIFF and others share, not as in Human3.6M itself.
H36M = (
    _MID_HIPS, "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine2", _NECK, _JAW,
    "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
# SPIN's nine extra joints: right and left hip, neck and head top of LSP, pelvis and thorax of MPII, spine, jaw and head
# of Human3.6M.
EXTRA = (
    "right_hip", "left_hip", _NECK, "head_top", _MID_HIPS, _THORAX, "spine2", _JAW, {"head": 0.5, "head_top": 0.5},
)  # fmt: skip
COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip


def landmark_vertices(mirror: np.ndarray) -> dict[str, int]:
    """Name the landmark vertices of the base mesh, both sides, given the mirror table (V,)."""
    sides = {f"left_{name}": vertex for name, vertex in LEFT_LANDMARKS.items()}
    sides |= {f"right_{name}": int(mirror[vertex]) for name, vertex in LEFT_LANDMARKS.items()}
    return MIDLINE_LANDMARKS | sides


def fit_regressor(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Fit non-negative rows that sum to 1 and take vertices to joints, mirror-symmetrically.

    Args:
        vertices: (N, V, 3) m, bodies; which vertices surround a joint is read from the first, at rest.
        joints: (N, 24, 3) m.
        weights: (V, 24) skinning weights; a joint is regressed from vertices that it or its neighbours move.
        mirror: (V,) int.

    Returns:
        (24, V) float64.
    """
    regressor = np.zeros((len(JOINT_NAMES), vertices.shape[1]))
    for joint, name in enumerate(JOINT_NAMES):
        if name.startswith("right"):
            continue
        candidates = _surrounding_vertices(vertices[0], joints[0, joint], _nearby_weight(weights, joint))
        if MIRROR_JOINTS[joint] == joint:  # on the midline: both vertices of a pair get the same share
            candidates = np.unique(np.minimum(candidates, mirror[candidates]))
            pairs = np.stack([candidates, mirror[candidates]])
        else:
            pairs = np.stack([candidates, candidates])
        columns = 0.5 * (vertices[:, pairs[0]] + vertices[:, pairs[1]]) - joints[:, joint, None]
        rows = columns.transpose(0, 2, 1).reshape(-1, len(candidates)).astype(np.float64)
        rows = np.concatenate([rows, np.full((1, len(candidates)), _SUM_TO_ONE)])
        share, _ = nnls(rows, np.append(np.zeros(len(rows) - 1), _SUM_TO_ONE))
        share[share < 1e-4] = 0
        for side in pairs:
            regressor[joint, side] += 0.5 * share / share.sum()
        regressor[MIRROR_JOINTS[joint], mirror] = regressor[joint]
    return regressor


def keypoint_regressor(
    keypoints: tuple[str | dict[str, float], ...], regressor: np.ndarray, landmarks: dict[str, int]
) -> np.ndarray:
    """Build the regressor of a keypoint set.

    Args:
        keypoints: K names of joints or landmarks, or their weighted averages.
        regressor: (24, V) joint regressor.
        landmarks: Vertex of each landmark.

    Returns:
        (K, V) float64.
    """
    rows = np.zeros((len(keypoints), regressor.shape[1]))
    for row, parts in zip(rows, keypoints, strict=True):
        for name, share in parts.items() if isinstance(parts, dict) else [(parts, 1.0)]:
            if name in landmarks:
                row[landmarks[name]] += share
            else:
                row += share * regressor[JOINT_NAMES.index(name)]
    return rows


def _nearby_weight(weights: np.ndarray, joint: int) -> np.ndarray:
    children = [child for child, parent in enumerate(PARENTS) if parent == joint]
    return weights[:, [joint, max(PARENTS[joint], 0), *children]].sum(1)


def _surrounding_vertices(vertices: np.ndarray, center: np.ndarray, nearby: np.ndarray) -> np.ndarray:
    """Take the nearest vertices in every direction: the nearest of all would lie on one side of the joint."""
    allowed = np.flatnonzero(nearby > 0.3)
    offset = vertices[allowed] - center
    distance = np.linalg.norm(offset, axis=1)
    cone = (offset @ sphere_directions(_CONES).T).argmax(1)
    picked = []
    for index in range(_CONES):
        members = np.flatnonzero(cone == index)
        picked.append(allowed[members[np.argsort(distance[members], kind="stable")[:_PER_CONE]]])
    return np.unique(np.concatenate(picked))
