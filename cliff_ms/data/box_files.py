"""Formats of files with boxes of people. `detections.read_boxes` is the way in."""

import logging
import reprlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from cliff_ms.data.keypoint_files import EVERY_IMAGE, field, image_of
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import normalise_name, read_json, read_npz, require_file

BOX_FORMATS = ("xyxy", "xywh")
_NAMES = {"xyxy": "[x1, y1, x2, y2]", "xywh": "[x, y, width, height]"}
_KINDS = (
    '{"photo.png": [[x1, y1, x2, y2], ...], ...}, or COCO\'s detection results, a list of {"image_id" or "file_name", '
    '"bbox": [x, y, width, height], "category_id", "score"}'
)
_PERSON = 1  # COCO's category
# px. No box in px ends so near to the corner of the image; fractions of it, enlarged a little, do.
_MAX_FRACTION = 2

log = logging.getLogger("cliff_ms")


def read_box_file(path: Path, box_format: str) -> dict[str, list[list[float]]]:
    """Read the file, telling its kind by its content.

    Args:
        path: One of the kinds that `detections.read_boxes` lists.
        box_format: A key of BOX_FORMATS; of COCO's results it is always 'xywh'.

    Returns:
        Image name, 12-digit COCO id or EVERY_IMAGE -> [x1, y1, x2, y2, score] of each person, px.

    Raises:
        InputError: If the file cannot be read, or a box is not four finite numbers in px with a positive size.
    """
    path = require_file(path, "Boxes file")
    source = f"Boxes file '{path}'"
    if path.suffix.lower() == ".npz":
        rows_of = _rows_of_npz(path, source)
    else:
        data = read_json(path, "Boxes file", unique_keys=True)
        if isinstance(data, list):
            return _coco_results(data, source)
        rows_of = _rows_of_json(data, source)
    return {
        image: [_checked_box(row, box_format, f"{source}, image '{image}', row {k}") for k, row in enumerate(rows)]
        for image, rows in rows_of.items()
    }


def _rows_of_json(data: object, source: str) -> dict[str, list]:
    """Image name -> rows, not checked yet."""
    if not isinstance(data, dict) or {"images", "annotations"} <= data.keys():
        raise InputError(f"{source} is of no known kind: expected {_KINDS}.")
    rows_of = {}
    for image, rows in data.items():
        if not isinstance(rows, list):
            raise InputError(f"{source}, image '{image}': expected a list of boxes [[x1, y1, x2, y2], ...].")
        if normalise_name(image) in rows_of:
            raise InputError(f"{source} holds image '{normalise_name(image)}' twice; put its rows into one list.")
        rows_of[normalise_name(image)] = rows
    return rows_of


def _rows_of_npz(path: Path, source: str) -> dict[str, list]:
    """Image name -> rows, not checked yet."""
    arrays = read_npz(path, "Boxes file")
    boxes = arrays.get("boxes", arrays.get("bbox"))
    if "imgname" not in arrays or boxes is None:
        raise InputError(f"{source} has the keys {sorted(arrays)}: expected 'imgname' and 'boxes' (or 'bbox').")
    names = arrays["imgname"].reshape(-1).astype(str).tolist()
    if boxes.shape not in ((len(names), 4), (len(names), 5)):
        raise InputError(f"{source}: 'imgname' has {len(names)} rows, the boxes have shape {boxes.shape}.")
    rows_of = defaultdict(list)
    for name, row in zip(names, boxes.tolist(), strict=True):
        rows_of[normalise_name(name)].append(row)
    return rows_of


def _coco_results(results: list, source: str) -> dict[str, list[list[float]]]:
    """The people of COCO's detection results."""
    boxes_of: dict[str, list[list[float]]] = defaultdict(list)
    others = []
    for k, result in enumerate(results):
        where = f"{source}, row {k}"
        if not isinstance(result, dict):
            raise InputError(f"{source} is of no known kind: expected {_KINDS}.")
        boxes = boxes_of[image_of(result, where)]
        category = result.get("category_id", _PERSON)
        if category == 0:
            raise InputError(f"{where}: 'category_id' is 0, but COCO's count from 1, person: add 1 to all of them.")
        if category not in (_PERSON, str(_PERSON)):
            others.append(f"row {k}, category_id {category}")
            continue
        if "bbox" not in result and "keypoints" in result:
            raise InputError(f"{where} has 'keypoints' and no 'bbox': give a file of keypoints with --keypoints.")
        box, score = field(result, "bbox", where), result.get("score", 1)
        if not (type(score) in (int, float) and abs(score) < 1e7):  # NaN fails it too
            raise InputError(f"{where}: 'score' must be a finite number, got {reprlib.repr(score)}.")
        boxes.append([*_checked_box(box, "xywh", where)[:4], float(score)])
    if others:
        log.warning(
            "%s: %d boxes of other categories than 1, person, left out (the first: %s)", source, len(others), others[0]
        )
    return boxes_of if results else {EVERY_IMAGE: []}


def _checked_box(row: Any, box_format: str, where: str) -> list[float]:
    """Check one row and turn it into [x1, y1, x2, y2, score]."""
    names = _NAMES[box_format]
    numbers = isinstance(row, list) and len(row) in (4, 5) and all(type(v) in (int, float) for v in row)
    if not (numbers and all(abs(v) < 1e7 for v in row)):  # NaN and infinity fail it too
        raise InputError(
            f"{where}: expected four finite numbers {names} in px, and at most a score, got {reprlib.repr(row)}."
        )
    x1, y1, x2, y2, score = map(float, row if len(row) == 5 else [*row, 1])
    if not 0 <= score <= 1:
        raise InputError(f"{where}: the fifth number of {row} is none of a score in 0-1; expected {names} and a score.")
    if max(abs(v) for v in (x1, y1, x2, y2)) <= _MAX_FRACTION:
        raise InputError(f"{where}: {row} looks like fractions of the image; boxes are in px.")
    if box_format == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    if x2 <= x1 or y2 <= y1:
        hint = " (or are they x, y, width, height?)" if box_format == "xyxy" else ""
        raise InputError(f"{where}: {row} has no area; expected {names} in px{hint}.")
    return [x1, y1, x2, y2, score]
