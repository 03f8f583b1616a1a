"""Rotations: 6D, matrix, axis-angle.

The 6D layout is fixed here: six numbers are a (3, 2) matrix in row-major order whose two columns are the first two
columns of the rotation (before orthonormalisation). SPIN, CLIFF, EFT and BEDLAM use it; 4D-Humans, CameraHMR and
SAM 3D Body flatten the transpose, so their weights are not interchangeable.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.backend import Array, library


def rot6d_to_rotmat(pose6d: Array) -> Array:
    """Gram-Schmidt on the two columns of the 6D representation (Zhou et al., CVPR 2019).

    Args:
        pose6d: (B, 6 K) for K rotations, or (N, 6).

    Returns:
        (B, K, 3, 3), with K = 1 for an (N, 6) input.
    """
    lib = library(pose6d)
    columns = pose6d.reshape(-1, 3, 2)
    a1, a2 = columns[:, :, 0], columns[:, :, 1]  # (N, 3)
    b1 = _normalize(a1)
    b2 = _normalize(a2 - (b1 * a2).sum(-1, keepdims=True) * b1)
    # The cross product is spelled out: ops.cross cannot be exported to ONNX.
    x1, y1, z1 = b1[:, 0], b1[:, 1], b1[:, 2]
    x2, y2, z2 = b2[:, 0], b2[:, 1], b2[:, 2]
    b3 = lib.stack((y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2), -1)
    return lib.stack((b1, b2, b3), -1).reshape(-1, pose6d.shape[1] // 6, 3, 3)


def axis_angle_to_rotmat(axis_angle: Array) -> Array:
    """Rodrigues' formula, with a finite gradient at zero rotation.

    Args:
        axis_angle: (..., 3) rad.

    Returns:
        (..., 3, 3).
    """
    lib = library(axis_angle)
    flat = axis_angle.reshape(-1, 3)
    # The norm of r + 1e-8 instead of r keeps value and gradient finite at r = 0.
    shifted = flat + 1e-8
    angle = lib.sqrt((shifted * shifted).sum(-1, keepdims=True))  # (N, 1)
    axis = flat / angle
    x, y, z = axis[:, 0], axis[:, 1], axis[:, 2]
    sin, cos = lib.sin(angle)[:, 0], lib.cos(angle)[:, 0]
    rest = 1 - cos
    rows = (
        cos + rest * (x * x), rest * (x * y) - sin * z, rest * (x * z) + sin * y,
        rest * (x * y) + sin * z, cos + rest * (y * y), rest * (y * z) - sin * x,
        rest * (x * z) - sin * y, rest * (y * z) + sin * x, cos + rest * (z * z),
    )  # fmt: skip
    return lib.stack(rows, -1).reshape(axis_angle.shape + (3,))


def rotmat_to_axis_angle(rotmat: np.ndarray) -> np.ndarray:
    """Axis-angle of rotation matrices, float64 inside.

    Args:
        rotmat: (..., 3, 3).

    Returns:
        (..., 3) rad, of the input's type.
    """
    flat = np.asarray(rotmat, np.float64).reshape(-1, 3, 3)
    return Rotation.from_matrix(flat).as_rotvec().reshape(rotmat.shape[:-1]).astype(rotmat.dtype)


def rotmat_to_rot6d(rotmat: np.ndarray) -> np.ndarray:
    """The 6D representation of rotation matrices.

    Args:
        rotmat: (..., 3, 3).

    Returns:
        (..., 6).
    """
    return rotmat[..., :2].reshape(*rotmat.shape[:-2], 6)


def _normalize(x: Array) -> Array:
    # Value and gradient of torch's F.normalize, finite at zero; ops.norm has a NaN gradient there.
    lib = library(x)
    return x / lib.sqrt(lib.maximum((x * x).sum(-1, keepdims=True), 1e-24))
