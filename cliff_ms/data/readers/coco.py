"""COCO 2014 with people's keypoints (Lin et al., ECCV 2014)."""

import functools
from pathlib import Path

import numpy as np

from cliff_ms.data.keypoint_files import coco_people, is_coco
from cliff_ms.data.readers.rows import Part, Rows, find_files, good_box, square_box
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_json
from cliff_ms.keypoints import COCO17, convert_keypoints

_RESCALE = 1.2
_FIRST_BODY_JOINT = 5  # after nose, eyes and ears
_LEAST_BODY_JOINTS = 12  # all of them


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
    if not is_coco(content):
        raise InputError(f"{path}: not COCO's person keypoints: expected the lists 'images' and 'annotations'.")
    people, left_out = coco_people(content, str(path))
    sizes = np.array([_numbers([p.image.get("height"), p.image.get("width")], 2) for p in people]).reshape(-1, 2)
    boxes = np.array([_numbers(p.row.get("bbox"), 4) for p in people]).reshape(-1, 4)
    sized = (sizes > 0).all(1)
    sizes[~sized] = np.nan
    keypoints = np.array([p.joints for p in people]).reshape(-1, len(COCO17), 3)
    boxes[:, 2:] += boxes[:, :2]
    center, size = square_box(boxes, _RESCALE)
    columns = {
        "image_names": np.array([f"{folder}/{p.image_name}" for p in people], np.str_),
        "center": center,
        "size": size,
        "keypoints2d": convert_keypoints(keypoints, "coco17", "spin24"),
        "img_hw": sizes,
    }
    enough = (keypoints[:, _FIRST_BODY_JOINT:, 2] > 0).sum(1) >= _LEAST_BODY_JOINTS
    checks = {"fewer than 12 body joints": enough, "no box": good_box(center, size)}
    if sized.any():  # a file that states no size at all can do without
        checks["image without height and width"] = sized
    return Rows(columns, left_out).keep(checks)


def _numbers(values: object, count: int) -> np.ndarray:
    """(count,); NaN if they are no such numbers."""
    try:
        array = np.array(values, float)
    except (TypeError, ValueError):
        array = np.zeros(0)
    return array if array.shape == (count,) else np.full(count, np.nan)
