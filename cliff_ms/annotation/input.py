"""What the annotator is given: people with 2D keypoints, in the files that data sets and detectors come in.

N is the number of people, one row each, K that of a detector's joints. Whatever else a file says of the people, such as
their true pose, is left behind here.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliff_ms.config import ModelConfig
from cliff_ms.data.annotations import load_annotations
from cliff_ms.data.crop import box_to_crop
from cliff_ms.data.decoding import ImageFile
from cliff_ms.data.detections import MIN_CONFIDENCE, MIN_JOINTS, box_around, read_keypoints
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_json, read_npz, require_file
from cliff_ms.io.images import find_inputs
from cliff_ms.keypoints import COCO17, JOINT_SETS, SPIN24

_PIXELS_PER_SCALE = 200

# Arrays of the standard npz by key, N rows each, but for `input_joint_set`.
Columns = dict[str, np.ndarray]

log = logging.getLogger("cliff_ms")


def read_target(path: Path, image_dir: Path | None, model: ModelConfig) -> Columns:
    """Read the people to annotate.

    A standard npz (or EFT's json) brings its boxes. Around other people a box is drawn by the rule of
    `data.detections`; those with fewer than MIN_JOINTS visible joints are left out, with a warning. Of `part` and
    `input_keypoints`, one that is missing is made of the other.

    Args:
        path: Standard npz; COCO's person_keypoints json; folder of OpenPose json, one per image.
        image_dir: Folder of the images, or None where they are not needed.
        model: The network that will read them.

    Returns:
        imgname, center, scale, part, annot_id (COCO's, or the row), img_hw; input_keypoints and input_joint_set if the
        network reads keypoints, focal_l if the file has it.

    Raises:
        InputError: A file that is missing, damaged or of no such kind, no keypoints, no image to take a size from, or
            a network that reads pixels and no folder of images.
    """
    if not model.reads_keypoints and image_dir is None:
        raise InputError("These weights read pixels: name the folder of the images with --image_dir.")
    if image_dir is not None and not image_dir.is_dir():
        raise InputError(f"--image_dir: there is no folder '{image_dir}'.")
    if path.is_dir():
        columns = _from_openpose(path, image_dir, model.crop_hw)
    elif content := _coco_content(path):
        columns = _from_coco(content, path, model.crop_hw)
    else:
        columns = _from_annotations(path)
    if "img_hw" not in columns:
        columns["img_hw"] = _image_sizes(columns["imgname"], image_dir, path)
    if model.reads_keypoints and "input_keypoints" not in columns:
        columns |= {"input_keypoints": _to_coco(columns["part"]), "input_joint_set": np.array("coco17")}
    if not (columns["part"][..., 2] > 0).any():
        raise InputError(f"'{path}': nobody has a 2D keypoint; the annotator needs 'part' or 'input_keypoints'.")
    return columns


def to_spin(keypoints: np.ndarray, joint_set: str) -> np.ndarray:
    """A detector's joints as labels: (N, K, 3) px and confidence -> (N, 24, 3), zero where it has no such joint.

    Its hips stand for LSP's, as in SPIN's labels of COCO; its neck and pelvis, which lie elsewhere, for nothing.
    """
    part = np.zeros((len(keypoints), len(SPIN24), 3), np.float32)
    for source, target in _pairs(JOINT_SETS[joint_set]):
        part[:, target] = keypoints[:, source]
    return part


def _to_coco(part: np.ndarray) -> np.ndarray:
    """The other way round: (N, 24, 3) -> (N, 17, 3)."""
    keypoints = np.zeros((len(part), len(COCO17), 3), np.float32)
    for source, target in _pairs(COCO17):
        keypoints[:, source] = part[:, target]
    return keypoints


def _pairs(names: tuple[str, ...]) -> list[tuple[int, int]]:
    labels = [f"{name}_lsp" if name.endswith("_hip") else name for name in names]
    return [(k, SPIN24.index(label)) for k, label in enumerate(labels) if label in SPIN24]


def _from_annotations(path: Path) -> Columns:
    known = load_annotations(path)
    part, keypoints = known.keypoints2d, known.input_keypoints
    if keypoints is not None and not part[..., 2].any():
        part = to_spin(keypoints, known.input_joint_set)
    columns = {
        "imgname": known.image_names,
        "center": known.center,
        "scale": known.size.astype(np.float64) / _PIXELS_PER_SCALE,
        "part": part,
        "annot_id": _given_ids(path, len(known)),
        "img_hw": known.img_hw,
        "input_keypoints": keypoints,
        "input_joint_set": None if keypoints is None else np.array(known.input_joint_set),
        "focal_l": None if np.isnan(known.focal_length).all() else known.focal_length,
    }
    return {key: column for key, column in columns.items() if column is not None}


def _given_ids(path: Path, count: int) -> np.ndarray:
    """The column `annot_id` of an npz, else the rows."""
    ids = read_npz(path, "Annotation file", ("annot_id",)).get("annot_id") if path.suffix == ".npz" else None
    if ids is not None and ids.shape != (count,):
        raise InputError(f"Annotation file '{path}': 'annot_id' must have shape ({count},), but has {ids.shape}.")
    return np.arange(count) if ids is None else ids


def _coco_content(path: Path) -> dict | None:
    """What a file of COCO's kind holds."""
    if require_file(path, "Annotation file").suffix != ".json":
        return None
    content = read_json(path, "Annotation file")
    return content if isinstance(content, dict) and {"images", "annotations"} <= content.keys() else None


def _from_coco(content: dict, path: Path, crop_hw: tuple[int, int]) -> Columns:
    """One row per annotation, in the order of the file; crowds are left out."""
    try:
        images = {image["id"]: image for image in content["images"]}
        people = [person for person in content["annotations"] if not person.get("iscrowd")]
        points = np.array([person["keypoints"] for person in people], np.float32).reshape(-1, len(COCO17), 3)
        names = np.array([images[person["image_id"]]["file_name"] for person in people], np.str_)
        ids = np.array([person["id"] for person in people])
        sizes = [[images[person["image_id"]].get(key) for key in ("height", "width")] for person in people]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"'{path}': not COCO's person keypoints ({type(error).__name__}: {error}).") from None
    if not np.isfinite(points).all():
        raise InputError(f"'{path}': the keypoints must be finite numbers.")
    points[..., 2] = points[..., 2].clip(0, 1)  # its flag is 2 for a visible joint
    points[points[..., 2] == 0] = 0
    rows = np.flatnonzero((points[..., 2] > MIN_CONFIDENCE).sum(1) >= MIN_JOINTS)
    if len(rows) < len(people):
        log.warning(
            "%d of %d people have fewer than %d joints: left out", len(people) - len(rows), len(ids), MIN_JOINTS
        )
    if not len(rows):
        raise InputError(f"'{path}': nobody has the {MIN_JOINTS} visible joints that a box needs.")
    boxes = np.array([box_around(points[row], f"'{path}', annotation {ids[row]}") for row in rows])
    columns = {"imgname": names[rows], "annot_id": ids[rows], **_seen(boxes, points[rows], "coco17", crop_hw)}
    if all(None not in size for size in sizes):
        columns["img_hw"] = np.array(sizes, np.float32)[rows]
    return columns


def _from_openpose(folder: Path, image_dir: Path | None, crop_hw: tuple[int, int]) -> Columns:
    """One row per person, in the order of the files' names and of their content."""
    if image_dir is None:
        raise InputError(f"'{folder}' holds no image names or sizes: name the folder of the images with --image_dir.")
    image_of = {image.stem: image.name for image in find_inputs([str(image_dir)])}
    found = read_keypoints(folder)
    missing = [stem for stem in found if stem not in image_of]
    if missing:
        raise InputError(f"'{image_dir}' has no image '{missing[0]}', of which '{folder}' holds keypoints.")
    people = list(found.values())
    counts = [len(each.boxes) for each in people]
    if not sum(counts):
        raise InputError(f"'{folder}': nobody has the {MIN_JOINTS} visible joints that a box needs.")
    keypoints = np.concatenate([each.keypoints for each in people])
    return {
        "imgname": np.repeat([image_of[stem] for stem in found], counts),
        "annot_id": np.arange(sum(counts)),
        **_seen(np.concatenate([each.boxes for each in people]), keypoints, "openpose25", crop_hw),
    }


def _seen(boxes: np.ndarray, keypoints: np.ndarray, joint_set: str, crop_hw: tuple[int, int]) -> Columns:
    center, size = box_to_crop(boxes, crop_hw)
    return {
        "center": center,
        "scale": size.astype(np.float64) / _PIXELS_PER_SCALE,
        "part": to_spin(keypoints, joint_set),
        "input_keypoints": keypoints,
        "input_joint_set": np.array(joint_set),
    }


def _image_sizes(names: np.ndarray, image_dir: Path | None, path: Path) -> np.ndarray:
    """(N, 2) px, looked up once per image."""
    if image_dir is None:
        raise InputError(f"'{path}' does not say how large the images are: name their folder with --image_dir.")
    sizes: Mapping[str, tuple[int, int]] = {name: ImageFile(image_dir / name).img_hw for name in np.unique(names)}
    return np.array([sizes[name] for name in names], np.float32)
