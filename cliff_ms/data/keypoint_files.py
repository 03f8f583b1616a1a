"""Formats of files with 2D keypoints of people: OpenPose and COCO. `detections.read_keypoints` is the way in."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeGuard

import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import normalise_name, read_json, require_file
from cliff_ms.keypoints import JOINT_SETS

# The key of keypoints that come without an image name: OpenPose writes one file per image and names none inside.
ANY_IMAGE = "*"
_OPENPOSE_ENDINGS = ("_keypoints", "_openpose")
_NUMBERS = ("track_id", "idx", "person_id")
_OTHER_OPENPOSE_MODELS = {54: "the 18-joint COCO model", 45: "the 15-joint MPI model"}

log = logging.getLogger("cliff_ms")


class KeypointPerson(NamedTuple):
    """One person of an image.

    Attributes:
        joints: (K, 3) float32, x and y in px and confidence; missing joints are all zero.
        score: None where the file has none.
        number: Who it is, the same in all frames of a video; None where the file does not say.
    """

    joints: np.ndarray
    score: float | None = None
    number: int | None = None


@dataclass(frozen=True, eq=False)
class CocoPerson:
    """One row of the annotations of COCO's person keypoints.

    Attributes:
        where: The file and row, for messages.
        image: The row of its image, as the file has it.
        image_name: File name of the image, normalised.
        row: The row itself, as the file has it.
        joints: (17, 3) float32, x and y in px and confidence; missing joints are all zero.
    """

    where: str
    image: dict
    image_name: str
    row: dict
    joints: np.ndarray

    @property
    def is_crowd(self) -> bool:
        """Whether it stands for several people."""
        return bool(self.row.get("iscrowd"))


def is_coco(data: object) -> bool:
    """Whether a json is of the kind of COCO's annotations."""
    return isinstance(data, dict) and all(isinstance(data.get(key), list) for key in ("images", "annotations"))


def coco_people(data: dict, where: str) -> tuple[list[CocoPerson], dict[str, int]]:
    """Read COCO's person keypoints.

    Args:
        data: Content of a json that `is_coco`.
        where: The file, for messages.

    Returns:
        The people in the order of the file, crowds too; and how many annotations were left out for which reason: they
        are not of the file's category 'person', have no keypoints, are of an image that the file does not list or lists
        twice, or damaged.

    Raises:
        InputError: If nobody is left.
    """
    images, persons = _images_by_id(data["images"]), _person_categories(data)
    people: list[CocoPerson] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for k, row in enumerate(data["annotations"]):
        place = f"annotations row {k}"
        try:
            reason = _why_nobody(row, images, persons, place)
            if reason is None:
                image = images[str(row["image_id"])]
                joints = _joints(row["keypoints"], "coco17", place)
                people.append(CocoPerson(f"{where}, {place}", image, _image_name(image, place), row, joints))
            else:
                left_out[reason].append(place)
        except InputError as error:
            left_out["damaged annotations"].append(str(error).rstrip("."))
    counts = {f"{reason} (the first: {places[0]})": len(places) for reason, places in left_out.items()}
    if counts and not people:
        reasons = "; ".join(f"{count} {reason}" for reason, count in counts.items())
        raise InputError(f"{where} has nobody's keypoints; its annotations are left out: {reasons}.")
    return people, counts


def field(row: object, key: str, where: str) -> object:
    """What a row of a json holds under a key.

    Args:
        row: The row.
        key: The key.
        where: The file and row, for the message.

    Raises:
        InputError: If the row is no object, or has no such key.
    """
    if not isinstance(row, dict) or key not in row:
        raise InputError(f"{where} has no '{key}'.")
    return row[key]


def read_people(path: Path) -> tuple[dict[str, list[KeypointPerson]], str]:
    """Read the file or folder, telling its kind by its content.

    Args:
        path: One of the kinds that `detections.read_keypoints` lists.

    Returns:
        Image name, stem, 12-digit COCO id or ANY_IMAGE -> every person of the file, and their joint set.

    Raises:
        InputError: If the file cannot be read, is of no such kind, or holds keypoints that are not finite.
    """
    if path.is_dir():
        return _openpose_folder(path), "openpose25"
    data = read_json(require_file(path, "Keypoints file"), "Keypoints file")
    where = f"Keypoints file '{path}'"
    if isinstance(data, list):
        return _coco_results(data, where), "coco17"
    if isinstance(data, dict) and "people" in data:
        return {ANY_IMAGE: _openpose_people(data["people"], where)}, "openpose25"
    if is_coco(data):
        return _coco_annotations(data, where), "coco17"
    raise InputError(
        f"{where} is of no known kind: expected OpenPose JSON ('people'), COCO results (a list) or COCO annotations "
        "('images' and 'annotations')."
    )


def _joints(values: object, joint_set: str, where: str) -> np.ndarray:
    """Check a flat x, y, confidence list; -> (K, 3) float32 with missing joints all zero."""
    count = len(JOINT_SETS[joint_set])
    try:
        joints = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        joints = np.zeros(0)
    if joints.shape != (3 * count,):
        size = len(values) if isinstance(values, list) else 0
        other = _OTHER_OPENPOSE_MODELS.get(size)
        hint = f" {size} are those of {other}; run OpenPose with --model_pose BODY_25." if other else ""
        raise InputError(f"{where}: expected {3 * count} keypoint numbers (x, y, confidence), got {size}.{hint}")
    joints = joints.reshape(count, 3)
    if not (np.abs(joints) < 1e7).all() or (joints[:, 2] < 0).any():  # NaN and infinity fail the first
        raise InputError(f"{where}: the keypoints must be finite numbers with confidences of 0 or more.")
    joints[joints[:, 2] == 0] = 0
    joints[:, 2] = np.minimum(joints[:, 2], 1)
    return joints.astype(np.float32)


def _images_by_id(images: list) -> dict[str, dict | None]:
    """The rows of images; None where two of different names have one id."""
    by_id: dict[str, dict | None] = {}
    for image in images:
        if isinstance(image, dict) and "id" in image:
            other = by_id.setdefault(str(image["id"]), image)
            if other is not None and other.get("file_name") != image.get("file_name"):
                by_id[str(image["id"])] = None
    return by_id


def _person_categories(data: dict) -> set[str] | None:
    """The ids of the category 'person'; None if the file does not say."""
    categories = data.get("categories")
    rows = [row for row in categories if isinstance(row, dict)] if isinstance(categories, list) else []
    return {str(row.get("id")) for row in rows if str(row.get("name")).lower() == "person"} or None


def _why_nobody(row: object, images: Mapping[str, dict | None], persons: set[str] | None, where: str) -> str | None:
    """Why an annotation is not that of a person with keypoints; None if it is."""
    image_id = str(field(row, "image_id", where))
    if persons and "category_id" in row and str(row["category_id"]) not in persons:
        return "of another category"
    if not row.get("keypoints"):
        return "without keypoints"
    if image_id not in images:
        return "of an image that the file does not list"
    return "of an image_id that two images have" if images[image_id] is None else None


def _openpose_folder(folder: Path) -> dict[str, list[KeypointPerson]]:
    people_of = {}
    for path in sorted(folder.glob("*.json")):
        where = f"Keypoints file '{path}'"
        data = read_json(require_file(path, "Keypoints file"), "Keypoints file")
        if not isinstance(data, dict) or "people" not in data:
            raise InputError(f"{where} has no 'people': a folder must hold OpenPose JSON files only.")
        ending = next((ending for ending in _OPENPOSE_ENDINGS if path.stem.endswith(ending)), "")
        stem = path.stem.removesuffix(ending)
        if stem in people_of:
            raise InputError(f"{where} is a second file for image '{stem}'; keep one of them.")
        people_of[stem] = _openpose_people(data["people"], where)
    return people_of


def _openpose_people(people: object, where: str) -> list[KeypointPerson]:
    if not isinstance(people, list):
        raise InputError(f"{where}: 'people' must be a list.")
    found = []
    for k, person in enumerate(people):
        row = f"{where}, row {k}"
        joints = _joints(field(person, "pose_keypoints_2d", row), "openpose25", row)
        found.append(KeypointPerson(joints, number=_number(person, row)))
    return found


def _coco_results(results: list, where: str) -> dict[str, list[KeypointPerson]]:
    people_of = defaultdict(list)
    for k, result in enumerate(results):
        row = f"{where}, row {k}"
        joints = _joints(field(result, "keypoints", row), "coco17", row)
        score = result.get("score")
        if score is not None and not _is_number(score):
            raise InputError(f"{row}: 'score' must be a finite number, got {score}.")
        image = result["file_name"] if "file_name" in result else field(result, "image_id", row)
        people_of[_image_key(image, row)].append(KeypointPerson(joints, score, _number(result, row)))
    return people_of


def _coco_annotations(data: dict, where: str) -> dict[str, list[KeypointPerson]]:
    people_of = {_image_name(image, f"{where}, images row {k}"): [] for k, image in enumerate(data["images"])}
    found, left_out = coco_people(data, where)
    for reason, count in left_out.items():
        log.warning("%s: %d left out: %s", where, count, reason)
    for person in found:
        if not person.is_crowd and person.joints[:, 2].any():
            number = _number(person.row, person.where)
            people_of[person.image_name].append(KeypointPerson(person.joints, number=number))
    return people_of


def _number(person: dict, where: str) -> int | None:
    """Who a person is: `track_id` of COCO and PoseTrack, `idx` of AlphaPose, `person_id` of OpenPose; -1 is nobody."""
    key = next((key for key in _NUMBERS if key in person), None)
    if key is None:
        return None
    value = person[key]
    while isinstance(value, list) and len(value) == 1:  # as OpenPose and AlphaPose write it
        value = value[0]
    if not _is_number(value) or value != int(value):
        raise InputError(f"{where}: '{key}' must be a whole number, got {person[key]}.")
    return int(value) if value >= 0 else None


def _is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a json is a finite number that fits an integer of 64 bits."""
    return isinstance(value, int | float) and abs(value) < 2**63


def _image_name(image: object, where: str) -> str:
    return _image_key(field(image, "file_name", where), where)


def _image_key(image: object, where: str) -> str:
    """A file name as it is; a number as the 12 digits that end the names of COCO's files."""
    if isinstance(image, str):
        return normalise_name(image)
    if isinstance(image, int):
        return f"{image:012d}"
    raise InputError(f"{where}: an image is named by a string or an integer, got {image}.")
