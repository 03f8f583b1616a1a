"""What the annotator is given: people with 2D keypoints, in the files that data sets and detectors come in.

K is the number of a detector's joints. Whatever else a file says of the people, such as their true pose, is kept apart.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cliff_ms.config import BadImage, ModelConfig
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.crop import box_to_crop
from cliff_ms.data.decoding import ImageFile
from cliff_ms.data.detections import (
    MIN_CONFIDENCE,
    MIN_JOINTS,
    Detections,
    box_around,
    check_stated_size,
    entry_of,
    read_keypoints,
)
from cliff_ms.data.keypoint_files import coco_people, field, is_coco
from cliff_ms.data.label_checks import Findings, examine, without_bad_rows
from cliff_ms.data.picture_checks import CENTER_OUTSIDE, look_at_pictures
from cliff_ms.inference.pose_detector import PoseDetector
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_json, require_file
from cliff_ms.io.images import find_inputs, read_image
from cliff_ms.keypoints import convert_keypoints

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True, eq=False)
class Target:
    """Whom to annotate.

    Attributes:
        people: What the annotator works with: images and their sizes, boxes, 2D keypoints, focal lengths where the file
            has them, and in the extras `annot_id`, COCO's or the row; no bodies.
        truth: The same rows as the file knows them, for comparison only; None of a file that holds keypoints only.
        labelled: Whether the labels, `keypoints2d`, were given; else they were made of `input_keypoints`.
    """

    people: Annotations
    truth: Annotations | None
    labelled: bool


def read_target(path: Path | None, image_dir: Path | None, model: ModelConfig, bad_image: BadImage = "stop") -> Target:
    """Read the people to annotate.

    A standard npz (or EFT's json) brings its boxes. Around other people a box is drawn by the rule of
    `data.detections`; those with fewer than MIN_JOINTS visible joints are left out, with a warning. Of labels
    (`keypoints2d`) and `input_keypoints`, one that is missing is made of the other.

    Args:
        path: Standard npz; COCO's person_keypoints json; keypoints that a detector found, in a file or folder that
            `data.detections` reads; or None for the people that the bundled detector finds in the images.
        image_dir: Folder of the images, or None where they are not needed.
        model: The network that will read them.
        bad_image: 'skip' leaves people out, with a warning, whose image cannot be read or is not that of the labels.

    Returns:
        The people, with `input_keypoints` if the network reads keypoints.

    Raises:
        InputError: A file that is missing, damaged or of no such kind, labels that cannot be right, no keypoints, no
            image to take a size from, a bad image that is not to be skipped, or a network that reads pixels and no
            folder of images.
    """
    if not model.reads_keypoints and image_dir is None:
        raise InputError("These weights read pixels: name the folder of the images with --image_dir.")
    if image_dir is not None and not image_dir.is_dir():
        raise InputError(f"--image_dir: there is no folder '{image_dir}'.")
    people, truth, labelled = _read_people(path, image_dir, model)
    if image_dir is not None and (people.img_hw is None or not model.reads_keypoints):
        rows = _rows_with_images(people, image_dir, bad_image)
        people, truth = people.take(rows), None if truth is None else truth.take(rows)
    if people.img_hw is None:
        people = replace(people, img_hw=_image_sizes(people.image_names, image_dir, path))
    if truth is None:
        findings = Findings()
        examine(people, findings)
        people = without_bad_rows(people, findings, path or image_dir)
    if model.reads_keypoints and people.input_keypoints is None:
        keypoints = convert_keypoints(people.keypoints2d, "spin24", "coco17")
        people = replace(people, input_keypoints=keypoints, input_joint_set="coco17")
    if not (people.keypoints2d[..., 2] > 0).any():
        raise InputError(f"'{path}': nobody has a 2D keypoint; the annotator needs 'part' or 'input_keypoints'.")
    return Target(people, truth, labelled)


def _read_people(
    path: Path | None, image_dir: Path | None, model: ModelConfig
) -> tuple[Annotations, Annotations | None, bool]:
    """The people of any file, what it knows of them, and whether they were labelled, see `Target`."""
    if path is None:
        return _from_images(image_dir, model.crop_hw), None, False
    content = None if path.is_dir() else _json_content(path)
    if is_coco(content):
        return _from_coco(content, path, model.crop_hw), None, False
    if path.is_dir() or (content is not None and not _is_eft(content)):
        return _from_detected(path, image_dir, model.crop_hw), None, False
    truth = load_annotations(path, ("annot_id",))
    labelled = truth.input_keypoints is None or bool(truth.keypoints2d[..., 2].any())
    return _without_bodies(truth, labelled), truth, labelled


def _without_bodies(known: Annotations, labelled: bool) -> Annotations:
    keypoints2d = known.keypoints2d
    if not labelled:
        keypoints2d = convert_keypoints(known.input_keypoints, known.input_joint_set, "spin24")
    ids = known.extras.get("annot_id", np.arange(len(known)) if known.file_rows is None else known.file_rows)
    return Annotations.of(
        image_names=known.image_names,
        center=known.center,
        size=known.size,
        keypoints2d=keypoints2d,
        focal_length=known.focal_length,
        img_hw=known.img_hw,
        input_keypoints=known.input_keypoints,
        input_joint_set=known.input_joint_set,
        extras={"annot_id": ids},
    )


def _rows_with_images(people: Annotations, image_dir: Path, bad_image: BadImage) -> np.ndarray:
    problems = look_at_pictures(people, image_dir, range(len(people)))
    problems.pop(CENTER_OUTSIDE, None)  # somebody at the edge may be seen in part
    bad = sorted({row for rows in problems.values() for row in rows})
    if bad:
        reason, rows = next(iter(problems.items()))
        what = f"{len(bad)} of {len(people)} people, such as in '{people.image_names[rows[0]]}': {reason}"
        if bad_image == "stop":
            raise InputError(f"--image_dir '{image_dir}': {what}; set data.bad_image to 'skip' to leave them out.")
        log.warning("%s: %s: left out", image_dir, what)
    if len(bad) == len(people):
        raise InputError(
            f"--image_dir '{image_dir}': no image of '{people.image_names[0]}' and the others can be read."
        )
    return np.delete(np.arange(len(people)), bad)


def _json_content(path: Path) -> object:
    """What a json holds; None of another file."""
    is_json = require_file(path, "Annotation file").suffix == ".json"
    return read_json(path, "Annotation file") if is_json else None


def _is_eft(content: object) -> bool:
    """Whether a json is of the kind of EFT's fits, which `load_annotations` reads."""
    return isinstance(content, dict) and "data" in content


def _from_coco(content: dict, path: Path, crop_hw: tuple[int, int]) -> Annotations:
    """One row per annotation, in the order of the file; crowds are left out."""
    found, left_out = coco_people(content, f"'{path}'")
    for reason, count in left_out.items():
        log.warning("%d annotations left out: %s", count, reason)
    people = [person for person in found if not person.is_crowd]
    seen = [person for person in people if (person.joints[:, 2] > MIN_CONFIDENCE).sum() >= MIN_JOINTS]
    if len(seen) < len(people):
        missing = len(people) - len(seen)
        log.warning("%d of %d people have fewer than %d joints: left out", missing, len(people), MIN_JOINTS)
    if not seen:
        raise InputError(f"'{path}': nobody has the {MIN_JOINTS} visible joints that a box needs.")
    ids = np.array([field(person.row, "id", person.where) for person in seen])
    boxes = [box_around(p.joints, f"'{path}', annotation {k}") for p, k in zip(seen, ids, strict=True)]
    sizes = [[person.image.get(key) for key in ("height", "width")] for person in seen]
    img_hw = np.array(sizes, np.float32) if all(None not in size for size in sizes) else None
    names = np.array([person.image_name for person in seen])
    keypoints = np.array([person.joints for person in seen])
    return replace(_boxed(names, ids, np.array(boxes), keypoints, "coco17", crop_hw), img_hw=img_hw)


def _from_detected(path: Path, image_dir: Path | None, crop_hw: tuple[int, int]) -> Annotations:
    """One row per person of a detector's output, in the order of the file, or of the names of a folder's."""
    if image_dir is None:
        raise InputError(f"'{path}' does not say how large the images are: name their folder with --image_dir.")
    found = {name: each for name, each in read_keypoints(path).items() if len(each.boxes)}
    if not found:
        raise InputError(f"'{path}': nobody has the {MIN_JOINTS} visible joints that a box needs.")
    names = _names_in(image_dir, found, path)
    people = list(found.values())
    for name, each in zip(names, people, strict=True):
        if each.stated_hw is not None:
            check_stated_size(each, ImageFile(image_dir / name).img_hw, str(image_dir / name))
    counts = [len(each.boxes) for each in people]
    boxes, keypoints = (np.concatenate([getattr(each, name) for each in people]) for name in ("boxes", "keypoints"))
    ids = np.arange(sum(counts))
    return _boxed(np.repeat(names, counts), ids, boxes, keypoints, people[0].joint_set, crop_hw)


def _names_in(image_dir: Path, found: Mapping[str, Detections], path: Path) -> list[str]:
    """What the images of the entries of `found` are called, from `image_dir` on."""
    names = {name: name for name in found if (image_dir / name).is_file()}
    if len(names) < len(found):
        for image in find_inputs([str(image_dir)]):
            names.setdefault(entry_of(found, image), image.name)
    missing = [name for name in found if name not in names]
    if missing:
        raise InputError(f"'{image_dir}' has no image '{missing[0]}', of which '{path}' holds keypoints.")
    return [names[name] for name in found]


def _from_images(image_dir: Path | None, crop_hw: tuple[int, int]) -> Annotations:
    """One row per person that the bundled detector finds, in the order of the images' names."""
    if image_dir is None:
        raise InputError(
            "Name the 2D keypoints with --annotations, or a folder of images to find them in, --image_dir."
        )
    detector, names, found, sizes = PoseDetector(), [], [], []
    for path in tqdm(find_inputs([str(image_dir)]), unit="image", leave=False, disable=None):
        image = read_image(path)
        people = detector(image)
        names += [path.name] * len(people.boxes)
        sizes += [image.shape[:2]] * len(people.boxes)
        found.append(people)
    if not names:
        raise InputError(f"'{image_dir}': nobody was found in its images.")
    log.warning("the keypoints are those of the bundled detector: the annotations can only be as good as these")
    boxes, keypoints = (np.concatenate([getattr(each, name) for each in found]) for name in ("boxes", "keypoints"))
    people = _boxed(np.array(names), np.arange(len(names)), boxes, keypoints, "coco17", crop_hw)
    return replace(people, img_hw=np.array(sizes, np.float32))


def _boxed(
    names: np.ndarray,
    ids: np.ndarray,
    boxes: np.ndarray,
    keypoints: np.ndarray,
    joint_set: str,
    crop_hw: tuple[int, int],
) -> Annotations:
    """People of whom a box (N, 4) xyxy px and keypoints (N, K, 3) are known."""
    center, size = box_to_crop(boxes, crop_hw)
    return Annotations.of(
        image_names=names,
        center=center,
        size=size,
        keypoints2d=convert_keypoints(keypoints, joint_set, "spin24"),
        input_keypoints=keypoints,
        input_joint_set=joint_set,
        extras={"annot_id": ids},
    )


def _image_sizes(names: np.ndarray, image_dir: Path | None, path: Path) -> np.ndarray:
    """(N, 2) px, looked up once per image."""
    if image_dir is None:
        raise InputError(f"'{path}' does not say how large the images are: name their folder with --image_dir.")
    sizes: Mapping[str, tuple[int, int]] = {name: ImageFile(image_dir / name).img_hw for name in np.unique(names)}
    return np.array([sizes[name] for name in names], np.float32)
