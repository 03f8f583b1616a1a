"""The fit over time: its system, what it closes, and what neighbours set right."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms import load_body
from cliff_ms.body.errors import SMPLParameters, expected_deviations
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.camera import project, to_image
from cliff_ms.inference import fit_track
from cliff_ms.inference.fit import Fit, View, move
from cliff_ms.inference.fit_track import TrackFit
from cliff_ms.keypoints import COCO17, SMPL24

FOCAL, IMG_HW, SIZE = 1000.0, (720, 1280), 500.0
LEGS = [COCO17.index(f"{side}_{part}") for part in ("hip", "knee", "ankle") for side in ("left", "right")]


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def track_fit(body):
    return TrackFit(Fit(body, "coco17", expected_deviations()), body)


def motion(frames, rng):
    """Somebody who swings all joints and walks by, facing the camera: T frames, 30 a second."""
    time = np.arange(frames) / 30
    axes = rng.normal(0, 0.25, (24, 3))
    swing = np.sin(2 * np.pi * 0.8 * time[:, None] + rng.uniform(0, 6, 24))[..., None] * axes
    rotmats = Rotation.from_rotvec(swing.reshape(-1, 3)).as_matrix().reshape(frames, 24, 3, 3)
    rotmats[:, 0] = np.diag([1.0, -1, -1]) @ rotmats[:, 0]
    translation = np.stack([0.6 * time - 0.5, 0 * time, 4 + 0.3 * time], 1)
    return SMPLParameters(rotmats, np.tile(rng.normal(0, 0.5, 10), (frames, 1)), translation), time


def seen_by_camera(body, bodies):
    """The exact keypoints."""
    points, _ = Kinematics(body, COCO17)(bodies.rotmats, bodies.betas)
    count = len(points)
    img_hw, focal = np.tile(np.array(IMG_HW, float), (count, 1)), np.full(count, FOCAL)
    pixels = to_image(project(points, bodies.translation, focal), img_hw)
    return View(np.concatenate([pixels, np.ones((count, 17, 1))], -1), np.full(count, SIZE), img_hw, focal)


def perturbed(bodies, rng, scale=0.7):
    """Predictions that are off by as much as the prior says, each frame by itself."""
    count = len(bodies.betas)
    errors = scale * rng.normal(size=(count, 85)) * expected_deviations()
    turns = Rotation.from_rotvec(errors[:, :72].reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)
    depth = np.exp(errors[:, 84:])
    return SMPLParameters(
        *(
            array.astype(np.float32)
            for array in (bodies.rotmats @ turns, bodies.betas + 0.3 * errors[:, 72:82], bodies.translation * depth)
        )
    )


def joints(body, bodies):
    """(T, 24, 3) m in the camera."""
    rotmats, betas, translation = (array.astype(np.float64) for array in bodies)
    return Kinematics(body, SMPL24)(rotmats, betas)[0] + translation[:, None]


def mean_error(body, bodies, truth, frames=slice(None)):
    """mm, of joints from the pelvis, and of their second differences."""
    found, true = (points - points[:, :1] for points in (joints(body, bodies), joints(body, truth)))
    jerk = np.linalg.norm(np.diff(found - true, 2, axis=0), axis=-1).mean()
    return 1000 * np.linalg.norm(found - true, axis=-1)[frames].mean(), 1000 * jerk


def fitted(track_fit, predicted, view, times, seen=None):
    """Each frame by itself, and over time."""
    single = track_fit._fit(*predicted, *view)
    seen = np.ones(len(times), bool) if seen is None else seen
    return single.bodies, track_fit(predicted, *single, view, times, seen)


def test_the_solution_is_that_of_the_whole_matrix():
    rng = np.random.default_rng(0)
    count, size = 5, fit_track._SIZE
    system, rows, values = fit_track._Arrow(count), [], []
    for reach, measured in ((1, 9), (3, 20)):
        jacobians = [rng.normal(size=(count - reach + 1, measured, 85)) for _ in range(reach)]
        precision = rng.uniform(0.1, 2, (count - reach + 1, measured))
        residual = rng.normal(size=precision.shape)
        system.add(jacobians, precision, residual)
        for n in range(count - reach + 1):
            whole = np.zeros((measured, count * size + 10))
            for k, jacobian in enumerate(jacobians):
                whole[:, (n + k) * size : (n + k + 1) * size] = jacobian[n][:, fit_track._OWN]
                whole[:, -10:] += jacobian[n][:, fit_track._SHAPE]
            rows.append(np.sqrt(precision[n])[:, None] * whole)
            values.append(np.sqrt(precision[n]) * residual[n])
    matrix = np.concatenate(rows)
    matrix, right = matrix.T @ matrix, matrix.T @ np.concatenate(values)
    held, pulled, tied = rng.uniform(1, 2, (count, size)), rng.normal(size=(count, size)), 0.3 * np.ones((3, size))
    system.add_diagonal(0, 0, held)
    system.push(0, pulled)
    system.add_diagonal(1, 1, tied)
    matrix[np.arange(count * size), np.arange(count * size)] += held.ravel()
    right[:-10] += pulled.ravel()
    for n in (1, 2, 3):
        for k in range(size):
            matrix[n * size + k, (n + 1) * size + k] += 0.3
            matrix[(n + 1) * size + k, n * size + k] += 0.3
    expected = np.linalg.solve(matrix, right)
    found = system.solve()
    shape = np.linalg.solve(found.matrix, found.right)
    np.testing.assert_allclose(shape, expected[-10:], atol=1e-9)
    np.testing.assert_allclose((found.own - found.own_by_shape @ shape).ravel(), expected[:-10], atol=1e-9)


def test_derivatives_of_accelerations_are_those_of_differences(body, track_fit):
    truth, times = motion(5, np.random.default_rng(6))
    view, seen = seen_by_camera(body, truth), np.ones(5, bool)
    times = times + [0, 0.01, 0, 0.02, 0]
    window = fit_track._window(slice(None), truth, truth, view, np.full(5, 0.01), times, seen)
    found, jacobians = track_fit._accelerations(truth, window)
    rng, small = np.random.default_rng(7), 1e-5
    for _ in range(3):
        way = rng.normal(size=(5, 85))
        ends = [track_fit._accelerations(move(truth, sign * small * way, view), window)[0] for sign in (-1, 1)]
        along = sum((jacobian @ way[k : k + 3, :, None])[..., 0] for k, jacobian in enumerate(jacobians))
        np.testing.assert_allclose((ends[1] - ends[0]) / (2 * small), along, rtol=1e-5, atol=1e-4 * np.abs(along).max())
    where = joints(body, truth)
    speeds = np.diff(where, axis=0) / np.diff(times)[:, None, None]
    by_hand = np.diff(speeds, axis=0) / ((times[2:] - times[:-2]) / 2)[:, None, None]
    np.testing.assert_allclose(found, by_hand.reshape(3, -1), atol=1e-6)


def test_second_differences_are_those_of_a_parabola_at_uneven_times():
    times = np.array([0.0, 0.03, 0.1, 0.12, 0.3])
    values = 2 - 3 * times + 4 * times**2
    steps = fit_track._second_differences(times)
    found = (steps * np.stack([values[:-2], values[1:-1], values[2:]], 1)).sum(1)
    np.testing.assert_allclose(found, 8, atol=1e-9)


def test_motion_comes_out_nearer_and_smoother_than_frame_by_frame(body, track_fit):
    rng = np.random.default_rng(1)
    truth, times = motion(45, rng)
    view = seen_by_camera(body, truth)
    view.keypoints[..., :2] += rng.normal(0, 4, view.keypoints[..., :2].shape)
    single, whole = fitted(track_fit, perturbed(truth, rng), view, times)
    (apart, shaking), (together, smooth) = (mean_error(body, bodies, truth) for bodies in (single, whole))
    assert together < 0.8 * apart and smooth < shaking / 5
    assert (whole.betas == whole.betas[0]).all()


def test_a_gap_is_filled(body, track_fit):
    rng = np.random.default_rng(2)
    truth, times = motion(40, rng)
    seen = np.ones(40, bool)
    seen[18:25] = False
    view, predicted = seen_by_camera(body, truth), perturbed(truth, rng)
    for array in (*predicted, view.keypoints):
        array[~seen] = np.nan if array is not view.keypoints else 0
    single = track_fit._fit(*(np.nan_to_num(a) for a in predicted), *view)
    whole = track_fit(predicted, single.bodies, np.where(seen, single.sigma, np.nan), view, times, seen)
    assert all(np.isfinite(array).all() for array in whole)
    between = fit_track._between(single.bodies, times, np.flatnonzero(seen), truth.betas[0])
    assert mean_error(body, whole, truth, ~seen)[0] < 0.8 * mean_error(body, between, truth, ~seen)[0]


def test_a_gap_may_be_longer_than_a_window(body, track_fit, monkeypatch):
    monkeypatch.setattr(fit_track, "_WINDOW", 30)
    monkeypatch.setattr(fit_track, "_OVERLAP", 10)
    rng = np.random.default_rng(2)
    truth, times = motion(120, rng)
    view, predicted = seen_by_camera(body, truth), perturbed(truth, rng)
    seen = (times < 0.5) | (times > 3.5)
    _, whole = fitted(track_fit, predicted, view, times, seen)
    middle = np.abs(times - 2) < 0.5
    assert any(not seen[part].any() for part in fit_track._windows(120))
    np.testing.assert_allclose(whole.translation[middle], truth.translation[middle], atol=0.3)
    assert mean_error(body, whole, truth)[1] < 10


def test_frames_come_when_they_come(body, track_fit):
    """Somebody who runs by in a video that lacks every third frame or so."""
    rng = np.random.default_rng(8)
    truth, times = motion(60, rng)
    kept = np.sort(rng.choice(60, 40, replace=False))
    truth, times = SMPLParameters(*(array[kept] for array in truth)), times[kept]
    truth.translation[:, 0] = 4 * times - 4
    view, predicted = seen_by_camera(body, truth), perturbed(truth, rng)
    _, whole = fitted(track_fit, predicted, view, times)
    _, rushed = fitted(track_fit, predicted, view, np.arange(40) / 30)
    off = [np.linalg.norm(joints(body, each) - joints(body, truth), axis=-1).mean() for each in (whole, rushed)]
    assert off[0] < 0.5 * off[1]


def test_the_shape_is_read_from_all_frames(body, track_fit):
    rng = np.random.default_rng(10)
    truth, times = motion(60, rng)
    view, predicted = seen_by_camera(body, truth), perturbed(truth, rng)
    predicted.betas[:] = truth.betas + rng.normal(0, 1, 10)
    single, whole = fitted(track_fit, predicted, view, times)
    off = [np.abs(each.betas - truth.betas).mean() for each in (predicted, single, whole)]
    assert off[2] < 0.8 * min(off[:2])


def _swap_legs(predicted, view):
    view.keypoints[20, LEGS] = view.keypoints[20, np.array(LEGS).reshape(-1, 2)[:, ::-1].ravel()]


def _stray_wrist(predicted, view):
    view.keypoints[20, COCO17.index("left_wrist"), :2] += 150


def _turn_around(predicted, view):
    predicted.rotmats[20, 0] = np.diag([-1.0, -1, 1]) @ predicted.rotmats[20, 0]


def _behind_the_camera(predicted, view):
    predicted.translation[20] *= -1


@pytest.mark.parametrize("spoil", [_swap_legs, _stray_wrist, _turn_around, _behind_the_camera])
def test_neighbours_set_a_frame_right(body, track_fit, spoil):
    rng = np.random.default_rng(3)
    truth, times = motion(40, rng)
    view, predicted = seen_by_camera(body, truth), perturbed(truth, rng)
    spoil(predicted, view)
    single, whole = fitted(track_fit, predicted, view, times)
    others = [mean_error(body, whole, truth, slice(k, k + 1))[0] for k in range(14, 27) if k != 20]
    assert mean_error(body, whole, truth, slice(20, 21))[0] < max(others) + 15
    assert mean_error(body, whole, truth, slice(20, 21))[0] < mean_error(body, single, truth, slice(20, 21))[0]


def test_windows_agree_with_the_whole(body, track_fit, monkeypatch):
    rng = np.random.default_rng(4)
    truth, times = motion(70, rng)
    view, predicted = seen_by_camera(body, truth), perturbed(truth, rng)
    _, whole = fitted(track_fit, predicted, view, times)
    monkeypatch.setattr(fit_track, "_WINDOW", 40)
    monkeypatch.setattr(fit_track, "_OVERLAP", 20)
    _, cut = fitted(track_fit, predicted, view, times)
    assert len(fit_track._windows(70)) == 3
    off = np.linalg.norm(joints(body, whole) - joints(body, cut), axis=-1)
    assert np.median(off) < 0.003 and off.max() < 0.03


def test_too_little_seen_stays_as_it_is(body, track_fit):
    rng = np.random.default_rng(5)
    truth, times = motion(6, rng)
    single, whole = fitted(track_fit, perturbed(truth, rng), seen_by_camera(body, truth), times, np.arange(6) == 2)
    assert whole is single


@pytest.mark.parametrize("frames", [1, 2])
def test_too_few_frames_for_an_acceleration_stay_as_they_are(body, track_fit, frames):
    rng = np.random.default_rng(5)
    truth, times = motion(frames, rng)
    single, whole = fitted(track_fit, perturbed(truth, rng), seen_by_camera(body, truth), times)
    for first, second in zip(single, whole, strict=True):
        np.testing.assert_array_equal(first, second)
