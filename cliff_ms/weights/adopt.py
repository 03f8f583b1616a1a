"""MindSpore weights without a side-car: what their arrays tell of the network, and what somebody must say."""

import dataclasses
import logging
import typing
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors

from cliff_ms.config import ModelConfig, from_dict
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import JOINT_SETS
from cliff_ms.weights.checkpoint import ENCODER_PREFIX, WeightsMeta, misfits, read_arrays
from cliff_ms.weights.pytorch import parameter_shapes, recognise_encoder
from cliff_ms.weights.sources import to_float32

log = logging.getLogger("cliff_ms")

_STEM = f"{ENCODER_PREFIX}stem.weight"  # only the keypoint encoder has it
_MINDSPORE_ONLY = (".gamma", ".moving_mean")  # what PyTorch's BatchNorm calls weight and running_mean


@dataclasses.dataclass(frozen=True)
class Conventions:
    """What no array tells, see `ModelConfig` and `WeightsMeta`; None where nobody said it."""

    bbox_norm: str | None = None
    crop_style: str | None = None
    crop_hw: tuple[int, int] | None = None
    body: str | None = None

    def given(self) -> dict[str, typing.Any]:
        """Those that somebody said, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def is_mindspore(path: Path) -> bool:
    """Whether a file holds weights by MindSpore's names, and not PyTorch's."""
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "np") as file:
                return any(name.endswith(_MINDSPORE_ONLY) for name in file.keys())
        with path.open("rb") as file:
            return path.suffix == ".ckpt" and file.read(1) == b"\n"  # of its protobuf; PyTorch's are zip or pickle
    except (OSError, safetensors.SafetensorError):
        return False  # whoever reads it says what is wrong


def adopt(path: Path, conventions: Conventions) -> tuple[dict[str, np.ndarray], WeightsMeta]:
    """Read MindSpore weights that have no side-car.

    Args:
        path: The file.
        conventions: What no array tells.

    Returns:
        Parameter name of our network -> float32 array, and what they mean.

    Raises:
        InputError: An unreadable file, arrays of no network here, or a convention that is needed and not given.
    """
    where = str(path)
    entries = _network_entries(read_arrays(path), where)
    arrays = to_float32(entries, entries, where)
    part = "model" if any(not name.startswith(ENCODER_PREFIX) for name in arrays) else "encoder"
    told = _told_by_shapes(arrays, part, where)
    given = conventions.given()
    needed = _needed(told) if part == "model" else {}
    missing = [option for name, option in needed.items() if name not in given]
    if missing:
        raise InputError(
            f"{where} has no side-car, and its arrays do not tell how it was trained: say so with {' '.join(missing)}."
        )
    body = given.pop("body", "smpl")
    model = from_dict(ModelConfig, dataclasses.asdict(told) | given, "the conventions given")
    return arrays, WeightsMeta(model, f"MindSpore weights {path.name}, conventions by hand", body=body, part=part)


def _needed(model: ModelConfig) -> dict[str, str]:
    """The conventions that matter to a network, with the option that says them."""
    needed = {"crop_hw": "--crop_hw H W", "body": "--body NAME"}
    if model.location_input:
        needed = {"bbox_norm": "--bbox_norm eq5|released", **needed}
    if not model.reads_keypoints:
        needed["crop_style"] = "--crop_style affine|rounded"
    return needed


def _network_entries(arrays: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """The network's own arrays; a training's checkpoint also holds its optimiser's, named after them, and counters."""
    prefixes = {name[: name.index(ENCODER_PREFIX)] for name in arrays if ENCODER_PREFIX in name}
    if not prefixes:
        raise InputError(f"{where} holds no arrays of CLIFF, encoder.*: its first are {', '.join(list(arrays)[:5])}.")
    prefix = min(prefixes, key=len)
    entries = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    kept = {
        name: array
        for name, array in entries.items()
        if not any(tail in entries for tail in _tails(name)) and ("." in name or array.size > 1)
    }
    if len(kept) < len(arrays):
        log.info("%s: left out %d entries of its optimiser and counters.", where, len(arrays) - len(kept))
    return kept


def _tails(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[k:]) for k in range(1, len(parts))]


def _told_by_shapes(arrays: Mapping[str, np.ndarray], part: str, where: str) -> ModelConfig:
    """The network whose names and shapes these are."""
    if _STEM in arrays:
        base = ModelConfig("keypoints", width=arrays[_STEM].shape[0] / 1024)
        candidates = [
            dataclasses.replace(base, joint_set=joint_set, location_input=located)
            for joint_set in JOINT_SETS
            for located in (True, False)
        ]
    else:
        encoder, width = recognise_encoder({name: array.shape for name, array in arrays.items()}, ENCODER_PREFIX)
        if encoder is None:
            raise InputError(f"{where} has none of the encoders here: its first arrays are {', '.join([*arrays][:5])}.")
        candidates = [ModelConfig(encoder, width=width, location_input=located) for located in (True, False)]
    problems = {model: misfits(parameter_shapes(model, part), arrays) for model in candidates}
    fitting = min(candidates, key=lambda model: len(problems[model]))
    if problems[fitting]:
        raise InputError(f"{where}, read as {fitting.encoder}, does not fit that network: {problems[fitting]}.")
    return fitting
