"""What a training writes so that it can go on: its folder, and checkpoints of the whole state.

    OUTPUT_DIR/config.yaml                        the complete configuration
    OUTPUT_DIR/checkpoints/state_00001000.safetensors and .json     all arrays, and what belongs to them
    OUTPUT_DIR/checkpoints/{best,final}.ckpt      weights with their side-car, for demo.py --ckpt

A state's json is written after its arrays and holds their sha256: a pair that was not finished is not taken.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import yaml

from cliff_ms.config import Config, to_dict
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, prepare_output_dir, sha256

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True)
class Progress:
    """Where a training stands, besides its arrays.

    Attributes:
        step: Steps done.
        world_size: Workers.
        best_mpjpe_mm: The best validation so far; None before the first.
    """

    step: int = 0
    world_size: int = 1
    best_mpjpe_mm: float | None = None


def check_folder(output_dir: Path, config: Config, resume: bool) -> None:
    """Check that a training may use a folder.

    Args:
        output_dir: OUTPUT_DIR.
        config: The configuration.
        resume: Whether an earlier training is to go on.

    Raises:
        InputError: A new training in a used folder; nothing to resume, or another configuration (the message names the
            keys).
    """
    file = output_dir / "config.yaml"
    if resume:
        _check_same_config(file, config)
    elif file.exists():
        raise InputError(f"'{output_dir}' already holds a training: go on with --resume, or choose another folder.")


def make_folder(output_dir: Path, config: Config) -> None:
    """Make the folder of a new training: from now on `check_folder` refuses it to others.

    Args:
        output_dir: OUTPUT_DIR.
        config: The configuration, which is written into it.

    Raises:
        InputError: The folder cannot be written.
    """
    prepare_output_dir(output_dir / "checkpoints")
    with atomic_path(output_dir / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


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
    path = folder / f"state_{progress.step:08d}.safetensors"
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


def load_state(output_dir: Path, world_size: int) -> tuple[dict[str, np.ndarray], Progress]:
    """Read the newest checkpoint that is intact.

    Args:
        output_dir: OUTPUT_DIR.
        world_size: Workers of this run.

    Returns:
        Parameter name -> array, and the progress; nothing and step 0 when no checkpoint was written yet.

    Raises:
        InputError: All checkpoints are damaged, or were written by another number of workers.
    """
    states = _states(output_dir / "checkpoints")
    for described in states:
        file = described.with_suffix(".safetensors")
        try:
            values = json.loads(described.read_text(encoding="utf-8"))
            if values.pop("sha256") != sha256(file):
                raise ValueError("its sha256 differs")
            arrays, progress = safetensors.numpy.load_file(file), Progress(**values)
        except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
            log.warning("checkpoint '%s' is damaged (%s): trying the one before", file, error)
            continue
        if progress.world_size != world_size:
            raise InputError(
                f"'{output_dir}' was trained by {progress.world_size} workers, so it must be resumed by as many, "
                f"but there are {world_size}."
            )
        return arrays, progress
    if states:
        raise InputError(f"None of the {len(states)} checkpoints in '{output_dir}' is intact: start anew.")
    return {}, Progress(world_size=world_size)


def _states(folder: Path) -> list[Path]:
    """The json files of all checkpoints, the newest first."""
    return sorted(folder.glob("state_*.json"), reverse=True)


def _check_same_config(file: Path, config: Config) -> None:
    if not file.is_file():
        raise InputError(f"There is no training to resume in '{file.parent}': leave --resume out to start one.")
    try:
        before = _flat(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}.") from None
    now = _flat(to_dict(config))
    changed = [
        f"{key} was {before.get(key, 'not set')} and is {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise InputError(
            f"'{file.parent}' was trained with another configuration: {'; '.join(changed)}. Resume with the old one, "
            "or start in another folder."
        )


def _flat(values: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {k: v for key, value in values.items() for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    except safetensors.SafetensorError as error:  # how it reports a full disk
        raise OSError(str(error)) from error
