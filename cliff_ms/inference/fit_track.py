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

Gauss-Newton steps, reweighted as in `fit`, solve for 75 numbers a frame: 24 turns and the place. The shape is one for
all frames, the median of those that each frame was fitted with. A frame is tied to the next two on either side: the
system is banded, and time and memory grow with the number of frames only. Longer tracks are cut into windows that
overlap, and are blended there.
"""

import numpy as np
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation, Slerp

from cliff_ms.body.errors import SMPLParameters, prediction_errors
from cliff_ms.body.files import Body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.inference.fit import KERNEL, Fit, View, move, shorten, translation_by_place
from cliff_ms.keypoints import SMPL24

_ITERATIONS = 6
_OWN = np.r_[0:72, 82:85]  # what a frame has for itself of the 85 numbers
_SIZE = len(_OWN)
_REACH = 2  # frames
# Chosen on recorded motion that the model may have learnt from (12 clips of scripts/motion_study.py --tune, MPJPE in
# mm and acceleration error in mm/frame^2; before this rho of the prior, for 24 clips 87.0, 12.9 at 8 m/s^2):
#     as they are          79.4, 12.6      s_b   30 rad/s^2     80.7, 12.6      scale of rho  200 m/s^2    79.9, 12.6
#     s_a    20 m/s^2      80.4, 12.4           150             79.2, 13.1      c              75          79.9, 12.5
#            60 m/s^2      about 0.7 worse, 14.2                                              400          79.3, 12.7
_ACCELERATION = 30.0  # m/s^2, s_a
_KICK = 60.0  # m/s^2, the scale of rho, at last
_TURNING = 60.0  # rad/s^2, s_b
_DOUBT = 150.0  # c, twice what m_i is on average
_NEAR, _TURNED = 7, np.radians(60)  # frames, and the turn from most of them that says that one faces the wrong way
_WINDOW, _OVERLAP = 300, 30  # frames


class TrackFit:
    """Fits the bodies of one person through a video.

    Args:
        fit: Of single frames: its body, keypoints and prior.
        body: The same body.
    """

    def __init__(self, fit: Fit, body: Body) -> None:
        self._fit = fit
        self._joints = Kinematics(body, SMPL24)

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
            times: (T,) s, ascending.
            seen: (T,) bool, false for frames that nothing is known of, whose rows are not read; the first and the last
                are seen.

        Returns:
            The bodies of all frames, float32, of one shape.
        """
        seen_rows = np.flatnonzero(seen)
        if len(times) < 3:
            return fitted
        betas = np.median(fitted.betas[seen_rows], 0)
        start = _between(fitted, times, seen_rows[_faces_as_others(fitted.rotmats[seen_rows, 0])], betas)
        parts = []
        for rows in _windows(len(times)):
            arrays = (sigma, times, seen)
            parts.append(
                self._fit_window(
                    *(SMPLParameters(*(a[rows] for a in bodies)) for bodies in (predicted, start)),
                    View(*(array[rows].astype(np.float64) for array in view)),
                    *(array[rows] for array in arrays),
                )
            )
        return SMPLParameters(*(array.astype(np.float32) for array in _blended(parts)))

    def _fit_window(
        self,
        predicted: SMPLParameters,
        bodies: SMPLParameters,
        view: View,
        sigma: np.ndarray,
        times: np.ndarray,
        seen: np.ndarray,
    ) -> SMPLParameters:
        safe = SMPLParameters(*(np.where(_like(seen, a), a, b) for a, b in zip(predicted, bodies, strict=True)))
        view = view._replace(keypoints=view.keypoints * (seen & np.isfinite(sigma))[:, None, None])
        noise = np.where(np.isfinite(sigma), 2 * sigma, 1.0)
        steps = _second_differences(times)
        for iteration in range(_ITERATIONS):
            kick = _KICK * 2.0 ** (_ITERATIONS - 1 - iteration)  # wide at first: outliers go to their neighbours
            system = _Banded(len(times))
            self._add_frames(system, safe, bodies, view, noise, seen)
            self._add_motion(system, bodies, view, steps, kick)
            step = np.zeros((len(times), 85))
            step[:, _OWN] = system.solve()
            bodies = move(bodies, shorten(step), view)
        return bodies

    def _add_frames(
        self,
        system: "_Banded",
        predicted: SMPLParameters,
        bodies: SMPLParameters,
        view: View,
        noise: np.ndarray,
        seen: np.ndarray,
    ) -> None:
        """The terms of each frame: keypoints and prior."""
        residual, jacobian, confidence = self._fit.measure(bodies, view)
        weights = confidence / (1 + (residual**2).sum(-1) / (KERNEL * noise[:, None]) ** 2) ** 2
        precision = np.repeat(weights / noise[:, None] ** 2, 2, 1)
        own = jacobian[..., _OWN]
        weighted = own * precision[..., None]
        errors = prediction_errors(predicted, bodies, view.size, view.focal_length)[:, _OWN]
        inverse = 1 / self._fit.variance[_OWN]
        trust = seen / (1 + (errors**2 * inverse).sum(1) / _DOUBT) ** 2
        prior = trust[:, None] * inverse
        frames = np.arange(len(errors))
        system.add(frames, frames, own.swapaxes(1, 2) @ weighted + prior[..., None] * np.eye(_SIZE))
        system.push(frames, (weighted.swapaxes(1, 2) @ residual.reshape(len(errors), -1, 1))[..., 0] - prior * errors)

    def _add_motion(
        self, system: "_Banded", bodies: SMPLParameters, view: View, steps: np.ndarray, kick: float
    ) -> None:
        """The terms of each three frames: accelerations of joints and of rotations."""
        count = len(steps)
        points, by_body = self._joints(bodies.rotmats, bodies.betas)
        points = points + bodies.translation[:, None]
        by_place = np.broadcast_to(translation_by_place(bodies, view)[:, None], (*points.shape[:2], 3, 3))
        by_own = np.concatenate([by_body[..., :72], by_place], -1)  # (T, 24, 3, 75)
        acceleration = sum(steps[:, k, None, None] * points[k : k + count] for k in range(3))
        weights = 1 / (1 + (acceleration**2).sum(-1) / kick**2) ** 2 / _ACCELERATION**2
        by_own = by_own.reshape(len(points), -1, _SIZE)
        weights = np.repeat(weights, 3, 1)  # (T - 2, 72)
        turns = Rotation.from_matrix((bodies.rotmats[:-1].swapaxes(-1, -2) @ bodies.rotmats[1:]).reshape(-1, 3, 3))
        turns = turns.as_rotvec().reshape(-1, 72)
        turning = steps[:, 2, None] * turns[1:] - steps[:, 0, None] * turns[:-1]
        turned = np.zeros((_SIZE, _SIZE))
        turned[:72, :72] = np.eye(72) / _TURNING**2
        middles = np.arange(count)
        for i in range(3):
            for j in range(i, 3):
                scale = (steps[:, i] * steps[:, j])[:, None, None]
                block = (by_own[i : i + count] * weights[..., None]).swapaxes(1, 2) @ by_own[j : j + count] + turned
                system.add(middles + i, middles + j, scale * block)
            pull = ((by_own[i : i + count] * weights[..., None]).swapaxes(1, 2) @ acceleration.reshape(count, -1, 1))[
                ..., 0
            ]
            pull[:, :72] += turning / _TURNING**2
            system.push(middles + i, -steps[:, i, None] * pull)


class _Banded:
    """A symmetric system of T blocks of 75 that are tied to the next two."""

    def __init__(self, count: int) -> None:
        self._blocks = np.zeros((count, _REACH + 1, _SIZE, _SIZE))  # of rows t and columns t, t + 1, t + 2
        self._right = np.zeros((count, _SIZE))

    def add(self, rows: np.ndarray, columns: np.ndarray, blocks: np.ndarray) -> None:
        """Add blocks on or above the diagonal."""
        self._blocks[rows, columns - rows] += blocks

    def push(self, rows: np.ndarray, right: np.ndarray) -> None:
        """Add to the right side."""
        self._right[rows] += right

    def solve(self) -> np.ndarray:
        """The solution (T, 75)."""
        count, width = len(self._blocks), _SIZE * (_REACH + 1)
        # Row r of block t reaches from its own diagonal to the end of block t + 2.
        rows = self._blocks.transpose(0, 2, 1, 3).reshape(count * _SIZE, width)
        inside = np.tile(np.arange(_SIZE), count)
        bands = np.zeros((width, count * _SIZE))
        for offset in range(width):
            column = inside + offset
            values = np.where(column < width, rows[np.arange(len(rows)), column.clip(max=width - 1)], 0)
            bands[offset] = values  # lower form: below the diagonal of its column, by symmetry
        return solveh_banded(bands, self._right.ravel(), lower=True, overwrite_ab=True).reshape(count, _SIZE)


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
