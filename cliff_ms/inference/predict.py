"""From an image and the people found in it to bodies in the camera of the full image."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cliff_ms import camera, runtime
from cliff_ms.body.errors import SMPLParameters, expected_deviations
from cliff_ms.body.files import Body, load_body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.body.smpl import SMPL
from cliff_ms.config import ModelConfig
from cliff_ms.data.batching import filled_batches, pose_in_batches
from cliff_ms.data.crop import box_to_crop, crop_affine, crop_rounded, normalize_image, normalize_keypoints
from cliff_ms.data.detections import Detections
from cliff_ms.inference.fit import Fit, View
from cliff_ms.inference.fit_track import TrackFit
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import JOINT_SETS, convert_keypoints
from cliff_ms.rotation import rotmat_to_axis_angle
from cliff_ms.weights.checkpoint import load_weights
from cliff_ms.weights.engine import load_network, resolve_engine
from cliff_ms.weights.networks import Network
from cliff_ms.zoo import bundled_model

_CROP = {"affine": crop_affine, "rounded": crop_rounded}

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True, eq=False)
class Estimate:
    """The parameters of the bodies of one image, not posed yet. P people; the frame is the full image's camera.

    Attributes:
        detections: Where they were found, in the same order.
        focal_length: px.
        img_hw: Height and width of the image, px.
        predicted: By the network. Float32.
        bodies: The same fitted to the keypoints, where there are some and the predictor fits.
        fit_sigma: (P,), see `People`.
    """

    detections: Detections
    focal_length: float
    img_hw: tuple[int, int]
    predicted: SMPLParameters
    bodies: SMPLParameters
    fit_sigma: np.ndarray


@dataclass(frozen=True, eq=False)
class People:
    """The bodies of one image. P people, V vertices; the frame is the full image's camera.

    Attributes:
        detections: Where they were found, in the same order.
        focal_length: px.
        img_hw: Height and width of the image, px.
        rotmats: (P, 24, 3, 3), relative to the parent joint, the root's to the camera.
        betas: (P, 10).
        translation: (P, 3) m; added to SMPL's output it gives camera coordinates.
        vertices: (P, V, 3) m, camera.
        joints: (P, 45, 3) m, camera.
        joints2d: (P, 45, 2) px, full image.
        fit_sigma: (P,) what the fit took the keypoints to be off by, as a share of the crop's height, see `fit.Fitted`;
            NaN of whoever was not fitted.
        error_2d: (P,) mean distance between the keypoints and what they stand for on the body, see `body.markers`, as a
            share of the crop's height; NaN of whoever has no keypoints.

    Examples:
        >>> from cliff_ms import load_predictor
        >>> from cliff_ms.data.detections import ANY_IMAGE, read_keypoints
        >>> from cliff_ms.io.images import read_image
        >>> from cliff_ms.zoo import EXAMPLES
        >>> found = read_keypoints(EXAMPLES / "people_keypoints.json")[ANY_IMAGE]
        >>> people = load_predictor()(read_image(EXAMPLES / "people.jpg"), found, focal_length=1100)
        >>> people.to_arrays("people.jpg")["pose"].shape
        (4, 72)
        >>> people.translation.shape
        (4, 3)
    """

    detections: Detections
    focal_length: float
    img_hw: tuple[int, int]
    rotmats: np.ndarray
    betas: np.ndarray
    translation: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    joints2d: np.ndarray
    fit_sigma: np.ndarray
    error_2d: np.ndarray

    def __len__(self) -> int:
        return len(self.betas)

    def to_arrays(self, image_name: str, image_index: int = 0) -> dict[str, np.ndarray]:
        """The arrays of the authors' demo, a row per person, and the joints in pixels.

        Args:
            image_name: Written to each row.
            image_index: Number of the image or frame, first column of `detection_all`.

        Returns:
            imgname (P,), pose (P, 72) axis-angle in rad, shape (P, 10), global_t (P, 3) m, pred_joints (P, 45, 3) m,
            focal_l (P,) px, detection_all (P, 8): image index, x1, y1, x2, y2 in px, detector's confidence twice (ours
            have no second one) and class 0; joints2d (P, 45, 2) px, fit_sigma and error_2d (P,).
        """
        count = len(self)
        scores = self.detections.scores[:, None]
        index = np.full((count, 1), float(image_index))
        return {
            "imgname": np.array([image_name] * count, dtype=np.str_),
            "pose": rotmat_to_axis_angle(self.rotmats).reshape(count, 72),
            "shape": self.betas,
            "global_t": self.translation,
            "pred_joints": self.joints,
            "focal_l": np.full(count, self.focal_length),
            "detection_all": np.hstack([index, self.detections.boxes, scores, scores, np.zeros((count, 1))]),
            "joints2d": self.joints2d,
            "fit_sigma": self.fit_sigma,
            "error_2d": self.error_2d,
        }


class Predictor:
    """Runs the whole way from pixels or keypoints to bodies.

    The graph is compiled for one batch size; the last batch of an image is filled up with repeated people.

    Args:
        network: The network, of any engine.
        config: The conventions of its weights.
        body: The body model.
        batch_size: People that go through the network at once.
        origin: Where the weights come from, in words.
        engine: What runs the network.
        deviations: How far the network's predictions are off, (85,), see `body.errors`; None for the table there.
        fits: Move the predicted bodies of people who come with keypoints until their joints lie on these, see `fit`.

    Attributes:
        body: The body model.
        origin: Where the weights come from, in words.
        engine: What runs the network.
        fits: Whether people are fitted to their keypoints.
    """

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        body: Body,
        batch_size: int = 1,
        origin: str = "",
        engine: str = "",
        deviations: np.ndarray | None = None,
        fits: bool = False,
    ) -> None:
        self.body = body
        self.origin, self.engine, self.fits = origin, engine, fits
        self._deviations = expected_deviations() if deviations is None else deviations
        self._fits: dict[str, Fit] = {}
        self._kinematics: dict[str, Kinematics] = {}
        self._network = network
        self._config = config
        self._smpl = SMPL(body)
        self._batch_size = batch_size

    def __call__(self, image: np.ndarray, detections: Detections, focal_length: float | None = None) -> People:
        """Estimate the bodies of the people found in one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            detections: The people; with the keypoints of the model's joint set if it reads keypoints.
            focal_length: px of the full image; None to estimate it (a diagonal field of view of 55 degrees).

        Returns:
            The bodies, in the order of the detections.

        Raises:
            InputError: Weights that read keypoints, and none given; weights that give no finite numbers.
        """
        return self.pose(self.estimate(image, detections, focal_length))

    def estimate(self, image: np.ndarray, detections: Detections, focal_length: float | None = None) -> Estimate:
        """The same without posing the bodies."""
        img_hw = image.shape[:2]
        if focal_length is None:
            focal_length = float(camera.estimate_focal_length(np.array(img_hw, np.float64)))
        count = len(detections.boxes)
        size, hw, focal = view = self._view(detections, img_hw, focal_length)
        center, _ = box_to_crop(detections.boxes, self._config.crop_hw)
        rotmats, betas, translation = (np.empty((count, *shape), np.float32) for shape in ((24, 3, 3), (10,), (3,)))
        for rows, _ in filled_batches(count, self._batch_size):
            inputs = self._inputs(image, detections, center[rows], size[rows], rows)
            outputs = self._network(inputs, center[rows], size[rows], hw[rows], focal[rows])
            rotmats[rows], betas[rows], _, translation[rows] = outputs
        if not all(np.isfinite(array).all() for array in (rotmats, betas, translation)):
            raise InputError("The network gives values that are not finite: bad weights.")
        predicted = bodies = SMPLParameters(rotmats, betas, translation)
        fit_sigma = np.full(count, np.nan)
        if self.fits and detections.keypoints is not None:
            bodies, fit_sigma = self._fit(detections.joint_set)(*predicted, detections.keypoints, *view)
        return Estimate(detections, focal_length, img_hw, predicted, bodies, fit_sigma)

    def fit_over_time(self, person: Estimate, times: np.ndarray, seen: np.ndarray) -> Estimate:
        """Fit one person through a video, see `fit_track`; with keypoints only where the predictor fits to them.

        Args:
            person: T frames of the same person, in place of P people.
            times: (T,) s, ascending.
            seen: (T,) bool, false for frames of which only the box is known; the first and the last are seen.

        Returns:
            The same with other bodies.
        """
        joint_set = person.detections.joint_set or "coco17"
        keypoints = person.detections.keypoints
        if keypoints is None:
            keypoints = np.zeros((len(times), len(JOINT_SETS[joint_set]), 3))
        view = View(keypoints, *self._view(person.detections, person.img_hw, person.focal_length))
        over_time = TrackFit(self._fit(joint_set), self.body)
        return replace(person, bodies=over_time(person.predicted, person.bodies, person.fit_sigma, view, times, seen))

    def pose(self, estimate: Estimate) -> People:
        """Pose estimated bodies.

        Args:
            estimate: What `estimate` returned.

        Returns:
            The bodies, in the same order.
        """
        rotmats, betas, translation = estimate.bodies
        vertices, joints = pose_in_batches(self._smpl, betas, rotmats, self._batch_size)
        size, hw, focal = self._view(estimate.detections, estimate.img_hw, estimate.focal_length)
        joints2d = camera.to_image(camera.project(joints, translation, focal), hw)
        moved = translation[:, None]
        return People(
            estimate.detections,
            estimate.focal_length,
            estimate.img_hw,
            rotmats,
            betas,
            translation,
            vertices + moved,
            joints + moved,
            joints2d,
            estimate.fit_sigma,
            self._error_2d(estimate.bodies, estimate.detections, size, hw, focal),
        )

    def _view(
        self, detections: Detections, img_hw: tuple[int, int], focal_length: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each person, height of the crop (P,) px, of the image (P, 2) px, and focal length (P,) px."""
        count = len(detections.boxes)
        _, size = box_to_crop(detections.boxes, self._config.crop_hw)
        return size, np.tile(np.array(img_hw, np.float32), (count, 1)), np.full(count, focal_length, np.float32)

    def _error_2d(
        self,
        bodies: SMPLParameters,
        detections: Detections,
        size: np.ndarray,
        img_hw: np.ndarray,
        focal_length: np.ndarray,
    ) -> np.ndarray:
        """See `People.error_2d`."""
        error = np.full(len(size), np.nan)
        if detections.keypoints is not None and len(size):
            rotmats, betas, translation = (array.astype(np.float64) for array in bodies)
            points, _ = self._markers(detections.joint_set)(rotmats, betas)
            pixels = camera.to_image(camera.project(points, translation, focal_length), img_hw)
            off = np.linalg.norm(pixels - detections.keypoints[..., :2], axis=-1)
            seen = detections.keypoints[..., 2] > 0
            known = seen.any(1)
            error[known] = np.mean(off[known], 1, where=seen[known]) / size[known]
        return error

    def _markers(self, joint_set: str) -> Kinematics:
        if joint_set not in self._kinematics:
            self._kinematics[joint_set] = Kinematics(self.body, JOINT_SETS[joint_set], as_detected=True)
        return self._kinematics[joint_set]

    def _fit(self, joint_set: str) -> Fit:
        if joint_set not in self._fits:
            self._fits[joint_set] = Fit(self.body, joint_set, self._deviations, as_detected=True)
        return self._fits[joint_set]

    def _inputs(
        self, image: np.ndarray, detections: Detections, center: np.ndarray, size: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        if self._config.reads_keypoints:
            if detections.keypoints is None:
                raise InputError(
                    "These weights read 2D keypoints, not pixels: give them with --keypoints, or leave out --boxes and "
                    "--detector."
                )
            keypoints = convert_keypoints(detections.keypoints[rows], detections.joint_set, self._config.joint_set)
            return normalize_keypoints(keypoints, center, size)
        cut = _CROP[self._config.crop_style]
        return np.stack(
            [normalize_image(cut(image, c, s, self._config.crop_hw)) for c, s in zip(center, size, strict=True)]
        )


def load_predictor(
    ckpt: str | Path | None = None,
    body: str | Path | Body | None = None,
    engine: str = "auto",
    batch_size: int = 1,
    fits: bool | None = None,
) -> Predictor:
    """Set up the network and the body model, on the device of `runtime.setup_device`, called here if nobody has.

    Args:
        ckpt: Weights with their side-car (.ckpt, .safetensors), or an exported .onnx; None for the bundled model, which
            reads 2D keypoints.
        body: The body model, or its file; None for the bundled free body.
        engine: 'auto', 'mindspore' or 'onnxruntime', see `engine.load_network`.
        batch_size: People that go through the network at once; an .onnx may have its own.
        fits: Fit the predictions to the people's 2D keypoints, where they have some; None where the weights read
            keypoints.

    Returns:
        The predictor.

    Raises:
        InputError: What `load_body`, `load_weights` and `engine.load_network` raise, or an unknown engine.

    Examples:
        >>> from cliff_ms import load_predictor
        >>> from cliff_ms.data.detections import ANY_IMAGE, read_keypoints
        >>> from cliff_ms.io.images import read_image
        >>> from cliff_ms.zoo import EXAMPLES
        >>> predictor = load_predictor(batch_size=4)
        >>> found = read_keypoints(EXAMPLES / "people_keypoints.json")[ANY_IMAGE]
        >>> people = predictor(read_image(EXAMPLES / "people.jpg"), found)
        >>> people.joints.shape
        (4, 45, 3)
    """
    if engine not in runtime.ENGINES:
        raise InputError(f"Unknown engine '{engine}': expected one of {', '.join(runtime.ENGINES)}.")
    body = body if isinstance(body, Body) else load_body(body)
    weights = load_weights(ckpt or bundled_model())
    runtime.ensure_device()
    engine = resolve_engine(engine, weights)
    network, batch_size = load_network(weights, engine, batch_size)
    meaning = weights.meaning
    if meaning.body != body.name:
        log.warning(
            "These weights predict pose and shape of the body model '%s', but are shown with '%s': poses carry over, "
            "shapes do not.",
            meaning.body,
            body.name,
        )
    fits = meaning.model.reads_keypoints if fits is None else fits
    deviations = meaning.expected_deviations()
    return Predictor(network, meaning.model, body, batch_size, meaning.origin, engine, deviations, fits)
