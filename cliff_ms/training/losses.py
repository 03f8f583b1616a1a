"""The terms of the training loss: Eq. (2) and (3) of HMR, Eq. (9) and (10) of CLIFF, with SPIN's means and masks.

B is the batch; joints are the 24 of `cliff_ms.keypoints.SPIN24`. Every function works inside a graph and returns a
scalar: the mean over the samples that have the label, `sum(error * mask) / max(sum(mask), 1)`. A sample without the
label contributes exactly zero, to the value and to the gradient, and a batch without any label costs 0. As in SPIN a
keypoint of confidence 0 counts as an error of 0, so a sample with few keypoints weighs less.
"""

from mindspore import Tensor, ops

from cliff_ms import camera
from cliff_ms.keypoints import SPIN24

RIGHT_HIP, LEFT_HIP = SPIN24.index("right_hip_lsp"), SPIN24.index("left_hip_lsp")
# Nobody is seen below these. A crop is 2 / s metres high; the depth is that of a joint before the camera.
MIN_SCALE = 0.01
MIN_DEPTH = 0.1  # m
_MIN_REGULARISED_SCALE = -1.0


def project_full(
    joints: Tensor, pred_cam_crop: Tensor, center: Tensor, bbox_size: Tensor, img_hw: Tensor, focal_length: Tensor
) -> Tensor:
    """Predicted 2D keypoints by the camera of the full image: Eq. (7) and (8).

    Cameras that the network may predict while it learns, but that see nobody (a scale s below 0.01, a joint less than
    0.1 m before the camera), are moved to those bounds; the gradient passes as if they had not been. Value and
    gradient stay finite and point back into the valid range; valid cameras are not changed by a bit.

    Args:
        joints: (B, 24, 3) m, model frame.
        pred_cam_crop: (B, 3), the weak-perspective s, t_x, t_y.
        center: (B, 2) px, full image.
        bbox_size: (B,) px, crop height.
        img_hw: (B, 2) px.
        focal_length: (B,) px, full image.

    Returns:
        (B, 24, 2) px, full image.
    """
    translation = camera.full_translation(_valid_camera(pred_cam_crop), center, bbox_size, img_hw, focal_length)
    points = camera.project(_before_camera(joints, translation), translation, focal_length)
    return camera.to_image(points, img_hw)


def project_crop(joints: Tensor, pred_cam_crop: Tensor, center: Tensor, bbox_size: Tensor, crop_height: int) -> Tensor:
    """Predicted 2D keypoints by HMR's virtual camera of the crop: Eq. (1) and (4), without CS of Table 2.

    Degenerate cameras are treated as in `project_full`.

    Args:
        joints: (B, 24, 3) m, model frame.
        pred_cam_crop: (B, 3), the weak-perspective s, t_x, t_y.
        center: (B, 2) px, full image.
        bbox_size: (B,) px, crop height in the full image.
        crop_height: r, px of the resized crop.

    Returns:
        (B, 24, 2) px, full image: the points of the crop, enlarged back to where it was cut out.
    """
    translation = camera.crop_translation(_valid_camera(pred_cam_crop), crop_height)
    focal_length = ops.ones_like(bbox_size) * camera.HMR_FOCAL_LENGTH
    points = camera.project(_before_camera(joints, translation), translation, focal_length)
    return points * (bbox_size / crop_height)[:, None, None] + center[:, None, :]


def keypoints2d_loss(pred: Tensor, target: Tensor, bbox_size: Tensor, crop_aspect: float) -> Tensor:
    """L_2D: Eq. (9), or (3) when `pred` comes from `project_crop`.

    The squared residual in px of the full image is divided by half the crop's width in x and half its height in y:
    SPIN's [-1, 1] range of the crop. That is how the authors normalise ("divide by 256 and 192", "by the bounding box
    size"): with image width and height instead, small people would count for nothing.

    Args:
        pred: (B, 24, 2) px, full image.
        target: (B, 24, 3) px, full image, and confidence, which weighs the squared residual.
        bbox_size: (B,) px, crop height.
        crop_aspect: Crop width / height.

    Returns:
        The mean over 24 joints and 2 coordinates of the samples that have any keypoint.
    """
    confidence = target[:, :, 2:]
    half_size = bbox_size[:, None] / 2
    half = ops.stack((half_size * crop_aspect, half_size), -1)  # (B, 1, 2) px
    residual = (pred - target[:, :, :2]) / half
    seen = (confidence.sum((1, 2)) > 0).astype(pred.dtype)
    return _masked_mean(confidence * residual * residual, seen)


def keypoints3d_loss(pred: Tensor, target: Tensor) -> Tensor:
    """L_3D of Eq. (3): both sides moved so that the middle of the hips is the origin.

    Args:
        pred: (B, 24, 3) m.
        target: (B, 24, 4) m, camera axes, any origin, and confidence. A sample without both hips has no origin and is
            left out.

    Returns:
        The mean over 24 joints and 3 coordinates of the labelled samples.
    """
    confidence = target[:, :, 3:]
    residual = _from_hips(pred) - _from_hips(target[:, :, :3])
    labelled = confidence[:, RIGHT_HIP, 0] * confidence[:, LEFT_HIP, 0] > 0
    return _masked_mean(confidence * residual * residual, labelled.astype(pred.dtype))


def pose_loss(pred_rotmat: Tensor, rotmats: Tensor, has_smpl: Tensor) -> Tensor:
    """The pose part of L_SMPL in Eq. (3), on rotation matrices, the root's included.

    Args:
        pred_rotmat: (B, 24, 3, 3).
        rotmats: (B, 24, 3, 3).
        has_smpl: (B,) 0 or 1.

    Returns:
        The mean over 24 matrices of 9 numbers of the labelled samples.
    """
    residual = pred_rotmat - rotmats
    return _masked_mean(residual * residual, has_smpl)


def betas_loss(pred_betas: Tensor, betas: Tensor, has_smpl: Tensor) -> Tensor:
    """The shape part of L_SMPL in Eq. (3).

    Args:
        pred_betas: (B, 10).
        betas: (B, 10).
        has_smpl: (B,) 0 or 1.

    Returns:
        The mean over 10 coefficients of the labelled samples.
    """
    residual = pred_betas - betas
    return _masked_mean(residual * residual, has_smpl)


def vertices_loss(pred_vertices: Tensor, vertices: Tensor, has_smpl: Tensor) -> Tensor:
    """L1 distance of vertices in the model frame; in SPIN's code, not in the paper.

    Args:
        pred_vertices: (B, V, 3) m.
        vertices: (B, V, 3) m.
        has_smpl: (B,) 0 or 1.

    Returns:
        The mean over V vertices and 3 coordinates of the labelled samples.
    """
    return _masked_mean(ops.abs(pred_vertices - vertices), has_smpl)


def camera_loss(pred_cam_crop: Tensor) -> Tensor:
    """SPIN's regulariser exp(-10 s)^2, which keeps the scale s positive.

    Below s = -1 it goes on along its tangent, because float32 would overflow at s = -4.4.

    Args:
        pred_cam_crop: (B, 3), s first.

    Returns:
        The mean over the batch.
    """
    scale = pred_cam_crop[:, 0]
    inside = ops.maximum(scale, _MIN_REGULARISED_SCALE)
    value = ops.exp(-20 * inside)
    return (value * (1 - 20 * (scale - inside))).mean()


def _masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Mean over the samples of mask 1 of the mean over everything else: (B, ...) and (B,) to a scalar."""
    per_sample = error.reshape(error.shape[0], -1).mean(1)
    return (per_sample * mask).sum() / ops.maximum(mask.sum(), 1.0)


def _from_hips(joints: Tensor) -> Tensor:
    middle = (joints[:, RIGHT_HIP] + joints[:, LEFT_HIP]) / 2
    return joints - middle[:, None, :]


def _valid_camera(pred_cam_crop: Tensor) -> Tensor:
    scale = pred_cam_crop[:, :1]
    return ops.cat((scale + _lift(scale, MIN_SCALE), pred_cam_crop[:, 1:]), 1)


def _before_camera(joints: Tensor, translation: Tensor) -> Tensor:
    z = joints[:, :, 2:]
    return ops.cat((joints[:, :, :2], z + _lift(z + translation[:, None, 2:], MIN_DEPTH)), -1)


def _lift(value: Tensor, minimum: float) -> Tensor:
    """What must be added to reach the minimum, a constant to the gradient; exactly 0 where nothing must."""
    return ops.stop_gradient(ops.maximum(minimum - value, 0.0))
