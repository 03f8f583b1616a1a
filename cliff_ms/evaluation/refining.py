"""What becomes of a network's predictions before they are scored: nothing, or a fit to the 2D keypoints of the rows."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cliff_ms.body.files import Body
from cliff_ms.data.batching import Batch
from cliff_ms.data.dataset import EvalDataset
from cliff_ms.evaluation.protocols import DETECTED
from cliff_ms.evaluation.rows import read_keypoints
from cliff_ms.io.errors import InputError

if TYPE_CHECKING:
    from cliff_ms.evaluation.evaluate import EvalJob

Outputs = tuple[np.ndarray, ...]  # of a network, see `networks.Network`
Refine = Callable[[np.ndarray, Batch, Outputs], Outputs]  # rows (B,), what was read of them, and what came of that


def as_predicted(rows: np.ndarray, batch: Batch, outputs: Outputs) -> Outputs:
    """The predictions themselves."""
    return outputs


def choose_refine(job: "EvalJob", data: EvalDataset, body: Body) -> Refine:
    """What a job does with the predictions.

    Args:
        job: The job.
        data: Its rows.
        body: The neutral body, on which they are posed.

    Returns:
        `as_predicted`; or for `EvalJob.fit` what fits rotations, betas and translation to the keypoints of
        `EvalJob.keypoints`, in px of the full image with the camera that the protocol gives, and leaves the camera of
        the crop as it is. Whoever has no keypoint stays as predicted.

    Raises:
        InputError: The file does not have these keypoints.
    """
    if job.fit is None:
        return as_predicted
    keypoints, joint_set = read_keypoints(data.source, job.keypoints)
    as_detected = job.keypoints == DETECTED
    fit = job.fit(body, joint_set, job.weights.meaning.expected_deviations(), as_detected)

    def refine(rows: np.ndarray, batch: Batch, outputs: Outputs) -> Outputs:
        rotmats, betas, cam_crop, translation = outputs
        finite = np.isfinite(translation).all(1)
        if not finite.all():
            raise InputError(
                f"The network gives a place that is not finite for row {rows[finite.argmin()]}: bad weights."
            )
        view = keypoints[rows], batch.bbox_size, batch.img_hw, batch.focal_length
        bodies = fit(rotmats, betas, translation, *view).bodies
        return bodies.rotmats, bodies.betas, cam_crop, bodies.translation

    return refine
