"""Person detectors that run on weights of the user: YOLO as Darknet files or as ONNX, through OpenCV.

Class 0 must be the person, as in COCO. Where the files are not enough to know what a network wants, it is written here.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cliff_ms.data.detections import Detections
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import require_file
from cliff_ms.io.images import quiet_opencv

MIN_SCORE = 0.5
# Of two boxes that overlap by more (intersection over union), the one with the lower score goes.
MAX_OVERLAP = 0.45

_DYNAMIC_SIDE = 640  # px, for an ONNX file that leaves its input size open: what these networks are trained at
_STRIDES = (8, 16, 32)
_KEYPOINT_COLUMNS = 17 * 3
_END_TO_END_ROWS = 300
_LAYOUTS = (
    "(1, N, 5 + classes) of YOLOX with N = hw/8^2 + hw/16^2 + hw/32^2, (1, 3 N, 5 + classes) of YOLOv5 and YOLOv7, "
    "(1, 4 + classes, N) of YOLOv8 and later, (1, 56, N) of its pose models, (1, 300, 6) and (1, 300, 57) of both "
    "exported end to end"
)


class YoloDarknet:
    """A YOLO network as Darknet's own files (YOLOv2 to v4, with [yolo] or [region] heads).

    Args:
        cfg: The network; its [net] section states the input size.
        weights: The weights of this very network.

    Raises:
        InputError: If a file is missing or no such file, or the two do not belong together.
    """

    def __init__(self, cfg: str | Path, weights: str | Path) -> None:
        cfg, weights = require_file(cfg, "Detector"), require_file(weights, "Detector")
        self._input_hw = _darknet_input_hw(cfg)
        with quiet_opencv():
            try:
                self._net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
            except cv2.error as error:
                raise InputError(f"Detector '{cfg}' with '{weights}' cannot be loaded: {_reason(error)}.") from error
        _check_darknet_size(self._net, cfg, weights)
        self._outputs = self._net.getUnconnectedOutLayersNames()
        if any(self._net.getLayer(name).type != "Region" for name in self._outputs):
            raise InputError(f"Detector '{cfg}' is no YOLO: a network that ends in [yolo] or [region] was expected.")

    def detect(self, image_rgb: np.ndarray) -> Detections:
        """Find the people of an (H, W, 3) uint8 RGB image, the highest score first; boxes in px of it."""
        canvas, scale_xy, offset_xy = letterbox(image_rgb, self._input_hw, pad_value=128, centered=True)
        self._net.setInput(_blob(canvas, 1 / 255))
        rows = np.concatenate([rows.reshape(-1, rows.shape[-1]) for rows in self._net.forward(self._outputs)])
        # Columns: centre and size in fractions of the input, objectness, then objectness * class probability.
        centers_sizes = rows[:, :4] * np.tile(self._input_hw[::-1], 2)
        return _select(_corners(centers_sizes), rows[:, 5], scale_xy, offset_xy, image_rgb.shape[:2])


class YoloOnnx:
    """A YOLO network exported to ONNX, told apart by the shape of its only output.

    With an input of h x w px and N = hw/8^2 + hw/16^2 + hw/32^2 (8400 for 640 x 640):

    ===============  =====================  ========================================  ===========================
    family           output                 box columns                               input
    ===============  =====================  ========================================  ===========================
    YOLOX            (1, N, 5 + classes)    grid offsets and log sizes, in strides    BGR, 0-255, image top left
    YOLOv5, v7       (1, 3 N, 5 + classes)  centre and size in px                     RGB, 0-1, image in the middle
    YOLOv8 ...       (1, 4 + classes, N)    centre and size in px, no objectness      RGB, 0-1, image in the middle
    YOLOv8 ... pose  (1, 4 + 1 + 51, N)     the same, then COCO-17 x, y, confidence   RGB, 0-1, image in the middle
    end to end       (1, 300, 4 + 2)        corners in px, score, class               RGB, 0-1, image in the middle
    end to end pose  (1, 300, 4 + 2 + 51)   the same, then COCO-17 x, y, confidence   RGB, 0-1, image in the middle
    ===============  =====================  ========================================  ===========================

    The free part of the input is grey (114). A YOLOX file must be exported with its default, undecoded output.

    Args:
        path: The ONNX file.

    Attributes:
        gives_keypoints: Whether it is one of the pose models.

    Raises:
        InputError: If the file is missing, cannot be loaded, or has outputs of other shapes.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = require_file(path, "Detector")
        self._input_hw = _onnx_input_hw(self._path)
        with quiet_opencv():
            try:
                self._net = cv2.dnn.readNetFromONNX(str(path))
                outputs = self._run(np.zeros((*self._input_hw, 3), np.uint8), 1.0)
            except cv2.error as error:
                raise InputError(f"Detector '{path}' cannot be run by OpenCV: {_reason(error)}.") from error
        self._family = _onnx_family([output.shape for output in outputs], self._input_hw, self._path)
        self.gives_keypoints = self._read(outputs[0][0])[2] is not None

    def _run(self, canvas: np.ndarray, factor: float) -> Sequence[np.ndarray]:
        self._net.setInput(_blob(canvas, factor))
        return self._net.forward(self._net.getUnconnectedOutLayersNames())

    def detect(self, image_rgb: np.ndarray) -> Detections:
        """Find the people of an (H, W, 3) uint8 RGB image, the highest score first; boxes in px of it."""
        yolox = self._family == "yolox"
        canvas, scale_xy, offset_xy = letterbox(image_rgb, self._input_hw, pad_value=114, centered=not yolox)
        output = self._run(canvas[..., ::-1] if yolox else canvas, 1.0 if yolox else 1 / 255)[0][0]
        boxes, scores, keypoints = self._read(output)
        max_overlap = 1.0 if self._family == "end to end" else MAX_OVERLAP  # those were suppressed by the network
        return _select(boxes, scores, scale_xy, offset_xy, image_rgb.shape[:2], keypoints, max_overlap)

    def _read(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Boxes (N, 4) as corners in px of the input, scores (N,) and keypoints (N, 51) or None."""
        if self._family == "end to end":
            people = output[output[:, 5] == 0]
            return people[:, :4].astype(np.float64), people[:, 4], people[:, 6:] if people.shape[1] > 6 else None
        if self._family == "yolov8 pose":
            return _corners(output[:4].T), output[4], output[5:].T
        if self._family == "yolov8":
            return _corners(output[:4].T), output[4], None
        centers_sizes, scores = output[:, :4], output[:, 4] * output[:, 5]
        if self._family == "yolox":
            centers_sizes = self._decode_yolox(centers_sizes, scores)
        return _corners(centers_sizes), scores, None

    def _decode_yolox(self, raw: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Grid offsets and log sizes (N, 4), in units of the stride, to centre and size in px of the input."""
        if (raw[scores > MIN_SCORE, 2:] > 7).any():  # e^7 strides of 8 px: nothing is that large
            raise InputError(
                f"Detector '{self._path}' has decoded outputs: export YOLOX without --decode_in_inference."
            )
        corners, strides = [], []
        for stride in _STRIDES:
            rows, columns = self._input_hw[0] // stride, self._input_hw[1] // stride
            y, x = np.mgrid[:rows, :columns]
            corners.append(np.stack([x.ravel(), y.ravel()], axis=1))
            strides.append(np.full((rows * columns, 1), stride))
        corner, stride = np.concatenate(corners), np.concatenate(strides)
        return np.concatenate([(raw[:, :2] + corner) * stride, np.exp(np.minimum(raw[:, 2:], 7)) * stride], axis=1)


def letterbox(
    image: np.ndarray, out_hw: tuple[int, int], pad_value: int, centered: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit an image into a canvas without changing its proportions.

    Args:
        image: (H, W, 3) uint8.
        out_hw: Height and width of the canvas, px.
        pad_value: Grey level of the free part.
        centered: Whether the image lies in the middle of the canvas, or in its top left corner.

    Returns:
        The canvas (h, w, 3) uint8; scale (2,) and offset (2,) as x, y with `canvas_xy = image_xy * scale + offset`.
    """
    height, width = image.shape[:2]
    ratio = min(out_hw[0] / height, out_hw[1] / width)
    new_w, new_h = max(1, round(width * ratio)), max(1, round(height * ratio))
    left, top = ((out_hw[1] - new_w) // 2, (out_hw[0] - new_h) // 2) if centered else (0, 0)
    canvas = np.full((*out_hw, 3), pad_value, np.uint8)
    canvas[top : top + new_h, left : left + new_w] = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    return canvas, np.array([new_w / width, new_h / height]), np.array([left, top], np.float64)


def _blob(canvas: np.ndarray, factor: float) -> np.ndarray:
    """(h, w, 3) uint8 -> (1, 3, h, w) float32."""
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) * np.float32(factor)


def _corners(centers_sizes: np.ndarray) -> np.ndarray:
    """Centre and size (N, 4) to x1, y1, x2, y2, in float64."""
    center, size = centers_sizes[:, :2].astype(np.float64), centers_sizes[:, 2:].astype(np.float64)
    return np.concatenate([center - size / 2, center + size / 2], axis=1)


def _select(
    boxes: np.ndarray,
    scores: np.ndarray,
    scale_xy: np.ndarray,
    offset_xy: np.ndarray,
    img_hw: tuple[int, ...],
    keypoints: np.ndarray | None = None,
    max_overlap: float = MAX_OVERLAP,
) -> Detections:
    """Keep the confident boxes (N, 4) of the canvas, bring them to px of the image and suppress overlapping ones."""
    rows = np.flatnonzero(scores > MIN_SCORE)
    limit = np.tile(img_hw[::-1], 2).astype(np.float64)
    boxes = np.clip((boxes[rows] - np.tile(offset_xy, 2)) / np.tile(scale_xy, 2), 0, limit)
    size = boxes[:, 2:] - boxes[:, :2]
    inside = (size > 0).all(axis=1)  # not one in the free part of the canvas
    boxes, size, rows = boxes[inside], size[inside], rows[inside]
    confidence = scores[rows].astype(np.float64)
    chosen = cv2.dnn.NMSBoxes(
        np.concatenate([boxes[:, :2], size], axis=1).tolist(), confidence.tolist(), MIN_SCORE, max_overlap
    )
    order = np.array(chosen, np.int64).reshape(-1)  # NMSBoxes gives the highest score first
    if keypoints is None:
        return Detections(boxes[order], confidence[order])
    joints = keypoints[rows[order]].reshape(-1, _KEYPOINT_COLUMNS // 3, 3).astype(np.float64)
    joints[..., :2] = (joints[..., :2] - offset_xy) / scale_xy
    joints[joints[..., 2] <= 0] = 0
    return Detections(boxes[order], confidence[order], joints.astype(np.float32), "coco17")


def _reason(error: cv2.error) -> str:
    """OpenCV's own reason on one line, without its file names."""
    return " ".join((error.err or str(error)).split()).rstrip(".")


def _darknet_input_hw(cfg: Path) -> tuple[int, int]:
    """Read width and height of the first section, [net]."""
    sections = re.split(r"^\s*\[", cfg.read_text(errors="replace"), flags=re.MULTILINE)
    net = sections[1] if len(sections) > 1 else ""
    found = [re.search(rf"^\s*{name}\s*=\s*(\d+)", net, flags=re.MULTILINE) for name in ("height", "width")]
    height, width = (int(side[1]) if side else 0 for side in found)
    if not net.startswith("net") or not (height and width):
        raise InputError(f"Detector '{cfg}' is no Darknet network: expected a [net] section with width and height.")
    return height, width


def _check_darknet_size(net: cv2.dnn.Net, cfg: Path, weights: Path) -> None:
    """Refuse weights of another network: OpenCV reads a file that is too short or too long without a word."""
    layers = [net.getLayer(net.getLayerId(name)) for name in net.getLayerNames()]
    count = sum(blob.size for layer in layers if layer.type != "Region" for blob in layer.blobs)
    with weights.open("rb") as file:
        major, minor = np.frombuffer(file.read(8).ljust(8, b"\0"), "<i4").tolist()
    header = 20 if major * 10 + minor >= 2 else 16  # the count of images seen became 64-bit with version 0.2
    size = weights.stat().st_size
    if size != header + 4 * count:
        raise InputError(
            f"Detector '{weights}' has {size} bytes but '{cfg}' describes {header + 4 * count}: it is truncated or "
            "belongs to another network."
        )


def _onnx_input_hw(path: Path) -> tuple[int, int]:
    """Height and width of the only input, (1, 3, h, w); _DYNAMIC_SIDE where the file leaves them open."""
    import onnx  # OpenCV does not tell the input shape
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"Detector '{path}' is damaged or not an ONNX file.") from error
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value.type.tensor_type for value in graph.input if value.name not in constants]
    dims = [dim.dim_value for dim in inputs[0].shape.dim] if len(inputs) == 1 else []
    if len(dims) != 4 or dims[1] not in (0, 3):
        raise InputError(f"Detector '{path}' has no single image input: expected one of shape (1, 3, height, width).")
    return dims[2] or _DYNAMIC_SIDE, dims[3] or _DYNAMIC_SIDE


def _onnx_family(shapes: list[tuple[int, ...]], input_hw: tuple[int, int], path: Path) -> str:
    """Tell the family by the shape of the output; the table is in `YoloOnnx`."""
    cells = sum((input_hw[0] // stride) * (input_hw[1] // stride) for stride in _STRIDES)
    if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][0] == 1:
        _, rows, columns = shapes[0]
        if columns == cells and rows >= 5:
            return "yolov8 pose" if rows == 5 + _KEYPOINT_COLUMNS else "yolov8"
        if rows == cells and columns >= 6:
            return "yolox"
        if rows == 3 * cells and columns >= 6:
            return "yolov5"
        if rows == _END_TO_END_ROWS and columns in (6, 6 + _KEYPOINT_COLUMNS):
            return "end to end"
    found = ", ".join(map(str, shapes))
    raise InputError(
        f"Detector '{path}' has outputs of shape {found} for an input of {input_hw[0]} x {input_hw[1]} px, which is "
        f"none of {_LAYOUTS}."
    )
