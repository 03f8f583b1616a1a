"""The people of each image, as the user gives them: boxes, keypoints or both.

P is the number of people of an image, in the order of the file; rows are counted from 0. Boxes are x1, y1, x2, y2 in px
of the full image.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cliff_ms.data.box_files import BOX_FORMATS, read_box_file
from cliff_ms.data.keypoint_files import ANY_IMAGE, EVERY_IMAGE, KeypointPerson, read_people
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import JOINT_SETS

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
        scores: (P,) float64, 1 for a box that was given without one.
        keypoints: (P, K, 3) float32, x and y in px of the full image and a confidence in 0-1 (0: missing, with x = y =
            0); None where there are only boxes.
        joint_set: The order of the K joints, a key of `keypoints.JOINT_SETS`; None without keypoints.
        ids: (P,) int64, who they are through a video, as the user's file says; -1 where it does not. None where it says
            nothing of anybody.
        stated_hw: Height and width in px of the image that boxes and keypoints are of, as the user's file says; None
            where it does not.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray | None = None
    joint_set: str | None = None
    ids: np.ndarray | None = None
    stated_hw: tuple[int, int] | None = None

    def take(self, rows: np.ndarray) -> "Detections":
        """The people of some rows."""
        keypoints, ids = (None if array is None else array[rows] for array in (self.keypoints, self.ids))
        return Detections(self.boxes[rows], self.scores[rows], keypoints, self.joint_set, ids, self.stated_hw)


def read_boxes(path: str | Path, box_format: str = "xyxy") -> dict[str, Detections]:
    """Read the boxes of people.

    Args:
        path: JSON `{"photo.png": [[x1, y1, x2, y2], ...], ...}` in px; npz with `imgname` (N,) and `boxes` (or `bbox`)
            (N, 4), where the rows of an image are its people; either also with a score in 0-1 as fifth number; or
            COCO's detection results (a list of `image_id` or `file_name`, `bbox` [x, y, width, height], `category_id`,
            `score`), of which other categories than 1, person, are left out with a warning. An image may have no box:
            nobody is in it.
        box_format: Of the first two: 'xyxy', or 'xywh' for the top left corner, width and height.

    Returns:
        Image name -> Detections; look an image up with `for_image`.

    Raises:
        InputError: If the file cannot be read, or a box is not four finite numbers in px with a positive size.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"For 'read_boxes', 'box_format' must be one of {BOX_FORMATS}, but got '{box_format}'.")
    people = {}
    for image, rows in read_box_file(Path(path), box_format).items():
        table = np.array(rows, np.float64).reshape(-1, 5)
        people[image] = Detections(table[:, :4], table[:, 4])
    _warn_of_doubles(people, f"Boxes file '{path}'")
    return people


def read_keypoints(path: str | Path) -> dict[str, Detections]:
    """Read the 2D keypoints of people; their boxes are drawn around them (`boxes_from_keypoints`).

    A confidence above 1 (a visibility flag of 2) counts as 1. Who people are through a video is read from `track_id`
    (COCO, PoseTrack, mmpose), `idx` (AlphaPose) and `person_id` (OpenPose). People with fewer than MIN_JOINTS joints
    above MIN_CONFIDENCE are left out, with a warning: no box can be drawn around them. A person's score is the file's
    or, without one, the mean confidence of the visible joints.

    Args:
        path: OpenPose JSON of one image (BODY_25 or its COCO model), a folder of them (`<stem>_keypoints.json`,
            `<stem>_openpose.json` or `<stem>.json`), COCO or AlphaPose results (a list of `image_id` or `file_name`,
            `keypoints`, `score`), AlphaPose's other formats, COCO annotations (`images` and `annotations`; crowds and
            people without a labelled joint are skipped), or mmpose's output of an image (a list of `keypoints` and
            `keypoint_scores`), a folder of them, or of a video (a list of `frame_id` and `instances`). Of the joints of
            Halpe and COCO-WholeBody the first 17 are taken, of OpenPose's COCO model all but the neck.

    Returns:
        Image name, stem or 12-digit number -> Detections; ANY_IMAGE for the file of one image, EVERY_IMAGE for the
        empty list of a detector that found nobody. Look an image up with `for_image`.

    Raises:
        InputError: If the file cannot be read, is of no such kind, or holds keypoints that are not finite or not in px.
    """
    path = Path(path)
    people_of, joint_set, sizes = read_people(path)
    source = f"Keypoints {'folder' if path.is_dir() else 'file'} '{path}'"
    people_of = _with_true_numbers(people_of, source)
    if not people_of:
        raise InputError(f"{source} holds no image.")
    kept, left_out = {}, []
    for image, people in people_of.items():
        where = source if image == ANY_IMAGE else f"{source}, image '{image}'"
        rows = [k for k, person in enumerate(people) if (person.joints[:, 2] > MIN_CONFIDENCE).sum() >= MIN_JOINTS]
        left_out += [f"{where}, row {k}" for k in range(len(people)) if k not in rows]
        kept[image] = _from_keypoints(people, rows, joint_set, where, sizes.get(image))
    if left_out:
        first = left_out[0] + (", ..." if len(left_out) > 1 else "")
        why = f"fewer than {MIN_JOINTS} joints with a confidence above {MIN_CONFIDENCE}"
        log.warning("people left out for %s: %d (%s)", why, len(left_out), first)
    _warn_of_doubles(kept, source)
    return kept


def entry_of(people: Mapping[str, Detections], path: str | Path) -> str | None:
    """The entry of an image.

    An entry names an image by its file name, by that and some of its folders ('train/a.jpg'), by its stem, or by its
    COCO id, which is the stem or ends it ('000000044474' for '44474.jpg' and 'COCO_train2014_000000044474.jpg'). The
    most specific entry counts.

    Args:
        people: What `read_boxes` or `read_keypoints` returned.
        path: The image.

    Returns:
        A key of `people`, or None.
    """
    for all_images in (ANY_IMAGE, EVERY_IMAGE):
        if all_images in people:
            return all_images
    parts = Path(path).absolute().parts
    stem = Path(path).stem
    coco_id = re.fullmatch(r"(?:.*_(?=\d{12}$))?(\d+)", stem)
    for start in range(len(parts)):
        for name in (parts[-1], stem, coco_id[1].zfill(12) if coco_id else stem):
            key = Path(*parts[start:-1], name).as_posix()
            if key in people:
                return key
    return None


def for_image(people: dict[str, Detections], path: str | Path, source: str | Path) -> Detections:
    """Look up the people of an image, see `entry_of`.

    Args:
        people: What `read_boxes` or `read_keypoints` returned.
        path: The image.
        source: The file that the people come from, for the message.

    Returns:
        Its people.

    Raises:
        InputError: If there is no entry for it.
    """
    entry = entry_of(people, path)
    if entry is not None:
        return people[entry]
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
    return replace(keypoints, boxes=boxes.boxes, scores=boxes.scores)


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


def check_stated_size(people: Detections, img_hw: tuple[int, int], where: str) -> None:
    """Refuse people of an image of another size, whose pixels are not those of this image.

    Args:
        people: Of the image.
        img_hw: Its height and width, px.
        where: The image, for the message.

    Raises:
        InputError: If the file that they come from states another size.
    """
    if people.stated_hw is not None and np.abs(np.subtract(people.stated_hw, img_hw)).max() > 1:  # more than rounding
        height, width = people.stated_hw
        raise InputError(
            f"{where} is {img_hw[1]} px wide and {img_hw[0]} px high, but the file of its people says {width} and "
            f"{height}: give the image that they were found in, or scale them."
        )


def _with_true_numbers(people_of: dict[str, list[KeypointPerson]], source: str) -> dict[str, list[KeypointPerson]]:
    """The same people; without numbers if two of an image have the same, as AlphaPose without tracking writes them."""
    for image, people in people_of.items():
        numbers = [person.number for person in people if person.number is not None]
        if len(set(numbers)) < len(numbers):
            log.warning("%s: people are numbered, but two in image '%s' have the same number: not used.", source, image)
            return {name: [person._replace(number=None) for person in each] for name, each in people_of.items()}
    return people_of


def _warn_of_doubles(people: dict[str, Detections], source: str) -> None:
    """Say who is in an image twice, as when the results of two runs are put together."""
    found = []
    for image, each in people.items():
        rows = each.boxes if each.keypoints is None else each.keypoints
        first = np.unique(rows, axis=0, return_index=True)[1] if len(rows) else []
        found += [f"image '{image}', row {row}" for row in np.setdiff1d(np.arange(len(rows)), first)]
    if found:
        log.warning("%s: people that are there twice: %d (the first: %s); each is taken", source, len(found), found[0])


def _from_keypoints(
    people: list[KeypointPerson], rows: list[int], joint_set: str, where: str, stated_hw: tuple[int, int] | None
) -> Detections:
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
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    return Detections(boxes, np.array(scores, np.float64), keypoints, joint_set, ids, stated_hw)
