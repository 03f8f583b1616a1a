"""Files the user names and files we write: checked when read, whole or absent when written."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import numpy as np

from cliff_ms.io.errors import InputError

# What NumPy raises on files that are cut off, of another kind, or hold pickled objects.
_NOT_ARRAYS = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, NotImplementedError, ValueError, EOFError, OSError,
    AttributeError, TypeError,
)  # fmt: skip
_UNFINISHED = ".unfinished"


def require_file(path: str | Path, what: str) -> Path:
    """Check that a file is there and holds something.

    Args:
        path: What the user named.
        what: How to call it in the message, such as 'Image'.

    Returns:
        The path.

    Raises:
        InputError: If it does not exist, is a folder, has 0 bytes or may not be read.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{what} '{path}' is a folder; a file was expected.")
    if not path.is_file():
        raise InputError(f"{what} '{path}' does not exist.")
    if path.stat().st_size == 0:
        raise InputError(f"{what} '{path}' is empty (0 bytes); copy or download it again.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{what} '{path}' cannot be read: {error.strerror}.") from None
    return path


def read_json(path: Path, what: str, unique_keys: bool = False) -> object:
    """Read a JSON file.

    Args:
        path: UTF-8 text, with or without a byte-order mark.
        what: How to call the file in the message.
        unique_keys: Refuse an object that holds a key twice (JSON's own rule is that the last one wins).

    Returns:
        What the file holds.

    Raises:
        InputError: If it is no JSON.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{what} '{path}' holds the key '{twice}' twice; put its rows into one list.")
        return dict(pairs)

    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique if unique_keys else None)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{what} '{path}' is not JSON: {error.msg} at {place}.") from error
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{what} '{path}' is not JSON: it cannot be read as UTF-8 text.") from error
    except InputError:
        raise
    except (ValueError, RecursionError):
        raise InputError(f"{what} '{path}' has a number of thousands of digits, or lists nested as deep.") from None


def read_npz(path: Path, what: str, keys: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Read an .npz of plain arrays.

    Args:
        path: The file.
        what: How to call it in the message.
        keys: Read these only, as far as they are there; default: all.

    Returns:
        Key -> array.

    Raises:
        InputError: If it is damaged or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if keys is None or key in keys}
    except _NOT_ARRAYS as error:
        raise InputError(f"{what} '{path}' is damaged or not an npz file of plain arrays ({error}).") from None


def read_npy(path: Path, what: str) -> np.ndarray:
    """Read an .npy of numbers.

    Args:
        path: The file.
        what: How to call it in the message.

    Returns:
        The array.

    Raises:
        InputError: If it is damaged or something else.
    """
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
            if array.dtype.kind not in "biuf":
                raise TypeError(f"it holds {array.dtype}")
            if file.read(1):
                raise ValueError("more bytes follow the array")
    except _NOT_ARRAYS as error:  # of an npz, which has no dtype, too
        raise InputError(f"{what} '{path}' is damaged or not an npy file of numbers ({error}).") from None
    return array


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def normalise_name(name: str) -> str:
    """An image name in one spelling: forward slashes, no leading './'."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a name in a hidden folder beside `path`; on success the file is moved to `path`, else nothing is left.

    Args:
        path: The final name.

    Yields:
        The temporary path, with the name of `path` (programs choose the format by its suffix).

    Raises:
        InputError: If the body or the move ends in an OSError: the folder is missing, full or cannot be written.
    """
    path = Path(path)
    try:
        # A folder of its own, because some libraries leave files of other names behind when they fail.
        with (
            tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=_UNFINISHED, dir=path.parent) as folder,
            _locked(folder),
        ):
            temporary = Path(folder) / path.name
            yield temporary
            temporary.chmod(0o644)  # MindSpore writes files that only their owner can read
            temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot write '{path}': {reason}; choose a folder that can be written.") from error


def remove_unfinished(folder: str | Path) -> None:
    """Remove what killed processes left in a folder of files that they were writing, see `atomic_path`.

    What a living process is writing is locked and stays, as it does where a file system knows no locks.

    Args:
        folder: Not its sub-folders; nothing happens if it is not there.
    """
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(".") and entry.name.endswith(_UNFINISHED) and entry.is_dir():
                with suppress(OSError), _locked(entry.path, fcntl.LOCK_NB, required=True):
                    shutil.rmtree(entry.path)


def check_not_overwritten(output: Path, inputs: Mapping[str, Path | None]) -> None:
    """Refuse to write over what was given.

    Args:
        output: The file to be written.
        inputs: Option -> the file given with it, if any.

    Raises:
        InputError: If one of them is the output.
    """
    for option, path in inputs.items():
        if path is not None and path.resolve() == output.resolve():
            raise InputError(f"'{output}' is given with {option} and would be overwritten: name another output.")


def claim_folder(folder: Path, settings: dict) -> None:
    """Write down in settings.json what a folder is made with, or check that it was made with the same.

    Args:
        folder: An existing folder, whose work goes on if it was interrupted.
        settings: Name -> value; names of what the user chose, since messages name them. JSON's types.

    Raises:
        InputError: If the folder was made with others, or cannot be written.
    """
    path = folder / "settings.json"
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    before = read_json(path, "Settings")
    changed = [name for name in settings if not isinstance(before, dict) or settings[name] != before.get(name)]
    if changed:
        raise InputError(
            f"'{folder}' was made with other settings: {', '.join(changed)} differ; choose another output, or remove "
            "that folder to start anew."
        )


def prepare_output_dir(path: str | Path) -> Path:
    """Create the output folder, check that a file can be made in it, and remove what killed processes left there.

    Args:
        path: The folder; its parents are created too.

    Returns:
        The path.

    Raises:
        InputError: If it is a file, lies under one, or cannot be written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"Cannot write to the output folder '{path}': {error.strerror}; choose another.") from error
    remove_unfinished(path)
    return path


@contextmanager
def _locked(folder: str, how: int = 0, required: bool = False) -> Iterator[None]:
    """Hold the lock of a folder, which goes with the process; OSError without it if it is required."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(*() if required else (OSError,)):
            fcntl.flock(handle, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(handle)
