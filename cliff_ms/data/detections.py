"""The people of each image, as the user gives them: boxes, keypoints or both.

P is the number of people of an image, in the order of the file; rows are counted from 0. Boxes are x1, y1, x2, y2 in px
of the full image.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cliff_ms.data.keypoint_files import ANY_IMAGE, KeypointPerson, read_people
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import normalise_name, read_json, read_npz, require_file
from cliff_ms.keypoints import JOINT_SETS

BOX_FORMATS = ("xyxy", "xywh")
# A joint counts as seen above this confidence. OpenPose gives 0.3-0.9 to joints it sees, less to its guesses.
MIN_CONFIDENCE = 0.2
# One more than the points of a face (nose, eyes, ears): a box around a face is not a box around a person.
MIN_JOINTS = 6
# Joints end at the wrists, ankles and eyes, people do not. The authors' crop is 1.2 times the extent of ground-truth
# keypoints but 1.1 times a detected box; with this box of a person, the latter rule gives the former crop.
KEYPOINT_MARGIN = 1.2 / 1.1

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True, eq=False)
class Detections:
    """The people of one image.

    Attributes:
        boxes: (P, 4) float64, x1, y1, x2, y2 in px of the full image.
        scores: (P,) float64, 1 for a box that the user gave.
        keypoints: (P, K, 3) float32, x and y in px of the full image and a confidence in 0-1 (0: missing, with x = y =
            0); None where there are only boxes.
        joint_set: The order of the K joints, a key of `keypoints.JOINT_SETS`; None without keypoints.
        ids: (P,) int64, who they are through a video, as the user's file says; -1 where it does not. None where it says
            nothing of anybody.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray | None = None
    joint_set: str | None = None
    ids: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Detections":
        """The people of some rows."""
        keypoints, ids = (None if array is None else array[rows] for array in (self.keypoints, self.ids))
        return Detections(self.boxes[rows], self.scores[rows], keypoints, self.joint_set, ids)


def read_boxes(path: str | Path, box_format: str = "xyxy") -> dict[str, Detections]:
    """Read the boxes of people.

    Args:
        path: JSON `{"photo.png": [[x1, y1, x2, y2], ...], ...}` in px, or npz with `imgname` (N,) and `boxes` (or
            `bbox`) (N, 4), where the rows of an image are its people. An image may have no box: nobody is in it.
        box_format: 'xyxy', or 'xywh' for the top left corner, width and height.

    Returns:
        Image name -> Detections; look an image up with `for_image`.

    Raises:
        InputError: If the file cannot be read, or a box is not four finite numbers in px with a positive size.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"For 'read_boxes', 'box_format' must be one of {BOX_FORMATS}, but got '{box_format}'.")
    path = require_file(path, "Boxes file")
    rows_of = _boxes_of_npz(path) if path.suffix.lower() == ".npz" else _boxes_of_json(path)
    people = {}
    for image, rows in rows_of.items():
        where = f"Boxes file '{path}', image '{image}'"
        boxes = [_checked_box(row, box_format, f"{where}, row {k}") for k, row in enumerate(rows)]
        people[image] = Detections(np.array(boxes, np.float64).reshape(-1, 4), np.ones(len(boxes)))
    return people


def read_keypoints(path: str | Path) -> dict[str, Detections]:
    """Read the 2D keypoints of people; their boxes are drawn around them (`boxes_from_keypoints`).

    A confidence above 1 (a visibility flag of 2) counts as 1. Who people are through a video is read from `track_id`
    (COCO, PoseTrack), `idx` (AlphaPose) and `person_id` (OpenPose). People with fewer than MIN_JOINTS joints above
    MIN_CONFIDENCE are left out, with a warning: no box can be drawn around them. A person's score is the file's or,
    without one, the mean confidence of the visible joints.

    Args:
        path: OpenPose JSON of one image (BODY_25), a folder of them (`<stem>_keypoints.json`, `<stem>_openpose.json` or
            `<stem>.json`), COCO results (a list of `image_id` or `file_name`, `keypoints`, `score`) or COCO annotations
            (`images` and `annotations`; crowds and people without a labelled joint are skipped).

    Returns:
        Image name, stem or 12-digit COCO id -> Detections; ANY_IMAGE for the OpenPose JSON of one image. Look an image
        up with `for_image`.

    Raises:
        InputError: If the file cannot be read, is of no such kind, or holds keypoints that are not finite or not in px.
    """
    path = Path(path)
    people_of, joint_set = read_people(path)
    source = f"Keypoints {'folder' if path.is_dir() else 'file'} '{path}'"
    people_of = _with_true_numbers(people_of, source)
    if not people_of:
        raise InputError(f"{source} holds no image.")
    kept, left_out = {}, []
    for image, people in people_of.items():
        where = source if image == ANY_IMAGE else f"{source}, image '{image}'"
        rows = [k for k, person in enumerate(people) if (person.joints[:, 2] > MIN_CONFIDENCE).sum() >= MIN_JOINTS]
        left_out += [f"{where}, row {k}" for k in range(len(people)) if k not in rows]
        kept[image] = _from_keypoints(people, rows, joint_set, where)
    if left_out:
        first = left_out[0] + (", ..." if len(left_out) > 1 else "")
        why = f"fewer than {MIN_JOINTS} joints with a confidence above {MIN_CONFIDENCE}"
        log.warning("people left out for %s: %d (%s)", why, len(left_out), first)
    return kept


def for_image(people: dict[str, Detections], path: str | Path, source: str | Path) -> Detections:
    """Look up the people of an image.

    An entry names an image by its file name, by that and some of its folders ('train/a.jpg'), by its stem, or by its
    COCO id, which ends the stem ('000000044474' for 'COCO_train2014_000000044474.jpg'). The most specific entry counts.

    Args:
        people: What `read_boxes` or `read_keypoints` returned.
        path: The image.
        source: The file that the people come from, for the message.

    Returns:
        Its people.

    Raises:
        InputError: If there is no entry for it.
    """
    if ANY_IMAGE in people:
        return people[ANY_IMAGE]
    parts = Path(path).absolute().parts
    stem = Path(path).stem
    coco_id = re.search(r"_(\d{12})$", stem)
    for start in range(len(parts)):
        for name in (parts[-1], stem, coco_id[1] if coco_id else stem):
            key = Path(*parts[start:-1], name).as_posix()
            if key in people:
                return people[key]
    names = ", ".join(f"'{name}'" for name in list(people)[:3]) + (", ..." if len(people) > 3 else "")
    raise InputError(
        f"'{source}' has no entry for image '{path}': it is for other images ({names or 'none'}); name the "
        "entries like the image files."
    )


def for_frames(people: dict[str, Detections], path: str | Path, source: str | Path) -> Callable[[int], Detections]:
    """Look up the people of a video's frames.

    An entry names a frame by its number, from 0, alone or after the video's stem ('7', '7.jpg', 'clip_000000000007',
    'clip_0007.png'), or the video itself, for all of its frames.

    Args:
        people: What `read_boxes` or `read_keypoints` returned.
        path: The video.
        source: The file that the people come from, for the message.

    Returns:
        Number of a frame -> its people; nobody where the file knows other frames only.

    Raises:
        InputError: If there is no entry for any of its frames.
    """
    frame_name = re.compile(rf"(?:{re.escape(Path(path).stem)}_)?(\d+)")
    matches = {key: frame_name.fullmatch(Path(key).stem) for key in people}
    frames = {int(match[1]): people[key] for key, match in matches.items() if match}
    if not frames:
        for_all = for_image(people, path, source)
        return lambda frame: for_all
    nobody = next(iter(frames.values())).take(np.zeros(0, np.intp))
    return lambda frame: frames.get(frame, nobody)


def pair(boxes: Detections, keypoints: Detections, where: str) -> Detections:
    """Put the boxes of an image and the keypoints of the same people together, row by row.

    Args:
        boxes: The people, from `read_boxes`.
        keypoints: The same people in the same order, from `read_keypoints`.
        where: The image, for the message.

    Returns:
        The given boxes with the keypoints.

    Raises:
        InputError: If the counts differ, or no visible joint of a row lies in its box (another order).
    """
    people = () if keypoints.keypoints is None else keypoints.keypoints
    if len(boxes.boxes) != len(people):
        raise InputError(
            f"{where}: boxes: {len(boxes.boxes)}, people with {MIN_JOINTS} or more visible joints: "
            f"{len(people)}; one row of each per person was expected, in the same order."
        )
    for k, (box, joints) in enumerate(zip(boxes.boxes, people, strict=True)):
        xy = joints[joints[:, 2] > MIN_CONFIDENCE, :2]
        if not ((xy >= box[:2]) & (xy <= box[2:])).all(axis=1).any():
            raise InputError(
                f"{where}, row {k}: no visible joint lies in the box {box.tolist()}; the people must be in the same "
                "order in the boxes file and in the keypoints file."
            )
    return Detections(boxes.boxes, boxes.scores, keypoints.keypoints, keypoints.joint_set, keypoints.ids)


def boxes_from_keypoints(keypoints: np.ndarray, where: str) -> np.ndarray:
    """Draw a box around the visible joints of each person.

    Args:
        keypoints: (P, K, 3), x and y in px and confidence.
        where: The file and image, for the message.

    Returns:
        (P, 4) float64 x1, y1, x2, y2 in px; it may reach beyond the image.

    Raises:
        InputError: If a person has fewer than MIN_JOINTS visible joints, or they span no area in px.
    """
    boxes = [box_around(joints, f"{where}, row {k}") for k, joints in enumerate(keypoints)]
    return np.array(boxes, np.float64).reshape(-1, 4)


def box_around(joints: np.ndarray, where: str) -> np.ndarray:
    """Draw the box of one person: as `boxes_from_keypoints`, (K, 3) -> (4,), where `where` names the row too."""
    xy = joints[joints[:, 2] > MIN_CONFIDENCE, :2].astype(np.float64)
    if len(xy) < MIN_JOINTS:
        raise InputError(
            f"{where}: {len(xy)} joints have a confidence above {MIN_CONFIDENCE}, at least {MIN_JOINTS} are needed to "
            "draw a box."
        )
    low, high = xy.min(axis=0), xy.max(axis=0)
    if (high - low).max() <= 2 or (high - low).min() <= 0:
        raise InputError(
            f"{where}: the joints span {(high - low).round(3).tolist()} px; keypoints are in px of the image "
            "(OpenPose: --keypoint_scale 0)."
        )
    center, half = (low + high) / 2, (high - low) / 2 * KEYPOINT_MARGIN
    return np.concatenate([center - half, center + half])


def boxes_in_image(boxes: np.ndarray, img_hw: tuple[int, int]) -> np.ndarray:
    """Which boxes (P, 4), x1, y1, x2, y2 in px, share some area with an image of height and width in px, (P,) bool."""
    height, width = img_hw
    return (boxes[:, 2:] > 0).all(1) & (boxes[:, 0] < width) & (boxes[:, 1] < height)


def check_boxes_in_image(boxes: np.ndarray, img_hw: tuple[int, int], where: str) -> None:
    """Refuse a box that lies wholly outside its image; partly outside is fine.

    Args:
        boxes: (P, 4) x1, y1, x2, y2 in px.
        img_hw: Height and width of the image, px.
        where: The file and image, for the message.

    Raises:
        InputError: If a box and the image share no area.
    """
    outside = np.flatnonzero(~boxes_in_image(boxes, img_hw))
    if len(outside):
        row = outside[0]
        raise InputError(
            f"{where}, row {row}: the box {boxes[row].tolist()} lies outside the image, which is {img_hw[1]} px wide "
            f"and {img_hw[0]} px high; give boxes in px of this image."
        )


def _with_true_numbers(people_of: dict[str, list[KeypointPerson]], source: str) -> dict[str, list[KeypointPerson]]:
    """The same people; without numbers if two of an image have the same, as AlphaPose without tracking writes them."""
    for image, people in people_of.items():
        numbers = [person.number for person in people if person.number is not None]
        if len(set(numbers)) < len(numbers):
            log.warning("%s: people are numbered, but two in image '%s' have the same number: not used.", source, image)
            return {name: [person._replace(number=None) for person in each] for name, each in people_of.items()}
    return people_of


def _from_keypoints(people: list[KeypointPerson], rows: list[int], joint_set: str, where: str) -> Detections:
    """Take the people of these rows."""
    kept = [people[k] for k in rows]
    keypoints = np.array([person.joints for person in kept], np.float32).reshape(-1, len(JOINT_SETS[joint_set]), 3)
    boxes = [box_around(people[k].joints, f"{where}, row {k}") for k in rows]
    scores = [
        person.joints[person.joints[:, 2] > MIN_CONFIDENCE, 2].mean() if person.score is None else person.score
        for person in kept
    ]
    numbers = [person.number for person in kept]
    known = any(number is not None for number in numbers)
    ids = np.array([-1 if number is None else number for number in numbers], np.int64) if known else None
    return Detections(np.array(boxes).reshape(-1, 4), np.array(scores, np.float64), keypoints, joint_set, ids)


def _boxes_of_json(path: Path) -> dict[str, list]:
    """Image name -> rows, not checked yet."""
    data = read_json(path, "Boxes file", unique_keys=True)
    if not isinstance(data, dict):
        raise InputError(f"Boxes file '{path}' holds no object: " + 'expected {"photo.png": [[x1, y1, x2, y2]], ...}.')
    rows_of = {}
    for image, rows in data.items():
        if not isinstance(rows, list):
            raise InputError(f"Boxes file '{path}', image '{image}': expected a list of boxes [[x1, y1, x2, y2], ...].")
        if normalise_name(image) in rows_of:
            raise InputError(
                f"Boxes file '{path}' holds image '{normalise_name(image)}' twice; put its rows into one list."
            )
        rows_of[normalise_name(image)] = rows
    return rows_of


def _boxes_of_npz(path: Path) -> dict[str, list]:
    """Image name -> rows, not checked yet."""
    arrays = read_npz(path, "Boxes file")
    boxes = arrays.get("boxes", arrays.get("bbox"))
    if "imgname" not in arrays or boxes is None:
        raise InputError(
            f"Boxes file '{path}' has the keys {sorted(arrays)}: expected 'imgname' and 'boxes' (or 'bbox')."
        )
    names = np.atleast_1d(arrays["imgname"]).astype(str).tolist()
    if boxes.shape != (len(names), 4):
        raise InputError(f"Boxes file '{path}': 'imgname' has {len(names)} rows, the boxes have shape {boxes.shape}.")
    rows_of = defaultdict(list)
    for name, row in zip(names, boxes.tolist(), strict=True):
        rows_of[normalise_name(name)].append(row)
    return rows_of


def _checked_box(row: Any, box_format: str, where: str) -> list[float]:
    """Check one row and turn it into [x1, y1, x2, y2]."""
    names = {"xyxy": "[x1, y1, x2, y2]", "xywh": "[x, y, width, height]"}[box_format]
    numbers = isinstance(row, list) and len(row) == 4 and all(type(v) in (int, float) for v in row)
    if not (numbers and all(abs(v) < 1e7 for v in row)):  # NaN and infinity fail it too
        raise InputError(f"{where}: expected four finite numbers {names} in px, got {row}.")
    x1, y1, x2, y2 = map(float, row)
    if max(row) <= 1:
        raise InputError(f"{where}: {row} looks like fractions of the image; boxes are in px.")
    if box_format == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    if x2 <= x1 or y2 <= y1:
        hint = " (or are they x, y, width, height?)" if box_format == "xyxy" else ""
        raise InputError(f"{where}: {row} has no area; expected {names} in px{hint}.")
    return [x1, y1, x2, y2]
