"""What is measured of a network is how far it is off."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.body.errors import expected_deviations
from cliff_ms.body.files import load_body
from cliff_ms.config import ModelConfig
from cliff_ms.synthetic.world import World
from cliff_ms.training import errors
from cliff_ms.training.errors import measure_deviations, measure_weights

PEOPLE, BATCH = 1000, 32
MODEL = ModelConfig(encoder="keypoints", joint_set="openpose25")


@pytest.fixture(scope="module")
def body():
    return load_body()


def network_that_is_off(body, deviations):
    """Knows everybody that it is asked about, one after the other, and is off by draws with these deviations."""
    rng, world = np.random.default_rng(0), World(body)
    halves = [world.sample(np.random.default_rng((*errors._KEY, k)), PEOPLE // 2) for k in (0, 1)]
    asked = [0, 0]  # half, person

    def run(inputs, center, size, img_hw, focal_length):
        people, first = halves[asked[0]], asked[1]
        rows = np.minimum(np.arange(first, first + BATCH), PEOPLE // 2 - 1)
        asked[:] = [asked[0], first + BATCH] if first + BATCH < PEOPLE // 2 else [asked[0] + 1, 0]
        np.testing.assert_array_equal(focal_length, people.focal_length[rows])
        off = rng.standard_normal((BATCH, 85)) * deviations
        turns = Rotation.from_rotvec(off[:, :72].reshape(-1, 3)).inv().as_matrix().reshape(BATCH, 24, 3, 3)
        translation = people.translation[rows] * np.exp(-off[:, 84:])
        translation[:, :2] -= off[:, 82:84] * translation[:, 2:] * (size / focal_length)[:, None]
        return people.rotmats[rows] @ turns, people.betas[rows] - off[:, 72:82], None, translation

    return run


def test_known_errors_are_measured(body):
    deviations = expected_deviations()
    measured = measure_deviations(network_that_is_off(body, deviations), BATCH, MODEL, body, PEOPLE)
    np.testing.assert_allclose(measured, deviations, rtol=0.15)
    assert all(value == float(f"{value:.4g}") for value in measured)


def test_whoever_puts_people_behind_the_camera_has_no_small_errors(body, caplog):
    def run(inputs, *_):
        count = len(inputs)
        return np.tile(np.eye(3), (count, 24, 1, 1)), np.zeros((count, 10)), None, np.tile([0, 0, -3.0], (count, 1))

    assert measure_deviations(run, BATCH, MODEL, body, 200) == ()
    assert "behind the camera" in caplog.text


@pytest.mark.usefixtures("graph_mode")
def test_the_bundled_model_states_what_is_measured(body):
    from cliff_ms.weights.checkpoint import load_weights
    from cliff_ms.zoo import BUNDLED_MODEL

    weights = load_weights(BUNDLED_MODEL)
    measured = measure_weights(weights.arrays, weights.meaning.model, body)
    np.testing.assert_allclose(measured, weights.meaning.error_deviations, rtol=0.02)
