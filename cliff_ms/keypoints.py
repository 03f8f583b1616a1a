"""Joint sets as lists of names; every index map is derived from the names."""

from typing import Literal

import numpy as np

SMPL24 = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
# Single vertices of the surface, in smplx's order.
EXTRA21 = (
    "nose", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel", "left_thumb", "left_index", "left_middle", "left_ring",
    "left_pinky", "right_thumb", "right_index", "right_middle", "right_ring", "right_pinky",
)  # fmt: skip
SMPL45 = SMPL24 + EXTRA21
# Rows of SPIN's J_regressor_extra.
LSP_EXTRA9 = (
    "right_hip_lsp", "left_hip_lsp", "neck_lsp", "head_top_lsp", "pelvis_mpii", "thorax_mpii", "spine_h36m",
    "jaw_h36m", "head_h36m",
)  # fmt: skip
# Rows of the common J_regressor_h36m: the left leg comes first, unlike in the data set's own order.
H36M17 = (
    "pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine", "neck", "jaw",
    "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
# How far apart two people set a joint of COCO17, as a share of the person's size: COCO's constants.
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
# OpenPose's BODY_25.
OPENPOSE25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe",
    "right_heel",
)  # fmt: skip
# OpenPose's model of COCO: COCO's joints in another order, and a neck, which is the middle of the shoulders.
OPENPOSE18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip

# SPIN's 24 keypoints, the order of `part` and `S` in annotation files: what training compares.
SPIN24 = (
    "right_ankle", "right_knee", "right_hip_lsp", "left_hip_lsp", "left_knee", "left_ankle", "right_wrist",
    "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck_lsp", "head_top_lsp",
    "pelvis_mpii", "thorax_mpii", "spine_h36m", "jaw_h36m", "head_h36m", "nose", "left_eye", "right_eye", "left_ear",
    "right_ear",
)  # fmt: skip

# The joints of the tree, the vertices of the surface, and SPIN's regressed joints: every joint set is picked from them.
LANDMARKS = SMPL45 + LSP_EXTRA9
# The 14 that most protocols score, in LSP's order; names of H36M17.
LSP14 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip

JointSet = Literal["coco17", "openpose25"]  # what a keypoint model can read
JOINT_SETS = {"coco17": COCO17, "openpose25": OPENPOSE25}
# Detectors' hips stand for LSP's, as in SPIN's labels of COCO; their neck and pelvis, which lie elsewhere, for nothing.
_SAME_JOINT = {"left_hip_lsp": "left_hip", "right_hip_lsp": "right_hip"}
# The regressors that a body file may carry: rows of J_regressor_<name>.
REGRESSOR_JOINTS = {"h36m": H36M17, "extra": LSP_EXTRA9, "coco": COCO17}


def index_map(source: tuple[str, ...], target: tuple[str, ...]) -> list[int]:
    """Where each joint of `target` is in `source`: `joints[index_map(source, target)]` reorders by name."""
    return [source.index(name) for name in target]


SPIN24_OF_LANDMARKS = index_map(LANDMARKS, SPIN24)


def flip_permutation(names: tuple[str, ...]) -> list[int]:
    """Index of each joint's mirror image: `joints[flip_permutation(names)]` swaps left and right."""
    swapped = {"left": "right", "right": "left"}
    return [names.index("_".join(swapped.get(part, part) for part in name.split("_"))) for name in names]


def convert_keypoints(keypoints: np.ndarray, source: str, target: str) -> np.ndarray:
    """The same keypoints in another joint set; a joint that the source does not have is missing (all zero).

    Args:
        keypoints: (P, K, 3), x and y and confidence.
        source: Their joint set, a key of JOINT_SETS, 'openpose18', or 'spin24' for the order of labels.
        target: The joint set wanted.

    Returns:
        (P, K', 3).
    """
    orders = JOINT_SETS | {"spin24": SPIN24, "openpose18": OPENPOSE18}
    given, wanted = ([_SAME_JOINT.get(name, name) for name in orders[joint_set]] for joint_set in (source, target))
    converted = np.zeros((len(keypoints), len(wanted), 3), keypoints.dtype)
    for index, name in enumerate(wanted):
        if name in given:
            converted[:, index] = keypoints[:, given.index(name)]
    return converted


def oks(keypoints: np.ndarray, others: np.ndarray, area: np.ndarray) -> np.ndarray:
    """COCO's object keypoint similarity: the mean over joints of exp(-distance^2 / (2 area (2 sigma)^2)).

    Args:
        keypoints: (..., 17, 3) COCO-17, x and y in px and confidence; a joint that one of the two lacks (0) counts not.
        others: The same; leading dimensions broadcast.
        area: (...) px^2 of the person; COCO takes the silhouette's.

    Returns:
        (...) from 0 for others to 1 for the same; 0 where they have no joint in common.
    """
    both = (keypoints[..., 2] > 0) & (others[..., 2] > 0)
    squared = ((keypoints[..., :2] - others[..., :2]) ** 2).sum(-1)
    similarity = np.exp(-squared / (2 * np.asarray(area)[..., None] * (2 * COCO_SIGMAS) ** 2))
    return (similarity * both).sum(-1) / np.maximum(both.sum(-1), 1)
