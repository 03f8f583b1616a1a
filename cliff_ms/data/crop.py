"""From a person's box to what the network reads: crop centre, size, pixels or keypoints."""

import cv2
import numpy as np

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def box_to_crop(boxes: np.ndarray, crop_hw: tuple[int, int], rescale: float = 1.1) -> tuple[np.ndarray, np.ndarray]:
    """The crop of the network's aspect ratio that holds each box, enlarged.

    Args:
        boxes: (P, 4) xyxy px, full image.
        crop_hw: Height and width of the network's input.
        rescale: Enlargement; the authors use 1.1 for detected boxes and 1.2 for those of ground-truth keypoints.

    Returns:
        center (P, 2) px and bbox_size (P,) px, the crop height b = 200 * scale, float32.
    """
    boxes = np.asarray(boxes, np.float32)  # single precision in this order, as the authors: see rounded_corners
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    scale = np.maximum(width * np.float32(crop_hw[0] / crop_hw[1]), height) / 200 * np.float32(rescale)
    return center, 200 * scale


def crop_affine(image: np.ndarray, center: np.ndarray, bbox_size: float, crop_hw: tuple[int, int]) -> np.ndarray:
    """Cut out and resize in one sub-pixel affine warp; what lies outside the image is black.

    An image that is shrunk twice or more is averaged first.

    Args:
        image: (H, W, 3) uint8 RGB.
        center: (2,) px.
        bbox_size: Crop height in px of the image.
        crop_hw: Height and width of the result.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    reduction = fitting_reduction(bbox_size / crop_hw[0])
    return warp(shrink(image, reduction), crop_to_image(center, bbox_size, crop_hw) / reduction, crop_hw)


def crop_to_image(center: np.ndarray, bbox_size: float, crop_hw: tuple[int, int]) -> np.ndarray:
    """The (2, 3) affine map from px of the crop to px of the image; arguments as for `crop_affine`."""
    step = bbox_size / crop_hw[0]
    corner = np.asarray(center) - step * np.array(crop_hw[::-1]) / 2
    return np.array([[step, 0, corner[0]], [0, step, corner[1]]])


def warp(image: np.ndarray, to_image: np.ndarray, crop_hw: tuple[int, int]) -> np.ndarray:
    """Sample an image bilinearly; black outside.

    Args:
        image: (H, W, 3) uint8.
        to_image: (2, 3), px of the result to px of the image, both with (0.5, 0.5) in the middle of the first.
        crop_hw: Height and width of the result.

    Returns:
        (h, w, 3) uint8.
    """
    matrix = to_image.copy()
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5  # OpenCV counts from pixel centres: half a pixel on either side
    return cv2.warpAffine(image, matrix, crop_hw[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def fitting_reduction(step: float) -> int:
    """The strongest of JPEG's own reductions that leaves at least one px per px of the crop.

    Args:
        step: px of the picture per px of the crop.

    Returns:
        1, 2, 4 or 8.
    """
    return max((reduction for reduction in (2, 4, 8) if reduction <= step), default=1)


def shrink(image: np.ndarray, reduction: int) -> np.ndarray:
    """Mean over squares, which is what JPEG's own reduction amounts to.

    Args:
        image: (H, W, 3) uint8.
        reduction: 1, 2, 4 or 8.

    Returns:
        (ceil(H / reduction), ceil(W / reduction), 3) uint8; px (x, y) of the image is (x, y) / reduction.
    """
    if reduction == 1:
        return image
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % reduction, 0, -width % reduction, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // reduction, padded.shape[0] // reduction)
    return cv2.resize(padded, size, interpolation=cv2.INTER_AREA)


def crop_rounded(image: np.ndarray, center: np.ndarray, bbox_size: float, crop_hw: tuple[int, int]) -> np.ndarray:
    """Cut out along whole pixels, then resize: what the authors' published weights were trained and shown with.

    Args:
        image: (H, W, 3) uint8 RGB.
        center: (2,) px.
        bbox_size: Crop height in px of the image.
        crop_hw: Height and width of the result.

    Returns:
        (h, w, 3) float32 RGB in [0, 255].
    """
    corners = rounded_corners(center, bbox_size, crop_hw)
    (left, top), (right, bottom) = corners
    patch = np.zeros((bottom - top, right - left, 3), np.float32)
    height, width = image.shape[:2]
    x0, x1, y0, y1 = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
    if x0 < x1 and y0 < y1:
        patch[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return cv2.resize(patch, crop_hw[::-1], interpolation=cv2.INTER_LINEAR)


def rounded_corners(center: np.ndarray, bbox_size: float, crop_hw: tuple[int, int]) -> np.ndarray:
    """Upper left and lower right corner, in whole px, of the authors' crop.

    Args:
        center: (2,) px.
        bbox_size: Crop height in px of the image.
        crop_hw: Height and width of the network's input.

    Returns:
        (2, 2) int, rows (left, top) and (right, bottom).
    """
    # The authors compute the matrix from image to crop in single precision and invert it in double: a corner that
    # falls on half a pixel rounds to the same side as theirs only if it is computed the same way.
    crop_wh = np.array(crop_hw[::-1], np.float32)
    height = np.float32(bbox_size)
    width_height = np.array([height / np.float32(crop_hw[0] / crop_hw[1]), height], np.float32)
    to_crop = np.eye(3)
    to_crop[[0, 1], [0, 1]] = crop_wh / width_height
    to_crop[:2, 2] = crop_wh * (-np.asarray(center, np.float32) / width_height + np.float32(0.5))
    ends = np.array([[0, 0, 1], [crop_hw[1], crop_hw[0], 1]])
    return np.round(ends @ np.linalg.inv(to_crop).T)[:, :2].astype(int)


def normalize_image(crop: np.ndarray) -> np.ndarray:
    """Scale to [0, 1], subtract ImageNet's mean and divide by its deviation.

    Args:
        crop: (h, w, 3) RGB in [0, 255], any type.

    Returns:
        (3, h, w) float32.
    """
    return np.ascontiguousarray(
        ((crop / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1), np.float32
    )


def normalize_keypoints(keypoints: np.ndarray, center: np.ndarray, bbox_size: np.ndarray) -> np.ndarray:
    """Keypoints relative to the crop, as the keypoint encoder reads them.

    Args:
        keypoints: (P, K, 3), x and y in px of the full image and confidence.
        center: (P, 2) px.
        bbox_size: (P,) px, crop height.

    Returns:
        (P, K, 3) float32, x and y in units of half the crop height from its centre; confidence clipped to [0, 1].
    """
    position = (keypoints[..., :2] - center[:, None]) / (bbox_size[:, None, None] / 2)
    return np.concatenate([position, keypoints[..., 2:].clip(0, 1)], -1).astype(np.float32)
