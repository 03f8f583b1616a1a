"""Linear blend skinning, and the way from the artists' A-pose to the T-pose of SMPL.

Rotations are 3x3 matrices acting on column vectors; joints are in the order of `assets.JOINT_NAMES`.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from body.assets import JOINT_NAMES, MIRROR, MIRROR_JOINTS, PARENTS

COLLAR_RAISE = 10.0  # degrees about z between A- and T-pose
THIGH = np.array([0.07, -1.0, 0.0])  # rest directions of the left leg: hip -> knee
SHIN = np.array([0.0, -1.0, -0.06])  # knee -> ankle
_MIRRORED = np.outer(MIRROR, MIRROR)  # elementwise: rotation -> rotation of the mirror image


def pose_vertices(
    vertices: np.ndarray, joints: np.ndarray, rotations: np.ndarray, weights: np.ndarray, posedirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pose a body as SMPL does: pose blend shapes, then linear blend skinning.

    Args:
        vertices: (V, 3) m, rest pose.
        joints: (24, 3) m, rest pose.
        rotations: (24, 3, 3), of each joint relative to its parent.
        weights: (V, 24).
        posedirs: (V, 3, 207), for the entries of R - I of joints 1 to 23, row-major.

    Returns:
        Posed vertices (V, 3) and joints (24, 3), m.
    """
    world, centers = np.empty_like(rotations), np.empty_like(joints)
    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            world[joint], centers[joint] = rotations[joint], joints[joint]
        else:
            world[joint] = world[parent] @ rotations[joint]
            centers[joint] = centers[parent] + world[parent] @ (joints[joint] - joints[parent])
    shaped = vertices + posedirs @ (rotations[1:] - np.eye(3)).ravel()
    matrices, offsets = _blend(weights, world, joints, centers)
    return np.einsum("vij,vj->vi", matrices, shaped) + offsets, centers


def to_t_pose(
    vertices: np.ndarray, joints: np.ndarray, knuckles: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a mirror-symmetric body from the A-pose to the T-pose.

    The blend is inverted: skinning the result back to the A-pose gives exactly the artists' surface.

    Args:
        vertices: (V, 3) m, A-pose.
        joints: (24, 3) m, A-pose.
        knuckles: (4, 3) m, of index and little finger, left then right.
        weights: (V, 24).

    Returns:
        T-pose vertices (V, 3) and joints (24, 3), m.
    """
    world = _world_rotations(joints, knuckles)
    centers = joints.copy()
    for joint, parent in enumerate(PARENTS[1:], start=1):
        centers[joint] = centers[parent] + world[parent] @ (joints[joint] - joints[parent])
    matrices, offsets = _blend(weights, world.transpose(0, 2, 1), centers, joints)
    return np.linalg.solve(matrices, (vertices - offsets)[..., None])[..., 0], centers


def a_pose_rotations(joints: np.ndarray, knuckles: np.ndarray) -> np.ndarray:
    """Give the rotations (24, 3, 3), relative to the parents, that take the T-pose of `to_t_pose` back to the A-pose.

    Args:
        joints: (24, 3) m, A-pose.
        knuckles: (4, 3) m, of index and little finger, left then right.
    """
    world = _world_rotations(joints, knuckles)
    local = world.transpose(0, 2, 1).copy()
    for joint, parent in enumerate(PARENTS[1:], start=1):
        local[joint] = world[parent] @ world[joint].T
    return local


def random_pose(rng: np.random.Generator) -> np.ndarray:
    """Draw a plausible pose, (24, 3, 3): small spine, large hips and shoulders, knees and elbows that only flex."""
    deviation = {"hip": 0.5, "shoulder": 0.5, "neck": 0.3, "head": 0.3, "wrist": 0.3, "ankle": 0.25}
    vectors = np.zeros((len(JOINT_NAMES), 3))
    for joint, name in enumerate(JOINT_NAMES[1:], start=1):
        part = name.split("_")[-1]
        vectors[joint] = rng.normal(0.0, deviation.get(part, 0.12), 3)
        if part == "knee":
            vectors[joint, 0] += abs(rng.normal(0.0, 0.8))
        if part == "elbow":
            vectors[joint, 1] += abs(rng.normal(0.0, 0.8)) * (-1 if name.startswith("left") else 1)
    return Rotation.from_rotvec(vectors).as_matrix()


def _blend(
    weights: np.ndarray, rotations: np.ndarray, before: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Blend the rigid motions "rotate about `before`, move it to `after`" into a matrix and an offset per vertex."""
    offsets = after - np.einsum("kij,kj->ki", rotations, before)
    return (weights @ rotations.reshape(-1, 9)).reshape(-1, 3, 3), weights @ offsets


def _world_rotations(joints: np.ndarray, knuckles: np.ndarray) -> np.ndarray:
    """Rotations from A to T of every body part. Spine, head and feet keep theirs."""
    hip, knee, ankle, shoulder, elbow, wrist, hand = (
        joints[JOINT_NAMES.index(f"left_{name}")]
        for name in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist", "hand")
    )
    bend = np.cross(elbow - shoulder, wrist - elbow)  # normal of the plane in which the elbow bends
    palm = np.cross(hand - wrist, knuckles[0] - knuckles[1])
    # Arms end along +x with the bend forwards and the palms down: the frame (+x, normal -y).
    arm = np.stack([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]], 1)
    parts = {
        "collar": Rotation.from_euler("z", COLLAR_RAISE, degrees=True).as_matrix(),
        "shoulder": arm @ _frame(elbow - shoulder, bend).T,
        "elbow": arm @ _frame(wrist - elbow, bend).T,
        "wrist": arm @ _frame(hand - wrist, palm).T,
        "hip": _rotation_between(knee - hip, THIGH),
        "knee": _rotation_between(ankle - knee, SHIN),
    }
    parts["hand"] = parts["wrist"]
    world = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
    for name, rotation in parts.items():
        joint = JOINT_NAMES.index(f"left_{name}")
        world[joint] = rotation
        world[MIRROR_JOINTS[joint]] = rotation * _MIRRORED
    return world


def _frame(along: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Orthonormal frame with columns along, normal made perpendicular, and their cross product."""
    first = along / np.linalg.norm(along)
    second = normal - first * (first @ normal)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], 1)


def _rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Smallest rotation that takes one direction to another."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    angle = np.arctan2(np.linalg.norm(axis), start @ end)
    return Rotation.from_rotvec(axis / max(np.linalg.norm(axis), 1e-12) * angle).as_matrix()
