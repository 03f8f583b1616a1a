"""Errors of predictions by 85 numbers: what was put in comes out, and the worst do not count."""

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.body.errors import SMPLParameters, error_deviations, expected_deviations, prediction_errors


def test_known_errors_come_out():
    rng = np.random.default_rng(0)
    count, size, focal_length = 5, np.full(5, 400.0), np.full(5, 1100.0)
    rotmats = Rotation.from_rotvec(rng.standard_normal((count * 24, 3))).as_matrix().reshape(count, 24, 3, 3)
    predicted = SMPLParameters(rotmats, rng.standard_normal((count, 10)), np.tile([0.3, -0.2, 5.0], (count, 1)))
    wanted = 0.1 * rng.standard_normal((count, 85))
    turns = Rotation.from_rotvec(wanted[:, :72].reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)
    depth = 5 * np.exp(wanted[:, 84])
    across = (np.array([0.3, -0.2]) / 5 * 1100 / 400 + wanted[:, 82:84]) * 400 / 1100 * depth[:, None]
    actual = SMPLParameters(rotmats @ turns, predicted.betas + wanted[:, 72:82], np.c_[across, depth])
    np.testing.assert_allclose(prediction_errors(predicted, actual, size, focal_length), wanted, atol=1e-6)


def test_deviations_are_those_of_the_errors_without_the_worst():
    rng = np.random.default_rng(2)
    truth = expected_deviations()
    errors = truth * rng.standard_normal((20_000, 85))
    errors[:1000] *= 50
    np.testing.assert_allclose(error_deviations(errors), truth, rtol=0.1)


def test_who_has_measured_need_not_look_up():
    measured = np.linspace(0.1, 1, 85)
    np.testing.assert_array_equal(expected_deviations(tuple(measured)), measured)
    assert expected_deviations().shape == (85,) and np.all(expected_deviations() > 0)
