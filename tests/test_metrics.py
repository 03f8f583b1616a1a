"""Metrics: numbers computed by hand, and what they must not notice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from cliff_ms.metrics import mpjpe, pa_mpjpe, pve, rotation_error

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


def test_pa_is_the_best_similarity():
    rng = np.random.default_rng(1)
    gt, pred = rng.standard_normal((2, 6, 3))

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


@settings(deadline=None)
@given(SEEDS, st.floats(0, 180))
def test_angle_between_rotations(seed, degrees):
    rng = np.random.default_rng(seed)
    axis = rng.standard_normal(3)
    base = Rotation.random(random_state=seed)
    turned = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)) * base
    np.testing.assert_allclose(rotation_error(turned.as_matrix(), base.as_matrix()), degrees, atol=1e-6)
