"""Files of weights as people have them, to arrays by name, without running anything in them.

PyTorch's own files, safetensors, and indices of shards; alone or inside a training's checkpoint, averaged or not, in
wrappers or not, in any precision. PyTorch is imported when a file is read.
"""

import argparse
import collections
import json
import logging
import pathlib
import pickle
import re
import typing
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.io.packages import optional_module

log = logging.getLogger("cliff_ms")

# Where state dicts lie. Averaged weights are those that the authors of such files evaluate with, and name them by.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")
_RAW = ("state_dict", "model", "model_state_dict", "module", "net", "network", "params")
_AVERAGED_PREFIXES = ("model_ema.", "ema_model.", "ema.")  # beside the raw ones in one state dict
_BOOKKEEPING = ("n_averaged", "steps", "step", "initted", "decay", "num_updates")  # of the classes that average
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_LEADING = re.compile(rf"(?:(?:{'|'.join(_WRAPPERS)}|model)\.)*")
_INSIDE = re.compile(rf"(?<=\.)(?:{'|'.join(_WRAPPERS)})\.")
_VARIANCES = ("running_var", "moving_variance")
_WIDENED = ("float16", "bfloat16")
_OTHER_KINDS = {
    b"version https://git-lfs": "is a pointer of Git LFS to the file, not the file: fetch it with git lfs pull",
    b"<": "is a web page: the download went wrong, or needs a log-in",
    b"\x89HDF": "is an HDF5 file (Keras, MATLAB), not PyTorch's",
    b"\x1f\x8b": "is compressed: unpack it and convert the weights inside",
    b"\x08": "is an ONNX file or another graph, not weights: convert the weights that it was made from",
}


class StateDict(typing.NamedTuple):
    """A state dict as it is found in a file.

    Attributes:
        entries: Name inside all wrappers -> tensor or array.
        wrappers: Name -> what stood before it, such as 'model.module.'.
        averaged: Where it was found, if it holds averaged weights; otherwise ''.
    """

    entries: dict[str, typing.Any]
    wrappers: dict[str, str]
    averaged: str


def read_source(path: str | Path) -> typing.Any:
    """Load a file of PyTorch's world on the CPU.

    Args:
        path: What `torch.save` wrote, a `.safetensors` file, or the `.json` index of such files.

    Returns:
        Its content: containers of tensors, NumPy values and plain Python values.

    Raises:
        InputError: Missing, foreign or truncated file, or one with Python objects other than weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            _refuse_other_kinds(file, path)
            if path.suffix == ".json":
                return _read_shards(path)
            return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(file, path)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error


def find_state_dict(content: typing.Any, where: str) -> StateDict:
    """Find the state dict in what a file holds, and take its entries out of their wrappers.

    Args:
        content: What `read_source` returned.
        where: The file, for messages.

    Returns:
        The state dict, the averaged one where there are two.

    Raises:
        InputError: No state dict, or one that holds an entry inside and outside of a wrapper.
    """
    if _swapped_by_mmengine(content):
        (state, _), averaged = _find_state({"state_dict": content["state_dict"]}, where), "state_dict"
    else:
        state, path = _find_state(content, where)
        averaged = ".".join(path) if any(key in _AVERAGED for key in path) else ""
    for prefix in _AVERAGED_PREFIXES:
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if inside:
            state, averaged = inside, prefix + "*"
            break
    by_mmcv = {f"ema_{key.replace('.', '_')}" for key in state} & state.keys()
    if by_mmcv:
        averaged = "the entries whose names have no 'ema_'"
    if averaged:
        log.info("%s: took the averaged weights (%s), which such files are evaluated with.", where, averaged)
    entries, wrappers = {}, {}
    for key, value in state.items():
        leading = _LEADING.match(key)[0]
        name = _INSIDE.sub("", key.removeprefix(leading))
        if name in entries:
            raise InputError(f"{where} holds some entries twice, inside wrappers and outside: {name} is one.")
        if name not in _BOOKKEEPING and key not in by_mmcv:
            entries[name], wrappers[name] = value, leading
    return StateDict(entries, wrappers, averaged)


def inside_one_wrapper(found: StateDict, names: Iterable[str], where: str) -> dict[str, typing.Any]:
    """Leave out what lies beside the network in a larger module, such as a body or a loss.

    Args:
        found: What `find_state_dict` returned.
        names: Those of the network.
        where: The file, for messages.

    Returns:
        The entries in the network's wrapper; all where it has none.

    Raises:
        InputError: If the network's entries are in several wrappers.
    """
    first: dict[str, str] = {}  # entry of each wrapper
    for name in names:
        if name in found.wrappers:
            first.setdefault(found.wrappers[name], name)
    if len(first) > 1:
        keys = " and ".join(wrapper + name for wrapper, name in first.items())
        raise InputError(f"{where} mixes entries of several modules ({keys}): save the network's state dict alone.")
    wrapper = next(iter(first), "")
    outside = [name for name in found.entries if wrapper and found.wrappers[name] != wrapper]
    if outside:
        log.info("%s: left out %d entries beside '%s*': %s ...", where, len(outside), wrapper, ", ".join(outside[:3]))
    return {name: value for name, value in found.entries.items() if name not in outside}


def to_float32(entries: Mapping[str, typing.Any], names: Iterable[str], where: str) -> dict[str, np.ndarray]:
    """Convert weights of any usual precision to float32, and say so.

    Args:
        entries: Name -> tensor or array.
        names: Those to convert; entries that are not there are passed over.
        where: The file, for messages.

    Returns:
        Name -> array.

    Raises:
        InputError: Integers, complex numbers, or no numbers at all; values that are not finite, or not in float32;
            negative variances.
    """
    arrays, widened, rounded = {}, collections.Counter(), []
    for name in names:
        if name not in entries:
            continue
        kind = _kind(entries[name])
        if kind not in (*_WIDENED, "float32", "float64"):
            raise InputError(
                f"{where}: {name} is {kind}, and weights are floats: what was quantised cannot be converted, but the "
                "weights that it was made from can."
            )
        array = to_numpy(entries[name], name, where)
        with np.errstate(over="ignore"):
            arrays[name] = np.ascontiguousarray(array.astype(np.float32, copy=False))
        if not np.isfinite(arrays[name]).all():
            reason = "too large for float32" if np.isfinite(array).all() else "not finite (NaN or infinite)"
            raise InputError(f"{where}: {name} holds values that are {reason}; the file cannot be used.")
        if name.endswith(_VARIANCES) and (arrays[name] < 0).any():
            raise InputError(f"{where}: {name} holds negative variances; the file cannot be used.")
        if kind in _WIDENED:
            widened[kind] += 1
        elif kind == "float64":
            rounded.append(not np.array_equal(arrays[name], array))
    for kind, count in widened.items():
        log.info("%s: %d arrays of %s became float32, which loses nothing.", where, count, kind)
    if rounded:
        lost = f"{sum(rounded)} of them rounded" if any(rounded) else "which loses nothing"
        log.info("%s: %d arrays of float64 became float32, %s.", where, len(rounded), lost)
    return arrays


def to_numpy(entry: typing.Any, name: str, where: str) -> np.ndarray:
    """A tensor or array as a NumPy array; bfloat16, which NumPy has not, as float32.

    Raises:
        InputError: It has no numbers, or not one for each place.
    """
    if isinstance(entry, np.ndarray):
        return entry
    if entry.is_meta or str(entry.layout) != "torch.strided":
        why = "on the device 'meta'" if entry.is_meta else "sparse"
        raise InputError(f"{where}: {name} is {why}: save plain dense tensors with PyTorch and convert those.")
    try:
        return (entry.float() if _kind(entry) == "bfloat16" else entry).detach().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:  # tensors of foreign classes
        raise InputError(f"{where}: {name} is no array of numbers, but a {type(entry).__name__}.") from error


def _kind(entry: typing.Any) -> str:
    return str(entry.dtype).removeprefix("torch.")


def _read_torch(file: typing.BinaryIO, path: Path) -> typing.Any:
    torch = optional_module("torch")

    _report_damage(file, path)
    try:
        with torch.serialization.safe_globals(_harmless_globals()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes make an unpickler raise anything
        found = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found:
            raise InputError(
                f"{path} is refused: it holds the Python object {found[1]}, which is no weight, and objects can run "
                "code when loaded; save only the state dict with PyTorch and convert that."
            ) from error
        raise InputError(f"{path} is not a PyTorch weights file, or it is truncated or damaged.") from error


def _report_damage(file: typing.BinaryIO, path: Path) -> None:
    """PyTorch itself does not look at the checksums that it writes, and can be told not to write them."""
    try:
        damaged = zipfile.ZipFile(file).testzip()
        if damaged is not None:
            log.warning("%s is damaged, or was saved without checksums: that of '%s' is wrong.", path, damaged)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        pass  # of the time before zip archives, or unreadable, which is said next
    file.seek(0)


def _read_safetensors(path: Path) -> dict[str, typing.Any]:
    optional_module("torch")
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, KeyError) as error:
        raise InputError(f"{path} is not a .safetensors file, or it is truncated or damaged ({error}).") from error


def _read_shards(index: Path) -> dict[str, typing.Any]:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        paths = [index.parent / Path(shard).name for shard in sorted(shards)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is not an index of weights in several files: it has no 'weight_map'.") from error
    entries: dict[str, typing.Any] = {}
    for path in paths:
        entries |= read_source(path) if path.suffix != ".json" else {}
    return entries


def _refuse_other_kinds(file: typing.BinaryIO, path: Path) -> None:
    """Say what a file is that PyTorch would only call unreadable."""
    head = file.read(512)
    file.seek(0)
    if head[8:9] == b"{":  # safetensors; its first bytes are a length
        return
    said = next((said for magic, said in _OTHER_KINDS.items() if head.lstrip().startswith(magic)), "")
    if not said and head.startswith(b"PK") and zipfile.is_zipfile(file):
        names = {Path(name).name for name in zipfile.ZipFile(file).namelist()}
        if "constants.pkl" in names:
            said = "is a TorchScript archive, a program: save the state_dict() of what torch.jit.load gives"
        elif "archive_format" in names:
            said = "is a torch.export archive, a program: save the state_dict of what torch.export.load gives"
        elif "data.pkl" not in names:
            said = "is a zip archive or NumPy's .npz, not a file of torch.save: convert the weights inside"
    elif head[257:262] == b"ustar":
        said = "is a tar archive: unpack it and convert the weights inside; if PyTorch opens it as it is, save it again"
    file.seek(0)
    if said:
        raise InputError(f"{path} {said}.")


def _harmless_globals() -> list[typing.Any]:
    """NumPy scalars and arrays, arguments and paths, as trainers store them beside the weights."""
    multiarray = np.core.multiarray
    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    named = [(kind, f"numpy.dtypes.{kind.__name__}") for kind in kinds] + [
        (np.dtype, "numpy.dtype"),
        (np.ndarray, "numpy.ndarray"),
    ]
    for package in ("numpy.core", "numpy._core"):  # as NumPy 1 and 2 call it
        named.append((multiarray.scalar, f"{package}.multiarray.scalar"))
        named.append((multiarray._reconstruct, f"{package}.multiarray._reconstruct"))
    return [*named, argparse.Namespace, pathlib.PosixPath]


def _find_state(content: typing.Any, where: str) -> tuple[dict[str, typing.Any], tuple[str, ...]]:
    """The state dict, however deep, and the keys that lead to it."""
    path, inner = (), content
    while isinstance(inner, Mapping):
        if inner and all(_is_entry(value) for value in inner.values()) and any(map(_has_axes, inner.values())):
            entries = {str(k): v if hasattr(v, "detach") else np.asarray(v) for k, v in inner.items()}
            return entries, path
        key = next((k for k in (*_AVERAGED, *_RAW) if inner.get(k) and isinstance(inner[k], Mapping)), None)
        if key is None:
            break
        path, inner = (*path, key), inner[key]
    shown = ", ".join(map(str, list(inner)[:5])) if isinstance(inner, Mapping) else type(inner).__name__
    below = f" below '{'.'.join(path)}'" if path else ""
    raise InputError(
        f"{where} holds no state dict of tensors, alone or under {', '.join(repr(k) for k in _RAW)}; found{below}: "
        f"{shown or 'nothing'}."
    )


def _is_entry(value: typing.Any) -> bool:
    return hasattr(value, "detach") or isinstance(value, (np.ndarray, np.generic, int, float))


def _has_axes(value: typing.Any) -> bool:
    return getattr(value, "ndim", 0) > 0


def _swapped_by_mmengine(content: typing.Any) -> bool:
    """Whether the average is the 'state_dict' and the raw weights the 'ema_state_dict', as mmengine saves them."""
    average = content.get("ema_state_dict") if isinstance(content, Mapping) else None
    return isinstance(average, Mapping) and "steps" in average and "state_dict" in content
