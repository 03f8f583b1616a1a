"""The fit of `fit` over a whole track: the bodies of one person through a video, who moves as people do.

To the energy of each frame comes what is known of motion. With the joints x of the tree in the camera's frame, their
accelerations a by the frames' own times, and the angular accelerations of the joints' rotations, b,

    a_i = 2 ((x_i+1 - x_i) / d_i - (x_i - x_i-1) / d_i-1) / (d_i + d_i-1)       d_i = t_i+1 - t_i
    b_i = 2 (log(R_i^T R_i+1) / d_i - log(R_i-1^T R_i) / d_i-1) / (d_i + d_i-1)

it adds sum_i sum_j rho(|a_ij|) / s_a^2 + sum_i |b_i|^2 / s_b^2, with Geman and McClure's rho, so that a kick or a jump
costs no more than it must. Rotations are there for what joints do not show, such as the turn of a forearm about itself.
The prior of each frame has that rho too: it counts 1 / (1 + m_i / c)^2 with m_i = e_i^T C^-1 e_i, so that a prediction
that faces the wrong way cannot hold out against its neighbours. A frame that does, or has no prediction, starts between
them.

Gauss-Newton steps, reweighted as in `fit`, solve for 75 numbers a frame, 24 turns and the place, and for the one shape.
A frame is tied to the next two on either side, and all to the shape. With the frames' steps u and the shape's v,

    [B    E] [u]   [r]
    [E^T  D] [v] = [s]        (D - E^T B^-1 E) v = s - E^T B^-1 r,  u = B^-1 r - B^-1 E v

where B is banded, so that time and memory grow with the number of frames only. Longer tracks are cut into windows that
overlap: what they say of v is added up, and their bodies are blended where they overlap.

The shape's prior is about the mean of what was predicted. Successive frames err alike, in keypoints and predictions:
they are no independent witnesses of the shape, so its prior counts once in some frames.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.spatial.transform import Rotation, Slerp

from cliff_ms.body.errors import ERRORS, SMPLParameters, prediction_errors
from cliff_ms.body.files import Body
from cliff_ms.body.kinematics import NUM_BETAS, Kinematics
from cliff_ms.inference.fit import KERNEL, NEAREST, Fit, View, move, shorten, translation_by_place
from cliff_ms.keypoints import SMPL24

_ITERATIONS = 6
_OWN = np.r_[0:72, 82:85]  # what a frame has for itself of the 85 numbers
_SHAPE = slice(72, 82)
_SIZE = len(_OWN)
_REACH = 2  # frames
# Chosen on recorded motion of subjects that the model may have learnt from (every other clip of scripts/motion_study.py
# --tune; MPJPE in mm and acceleration error in mm/frame^2; predicted 101, 143):
#     as they are        79.0, 12.0      s_b   30 rad/s^2    80.5, 11.9      scale of rho  200 m/s^2    79.1, 11.9
#     s_a   15 m/s^2     79.7, 11.6           150            78.4, 12.6      c              75          79.4, 11.9
#           60           80.4, 14.2                                                        400          78.8, 12.1
# The shape: its prior once in 5 frames 79.3, in 40 79.4; not solved for, but the median of all frames' 81.8; the true
# one 72.7. Where the pelvis is, is off by 259 mm; by 275 with the median, and by 150 with the true shape.
_ACCELERATION = 30.0  # m/s^2, s_a
_KICK = 60.0  # m/s^2, the scale of rho, at last
_TURNING = 60.0  # rad/s^2, s_b
_DOUBT = 150.0  # c, twice what m_i is on average
_UNSEEN = 1e-3  # share of the prior that holds a frame that nothing is known of
_ALIKE = 10.0  # frames
_NEAR, _TURNED = 7, np.radians(60)  # frames, and the turn from most of them that says that one faces the wrong way
_WINDOW, _OVERLAP = 300, 30  # frames


class _Window(NamedTuple):
    """What is known of N frames: see `TrackFit.__call__`, and `_second_differences`; noise (N,) in half box heights."""

    predicted: SMPLParameters
    view: View
    noise: np.ndarray
    steps: np.ndarray
    seen: np.ndarray


class TrackFit:
    """Fits the bodies of one person through a video.

    Args:
        fit: Of single frames: its body, keypoints and prior.
        body: The same body.
    """

    def __init__(self, fit: Fit, body: Body) -> None:
        self._fit = fit
        self._kinematics = Kinematics(body, SMPL24)

    def __call__(
        self,
        predicted: SMPLParameters,
        fitted: SMPLParameters,
        sigma: np.ndarray,
        view: View,
        times: np.ndarray,
        seen: np.ndarray,
    ) -> SMPLParameters:
        """Fit T frames.

        Args:
            predicted: By the network, the mean of the prior.
            fitted: Each frame on its own, where the iteration starts; the predictions where nothing was fitted.
            sigma: (T,), see `fit.Fitted`; NaN where nothing was fitted.
            view: What the camera saw; confidence 0 where there is no keypoint.
            times: (T,) s, each later than the one before.
            seen: (T,) bool, false for frames that nothing is known of, whose bodies and keypoints are not read.

        Returns:
            The bodies of all frames, float32, of one shape; `fitted` itself if there are less than three frames, or
            two that show the person in front of the camera.
        """
        seen = seen & (predicted.translation[:, 2] > NEAREST) & (fitted.translation[:, 2] > NEAREST)
        rows = np.flatnonzero(seen)
        if len(times) < 3 or len(rows) < 2:
            return fitted
        betas = np.median(fitted.betas[rows], 0)
        start = _between(fitted, times, rows[_faces_as_others(fitted.rotmats[rows, 0])], betas)
        cuts = _windows(len(times))
        windows = [_window(rows, predicted, start, view, sigma, times, seen) for rows in cuts]
        parts = [SMPLParameters(*(array[rows] for array in start)) for rows in cuts]
        mean = np.mean(predicted.betas[rows], 0, dtype=np.float64)
        precision = len(rows) / _ALIKE / self._fit.variance[_SHAPE]
        for iteration in range(_ITERATIONS):
            kick = _KICK * 2.0 ** (_ITERATIONS - 1 - iteration)  # wide at first: outliers go to their neighbours
            solved = [self._system(*each, kick).solve() for each in zip(windows, parts, strict=True)]
            right = precision * (mean - parts[0].betas[0]) + sum(each.right for each in solved)
            shape = np.linalg.solve(np.diag(precision) + sum(each.matrix for each in solved), right)
            parts = [
                move(bodies, _step(each.own - each.own_by_shape @ shape, shape), window.view)
                for bodies, each, window in zip(parts, solved, windows, strict=True)
            ]
        return SMPLParameters(*(array.astype(np.float32) for array in _blended(parts)))

    def _system(self, window: _Window, bodies: SMPLParameters, kick: float) -> "_Arrow":
        system = _Arrow(len(window.seen))
        self._add_frames(system, window, bodies)
        self._add_motion(system, window, bodies, kick)
        return system

    def _add_frames(self, system: "_Arrow", window: _Window, bodies: SMPLParameters) -> None:
        """The terms of each frame: keypoints and prior."""
        residual, jacobian, confidence = self._fit.measure(bodies, window.view)
        noise = window.noise[:, None]
        weights = confidence / (1 + (residual**2).sum(-1) / (KERNEL * noise) ** 2) ** 2 / noise**2
        system.add([jacobian], np.repeat(weights, 2, 1), residual.reshape(len(noise), -1))
        errors = prediction_errors(window.predicted, bodies, window.view.size, window.view.focal_length)[:, _OWN]
        inverse = 1 / self._fit.variance[_OWN]
        trust = 1 / (1 + (errors**2 * inverse).sum(1) / _DOUBT) ** 2
        prior = np.where(window.seen, trust, _UNSEEN)[:, None] * inverse
        system.add_diagonal(0, 0, prior)
        system.push(0, -prior * errors)

    def _add_motion(self, system: "_Arrow", window: _Window, bodies: SMPLParameters, kick: float) -> None:
        """The terms of each three frames: accelerations of joints and of rotations."""
        steps, count = window.steps, len(window.steps)
        acceleration, jacobians = self._accelerations(bodies, window)
        squared = (acceleration.reshape(count, -1, 3) ** 2).sum(-1)
        weights = 1 / (1 + squared / kick**2) ** 2 / _ACCELERATION**2
        system.add(jacobians, np.repeat(weights, 3, 1), -acceleration)
        turns = Rotation.from_matrix((bodies.rotmats[:-1].swapaxes(-1, -2) @ bodies.rotmats[1:]).reshape(-1, 3, 3))
        turns = turns.as_rotvec().reshape(-1, 72)
        turning = np.zeros((count, _SIZE))
        turning[:, :72] = (steps[:, 2, None] * turns[1:] - steps[:, 0, None] * turns[:-1]) / _TURNING**2
        turned = np.r_[np.ones(72), np.zeros(3)] / _TURNING**2
        for i in range(3):
            system.push(i, -steps[:, i, None] * turning)
            for j in range(i, 3):
                system.add_diagonal(i, j - i, (steps[:, i] * steps[:, j])[:, None] * turned)

    def _accelerations(self, bodies: SMPLParameters, window: _Window) -> tuple[np.ndarray, list[np.ndarray]]:
        """Of the joints in each three frames, (N - 2, 72) m/s^2, and their derivatives by each frame's 85 numbers."""
        points, by_body = self._kinematics(bodies.rotmats, bodies.betas)
        by_place = np.broadcast_to(translation_by_place(bodies, window.view)[:, None], (*points.shape[:2], 3, 3))
        jacobian = np.concatenate([by_body, by_place], -1).reshape(len(points), -1, ERRORS)
        points = (points + bodies.translation[:, None]).reshape(len(points), -1)
        count = len(window.steps)
        steps = [step[:, None] for step in window.steps.T]
        acceleration = np.sum([step * points[k : k + count] for k, step in enumerate(steps)], 0)
        return acceleration, [step[..., None] * jacobian[k : k + count] for k, step in enumerate(steps)]


class _Solved(NamedTuple):
    """A system's own part solved: u = own - own_by_shape v, and matrix v = right is what it says of the shape v."""

    own: np.ndarray
    own_by_shape: np.ndarray
    matrix: np.ndarray
    right: np.ndarray


class _Arrow:
    """A symmetric system of T blocks of 75 that are tied to the next two, and to the shape."""

    def __init__(self, count: int) -> None:
        self._blocks = np.zeros((count, _REACH + 1, _SIZE, _SIZE))  # of rows t and columns t, t + 1, t + 2
        self._right = np.zeros((count, _SIZE))
        self._by_shape = np.zeros((count, _SIZE, NUM_BETAS))
        self._corner, self._corner_right = np.zeros((NUM_BETAS, NUM_BETAS)), np.zeros(NUM_BETAS)

    def add(self, jacobians: list[np.ndarray], precision: np.ndarray, residual: np.ndarray) -> None:
        """Add what is measured: residual (N, M) = sum of jacobian @ step over some frames + noise of that precision.

        Args:
            jacobians: (N, M, 85) of the frames n, n + 1 and so on.
            precision: (N, M).
            residual: (N, M).
        """
        count = len(residual)
        shape = np.sum([jacobian[..., _SHAPE] for jacobian in jacobians], 0)
        own = [jacobian[..., _OWN] for jacobian in jacobians]
        for i, first in enumerate(own):
            weighted = (first * precision[..., None]).swapaxes(1, 2)
            for j, second in enumerate(own[i:]):
                self._blocks[i : i + count, j] += weighted @ second
            self._by_shape[i : i + count] += weighted @ shape
            self.push(i, (weighted @ residual[..., None])[..., 0])
        weighted = (shape * precision[..., None]).reshape(-1, NUM_BETAS)
        self._corner += weighted.T @ shape.reshape(-1, NUM_BETAS)
        self._corner_right += weighted.T @ residual.ravel()

    def add_diagonal(self, first: int, distance: int, values: np.ndarray) -> None:
        """Add values (N, 75) that tie a number of the frames from `first` on to itself in the frame at a distance."""
        number = np.arange(_SIZE)
        self._blocks[first : first + len(values), distance, number, number] += values

    def push(self, first: int, right: np.ndarray) -> None:
        """Add to the right side of the frames from `first` on, (N, 75)."""
        self._right[first : first + len(right)] += right

    def solve(self) -> _Solved:
        """Solve for the frames' own numbers."""
        count, width = len(self._blocks), _SIZE * (_REACH + 1)
        # Row r of block t reaches from its own diagonal to the end of block t + 2.
        rows = self._blocks.transpose(0, 2, 1, 3).reshape(count * _SIZE, width)
        inside = np.tile(np.arange(_SIZE), count)
        bands = np.zeros((width, count * _SIZE))
        for offset in range(width):
            column = inside + offset
            values = np.where(column < width, rows[np.arange(len(rows)), column.clip(max=width - 1)], 0)
            bands[offset] = values  # lower form: below the diagonal of its column, by symmetry
        factor = cholesky_banded(bands, lower=True, overwrite_ab=True)
        by_shape = self._by_shape.reshape(-1, NUM_BETAS)
        found = cho_solve_banded((factor, True), np.column_stack([self._right.ravel(), by_shape]))
        own, own_by_shape = found[:, 0], found[:, 1:]
        return _Solved(
            own.reshape(count, _SIZE),
            own_by_shape.reshape(count, _SIZE, NUM_BETAS),
            self._corner - by_shape.T @ own_by_shape,
            self._corner_right - by_shape.T @ own,
        )


def _window(
    rows: slice,
    predicted: SMPLParameters,
    start: SMPLParameters,
    view: View,
    sigma: np.ndarray,
    times: np.ndarray,
    seen: np.ndarray,
) -> _Window:
    """Some frames of a track. What nothing is known of is held, hardly, where it starts: a gap may fill a window."""
    seen, known = seen[rows], seen[rows] & np.isfinite(sigma[rows])
    view = View(*(array[rows].astype(np.float64) for array in view))
    view = view._replace(keypoints=np.where(known[:, None, None], view.keypoints, 0))
    held = SMPLParameters(*(np.where(_like(seen, a), a[rows], b[rows]) for a, b in zip(predicted, start, strict=True)))
    noise = np.where(known, 2 * sigma[rows], 1.0)
    return _Window(held, view, noise, _second_differences(times[rows]), seen)


def _step(own: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(N, 85) of (N, 75) and (10,), shortened."""
    step = np.zeros((len(own), ERRORS))
    step[:, _OWN] = own
    step = shorten(step)
    step[:, _SHAPE] = shape
    return step


def _second_differences(times: np.ndarray) -> np.ndarray:
    """What three values at three times, (T - 2, 3), are multiplied by to give their second derivative."""
    before, after = np.diff(times)[:-1], np.diff(times)[1:]
    middle = 2 / (before * after)
    return np.stack([2 / (before * (before + after)), -middle, 2 / (after * (before + after))], 1)


def _faces_as_others(roots: np.ndarray) -> np.ndarray:
    """Whether each of M rotations (M, 3, 3) is like most of those around it, (M,) bool; at least two are."""
    count = len(roots)
    around = np.arange(count)[:, None] + np.arange(-_NEAR, _NEAR + 1)
    cosine = (np.einsum("tij,tnij->tn", roots, roots[around.clip(0, count - 1)]) - 1) / 2
    turn = np.where((around >= 0) & (around < count), np.arccos(cosine.clip(-1, 1)), np.nan)
    as_others = np.nanmedian(turn, 1) < _TURNED
    return as_others if as_others.sum() > 1 else np.ones(count, bool)


def _between(bodies: SMPLParameters, times: np.ndarray, seen: np.ndarray, betas: np.ndarray) -> SMPLParameters:
    """The bodies of all frames from those of the rows `seen`, of one shape, float64."""
    at = times.clip(times[seen[0]], times[seen[-1]])
    rotmats = np.stack(
        [Slerp(times[seen], Rotation.from_matrix(bodies.rotmats[seen, j]))(at).as_matrix() for j in range(24)], 1
    )
    known = bodies.translation[seen].astype(np.float64)
    translation = np.stack([np.interp(times, times[seen], known[:, k]) for k in range(3)], 1)
    return SMPLParameters(rotmats, np.tile(betas.astype(np.float64), (len(times), 1)), translation)


def _windows(count: int) -> list[slice]:
    """Of at most `_WINDOW` frames, each with `_OVERLAP` of the one before."""
    starts = range(0, max(count - _OVERLAP, 1), _WINDOW - _OVERLAP)
    return [slice(start, min(start + _WINDOW, count)) for start in starts]


def _blended(parts: list[SMPLParameters]) -> SMPLParameters:
    """The windows in one, from one to the next in equal steps where they overlap."""
    whole = parts[0]
    share = np.arange(1, _OVERLAP + 1) / (_OVERLAP + 1)
    for part in parts[1:]:
        last, first = (SMPLParameters(*(a[rows] for a in bodies)) for bodies, rows in (
            (whole, slice(-_OVERLAP, None)), (part, slice(_OVERLAP))))  # fmt: skip
        way = Rotation.from_matrix((last.rotmats.swapaxes(-1, -2) @ first.rotmats).reshape(-1, 3, 3)).as_rotvec()
        turned = Rotation.from_rotvec((way.reshape(_OVERLAP, 24, 3) * share[:, None, None]).reshape(-1, 3)).as_matrix()
        middle = SMPLParameters(
            last.rotmats @ turned.reshape(_OVERLAP, 24, 3, 3),
            last.betas,
            last.translation + share[:, None] * (first.translation - last.translation),
        )
        whole = SMPLParameters(
            *(np.concatenate([a[:-_OVERLAP], b, c[_OVERLAP:]]) for a, b, c in zip(whole, middle, part, strict=True))
        )
    return whole


def _like(rows: np.ndarray, column: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *[1] * (column.ndim - 1))
