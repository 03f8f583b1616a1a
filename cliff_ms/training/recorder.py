"""What worker 0 writes of a training: logs, checkpoints, weights, pictures, and the progress bar."""

import logging
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from cliff_ms.body.files import Body
from cliff_ms.data.batching import Batch
from cliff_ms.io.images import write_image
from cliff_ms.training.data import TrainingData
from cliff_ms.training.errors import measure_weights
from cliff_ms.training.log import TrainLog
from cliff_ms.training.state import save_state
from cliff_ms.training.validation import Validator
from cliff_ms.weights.checkpoint import WeightsMeta, save_weights

if TYPE_CHECKING:
    from cliff_ms.training.trainer import Trainer

_BETWEEN_WARNINGS = 100  # steps; every spike is in the file

log = logging.getLogger("cliff_ms")


class Recorder:
    """The record of one training.

    Args:
        trainer: The training.
        data: What it reads.
        validator: What draws its predictions.
        output_dir: OUTPUT_DIR.
        body: The body model.

    Raises:
        InputError: The folder cannot be written.
    """

    def __init__(
        self, trainer: "Trainer", data: TrainingData, validator: Validator, output_dir: Path, body: Body
    ) -> None:
        self._trainer, self._config, self._output_dir, self._body = trainer, trainer.config, output_dir, body
        self._data, self._validator = data, validator
        progress = self._saved = trainer.progress
        self._warned = -_BETWEEN_WARNINGS
        self._log = TrainLog(output_dir, progress.step, progress.pending)
        self._bar = tqdm(
            total=self._config.train.steps,
            initial=progress.step,
            unit="step",
            mininterval=1 if sys.stderr.isatty() else 30,
            smoothing=0.1,
        )

    def record(self, line: dict[str, float], batch: Batch) -> None:
        """Note a step, and draw when it is time.

        Args:
            line: What `Trainer.run` gave.
            batch: What to draw.
        """
        step, every = self._trainer.progress.step, self._config.train.picture_every
        self._log.write("log", step, line)
        self._bar.update()
        rate = self._bar.format_dict["rate"] or 0
        shown = {name: f"{value:.3g}" for name, value in line.items() if name != "lr"}
        self._bar.set_postfix({**shown, "samples/s": f"{rate * self._trainer.progress.samples:.0f}"}, refresh=False)
        if every and step % every == 0:
            self._validator.set_weights(self._trainer.weights())
            folder = self._output_dir / "pictures"
            folder.mkdir(exist_ok=True)
            write_image(folder / f"step_{step:08d}.jpg", self._validator.picture(batch))

    def report_spike(self, loss: float, median: float) -> None:
        """Note that the loss of a step is unusual, with the rows of all workers' samples.

        Args:
            loss: Of the step.
            median: Of the steps before.
        """
        step = self._trainer.progress.step
        self._log.write_spike(step, loss, median, self._data.rows_of(step))
        if step - self._warned >= _BETWEEN_WARNINGS:
            self._warned = step
            log.warning("step %d: the loss is %.4g, after a median of %.4g; see spikes.jsonl", step, loss, median)

    def record_validation(self, errors: dict[str, float]) -> None:
        """Note a validation, and keep the weights if they are the best so far.

        Args:
            errors: What `Validator.validate` gave.
        """
        trainer, step = self._trainer, self._trainer.progress.step
        self._log.write("validation", step, errors)
        text = ", ".join(f"{name} {value:.1f}" for name, value in errors.items())
        self._bar.write(f"step {step}: {text}", sys.stderr)
        best = trainer.progress.best_mpjpe_mm
        if best is None or errors["mpjpe_mm"] < best:
            self._save_weights("best", {name: value for name, value in errors.items() if math.isfinite(value)})
            trainer.progress = replace(trainer.progress, best_mpjpe_mm=errors["mpjpe_mm"])

    def finish_step(self) -> None:
        """Save when it is time."""
        settings, step = self._config.train, self._trainer.progress.step
        finished = step == settings.steps
        if finished:  # before the state: a training that is resumed at its last step has nothing left to do
            # Of a network that reads pixels nobody has people to measure on.
            weights, stream = self._trainer.weights(), self._config.data.stream
            measured = measure_weights(weights, self._config.model, self._body) if stream else ()
            self._save_weights("final", {}, measured)
        if step % settings.save_every == 0 or finished:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, unless it is there."""
        progress = self._trainer.progress
        if progress != self._saved:
            save_state(self._output_dir, self._trainer.state(), progress, self._config.train.keep)
            self._saved = progress

    def close(self) -> None:
        """Close bar and files."""
        self._bar.close()
        self._log.close()

    def _save_weights(self, name: str, metrics: dict[str, float], error_deviations: tuple[float, ...] = ()) -> None:
        origin = f"Trained by train.py, {self._trainer.progress.step} steps."
        meta = WeightsMeta(
            self._config.model, origin, body=self._body.name, metrics=metrics, error_deviations=error_deviations
        )
        save_weights(self._output_dir / "checkpoints" / f"{name}.ckpt", self._trainer.weights(), meta)
