"""What is trained and evaluated on: annotation files, mixed, ordered and sharded, as batches."""

import logging
from typing import NamedTuple

import numpy as np

from cliff_ms.config import Config
from cliff_ms.data.batching import Batch, collate, filled_batches
from cliff_ms.data.crop import normalize_keypoints
from cliff_ms.data.occlusion import drawn_occluders, load_occluders
from cliff_ms.data.source import Source
from cliff_ms.io.errors import InputError

_MAX_BAD_IMAGES = 100  # in a row: then it is not the odd bad file, but the folder or the disk

log = logging.getLogger("cliff_ms")


class TrainDataset:
    """An endless row of augmented samples, cut into batches.

    The sources are mixed by partition: an epoch is as long as the longest source, one uniform draw per place picks the
    source by its share, and a source gives its rows in a shuffled order in which, within an epoch, none comes again
    before all have been. Epochs follow each other without a gap, so every sample of an epoch is used, and a batch may
    hold the end of one and the start of the next. Global batch g takes the places g B R to (g + 1) B R for R ranks of B
    samples each; the ranks share it. Order and augmentation of a place depend on the seed, the epoch and the place
    only: neither on the number of workers nor on where a run was resumed. R ranks of B see together what one rank of
    R B sees. B is `data.from_files`, all of a batch but for what a stream gives.

    Args:
        config: The whole configuration.
        rank: Number of this process, from 0.
        world_size: Number of processes, R.

    Attributes:
        epoch_length: Samples of an epoch, all ranks together.

    Raises:
        InputError: What `Source` raises; a source without a row to learn from; an occluder that cannot be used.
    """

    def __init__(self, config: Config, rank: int = 0, world_size: int = 1) -> None:
        occluders = load_occluders(config.augment.occluders) if config.augment.occluders else drawn_occluders()
        known = config.data.focal_length == "known"
        self._sources = [
            Source(source, config.model, f"data.train[{k}].image_dir", config.augment, occluders, known)
            for k, source in enumerate(config.data.train)
        ]
        self._rows = [_usable_rows(source) for source in self._sources]
        self._shares = np.cumsum([source.weight for source in config.data.train])
        self._shares /= self._shares[-1]
        self._seed = config.train.seed
        self._batch_size = config.data.from_files
        self._skip_bad = config.data.bad_image == "skip"
        self._rank, self._world_size = rank, world_size
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.epoch_length = max(len(rows) for rows in self._rows)

    def batch(self, index: int) -> Batch:
        """Load one batch.

        Args:
            index: Number of the batch since the start of training, from 0.

        Returns:
            The batch.

        Raises:
            InputError: A bad image, and `data.bad_image` is 'stop'; or 100 in a row are bad.
        """
        first = (index * self._world_size + self._rank) * self._batch_size
        places = [divmod(first + k, self.epoch_length) for k in range(self._batch_size)]
        return collate([self._read(epoch, place) for epoch, place in places])

    def rows(self, first: int, count: int) -> list[tuple[str, int]]:
        """Annotation file and row of some samples, those that stand in for bad images aside.

        Args:
            first: Place of the first since the start of training, among those of all ranks.
            count: How many.
        """
        found = []
        for epoch, place in (divmod(first + k, self.epoch_length) for k in range(count)):
            sources, positions = self._order(epoch)
            source, rows = self._sources[sources[place]], self._rows[sources[place]]
            found.append((source.path, source.annotations.file_row(rows[positions[place]])))
        return found

    @property
    def left_out(self) -> list[tuple[str, int, str]]:
        """Annotation file, row and reason of all rows whose labels cannot be right."""
        return [(source.path, *each) for source in self._sources for each in source.annotations.left_out.items()]

    def _read(self, epoch: int, place: int) -> Batch:
        sources, positions = self._order(epoch)
        source, rows = self._sources[sources[place]], self._rows[sources[place]]
        attempts = min(len(rows), _MAX_BAD_IMAGES)
        for shift in range(attempts):
            row = rows[(positions[place] + shift) % len(rows)]
            try:
                return source.read(row, np.random.default_rng((self._seed, epoch, place, 1)))
            except InputError as error:
                if not self._skip_bad:
                    raise InputError(f"{error} Set data.bad_image to 'skip' to train without it.") from None
                log.warning("skipped, another sample of the file takes its place: %s", error)
        raise InputError(f"Annotation file '{source.path}': {attempts} images in a row cannot be read; see the log.")

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Which source and which of its usable rows comes at each place of an epoch, (L,) each."""
        order = self._orders.get(epoch)
        if order is None:
            # NumPy pads seeds with zeros: the last number keeps this stream apart from those of the places.
            rng = np.random.default_rng((self._seed, epoch, 0, 2))
            sources = np.searchsorted(self._shares[:-1], rng.random(self.epoch_length), side="right")
            positions = np.empty(self.epoch_length, np.intp)
            for k, rows in enumerate(self._rows):
                drawn = np.flatnonzero(sources == k)
                rounds = -(-len(drawn) // len(rows))
                shuffled = [rng.permutation(len(rows)) for _ in range(rounds)]
                positions[drawn] = np.concatenate([*shuffled, np.zeros(0, np.intp)])[: len(drawn)]
            order = sources, positions
            self._orders = {**{e: o for e, o in self._orders.items() if abs(e - epoch) == 1}, epoch: order}
        return order


class InputKeypoints(NamedTuple):
    """What a keypoint model is given instead of a file's own keypoints and boxes; M rows.

    Attributes:
        keypoints: (M, K, 3) px and confidence, in the model's joint set.
        center: (M, 2) px of the boxes.
        size: (M,) px.
    """

    keypoints: np.ndarray
    center: np.ndarray
    size: np.ndarray


class EvalDataset:
    """Rows of one file once, in order, as they are; the last batch is filled up with its last row.

    N is the number of these rows, M of all rows of the file.

    Args:
        source: The file and its image folder.
        batch_size: B.
        rows: Those that are read, (N,); None for all.
        keypoints: Of all rows; None for those of the file.
        skip_bad: Whether a sample without any label stands in for one whose image cannot be read.

    Attributes:
        source: The same.
        annotations: All rows of the file.
        rows: Those that are read, (N,).
        batch_size: B.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        rows: np.ndarray | None = None,
        keypoints: InputKeypoints | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.source = source
        self.annotations = source.annotations
        self.rows = np.arange(len(source)) if rows is None else rows
        self.batch_size = batch_size
        self._keypoints = keypoints
        self._skip_bad = skip_bad
        self._batches = [self.rows[places] for places, _ in filled_batches(len(self.rows), batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def gender(self) -> np.ndarray | None:
        """(N,) of the rows that are read, or None."""
        return None if self.annotations.gender is None else self.annotations.gender[self.rows]

    @property
    def group(self) -> np.ndarray | None:
        """(N,) of the rows that are read, or None."""
        return None if self.annotations.group is None else self.annotations.group[self.rows]

    def places(self, index: int) -> np.ndarray:
        """Rows of the file in batch `index`, (B,); those that fill up come after all others."""
        return self._batches[index]

    def read(self, rows: np.ndarray) -> Batch:
        """Load some rows of the file.

        Raises:
            InputError: A bad image, unless it is to be skipped; or all are bad.
        """
        batch = collate(self._samples(rows))
        if self._keypoints is None:
            return batch
        keypoints, center, size = (array[rows] for array in self._keypoints)
        return batch._replace(inputs=normalize_keypoints(keypoints, center, size), center=center, bbox_size=size)

    def batch(self, index: int) -> Batch:
        """Load batch `index`, from 0, as `read` does."""
        return self.read(self.places(index))

    def _samples(self, rows: np.ndarray) -> list[Batch]:
        samples: dict[int, Batch] = {}
        for row in rows:
            try:
                samples[row] = samples.get(row) or self.source.read(row)
            except InputError as error:
                if not self._skip_bad:
                    raise
                log.warning("skipped: %s", error)
        if not samples:
            raise InputError(f"Annotation file '{self.source.path}': {len(rows)} images in a row cannot be read.")
        some = next(iter(samples.values()))
        labels = ("keypoints2d", "keypoints3d", "has_smpl")
        unlabelled = some._replace(**{label: np.zeros_like(getattr(some, label)) for label in labels})
        return [samples.get(row, unlabelled) for row in rows]


def _usable_rows(source: Source) -> np.ndarray:
    rows = source.usable_rows()
    if not len(rows):
        raise InputError(f"Annotation file '{source.path}': none of its {len(source)} rows has a label to learn from.")
    if len(rows) < len(source):
        log.info("%s: %d of %d rows have labels to learn from", source.path, len(rows), len(source))
    return rows
