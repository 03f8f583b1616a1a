"""The joints of one person as files hold them: their number and shape tell what they are."""

import logging
import reprlib

import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import COCO17, OPENPOSE18, OPENPOSE25, convert_keypoints

# Sets of more joints than COCO's 17, which come first.
_BEGIN_LIKE_COCO = {26: "Halpe's 26", 133: "COCO-WholeBody's 133", 136: "Halpe's 136"}
_COCO_LIKE = "COCO (17), Halpe (26 or 136) or COCO-WholeBody (133)"
_MPI = " 45 are those of the 15-joint MPI model; run OpenPose with --model_pose BODY_25."
# AlphaPose's go up to 6. What is larger is in percent, or no confidence at all.
_MAX_CONFIDENCE = 10

log = logging.getLogger("cliff_ms")


class JointReader:
    """Reads the joints of everybody in a file, and says once what it does not take of them."""

    def __init__(self, source: str) -> None:
        """Start on a file or folder, named in messages."""
        self._source = source
        self._said: set[int] = set()

    def __call__(self, values: object, confidences: object, where: str, openpose: bool = False) -> np.ndarray:
        """Check the joints of a person and bring them in an order that models read.

        Args:
            values: K joints, as 3 K numbers x, y, confidence or K lists of the three; as K lists of x, y with
                `confidences`; empty of a person of whom no joint is known.
            confidences: K numbers, or None.
            where: The file and row, for the message.
            openpose: Whether they may be those of OpenPose's own models: 25 of BODY_25, 18 of COCO.

        Returns:
            (17, 3) float32 in COCO's order, (25, 3) in that of BODY_25 or (0, 3); x and y in px and a confidence in
            0-1, missing joints all zero.

        Raises:
            InputError: If they are joints of another kind, not finite, or have no such confidences.
        """
        if values is None or values == []:
            return np.zeros((0, 3), np.float32)
        joints = _as_array(values, confidences)
        count = 0 if joints is None else len(joints)
        is_openpose = openpose and count in (len(OPENPOSE18), len(OPENPOSE25))
        if joints is None or not (is_openpose or count == len(COCO17) or count in _BEGIN_LIKE_COCO):
            raise InputError(_refusal(values, confidences, where, openpose))
        if not (np.abs(joints) < 1e7).all() or (joints[:, 2] < 0).any():  # NaN and infinity fail the first
            raise InputError(f"{where}: the keypoints must be finite numbers with confidences of 0 or more.")
        if joints[:, 2].max() > _MAX_CONFIDENCE:
            raise InputError(
                f"{where}: a joint has the confidence {joints[:, 2].max():g}; confidences are shares in 0-1, not "
                "percent, or COCO's visibility 0, 1 or 2."
            )
        joints[joints[:, 2] == 0] = 0
        joints[:, 2] = np.minimum(joints[:, 2], 1)
        return self._chosen(joints).astype(np.float32)

    def _chosen(self, joints: np.ndarray) -> np.ndarray:
        count = len(joints)
        if count in (len(COCO17), len(OPENPOSE25)):
            return joints
        if count not in self._said:
            self._said.add(count)
            what = f"of {_BEGIN_LIKE_COCO[count]} joints the first 17" if count in _BEGIN_LIKE_COCO else ""
            what = what or "of the joints of OpenPose's 18-joint COCO model all but the neck"
            log.warning("%s: %s are taken, which are COCO's", self._source, what)
        if count in _BEGIN_LIKE_COCO:
            return joints[: len(COCO17)]
        return convert_keypoints(joints[None], "openpose18", "coco17")[0]


def _refusal(values: object, confidences: object, where: str, openpose: bool) -> str:
    known = _COCO_LIKE + (" or OpenPose (25 or 18)" if openpose else "")
    if confidences is not None:
        shape = "as [x, y] each, with as many 'keypoint_scores'"
    else:
        shape = "as x, y, confidence"
    if not isinstance(values, list):
        got = reprlib.repr(values)
    elif isinstance(values[0], list):
        got = f"{len(values)} lists such as {reprlib.repr(values[0])}"
    else:
        got = f"{len(values)} numbers"
    hint = _MPI if openpose and got == "45 numbers" else ""
    return f"{where}: expected the joints of {known} {shape}, got {got}.{hint}"


def _as_array(values: object, confidences: object) -> np.ndarray | None:
    """(K, 3), or None if they have no such shape."""
    try:
        joints = np.array(values, np.float64)
        if confidences is not None:
            scores = np.array(confidences, np.float64)
            return np.column_stack([joints, scores]) if joints.shape == (*scores.shape, 2) else None
    except (TypeError, ValueError, OverflowError):
        return None
    if joints.ndim == 1 and len(joints) % 3 == 0:
        return joints.reshape(-1, 3)
    return joints if joints.ndim == 2 and joints.shape[1] == 3 else None
