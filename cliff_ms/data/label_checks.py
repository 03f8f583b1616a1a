"""Labels that are well formed and wrong: in other units, axes or orders than `Annotations` states, or astray.

A file whose rows, by and large, mean something else is wrong as a whole. Of a file that is right, single rows may be
bad. N is the number of rows; limits are far from what bodies and detectors do, so that what passes them is a mistake.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.body.skinning import Skinner
from cliff_ms.camera import HMR_FOCAL_LENGTH
from cliff_ms.data.annotations import PIXELS_PER_SCALE, Annotations
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SPIN24, SPIN24_OF_LANDMARKS, convert_keypoints, flip_permutation

_MAX_BAD_SHARE = 0.05  # of a file's rows; of more it is not the odd bad row
_FAR = 10.0  # box heights from the centre; the feet of whom a box shows only the face are 8 away
_MAX_EXTENT, _MIN_EXTENT = 4.0, 0.2  # m, of the largest distance between two joints of a person
_MAX_ANGLE = 2 * np.pi  # rad; of the largest joint angle of most people
_MAX_BETA = 20.0
_MAX_DISTANCE = 100.0  # m, from the camera, of most people
_EXTENTS_IN_BOX = 20.0  # a box is neither that much larger than the person's keypoints nor smaller
_USUAL_BOX = (0.8, 3.0)  # times as high as the keypoints extend, as most boxes are
_ELSEWHERE = 0.6  # box heights, that most boxes are off their keypoints, or keypoints off others
_MIN_PIXELS = 3.0  # px that a person's keypoints extend over
_MIN_FOCAL_LENGTH = 0.1  # of the image's larger side; a lens of 150 degrees
_MIN_JOINTS = 6  # that a person's extent is measured on
_SAMPLED, _MIN_SAMPLES, _MIN_COMMON = 200, 10, 8  # people, and joints that both labels of one must have
# 1 - correlation of joints that disagree, how little of it a cause leaves, and that of joints of others.
_UNLIKE, _LIKER, _STRANGERS = 0.1, 1 / 3, 0.2

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True)
class Findings:
    """What is wrong with the rows of a file.

    Attributes:
        wrong: What is wrong with the file as a whole, a sentence part each.
        bad: Reason -> (N,) bool, True where a row is bad; a row may be so for several.
        notes: What was taken otherwise than it is written, a sentence part each.
    """

    wrong: list[str] = field(default_factory=list)
    bad: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, reason: str, rows: np.ndarray) -> None:
        """Note the rows (N,) bool that are bad for a reason, if there are any."""
        if rows.any():
            self.bad[reason] = self.bad.get(reason, False) | rows

    def bad_rows(self, count: int) -> np.ndarray:
        """(count,) bool, the rows that are bad for any reason."""
        return np.any(list(self.bad.values()), 0) if self.bad else np.zeros(count, bool)

    def reasons(self) -> dict[int, str]:
        """Number of each bad row, in order -> why it is."""
        rows = np.flatnonzero(np.any(list(self.bad.values()), 0)) if self.bad else np.zeros(0, int)
        return {int(row): "; ".join(reason for reason, bad in self.bad.items() if bad[row]) for row in rows}


def examine(known: Annotations, findings: Findings) -> None:
    """Add what is wrong with the labels of a file.

    Args:
        known: All rows; those that are bad already may hold anything.
        findings: What reading it has found; changed in place.
    """
    good = ~findings.bad_rows(len(known))
    if not good.any():
        return
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        _examine_keypoints(known, good, findings)
        _examine_cameras(known, good, findings)
        _examine_bodies(known, good, findings)
        if not findings.wrong:
            _compare_labels(known, good, findings)


def without_bad_rows(known: Annotations, findings: Findings, path: str | Path) -> Annotations:
    """The rows of a file that are not bad; says which are left out.

    Args:
        known: All rows.
        findings: What is wrong with them.
        path: The file, for messages.

    Raises:
        InputError: What `refusal` says.
    """
    refused = refusal(path, known, findings)
    if refused:
        raise InputError(refused)
    for note in findings.notes:
        log.warning("%s: %s", path, note)
    left_out = findings.reasons()
    if not left_out:
        return known
    row, reason = next(iter(left_out.items()))
    log.warning(
        "%s: %d of %d rows left out, such as row %d: %s; `prepare.py check` lists them",
        path, len(left_out), len(known), row, reason,
    )  # fmt: skip
    kept = np.flatnonzero(~findings.bad_rows(len(known)))
    return replace(known.take(kept), file_rows=kept, left_out=left_out)


def refusal(path: str | Path, known: Annotations, findings: Findings) -> str | None:
    """Why `load_annotations` refuses a file, in one sentence; None where it takes it.

    Args:
        path: The file.
        known: All its rows.
        findings: What is wrong with them.
    """
    if findings.wrong:
        return f"Annotation file '{path}': {findings.wrong[0]}."
    reasons = findings.reasons()
    if len(reasons) <= _MAX_BAD_SHARE * len(known):
        return None
    row, reason = next(iter(reasons.items()))
    return (
        f"Annotation file '{path}', row {row}: {reason}; {len(reasons)} of {len(known)} rows are bad, too many to be "
        "left out; `prepare.py check` lists them."
    )


def _examine_keypoints(known: Annotations, good: np.ndarray, findings: Findings) -> None:
    """Those of 2D in px around the box."""
    enough = good & ((known.keypoints2d[..., 2] > 0).sum(1) >= _MIN_JOINTS)
    if enough.any():
        _compare_with_boxes(known.take(enough), findings)
    if known.input_keypoints is not None:
        inputs = convert_keypoints(known.input_keypoints, known.input_joint_set, "spin24")
        both = (inputs[..., 2] > 0) & (known.keypoints2d[..., 2] > 0) & good[:, None]
        apart = np.linalg.norm(inputs[..., :2] - known.keypoints2d[..., :2], axis=2) / known.size[:, None]
        if both.any() and np.median(apart[both]) > _ELSEWHERE:
            findings.notes.append("'part' and 'input_keypoints' lie in different places: of other people?")
    for key, keypoints in (("part", known.keypoints2d), ("input_keypoints", known.input_keypoints)):
        if keypoints is not None:
            away = np.linalg.norm(keypoints[..., :2] - known.center[:, None], axis=2) > _FAR * known.size[:, None]
            far = good & (away & (keypoints[..., 2] > 0)).any(1)
            findings.add(f"'{key}' has a keypoint more than {_FAR:.0f} box heights from the centre of the box", far)


def _compare_with_boxes(people: Annotations, findings: Findings) -> None:
    """The keypoints of some people, each of several, with their boxes."""
    points, seen = people.keypoints2d[..., :2], people.keypoints2d[..., 2] > 0
    points = np.where(seen[..., None], points, np.nan)
    low, high = np.nanmin(points, 1), np.nanmax(points, 1)
    extent = (high - low).max(1)
    in_box = np.median(people.size / extent)
    off, swapped_off = (
        np.median(np.linalg.norm((low + high) / 2 - center, axis=1) / people.size)
        for center in (people.center, people.center[:, ::-1])
    )
    off_center = _ELSEWHERE if len(people) >= _MIN_SAMPLES else 1
    if np.median(extent) < _MIN_PIXELS:
        findings.wrong.append(
            f"'part' must be in px of the full image, but the keypoints of most people extend over "
            f"{np.median(extent):.3g} px"
        )
    elif not 1 / _EXTENTS_IN_BOX < in_box < _EXTENTS_IN_BOX:
        findings.wrong.append(
            f"'scale' must be the box height in px / {PIXELS_PER_SCALE}, but the boxes of most people are "
            f"{in_box:.3g} times as high as their keypoints in 'part' extend"
        )
    elif off > off_center and swapped_off < off / 2:
        findings.wrong.append("'center' must be (x, y), but most lie on the keypoints in 'part' as (y, x)")
    elif off > off_center:
        findings.wrong.append(
            f"'center' and 'part' must be px of the same image, but most centres are {off:.3g} box heights or more "
            "from the middle of their keypoints"
        )
    elif not _USUAL_BOX[0] < in_box < _USUAL_BOX[1]:
        findings.notes.append(f"the boxes of most people are {in_box:.2g} times as high as their keypoints extend")


def _examine_cameras(known: Annotations, good: np.ndarray, findings: Findings) -> None:
    """Image sizes, focal lengths and the places of boxes and people."""
    if (known.focal_length[good] == HMR_FOCAL_LENGTH).all():
        findings.notes.append(
            f"every focal length is {HMR_FOCAL_LENGTH:.0f} px: HMR's of a crop, perhaps, and not that of the images?"
        )
    if known.img_hw is not None:
        outside = outside_image(known.center[good], known.img_hw[good])
        if outside.mean() > 0.5:
            findings.wrong.append(
                f"'center' must be (x, y) and 'img_hw' (height, width) in px of the same image, but the centres of "
                f"{outside.sum()} of {len(outside)} boxes lie outside"
            )
        findings.add("the box lies outside the image", good & box_outside_image(known.center, known.size, known.img_hw))
        focal_length = (known.focal_length / known.img_hw.max(1))[good & np.isfinite(known.focal_length)]
        if len(focal_length) and np.median(focal_length) < _MIN_FOCAL_LENGTH:
            findings.wrong.append(
                f"'focal_l' must be in px, but most are {np.median(focal_length):.3g} times the image's larger side"
            )
    if known.translation is not None:
        depth = np.median(known.translation[good & (known.has_smpl > 0), 2]) if known.has_smpl[good].any() else 1.0
        if not 0 < depth < _MAX_DISTANCE:
            findings.wrong.append(f"'global_t' must be in m before the camera, but most people have a z of {depth:.4g}")


def _examine_bodies(known: Annotations, good: np.ndarray, findings: Findings) -> None:
    """3D joints, poses and shapes."""
    seen = known.keypoints3d[..., 3] > 0
    enough = good & (seen.sum(1) >= _MIN_JOINTS)
    if enough.any():
        extent = np.zeros(len(known))
        points = np.where(seen[enough, :, None], known.keypoints3d[enough, :, :3], np.nan)
        extent[enough] = (np.nanmax(points, 1) - np.nanmin(points, 1)).max(1)
        median = np.median(extent[enough])
        if not _MIN_EXTENT < median < _MAX_EXTENT:
            findings.wrong.append(f"'S' must be in m, but most people's joints extend over {median:.4g}")
        else:
            findings.add(f"'S' has joints more than {_MAX_EXTENT:.0f} m apart", extent > _MAX_EXTENT)
    labelled = good & (known.has_smpl > 0)
    if labelled.any():
        angle = np.linalg.norm(known.pose[labelled].reshape(-1, 24, 3), axis=2).max(1)
        if np.median(angle) > _MAX_ANGLE:
            findings.wrong.append(
                f"'pose' must be axis-angle in rad, but most people have a joint turned by {np.median(angle):.3g}"
            )
        findings.add(f"'shape' has a beta beyond {_MAX_BETA:.0f}", labelled & (np.abs(known.betas) > _MAX_BETA).any(1))


def outside_image(center: np.ndarray, img_hw: np.ndarray) -> np.ndarray:
    """Whether points (N, 2) px lie outside of images of size (N, 2) px, (N,) bool."""
    return ((center < 0) | (center > img_hw[:, ::-1])).any(1)


def box_outside_image(center: np.ndarray, size: np.ndarray, img_hw: np.ndarray) -> np.ndarray:
    """Whether crops, taken as square, show nothing of their images, (N,) bool."""
    half = size[:, None] / 2
    return ((center + half < 0) | (center - half > img_hw[:, ::-1])).any(1)


# --- Labels that contradict each other --------------------------------------------------------------------------------

_MIRRORED = flip_permutation(SPIN24)
_AXES = "xyz"


def _compare_labels(known: Annotations, good: np.ndarray, findings: Findings) -> None:
    """The joints of one label against another's, of up to 200 people: exchanged sides or axes, labels of others."""
    rows = np.flatnonzero(good)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED)).astype(int)]
    some = known.take(rows)
    labels = {"part": some.keypoints2d, "S": some.keypoints3d}
    if some.input_keypoints is not None:
        labels["input_keypoints"] = convert_keypoints(some.input_keypoints, some.input_joint_set, "spin24")
    if some.has_smpl.any():
        labels["pose"] = _joints_of_bodies(some)
    for first, second in (("part", "S"), ("part", "pose"), ("S", "pose"), ("part", "input_keypoints")):
        if first in labels and second in labels:
            unlike, change = _unlikeness_and_cause(labels[first], labels[second])
            if change:
                findings.wrong.append(f"'{first}' and '{second}' agree only with {change} in the latter")
            elif unlike > _STRANGERS:
                findings.notes.append(f"'{first}' and '{second}' are hardly alike: of other people, or another camera?")


def _joints_of_bodies(known: Annotations) -> np.ndarray:
    """SPIN24's joints (N, 24, 4) of the labelled bodies; the bundled body's, which is like any for this."""
    skinner = Skinner(load_body())
    rotmats = Rotation.from_rotvec(known.pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3).astype(np.float32)
    _, landmarks, _ = skinner(np.zeros((len(known), skinner.num_betas), np.float32), rotmats)
    confidence = np.broadcast_to(known.has_smpl[:, None, None], (len(known), len(SPIN24), 1))
    return np.concatenate([landmarks[:, SPIN24_OF_LANDMARKS], confidence], -1)


def _unlikeness_and_cause(first: np.ndarray, second: np.ndarray) -> tuple[float, str]:
    """How unlike the same joints (n, 24, D + 1) of two labels are, and which change, if any, makes them alike."""
    enough = ((first[..., -1] > 0) & (second[..., -1] > 0)).sum(1) >= _MIN_COMMON
    if enough.sum() < _MIN_SAMPLES:
        return 0.0, ""
    first, second = first[enough], second[enough]
    as_it_is = _unlikeness(first, second)
    if as_it_is <= _UNLIKE:
        return as_it_is, ""
    causes = ((name, changed) for name, changed in _changes(second) if _unlikeness(first, changed) < as_it_is * _LIKER)
    return as_it_is, next(causes, ("", second))[0]


def _changes(joints: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Joints (n, 24, D + 1) with sides exchanged, with axes exchanged or turned, and with both; the simplest first."""
    axes = joints.shape[2] - 1
    moves = [(order, signs) for order in permutations(range(axes)) for signs in product((1, -1), repeat=axes)]
    for sides in (False, True):
        for order, signs in sorted(moves, key=lambda move: sum(np.array(move[0]) != range(axes)) + move[1].count(-1)):
            text = ", ".join(("-" if sign < 0 else "") + _AXES[axis] for axis, sign in zip(order, signs, strict=True))
            names = ["left and right exchanged"] * sides
            if text != ", ".join(_AXES[:axes]):
                names.append(f"({text}) for ({', '.join(_AXES[:axes])})")
            moved = np.concatenate([joints[..., list(order)] * signs, joints[..., -1:]], -1)
            yield " and ".join(names), moved[:, _MIRRORED] if sides else moved


def _unlikeness(first: np.ndarray, second: np.ndarray) -> float:
    """The median of 1 - correlation of people's joints, wherever and however large they are, in the axes of both."""
    axes = min(first.shape[2], second.shape[2]) - 1
    seen = ((first[..., -1] > 0) & (second[..., -1] > 0))[..., None]

    def direction(joints: np.ndarray) -> np.ndarray:
        from_mean = (joints - (joints * seen).sum(1, keepdims=True) / seen.sum(1, keepdims=True)) * seen
        return from_mean / np.linalg.norm(from_mean, axis=(1, 2), keepdims=True)

    return float(np.median(1 - (direction(first[..., :axes]) * direction(second[..., :axes])).sum((1, 2))))
