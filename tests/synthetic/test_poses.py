"""The prior over poses: rotations against SciPy, limits, and that limbs fold the way they do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cliff_ms.keypoints import SMPL24, flip_permutation
from cliff_ms.synthetic import quaternions
from cliff_ms.synthetic.key_poses import key_poses
from cliff_ms.synthetic.poses import PosePrior, limits

COUNT = 4000


@pytest.fixture(scope="module")
def prior():
    return PosePrior()


@pytest.fixture(scope="module")
def poses(prior):
    return prior.sample(np.random.default_rng(0), COUNT)[0]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_quaternions_equal_scipy(seed):
    rng = np.random.default_rng(seed)
    a, b = Rotation.random(50, rng), Rotation.random(50, rng)
    qa, qb, share = a.as_quat(), b.as_quat(), rng.random(50)
    np.testing.assert_allclose(quaternions.to_matrix(quaternions.multiply(qa, qb)), (a * b).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(quaternions.to_rotvec(-qa), a.as_rotvec(), atol=1e-12)
    np.testing.assert_allclose(quaternions.to_matrix(quaternions.from_rotvec(a.as_rotvec())), a.as_matrix(), atol=1e-12)
    middle = a * Rotation.from_rotvec((a.inv() * b).as_rotvec() * share[:, None])
    np.testing.assert_allclose(quaternions.to_matrix(quaternions.between(qa, qb, share)), middle.as_matrix(), atol=1e-9)
    bone = rng.integers(0, 3, 50)
    parts = quaternions.swing_twist(qa, bone)
    np.testing.assert_allclose(
        quaternions.to_matrix(quaternions.from_swing_twist(parts, bone)), a.as_matrix(), atol=1e-9
    )


def test_no_rotation_stays_exact():
    still = quaternions.from_rotvec(np.zeros((2, 3)))
    np.testing.assert_array_equal(still, [[0, 0, 0, 1]] * 2)
    np.testing.assert_array_equal(quaternions.to_rotvec(still), np.zeros((2, 3)))


def test_limits_are_the_same_in_a_mirror():
    low, high, bone = limits()
    mirror = np.array(flip_permutation(SMPL24)[1:]) - 1
    np.testing.assert_array_equal(bone[mirror], bone)
    np.testing.assert_array_equal(low[mirror, 0], low[:, 0])
    np.testing.assert_array_equal(low[mirror, 1:], -high[:, 1:])
    assert (low < high).all()


def test_limits_hold_for_thousands_of_poses(prior, poses):
    quats = Rotation.from_matrix(poses[:, 1:].reshape(-1, 3, 3)).as_quat().reshape(COUNT, 23, 4)
    parts = quaternions.swing_twist(quats, prior.bone)
    assert (parts >= prior.low - 1e-6).all()
    assert (parts <= prior.high + 1e-6).all()
    clamped = quaternions.to_matrix(prior.clamp(np.concatenate([quats[:, :1], quats], axis=1)))[:, 1:]
    np.testing.assert_allclose(clamped, poses[:, 1:], atol=1e-9)  # nothing left to clamp


def test_knees_and_elbows_fold_one_way(poses):
    """Stated in coordinates, apart from how limits are written: shins fold back, forearms towards the front."""
    for side, outward in (("left", 1), ("right", -1)):
        shin = poses[:, SMPL24.index(f"{side}_knee")] @ (0, -1, 0)
        forearm = poses[:, SMPL24.index(f"{side}_elbow")] @ (outward, 0, 0)
        assert shin[:, 2].max() < 0.01
        assert np.abs(shin[:, 0]).max() < 0.11
        assert forearm[:, 2].min() > -0.01
        assert np.abs(forearm[:, 1]).max() < 0.11
        assert (shin[:, 1] > 0).any()  # some fold by more than a right angle
        assert (forearm[:, 0] * outward < 0).any()


def test_arms_hang_knees_bend_and_some_people_are_upside_down(poses):
    """As recorded poses do: 2 % of those are upside down, elbows are bent by 69 degrees on average and knees by 49."""
    arm = poses[:, SMPL24.index("left_collar")] @ poses[:, SMPL24.index("left_shoulder")] @ (1, 0, 0)
    assert (arm[:, 1] < np.cos(np.radians(170))).mean() > 0.03
    for joint, low, high in (("elbow", 48, 70), ("knee", 40, 55)):
        turns = Rotation.from_matrix(poses[:, SMPL24.index(f"left_{joint}")])
        assert low < np.degrees(turns.magnitude()).mean() < high
    assert 0.01 < (poses[:, 0, 1, 1] < np.cos(np.radians(110))).mean() < 0.03


def test_poses_are_rotations_of_both_sides_alike(poses):
    np.testing.assert_allclose(poses @ poses.transpose(0, 1, 3, 2), np.broadcast_to(np.eye(3), poses.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(poses), 1, atol=1e-9)
    mirror = np.diag([-1.0, 1, 1])
    other = mirror @ poses[:, flip_permutation(SMPL24)] @ mirror
    spread = poses.std(0)
    difference = np.abs(poses.mean(0) - other.mean(0)) / np.maximum(spread, 0.02) * np.sqrt(COUNT / 2)
    assert np.percentile(difference, 99) < 4  # standard errors


def test_key_poses_are_within_what_joints_can_do(prior):
    poses, weights, air = key_poses()
    assert len(poses) == len(weights) == len(air) > 40
    moved = quaternions.multiply(quaternions.inverse(prior.keys), prior.clamp(prior.keys))
    angle = np.degrees(np.linalg.norm(quaternions.to_rotvec(moved), axis=-1))
    assert angle.max() < 25
    assert (angle > 5).mean() < 0.01
