"""Errors of 3D joints, vertices and rotations: metres in, millimetres out; float64 inside.

N is the number of people, J of joints.
"""

import numpy as np


def mpjpe(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Mean per-joint position error.

    Args:
        pred: (N, J, 3) m, relative to the root that the protocol names, or in the same frame as `gt`.
        gt: (N, J, 3) m.

    Returns:
        (N,) mm.

    Raises:
        ValueError: If the shapes differ.
    """
    return _distances(pred, gt).mean(-1)


def pa_mpjpe(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """MPJPE after the similarity (rotation, scale, translation; no reflection) that fits each prediction best.

    Args:
        pred: (N, J, 3) m.
        gt: (N, J, 3) m.

    Returns:
        (N,) mm.

    Raises:
        ValueError: If the shapes differ.
    """
    return mpjpe(align_similarity(*_checked(pred, gt)), gt)


def acceleration_error(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Mean distance of accelerations, second differences from frame to frame, as HMMR and VIBE define it.

    Args:
        pred: (T, J, 3) m, T frames of one person; HMMR and VIBE take joints from the pelvis.
        gt: (T, J, 3) m.

    Returns:
        (T - 2,) mm per frame squared.

    Raises:
        ValueError: If the shapes differ.
    """
    return mpjpe(*(np.diff(np.asarray(joints, np.float64), 2, axis=0) for joints in _checked(pred, gt)))


def pck(pred: np.ndarray, gt: np.ndarray, threshold: float = 150.0) -> np.ndarray:
    """Percentage of correct keypoints: those less than a threshold away from the truth (MPI-INF-3DHP: 150 mm).

    Args:
        pred: (N, J, 3) m, relative to the root that the protocol names.
        gt: (N, J, 3) m.
        threshold: mm; a joint exactly as far away is wrong.

    Returns:
        (N,) percent.

    Raises:
        ValueError: If the shapes differ.
    """
    return 100 * (_distances(pred, gt) < threshold).mean(-1)


def auc(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Area under the curve of `pck`: its mean over thresholds of 0, 5, ... 150 mm, as MPI-INF-3DHP's evaluation.

    Without any error it is 30 / 31 of 100 %: no distance is below the first threshold.

    Args:
        pred: (N, J, 3) m, relative to the root that the protocol names.
        gt: (N, J, 3) m.

    Returns:
        (N,) percent.

    Raises:
        ValueError: If the shapes differ.
    """
    thresholds = np.arange(0, 151, 5)
    return 100 * (_distances(pred, gt)[..., None] < thresholds).mean((-2, -1))


def pve(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Per-vertex error: `mpjpe` of (N, V, 3) vertices, relative to the root's joint. Returns (N,) mm."""
    return mpjpe(pred, gt)


def rotation_error(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Angle between rotations.

    Args:
        pred: (..., 3, 3).
        gt: (..., 3, 3).

    Returns:
        (...) degrees in [0, 180].
    """
    relative = np.asarray(pred, np.float64) @ np.asarray(gt, np.float64).swapaxes(-1, -2)
    # atan2 of sine and cosine: arccos alone loses half of the digits near 0 and 180 degrees.
    cos = (np.trace(relative, axis1=-2, axis2=-1) - 1) / 2
    skew = relative - relative.swapaxes(-1, -2)
    sin = np.sqrt(skew[..., 0, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 2] ** 2) / 2
    return np.degrees(np.arctan2(sin, cos))


def align_similarity(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Move each prediction onto its truth by the best similarity in the least-squares sense (Umeyama, 1991).

    Args:
        pred: (N, J, 3); points in a line or in one place are aligned as far as they determine it.
        gt: (N, J, 3).

    Returns:
        (N, J, 3) float64.
    """
    pred, gt = _checked(pred, gt)
    pred_mean, gt_mean = pred.mean(1, keepdims=True), gt.mean(1, keepdims=True)
    pred, gt = pred - pred_mean, gt - gt_mean
    u, singular, vt = np.linalg.svd(gt.swapaxes(1, 2) @ pred)
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))  # -1 would be a reflection: the weakest axis is turned over
    rotation = (u * sign[:, None]) @ vt
    spread = (pred**2).sum((1, 2))
    scale = (singular * sign).sum(1) / np.where(spread > 0, spread, 1)
    return scale[:, None, None] * pred @ rotation.swapaxes(1, 2) + gt_mean


def _distances(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """(N, J) mm."""
    pred, gt = _checked(pred, gt)
    return 1000 * np.linalg.norm(pred - gt, axis=-1)


def _checked(pred: np.ndarray, gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pred, gt = np.asarray(pred, np.float64), np.asarray(gt, np.float64)
    if pred.shape != gt.shape or pred.ndim != 3 or pred.shape[2] != 3:
        raise ValueError(f"Metrics compare two arrays of shape (N, J, 3), but got {pred.shape} and {gt.shape}.")
    return pred, gt
