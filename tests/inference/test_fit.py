"""The fit must find known bodies again, stay where it knows nothing, and be led astray by no single keypoint."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.body.errors import expected_deviations
from cliff_ms.body.files import load_body
from cliff_ms.inference.fit import Fit
from cliff_ms.keypoints import COCO17, SMPL24, SMPL45, index_map
from tests.toys.reference import reference_smpl

COUNT = 12
COCO = index_map(SMPL45, COCO17)
IMG_HW, FOCAL, BOX = (720, 1280), 1100.0, 400.0
KNEES_ELBOWS = index_map(SMPL24, ("left_knee", "right_knee", "left_elbow", "right_elbow"))


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def fit(body):
    return Fit(body, "coco17", expected_deviations())


@pytest.fixture(scope="module")
def people(body):
    """True bodies with their exact keypoints, and predictions that are off by draws from the prior."""
    rng = np.random.default_rng(0)
    turns = 0.25 * rng.standard_normal((COUNT, 24, 3))
    rotmats = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(COUNT, 24, 3, 3)
    rotmats[:, 0] = np.diag([1.0, -1, -1]) @ rotmats[:, 0]
    betas = 0.7 * rng.standard_normal((COUNT, 10))
    translation = np.c_[rng.uniform(-1, 1, (COUNT, 2)), rng.uniform(4, 6, COUNT)]
    keypoints = np.concatenate([projected(body, rotmats, betas, translation), np.ones((COUNT, 17, 1))], -1)
    off = rng.standard_normal((COUNT, 85)) * expected_deviations()
    turned = Rotation.from_rotvec(off[:, :72].reshape(-1, 3)).as_matrix().reshape(COUNT, 24, 3, 3)
    depth = translation[:, 2:] * np.exp(off[:, 84:])
    across = (translation[:, :2] / translation[:, 2:] + off[:, 82:84] * BOX / FOCAL) * depth
    predicted = (rotmats @ turned.swapaxes(-1, -2), betas - 0.5 * off[:, 72:82], np.concatenate([across, depth], 1))
    return (rotmats, betas, translation), keypoints, tuple(a.astype(np.float32) for a in predicted)


def projected(body, rotmats, betas, translation):
    """COCO's joints in px by the float64 reference and Eq. (8)."""
    _, joints = reference_smpl(body, betas.astype(float), rotmats.astype(float))
    moved = joints[:, COCO] + translation[:, None]
    return moved[..., :2] / moved[..., 2:] * FOCAL + np.array(IMG_HW[::-1]) / 2


def outcome(fit, predicted, keypoints):
    count = len(keypoints)
    img_hw = np.tile(np.float32(IMG_HW), (count, 1))
    return fit(*predicted, keypoints, np.full(count, BOX, np.float32), img_hw, np.full(count, FOCAL, np.float32))


def run(fit, predicted, keypoints):
    return outcome(fit, predicted, keypoints).bodies


def sigma_of(fit, predicted, keypoints):
    return outcome(fit, predicted, keypoints).sigma


def from_pelvis(body, bodies):
    joints = reference_smpl(body, bodies[1].astype(float), bodies[0].astype(float))[1][:, :24]
    return joints - joints[:, :1]


def test_exact_keypoints_bring_the_body_back(body, fit, people):
    true, keypoints, predicted = people
    fitted = run(fit, predicted, keypoints)
    before, after = (
        np.linalg.norm(projected(body, *bodies) - keypoints[..., :2], axis=-1) for bodies in (predicted, fitted)
    )
    assert np.median(after) < 0.1 * np.median(before) and np.median(after) < 0.01 * BOX
    errors = [
        np.linalg.norm(from_pelvis(body, bodies) - from_pelvis(body, true), axis=-1) for bodies in (predicted, fitted)
    ]
    assert errors[1].mean() < 0.75 * errors[0].mean()
    np.testing.assert_allclose(
        fitted.rotmats @ fitted.rotmats.swapaxes(-1, -2), np.tile(np.eye(3), (COUNT, 24, 1, 1)), atol=1e-5
    )


def test_what_is_not_seen_is_not_read(fit, people):
    _, keypoints, predicted = people
    nothing = np.full_like(keypoints, np.nan)
    nothing[..., 2] = 0
    for array, kept in zip(predicted, run(fit, predicted, nothing), strict=True):
        np.testing.assert_array_equal(array, kept)  # bit for bit
    half = keypoints.copy()
    half[:, 11:, 2] = 0
    junk = half.copy()
    junk[:, 11:, :2] = np.nan
    for first, second in zip(run(fit, predicted, half), run(fit, predicted, junk), strict=True):
        np.testing.assert_array_equal(first, second)
        assert np.isfinite(first).all()


def test_one_keypoint_far_off_hardly_matters(body, fit, people):
    true, keypoints, predicted = people
    wrong = keypoints.copy()
    wrong[:, 9, :2] += 10_000
    errors = [
        np.linalg.norm(from_pelvis(body, bodies) - from_pelvis(body, true), axis=-1).mean()
        for bodies in (predicted, run(fit, predicted, wrong))
    ]
    assert errors[1] < 0.9 * errors[0]


def test_people_do_not_depend_on_one_another(fit, people):
    _, keypoints, predicted = people
    together = run(fit, predicted, keypoints)
    for k in (0, 5):
        alone = run(fit, tuple(a[k : k + 1] for a in predicted), keypoints[k : k + 1])
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], all_of_them[k], atol=1e-5)
    nobody = run(fit, tuple(a[:0] for a in predicted), keypoints[:0])
    assert [len(array) for array in nobody] == [0, 0, 0]


def test_noise_bends_nobody_out_of_shape(fit, people):
    """Keypoints with 3 % of the box of noise: small betas, turns that stay near the prediction's."""
    _, keypoints, predicted = people
    rng = np.random.default_rng(1)
    noisy = keypoints + np.concatenate([0.03 * BOX * rng.standard_normal((COUNT, 17, 2)), np.zeros((COUNT, 17, 1))], -1)
    fitted = run(fit, predicted, noisy)
    assert np.abs(fitted.betas).max() < 4
    turned = Rotation.from_matrix((predicted[0].swapaxes(-1, -2) @ fitted.rotmats).reshape(-1, 3, 3)).magnitude()
    assert np.degrees(turned.reshape(COUNT, 24)[:, KNEES_ELBOWS]).max() < 60


def test_whoever_stands_behind_the_camera_is_left_alone(fit, people):
    _, keypoints, predicted = people
    behind = (predicted[0], predicted[1], predicted[2] * np.float32([1, 1, -1]))
    for array, kept in zip(behind, run(fit, behind, keypoints), strict=True):
        np.testing.assert_array_equal(array, kept)


def test_sigma_says_how_far_off_the_keypoints_are(fit, people):
    """As a share of the crop's height: in the right order, and near the noise that was put in."""
    _, keypoints, predicted = people
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((COUNT, 17, 2))
    medians = []
    for deviation in (0, 0.01, 0.02):
        noisy = keypoints + np.concatenate([deviation * BOX * noise, np.zeros((COUNT, 17, 1))], -1)
        medians.append(np.median(sigma_of(fit, predicted, noisy)))
    assert medians[0] < 0.004 and medians == sorted(medians)
    np.testing.assert_allclose(medians[1:], [0.01, 0.02], rtol=0.3)
    nothing = keypoints.copy()
    nothing[::2, :, 2] = 0
    np.testing.assert_array_equal(np.isnan(sigma_of(fit, predicted, nothing)), np.arange(COUNT) % 2 == 0)


def test_swapped_legs_do_no_harm_beyond_them(body, fit, people):
    """Left and right of the legs mixed up in the keypoints: the fit stays bounded, and its noise level tells."""
    true, keypoints, predicted = people
    names = [name.replace("left", "x").replace("right", "left").replace("x", "right") for name in COCO17]
    order = [names.index(n) if any(leg in n for leg in ("hip", "knee", "ankle")) else k for k, n in enumerate(COCO17)]
    swapped = keypoints[:, order]
    fitted = run(fit, predicted, swapped)
    legs = [k for k, name in enumerate(SMPL24) if any(part in name for part in ("hip", "knee", "ankle", "foot"))]
    others = [k for k in range(1, 24) if k not in legs]
    before, after = (
        np.linalg.norm(from_pelvis(body, bodies) - from_pelvis(body, true), axis=-1) for bodies in (predicted, fitted)
    )
    assert after[:, legs].mean() < 1.25 * before[:, legs].mean()
    assert after[:, others].mean() < 0.8 * before[:, others].mean()
    assert np.abs(fitted.betas).max() < 4
    assert np.median(sigma_of(fit, predicted, swapped)) > 0.03 > 10 * np.median(sigma_of(fit, predicted, keypoints))
