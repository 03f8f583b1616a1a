"""Augmentation (section 3.5 of the paper) that keeps the full-frame labels exact.

A sample is augmented by moving its camera and its box, never by moving pixels: the *frame* is the picture of the moved
camera, `Sample.to_picture` says where each point of the frame lies in the picture on the disk, and one affine warp of
`cut` takes the pixels from there to the crop. Labels are those of the frame. Positions in px count from the corner of
the first pixel, whose centre is (0.5, 0.5).
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from cliff_ms.config import AugmentConfig
from cliff_ms.data.crop import IMAGENET_MEAN, IMAGENET_STD, crop_to_image, warp
from cliff_ms.keypoints import JOINT_SETS, SMPL24, SPIN24, flip_permutation

_SMPL_FLIP = flip_permutation(SMPL24)
_SPIN_FLIP = flip_permutation(SPIN24)
_INPUT_FLIP = {name: flip_permutation(joints) for name, joints in JOINT_SETS.items()}
_MIRROR = np.diag([-1.0, 1, 1])
_UPPER_BODY = np.array([not any(part in name for part in ("ankle", "knee")) for name in SPIN24])
# Cropping to a part of the person: joints that must be seen, the smallest part, the margin around it (EFT's), and
# the smallest box relative to the whole person's.
_MIN_JOINTS, _MIN_PART, _PART_MARGIN, _MIN_PART_SIZE = 6, 4, 1.2, 0.25


@dataclass(frozen=True, eq=False)
class Sample:
    """What augmentation changes of one person; the focal length and the body's shape stay.

    Attributes:
        center: (2,) px, frame.
        size: Crop height in px.
        img_hw: (2,) px, of the frame.
        keypoints2d: (24, 3) px of the frame and confidence, order `keypoints.SPIN24`.
        keypoints3d: (24, 4) m along the axes of the camera and confidence. If their origin is the camera, it stays so.
        rotmats: (24, 3, 3) pose, the root's relative to the camera.
        input_keypoints: (K, 3) px of the frame and confidence, or None.
        input_joint_set: Order of the K, or None.
        to_picture: (2, 3) affine matrix from the frame to the picture, px.
    """

    center: np.ndarray
    size: float
    img_hw: np.ndarray
    keypoints2d: np.ndarray
    keypoints3d: np.ndarray
    rotmats: np.ndarray
    input_keypoints: np.ndarray | None = None
    input_joint_set: str | None = None
    to_picture: np.ndarray = field(default_factory=lambda: np.eye(2, 3))


def augment(sample: Sample, rng: np.random.Generator, config: AugmentConfig, crop_hw: tuple[int, int]) -> Sample:
    """Draw and apply everything that moves the camera or the box.

    Args:
        sample: The person as annotated.
        rng: Source of all randomness.
        config: Probabilities and ranges.
        crop_hw: Height and width in px of the network's input: the shape of the box.

    Returns:
        The augmented person.
    """
    if rng.random() < config.crop:
        sample = crop_to_part(sample, rng, crop_hw)
    factor = np.clip(1 + config.scale * rng.standard_normal(), 1 - config.scale, 1 + config.scale)
    sample = replace(sample, size=sample.size * float(factor))
    if rng.random() < config.flip:
        sample = flip(sample)
    if rng.random() < config.rotation_prob:
        limit = 2 * config.rotation
        degrees = float(np.clip(config.rotation * rng.standard_normal(), -limit, limit))
        sample = rotate(sample, np.deg2rad(degrees), config.rotate_about)
    return sample


def flip(sample: Sample) -> Sample:
    """Mirror the full frame: x -> W - x for points, the box included, left and right of the body exchanged.

    Exact for a body that is symmetric itself, as the bundled one is.

    Args:
        sample: A person.

    Returns:
        Her mirror image.
    """
    width = float(sample.img_hw[1])
    linear, offset = np.diag([-1.0, 1]), np.array([width, 0])
    keypoints, joint_set = sample.input_keypoints, sample.input_joint_set
    if keypoints is not None and joint_set is not None:
        keypoints = _move(keypoints[_INPUT_FLIP[joint_set]], linear, offset)
    return replace(
        sample,
        center=linear @ sample.center + offset,
        keypoints2d=_move(sample.keypoints2d[_SPIN_FLIP], linear, offset),
        keypoints3d=_move(sample.keypoints3d[_SPIN_FLIP], _MIRROR),
        rotmats=_MIRROR @ sample.rotmats[_SMPL_FLIP] @ _MIRROR,
        input_keypoints=keypoints,
        to_picture=_compose(sample.to_picture, linear, offset),
    )


def rotate(sample: Sample, angle: float, about: str) -> Sample:
    """Turn the frame in its plane, and the person with it.

    Args:
        sample: A person.
        angle: rad, clockwise as seen in the picture.
        about: 'image' rolls the camera about its optical axis, which is exact wherever the person is. 'crop' turns
            around the centre of the box, which stays, as SPIN does, but rolls the body as 'image' does. That is exact
            on the optical axis only: the root of a body seen at an angle a to it is off by about 2 a sin(angle / 2),
            and its keypoints by a few hundredths of the box.

    Returns:
        The person turned.
    """
    pivot = sample.center if about == "crop" else sample.img_hw[::-1] / 2
    cos, sin = np.cos(angle), np.sin(angle)
    roll = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    linear = roll[:2, :2]
    offset = pivot - linear @ pivot
    rotmats = sample.rotmats.copy()
    rotmats[0] = roll @ rotmats[0]
    keypoints = sample.input_keypoints
    return replace(
        sample,
        center=linear @ sample.center + offset,
        keypoints2d=_move(sample.keypoints2d, linear, offset),
        keypoints3d=_move(sample.keypoints3d, roll),
        rotmats=rotmats,
        input_keypoints=None if keypoints is None else _move(keypoints, linear, offset),
        to_picture=_compose(sample.to_picture, linear.T, pivot - linear.T @ pivot),
    )


def crop_to_part(sample: Sample, rng: np.random.Generator, crop_hw: tuple[int, int]) -> Sample:
    """Move the box to a part of the person: the upper body, or a random joint and those around it.

    After Rockwell and Fouhey (ECCV 2020) and EFT (Joo et al., 3DV 2021). The labels stay: a network must learn to
    place what it does not see. With few known joints nothing happens.

    Args:
        sample: A person.
        rng: Source of randomness.
        crop_hw: Height and width in px of the network's input.

    Returns:
        The person with another box.
    """
    seen = sample.keypoints2d[:, 2] > 0
    points = sample.keypoints2d[seen, :2]
    if len(points) < _MIN_JOINTS:
        return sample
    upper = sample.keypoints2d[seen & _UPPER_BODY, :2]
    if rng.random() < 0.5 and len(upper) >= _MIN_PART:
        points = upper
    else:
        distance = np.linalg.norm(points - points[rng.integers(len(points))], axis=1)
        points = points[np.argsort(distance)[: rng.integers(_MIN_PART, len(points))]]
    low, high = points.min(0), points.max(0)
    size = _PART_MARGIN * max((high[0] - low[0]) * crop_hw[0] / crop_hw[1], high[1] - low[1])
    size = float(np.clip(size, _MIN_PART_SIZE * sample.size, sample.size))
    return replace(sample, center=(low + high) / 2, size=size)


def cut(picture: np.ndarray, reduction: int, sample: Sample, crop_hw: tuple[int, int]) -> np.ndarray:
    """Cut out, scale, rotate and flip in one sub-pixel affine warp; what lies outside the picture is black.

    Args:
        picture: (ceil(H / reduction), ceil(W / reduction), 3) uint8.
        reduction: The picture's px per px of `picture`.
        sample: Whose box to cut out.
        crop_hw: Height and width of the result.

    Returns:
        (h, w, 3) uint8.
    """
    to_frame = crop_to_image(sample.center, sample.size, crop_hw)
    return warp(picture, _compose(sample.to_picture, to_frame[:, :2], to_frame[:, 2]) / reduction, crop_hw)


def channel_noise(rng: np.random.Generator, config: AugmentConfig) -> np.ndarray:
    """Draw a factor for each colour channel, (3,)."""
    return rng.uniform(1 - config.noise, 1 + config.noise, 3)


def crop_to_input(crop: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Multiply the channels, clip to what a pixel can hold, and normalise as `crop.normalize_image` does.

    Args:
        crop: (h, w, 3) uint8 RGB.
        noise: (3,) factors.

    Returns:
        (3, h, w) float32.
    """
    levels = np.minimum(np.arange(256)[None] * noise[:, None], 255) / 255
    table = ((levels - IMAGENET_MEAN[:, None]) / IMAGENET_STD[:, None]).astype(np.float32)  # (3, 256)
    result = np.empty((3, *crop.shape[:2]), np.float32)
    for channel, values, out in zip(cv2.split(crop), table, result, strict=True):
        cv2.LUT(channel, values, dst=out)
    return result


def _move(points: np.ndarray, linear: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
    """Map the coordinates of points with confidence in the last channel."""
    moved = points.copy()
    moved[:, :-1] = points[:, :-1] @ linear.T + offset
    return moved


def _compose(affine: np.ndarray, linear: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """`affine` after x -> linear x + offset, (2, 3)."""
    return np.column_stack([affine[:, :2] @ linear, affine[:, :2] @ offset + affine[:, 2]])
