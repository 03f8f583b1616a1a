"""The people of a photo with two small bundled networks: NanoDet-g finds their boxes, MoveNet Thunder their joints.

C counts candidates, P people. Positions are in px of the image, (0.5, 0.5) in the middle of its first px, where nothing
else is said. The thresholds are those that `model_zoo/people/README.md` was measured with.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cliff_ms.data.crop import crop_to_image, shrink, warp
from cliff_ms.data.detections import MIN_CONFIDENCE, MIN_JOINTS, Detections
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import require_file
from cliff_ms.keypoints import oks
from cliff_ms.zoo import PEOPLE_NETWORKS

if TYPE_CHECKING:
    import onnxruntime

CANVAS_SIDE = 416  # px, NanoDet's input
CROP_HW = (256, 256)  # px, MoveNet's input
MIN_BOX_SCORE = 0.25
MAX_OVERLAP = 0.6  # intersection over union of two boxes
MIN_MEAN_CONFIDENCE = 0.25  # of all 17 joints of a person
SAME_PERSON = 0.6  # OKS

_BGR_MEAN = np.array([103.53, 116.28, 123.675], np.float32)
_BGR_STD = np.array([57.375, 57.12, 58.395], np.float32)
_CROP_MARGIN = 1.05  # side of the crop by the longer side of the box
_BODY_SHARE = 0.53  # of its box that a body covers
_BORDER = 0.02  # of the longer side of the box: MoveNet puts joints beyond the picture onto its border
THREADS = min(4, len(os.sched_getaffinity(0)))


class PoseDetector:
    """Finds people and their COCO-17 joints in a photo.

    Args:
        folder: Holds nanodet.onnx and movenet-thunder.onnx.
        threads: Crops that are looked at at once.

    Raises:
        InputError: If ONNX Runtime is not installed, or a network is missing or damaged.
    """

    def __init__(self, folder: Path = PEOPLE_NETWORKS, threads: int = THREADS) -> None:
        self._nanodet = _session(folder / "nanodet.onnx")
        self._movenet = _session(folder / "movenet-thunder.onnx")
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, image_rgb: np.ndarray) -> Detections:
        """Find the people of an image.

        Args:
            image_rgb: (H, W, 3) uint8.

        Returns:
            The people, the highest score first: box, score in 0-1, and COCO-17 keypoints with confidence 1, or 0 for a
            missing joint.
        """
        img_hw = image_rgb.shape[:2]
        canvas, scale_xy = fit(image_rgb)
        outputs = self._nanodet.run(None, {"input_1:0": nanodet_input(canvas)})
        boxes, box_scores = select_boxes(*decode_boxes(outputs), scale_xy, img_hw)
        joints = self._joints(image_rgb, boxes)
        scores = box_scores * person_confidence(joints)
        joints = drop_unsure(joints)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > 0]
        order = order[distinct_people(boxes[order], joints[order])]
        keypoints = certain(drop_at_border(joints[order], boxes[order], img_hw))
        return Detections(boxes[order], scores[order], keypoints, "coco17")

    def _joints(self, image_rgb: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Joints (C, 17, 3) float64 of the person in each box: x, y, confidence in 0-1."""
        crops, to_image = cut_squares(image_rgb, boxes)
        outputs = list(self._pool.map(self._joints_of_crop, crops))
        return joints_to_image(np.array(outputs, np.float64).reshape(-1, 17, 3), to_image)

    def _joints_of_crop(self, crop: np.ndarray) -> np.ndarray:
        return self._movenet.run(None, {"input:0": crop[None].astype(np.int32)})[0][0, 0]


def _session(path: Path) -> "onnxruntime.InferenceSession":
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "Finding people in photos takes the package onnxruntime: pip install onnxruntime, or say where they are "
            "with --keypoints."
        ) from None
    require_file(path, "Network")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # of networks this small: two threads took longer than one
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own, with no other base
        reason = str(error).splitlines()[0]
        raise InputError(f"Network '{path}' is damaged: get it from the repository again ({reason}).") from None


def fit(image_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay an image into the top left corner of NanoDet's black canvas, its longer side as long as the canvas.

    Args:
        image_rgb: (H, W, 3) uint8.

    Returns:
        The canvas (416, 416, 3) uint8 and scale (2,) as x, y: px of the canvas per px of the image.
    """
    height, width = image_rgb.shape[:2]
    ratio = CANVAS_SIDE / max(height, width)
    new_w, new_h = max(1, round(width * ratio)), max(1, round(height * ratio))
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE, 3), np.uint8)
    interpolation = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    canvas[:new_h, :new_w] = cv2.resize(image_rgb, (new_w, new_h), interpolation=interpolation)
    return canvas, np.array([new_w / width, new_h / height])


def nanodet_input(canvas_rgb: np.ndarray) -> np.ndarray:
    """(416, 416, 3) uint8 RGB -> (1, 3, 416, 416) float32 BGR, normalised as in NanoDet's training."""
    planes = np.stack(cv2.split(canvas_rgb)[::-1]).astype(np.float32)  # (3, 416, 416) BGR
    return ((planes - _BGR_MEAN[:, None, None]) / _BGR_STD[:, None, None])[None]


def decode_boxes(outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Read NanoDet's outputs: each cell of three grids tells how far away the sides of its box are.

    Args:
        outputs: Scores of COCO's classes (1, n * n, 80) for n = 52, 26 and 13, then distances to the left, top, right
            and bottom (1, n * n, 4 * 11), each as logits of being 0 to 10 strides long.

    Returns:
        Boxes (3549, 4) float64 in px of the canvas, and the scores (3549,) of being a person.
    """
    boxes = []
    for logits in outputs[3:]:
        n = math.isqrt(logits.shape[1])
        stride = CANVAS_SIDE / n
        likelihood = np.exp(logits.reshape(n * n, 4, 11).astype(np.float64))
        distance = likelihood @ np.arange(11) / likelihood.sum(-1) * stride
        y, x = np.mgrid[:n, :n].reshape(2, -1)
        center = (np.stack([x, y], -1) + 0.5) * stride
        boxes.append(np.hstack([center - distance[:, :2], center + distance[:, 2:]]))
    return np.concatenate(boxes), np.concatenate([scores[0, :, 0] for scores in outputs[:3]]).astype(np.float64)


def select_boxes(
    boxes: np.ndarray, scores: np.ndarray, scale_xy: np.ndarray, img_hw: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the confident boxes, cut them at the image's border, and keep the best of those that overlap.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in px of the canvas.
        scores: (N,) of being a person.
        scale_xy: (2,) px of the canvas per px of the image.
        img_hw: Height and width of the image, px.

    Returns:
        Boxes (C, 4) in px of the image and their scores (C,), the highest first.
    """
    height, width = img_hw
    boxes = np.clip(boxes / np.tile(scale_xy, 2), 0, [width, height, width, height])
    size = boxes[:, 2:] - boxes[:, :2]
    keep = (scores > MIN_BOX_SCORE) & (size > 0).all(1)
    boxes, size, scores = boxes[keep], size[keep], scores[keep]
    corners_sizes = np.hstack([boxes[:, :2], size]).tolist()
    chosen = np.array(cv2.dnn.NMSBoxes(corners_sizes, scores.tolist(), MIN_BOX_SCORE, MAX_OVERLAP), int).reshape(-1)
    return boxes[chosen], scores[chosen]


def cut_squares(image_rgb: np.ndarray, boxes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut out a square around each box, a little larger than it.

    The image is halved once for all people, and again, as long as the largest person keeps a px per px of the crop.

    Args:
        image_rgb: (H, W, 3) uint8.
        boxes: (C, 4) x1, y1, x2, y2.

    Returns:
        C crops (256, 256, 3) uint8, black outside the image, and the maps (C, 2, 3) from px of a crop to the image.
    """
    # OpenCV warps no longer image than this; whom NanoDet sees in one fills more than a crop even when it is halved.
    least = max(0, math.ceil(math.log2(max(image_rgb.shape) / 32766)))
    halved, crops, maps = [image_rgb], [], []
    for box in boxes:
        side = _CROP_MARGIN * (box[2:] - box[:2]).max()
        to_image = crop_to_image((box[:2] + box[2:]) / 2, side, CROP_HW)
        level = max(least, math.floor(math.log2(side / CROP_HW[0])))
        while len(halved) <= level:
            halved.append(shrink(halved[-1], 2))
        crops.append(warp(halved[level], to_image / 2**level, CROP_HW))
        maps.append(to_image)
    return crops, np.array(maps).reshape(-1, 2, 3)


def joints_to_image(joints_yx: np.ndarray, to_image: np.ndarray) -> np.ndarray:
    """Bring MoveNet's joints to the image.

    Args:
        joints_yx: (C, 17, 3), y and x in 0-1 from edge to edge of the crop, and confidence.
        to_image: (C, 2, 3) from px of the crop to px of the image.

    Returns:
        (C, 17, 3), x and y in px of the image and confidence.
    """
    crop_xy = joints_yx[..., 1::-1] * CROP_HW[0]
    image_xy = crop_xy @ to_image[:, :, :2].transpose(0, 2, 1) + to_image[:, None, :, 2]
    return np.concatenate([image_xy, joints_yx[..., 2:]], -1)


def person_confidence(joints: np.ndarray) -> np.ndarray:
    """How sure the joints (C, 17, 3) are to be a person's: the mean confidence of those seen; 0 for nobody: (C,)."""
    confidence = joints[..., 2]
    seen = confidence > MIN_CONFIDENCE
    somebody = (seen.sum(1) >= MIN_JOINTS) & (confidence.mean(1) >= MIN_MEAN_CONFIDENCE)
    return somebody * (confidence * seen).sum(1) / np.maximum(seen.sum(1), 1)


def drop_unsure(joints: np.ndarray) -> np.ndarray:
    """Joints (C, 17, 3) without those of low confidence, which become (0, 0, 0)."""
    return joints * (joints[..., 2:] > MIN_CONFIDENCE)


def distinct_people(boxes: np.ndarray, joints: np.ndarray) -> list[int]:
    """Leave out who was found before.

    Args:
        boxes: (C, 4) x1, y1, x2, y2, the best first.
        joints: (C, 17, 3), missing ones (0, 0, 0).

    Returns:
        Rows of different people, in order.
    """
    area = _BODY_SHARE * (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept: list[int] = []
    for k in range(len(boxes)):
        if (oks(joints[k], joints[kept], np.maximum(area[k], area[kept])) < SAME_PERSON).all():
            kept.append(k)
    return kept


def drop_at_border(joints: np.ndarray, boxes: np.ndarray, img_hw: tuple[int, ...]) -> np.ndarray:
    """Joints (P, 17, 3) without those outside the image (height, width) or at its border, which become (0, 0, 0)."""
    margin = _BORDER * (boxes[:, 2:] - boxes[:, :2]).max(1)[:, None, None]
    position = joints[..., :2]
    inside = ((position >= margin) & (position <= np.array(img_hw[::-1]) - margin)).all(-1)
    return joints * inside[..., None]


def certain(joints: np.ndarray) -> np.ndarray:
    """Confidence 1 for every joint (P, 17, 3) that is not missing, as float32.

    A confidence of 0.5 to 0.8 of MoveNet's means the precision that the keypoint model was told 0.85 to 0.9 for: with 1
    for all, its bodies lie on the keypoints more closely than with MoveNet's own.
    """
    return np.concatenate([joints[..., :2], joints[..., 2:] > 0], -1).astype(np.float32)
