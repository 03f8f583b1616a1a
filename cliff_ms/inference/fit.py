"""From a network's prediction to the body whose joints lie on the keypoints, in the camera of the full image.

A person's body is counted from the network's prediction by the 85 numbers e of `body.errors`; Eq. (7) of CLIFF gave its
translation.

The prior is what is known of the network's errors: e ~ N(0, C), C diagonal. The measurement is Eq. (8) in halves of the
crop's height b, f is the focal length:

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

What a detector reports are not the body's own joints: X are then the markers of `body.markers`, c_k is divided by the
square of how widely joint k scatters, and the lowest levels of sigma are left out, which no detector reaches.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.body.errors import ERRORS, SMPLParameters, image_place, prediction_errors
from cliff_ms.body.files import Body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.body.markers import of_coco
from cliff_ms.camera import project, to_image
from cliff_ms.keypoints import JOINT_SETS

_ITERATIONS = 4
_NOISE_LEVELS = np.array((0.005, 0.01, 0.02, 0.04, 0.08))  # sigma, half box heights
_DETECTORS_LEVELS = _NOISE_LEVELS[2:]
_NOISE_CHOSEN_BEFORE = (0, 2)  # iterations
KERNEL = 4.0  # s, in sigma, and its lower limit in half box heights: wide at first, then narrower
_WIDE_KERNEL, _NARROWING = 0.3, 0.6
_LONGEST_TURN, _LONGEST_LOG_DEPTH = 0.5, 0.3  # rad about an axis, and of ln t_z, in one step
NEAREST = 0.1  # m; what is nearer to the camera, or behind it, is not seen


class Fitted(NamedTuple):
    """P people after the fit.

    Attributes:
        bodies: Float32.
        sigma: (P,) what the fit took the keypoints to be off by: the deviation of a coordinate, as a share of the
            crop's height; NaN of people who came back as predicted. Where it is large, keypoints and body do not go
            together: one of them is wrong.
    """

    bodies: SMPLParameters
    sigma: np.ndarray


class View(NamedTuple):
    """What the cameras saw of P people: keypoints (P, K, 3), size (P,), img_hw (P, 2) and focal_length (P,) px."""

    keypoints: np.ndarray
    size: np.ndarray
    img_hw: np.ndarray
    focal_length: np.ndarray


class Fit:
    """Moves predicted bodies until their joints lie on the keypoints, as far as both can be trusted.

    It does not notice left and right legs mixed up: of 600 synthetic people with exact keypoints, all swapped so, the
    bundled model is off by 191 mm (PA-MPJPE 120), and after the fit by 195 mm (136). But their noise level says so: in
    the median 3.9 % of the crop's height, of the 4 % that are tried, where it is 0.3 % with the legs as they are.

    Args:
        body: The body.
        joint_set: The order of the keypoints, a key of `keypoints.JOINT_SETS`.
        deviations: (85,), the roots of the diagonal of C, see `body.errors.expected_deviations`.
        as_detected: The keypoints are a detector's, or those of people who label photos; else exact joints of the body.
    """

    def __init__(self, body: Body, joint_set: str, deviations: np.ndarray, as_detected: bool = False) -> None:
        names = JOINT_SETS[joint_set]
        self._kinematics = Kinematics(body, names, as_detected)
        self.variance = deviations**2
        self._levels = _DETECTORS_LEVELS if as_detected else _NOISE_LEVELS
        spread = of_coco("spread", names)
        self._precision = (np.median(spread) / spread) ** 2 if as_detected else np.ones(len(names))

    def __call__(
        self,
        rotmats: np.ndarray,
        betas: np.ndarray,
        translation: np.ndarray,
        keypoints: np.ndarray,
        size: np.ndarray,
        img_hw: np.ndarray,
        focal_length: np.ndarray,
    ) -> Fitted:
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
            The people in the same order. Who has no keypoints, or is predicted nearer than 0.1 m or behind the camera,
            comes back as predicted, bit for bit.
        """
        fitted = SMPLParameters(rotmats.copy(), betas.copy(), translation.copy())
        sigma = np.full(len(fitted.betas), np.nan)
        rows = np.flatnonzero((keypoints[..., 2] > 0).any(1) & (translation[:, 2] > NEAREST))
        if len(rows):
            predicted = SMPLParameters(*(array[rows].astype(np.float64) for array in fitted))
            arrays = (keypoints, size, img_hw, focal_length)
            view = View(*(array[rows].astype(np.float64) for array in arrays))
            found, noise = self._fit(predicted, view)
            for whole, part in zip(fitted, found, strict=True):
                whole[rows] = part
            sigma[rows] = noise / 2
        return Fitted(fitted, sigma)

    def _fit(self, predicted: SMPLParameters, view: View) -> tuple[SMPLParameters, np.ndarray]:
        bodies = predicted
        for iteration in range(_ITERATIONS):
            residual, jacobian, confidence = self.measure(bodies, view)
            errors = prediction_errors(predicted, bodies, view.size, view.focal_length)
            count = len(errors)
            measured = residual.reshape(count, -1) + (jacobian @ errors[..., None])[..., 0]  # y
            if iteration in _NOISE_CHOSEN_BEFORE:
                noise = self._noise(jacobian, measured, confidence)
            kernel = np.maximum(KERNEL * noise, _WIDE_KERNEL * _NARROWING**iteration)
            weights = confidence / (1 + (residual**2).sum(-1) / kernel[:, None] ** 2) ** 2
            precision = np.repeat(np.sqrt(weights) / noise[:, None], 2, 1)
            step = self._posterior_mean(jacobian * precision[..., None], measured * precision) - errors
            bodies = move(bodies, shorten(step), view)
        return bodies, noise

    def measure(self, bodies: SMPLParameters, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The r (P, K, 2), H (P, 2 K, 85) and c (P, K); 0 where a keypoint is missing or its joint not in front."""
        points, by_body = self._kinematics(bodies.rotmats, bodies.betas)
        half = view.size / 2
        x, y, depth = np.moveaxis(points + bodies.translation[:, None], -1, 0)  # (P, K) each
        seen = (view.keypoints[..., 2] > 0) & (depth > NEAREST)
        depth = np.where(seen, depth, 1)
        pixels = to_image(project(points, bodies.translation, view.focal_length), view.img_hw)
        residual = np.where(seen[..., None], view.keypoints[..., :2] - pixels, 0) / half[:, None, None]
        by_place = np.broadcast_to(translation_by_place(bodies, view)[:, None], (*depth.shape, 3, 3))
        by_all = np.concatenate([by_body, by_place], -1)  # (P, K, 3, 85), of the joint in the camera
        magnified = np.where(seen, view.focal_length[:, None] / half[:, None] / depth, 0)[..., None]
        rows = [by_all[:, :, i] - (a / depth)[..., None] * by_all[:, :, 2] for i, a in enumerate((x, y))]
        jacobian = np.stack([magnified * row for row in rows], 2)
        return (
            residual,
            jacobian.reshape(len(points), -1, ERRORS),
            np.where(seen, view.keypoints[..., 2], 0).clip(max=1) * self._precision,
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
        values, vectors = np.linalg.eigh((scaled * self.variance) @ scaled.swapaxes(1, 2))
        along = (vectors.swapaxes(1, 2) @ (measured * root)[..., None]) ** 2  # (P, 2 K, 1)
        variance = values[..., None] + self._levels**2  # (P, 2 K, levels)
        evidence = -0.5 * (along / variance + np.log(variance)).sum(1)
        evidence += (root == 0).sum(1)[:, None] * np.log(self._levels)
        posterior = np.exp(evidence - evidence.max(1, keepdims=True))
        return np.exp(posterior @ np.log(self._levels) / posterior.sum(1))

    def _posterior_mean(self, jacobian: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """The next e' (P, 85) from rows A (P, 2 K, 85) and y (P, 2 K), both scaled to noise of variance 1."""
        gain = jacobian * self.variance
        inner = gain @ jacobian.swapaxes(1, 2) + np.eye(jacobian.shape[1])
        return (gain.swapaxes(1, 2) @ np.linalg.solve(inner, measured[..., None]))[..., 0]


def translation_by_place(bodies: SMPLParameters, view: View) -> np.ndarray:
    """Derivative of t = (q_1 e^q_3 b / f, q_2 e^q_3 b / f, e^q_3), (P, 3, 3)."""
    derivative = np.zeros((len(view.size), 3, 3))
    derivative[:, 0, 0] = derivative[:, 1, 1] = bodies.translation[:, 2] * view.size / view.focal_length
    derivative[:, :, 2] = bodies.translation
    return derivative


def shorten(step: np.ndarray) -> np.ndarray:
    """Steps (P, 85) that stay where the linearisation means something."""
    turn, log_depth = np.abs(step[:, :72]).max(1), np.abs(step[:, 84])
    return step / np.maximum(np.maximum(turn / _LONGEST_TURN, log_depth / _LONGEST_LOG_DEPTH), 1)[:, None]


def move(bodies: SMPLParameters, step: np.ndarray, view: View) -> SMPLParameters:
    """R_j exp(step_j), beta + step, q + step."""
    turns = Rotation.from_rotvec(step[:, :72].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    place = image_place(bodies.translation, view.size, view.focal_length) + step[:, 82:]
    depth = np.exp(place[:, 2:])
    across = place[:, :2] * depth * (view.size / view.focal_length)[:, None]
    return SMPLParameters(bodies.rotmats @ turns, bodies.betas + step[:, 72:82], np.concatenate([across, depth], 1))
