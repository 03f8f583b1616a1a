"""The last step of the annotator: every body is fitted to the 2D keypoints that it was annotated with.

The paper ends with the predictions of the finetuned network, which meet the keypoints as far as one set of weights can
meet everybody's. The fit of `inference.fit` starts from them, with the errors that are stated of the pretrained weights
as its prior: half as wide is as good and wider is worse, by scripts/annotator_fit_study.py.
"""

from dataclasses import replace

import numpy as np

from mindspore import Tensor

from cliff_ms import camera
from cliff_ms.annotation.input import Target
from cliff_ms.body.smpl import SMPL
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.batching import filled_batches
from cliff_ms.inference.fit import Fit
from cliff_ms.keypoints import SPIN24, SPIN24_OF_LANDMARKS, convert_keypoints
from cliff_ms.rotation import axis_angle_to_rotmat, rotmat_to_axis_angle

_PELVIS = SPIN24.index("pelvis_mpii")


def keypoints_to_fit(target: Target, weights: np.ndarray) -> tuple[np.ndarray, str]:
    """What the fit reads: keypoints as they came where labels were made of them, else the labels.

    Keypoints that came in say of which joints they are, and all count. The hips of labels may be others than COCO's
    (LSP's), so labels count as they do in the finetuning.

    Args:
        target: Whom to annotate.
        weights: (24,) factors on the confidences of labels.

    Returns:
        Keypoints (N, K, 3) px of the full image and confidence, and their order, a key of `keypoints.JOINT_SETS`.
    """
    people = target.people
    if people.input_keypoints is not None and not target.labelled:
        return people.input_keypoints, people.input_joint_set
    labels = people.keypoints2d.copy()
    labels[..., 2] *= weights
    return convert_keypoints(labels, "spin24", "coco17"), "coco17"


def fit_people(fit: Fit, smpl: SMPL, found: Annotations, keypoints: np.ndarray, batch_size: int) -> Annotations:
    """Fit annotated bodies to keypoints.

    Args:
        fit: For these keypoints.
        smpl: What `build_smpl` returned.
        found: N people with bodies, focal lengths and sizes of the images; `points2d` in the extras.
        keypoints: (N, K, 3) px of the full image and confidence.
        batch_size: People at once.

    Returns:
        The people with fitted bodies and their joints, and in the extras `fit_sigma` (N,), see `inference.fit.Fitted`.
        Who cannot be fitted stays as found, bit for bit.
    """
    names = ("pose", "betas", "translation", "keypoints3d")
    columns = {name: getattr(found, name).copy() for name in names}
    points2d, sigma = found.extras["points2d"].copy(), np.full(len(found), np.nan, np.float32)
    for rows, kept in filled_batches(len(found), batch_size):
        rotmats = axis_angle_to_rotmat(found.pose[rows].astype(np.float64).reshape(-1, 24, 3)).astype(np.float32)
        people = found.take(rows)
        bodies, noise = fit(
            rotmats, people.betas, people.translation, keypoints[rows], people.size, people.img_hw, people.focal_length
        )
        joints, points = joint_labels(smpl, *bodies, people.focal_length, people.img_hw)
        moved = np.flatnonzero(np.isfinite(noise[:kept]))
        to = rows[moved]
        columns["pose"][to] = rotmat_to_axis_angle(bodies.rotmats[moved]).reshape(-1, 72)
        columns["betas"][to], columns["translation"][to] = bodies.betas[moved], bodies.translation[moved]
        columns["keypoints3d"][to, :, :3] = joints[moved]
        points2d[to], sigma[to] = points[moved], noise[moved]
    return replace(found, **columns, extras=found.extras | {"points2d": points2d, "fit_sigma": sigma})


def joint_labels(
    smpl: SMPL,
    rotmats: np.ndarray,
    betas: np.ndarray,
    translation: np.ndarray,
    focal_length: np.ndarray,
    img_hw: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the joints of B bodies are, order `keypoints.SPIN24`.

    Args:
        smpl: What `build_smpl` returned.
        rotmats: (B, 24, 3, 3) float32, relative to the parent, the root's to the camera.
        betas: (B, 10) float32.
        translation: (B, 3) m, full-image camera.
        focal_length: (B,) px.
        img_hw: (B, 2) px.

    Returns:
        (B, 24, 3) m from the pelvis along the camera's axes, and (B, 24, 2) px of the full image.
    """
    joints = smpl(Tensor(betas), Tensor(rotmats))[1].asnumpy()[:, SPIN24_OF_LANDMARKS]
    points2d = camera.to_image(camera.project(joints, translation, focal_length), img_hw)
    return joints - joints[:, _PELVIS, None], points2d
