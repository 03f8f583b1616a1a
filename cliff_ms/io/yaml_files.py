"""YAML files that may build on others: a file with `base: OTHER.yaml` states only what differs from it."""

from pathlib import Path
from typing import Any

import yaml

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import require_file

_BASE = "base"


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML forbids a key to appear twice; PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: list = []  # a key need not be hashable; PyYAML says so later
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"'{key.value}' appears twice", problem_mark=key.start_mark
                )
            seen.append(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """What a text in YAML says.

    Args:
        text: The text.
        where: Where it stands, for messages.

    Returns:
        Plain values, lists and dicts.

    Raises:
        InputError: It is not YAML, or a key appears twice.
    """
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {' '.join(str(error).split())}.") from None


def read_with_base(path: Path, kind: str) -> tuple[Any, str]:
    """Read a file and those that it is based on.

    `base`, relative to the file's folder, names another file: mappings are merged key by key, anything else (a list
    too) takes the place of the base's.

    Args:
        path: The file.
        kind: What it is, for messages.

    Returns:
        What the files say together, without `base`; and their names, for messages.

    Raises:
        InputError: A file that is missing, unreadable or no YAML, or one that is its own base.
    """
    chain: list[Path] = []
    layers: list[Any] = []
    following: Path | None = Path(path)
    while following is not None:
        following = require_file(following, kind if not chain else f"{kind} '{chain[-1]}': its base")
        if any(following.samefile(earlier) for earlier in chain):
            raise InputError(f"{kind} '{chain[-1]}': base '{following}' is itself based on this file.")
        chain.append(following)
        layers.append(_read(following))
        base = layers[-1].pop(_BASE, None) if isinstance(layers[-1], dict) else None
        if base is not None and not isinstance(base, str):
            raise InputError(f"{kind} '{following}': base must be the name of a file, but got {base!r}.")
        following = None if base is None else following.parent / base
    values = layers.pop()
    while layers:
        values = _merged(values, layers.pop())
    return values, " on ".join(str(each) for each in chain)


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not YAML: {error}.") from None
    return parse_yaml(text, str(path))


def _merged(base: Any, changes: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    return base | {key: _merged(base.get(key), value) for key, value in changes.items()}
