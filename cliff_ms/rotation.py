"""Rotations: 6D, matrix, axis-angle.

The 6D layout is fixed here: six numbers are a (3, 2) matrix in row-major order whose two columns are the first two
columns of the rotation (before orthonormalisation). SPIN, CLIFF, EFT and BEDLAM use it; 4D-Humans, CameraHMR and
SAM 3D Body flatten the transpose, so their weights are not interchangeable.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from mindspore import Tensor, ops


def rot6d_to_rotmat(pose6d: Tensor) -> Tensor:
    """Gram-Schmidt on the two columns of the 6D representation (Zhou et al., CVPR 2019).

    Args:
        pose6d: (B, 6 K) for K rotations, or (N, 6).

    Returns:
        (B, K, 3, 3), with K = 1 for an (N, 6) input.
    """
    columns = pose6d.reshape(-1, 3, 2)
    a1, a2 = columns[:, :, 0], columns[:, :, 1]  # (N, 3)
    b1 = _normalize(a1)
    b2 = _normalize(a2 - (b1 * a2).sum(-1, keepdims=True) * b1)
    # The cross product is spelled out: ops.cross cannot be exported to ONNX.
    x1, y1, z1 = b1[:, 0:1], b1[:, 1:2], b1[:, 2:3]
    x2, y2, z2 = b2[:, 0:1], b2[:, 1:2], b2[:, 2:3]
    b3 = ops.cat((y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2), -1)
    return ops.stack((b1, b2, b3), -1).reshape(-1, pose6d.shape[1] // 6, 3, 3)


def axis_angle_to_rotmat(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula, with a finite gradient at zero rotation.

    Args:
        axis_angle: (..., 3) rad.

    Returns:
        (..., 3, 3).
    """
    shape = axis_angle.shape
    flat = axis_angle.reshape(-1, 3)
    # The norm of r + 1e-8 instead of r keeps value and gradient finite at r = 0.
    shifted = flat + 1e-8
    angle = ops.sqrt((shifted * shifted).sum(-1, keepdims=True))  # (N, 1)
    axis = flat / angle
    x, y, z = axis[:, 0:1], axis[:, 1:2], axis[:, 2:3]
    zero = ops.zeros_like(x)
    skew = ops.cat((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(-1, 3, 3)
    outer = axis.reshape(-1, 3, 1) * axis.reshape(-1, 1, 3)
    sin, cos = ops.sin(angle).reshape(-1, 1, 1), ops.cos(angle).reshape(-1, 1, 1)
    identity = ops.ones_like(sin) * Tensor(np.eye(3, dtype=np.float32))
    return (cos * identity + sin * skew + (1 - cos) * outer).reshape(shape + (3,))


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


def _normalize(x: Tensor) -> Tensor:
    # Value and gradient of torch's F.normalize, finite at zero; ops.norm has a NaN gradient there.
    return x / ops.sqrt(ops.maximum((x * x).sum(-1, keepdims=True), 1e-24))
