"""Keypoints with derivatives against the float64 reference of SMPL and its finite differences."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.body.kinematics import Kinematics, cross_matrix
from cliff_ms.body.markers import MARKERS
from cliff_ms.body.skinning import Skinner, global_rotations
from cliff_ms.keypoints import COCO17, LANDMARKS, OPENPOSE25, SMPL24, SMPL45, index_map
from tests.toys.body import toy_body
from tests.toys.reference import reference_smpl


@pytest.fixture(scope="module", params=["toy", "bundled"])
def body(request):
    return toy_body(betas=12) if request.param == "toy" else load_body()


def people(count, seed=0):
    rng = np.random.default_rng(seed)
    rotmats = Rotation.from_rotvec(rng.normal(0, 0.7, (24 * count, 3))).as_matrix()
    return rotmats.reshape(count, 24, 3, 3), rng.standard_normal((count, 10))


@pytest.mark.parametrize("names", [OPENPOSE25, COCO17, SMPL45])
def test_keypoints_are_those_of_the_float64_reference(body, names):
    rotmats, betas = people(3)
    points, jacobian = Kinematics(body, names)(rotmats, betas)
    assert jacobian.shape == (3, len(names), 3, 82)
    for person in range(3):
        _, joints = reference_smpl(body, betas[person], rotmats[person])
        np.testing.assert_allclose(points[person], joints[index_map(SMPL45, names)], atol=1e-12)


def test_jacobian_is_that_of_finite_differences_of_the_reference(body):
    rotmats, betas = (array[0] for array in people(1))
    _, jacobian = Kinematics(body, SMPL45)(rotmats[None], betas[None])

    def keypoints(change):
        turns = Rotation.from_rotvec(change[:72].reshape(24, 3)).as_matrix()
        return reference_smpl(body, betas + change[72:], rotmats @ turns)[1]

    steps = 1e-6 * np.eye(82)
    expected = np.stack([(keypoints(step) - keypoints(-step)) / 2e-6 for step in steps], -1)
    np.testing.assert_allclose(jacobian[0], expected, atol=1e-8 * np.abs(expected).max())


def test_agrees_with_the_skinning_that_makes_training_samples():
    body = load_body()
    rotmats, betas = people(4)
    points, _ = Kinematics(body, OPENPOSE25)(rotmats, betas)
    _, landmarks, _ = Skinner(body)(betas.astype(np.float32), rotmats.astype(np.float32))
    np.testing.assert_allclose(points, landmarks[:, index_map(LANDMARKS, OPENPOSE25)], atol=2e-6)


def test_markers_stand_off_the_joints_along_their_bones():
    body, limbs = load_body(), COCO17[5:]
    rotmats, betas = people(3)
    markers, jacobian = Kinematics(body, COCO17, as_detected=True)(rotmats, betas)
    bones = global_rotations(rotmats, body.parents)
    for k, name in enumerate(limbs):
        side, _, part = name.rpartition("_")
        marker = MARKERS[part]
        joint = SMPL24.index(name)
        bone = SMPL24.index(marker.bone if marker.bone in SMPL24 else f"{side}_{marker.bone}")
        assert bone in (joint, body.parents[joint])
        offset = np.array(marker.offset) / 100 * ((-1, 1, 1) if side == "right" else (1, 1, 1))
        for person in range(3):
            _, joints = reference_smpl(body, betas[person], rotmats[person])
            expected = joints[joint] + bones[person, bone] @ offset
            np.testing.assert_allclose(markers[person, 5 + k], expected, atol=1e-12)
    turn = np.zeros((3, 24, 3))
    turn[:, 3, 1] = 1e-6
    turned = rotmats @ Rotation.from_rotvec(turn.reshape(-1, 3)).as_matrix().reshape(3, 24, 3, 3)
    change = Kinematics(body, COCO17, as_detected=True)(turned, betas)[0] - markers
    np.testing.assert_allclose(1e6 * change, jacobian[..., 3 * 3 + 1], atol=1e-5)


def test_batch_is_its_people_one_by_one(body):
    kinematics = Kinematics(body, COCO17)
    rotmats, betas = people(5)
    whole = kinematics(rotmats, betas)
    for person in range(5):
        row = slice(person, person + 1)
        for one, all_ in zip(kinematics(rotmats[row], betas[row]), whole, strict=True):
            np.testing.assert_allclose(one[0], all_[person], atol=1e-13)


def test_cross_matrix():
    a, b = np.random.default_rng(0).standard_normal((2, 6, 3))
    np.testing.assert_allclose((cross_matrix(a) @ b[..., None])[..., 0], np.cross(a, b))
