"""The loss terms against NumPy in float64 written from the paper; masks; cameras that see nobody."""

import numpy as np
import pytest

import mindspore as ms
from mindspore import Tensor, nn

from cliff_ms.training import losses
from tests.toys.training import full_points, people, training_body

B = 6
RNG = np.random.default_rng(3)
BATCH, CAM = people(training_body(), B)
INPUTS, CENTER, SIZE, IMG_HW, FOCAL, KEYPOINTS2D, KEYPOINTS3D, ROTMATS, BETAS, _ = BATCH
JOINTS = KEYPOINTS3D[..., :3]
HAS = np.array([1, 0, 1, 1, 0, 1], np.float32)
NOISY = {
    "points": KEYPOINTS2D[..., :2] + RNG.normal(0, 20, (B, 24, 2)).astype(np.float32),
    "joints": JOINTS + RNG.normal(0, 0.1, (B, 24, 3)).astype(np.float32) + 3,
    "rotmats": ROTMATS + RNG.normal(0, 0.1, ROTMATS.shape).astype(np.float32),
    "betas": BETAS + RNG.normal(0, 1, BETAS.shape).astype(np.float32),
}


class Graph(nn.Cell):
    """A function of tensors as a graph."""

    def __init__(self, function, *constants):
        super().__init__()
        self.function = function
        self.constants = constants

    def construct(self, *inputs):
        return self.function(*inputs, *self.constants)


def run(function, *arrays, constants=()):
    return Graph(function, *constants)(*map(Tensor, arrays)).asnumpy()


def gradient(function, *arrays, constants=()):
    return ms.grad(Graph(function, *constants), 0)(*map(Tensor, arrays)).asnumpy()


def unlabel(labels, confidence):
    """Take the confidence away from the samples that HAS does not mark."""
    out = labels.copy()
    out[..., -1] = confidence * HAS[:, None]
    return out


WEIGHT = RNG.uniform(0.2, 1, (B, 24)).astype(np.float32)
WEIGHT[0, 5:] = 0
LABELS2D = unlabel(KEYPOINTS2D, WEIGHT)
WEIGHT3D = np.maximum(WEIGHT, 0.1)
LABELS3D = unlabel(KEYPOINTS3D, WEIGHT3D)


def reference_keypoints2d(pred, target, size):
    half = np.stack([0.75 * size, size], -1)[:, None] / 2
    error = target[..., 2:] * ((pred - target[..., :2]) / half) ** 2
    return error.mean((1, 2))[HAS > 0].mean()


def reference_keypoints3d(pred, target):
    def at_hips(joints):
        return joints - joints[:, [2, 3]].mean(1, keepdims=True)

    error = target[..., 3:] * (at_hips(pred) - at_hips(target[..., :3])) ** 2
    return error.mean((1, 2))[HAS > 0].mean()


TERMS = {
    "keypoints2d": (losses.keypoints2d_loss, (NOISY["points"], LABELS2D, SIZE), (0.75,), reference_keypoints2d),
    "keypoints3d": (losses.keypoints3d_loss, (NOISY["joints"], LABELS3D), (), reference_keypoints3d),
    "pose": (
        losses.pose_loss,
        (NOISY["rotmats"], ROTMATS, HAS),
        (),
        lambda a, b, _: np.mean((a - b)[HAS > 0] ** 2),
    ),
    "betas": (losses.betas_loss, (NOISY["betas"], BETAS, HAS), (), lambda a, b, _: np.mean((a - b)[HAS > 0] ** 2)),
    "vertices": (
        losses.vertices_loss,
        (NOISY["joints"], JOINTS, HAS),
        (),
        lambda a, b, _: np.mean(np.abs(a - b)[HAS > 0]),
    ),
}


@pytest.mark.parametrize("name", TERMS)
def test_value_and_masks(graph_mode, name):
    function, arrays, constants, reference = TERMS[name]
    expected = reference(*(a.astype(np.float64) for a in arrays))
    np.testing.assert_allclose(run(function, *arrays, constants=constants), expected, rtol=2e-6)
    grad = gradient(function, *arrays, constants=constants)
    assert np.all(grad[HAS == 0] == 0) and np.all(np.abs(grad[HAS > 0]).reshape(4, -1).max(1) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", TERMS)
def test_zero_at_the_truth_and_without_labels(graph_mode, name):
    function, arrays, constants, _ = TERMS[name]
    truth = arrays[1][..., : arrays[0].shape[-1]]
    assert run(function, truth, *arrays[1:], constants=constants) <= 1e-12
    empty = [np.zeros_like(a) for a in arrays[1:]]
    if name == "keypoints2d":
        empty[1] = SIZE
    assert run(function, arrays[0], *empty, constants=constants) == 0
    assert np.all(gradient(function, arrays[0], *empty, constants=constants) == 0)


def test_3d_without_both_hips_is_left_out(graph_mode):
    labels = KEYPOINTS3D.copy()
    labels[1:, 3, 3] = 0
    grad = gradient(losses.keypoints3d_loss, NOISY["joints"], labels)
    assert np.abs(grad[0]).max() > 0 and np.all(grad[1:] == 0)


def test_projection_in_the_full_image(graph_mode):
    points = run(losses.project_full, JOINTS, CAM, CENTER, SIZE, IMG_HW, FOCAL)
    expected = full_points(*(a.astype(np.float64) for a in (JOINTS, CAM, CENTER, SIZE, IMG_HW, FOCAL)))
    np.testing.assert_allclose(points, expected, atol=1e-3)


def test_projection_in_the_crop(graph_mode):
    points = run(losses.project_crop, JOINTS, CAM, CENTER, SIZE, constants=(256,))
    joints, cam, size = JOINTS.astype(np.float64), CAM.astype(np.float64), SIZE.astype(np.float64)
    translation = np.c_[cam[:, 1:], 2 * 5000 / (256 * cam[:, 0])]  # Eq. (1)
    moved = joints + translation[:, None]
    in_crop = 5000 * moved[..., :2] / moved[..., 2:]  # Eq. (4), px of the resized crop from its centre
    np.testing.assert_allclose(points, in_crop * size[:, None, None] / 256 + CENTER[:, None], atol=2e-3)


def test_camera_regulariser(graph_mode):
    cam = np.array([[0.9, 5, 5], [0, 0, 0], [-0.5, 0, 0]], np.float32)
    expected = np.mean(np.exp(-10 * cam[:, 0].astype(np.float64)) ** 2)
    np.testing.assert_allclose(run(losses.camera_loss, cam), expected, rtol=1e-5)


SCALES = np.array([0.0, 1e-12, -1e-3, -0.7, -50, 200], np.float32)  # the last one stands inside the person


def test_cameras_that_see_nobody_have_finite_gradients_that_lead_back(graph_mode):
    cam = CAM.copy()
    cam[:, 0] = SCALES

    def loss(cam, joints, center, size, img_hw, focal_length, labels):
        full = losses.project_full(joints, cam, center, size, img_hw, focal_length)
        crop = losses.project_crop(joints, cam, center, size, 256)
        return losses.keypoints2d_loss(full, labels, size, 0.75) + losses.keypoints2d_loss(crop, labels, size, 0.75)

    arrays = (cam, JOINTS, CENTER, SIZE, IMG_HW, FOCAL, KEYPOINTS2D)
    assert np.isfinite(run(loss, *arrays))
    grad = gradient(loss, *arrays)
    assert np.isfinite(grad).all() and np.abs(grad).max() < 1e8
    assert np.all(grad[:5, 0] < 0)  # descending makes the scale larger
    cam[:, 0] = SCALES
    camera = gradient(losses.camera_loss, cam)
    assert np.isfinite(camera).all() and np.all(camera[:5, 0] < 0)
