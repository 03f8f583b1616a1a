"""Formats of files with 2D keypoints of people: OpenPose, COCO, AlphaPose, mmpose. See `detections.read_keypoints`."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cliff_ms.data.joint_lists import JointReader
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import normalise_name, read_json, require_file
from cliff_ms.keypoints import COCO17, OPENPOSE25, convert_keypoints

# The key of keypoints that come without an image name: OpenPose writes one file per image and names none inside.
ANY_IMAGE = "*"
# The key of the results of detectors that found nobody in any image: an empty list.
EVERY_IMAGE = "**"
_OPENPOSE_ENDINGS = ("_keypoints", "_openpose")
_NUMBERS = ("track_id", "idx", "person_id")
# OpenPose's key of the people, and AlphaPose's in the format of CMU-Pose -> that of each person's joints.
_OPENPOSE_KEYS = {"people": "pose_keypoints_2d", "bodies": "joints"}
_KINDS = (
    "OpenPose JSON ('people'), COCO or AlphaPose results (a list of 'image_id' or 'file_name' and 'keypoints'), COCO "
    "annotations ('images' and 'annotations') or mmpose's output (a list of 'keypoints' and 'keypoint_scores', of a "
    "video of 'frame_id' and 'instances', or either as 'instance_info')"
)

log = logging.getLogger("cliff_ms")


class KeypointPerson(NamedTuple):
    """One person of an image.

    Attributes:
        joints: (K, 3) float32, x and y in px and confidence; missing joints are all zero. 17 are COCO's, 25 those of
            BODY_25, none those of somebody without any.
        score: None where the file has none.
        number: Who it is, the same in all frames of a video; None where the file does not say.
    """

    joints: np.ndarray
    score: float | None = None
    number: int | None = None


class KeypointFile(NamedTuple):
    """Everybody in a file.

    Attributes:
        people_of: Image name, stem, 12-digit number, ANY_IMAGE or EVERY_IMAGE -> its people.
        joint_set: The order of everybody's joints, a key of `keypoints.JOINT_SETS`.
        sizes: Image name -> height and width in px of the image whose pixels the keypoints are in, as the file says.
    """

    people_of: dict[str, list[KeypointPerson]]
    joint_set: str
    sizes: dict[str, tuple[int, int]]


class _Content(NamedTuple):
    """What a json holds, as in `KeypointFile`."""

    people_of: dict[str, list[KeypointPerson]]
    sizes: dict[str, tuple[int, int]] = {}


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
    read_joints = JointReader(where)
    left_out: dict[str, list[str]] = defaultdict(list)
    for k, row in enumerate(data["annotations"]):
        place = f"annotations row {k}"
        try:
            reason = _why_nobody(row, images, persons, place)
            if reason is None:
                image = images[str(row["image_id"])]
                joints = read_joints(row["keypoints"], row.get("keypoint_scores"), place)
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


def read_people(path: Path) -> KeypointFile:
    """Read the file or folder, telling its kind by its content.

    Args:
        path: One of the kinds that `detections.read_keypoints` lists.

    Returns:
        Every person of it.

    Raises:
        InputError: If the file cannot be read, is of no such kind, or holds keypoints that are not finite.
    """
    if path.is_dir():
        people_of, sizes = _folder(path, JointReader(f"Keypoints folder '{path}'"))
    else:
        where = f"Keypoints file '{path}'"
        people_of, sizes = _content(_json(path), where, JointReader(where))
    counts = {len(person.joints) for people in people_of.values() for person in people} - {0}
    if counts == {len(COCO17), len(OPENPOSE25)}:
        people_of = {name: [_as_coco(person) for person in people] for name, people in people_of.items()}
    # Nobody has joints of any kind; of OpenPose's kind are files of one image and folders of them.
    nobody_of_openpose = not counts and (path.is_dir() or ANY_IMAGE in people_of)
    is_openpose = counts == {len(OPENPOSE25)} or nobody_of_openpose
    return KeypointFile(people_of, "openpose25" if is_openpose else "coco17", sizes)


def _as_coco(person: KeypointPerson) -> KeypointPerson:
    if len(person.joints) != len(OPENPOSE25):
        return person
    return person._replace(joints=convert_keypoints(person.joints[None], "openpose25", "coco17")[0])


def _json(path: Path) -> object:
    return read_json(require_file(path, "Keypoints file"), "Keypoints file")


def _content(data: object, where: str, read_joints: JointReader) -> _Content:
    if isinstance(data, dict):
        if isinstance(data.get("instance_info"), list):
            _check_order(data.get("meta_info"), where)
            return _content(data["instance_info"], where, read_joints)
        if any(key in data for key in _OPENPOSE_KEYS):
            people = _openpose_people(data, where, read_joints)
            return _Content({ANY_IMAGE: people}, _sizes_of({ANY_IMAGE: data}, "canvas_"))
        if is_coco(data):
            return _coco_annotations(data, where)
        if data and all(isinstance(each, dict) and _OPENPOSE_KEYS.keys() & each.keys() for each in data.values()):
            named = {normalise_name(name): each for name, each in data.items()}
            people_of = {
                name: _openpose_people(each, f"{where}, image '{name}'", read_joints) for name, each in named.items()
            }
            return _Content(people_of, _sizes_of(named, "canvas_"))
    if data == []:
        return _Content({EVERY_IMAGE: []})
    if isinstance(data, list) and isinstance(data[0], dict):
        if "instances" in data[0]:
            return _Content(_mmpose_frames(data, where, read_joints))
        if "keypoint_scores" in data[0] and not data[0].keys() & {"image_id", "file_name"}:
            return _Content({ANY_IMAGE: [_person(row, read_joints, f"{where}, row {k}") for k, row in enumerate(data)]})
        return _Content(_coco_results(data, where, read_joints))
    raise InputError(f"{where} is of no known kind: expected {_KINDS}.")


def _check_order(meta_info: object, where: str) -> None:
    """Compare the names of the joints, where mmpose writes them, with COCO's."""
    names = meta_info.get("keypoint_id2name") if isinstance(meta_info, dict) else None
    if isinstance(names, dict):
        first = [str(names.get(str(k))) for k in range(len(COCO17))]
        if first != list(COCO17):
            raise InputError(
                f"{where}: its joints are {', '.join(first[:4])}, ...; expected COCO's 17 ({', '.join(COCO17[:4])}, "
                "...) or an order that begins with them."
            )


def _sizes_of(rows: Mapping[str, object], prefix: str = "") -> dict[str, tuple[int, int]]:
    """Image name -> height and width, where its row states them."""
    sizes = {}
    for name, row in rows.items():
        size = [row.get(f"{prefix}{side}") for side in ("height", "width")] if isinstance(row, dict) else []
        if size and all(isinstance(length, int | float) and 0 < length < 1e7 for length in size):
            sizes[name] = (round(size[0]), round(size[1]))
    return sizes


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


def _folder(folder: Path, read_joints: JointReader) -> _Content:
    """One file per image, of OpenPose or mmpose."""
    people_of, sizes = {}, {}
    for path in sorted(folder.glob("*.json")):
        where = f"Keypoints file '{path}'"
        content = _content(_json(path), where, read_joints)
        (name, *others) = content.people_of or [""]
        if others or name not in (ANY_IMAGE, EVERY_IMAGE):
            raise InputError(f"{where} is not that of one image, as OpenPose and mmpose write for a folder.")
        ending = next((ending for ending in _OPENPOSE_ENDINGS if path.stem.endswith(ending)), "")
        stem = path.stem.removesuffix(ending)
        if stem in people_of:
            raise InputError(f"{where} is a second file for image '{stem}'; keep one of them.")
        people_of[stem] = content.people_of[name]
        if name in content.sizes:
            sizes[stem] = content.sizes[name]
    return _Content(people_of, sizes)


def _openpose_people(image: dict, where: str, read_joints: JointReader) -> list[KeypointPerson]:
    people_key = next(key for key in _OPENPOSE_KEYS if key in image)
    if not isinstance(image[people_key], list):
        raise InputError(f"{where}: '{people_key}' must be a list.")
    found = []
    for k, person in enumerate(image[people_key]):
        row = f"{where}, row {k}"
        joints = read_joints(field(person, _OPENPOSE_KEYS[people_key], row), None, row, openpose=True)
        found.append(KeypointPerson(joints, number=_number(person, row)))
    return found


def _person(row: object, read_joints: JointReader, where: str) -> KeypointPerson:
    """Somebody in a file of COCO's, AlphaPose's or mmpose's kind."""
    keypoints = field(row, "keypoints", where)
    joints = read_joints(keypoints, row.get("keypoint_scores"), where)
    score = row.get("score", row.get("bbox_score"))
    if score is not None and not (isinstance(score, int | float) and abs(score) < 1e7):  # NaN fails it too
        raise InputError(f"{where}: 'score' must be a finite number, got {score}.")
    return KeypointPerson(joints, score, _number(row, where))


def _mmpose_frames(frames: list, where: str, read_joints: JointReader) -> dict[str, list[KeypointPerson]]:
    """Number of a frame, from 0, as 12 digits -> its people."""
    people_of = {}
    for k, frame in enumerate(frames):
        place = f"{where}, row {k}"
        number, people = field(frame, "frame_id", place), field(frame, "instances", place)
        if type(number) is not int or number < 0 or number in people_of:
            raise InputError(f"{place}: 'frame_id' must be a whole number that no other row has, got {number}.")
        if not isinstance(people, list):
            raise InputError(f"{place}: 'instances' must be a list.")
        people_of[number] = [_person(row, read_joints, f"{place}, instance {i}") for i, row in enumerate(people)]
    # Every frame is listed, also without people: mmpose's inferencer counts from 0, its demos count from 1.
    first = 1 if min(people_of) == 1 else 0
    return {f"{number - first:012d}": people for number, people in people_of.items()}


def _coco_results(results: list, where: str, read_joints: JointReader) -> dict[str, list[KeypointPerson]]:
    people_of = defaultdict(list)
    for k, result in enumerate(results):
        row = f"{where}, row {k}"
        if isinstance(result, dict) and "keypoints" not in result and "bbox" in result:
            raise InputError(f"{row} has a 'bbox' and no 'keypoints': give a file of boxes with --boxes.")
        person = _person(result, read_joints, row)
        people_of[image_of(result, row)].append(person)
    return people_of


def _coco_annotations(data: dict, where: str) -> _Content:
    images = {_image_name(image, f"{where}, images row {k}"): image for k, image in enumerate(data["images"])}
    people_of: dict[str, list[KeypointPerson]] = {name: [] for name in images}
    found, left_out = coco_people(data, where)
    for reason, count in left_out.items():
        log.warning("%s: %d left out: %s", where, count, reason)
    for person in found:
        if not person.is_crowd and person.joints[:, 2].any():
            number = _number(person.row, person.where)
            people_of[person.image_name].append(KeypointPerson(person.joints, number=number))
    return _Content(people_of, _sizes_of(images))


def _number(person: dict, where: str) -> int | None:
    """Who a person is: `track_id` of COCO and PoseTrack, `idx` of AlphaPose, `person_id` of OpenPose; -1 is nobody."""
    key = next((key for key in _NUMBERS if key in person), None)
    if key is None:
        return None
    value = person[key]
    while isinstance(value, list) and len(value) == 1:  # as OpenPose and AlphaPose write it
        value = value[0]
    if value is None:
        return None
    if not isinstance(value, int | float) or not abs(value) < 2**63 or value != int(value):  # NaN fails the second
        raise InputError(f"{where}: '{key}' must be a whole number, got {person[key]}.")
    return int(value) if value >= 0 else None


def image_of(row: dict, where: str) -> str:
    """The image of a row of COCO's results, as `read_people` names it.

    Args:
        row: With `file_name` or `image_id`.
        where: The file and row, for the message.

    Raises:
        InputError: If it has neither, or what it has is no name.
    """
    return _image_key(row["file_name"] if "file_name" in row else field(row, "image_id", where), where)


def _image_name(image: object, where: str) -> str:
    return _image_key(field(image, "file_name", where), where)


def _image_key(image: object, where: str) -> str:
    """A file name as it is; a number as the 12 digits that end the names of COCO's files."""
    if isinstance(image, str):
        return normalise_name(image)
    if isinstance(image, int):
        return f"{image:012d}"
    raise InputError(f"{where}: an image is named by a string or an integer, got {image}.")
