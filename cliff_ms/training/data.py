"""What a training reads: annotation files, the stream of synthetic people, or both in each batch."""

from dataclasses import replace

from cliff_ms.body.files import Body
from cliff_ms.config import Config
from cliff_ms.data.batching import Batch, joined
from cliff_ms.data.dataset import TrainDataset
from cliff_ms.io.errors import InputError
from cliff_ms.synthetic.stream import KeypointStream


def for_workers(config: Config, workers: int) -> Config:
    """The configuration of each of some workers: with a `data.batch_size`.

    Args:
        config: The same for all.
        workers: How many train together.

    Raises:
        InputError: `data.global_batch_size` cannot be divided among them.
    """
    whole, batches = config.data.global_batch_size, workers * config.train.accumulate
    if not whole:
        return config
    if whole % batches:
        raise InputError(
            f"data.global_batch_size {whole} cannot be divided among {workers} worker(s) with train.accumulate "
            f"{config.train.accumulate}: choose numbers whose product divides it."
        )
    data = replace(config.data, global_batch_size=0, batch_size=whole // batches)
    return replace(config, data=data)


class TrainingData:
    """Batches of one worker; what all workers see together does not depend on how many they are.

    Args:
        config: The configuration of a worker, see `for_workers`.
        body: The body of the labels.
        rank: Number of this worker.
        world_size: How many there are.
        stream_batch: People that the stream makes at once; 0 for as many as a batch takes. A training that goes on with
            more or fewer workers keeps the number that it started with.

    Attributes:
        files: The annotation files, or None.
        stream_batch: The number that is used; 0 without a stream.

    Raises:
        InputError: What `TrainDataset` and `KeypointStream` raise.
    """

    def __init__(self, config: Config, body: Body, rank: int = 0, world_size: int = 1, stream_batch: int = 0) -> None:
        data = config.data
        self._rank, self._world_size = rank, world_size
        self._drawn = data.batch_size - data.from_files if data.stream else 0
        self._samples = world_size * config.train.accumulate * data.from_files  # of files, in an update
        self.stream_batch = stream_batch or self._drawn
        self.files = TrainDataset(config, rank, world_size) if data.from_files else None
        if data.stream and not config.model.reads_keypoints:
            raise InputError(
                f"data.stream makes keypoints, which model.encoder '{config.model.encoder}' does not read."
            )
        self._stream = (
            KeypointStream(
                body,
                config.model.joint_set,
                self.stream_batch,
                config.train.seed,
                known_focal_length=data.focal_length == "known",
                labelled=data.labelled,
            )
            if data.stream
            else None
        )

    def batch(self, index: int) -> Batch:
        """Load batch `index` of this worker, from 0 since the start of training."""
        if self._stream is None:
            return self.files.batch(index)
        batch = self._stream.people((index * self._world_size + self._rank) * self._drawn, self._drawn)
        return joined(batch, self.files.batch(index)) if self.files else batch

    def rows_of(self, step: int) -> list[tuple[str, int]]:
        """Annotation file and row of all workers' samples of an update, counted from 1."""
        return self.files.rows((step - 1) * self._samples, self._samples) if self.files else []
