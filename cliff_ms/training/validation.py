"""How good a network in training is: errors on held-out samples, and a picture of its projected joints."""

import logging
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from mindspore import Tensor, nn, ops

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
_ERRORS = ("mpjpe_mm", "pa_mpjpe_mm", "global_rotation_deg")
_TRUE_COLOUR, _PREDICTED_COLOUR, _PAPER = (60, 200, 60), (230, 60, 60), 40  # RGB; grey of a crop without pixels
_TILES, _TILE_HEIGHT = 8, 256

log = logging.getLogger("cliff_ms")


class _Sum(nn.Cell):
    """The sum of an array over all workers."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = ops.AllReduce()

    def construct(self, array: Tensor) -> Tensor:
        return self.reduce(array)


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
    outside, as exchanging the weights in training for their average would do. The workers share the samples, and all of
    them get the result, which does not depend on how many they are.

    Args:
        network: The copy with its loss.
        config: Which samples; that of a worker, see `data.for_workers`.
        body: For the stream.
        rank: Number of this worker.
        world_size: How many there are.

    Raises:
        InputError: What `Source` raises; an image that is not there, unless `data.bad_image` is 'skip'; or no sample
            has the 3D joints to compare with.
    """

    def __init__(self, network: CLIFFWithLoss, config: Config, body: Body, rank: int = 0, world_size: int = 1) -> None:
        self._network = network
        self._predict = _Predict(network)
        self._predict.set_train(False)
        self._workers, self._rank, self._world_size = config.data.workers, rank, world_size
        self._sum = _Sum() if world_size > 1 else None
        size = config.data.batch_size
        self._parts: list[
            tuple[Callable[[int], Batch], int]
        ] = []  # how to load batch i, and how many samples there are
        if not config.data.val and config.data.stream:
            step = size * world_size * config.train.accumulate
            stream = KeypointStream(
                body,
                config.model.joint_set,
                step,
                config.train.seed,
                held_out=True,
                known_focal_length=config.data.focal_length == "known",
                observation="clean",
            )
            self._parts.append((lambda index: stream.people(index * size, size), -(-HELD_OUT_SAMPLES // step) * step))
        for k, source in enumerate(config.data.val):
            opened = Source(source, config.model, f"data.val[{k}].image_dir")
            skip = config.data.bad_image == "skip"
            dataset = EvalDataset(opened, size, rows_with_pictures(opened, skip), skip_bad=skip)
            if not _labelled(dataset.annotations.keypoints3d[dataset.rows]).any():
                raise InputError(f"data.val: '{source.annotations}' has no row with all 3D joints to compare with.")
            self._parts.append((dataset.batch, len(dataset.rows)))
        self._batch_size = size

    @property
    def has_samples(self) -> bool:
        """Whether there is anything to validate on."""
        return bool(self._parts)

    def set_weights(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over the weights and statistics of the network in training."""
        for name, parameter in self._network.cliff.parameters_and_names():
            parameter.set_data(Tensor(arrays[name]))

    def validate(self, weights: dict[str, np.ndarray]) -> dict[str, float]:
        """Errors over all samples that have the labels; all workers call it together.

        Args:
            weights: As for `set_weights`; statistics of BatchNorm, of which every worker has its own, are worker 0's.

        Returns:
            `mpjpe_mm` and `pa_mpjpe_mm` of SPIN's 14 joints, aligned at the middle of the hips; `global_rotation_deg`;
            `count`, samples with 3D joints.
        """
        self.set_weights(self._of_worker_0(weights))
        errors = np.zeros((sum(samples for _, samples in self._parts), len(_ERRORS)), np.float32)
        known = np.zeros_like(errors)
        for places, batch in self._batches():
            kept = len(places)  # the last batch is filled up
            rotmats, joints, _ = self._run(batch)
            labelled = _labelled(batch.keypoints3d)
            pred, gt = (_from_hips(each)[labelled][:, _COMPARED] for each in (joints, batch.keypoints3d[..., :3]))
            found = np.zeros((len(joints), len(_ERRORS)), np.float32)
            found[labelled, 0], found[labelled, 1] = mpjpe(pred, gt), pa_mpjpe(pred, gt)
            has_smpl = batch.has_smpl > 0
            found[has_smpl, 2] = rotation_error(rotmats[:, 0], batch.rotmats[:, 0])[has_smpl]
            errors[places] = found[:kept]
            known[places] = np.stack([labelled, labelled, has_smpl], 1)[:kept]
        errors, known = self._over_workers(errors), self._over_workers(known) > 0
        means = {
            name: float(errors[known[:, k], k].mean(dtype=np.float64)) if known[:, k].any() else float("nan")
            for k, name in enumerate(_ERRORS)
        }
        return {**means, "count": int(known[:, 0].sum())}

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

    def _batches(self) -> Iterator[tuple[np.ndarray, Batch]]:
        """This worker's batches, and the numbers of their samples among all."""
        before = 0
        for load, samples in self._parts:
            numbers = range(self._rank, -(-samples // self._batch_size), self._world_size)
            batches = load_batches(lambda k: load(numbers[k]), self._workers, stop=len(numbers))  # noqa: B023
            for number, batch in zip(numbers, batches, strict=True):
                start = number * self._batch_size
                yield before + np.arange(start, min(start + self._batch_size, samples)), batch
            before += samples

    def _of_worker_0(self, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [name for name in weights if name.endswith(("moving_mean", "moving_variance"))]
        if self._world_size == 1 or not names:
            return weights
        mine = np.concatenate([weights[name] for name in names])
        shared = self._over_workers(mine if self._rank == 0 else np.zeros_like(mine))
        ends = np.cumsum([len(weights[name]) for name in names])
        return weights | dict(zip(names, np.split(shared, ends[:-1]), strict=True))

    def _over_workers(self, array: np.ndarray) -> np.ndarray:
        return array if self._sum is None else self._sum(Tensor(array)).asnumpy()

    def _run(self, batch: Batch) -> tuple[np.ndarray, ...]:
        return tuple(output.asnumpy() for output in self._predict(*map(Tensor, batch.network_inputs)))


def rows_with_pictures(source: Source, skip: bool) -> np.ndarray:
    """Rows of a source whose image is there; a missing one would else be found in the middle of the training.

    Raises:
        InputError: One is missing, and they are not to be skipped.
    """
    rows = np.arange(len(source))
    if not source.reads_pixels:
        return rows
    there = np.array([source.image_path(row).is_file() for row in rows])
    if there.all():
        return rows
    missing = np.flatnonzero(~there)
    what = f"{len(missing)} of the images of '{source.path}' are not there, such as '{source.image_path(missing[0])}'"
    if not skip:
        raise InputError(f"data.val: {what}; set data.bad_image to 'skip' to validate without them.")
    log.warning("data.val: %s: they are left out", what)
    return np.flatnonzero(there)


def _labelled(keypoints3d: np.ndarray) -> np.ndarray:
    """Whether all compared joints are known, (n,) bool."""
    return (keypoints3d[:, _COMPARED, 3] > 0).all(1)


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
