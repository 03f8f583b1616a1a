"""Which of the people in a rendered picture a detector has found, and what it took their joints for."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from cliff_ms.data.annotations import Annotations
from cliff_ms.data.detections import Detections
from cliff_ms.keypoints import COCO17, convert_keypoints, flip_permutation
from cliff_ms.synthetic.observation import crops_around

FARTHEST = 0.2  # of the crop's height, that the joints of one person may be off on average
_MIRROR = flip_permutation(COCO17)


def as_detected(people: Annotations, found: Detections) -> tuple[np.ndarray, Annotations]:
    """The people of a picture as a detector sees them.

    Every person is paired with at most one detection, so that all together are as near as can be; the left of one may
    be the right of the other, which detectors mix up.

    Args:
        people: P people, with the true joints of those in the frame in `keypoints2d`.
        found: What the detector found in the same picture, COCO-17.

    Returns:
        Rows (N,) of the people it found, and these rows with its joints as `input_keypoints` and the crop around them.
    """
    truth = convert_keypoints(people.keypoints2d, "spin24", "coco17")
    joints = np.asarray(found.keypoints)
    distance = _distances(truth, joints) / people.size[:, None]
    rows, columns = linear_sum_assignment(np.minimum(distance, 1))
    near = distance[rows, columns] < FARTHEST
    rows, keypoints = rows[near], joints[columns[near]]
    center, size = crops_around(keypoints) if len(rows) else (np.zeros((0, 2)), np.zeros(0))
    seen = people.take(rows)
    return rows, Annotations.of(
        **vars(seen) | {"input_keypoints": keypoints, "input_joint_set": "coco17", "center": center, "size": size}
    )


def _distances(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Mean distance (P, D) px of the joints that both of (P, 17, 3) and (D, 17, 3) have; infinite without any."""
    both = (truth[:, None, :, 2] > 0) & (found[:, :, 2] > 0)
    offsets = [np.linalg.norm(truth[:, None, :, :2] - each[:, :, :2], axis=-1) for each in (found, found[:, _MIRROR])]
    total = np.where(both, np.minimum(*offsets), 0).sum(-1)
    return np.where(both.any(-1), total / np.maximum(both.sum(-1), 1), np.inf)
