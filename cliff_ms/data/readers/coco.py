"""COCO 2014 with people's keypoints (Lin et al., ECCV 2014)."""

import functools
from pathlib import Path

import numpy as np

from cliff_ms.data.readers.rows import Part, Rows, find_files, good_box, place, square_box
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_json
from cliff_ms.keypoints import COCO17

_RESCALE = 1.2
_FIRST_BODY_JOINT = 5  # after nose, eyes and ears
_LEAST_BODY_JOINTS = 12  # all of them
# COCO's hips are labelled where LSP's are, as SPIN has it.
_JOINTS = {f"{name}_lsp" if name.endswith("hip") else name: k for k, name in enumerate(COCO17)}


def read(root: Path, split: str) -> list[Part]:
    """People all of whose twelve body joints are labelled; boxes are squares on COCO's boxes, enlarged by 1.2.

    Args:
        root: Holds `annotations` and `train2014` or `val2014`.
        split: 'train' or 'val'.

    Raises:
        InputError: Missing file. The part raises it for a damaged one.
    """
    paths = find_files(root, f"annotations/person_keypoints_{split}2014.json", "COCO's keypoints")
    return [Part(f"{split}2014", functools.partial(_read_file, paths[0], f"{split}2014"))]


def _read_file(path: Path, folder: str) -> Rows:
    content = read_json(path, "Annotation file")
    try:
        images = {image["id"]: (image["file_name"], image["height"], image["width"]) for image in content["images"]}
        people = [(*images[p["image_id"]], p["bbox"], p["keypoints"]) for p in content["annotations"]]
        names = [f"{folder}/{person[0]}" for person in people]
        sizes = np.array([person[1:3] for person in people], float).reshape(-1, 2)
        boxes = np.array([person[3] for person in people], float).reshape(-1, 4)
        points = np.array([person[4] for person in people], float).reshape(-1, len(COCO17), 3)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not COCO's person keypoints ({type(error).__name__}: {error}).") from None
    labelled = points[..., 2] > 0
    keypoints = place(points[..., :2], _JOINTS)
    keypoints[..., 2] = place(labelled[..., None], _JOINTS)[..., 0]
    boxes[:, 2:] += boxes[:, :2]
    center, size = square_box(boxes, _RESCALE)
    columns = {
        "image_names": np.array(names, np.str_),
        "center": center,
        "size": size,
        "keypoints2d": keypoints * keypoints[..., 2:],
        "img_hw": sizes,
    }
    enough = labelled[:, _FIRST_BODY_JOINT:].sum(1) >= _LEAST_BODY_JOINTS
    return Rows(columns).keep({"fewer than 12 body joints": enough, "no box": good_box(center, size)})
