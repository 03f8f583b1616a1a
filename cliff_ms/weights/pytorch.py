"""PyTorch checkpoints to MindSpore arrays and back, one row of names per dialect.

Parameters are matched by name and shape, never by order: the network itself says which names and shapes it expects, a
dialect only says what PyTorch calls them. Conv and Dense weights have the same layout on both sides. What
files hold is found in `sources`; PyTorch is imported only in these two, when a file is read or written.
"""

import collections
import dataclasses
import functools
import logging
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path
from cliff_ms.io.packages import optional_module
from cliff_ms.weights.checkpoint import (
    ENCODER_PREFIX,
    TORCH_SUFFIXES,
    WeightsMeta,
    check_output,
    encoder_entries,
    meta_from_dict,
    misfits,
)
from cliff_ms.weights.sources import find_state_dict, inside_one_wrapper, read_source, to_float32, to_numpy

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True)
class Dialect:
    """How one family of PyTorch files names the parameters, and what its weights mean.

    Attributes:
        title: In words.
        encoder: What stands there for our `encoder.`.
        head: What stands there for our `regressor.`; None if there is no regressor.
        model: The conventions of the weights; the encoder is recognised from the file.
        ignored: Prefixes of entries that are no part of our network.
        note: What a user must know about these weights.
    """

    title: str
    encoder: str
    head: str | None
    model: ModelConfig
    ignored: tuple[str, ...] = ()
    note: str = ""


DIALECTS = {
    "official": Dialect(
        "official CLIFF", "encoder.", "", ModelConfig(crop_hw=(256, 192), crop_style="rounded", bbox_norm="released")
    ),
    "mmhuman3d": Dialect(
        "mmhuman3d CLIFF",
        "backbone.",
        "head.",
        ModelConfig(crop_hw=(256, 192), bbox_norm="released"),
        ignored=("body_model_train.", "body_model_test."),
        note="trained on crops of b x 4b/3 px where the official ones, and ours, are 0.75b x b: "
        "its published scores are not reproduced with our crops",
    ),
    "hmr": Dialect(
        "SPIN/EFT HMR",
        "",
        "",
        ModelConfig(crop_hw=(224, 224)),
        note="a start for a training only: its columns for bbox_info are zero",
    ),
    "imagenet": Dialect(
        "ImageNet classifier (torchvision ResNet, HRNet-Image-Classification)",
        "",
        None,
        ModelConfig(),
        ignored=("fc.", "classifier."),
    ),
}
_MODULE_PREFIX = "module."  # of DataParallel
_OWN_KEY = "cliff_ms"  # beside 'model' in the files that we write: the WeightsMeta, which PyTorch code passes over
_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_TRACKED = "num_batches_tracked"
_HEAD_PARTS = ("fc1.", "fc2.", "decpose.", "decshape.", "deccam.", "init_")
_ENCODER_MARKS = {"hr48": "stage4.", "res50": "layer3.5.", "res18": "layer4.1."}  # first match
_FC1 = "fc1.weight"
_BBOX_SIZE, _STATE_SIZE = 3, 144 + 10 + 3  # fc1 reads feature | bbox_info | pose, shape, camera


def to_mindspore(source: str | Path, dialect: str | None = None) -> tuple[dict[str, np.ndarray], WeightsMeta]:
    """Convert a PyTorch checkpoint.

    Args:
        source: The file.
        dialect: Key of `DIALECTS` to read it as; None recognises it by its keys.

    Returns:
        Parameter name of our network -> float32 array, and what they mean.

    Raises:
        InputError: Unreadable, unsafe, unknown or unsuitable file; missing, extra or misshapen entries by name.
    """
    return from_torch(read_source(source), str(source), dialect)


def from_torch(
    content: typing.Any, where: str, dialect: str | None = None
) -> tuple[dict[str, np.ndarray], WeightsMeta]:
    """Convert the content of a PyTorch checkpoint.

    Args:
        content: A state dict, or dicts that hold one under 'model', 'state_dict' or another usual name.
        where: The file, for messages and for the origin.
        dialect: As for `to_mindspore`.

    Returns:
        As `to_mindspore`.

    Raises:
        InputError: As `to_mindspore`.
    """
    found = find_state_dict(content, where)
    _refuse_unsuitable(found.entries, where)
    dialect, meta = _recognise(content, found.entries, where, dialect)
    rules = DIALECTS[dialect]
    expected = parameter_shapes(meta.model, meta.part)
    ours = {_torch_name(name, rules): name for name in expected}
    shapes = {theirs: expected[ours[theirs]] for theirs in ours}
    if dialect == "hmr":
        shapes[_FC1] = (shapes[_FC1][0], shapes[_FC1][1] - _BBOX_SIZE)
    state = inside_one_wrapper(found, ours, where)
    state = {key: value for key, value in state.items() if not key.startswith(rules.ignored)}
    tracked = _take_tracked(state, ours, where)
    state |= to_float32(state, ours, where)
    problems = misfits(shapes, state)
    if problems:
        raise InputError(f"{where}, read as {rules.title} {meta.model.encoder}, does not fit that network: {problems}.")
    arrays = {name: state[key] for key, name in ours.items()}
    if dialect == "hmr":
        feature_size = shapes[_FC1][1] - _STATE_SIZE
        arrays[ours[_FC1]] = np.insert(arrays[ours[_FC1]], [feature_size] * _BBOX_SIZE, 0, axis=1)
    if rules.note:
        log.warning("%s: %s", rules.title, rules.note)
    origin = f"{meta.origin} (averaged: {found.averaged})" if found.averaged else meta.origin
    return arrays, dataclasses.replace(meta, origin=origin, num_batches_tracked=tracked)


def to_torch(arrays: Mapping[str, np.ndarray], meta: WeightsMeta, dialect: str | None = None) -> dict[str, typing.Any]:
    """Convert weights to the content of a PyTorch checkpoint, with every buffer that a strict load asks for.

    Args:
        arrays: Parameter name of our network -> float32 array, shapes as in the network.
        meta: What they mean.
        dialect: 'official' is {'model': {'module.<name>': tensor}} and needs a whole model; 'imagenet' is the plain
            state dict of the encoder alone, without the classifier. None takes 'official' for a whole model and
            'imagenet' for an encoder.

    Returns:
        What `save_torch` writes.

    Raises:
        InputError: A dialect that cannot be written, or arrays that are not those of the network.
    """
    torch = optional_module("torch")

    dialect = dialect or ("official" if meta.part == "model" else "imagenet")
    if dialect not in ("official", "imagenet"):
        raise InputError(f"The dialect '{dialect}' can only be read: write 'official' or 'imagenet'.")
    if dialect == "official" and meta.part != "model":
        raise InputError(
            f"The dialect 'official' needs a whole model, but these weights are an encoder ({meta.origin})."
        )
    problems = misfits(parameter_shapes(meta.model, meta.part), arrays)
    if problems:
        raise InputError(
            f"The weights do not fit the network {meta.model.encoder} that they claim to be of: {problems}."
        )
    state = {}
    for ours, array in (arrays if dialect == "official" else encoder_entries(arrays)).items():
        theirs = _torch_name(ours, DIALECTS[dialect])
        state[theirs] = torch.tensor(array)
        module, _, leaf = theirs.rpartition(".")
        if leaf == "running_var":
            count = meta.num_batches_tracked.get(ours.rpartition(".")[0], meta.num_batches_tracked.get("*", 0))
            state[f"{module}.{_TRACKED}"] = torch.tensor(count, dtype=torch.int64)
    if dialect == "imagenet":
        return state
    prefixed = {_MODULE_PREFIX + key: tensor for key, tensor in state.items()}
    return {"model": prefixed, _OWN_KEY: dataclasses.asdict(meta)}


def save_torch(path: str | Path, content: dict[str, typing.Any]) -> None:
    """Write a PyTorch file.

    Args:
        path: Target, `.pt` or `.pth`; replaced if it exists.
        content: What `to_torch` returned.

    Raises:
        InputError: Unknown suffix, or a folder that is missing or cannot be written.
    """
    torch = optional_module("torch")

    path = Path(path)
    check_output(path, TORCH_SUFFIXES)
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how PyTorch reports a full disk
            raise OSError(str(error).partition("\n")[0]) from error


@functools.cache
def parameter_shapes(model: ModelConfig, part: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's parameters.

    Args:
        model: The network.
        part: 'model', or 'encoder' for its `encoder.*` alone.

    Returns:
        Name -> shape.
    """
    from cliff_ms.models.cliff import build_model  # imports MindSpore, which convert.py --help does not need

    shapes = {name: tuple(parameter.shape) for name, parameter in build_model(model).parameters_and_names()}
    return shapes if part == "model" else encoder_entries(shapes)


def recognise_encoder(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> tuple[str | None, float]:
    """Tell an encoder that reads pixels by its names.

    Args:
        shapes: Name -> shape, of MindSpore or PyTorch.
        prefix: Of the encoder's names.

    Returns:
        'hr48', 'res50', 'res18' or None, and its width.
    """
    encoder = next((e for e, mark in _ENCODER_MARKS.items() if _has(shapes, prefix + mark)), None)
    first = shapes.get(f"{prefix}conv1.weight", ())
    return encoder, first[0] / 64 if encoder == "res18" and first else 1.0


def _torch_name(name: str, dialect: Dialect) -> str:
    module, _, leaf = name.rpartition(".")
    name = f"{module}.{_BATCH_NORM.get(leaf, leaf)}"
    if name.startswith(ENCODER_PREFIX):
        return dialect.encoder + name.removeprefix(ENCODER_PREFIX)
    return dialect.head + name.removeprefix("regressor.")


def _refuse_unsuitable(state: Mapping[str, typing.Any], where: str) -> None:
    """Say why well-known neighbours of CLIFF cannot be converted."""
    reason = ""
    matrices = {key: tuple(value.shape) for key, value in state.items() if value.ndim == 2}
    columns = {shape[1] for key, shape in matrices.items() if key.endswith(_FC1)}
    rows = {shape[0] for key, shape in matrices.items() if key.endswith(("decpose.weight", "decshape.weight"))}
    if any("smpl_head." in key for key in state):
        reason = "has the transformer head of 4D-Humans or CameraHMR (smpl_head.*), which is another architecture"
    elif rows & {132, 11} or 869 in columns:
        reason = "has BEDLAM's SMPL-X head (decpose 132, decshape 11), and the regressor here is SMPL's (144, 10)"
    elif 880 in columns:
        reason = (
            "is a BEDLAM CLIFF on the 720 features of a pose-HRNet (fc1.weight 1024 x 880), which is another encoder"
        )
    elif any("stage4." in key for key in state) and not any("incre_modules." in key for key in state):
        reason = "has a pose-HRNet (no incre_modules), and the encoder here is the classification HRNet-W48"
    if reason:
        raise InputError(f"{where} cannot be converted: it {reason}.")


def _recognise(
    content: dict, state: Mapping[str, typing.Any], where: str, dialect: str | None
) -> tuple[str, WeightsMeta]:
    if dialect in (None, "official") and _OWN_KEY in content:
        return "official", meta_from_dict(content[_OWN_KEY], where)
    for name in DIALECTS if dialect is None else (dialect,):
        rules = DIALECTS[name]
        encoder, width = recognise_encoder({key: tuple(value.shape) for key, value in state.items()}, rules.encoder)
        headed = rules.head is None or any(_has(state, rules.head + part) for part in _HEAD_PARTS)
        if encoder and headed:
            model = dataclasses.replace(rules.model, encoder=encoder, width=width)
            origin = f"{rules.title} {encoder}, {Path(where).name}" + (f" ({rules.note})" if rules.note else "")
            return name, WeightsMeta(model, origin, part="encoder" if rules.head is None else "model")
    titles = "; ".join(d.title for d in DIALECTS.values()) if dialect is None else DIALECTS[dialect].title
    raise InputError(
        f"{where} is not a known kind of weights ({titles}): its first entries are {', '.join(list(state)[:5])}."
    )


def _has(entries: Mapping[str, typing.Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in entries)


def _take_tracked(state: dict[str, typing.Any], ours: Mapping[str, str], where: str) -> dict[str, int]:
    """Remove the BatchNorm counters from `state`: those of modules that the network has.

    Counters that were cast to floats with the weights may have been rounded; nothing here reads them.
    """
    counts, left_out = {}, 0
    for key in [key for key in state if key.endswith("." + _TRACKED)]:
        module = key.removesuffix("." + _TRACKED)
        if f"{module}.running_mean" not in ours:
            continue  # left in place, it is reported as extra
        count = to_numpy(state.pop(key), key, where)
        if count.shape:
            raise InputError(f"{where}: {key} must be one number, but is {count.shape} {count.dtype}.")
        if count.dtype.kind == "i":
            counts[ours[f"{module}.running_mean"].rpartition(".")[0]] = int(count)
        else:
            left_out += 1
    if left_out:
        log.info(
            "%s: %d counters of BatchNorms are no integers, so perhaps rounded, and were left out.", where, left_out
        )
    if not counts:
        return {}
    common = collections.Counter(counts.values()).most_common(1)[0][0]
    return {"*": common, **{module: count for module, count in counts.items() if count != common}}
