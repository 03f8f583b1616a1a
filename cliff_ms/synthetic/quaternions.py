"""Rotations as unit quaternions (..., 4), x y z w, for many at once: several times quicker here than SciPy's class."""

import numpy as np


def from_rotvec(rotvec: np.ndarray) -> np.ndarray:
    """Axis-angle (..., 3) rad -> (..., 4)."""
    half = _length(rotvec) / 2
    return np.concatenate([rotvec * (np.sin(half) / np.maximum(2 * half, 1e-12)), np.cos(half)], -1)


def to_rotvec(quat: np.ndarray) -> np.ndarray:
    """(..., 4) -> axis-angle (..., 3) rad of an angle of at most pi."""
    sine = _length(quat[..., :3])
    cosine = quat[..., 3:]
    half = np.arctan2(sine, np.abs(cosine))
    return quat[..., :3] * np.copysign(2 * half / np.maximum(sine, 1e-12), cosine)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation b followed by a; (..., 4) each, broadcast."""
    ax, ay, az, aw = np.moveaxis(a, -1, 0)
    bx, by, bz, bw = np.moveaxis(b, -1, 0)
    product = (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )
    return np.stack(product, -1)


def inverse(quat: np.ndarray) -> np.ndarray:
    """The rotation back; (..., 4)."""
    return quat * np.array([-1, -1, -1, 1], quat.dtype)


def to_matrix(quat: np.ndarray) -> np.ndarray:
    """(..., 4) -> (..., 3, 3)."""
    x, y, z, w = np.moveaxis(quat, -1, 0)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return np.stack(rows, -1).reshape(*quat.shape[:-1], 3, 3)


def between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The rotation a share of the way from the first to the second along the shortest arc, (..., 4), broadcast."""
    way = to_rotvec(multiply(inverse(first), second)) * share[..., None]
    return multiply(first, from_rotvec(way))


def swing_twist(quat: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Split rotations into a twist about the bone and the swing that follows it.

    Args:
        quat: (..., J, 4).
        bone: (J,) axis of the twist, 0 for x, 1 for y, 2 for z.

    Returns:
        (..., J, 3) rad: the twist's angle in the bone's place, and the swing as a rotation vector, whose component
        along the bone is zero, in the other two.
    """
    along = bone[:, None] == np.arange(3)  # (J, 3)
    sine = (quat[..., :3] * along).sum(-1)
    angle = 2 * np.arctan2(sine, quat[..., 3])
    twist = ((angle + np.pi) % (2 * np.pi) - np.pi)[..., None] * along
    return np.where(along, twist, to_rotvec(multiply(quat, from_rotvec(-twist))))


def from_swing_twist(parts: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """The inverse of `swing_twist`: (..., J, 3) rad and (J,) -> (..., J, 4)."""
    twist = parts * (bone[:, None] == np.arange(3))
    return multiply(from_rotvec(parts - twist), from_rotvec(twist))


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("...i,...i", vectors, vectors))[..., None]
