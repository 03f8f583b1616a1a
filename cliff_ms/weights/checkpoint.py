"""Weights files: save and load arrays by name, each with a side-car json that says what they mean.

Beside `cliff_res50.ckpt` lies `cliff_res50.ckpt.json` with the `WeightsMeta` and the sha256 of the weights file;
neither is read without the other. Formats go by suffix: `.ckpt` is MindSpore's own, `.safetensors` needs no MindSpore.
"""

import contextlib
import dataclasses
import functools
import json
import os
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliff_ms.body.errors import ERRORS, expected_deviations
from cliff_ms.body.files import Body
from cliff_ms.config import Config, ModelConfig, from_dict
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, remove_unfinished, sha256
from cliff_ms.weights.array_files import read_arrays, write_arrays

if typing.TYPE_CHECKING:
    from mindspore import nn

WEIGHT_SUFFIXES = (".ckpt", ".safetensors")
TORCH_SUFFIXES = (".pt", ".pth")
EXPORTED_SUFFIXES = (".mindir", ".onnx", ".air")
Part = typing.Literal["model", "encoder"]
ENCODER_PREFIX = "encoder."
ROT6D_LAYOUT = "3x2"  # each 6-vector is a row-major 3x2 matrix, its columns a1 and a2
_FORMAT = 1
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class WeightsMeta:
    """What a weights file's numbers mean; written to its side-car.

    Attributes:
        model: The network that the weights fit and its conventions.
        origin: Where the weights come from, in words.
        body: Name of the body model whose pose and shape space the regressor speaks: 'smpl' or another body's name.
        rot6d_layout: Layout of a 6D rotation; only '3x2' exists here.
        part: 'model' is the whole network, 'encoder' only its `encoder.*` to start a training from.
        metrics: What was measured with these weights, ready for json.
        num_batches_tracked: PyTorch's counters of its BatchNorms, for which MindSpore's have no place: '*' is the
            common value, other entries name a module that differs. Empty when the weights never came from PyTorch.
        error_deviations: 85, measured: how far the network's predictions are off, see `body.errors`; empty where nobody
            has measured it.

    Raises:
        InputError: Another number of deviations, or one that is not above 0.
    """

    model: ModelConfig
    origin: str
    body: str = "smpl"
    rot6d_layout: str = ROT6D_LAYOUT
    part: Part = "model"
    metrics: dict = dataclasses.field(default_factory=dict)
    num_batches_tracked: dict = dataclasses.field(default_factory=dict)
    error_deviations: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        values = np.array(self.error_deviations, np.float64)
        if len(values) not in (0, ERRORS) or not (np.isfinite(values) & (values > 0)).all():
            raise InputError(f"'error_deviations' must be {ERRORS} finite numbers above 0, or none.")

    def expected_deviations(self) -> np.ndarray:
        """How far predictions of these weights are off, (85,): measured or by default, see `body.errors`."""
        return expected_deviations(self.error_deviations)


@dataclass(frozen=True)
class Weights:
    """A weights file that is the one its side-car was written for.

    Attributes:
        path: The file.
        meaning: What its numbers mean.
        sha256: Of the file, in hexadecimal.
    """

    path: Path
    meaning: WeightsMeta
    sha256: str

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Parameter name -> array, read when first asked for.

        Raises:
            InputError: If the file is an exported network, or no file of its kind.
        """
        _check_suffix(self.path, WEIGHT_SUFFIXES)
        return read_arrays(self.path)


def meta_from_dict(values: object, where: str) -> WeightsMeta:
    """Read a `WeightsMeta` from plain values.

    Args:
        values: What a side-car, or a PyTorch file written by this project, held (see `dataclasses.asdict`).
        where: The file, for messages.

    Returns:
        The checked instance.

    Raises:
        InputError: Missing, unknown or ill-typed key, or another 6D layout.
    """
    values = values if isinstance(values, dict) else {}
    for key in ("model", "origin"):
        if key not in values:
            raise InputError(f"{where} does not describe weights: it has no key '{key}'.")
    if isinstance(values["model"], dict):
        # Written until November 2026: how the weights were trained, which they do not depend on.
        values = values | {"model": {k: v for k, v in values["model"].items() if k != "full_frame_loss"}}
    meta = from_dict(WeightsMeta, values, where)
    if meta.rot6d_layout != ROT6D_LAYOUT:
        raise InputError(f"{where}: 'rot6d_layout' must be '{ROT6D_LAYOUT}', but got '{meta.rot6d_layout}'.")
    return meta


def side_car(path: str | Path) -> Path:
    """The path of the json that belongs to a weights file."""
    return Path(f"{path}.json")


def save_weights(path: str | Path, arrays: Mapping[str, np.ndarray], meta: WeightsMeta) -> None:
    """Write a weights file and its side-car.

    Args:
        path: Target, `.ckpt` or `.safetensors`; replaced if it exists.
        arrays: Parameter name -> float32 array, named as in the network.
        meta: What they mean.

    Raises:
        InputError: Unknown suffix, or a folder that is missing or cannot be written.
    """
    with file_with_side_car(Path(path), meta, WEIGHT_SUFFIXES) as new_weights:
        write_arrays(new_weights, arrays)


@contextlib.contextmanager
def file_with_side_car(path: Path, meta: WeightsMeta, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Write a file of weights and its side-car so that a wrong pair is never accepted.

    Args:
        path: The final name.
        meta: What the weights mean.
        suffixes: Those allowed.

    Yields:
        The name to write the file under.

    Raises:
        InputError: Unknown suffix, or a folder that is missing or cannot be written.
    """
    check_output(path, suffixes)
    # Both files are complete under temporary names before either is renamed, and the weights are renamed first (the
    # inner block ends first). Killed before that, the previous pair is untouched. Killed between the two renames, the
    # new weights lie beside the previous side-car, or none: its sha256 does not match and loading refuses them. Only
    # identical weights would match, and those are the previous pair.
    with atomic_path(side_car(path)) as new_side_car, atomic_path(path) as new_weights:
        yield new_weights
        values = {"format": _FORMAT, **dataclasses.asdict(meta), "sha256": sha256(new_weights)}
        new_side_car.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_weights(path: str | Path) -> Weights:
    """Open a file of weights: read its side-car, and check that it was written for this very file.

    Args:
        path: A `.ckpt` or `.safetensors` file that `save_weights` wrote, or a network exported with its weights.

    Returns:
        The weights.

    Raises:
        InputError: Missing or unreadable file, missing or foreign side-car, or another sha256.
    """
    path = Path(path)
    if path.suffix in TORCH_SUFFIXES:
        raise InputError(
            f"{path} is a PyTorch file: convert it first with "
            f"python convert.py --to mindspore {path} {path.with_suffix('.ckpt')}"
        )
    if path.suffix not in EXPORTED_SUFFIXES:
        _check_suffix(path, WEIGHT_SUFFIXES)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    described = side_car(path)
    if not described.is_file():
        again = "export it again"
        if path.suffix in WEIGHT_SUFFIXES:
            again = f"make it: python convert.py --to mindspore {path} NEW{path.suffix}"
        raise InputError(
            f"{path} has no side-car {described.name} beside it, so its conventions are unknown: copy that file too, "
            f"or {again}."
        )
    try:
        values = json.loads(described.read_text(encoding="utf-8"))
        found = sha256(path)
    except OSError as error:
        raise InputError(f"Cannot read {path} and its side-car: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"{described} cannot be read as json: {error}.") from error
    if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
        raise InputError(f"{described} is not a side-car of format {_FORMAT}, the one that this version reads.")
    expected = values.pop("sha256", None)
    meta = meta_from_dict(values, str(described))
    if expected != found:
        raise InputError(
            f"{path} is not the file that {described.name} was written for (its sha256 differs): it is truncated or "
            "altered, or its saving was interrupted; copy both files again, or convert or save again."
        )
    return Weights(path, meta, found)


def load_into(net: "nn.Cell", arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Assign arrays to all parameters of a network: the same names and shapes, nothing left over on either side.

    Args:
        net: The network; unchanged when an error is raised.
        arrays: Parameter name -> float32 array.
        where: The file, for messages.

    Raises:
        InputError: Missing, extra or misshapen arrays, by name.
    """
    _assign(dict(net.parameters_and_names()), arrays, where)


def load_encoder(net: "nn.Cell", weights: Weights) -> None:
    """Assign the encoder of a weights file to a network and leave the rest of the network as it is.

    Args:
        net: The network; unchanged when an error is raised.
        weights: Those of an encoder or of a whole model.

    Raises:
        InputError: The encoder differs in a name or shape.
    """
    _assign(encoder_entries(dict(net.parameters_and_names())), encoder_entries(weights.arrays), str(weights.path))


def parameter_arrays(net: "nn.Cell") -> dict[str, np.ndarray]:
    """All parameters of a network as arrays by name, ready for `save_weights`."""
    return {name: parameter.asnumpy() for name, parameter in net.parameters_and_names()}


def encoder_entries(entries: Mapping[str, typing.Any]) -> dict[str, typing.Any]:
    """Those entries whose names start with `encoder.`."""
    return {name: value for name, value in entries.items() if name.startswith(ENCODER_PREFIX)}


def misfits(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, typing.Any]) -> str:
    """Compare arrays with what a network expects, by name, shape and type (float32).

    Args:
        expected: Name -> shape.
        found: Name -> NumPy array or PyTorch tensor.

    Returns:
        What is missing, extra or misshapen: counts and the first names of each kind; '' when all fits.
    """
    problems = {
        "missing": [name for name in expected if name not in found],
        "extra": [name for name in found if name not in expected],
        "misshapen": [
            f"{name} is {_describe(found[name])}, expected {tuple(shape)} float32"
            for name, shape in expected.items()
            if name in found and _describe(found[name]) != f"{tuple(shape)} float32"
        ],
    }
    parts = []
    for kind, names in problems.items():
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        if names:
            parts.append(f"{len(names)} {kind} ({', '.join(names[:_NAMES_SHOWN])}{more})")
    return "; ".join(parts)


def model_differences(weights: ModelConfig, wanted: ModelConfig, ignored: tuple[str, ...] = ()) -> str:
    """What of a network differs between weights and a configuration, in words; '' when nothing does."""
    return "; ".join(
        f"{field.name} is {getattr(weights, field.name)}, not {getattr(wanted, field.name)}"
        for field in dataclasses.fields(ModelConfig)
        if field.name not in ignored and getattr(weights, field.name) != getattr(wanted, field.name)
    )


def check_model(config: Config, meta: WeightsMeta, where: str) -> None:
    """Check that weights are of the network that a configuration describes.

    Args:
        config: The configuration; only its `model` counts.
        meta: What the weights mean.
        where: Their file, for the message.

    Raises:
        InputError: They are of another one; every difference is named.
    """
    differing = model_differences(meta.model, config.model)
    if differing:
        raise InputError(
            f"{where} holds weights of another 'model' than --config describes: {differing}; name the configuration "
            "that they were trained with."
        )


def check_body(meta: WeightsMeta, body: Body, where: str) -> None:
    """Refuse to learn with a body whose poses and shapes weights do not speak: betas of two bodies are unrelated.

    Args:
        meta: What the weights mean.
        body: The body of the labels.
        where: The weights, for the message.

    Raises:
        InputError: It is another one.
    """
    if meta.body != body.name:
        raise InputError(
            f"{where} speaks the shapes of the body '{meta.body}', not of '{body.name}': name that body with 'body'."
        )


def check_output(path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a target that cannot be written, before any work is done for it; see also `remove_unfinished`.

    Args:
        path: The file to be written.
        suffixes: Those allowed.

    Raises:
        InputError: Other suffix; missing or protected folder.
    """
    _check_suffix(path, suffixes)
    if not path.parent.is_dir():
        raise InputError(f"Cannot write {path}: there is no folder {path.parent}; make it first.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"Cannot write {path}: it is a folder, or {path.parent} is write-protected.")
    remove_unfinished(path.parent)


def _assign(parameters: Mapping[str, typing.Any], arrays: Mapping[str, np.ndarray], where: str) -> None:
    import mindspore as ms

    problems = misfits({name: parameter.shape for name, parameter in parameters.items()}, arrays)
    if problems:
        raise InputError(f"{where} does not fit the network: {problems}.")
    for name, parameter in parameters.items():
        parameter.set_data(ms.Tensor(arrays[name]))


def _describe(array: typing.Any) -> str:
    return f"{tuple(array.shape)} {str(array.dtype).removeprefix('torch.')}"


def _check_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix not in suffixes:
        raise InputError(f"{path} must end in {' or '.join(suffixes)}, but ends in '{path.suffix}'.")
