"""How good a network in training is: errors on held-out samples, and a picture of its projected joints."""

from collections.abc import Iterator

import cv2
import numpy as np

from mindspore import Tensor, nn

from cliff_ms.body.files import Body
from cliff_ms.config import Config
from cliff_ms.data.batching import Batch
from cliff_ms.data.crop import IMAGENET_MEAN, IMAGENET_STD
from cliff_ms.data.dataset import EvalDataset
from cliff_ms.data.loader import load_batches
from cliff_ms.data.source import Source
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SPIN24
from cliff_ms.metrics import mpjpe, pa_mpjpe, rotation_error
from cliff_ms.synthetic.stream import KeypointStream
from cliff_ms.training.losses import LEFT_HIP, RIGHT_HIP
from cliff_ms.training.step import CLIFFWithLoss

HELD_OUT_SAMPLES = 2048  # of the stream
# SPIN's 14 evaluated joints: limbs, neck, head.
_COMPARED = [*range(13), SPIN24.index("head_h36m")]
_TRUE_COLOUR, _PREDICTED_COLOUR, _PAPER = (60, 200, 60), (230, 60, 60), 40  # RGB; grey of a crop without pixels
_TILES, _TILE_HEIGHT = 8, 256


class _Predict(nn.Cell):
    def __init__(self, network: CLIFFWithLoss) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(
        self, inputs: Tensor, center: Tensor, size: Tensor, img_hw: Tensor, focal_length: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        rotmats, _, _, _, joints, points = self.network.predict(inputs, center, size, img_hw, focal_length)
        return rotmats, joints, points


class Validator:
    """A second copy of the network, always in evaluation mode and single precision.

    A copy, because MindSpore 2.10 loses track of parameters that are both assigned in a compiled graph and set from
    outside, as exchanging the weights in training for their average would do.

    Args:
        network: The copy with its loss.
        config: Which samples.
        body: For the stream.

    Raises:
        InputError: What `Source` raises; or no sample has the 3D joints to compare with.
    """

    def __init__(self, network: CLIFFWithLoss, config: Config, body: Body) -> None:
        self._network = network
        self._predict = _Predict(network)
        self._predict.set_train(False)
        self._workers = config.data.workers
        size = config.data.batch_size
        self._parts = []  # load, batches, samples
        if not config.data.val and config.data.stream:
            known = config.data.focal_length == "known"
            stream = KeypointStream(
                body,
                config.model.joint_set,
                size,
                config.train.seed,
                held_out=True,
                known_focal_length=known,
                observation="clean",
            )
            batches = -(-HELD_OUT_SAMPLES // size)
            self._parts.append((stream.batch, batches, batches * size))
        for source in config.data.val:
            dataset = EvalDataset(Source(source, config.model, "data.val"), size)
            if not (dataset.annotations.keypoints3d[:, _COMPARED, 3] > 0).all(1).any():
                raise InputError(f"data.val: '{source.annotations}' has no row with all 3D joints to compare with.")
            self._parts.append((dataset.batch, len(dataset), len(dataset.rows)))

    @property
    def has_samples(self) -> bool:
        """Whether there is anything to validate on."""
        return bool(self._parts)

    def set_weights(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over the weights and statistics of the network in training."""
        for name, parameter in self._network.cliff.parameters_and_names():
            parameter.set_data(Tensor(arrays[name]))

    def validate(self) -> dict[str, float]:
        """Errors over all samples that have the labels.

        Returns:
            `mpjpe_mm` and `pa_mpjpe_mm` of SPIN's 14 joints, aligned at the middle of the hips; `global_rotation_deg`;
            `count`, samples with 3D joints.
        """
        joint_errors, aligned_errors, angles = [], [], []
        for batch, count in self._batches():
            rotmats, joints, _ = self._run(batch)
            counted = np.arange(len(joints)) < count  # the last batch is filled up
            labelled = counted & (batch.keypoints3d[:, _COMPARED, 3] > 0).all(1)
            pred, gt = (_from_hips(j[labelled])[:, _COMPARED] for j in (joints, batch.keypoints3d[..., :3]))
            joint_errors.append(mpjpe(pred, gt))
            aligned_errors.append(pa_mpjpe(pred, gt))
            angles.append(rotation_error(rotmats[:, 0], batch.rotmats[:, 0])[counted & (batch.has_smpl > 0)])
        errors = np.concatenate(joint_errors)
        angles = np.concatenate(angles)
        return {
            "mpjpe_mm": float(errors.mean()),
            "pa_mpjpe_mm": float(np.concatenate(aligned_errors).mean()),
            "global_rotation_deg": float(angles.mean()) if len(angles) else float("nan"),
            "count": len(errors),
        }

    def picture(self, batch: Batch) -> np.ndarray:
        """Projected joints over the crops of the first samples of a batch.

        Args:
            batch: The samples.

        Returns:
            (h, W, 3) uint8 RGB, a row of crops: labels green, predictions red, a line from one to the other.
        """
        _, _, points = self._run(batch)
        tiles = []
        for row in range(min(_TILES, len(points))):
            tile, keypoints = _crop_picture(batch.inputs[row]), batch.keypoints2d[row]
            scale = tile.shape[0] / batch.bbox_size[row]
            middle = np.array(tile.shape[1::-1]) / 2
            true, pred = ((p - batch.center[row]) * scale + middle for p in (keypoints[:, :2], points[row]))
            for joint in np.flatnonzero(keypoints[:, 2] > 0):
                _draw_line(tile, true[joint], pred[joint])
            for joint in np.flatnonzero(keypoints[:, 2] > 0):
                _draw_dot(tile, true[joint], _TRUE_COLOUR)
            for point in pred:
                _draw_dot(tile, point, _PREDICTED_COLOUR)
            tile[:, -1] = 255
            tiles.append(tile)
        return np.concatenate(tiles, 1)

    def _batches(self) -> Iterator[tuple[Batch, int]]:
        """Every batch and how many of its samples count."""
        for load, batches, samples in self._parts:
            for batch in load_batches(load, self._workers, stop=batches):
                yield batch, samples
                samples -= len(batch.inputs)

    def _run(self, batch: Batch) -> tuple[np.ndarray, ...]:
        return tuple(output.asnumpy() for output in self._predict(*map(Tensor, batch.network_inputs)))


def _from_hips(joints: np.ndarray) -> np.ndarray:
    return joints - joints[:, [RIGHT_HIP, LEFT_HIP]].mean(1, keepdims=True)


def _crop_picture(inputs: np.ndarray) -> np.ndarray:
    """What the network reads, as (h, w, 3) uint8 RGB; of keypoints (K, 3) only where the crop is."""
    if inputs.ndim == 2:
        return np.full((_TILE_HEIGHT, _TILE_HEIGHT * 3 // 4, 3), _PAPER, np.uint8)
    crop = inputs.transpose(1, 2, 0) * IMAGENET_STD + IMAGENET_MEAN
    return np.ascontiguousarray((255 * crop).clip(0, 255).astype(np.uint8))


def _draw_line(tile: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    ends = [tuple(int(v) for v in point.clip(-10_000, 10_000)) for point in (start, end)]
    cv2.line(tile, *ends, (200, 200, 200), 1, cv2.LINE_AA)


def _draw_dot(tile: np.ndarray, point: np.ndarray, colour: tuple[int, int, int]) -> None:
    cv2.circle(tile, tuple(int(v) for v in point.clip(-10_000, 10_000)), 2, colour, -1, cv2.LINE_AA)
