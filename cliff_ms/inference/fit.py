"""From a network's prediction to the body whose joints lie on the keypoints, in the camera of the full image.

The state of a person is (R, beta, t): 24 rotations relative to the parent, 10 betas, the translation. It is counted
from the network's prediction, by 85 numbers:

    e = (log(R0_j^T R_j) of the 24 joints, beta - beta0, q - q0)      q = (t_x f / (t_z b), t_y f / (t_z b), ln t_z)

q is the place in box heights b about the optical axis and the logarithm of the depth, f is the focal length: near a
prediction, an error in the picture and an error of scale stay apart in it. Eq. (7) of CLIFF gave t0.

The prior is what is known of the network's errors: e ~ N(0, C). The measurement is Eq. (8), in half box heights:

    h(e) = (f (X + t)_xy / (X + t)_z + (W, H) / 2) / (b / 2)      keypoint_k = h_k(e) + N(0, sigma^2 / c_k)

with the joints X of the body and the confidences c. What is minimised is, with Geman and McClure's rho so that one
wrong keypoint cannot pull the whole body after it,

    sum_k c_k rho(|r_k|) / sigma^2 + e^T C^-1 e      r = keypoint - h(e),  rho(a) = a^2 / (1 + a^2 / s^2)

Iteratively reweighted least squares gives every keypoint the weight w_k = c_k rho'(|r_k|) / (2 |r_k|), that is
c_k / (1 + |r_k|^2 / s^2)^2. With h linearised where the iteration stands, h(e') = h(e) + H (e' - e), the measurement is
H e' = y + noise with y = r + H e, and its posterior mean is the next e (Gauss-Newton, the iterated Kalman filter). With
A = diag(sqrt(w) / sigma) H,

    e' = C A^T (I + A C A^T)^-1 diag(sqrt(w) / sigma) y

a system of 2 K numbers, not of 85, in which a keypoint that is missing is a row of zeros.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import Body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.camera import project, to_image
from cliff_ms.keypoints import JOINT_SETS, SMPL24
from cliff_ms.rotation import rotmat_to_axis_angle

ERRORS = 85  # 72 of rotations, 10 of the shape, 3 of the place
_ITERATIONS = 4
_NOISE_LEVELS = np.array((0.005, 0.01, 0.02, 0.04, 0.08))  # sigma, half box heights
_NOISE_CHOSEN_BEFORE = (0, 2)  # iterations
_KERNEL = 4.0  # s, in sigma, and its lower limit in half box heights: wide at first, then narrower
_WIDE_KERNEL, _NARROWING = 0.3, 0.6
_LONGEST_TURN, _LONGEST_LOG_DEPTH = 0.5, 0.3  # rad about an axis, and of ln t_z, in one step
_NEAREST = 0.1  # m; what is nearer to the camera, or behind it, is not seen

# Deviations of the bundled keypoint model's errors about the joint's own x, y and z in degrees; rounded from 12,000
# people of the synthetic stream, half with exact and half with a detector's keypoints, the worst tenth left out.
_DEGREES = {
    "pelvis": (7, 12, 5), "hip": (14, 8, 6.5), "knee": (15, 2.5, 2), "ankle": (12.5, 4, 6), "foot": (4, 1, 1),
    "spine1": (4, 4, 3), "spine2": (4, 4, 3), "spine3": (4, 4, 3), "neck": (7, 9, 5), "head": (7, 9, 5),
    "collar": (3, 5, 5), "shoulder": (20, 14, 14), "elbow": (12, 20, 2.5), "wrist": (9, 7, 13), "hand": (2, 3, 9),
}  # fmt: skip
_PLACE = (0.02, 0.03, 0.08)  # box heights to the right and downwards, ln t_z
# A network that reads pixels has not been told where the joints are. Twice the deviations, by judgement and not by
# measurement: on the stream, four times the variances cost a keypoint model next to nothing.
_PIXELS = 2.0
_LEFT_OUT = 0.1  # share of people with the largest errors: those that no small correction would reach


class SMPLParameters(NamedTuple):
    """P people in the camera of the full image.

    Attributes:
        rotmats: (P, 24, 3, 3), relative to the parent joint, the root's to the camera.
        betas: (P, 10).
        translation: (P, 3) m.
    """

    rotmats: np.ndarray
    betas: np.ndarray
    translation: np.ndarray


class _View(NamedTuple):
    """What the cameras saw of P people: keypoints (P, K, 3), size (P,), img_hw (P, 2) and focal_length (P,) px."""

    keypoints: np.ndarray
    size: np.ndarray
    img_hw: np.ndarray
    focal_length: np.ndarray


def default_covariance(reads_keypoints: bool) -> np.ndarray:
    """C for networks whose errors nobody has measured, see the tables at the top of this file.

    Args:
        reads_keypoints: Whether the network read the keypoints, or pixels only.

    Returns:
        (85, 85), diagonal; the shape has the variance 1 of people's in either case.
    """
    turns = np.radians([_DEGREES[name.split("_")[-1]] for name in SMPL24]).ravel()
    scale = 1.0 if reads_keypoints else _PIXELS
    return np.diag(np.concatenate([scale * turns, np.ones(10), scale * np.array(_PLACE)]) ** 2)


def prediction_errors(
    predicted: SMPLParameters, actual: SMPLParameters, size: np.ndarray, focal_length: np.ndarray
) -> np.ndarray:
    """The e of the top of this file: what has to be added to a prediction.

    Args:
        predicted: P people, in front of the camera.
        actual: The same people.
        size: (P,) px, height of the crop.
        focal_length: (P,) px.

    Returns:
        (P, 85): rotation vectors in rad, betas, box heights, a logarithm of depth.
    """
    turns = rotmat_to_axis_angle(predicted.rotmats.swapaxes(-1, -2) @ actual.rotmats).reshape(-1, 72)
    places = [_place(bodies.translation, size, focal_length) for bodies in (actual, predicted)]
    return np.concatenate([turns, actual.betas - predicted.betas, places[0] - places[1]], 1)


def error_covariance(errors: np.ndarray) -> np.ndarray:
    """C of a network, without the tenth of people whose rotations are worst.

    The second moment about zero, not about the mean: a bias is an error, too.

    Args:
        errors: (P, 85) of many people, see `prediction_errors`.

    Returns:
        (85, 85).
    """
    turned = (errors[:, :72] ** 2).sum(1)
    kept = errors[turned <= np.quantile(turned, 1 - _LEFT_OUT)]
    return kept.T @ kept / len(kept)


class Fit:
    """Moves predicted bodies until their joints lie on the keypoints, as far as both can be trusted.

    Args:
        body: The body.
        joint_set: The order of the keypoints, a key of `keypoints.JOINT_SETS`.
        covariance: (85, 85), C of the network that predicts.
    """

    def __init__(self, body: Body, joint_set: str, covariance: np.ndarray) -> None:
        self._kinematics = Kinematics(body, JOINT_SETS[joint_set])
        self._covariance = covariance

    def __call__(
        self,
        rotmats: np.ndarray,
        betas: np.ndarray,
        translation: np.ndarray,
        keypoints: np.ndarray,
        size: np.ndarray,
        img_hw: np.ndarray,
        focal_length: np.ndarray,
    ) -> SMPLParameters:
        """Fit P people, each on their own.

        Args:
            rotmats: (P, 24, 3, 3) float32 of the prediction, relative to the parent, the root's to the camera.
            betas: (P, 10) float32.
            translation: (P, 3) m float32, full-image camera.
            keypoints: (P, K, 3), x and y in px of the full image and confidence, which counts up to 1; not read where
                that is 0.
            size: (P,) px, height of the crop.
            img_hw: (P, 2) px.
            focal_length: (P,) px.

        Returns:
            The bodies, float32, in the same order. Who has no keypoints, or is predicted nearer than 0.1 m or behind
            the camera, comes back as predicted, bit for bit.
        """
        fitted = SMPLParameters(rotmats.copy(), betas.copy(), translation.copy())
        rows = np.flatnonzero((keypoints[..., 2] > 0).any(1) & (translation[:, 2] > _NEAREST))
        if len(rows):
            predicted = SMPLParameters(*(array[rows].astype(np.float64) for array in fitted))
            arrays = (keypoints, size, img_hw, focal_length)
            view = _View(*(array[rows].astype(np.float64) for array in arrays))
            for whole, part in zip(fitted, self._fit(predicted, view), strict=True):
                whole[rows] = part
        return fitted

    def _fit(self, predicted: SMPLParameters, view: _View) -> SMPLParameters:
        bodies = predicted
        for iteration in range(_ITERATIONS):
            residual, jacobian, confidence = self._measure(bodies, view)
            errors = prediction_errors(predicted, bodies, view.size, view.focal_length)
            count = len(errors)
            measured = residual.reshape(count, -1) + (jacobian @ errors[..., None])[..., 0]  # y
            if iteration in _NOISE_CHOSEN_BEFORE:
                noise = self._noise(jacobian, measured, confidence)
            kernel = np.maximum(_KERNEL * noise, _WIDE_KERNEL * _NARROWING**iteration)
            weights = confidence / (1 + (residual**2).sum(-1) / kernel[:, None] ** 2) ** 2
            precision = np.repeat(np.sqrt(weights) / noise[:, None], 2, 1)
            step = self._posterior_mean(jacobian * precision[..., None], measured * precision) - errors
            bodies = _move(bodies, _shorten(step), view)
        return bodies

    def _measure(self, bodies: SMPLParameters, view: _View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The r (P, K, 2), H (P, 2 K, 85) and c (P, K); 0 where a keypoint is missing or its joint not in front."""
        points, by_body = self._kinematics(bodies.rotmats, bodies.betas)
        half = view.size / 2
        x, y, depth = np.moveaxis(points + bodies.translation[:, None], -1, 0)  # (P, K) each
        seen = (view.keypoints[..., 2] > 0) & (depth > _NEAREST)
        depth = np.where(seen, depth, 1)
        pixels = to_image(project(points, bodies.translation, view.focal_length), view.img_hw)
        residual = np.where(seen[..., None], view.keypoints[..., :2] - pixels, 0) / half[:, None, None]
        by_place = np.broadcast_to(_translation_by_place(bodies, view)[:, None], (*depth.shape, 3, 3))
        by_all = np.concatenate([by_body, by_place], -1)  # (P, K, 3, 85), of the joint in the camera
        magnified = np.where(seen, view.focal_length[:, None] / half[:, None] / depth, 0)[..., None]
        rows = [by_all[:, :, i] - (a / depth)[..., None] * by_all[:, :, 2] for i, a in enumerate((x, y))]
        jacobian = np.stack([magnified * row for row in rows], 2)
        return (
            residual,
            jacobian.reshape(len(points), -1, ERRORS),
            np.where(seen, view.keypoints[..., 2], 0).clip(max=1),
        )

    def _noise(self, jacobian: np.ndarray, measured: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """The noise level sigma (P,) that explains a person's keypoints best.

        Before anything is fitted, y ~ N(0, S) with S = H C H^T + diag(sigma^2 / c). With rows scaled by sqrt(c), and
        the eigenvalues l and eigenvectors u of what then is H C H^T, the logarithm of its density is up to a constant

            -1/2 sum_i [(u_i^T y)^2 / (l_i + sigma^2) + ln(l_i + sigma^2)]

        A missing keypoint is an l_i = 0 and is not counted. The levels tried are equally likely beforehand; returned is
        the posterior mean of their logarithm.
        """
        root = np.repeat(np.sqrt(confidence), 2, 1)
        scaled = jacobian * root[..., None]
        values, vectors = np.linalg.eigh(scaled @ self._covariance @ scaled.swapaxes(1, 2))
        along = (vectors.swapaxes(1, 2) @ (measured * root)[..., None]) ** 2  # (P, 2 K, 1)
        variance = values[..., None] + _NOISE_LEVELS**2  # (P, 2 K, levels)
        evidence = -0.5 * (along / variance + np.log(variance)).sum(1)
        evidence += (root == 0).sum(1)[:, None] * np.log(_NOISE_LEVELS)
        posterior = np.exp(evidence - evidence.max(1, keepdims=True))
        return np.exp(posterior @ np.log(_NOISE_LEVELS) / posterior.sum(1))

    def _posterior_mean(self, jacobian: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """The next e' (P, 85) from rows A (P, 2 K, 85) and y (P, 2 K), both scaled to noise of variance 1."""
        gain = jacobian @ self._covariance
        inner = gain @ jacobian.swapaxes(1, 2) + np.eye(jacobian.shape[1])
        return (gain.swapaxes(1, 2) @ np.linalg.solve(inner, measured[..., None]))[..., 0]


def _place(translation: np.ndarray, size: np.ndarray, focal_length: np.ndarray) -> np.ndarray:
    """The q of the top of this file, (P, 3)."""
    depth = translation[:, 2:]
    return np.concatenate([translation[:, :2] / depth * (focal_length / size)[:, None], np.log(depth)], 1)


def _translation_by_place(bodies: SMPLParameters, view: _View) -> np.ndarray:
    """Derivative of t = (q_1 e^q_3 b / f, q_2 e^q_3 b / f, e^q_3), (P, 3, 3)."""
    derivative = np.zeros((len(view.size), 3, 3))
    derivative[:, 0, 0] = derivative[:, 1, 1] = bodies.translation[:, 2] * view.size / view.focal_length
    derivative[:, :, 2] = bodies.translation
    return derivative


def _shorten(step: np.ndarray) -> np.ndarray:
    """Steps (P, 85) that stay where the linearisation means something."""
    turn, log_depth = np.abs(step[:, :72]).max(1), np.abs(step[:, 84])
    return step / np.maximum(np.maximum(turn / _LONGEST_TURN, log_depth / _LONGEST_LOG_DEPTH), 1)[:, None]


def _move(bodies: SMPLParameters, step: np.ndarray, view: _View) -> SMPLParameters:
    """R_j exp(step_j), beta + step, q + step."""
    turns = Rotation.from_rotvec(step[:, :72].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    place = _place(bodies.translation, view.size, view.focal_length) + step[:, 82:]
    depth = np.exp(place[:, 2:])
    across = place[:, :2] * depth * (view.size / view.focal_length)[:, None]
    return SMPLParameters(bodies.rotmats @ turns, bodies.betas + step[:, 72:82], np.concatenate([across, depth], 1))
