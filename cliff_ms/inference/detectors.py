"""Where people are in an image: the detector that the user names, or the bundled one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cliff_ms.data.detections import Detections
from cliff_ms.inference.pose_detector import THREADS, PoseDetector
from cliff_ms.inference.yolo import YoloDarknet, YoloOnnx
from cliff_ms.io.errors import InputError

BUNDLED, WHOLE_IMAGE = "bundled", "whole-image"


class Detector(NamedTuple):
    """A way to find people.

    Attributes:
        find: (H, W, 3) uint8 RGB to the people in it, the highest score first, boxes in px of the image.
        name: What it is, in words.
        gives_keypoints: Whether the people come with 2D keypoints.
        threads: How many may call `find` at once.
    """

    find: Callable[[np.ndarray], Detections]
    name: str
    gives_keypoints: bool
    threads: int = 1


def load_detector(spec: str) -> Detector:
    """Make the detector that the user names.

    Args:
        spec: 'bundled' for the two networks of `model_zoo/people`, 'FILE.cfg,FILE.weights' (Darknet), 'FILE.onnx', or
            'whole-image' for one box around the whole image.

    Returns:
        The detector.

    Raises:
        InputError: If it is none of these, or the files cannot be used.
    """
    if spec == BUNDLED:
        return Detector(PoseDetector(), "the bundled networks NanoDet-g and MoveNet Thunder", True, THREADS)
    if spec == WHOLE_IMAGE:
        return Detector(whole_image, "one box around the whole image", False)
    files = spec.split(",")
    suffixes = [Path(file).suffix.lower() for file in files]
    if suffixes == [".cfg", ".weights"]:
        return Detector(YoloDarknet(*files).detect, files[1], False)
    if suffixes == [".onnx"]:
        yolo = YoloOnnx(files[0])
        return Detector(yolo.detect, files[0], yolo.gives_keypoints)
    raise InputError(
        f"Detector '{spec}' is unknown: expected {BUNDLED}, FILE.cfg,FILE.weights, FILE.onnx or {WHOLE_IMAGE}."
    )


def whole_image(image_rgb: np.ndarray) -> Detections:
    """One person who fills the image: for crops, and only when the user asks for it."""
    height, width = image_rgb.shape[:2]
    return Detections(np.array([[0, 0, width, height]], np.float64), np.ones(1))
