"""How far a keypoint model's predictions are off, on people of the synthetic stream that it never learns from."""

import logging
from collections.abc import Mapping

import numpy as np

from cliff_ms.body.errors import SMPLParameters, error_deviations, prediction_errors
from cliff_ms.body.files import Body
from cliff_ms.config import ModelConfig
from cliff_ms.data.batching import filled_batches
from cliff_ms.data.crop import normalize_keypoints
from cliff_ms.models.cliff import build_model
from cliff_ms.synthetic.observation import Observer
from cliff_ms.synthetic.world import World
from cliff_ms.weights.checkpoint import load_into
from cliff_ms.weights.networks import Network, mindspore_network

PEOPLE = 6000  # that errors are measured on
_OBSERVATIONS = ("clean", "detector")  # half of them with exact keypoints, half as a detector sees them
_KEY = (0, 2)  # of the random numbers: streams have (seed, 0) and (seed, 1), see `KeypointStream`
_BATCH = 250
_NEAREST = 0.1  # m; predictions nearer to the camera, or behind it, are no small errors
_DIGITS = 4

log = logging.getLogger("cliff_ms")


def measure_deviations(
    network: Network, batch_size: int, model: ModelConfig, body: Body, people: int = PEOPLE
) -> tuple[float, ...]:
    """Measure what `WeightsMeta.error_deviations` holds.

    The cameras' focal lengths are known.

    Args:
        network: A network that reads keypoints.
        batch_size: Its own.
        model: What it reads.
        body: The body that it predicts.
        people: How many people to measure on.

    Returns:
        85, to four digits; none, with a warning, where a tenth of the predictions or more are not in front of the
        camera, as of a network that has not learned anything.
    """
    world, errors = World(body), []
    for number, observation in enumerate(_OBSERVATIONS):
        rng = np.random.default_rng((*_KEY, number))
        actual = world.sample(rng, people // len(_OBSERVATIONS))
        keypoints, center, size = Observer(model.joint_set, observation)(rng, actual)
        inputs = normalize_keypoints(keypoints, center, size)
        inputs[keypoints[..., 2] == 0] = 0
        arrays = [np.asarray(a, np.float32) for a in (inputs, center, size, actual.img_hw, actual.focal_length)]
        parts = []
        for rows, kept in filled_batches(len(size), batch_size):
            rotmats, betas, _, translation = network(*(array[rows] for array in arrays))
            parts.append([array[:kept] for array in (rotmats, betas, translation)])
        predicted = [np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True)]
        finite = [np.isfinite(array.reshape(len(array), -1)).all(1) for array in predicted]
        good = (predicted[2][:, 2] > _NEAREST) & np.all(finite, 0)
        if good.mean() < 0.9:
            log.warning("errors of these weights not measured: they put people behind the camera, or nowhere")
            return ()
        bodies, true = (
            SMPLParameters(*(array[good].astype(np.float64) for array in parameters))
            for parameters in (predicted, (actual.rotmats, actual.betas, actual.translation))
        )
        errors.append(prediction_errors(bodies, true, size[good], actual.focal_length[good]))
    return tuple(float(f"{value:.{_DIGITS}g}") for value in error_deviations(np.concatenate(errors)))


def measure_weights(arrays: Mapping[str, np.ndarray], model: ModelConfig, body: Body) -> tuple[float, ...]:
    """The same of weights that MindSpore has at hand.

    Args:
        arrays: Parameter name -> float32 array, of a whole network.
        model: The network, one that reads keypoints.
        body: The body that it predicts.

    Returns:
        See `measure_deviations`.
    """
    cliff = build_model(model)
    load_into(cliff, arrays, "the network in training")
    return measure_deviations(mindspore_network(cliff, model), _BATCH, model, body)
