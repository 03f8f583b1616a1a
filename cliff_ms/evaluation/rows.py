"""The rows of an annotation file that a protocol scores, ready to be read."""

import zipfile
from pathlib import Path

import numpy as np

from cliff_ms.config import ModelConfig, SourceConfig
from cliff_ms.data.crop import box_to_crop
from cliff_ms.data.dataset import EvalDataset, InputKeypoints
from cliff_ms.data.detections import MIN_CONFIDENCE, MIN_JOINTS, boxes_from_keypoints
from cliff_ms.data.source import Source
from cliff_ms.evaluation.protocols import Protocol, scored_rows
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_npz
from cliff_ms.keypoints import JOINT_SETS, convert_keypoints


def open_rows(
    protocol: Protocol,
    annotations: Path,
    image_dir: Path | None,
    model: ModelConfig,
    batch_size: int,
    keypoints: str = "clean",
) -> tuple[EvalDataset, dict[str, int]]:
    """Open the rows of an annotation file that a protocol scores.

    Args:
        protocol: The protocol.
        annotations: The file.
        image_dir: Folder that its image names are relative to; None for a keypoint model without pictures.
        model: What the network reads.
        batch_size: B.
        keypoints: For a keypoint model, one of `protocols.KEYPOINTS`: 'clean' for the file's `input_keypoints` and
            boxes, else its `input_keypoints_noisy` and so on, with boxes around those: whoever has such keypoints has
            no better box. Whoever has too few of them for a box, as somebody whom no detector found, is left out.

    Returns:
        The rows, and reason -> how many others it kept from being scored.

    Raises:
        InputError: What `Source` and `scored_rows` raise, or keypoints that the file does not have.
    """
    if not model.reads_keypoints and image_dir is None:
        raise InputError("These weights read pixels: name the folder of the images with --image_dir.")
    config, known = SourceConfig(str(annotations), str(image_dir or "")), protocol.focal != "estimated"
    source = Source(config, model, "--image_dir", known_focal_length=known)
    rows, left_out = scored_rows(protocol, source.annotations, str(annotations))
    if source.annotations.left_out:
        left_out["labels that cannot be right, see `prepare.py check`"] = len(source.annotations.left_out)
    if not model.reads_keypoints or keypoints == "clean":
        return EvalDataset(source, batch_size, rows), left_out
    other = _other_keypoints(source, model, keypoints)
    boxed = rows[other.size[rows] > 0]
    if len(boxed) < len(rows):
        left_out[f"too few keypoints ({keypoints})"] = len(rows) - len(boxed)
    return EvalDataset(source, batch_size, boxed, other), left_out


def _other_keypoints(source: Source, model: ModelConfig, which: str) -> InputKeypoints:
    """Keypoints of all rows in the model's joint set; no box where there are too few."""
    keypoints, joint_set = read_keypoints(source, which)
    where = f"Annotation file '{source.path}', 'input_keypoints_{which}'"
    enough = (keypoints[..., 2] > MIN_CONFIDENCE).sum(1) >= MIN_JOINTS
    if not enough.any():
        raise InputError(f"{where}: nobody has {MIN_JOINTS} joints, which a box takes.")
    boxes = np.zeros((len(keypoints), 4))
    boxes[enough] = boxes_from_keypoints(keypoints[enough], where)
    return InputKeypoints(convert_keypoints(keypoints, joint_set, model.joint_set), *box_to_crop(boxes, model.crop_hw))


def read_keypoints(source: Source, which: str) -> tuple[np.ndarray, str]:
    """The 2D keypoints of all rows of a file.

    Args:
        source: The file.
        which: One of `protocols.KEYPOINTS`, see `open_rows`.

    Returns:
        (M, K, 3), x and y in px of the full image and confidence, and the joint set that they are in.

    Raises:
        InputError: The file does not have them, or not as such.
    """
    path, known = source.path, source.annotations
    if known.input_keypoints is None:
        raise InputError(f"Annotation file '{path}': key 'input_keypoints' is missing; a fit needs a detector's.")
    if which == "clean":
        return known.input_keypoints, known.input_joint_set
    joint_set = which if which in JOINT_SETS else known.input_joint_set
    key, count = f"input_keypoints_{which}", len(known) + len(known.left_out)
    shape = (count, len(JOINT_SETS[joint_set]), 3)
    arrays = read_npz(path, "Annotation file", (key,)) if zipfile.is_zipfile(path) else {}
    if key not in arrays:
        raise InputError(f"Annotation file '{path}': key '{key}' is missing, which --keypoints {which} reads.")
    if arrays[key].shape != shape or not np.isfinite(arrays[key]).all():
        raise InputError(f"Annotation file '{path}': '{key}' must be finite numbers of shape {shape}.")
    kept = slice(None) if known.file_rows is None else known.file_rows
    return arrays[key][kept].astype(np.float32), joint_set
