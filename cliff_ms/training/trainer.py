"""The training loop: data, steps, schedule, validation, checkpoints; resumable at any moment."""

import dataclasses
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mindspore import Tensor, nn
from mindspore import dtype as mstype

from cliff_ms import runtime
from cliff_ms.body.files import Body
from cliff_ms.body.smpl import build_smpl
from cliff_ms.config import Config, TrainConfig
from cliff_ms.data.batching import Batch, joined
from cliff_ms.data.dataset import TrainDataset
from cliff_ms.data.loader import load_batches
from cliff_ms.io.errors import InputError
from cliff_ms.io.images import write_image
from cliff_ms.models.cliff import CLIFF, build_model
from cliff_ms.synthetic.stream import KeypointStream
from cliff_ms.training.dropout import seed_dropouts
from cliff_ms.training.errors import measure_weights
from cliff_ms.training.log import TrainLog
from cliff_ms.training.state import Progress, check_folder, load_state, make_folder, save_state
from cliff_ms.training.step import FIRST_SCALE, CLIFFTrainOneStepCell, CLIFFWithLoss, freeze_norm, set_fp16
from cliff_ms.training.validation import Validator
from cliff_ms.weights.checkpoint import (
    WeightsMeta,
    check_body,
    load_encoder,
    load_into,
    load_weights,
    model_differences,
    save_weights,
)
from cliff_ms.zoo import BUNDLED_BODY

# State that the next step does not read.
_PASSING = ("accumulated.", "learning_rate")

log = logging.getLogger("cliff_ms")


def train(
    config: Config, output_dir: Path, body: Body, resume: bool = False, rank: int = 0, world_size: int = 1
) -> int:
    """Train a network.

    Args:
        config: What to train, on what and how.
        output_dir: Where `config.yaml`, `log.jsonl`, `validation.jsonl`, TensorBoard's events, `checkpoints/` and
            `pictures/` go; only worker 0 writes.
        body: The body model of the labels.
        resume: Go on from the newest checkpoint in `output_dir`.
        rank: Number of this worker.
        world_size: How many there are.

    Returns:
        The exit code: 0 when all steps are done; 130 or 143 when a signal (Ctrl-C, SIGTERM) ended the training early;
        its state is saved. MindSpore turns a Ctrl-C into a SIGTERM while it compiles or runs a graph.

    Raises:
        InputError: The configuration, a file it names or the folder cannot be used; the disk is full.
    """
    load = open_data(config, body, rank, world_size)
    if rank == 0:
        check_folder(output_dir, config, resume)
    trainer = Trainer(config, body, world_size)
    if resume:
        trainer.restore(*load_state(output_dir, world_size))
    recorder = None
    if rank == 0:
        validator = Validator(network_with_loss(build_model(config.model), config, body), config, body)
        if not resume:
            make_folder(output_dir, config)  # only now: after a mistake in the configuration it can still be used
        recorder = Recorder(trainer, validator, output_dir, body)
    first = trainer.progress.step * config.train.accumulate
    batches = load_batches(load, config.data.workers, start=first)
    try:
        with runtime.stop_signals() as stop:
            return _loop(trainer, recorder, batches, stop, rank)
    finally:
        batches.close()
        if recorder:
            recorder.close()


def open_data(config: Config, body: Body, rank: int, world_size: int) -> Callable[[int], Batch]:
    """How to load batch i of this worker; it depends on i, the configuration and the worker only.

    Raises:
        InputError: What `TrainDataset` and `KeypointStream` raise.
    """
    data = config.data
    files = TrainDataset(config, rank, world_size) if data.from_files else None
    if not data.stream:
        return files.batch
    if not config.model.reads_keypoints:
        raise InputError(f"data.stream makes keypoints, which model.encoder '{config.model.encoder}' does not read.")
    known, drawn = data.focal_length == "known", data.batch_size - data.from_files
    stream = KeypointStream(
        body, config.model.joint_set, drawn, config.train.seed, known_focal_length=known, labelled=data.labelled
    )

    def load(index: int) -> Batch:
        batch = stream.batch(index * world_size + rank)
        return joined(batch, files.batch(index)) if files else batch

    return load


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step, counted from 1: `lr_drops` and `lr_anneal` of the configuration."""
    drops = sum(step > drop * config.steps for drop in config.lr_drops)
    left = (config.steps + 1 - step) / config.steps
    annealed = min(1.0, left / config.lr_anneal) if config.lr_anneal else 1.0
    return config.learning_rate * 0.1**drops * annealed


class Trainer:
    """The network with its optimiser and all state that a step changes.

    Args:
        config: The configuration.
        body: The body model.
        world_size: Workers.

    Attributes:
        progress: Where the training stands.
        step: The train step.

    Raises:
        InputError: The weights to start from do not fit; the body lacks a regressor.
    """

    def __init__(self, config: Config, body: Body, world_size: int) -> None:
        runtime.set_seed(config.train.seed)
        self.config = config
        self.progress = Progress(world_size=world_size)
        cliff = build_model(config.model)
        if config.train.pretrained:
            _load_pretrained(cliff, config, body)
        self.weight_names = [name for name, _ in cliff.parameters_and_names()]
        key = seed_dropouts(cliff)
        half = config.train.precision == "fp16"
        if half:
            set_fp16(cliff)
        settings = config.train
        self.step = CLIFFTrainOneStepCell(
            network_with_loss(cliff, config, body),
            nn.Adam(cliff.trainable_params(), settings.learning_rate),
            key,
            accumulate=settings.accumulate,
            clip_norm=settings.clip_norm,
            ema=settings.ema,
            loss_scale=(settings.loss_scale or FIRST_SCALE) if half else 1.0,
            dynamic_scale=half and not settings.loss_scale,
        )
        self.step.set_train()
        if settings.freeze_norm:
            freeze_norm(cliff)

    def run(self, batches: list[Batch], stop: bool, rank: int) -> tuple[dict[str, float], bool]:
        """One step of all workers.

        Args:
            batches: `accumulate` of this worker's.
            stop: Whether this worker was asked to stop.
            rank: Number of this worker.

        Returns:
            Loss, terms, learning rate and skipped steps, ready for the log; whether any worker was asked to stop.
        """
        settings, number = self.config.train, self.progress.step + 1
        rate = learning_rate(settings, number)
        reports = []
        for micro, batch in enumerate(batches):
            # Dropout is a function of the seed and the place in training, so that it needs no state.
            key = np.random.default_rng((settings.seed, number, micro, rank)).random(2)
            report, skipped = self.step(
                micro == settings.accumulate - 1,
                Tensor(micro == 0),
                Tensor(rate, mstype.float32),
                Tensor(key.astype(np.float32)),
                Tensor([float(stop)], mstype.float32),
                *map(Tensor, batch),
            )
            reports.append(report.asnumpy())
        self.progress = dataclasses.replace(self.progress, step=number)
        loss, *terms, stopping = np.mean(reports, 0).tolist()
        names = self.step.network.term_names
        line = {"loss": loss, **dict(zip(names, terms, strict=True)), "lr": rate, "skipped": int(skipped.asnumpy())}
        return line, stopping > 0

    def state(self) -> dict[str, np.ndarray]:
        """All arrays that the next step depends on, by name."""
        return {name: parameter.asnumpy() for name, parameter in self._state().items()}

    def restore(self, arrays: dict[str, np.ndarray], progress: Progress) -> None:
        """Go back to a saved state; possible before the first step only, see `Validator`.

        Args:
            arrays: What `state` gave; nothing for a training that was ended before its first checkpoint.
            progress: What belongs to them.
        """
        for name, parameter in self._state().items() if arrays else ():
            parameter.set_data(Tensor(arrays[name]))
        self.progress = progress

    def weights(self) -> dict[str, np.ndarray]:
        """The network's parameters under their own names, the weights averaged if `train.ema` is set."""
        state = self.state()
        return {name: state.get(f"average.{name}", state[name]) for name in self.weight_names}

    def _state(self) -> dict[str, object]:
        parameters = {parameter.name: parameter for parameter in self.step.get_parameters()}
        return {
            name: p for name, p in parameters.items() if not name.startswith(_PASSING) and "dropout_key" not in name
        }


class Recorder:
    """What worker 0 does besides the steps: logs, validation, checkpoints, pictures, the progress bar.

    Args:
        trainer: The training.
        validator: What it is validated by.
        output_dir: OUTPUT_DIR.
        body: The body model.

    Raises:
        InputError: The folder cannot be written.
    """

    def __init__(self, trainer: Trainer, validator: Validator, output_dir: Path, body: Body) -> None:
        self._trainer, self._config, self._output_dir, self._body = trainer, trainer.config, output_dir, body
        self._validator = validator
        settings, step = self._config.train, trainer.progress.step
        self._samples = self._config.data.batch_size * settings.accumulate * trainer.progress.world_size
        self._log = TrainLog(output_dir, step)
        self._bar = tqdm(
            total=settings.steps, initial=step, unit="step", mininterval=1 if sys.stderr.isatty() else 30, smoothing=0.1
        )

    def record(self, line: dict[str, float], batch: Batch) -> None:
        """Note a step, and validate, draw and save when it is time.

        Args:
            line: What `Trainer.run` gave.
            batch: What to draw.
        """
        settings, step = self._config.train, self._trainer.progress.step
        self._log.write("log", step, line)
        self._bar.update()
        rate = self._bar.format_dict["rate"] or 0
        shown = {name: f"{value:.3g}" for name, value in line.items() if name != "lr"}
        self._bar.set_postfix({**shown, "samples/s": f"{rate * self._samples:.0f}"}, refresh=False)
        finished = step == settings.steps
        if self._validator.has_samples and settings.val_every and (step % settings.val_every == 0 or finished):
            self._validate(step)
        if settings.picture_every and step % settings.picture_every == 0:
            self._draw(step, batch)
        if finished:  # before the state: a training that is resumed at its last step has nothing left to do
            # Of a network that reads pixels nobody has people to measure on.
            weights, stream = self._trainer.weights(), self._config.data.stream
            measured = measure_weights(weights, self._config.model, self._body) if stream else ()
            self._save_weights("final", {}, measured)
        if step % settings.save_every == 0 or finished:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        save_state(self._output_dir, self._trainer.state(), self._trainer.progress, self._config.train.keep)

    def close(self) -> None:
        """Close bar and files."""
        self._bar.close()
        self._log.close()

    def _validate(self, step: int) -> None:
        self._validator.set_weights(self._trainer.weights())
        errors = self._validator.validate()
        self._log.write("validation", step, errors)
        self._bar.write(
            f"step {step}: " + ", ".join(f"{name} {value:.1f}" for name, value in errors.items()), sys.stderr
        )
        best = self._trainer.progress.best_mpjpe_mm
        if best is None or errors["mpjpe_mm"] < best:
            self._save_weights("best", {name: value for name, value in errors.items() if math.isfinite(value)})
            self._trainer.progress = dataclasses.replace(self._trainer.progress, best_mpjpe_mm=errors["mpjpe_mm"])

    def _draw(self, step: int, batch: Batch) -> None:
        self._validator.set_weights(self._trainer.weights())
        folder = self._output_dir / "pictures"
        folder.mkdir(exist_ok=True)
        write_image(folder / f"step_{step:08d}.jpg", self._validator.picture(batch))

    def _save_weights(self, name: str, metrics: dict[str, float], error_deviations: tuple[float, ...] = ()) -> None:
        origin = f"Trained by train.py, {self._trainer.progress.step} steps."
        meta = WeightsMeta(
            self._config.model, origin, body=self._body.name, metrics=metrics, error_deviations=error_deviations
        )
        save_weights(self._output_dir / "checkpoints" / f"{name}.ckpt", self._trainer.weights(), meta)


def network_with_loss(cliff: CLIFF, config: Config, body: Body) -> CLIFFWithLoss:
    """A network with body and loss as the configuration says."""
    weights = dataclasses.asdict(config.loss)
    full_frame = weights.pop("full_frame")
    smpl = build_smpl(body, config.body or str(BUNDLED_BODY), weights["vertices"] > 0)
    return CLIFFWithLoss(cliff, smpl, weights, config.model.bbox_norm, full_frame, config.model.crop_hw)


def _loop(
    trainer: Trainer, recorder: Recorder | None, batches: Iterator[Batch], stop: runtime.StopRequest, rank: int
) -> int:
    settings = trainer.config.train
    while trainer.progress.step < settings.steps:
        loaded = [next(batches) for _ in range(settings.accumulate)]
        line, stopping = trainer.run(loaded, stop.signal is not None, rank)
        if recorder:
            recorder.record(line, loaded[-1])
        if stopping and trainer.progress.step < settings.steps:
            if recorder:
                recorder.save()
            log.warning("stopped after step %d; go on with --resume", trainer.progress.step)
            return 128 + (stop.signal or signal.SIGTERM)
    return 0


def _load_pretrained(cliff: CLIFF, config: Config, body: Body) -> None:
    weights = load_weights(config.train.pretrained)
    if weights.meaning.part == "encoder":
        load_encoder(cliff, weights)
        return
    # Crops are made in one way only while training.
    differing = model_differences(weights.meaning.model, config.model, ignored=("crop_style",))
    if differing:
        raise InputError(f"train.pretrained: {weights.path} was made for another 'model': {differing}.")
    check_body(weights.meaning, body, f"train.pretrained: {weights.path}")
    load_into(cliff, weights.arrays, str(weights.path))
