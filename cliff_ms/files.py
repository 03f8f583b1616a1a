"""Files the user names and files we write: checked when read, whole or absent when written."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cliff_ms.errors import InputError


def require_file(path: str | Path, what: str) -> Path:
    """Check that a file is there and holds something.

    Args:
        path: What the user named.
        what: How to call it in the message, such as 'Image'.

    Returns:
        The path.

    Raises:
        InputError: If it does not exist, is a folder or has 0 bytes.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{what} '{path}' is a folder; a file was expected.")
    if not path.is_file():
        raise InputError(f"{what} '{path}' does not exist.")
    if path.stat().st_size == 0:
        raise InputError(f"{what} '{path}' is empty (0 bytes); copy or download it again.")
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
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            temporary.chmod(0o644)  # MindSpore writes files that only their owner can read
            temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot write '{path}': {reason}; choose a folder that can be written.") from error


def prepare_output_dir(path: str | Path) -> Path:
    """Create the output folder and check that a file can be made in it.

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
        raise InputError(
            f"Cannot write to the output folder '{path}': {error.strerror}; choose another with --output_dir."
        ) from error
    return path
