"""Metrics: numbers computed by hand, and what they must not notice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from cliff_ms.metrics import acceleration_error, align_similarity, auc, mpjpe, pa_mpjpe, pck, pve, rotation_error

SEEDS = st.integers(0, 2**32 - 1)


def test_by_hand():
    gt = np.zeros((2, 4, 3))
    pred = gt.copy()
    pred[0, 0] = [0.003, 0.004, 0]
    pred[1] += [0, 0, 0.01]
    np.testing.assert_allclose(mpjpe(pred, gt), [1.25, 10])
    np.testing.assert_allclose(pve(pred, gt), [1.25, 10])
    with pytest.raises(ValueError, match=r"\(N, J, 3\)"):
        mpjpe(pred[:, :3], gt)


def test_acceleration_by_hand():
    time = np.arange(5)[:, None, None]
    gt = np.random.default_rng(0).standard_normal((1, 2, 3)) + 0.1 * time * [1, 2, 3]
    np.testing.assert_allclose(acceleration_error(gt + 0.3 * time + 1, gt), np.zeros(3), atol=1e-9)  # as fast at most
    pred = gt + time**2 * np.array([[[0.003, 0.004, 0], [0, 0, 0]]])
    np.testing.assert_allclose(acceleration_error(pred, gt), [5, 5, 5])  # 10 and 0 mm: mean of the joints
    pred = gt.copy()
    pred[2] += [0, 0.001, 0]  # one frame is off
    np.testing.assert_allclose(acceleration_error(pred, gt), [1, 2, 1])
    with pytest.raises(ValueError, match=r"\(N, J, 3\)"):
        acceleration_error(pred[:4], gt)


@settings(deadline=None, max_examples=50)
@given(SEEDS, st.integers(3, 20))
def test_pa_ignores_similarities_and_nothing_else(seed, joints):
    rng = np.random.default_rng(seed)
    gt = rng.standard_normal((5, joints, 3))
    turn = Rotation.random(5, random_state=seed).as_matrix()
    moved = rng.uniform(0.3, 3, (5, 1, 1)) * gt @ turn + rng.standard_normal((5, 1, 3))
    assert np.all(pa_mpjpe(moved, gt) < 1e-6)
    mirrored = gt * [-1, 1, 1]
    if joints > 3:  # three points lie in a plane: their mirror image can be turned onto them
        assert np.all(pa_mpjpe(mirrored, gt) > 1e-3)
    noisy = gt + 0.1 * rng.standard_normal(gt.shape)
    np.testing.assert_allclose(pa_mpjpe(noisy @ turn + 1, gt), pa_mpjpe(noisy, gt), atol=1e-6)


@pytest.mark.parametrize("mirror", [False, True])
def test_pa_is_the_best_similarity(mirror):
    rng = np.random.default_rng(1)
    gt, pred = rng.standard_normal((2, 6, 3))
    if mirror:  # the best reflection would fit: the best rotation is asked for
        pred = gt * [-1, 1, 1] + 0.1 * pred

    def cost(x):
        return ((np.exp(x[3]) * pred @ Rotation.from_rotvec(x[:3]).as_matrix().T + x[4:] - gt) ** 2).sum()

    starts = [np.r_[rotvec, np.zeros(4)] for rotvec in Rotation.random(20, random_state=0).as_rotvec()]
    best = min((minimize(cost, start, method="BFGS") for start in starts), key=lambda r: r.fun).x
    aligned = np.exp(best[3]) * pred @ Rotation.from_rotvec(best[:3]).as_matrix().T + best[4:]
    np.testing.assert_allclose(pa_mpjpe(pred[None], gt[None]), mpjpe(aligned[None], gt[None]), rtol=1e-4)


@pytest.mark.parametrize("points", [np.arange(4)[:, None] * [[1.0, 2, 3]], np.ones((4, 3)), np.eye(3)])
def test_pa_of_degenerate_points(points):
    other = np.random.default_rng(0).standard_normal(points.shape)
    assert pa_mpjpe(points[None], points[None]) < 1e-6
    assert np.isfinite(pa_mpjpe(points[None], other[None])).all()
    assert np.isfinite(pa_mpjpe(other[None], points[None])).all()


def test_pa_of_points_in_a_line():
    rng = np.random.default_rng(0)
    places, gt = rng.standard_normal(5), rng.standard_normal((5, 3))
    c, g = places - places.mean(), gt - gt.mean(0)
    # The best line through G has the direction G^T c, and its points lie at c |G^T c| / c^T c.
    direction = g.T @ c
    expected = np.outer(c, direction) / (c @ c)
    for turn in Rotation.random(5, random_state=1):
        line = places[:, None] * turn.apply([2.0, 0, 0]) + 3
        np.testing.assert_allclose(align_similarity(line[None], gt[None])[0], expected + gt.mean(0), atol=1e-9)


def test_pck_and_auc():
    gt = np.zeros((5, 14, 3))
    offsets = np.array([0, 75, 200, 149.99, 150]) / 1000
    pred = gt + offsets[:, None, None] * [0.6, 0, 0.8]
    pred[4, 7:] = 0
    # 31 thresholds of 0, 5, ... 150 mm, of which those above the error count; 150 itself is too far.
    pck_expected = [100, 100, 0, 100, 50]
    np.testing.assert_allclose(pck(pred, gt), pck_expected)
    np.testing.assert_allclose(auc(pred, gt)[[0, 1, 2, 3]], 100 * np.array([30, 15, 0, 1]) / 31)
    np.testing.assert_allclose(auc(pred, gt)[4], 100 * 15 / 31)
    np.testing.assert_allclose(pck(pred, gt, 80), [100, 100, 0, 0, 50])


@settings(deadline=None)
@given(SEEDS, st.floats(0, 180))
def test_angle_between_rotations(seed, degrees):
    rng = np.random.default_rng(seed)
    axis = rng.standard_normal(3)
    base = Rotation.random(random_state=seed)
    turned = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)) * base
    np.testing.assert_allclose(rotation_error(turned.as_matrix(), base.as_matrix()), degrees, atol=1e-6)
