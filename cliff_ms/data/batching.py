"""Batches: what one holds, and how any number of people is cut into batches of one size, for one compiled graph."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mindspore import Tensor

from cliff_ms.body.smpl import SMPL


class Batch(NamedTuple):
    """What a network reads of B people and what is known of them, float32; one sample is the same without the B.

    Pixels are those of the frame, see `augment.Sample`: the full image, unless it was augmented.

    Attributes:
        inputs: (B, 3, H, W) normalised crops, or (B, K, 3) normalised keypoints for a keypoint model.
        center: (B, 2) px, of the crops.
        bbox_size: (B,) px, crop heights.
        img_hw: (B, 2) px.
        focal_length: (B,) px.
        keypoints2d: (B, 24, 3) px and confidence, order `keypoints.SPIN24`.
        keypoints3d: (B, 24, 4) m along the axes of the camera and confidence, same order.
        rotmats: (B, 24, 3, 3), relative to the parent joint, the root's to the camera.
        betas: (B, 10).
        has_smpl: (B,) 0 or 1, whether rotmats and betas are known.
    """

    inputs: np.ndarray
    center: np.ndarray
    bbox_size: np.ndarray
    img_hw: np.ndarray
    focal_length: np.ndarray
    keypoints2d: np.ndarray
    keypoints3d: np.ndarray
    rotmats: np.ndarray
    betas: np.ndarray
    has_smpl: np.ndarray

    @property
    def network_inputs(self) -> tuple[np.ndarray, ...]:
        """The arguments of a `networks.Network`: inputs, center, bbox_size, img_hw and focal_length."""
        return self[:5]


def collate(samples: Sequence[Batch]) -> Batch:
    """Stack samples into a batch."""
    return Batch(*map(np.stack, zip(*samples, strict=True)))


def joined(first: Batch, second: Batch) -> Batch:
    """The samples of two batches as one."""
    return Batch(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def filled_batches(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cut rows into batches of one size.

    Args:
        count: How many rows there are.
        batch_size: B.

    Yields:
        Numbers of the rows (B,), the last batch filled up with the last row; and how many of them are not filled up.
    """
    for start in range(0, count, batch_size):
        yield np.minimum(np.arange(start, start + batch_size), count - 1), min(batch_size, count - start)


def pose_in_batches(
    smpl: SMPL, betas: np.ndarray, rotmats: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pose any number of people, N, nobody included.

    Args:
        smpl: Their body.
        betas: (N, 10).
        rotmats: (N, 24, 3, 3).
        batch_size: People posed at once.

    Returns:
        Vertices (N, V, 3) and joints (N, 45 + K, 3) as `SMPL` gives them, float32.
    """
    vertices = np.empty((len(betas), smpl.vertex_count, 3), np.float32)
    joints = np.empty((len(betas), smpl.joint_count, 3), np.float32)
    for rows, _ in filled_batches(len(betas), batch_size):
        posed = smpl(*(Tensor(array[rows].astype(np.float32)) for array in (betas, rotmats)))
        vertices[rows], joints[rows] = (tensor.asnumpy() for tensor in posed)
    return vertices, joints
