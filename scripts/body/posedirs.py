"""Pose blend shapes that keep volume at bent joints.

Linear blend skinning (LBS) collapses flesh at a bent joint, dual quaternion skinning (DQS, Kavan et al., "Skinning with
Dual Quaternions", I3D 2007) does not. Their difference, moved back to the rest pose, is nearly linear in the entries
of R - I, which is what SMPL's pose blend shapes are linear in.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from body.assets import JOINT_NAMES, MIRROR, MIRROR_JOINTS, PARENTS

STRENGTH = 0.5  # all of DQS makes balloons of knees and buttocks
_SAMPLES, _RIDGE = 150, 1e-2


def fit_posedirs(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, mirror: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Fit pose blend shapes to half the way from LBS to DQS.

    Args:
        vertices: (V, 3) m, rest pose.
        joints: (24, 3) m.
        weights: (V, 24).
        mirror: (V,) int.
        rng: Source of randomness.

    Returns:
        (V, 3, 207) float64 m, mirror-symmetric, for the entries of R - I of joints 1 to 23, row-major.
    """
    shapes = np.zeros((len(vertices), 3, len(JOINT_NAMES), 9))
    for joint, name in enumerate(JOINT_NAMES):
        if joint == 0 or name.startswith("right"):
            continue
        limit = 120.0 if name.endswith(("knee", "elbow")) else 90.0
        axes = rng.normal(size=(_SAMPLES, 3))
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        angles = np.radians(rng.uniform(0, limit, _SAMPLES))
        share = weights[:, _descendants(joint)].sum(1)
        mixed = np.flatnonzero((share > 2e-3) & (share < 1 - 2e-3))  # elsewhere LBS is rigid
        difference = _dqs_minus_lbs(vertices[mixed] - joints[joint], share[mixed], axes, angles)
        features = Rotation.from_rotvec(axes * angles[:, None]).as_matrix().reshape(-1, 9) - np.eye(3).ravel()
        gram = features.T @ features + _RIDGE * np.eye(9)
        solution = np.linalg.solve(gram, features.T @ difference.reshape(_SAMPLES, -1))
        shapes[mixed, :, joint] = solution.T.reshape(len(mixed), 3, 9)
    # Right joints mirror left ones; on the midline the two halves are averaged.
    sign = np.outer(MIRROR, np.outer(MIRROR, MIRROR).ravel()).reshape(3, 1, 9)
    mirrored = (shapes[mirror] * sign)[:, :, MIRROR_JOINTS]
    sides = np.array([1.0 if name.startswith("left") else 0.5 for name in JOINT_NAMES])[:, None]
    right = np.array([name.startswith("right") for name in JOINT_NAMES])[:, None]
    shapes = np.where(right, mirrored, sides * shapes + (1 - sides) * mirrored)
    return STRENGTH * shapes[:, :, 1:].reshape(len(vertices), 3, -1)


def _descendants(joint: int) -> list[int]:
    found = [joint]
    for child, parent in enumerate(PARENTS):
        if parent in found:
            found.append(child)
    return found


def _dqs_minus_lbs(offsets: np.ndarray, share: np.ndarray, axes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rest-pose displacement (N, M, 3) that makes LBS give the DQS position.

    Args:
        offsets: (M, 3) vertices relative to the joint; `share` of their weight turns with it.
        share: (M,).
        axes: (N, 3) unit axes.
        angles: (N,) rad.
    """
    # Both motions leave the joint where it is, so their dual quaternion blend is a rotation about it.
    half = np.arctan2(share * np.sin(angles / 2)[:, None], 1 - share + share * np.cos(angles / 2)[:, None])
    blended = Rotation.from_rotvec((2 * half[..., None] * axes[:, None]).reshape(-1, 3)).as_matrix()
    dqs = np.einsum("nmij,mj->nmi", blended.reshape(*half.shape, 3, 3), offsets)
    full = Rotation.from_rotvec(axes * angles[:, None]).as_matrix()[:, None]
    linear = (1 - share)[:, None, None] * np.eye(3) + share[:, None, None] * full
    return np.linalg.solve(linear, dqs[..., None])[..., 0] - offsets
