"""The training loop: data, steps, schedule, validation, checkpoints; resumable at any moment."""

import logging
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from mindspore import Tensor, nn
from mindspore import dtype as mstype

from cliff_ms import runtime
from cliff_ms.body.files import Body
from cliff_ms.body.smpl import build_smpl
from cliff_ms.config import Config, TrainConfig
from cliff_ms.data.batching import Batch
from cliff_ms.data.loader import load_batches
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import CLIFF, build_model
from cliff_ms.training.data import TrainingData, for_workers
from cliff_ms.training.dropout import seed_dropouts
from cliff_ms.training.recorder import Recorder
from cliff_ms.training.state import Progress, check_folder, describe_training, load_state, locked_folder
from cliff_ms.training.step import (
    FIRST_SCALE,
    HALF_PRECISION,
    CLIFFTrainOneStepCell,
    CLIFFWithLoss,
    check_device,
    freeze_norm,
    set_half_precision,
    synchronise_norm,
)
from cliff_ms.training.validation import Validator
from cliff_ms.training.watch import Watch
from cliff_ms.weights.checkpoint import check_body, load_encoder, load_into, load_weights, model_differences
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
        InputError: The configuration, a file it names, the device or the folder cannot be used; the disk is full.
    """
    check_device(config.train, runtime.current_device())
    with locked_folder(output_dir) if rank == 0 else nullcontext():
        if rank == 0:
            check_folder(output_dir, config, resume)
        mine = for_workers(config, world_size)
        arrays, progress = load_state(output_dir) if resume else ({}, Progress())
        data = TrainingData(mine, body, rank, world_size, progress.stream_batch)
        trainer = Trainer(mine, body, world_size)
        trainer.restore(arrays, _same_samples(progress, trainer, data, output_dir))
        network = network_with_loss(build_model(config.model), config, body)
        validator = Validator(network, mine, body, rank, world_size)
        recorder = None
        if rank == 0:  # the folder only now: after a mistake in the configuration it can still be used
            describe_training(output_dir, config, data.files.left_out if data.files else [])
            log.info("%s", _plan(mine, data, trainer.progress, world_size))
            recorder = Recorder(trainer, data, validator, output_dir, body)
        batches = load_batches(data.batch, mine.data.workers, start=trainer.progress.step * config.train.accumulate)
        try:
            with runtime.stop_signals() as stop:
                return _loop(trainer, validator, recorder, batches, stop, rank)
        except Exception:
            if recorder and trainer.whole:
                recorder.save()
            raise
        finally:
            batches.close()
            if recorder:
                recorder.close()


def _same_samples(progress: Progress, trainer: "Trainer", data: TrainingData, output_dir: Path) -> Progress:
    """What a training goes on from, if it takes as many samples a step as before.

    Raises:
        InputError: It does not.
    """
    samples = trainer.progress.samples, trainer.progress.file_samples
    if not progress.step:
        return replace(trainer.progress, stream_batch=data.stream_batch)
    if (progress.samples, progress.file_samples) != samples:
        raise InputError(
            f"'{output_dir}' was trained with {progress.samples} samples a step, {progress.file_samples} of them from "
            f"files, and now there would be {samples[0]} and {samples[1]}: keep data.global_batch_size, or batch size "
            "times workers times train.accumulate."
        )
    return progress


def _plan(config: Config, data: TrainingData, progress: Progress, world_size: int) -> str:
    """Batch, epochs and steps in one line."""
    share = f"{world_size} worker(s) x {config.train.accumulate} batch(es) x {config.data.batch_size}"
    steps = config.train.steps
    plan = f"{progress.samples} samples a step: {share}; {steps:,} steps"
    if data.files is None:
        return f"{plan} of the endless stream"
    epoch = data.files.epoch_length / progress.file_samples
    return f"{plan}, {steps / epoch:.1f} epochs of {epoch:,.1f} steps"


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
        whole: Whether no step is half done, so that the state can be saved.

    Raises:
        InputError: The weights to start from do not fit; the body lacks a regressor.
    """

    def __init__(self, config: Config, body: Body, world_size: int) -> None:
        runtime.set_seed(config.train.seed)
        self.config = config
        batches = world_size * config.train.accumulate
        self.progress = Progress(0, batches * config.data.batch_size, batches * config.data.from_files)
        self.whole = True
        cliff = build_model(config.model)
        if config.train.pretrained:
            _load_pretrained(cliff, config, body)
        self.weight_names = [name for name, _ in cliff.parameters_and_names()]
        key = seed_dropouts(cliff)
        settings = config.train
        if settings.sync_norm:
            synchronise_norm(cliff)
        if settings.precision in HALF_PRECISION:
            set_half_precision(cliff, settings.precision)
        scaled = settings.precision == "fp16"  # bf16 has the range of fp32
        self.step = CLIFFTrainOneStepCell(
            network_with_loss(cliff, config, body),
            nn.Adam(cliff.trainable_params(), settings.learning_rate),
            key,
            accumulate=settings.accumulate,
            clip_norm=settings.clip_norm,
            ema=settings.ema,
            loss_scale=(settings.loss_scale or FIRST_SCALE) if scaled else 1.0,
            dynamic_scale=scaled and not settings.loss_scale,
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
            Loss, terms, norm of the gradients before they are clipped, learning rate and skipped steps, ready for the
            log; whether any worker was asked to stop.
        """
        self.whole = False
        settings, number = self.config.train, self.progress.step + 1
        rate = learning_rate(settings, number)
        reports = []
        for micro, batch in enumerate(batches):
            # Dropout is a function of the seed and the place in training, so that it needs no state.
            key = np.random.default_rng((settings.seed, number, micro, rank)).random(2)
            report, skipped, norm = self.step(
                micro == settings.accumulate - 1,
                Tensor(micro == 0),
                Tensor(rate, mstype.float32),
                Tensor(key.astype(np.float32)),
                Tensor([float(stop)], mstype.float32),
                *map(Tensor, batch),
            )
            reports.append(report.asnumpy())
        self.progress = replace(self.progress, step=number)
        loss, *terms, stopping = np.mean(reports, 0).tolist()
        names = self.step.network.term_names
        line = {"loss": loss, **dict(zip(names, terms, strict=True)), "grad_norm": float(norm.asnumpy()), "lr": rate}
        self.whole = True
        return line | {"skipped": int(skipped.asnumpy())}, stopping > 0

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

    @property
    def skipped(self) -> int:
        """Steps skipped so far."""
        return int(self.step.skipped.asnumpy())

    def weights(self) -> dict[str, np.ndarray]:
        """The network's parameters under their own names, the weights averaged if `train.ema` is set."""
        state = self.state()
        return {name: state.get(f"average.{name}", state[name]) for name in self.weight_names}

    def _state(self) -> dict[str, object]:
        parameters = {parameter.name: parameter for parameter in self.step.get_parameters()}
        return {
            name: p for name, p in parameters.items() if not name.startswith(_PASSING) and "dropout_key" not in name
        }


def network_with_loss(cliff: CLIFF, config: Config, body: Body) -> CLIFFWithLoss:
    """A network with body and loss as the configuration says."""
    weights = asdict(config.loss)
    full_frame = weights.pop("full_frame")
    smpl = build_smpl(body, config.body or str(BUNDLED_BODY), weights["vertices"] > 0)
    return CLIFFWithLoss(cliff, smpl, weights, config.model.bbox_norm, full_frame, config.model.crop_hw)


def _loop(
    trainer: Trainer,
    validator: Validator,
    recorder: Recorder | None,
    batches: Iterator[Batch],
    stop: runtime.StopRequest,
    rank: int,
) -> int:
    settings = trainer.config.train
    watch = Watch(settings.max_skipped, trainer.skipped)
    if trainer.progress.pending:
        _validate(trainer, validator, recorder)
        if recorder:
            recorder.finish_step()
    while trainer.progress.step < settings.steps:
        loaded = [next(batches) for _ in range(settings.accumulate)]
        line, stopping = trainer.run(loaded, stop.signal is not None, rank)
        step, finished = trainer.progress.step, trainer.progress.step == settings.steps
        if recorder:
            recorder.record(line, loaded[-1])
        median = watch.look(line)
        if recorder and median is not None:
            recorder.report_spike(line["loss"], median)
        if validator.has_samples and settings.val_every and (step % settings.val_every == 0 or finished):
            _validate(trainer, validator, recorder)
        if recorder:
            recorder.finish_step()
        if stopping and not finished:
            if recorder:
                recorder.save()
            log.warning("stopped after step %d; go on with --resume", step)
            return 128 + (stop.signal or signal.SIGTERM)
    return 0


def _validate(trainer: Trainer, validator: Validator, recorder: Recorder | None) -> None:
    """With all workers; the state is saved before, so that nothing is lost if it does not end."""
    trainer.progress = replace(trainer.progress, pending=True)
    if recorder:
        recorder.save()
    errors = validator.validate(trainer.weights())
    if recorder:
        recorder.record_validation(errors)
    trainer.progress = replace(trainer.progress, pending=False)


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
