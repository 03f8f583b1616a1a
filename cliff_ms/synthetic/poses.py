"""A prior over poses that people take: key poses, mixed and varied, within the limits of the joints.

Poses are rotations relative to the parent joint. The root's is relative to an upright body that faces +z with y up:
which way the person faces is not part of the pose.
"""

import numpy as np

from cliff_ms.keypoints import SMPL24, flip_permutation
from cliff_ms.synthetic import quaternions
from cliff_ms.synthetic.key_poses import key_poses

# Degrees, for the left side. A rotation is a twist about the bone followed by a swing of the bone; the bone is x for
# arms and y for all others, and its row limits the twist, the other two the swing (as a rotation vector).
_LIMITS = {
    "hip": ((-140, 35), (-45, 80), (-22, 68)),
    "knee": ((0, 150), (-15, 15), (-6, 6)),
    "ankle": ((-35, 50), (-24, 24), (-18, 18)),
    "foot": ((-45, 10), (-4, 4), (-4, 4)),
    "spine1": ((-18, 36), (-14, 14), (-12, 12)),
    "spine2": ((-16, 26), (-14, 14), (-12, 12)),
    "spine3": ((-16, 28), (-16, 16), (-12, 12)),
    "neck": ((-34, 30), (-38, 38), (-22, 22)),
    "head": ((-34, 30), (-38, 38), (-20, 20)),
    "collar": ((-10, 10), (-26, 16), (-12, 34)),
    "shoulder": ((-105, 105), (-128, 68), (-105, 92)),
    "elbow": ((-45, 55), (-150, 0), (-6, 6)),
    "wrist": ((-30, 30), (-25, 25), (-65, 60)),
    "hand": ((-6, 6), (-10, 10), (-45, 10)),
}
_ARM_JOINTS = ("collar", "shoulder", "elbow", "wrist", "hand")
# Standard deviation in degrees about x, y, z, of what is added to the mix of key poses.
_SPREAD = {
    "hip": (8, 9, 8), "knee": (9, 2, 1), "ankle": (8, 8, 4), "foot": (4, 1, 1), "spine1": (8, 5, 4),
    "spine2": (6, 4, 4), "spine3": (6, 4, 4), "neck": (11, 11, 6), "head": (12, 12, 7), "collar": (2, 6, 7),
    "shoulder": (10, 12, 11), "elbow": (12, 14, 1), "wrist": (9, 7, 14), "hand": (2, 3, 10),
}  # fmt: skip
# Joints that move together share half the variance.
_TOGETHER = (("spine1", "spine2", "spine3"), ("neck", "head"), ("left_hip", "right_hip"), ("left_knee", "right_knee"))
_BEND = {"knee": 10, "elbow": 16}  # degrees that these are bent more than in key poses, on average
_TILT_SPREAD = np.radians((6, 0, 4))  # of the pelvis, about x, y, z; the turn about y belongs to the world
_WILD = (0.08, 3.0)  # how often the pelvis tilts much more, and the factor
_UPRIGHT = 0.6  # cosine of the pelvis's tilt below which arms keep the key pose, as they may carry the body
_LEGS = [[SMPL24.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle")] for side in ("left", "right")]
_ARMS = [[SMPL24.index(f"{side}_{joint}") for joint in _ARM_JOINTS] for side in ("left", "right")]
_MIRROR = flip_permutation(SMPL24)
_IN_MIRROR = np.array([1, -1, -1, 1])  # a quaternion seen in a mirror at the x = 0 plane


def limits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The range of each joint but the root.

    Returns:
        Lowest and highest angle about x, y, z, each (23, 3) rad, and each joint's bone, the axis of its twist, (23,) 0
        for x or 1 for y; see `quaternions.swing_twist`.
    """
    low, high, bone = np.empty((23, 3)), np.empty((23, 3)), np.empty(23, int)
    for row, joint in enumerate(SMPL24[1:]):
        side, _, name = joint.rpartition("_")
        bounds = np.radians(_LIMITS[name])
        if side == "right":
            bounds[1:] = -bounds[1:, ::-1]
        low[row], high[row], bone[row] = bounds[:, 0], bounds[:, 1], 0 if name in _ARM_JOINTS else 1
    return low, high, bone


class PosePrior:
    """Draws poses: two key poses mixed for the legs and trunk, often others for the arms, noise, limits."""

    def __init__(self) -> None:
        keys, self.weights, self.air = key_poses()
        self.keys = quaternions.from_rotvec(keys)  # (P, 24, 4)
        self.upright = quaternions.to_matrix(self.keys[:, 0])[:, 1, 1] > _UPRIGHT
        self.low, self.high, self.bone = limits()
        names = [joint.removeprefix("left_").removeprefix("right_") for joint in SMPL24[1:]]
        self.spread = np.radians([_SPREAD[name] for name in names])  # (23, 3)
        self.groups = [[SMPL24.index(joint) - 1 for joint in group] for group in _TOGETHER]

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw poses.

        Args:
            rng: Where randomness comes from.
            count: N.

        Returns:
            Rotation matrices (N, 24, 3, 3), float64, and whether the person is off the ground, (N,) bool.
        """
        pose, main = self._mix(rng, count)
        pose = mirrored(pose, rng.random(count) < 0.5)
        pose = quaternions.multiply(pose, quaternions.from_rotvec(_bend(rng, count)))
        pose = quaternions.multiply(pose, quaternions.from_rotvec(self.noise(rng, count)))
        _level_feet(pose)
        return quaternions.to_matrix(self.clamp(pose)), self.air[main]

    def clamp(self, pose: np.ndarray, beyond: np.ndarray | None = None) -> np.ndarray:
        """Bring every joint but the root into its limits.

        Args:
            pose: Quaternions (N, 24, 4).
            beyond: (N, 24, 4), poses whose joints may be out of their limits; `pose` may then be as far out as they.

        Returns:
            (N, 24, 4).
        """
        parts, low, high = quaternions.swing_twist(pose[:, 1:], self.bone), self.low, self.high
        if beyond is not None:
            out = quaternions.swing_twist(beyond[:, 1:], self.bone)
            low, high = np.minimum(low, out), np.maximum(high, out)
        inside = quaternions.from_swing_twist(np.clip(parts, low, high), self.bone)
        return np.concatenate([pose[:, :1], inside], axis=1)

    def _mix(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Poses (N, 24, 4) between key poses, and the key pose (N,) that each is nearest to."""
        main, other, *for_arms = rng.choice(len(self.keys), (6, count), p=self.weights)
        share = rng.beta(0.4, 1.6, (2, count, 1)) * 0.7
        pose = quaternions.between(self.keys[main], self.keys[other], share[0])
        for k, arm in enumerate(_ARMS):
            first, second = for_arms[2 * k], for_arms[2 * k + 1]
            swap = (rng.random(count) < 0.3) & self.upright[main] & self.upright[first]
            start, end = (self.keys[key[swap]][:, arm] for key in (first, second))
            pose[np.ix_(swap, arm)] = quaternions.between(start, end, share[1, swap])
        return pose, main

    def noise(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """What turns each joint a little, axis-angle (N, 24, 3) rad.

        It is independent per joint but for those that move together; some people are calm, some lively.
        """
        noise = rng.normal(size=(count, 23, 3))
        shared = rng.normal(size=(count, len(self.groups), 3))
        for k, group in enumerate(self.groups):
            noise[:, group] = (noise[:, group] + shared[:, k : k + 1]) * np.sqrt(0.5)
        noise *= self.spread * np.exp(rng.normal(-0.1, 0.4, (count, 1, 1)))
        tilt = rng.normal(size=(count, 1, 3)) * _TILT_SPREAD
        tilt *= np.where(rng.random((count, 1, 1)) < _WILD[0], _WILD[1], 1)
        return np.concatenate([tilt, noise], axis=1)


def _bend(rng: np.random.Generator, count: int) -> np.ndarray:
    """What bends knees and elbows, axis-angle (N, 24, 3) rad: real people seldom stretch them all the way."""
    turn = np.zeros((count, 24, 3))
    knees, elbows = (np.radians(_BEND[name]) * rng.exponential(size=(count, 2)) for name in ("knee", "elbow"))
    for k, (side, hinge) in enumerate((("left", -1), ("right", 1))):
        turn[:, SMPL24.index(f"{side}_knee"), 0] = knees[:, k]
        turn[:, SMPL24.index(f"{side}_hip"), 0] = -knees[:, k] / 2  # so that the foot stays below
        turn[:, SMPL24.index(f"{side}_elbow"), 1] = hinge * elbows[:, k]
    return turn


def mirrored(pose: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Poses (N, 24, 4) of which those that `which` (N,) bool says are as a mirror at the x = 0 plane shows them."""
    return np.where(which[:, None, None], pose[:, _MIRROR] * _IN_MIRROR, pose)


def _level_feet(pose: np.ndarray) -> None:
    """Turn the ankles of feet that stand on the ground so that the soles are level; in place, (N, 24, 4)."""
    shins, downs = [], []
    for hip, knee, _ in _LEGS:
        thigh = quaternions.multiply(pose[:, 0], pose[:, hip])
        shin = quaternions.multiply(thigh, pose[:, knee])
        shins.append(shin)
        downs.append([quaternions.to_matrix(bone)[:, 1, 1] for bone in (thigh, shin)])
    reach = [np.add(*down) for down in downs]  # how far down the ankle is, in lengths of half a leg
    lowest = np.maximum(*reach)
    for (_, _, ankle), shin, down, end in zip(_LEGS, shins, downs, reach, strict=True):
        foot = quaternions.multiply(shin, pose[:, ankle])
        up = quaternions.to_matrix(foot)[:, :, 1]
        # Only a foot that carries the body: as low as the other, below a shin that stands on it.
        weight = np.exp(-(((lowest - end) / 0.15) ** 2)) * np.clip((down[1] - 0.4) / 0.3, 0, 1)
        axis = np.cross(up, (0.0, 1.0, 0.0))
        sine = np.linalg.norm(axis, axis=1)
        turn = axis * (np.arctan2(sine, up[:, 1]) * weight / np.maximum(sine, 1e-9))[:, None]
        level = quaternions.multiply(quaternions.from_rotvec(turn), foot)
        pose[:, ankle] = quaternions.multiply(quaternions.inverse(shin), level)
