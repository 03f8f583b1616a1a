"""Poses that people were recorded in, from the tables of `scripts/build_poses.py`, and their mix with drawn ones.

Rotations are as in `poses`: relative to the parent joint, the root's to an upright body that faces +z with y up.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from cliff_ms import zoo
from cliff_ms.io.files import read_npz, require_file
from cliff_ms.synthetic import quaternions
from cliff_ms.synthetic.poses import PosePrior, mirrored

TABLES = ("cmu.npz", "free.npz")
_JITTER = 0.5  # of the prior's noise


class Poses(Protocol):
    """Whatever draws poses."""

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rotation matrices (N, 24, 3, 3), and whether the person is off the ground, (N,) bool."""


class RealPoses:
    """Draws recorded poses with some noise, half of them mirrored.

    Each subject counts by the root of how many poses there are of it, so a few long dances do not outweigh the rest.

    Args:
        test: Draw those of the subjects and actions kept for tests instead of those to train on.
        folder: Where the tables lie.

    Raises:
        InputError: If a table is missing or damaged.
    """

    def __init__(self, test: bool = False, folder: Path = zoo.POSES) -> None:
        tables = [read_npz(require_file(folder / name, "Table of poses"), "Table of poses") for name in TABLES]
        pose, subject, held_out = (np.concatenate([t[key] for t in tables]) for key in ("pose", "subject", "test"))
        chosen = held_out == test
        self.poses = quaternions.from_rotvec(pose[chosen].astype(np.float64))  # (P, 24, 4)
        _, which, sizes = np.unique(subject[chosen], return_inverse=True, return_counts=True)
        weights = 1 / np.sqrt(sizes[which])
        self.weights = weights / weights.sum()
        self.prior = PosePrior()

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw poses.

        Args:
            rng: Where randomness comes from.
            count: N.

        Returns:
            Rotation matrices (N, 24, 3, 3), float64, and whether the person is off the ground, (N,) bool: false for
            all, as the tables do not tell.
        """
        rows = rng.choice(len(self.poses), count, p=self.weights)
        pose = mirrored(self.poses[rows], rng.random(count) < 0.5)
        noise = quaternions.from_rotvec(self.prior.noise(rng, count) * _JITTER)
        noisy = self.prior.clamp(quaternions.multiply(pose, noise), beyond=pose)
        return quaternions.to_matrix(noisy), np.zeros(count, bool)


class MixedPoses:
    """Draws each pose from the one or the other.

    Args:
        drawn: Draws the rest.
        real: Draws a share of the poses.
        share: Which share, 0 to 1.
    """

    def __init__(self, drawn: Poses, real: Poses, share: float) -> None:
        self.drawn, self.real, self.share = drawn, real, share

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """As `RealPoses.sample`; `air` (N,) is known of drawn poses only."""
        chosen = rng.random(count) < self.share
        rotmats, air = np.empty((count, 24, 3, 3)), np.empty(count, bool)
        for rows, poses in ((chosen, self.real), (~chosen, self.drawn)):
            rotmats[rows], air[rows] = poses.sample(rng, int(rows.sum()))
        return rotmats, air
