"""What a training writes so that it can go on: its folder, and checkpoints of the whole state.

    OUTPUT_DIR/config.yaml                        the complete configuration
    OUTPUT_DIR/left_out.csv                       rows whose labels cannot be right, if there are any
    OUTPUT_DIR/checkpoints/state_00001000.safetensors and .json     all arrays, and what belongs to them
    OUTPUT_DIR/checkpoints/{best,final}.ckpt      weights with their side-car, for demo.py --ckpt

A state's json is written after its arrays and holds their sha256: a pair that was not finished is not taken.
"""

import csv
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import yaml

from cliff_ms.config import Config, from_dict, load_config, to_dict
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, prepare_output_dir, remove_unfinished, sha256

# Settings that the weights do not depend on; how a batch is divided is compared by what comes of it, see `trainer`.
_WITHOUT_EFFECT = {
    "data.workers", "data.bad_image", "data.batch_size", "data.global_batch_size", "train.accumulate", "train.keep",
    "train.save_every", "train.val_every", "train.picture_every", "train.max_skipped",
}  # fmt: skip
_STEPS = "train.steps"  # there may be more

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True)
class Progress:
    """Where a training stands, besides its arrays.

    Attributes:
        step: Steps done.
        samples: Samples of a step, of all workers and batches.
        file_samples: How many of them come from annotation files.
        stream_batch: See `data.TrainingData`.
        pending: Whether the validation of this step is still to come.
        best_mpjpe_mm: The best validation so far; None before the first.
    """

    step: int = 0
    samples: int = 0
    file_samples: int = 0
    stream_batch: int = 0
    pending: bool = False
    best_mpjpe_mm: float | None = None


@contextmanager
def locked_folder(output_dir: Path) -> Iterator[None]:
    """Keep a folder to one training as long as it runs; a folder that is left empty is removed.

    Args:
        output_dir: OUTPUT_DIR; made if it is not there.

    Raises:
        InputError: Another training runs in it, or it cannot be made.
    """
    handle = os.open(prepare_output_dir(output_dir), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however that ends
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"Another training runs in '{output_dir}': wait for its end, or choose another folder."
        ) from None
    except OSError as error:  # a file system that cannot lock folders
        log.info("%s is not locked against a second training (%s)", output_dir, error.strerror)
    try:
        yield
    finally:
        os.close(handle)
        with suppress(OSError):
            output_dir.rmdir()


def check_folder(output_dir: Path, config: Config, resume: bool) -> None:
    """Check that a training may use a folder.

    Args:
        output_dir: OUTPUT_DIR.
        config: The configuration.
        resume: Whether an earlier training is to go on.

    Raises:
        InputError: A new training in a used folder; nothing to resume, or a configuration that would give other weights
            (the message names the keys).
    """
    file = output_dir / "config.yaml"
    if resume:
        _check_same_result(file, config)
    elif file.exists():
        raise InputError(f"'{output_dir}' already holds a training: go on with --resume, or choose another folder.")


def describe_training(output_dir: Path, config: Config, left_out: Sequence[tuple[str, int, str]]) -> None:
    """Write what a training is into its folder: from now on `check_folder` refuses it to others.

    Args:
        output_dir: OUTPUT_DIR.
        config: The configuration.
        left_out: File, row and reason of the rows that it does without.

    Raises:
        InputError: The folder cannot be written.
    """
    prepare_output_dir(output_dir / "checkpoints")
    for folder, _, _ in os.walk(output_dir):
        remove_unfinished(folder)
    with atomic_path(output_dir / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
    if left_out:
        with atomic_path(output_dir / "left_out.csv") as temporary, temporary.open("w", encoding="utf-8") as file:
            csv.writer(file).writerows([("annotations", "row", "reason"), *left_out])


def save_state(output_dir: Path, arrays: dict[str, np.ndarray], progress: Progress, keep: int) -> None:
    """Write a checkpoint, then remove all but the newest `keep`.

    Args:
        output_dir: OUTPUT_DIR.
        arrays: All parameters by name, float32 or int32.
        progress: What else must be known to go on.
        keep: Checkpoints that stay.

    Raises:
        InputError: The disk is full, or the folder cannot be written; earlier checkpoints are untouched.
    """
    folder = output_dir / "checkpoints"
    path = folder / f"{_state_name(progress.step)}.safetensors"
    try:
        with atomic_path(path) as temporary:
            _write(temporary, arrays)
            digest = sha256(temporary)
        with atomic_path(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps({**asdict(progress), "sha256": digest}) + "\n", encoding="utf-8")
    except InputError as error:
        last = next(iter(_states(folder)), None)
        kept = f"the last good checkpoint is '{last}'" if last else "no earlier checkpoint exists"
        raise InputError(f"The state of step {progress.step} was not saved, {kept}: {error}") from None
    for old in _states(folder)[keep:]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def load_state(output_dir: Path) -> tuple[dict[str, np.ndarray], Progress]:
    """Read the newest checkpoint that is intact.

    Args:
        output_dir: OUTPUT_DIR.

    Returns:
        Parameter name -> array, and the progress; nothing and step 0 when no checkpoint was written yet.

    Raises:
        InputError: All checkpoints are damaged.
    """
    states = _states(output_dir / "checkpoints")
    for described in states:
        file = described.with_suffix(".safetensors")
        try:
            values = json.loads(described.read_text(encoding="utf-8"))
            if values.pop("sha256") != sha256(file):
                raise ValueError("its sha256 differs")
            arrays, progress = safetensors.numpy.load_file(file), from_dict(Progress, values, described.name)
            if described.stem != _state_name(progress.step):
                raise ValueError(f"it is of step {progress.step}")
        except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
            log.warning("checkpoint '%s' is damaged (%s): trying the one before", file, error)
            continue
        return arrays, progress
    if states:
        raise InputError(f"None of the {len(states)} checkpoints in '{output_dir}' is intact: start anew.")
    return {}, Progress()


def _state_name(step: int) -> str:
    return f"state_{step:08d}"


def _states(folder: Path) -> list[Path]:
    """The json files of all checkpoints, the newest first."""
    return sorted(folder.glob("state_*.json"), reverse=True)


def _check_same_result(file: Path, config: Config) -> None:
    if not file.is_file():
        raise InputError(f"There is no training to resume in '{file.parent}': leave --resume out to start one.")
    before, now = (_flat(to_dict(each)) for each in (load_config(file, cls=type(config)), config))
    changed = {
        key: f"{key} was {before.get(key, 'not set')} and is {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not (_is_path(key) and _same_path(before.get(key), now.get(key)))
    }
    harmless = [key for key in changed if key in _WITHOUT_EFFECT or key == _STEPS and now[key] > before[key]]
    if harmless:
        log.info("resumed with other settings: %s", "; ".join(changed.pop(key) for key in harmless))
    if changed:
        raise InputError(
            f"'{file.parent}' was trained with another configuration: {'; '.join(changed.values())}. Resume with the "
            "old one, or start in another folder."
        )


def _is_path(key: str) -> bool:
    return key.rpartition(".")[2] in ("annotations", "image_dir", "occluders", "pretrained", "body")


def _same_path(before: object, now: object) -> bool:
    return bool(before) and bool(now) and os.path.realpath(str(before)) == os.path.realpath(str(now))


def _flat(values: object, name: str = "") -> dict[str, object]:
    """Nested mappings and lists as one, 'section.key' or 'list[0].key' -> value."""
    if isinstance(values, dict):
        inner = {f"{name}.{key}".lstrip("."): value for key, value in values.items()}
    elif isinstance(values, list):
        inner = {f"{name}[{k}]": value for k, value in enumerate(values)}
    else:
        return {name: values}
    return {key: leaf for path, value in inner.items() for key, leaf in _flat(value, path).items()}


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    except safetensors.SafetensorError as error:  # how it reports a full disk
        raise OSError(str(error)) from error
