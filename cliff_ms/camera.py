"""The cameras of CLIFF: one function per equation of the paper.

Every function takes MindSpore tensors (also inside a graph) or NumPy arrays and returns the same kind.
B is the batch, J the number of points. `center` and `bbox_size` are those of the crop: its centre in px of the full
image and its height b = 200 * scale in px. `img_hw` is the full image's height and width in px. The camera frame is x
right, y down, z forward, in metres; pixel (0, 0) has its centre at (0.5, 0.5), so the optical axis meets the image at
(W / 2, H / 2).
"""

from typing import Literal, get_args

from cliff_ms.backend import Array, library

BboxNorm = Literal["eq5", "released"]
HMR_FOCAL_LENGTH = 5000.0  # px, f_HMR of section 3.2: the predefined focal length of the virtual crop camera

# Mean and spread of box position and size in the authors' Human3.6M statistics, in units of the focal length. Their
# published weights were trained with bbox_info standardised by them; Eq. (5) has neither.
_RELEASED_POSITION_SPREAD = 1 / 2.8
_RELEASED_SIZE_MEAN = 0.24
_RELEASED_SIZE_SPREAD = 0.06
_NORMS = get_args(BboxNorm)  # a graph cannot ask for them


def estimate_focal_length(img_hw: Array) -> Array:
    """Focal length in px of a camera with a diagonal field of view of 55 degrees: sqrt(w^2 + h^2), section 3.3.

    Args:
        img_hw: (..., 2) px.

    Returns:
        (...) px.
    """
    return (img_hw[..., 0] ** 2 + img_hw[..., 1] ** 2) ** 0.5


def bbox_info(center: Array, bbox_size: Array, img_hw: Array, focal_length: Array, norm: BboxNorm) -> Array:
    """The location feature fed to the regressor: Eq. (5) of CLIFF (Li et al., ECCV 2022).

    Args:
        center: (B, 2) px, full image.
        bbox_size: (B,) px.
        img_hw: (B, 2) px.
        focal_length: (B,) px.
        norm: 'eq5' for (c_x, c_y, b) / f as printed, with c relative to the image centre; 'released' for the same
            three numbers standardised by the constants that the authors' published weights need.

    Returns:
        (B, 3), unitless.

    Raises:
        ValueError: If the norm is another one.
    """
    if norm not in _NORMS:
        raise ValueError(f"For 'bbox_info', 'norm' must be 'eq5' or 'released', but got '{norm}'.")
    x = (center[:, 0] - img_hw[:, 1] / 2) / focal_length
    y = (center[:, 1] - img_hw[:, 0] / 2) / focal_length
    b = bbox_size / focal_length
    if norm == "released":
        x = x / _RELEASED_POSITION_SPREAD
        y = y / _RELEASED_POSITION_SPREAD
        b = (b - _RELEASED_SIZE_MEAN) / _RELEASED_SIZE_SPREAD
    return _stack(x, y, b)


def crop_translation(pred_cam_crop: Array, crop_height: float) -> Array:
    """Root translation in the virtual crop camera of focal length 5000 px: Eq. (1).

    Args:
        pred_cam_crop: (B, 3), the weak-perspective s, t_x, t_y.
        crop_height: r, height in px of the resized crop.

    Returns:
        (B, 3) m.
    """
    s, tx, ty = pred_cam_crop[:, 0], pred_cam_crop[:, 1], pred_cam_crop[:, 2]
    return _stack(tx, ty, 2 * HMR_FOCAL_LENGTH / (crop_height * s + 1e-9))


def full_translation(
    pred_cam_crop: Array, center: Array, bbox_size: Array, img_hw: Array, focal_length: Array
) -> Array:
    """Root translation in the camera of the full image: Eq. (7), with Eq. (1) substituted (r and f_HMR cancel).

    Args:
        pred_cam_crop: (B, 3), the weak-perspective s, t_x, t_y.
        center: (B, 2) px, full image.
        bbox_size: (B,) px.
        img_hw: (B, 2) px.
        focal_length: (B,) px.

    Returns:
        pred_cam_full (B, 3) m, full-image camera.
    """
    s, tx, ty = pred_cam_crop[:, 0], pred_cam_crop[:, 1], pred_cam_crop[:, 2]
    half_size = (bbox_size * s + 1e-9) / 2  # px that one metre spans at the root's depth
    return _stack(
        tx + (center[:, 0] - img_hw[:, 1] / 2) / half_size,
        ty + (center[:, 1] - img_hw[:, 0] / 2) / half_size,
        focal_length / half_size,
    )


def project(points: Array, translation: Array, focal_length: Array) -> Array:
    """Perspective projection relative to the image centre: Eq. (4) in the crop, Eq. (8) in the full image.

    Args:
        points: (B, J, 3) m, model frame (root translation not added).
        translation: (B, 3) m, that camera.
        focal_length: (B,) px.

    Returns:
        (B, J, 2) px from the image centre, x right and y down.
    """
    moved = points + translation[:, None, :]
    return moved[..., :2] / moved[..., 2:] * focal_length[:, None, None]


def to_image(points2d: Array, img_hw: Array) -> Array:
    """Move points given relative to the image centre to pixel coordinates of the image.

    Args:
        points2d: (B, J, 2) px from the image centre.
        img_hw: (B, 2) px.

    Returns:
        (B, J, 2) px, origin at the top left corner.
    """
    return points2d + _stack(img_hw[:, 1], img_hw[:, 0])[:, None, :] / 2


def _stack(*columns: Array) -> Array:
    return library(columns[0]).stack(columns, -1)
