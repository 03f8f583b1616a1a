"""What all readers share: rows of people, why others were left out, boxes, and partial results that survive a kill."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from cliff_ms.data.annotations import Annotations
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, claim_folder, prepare_output_dir, read_npz
from cliff_ms.keypoints import SPIN24

_REASONS_SHOWN = 5

log = logging.getLogger("cliff_ms")


@dataclass(eq=False)
class Rows:
    """Some people of a data set.

    Attributes:
        columns: Attributes of `Annotations` -> (n, ...); `image_names`, `center` and `size` at least, and those of
            `extraction.extract`, if pictures are to be extracted. All parts of a data set have the same columns.
        dropped: Reason -> how many people were left out for it.
        unread: Part -> why it could not be read, so that its people could not even be counted.
    """

    columns: dict[str, np.ndarray]
    dropped: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["image_names"])

    def keep(self, checks: Mapping[str, np.ndarray]) -> "Rows":
        """The rows that pass all checks.

        Args:
            checks: What is wrong with a row -> (n,) bool, False where it is; a row counts under its first.
        """
        dropped, left = dict(self.dropped), np.ones(len(self), bool)
        for reason, good in checks.items():
            if (left & ~good).any():
                dropped[reason] = dropped.get(reason, 0) + int((left & ~good).sum())
            left &= good
        return Rows({name: column[left] for name, column in self.columns.items()}, dropped, self.unread)


class WholeSetError(InputError):
    """Raised by a part, but about the whole data set: an option of the user's, or what must not be left out."""


@dataclass(frozen=True)
class Part:
    """A piece of a data set that is read in one go, such as a sequence.

    Attributes:
        name: Unique in its data set; a file name is made of it.
        read: Reads it. What it raises as InputError is taken to concern this part alone, unless it is a WholeSetError.
    """

    name: str
    read: Callable[[], Rows]


def collect(parts: Sequence[Part], output: Path, settings: Mapping[str, object]) -> Rows:
    """Read all parts, showing progress; those that an interrupted run has read are taken from `OUTPUT.parts`.

    A part that cannot be read is left out; a run that goes on tries it again. Rows with labels that are not finite, and
    rows that are there twice, are left out too.

    Args:
        parts: What a reader gives.
        output: The npz that will be written. The partial results lie beside it until `remove_parts`.
        settings: What the rows depend on besides the files.

    Returns:
        The rows of all parts, in order.

    Raises:
        InputError: A folder that cannot be written, partial results of other settings, no part can be read, no row is
            left, or a WholeSetError.
    """
    folder, done, unread = _parts_folder(output), [], {}
    settings = {key: str(value) for key, value in settings.items()}
    if folder.exists():
        claim_folder(folder, settings)
    for index, part in enumerate(tqdm(parts, unit="part", disable=len(parts) < 2)):
        name = hashlib.sha256(part.name.encode()).hexdigest()[:16]
        path = folder / f"{index:05d}_{name}.npz"
        rows = _load(path)
        if rows is None:
            try:
                rows = part.read()
            except InputError as error:
                if isinstance(error, WholeSetError) or len(parts) == 1:
                    raise
                unread[part.name] = str(error).rstrip(".")
                log.warning("left out %s: %s", part.name, error)
                continue
            claim_folder(prepare_output_dir(folder), settings)  # now that there is something to keep
            with atomic_path(path) as temporary:
                np.savez(temporary, dropped=json.dumps(rows.dropped), **rows.columns)
        done.append(rows)
    if not done:
        raise InputError(f"No part of {settings.get('root')} can be read: {_first_of(list(unread.values()))}.")
    rows = join(done)
    rows = Rows(rows.columns, rows.dropped, unread).keep({"label not finite": _is_finite(rows)})
    rows = rows.keep({"the same row again": _is_first(rows)})
    check_not_empty(rows, settings.get("root"))
    return rows


def check_not_empty(rows: Rows, root: object) -> None:
    """Refuse to go on with nobody.

    Args:
        rows: What is left.
        root: Of the data set, for the message.

    Raises:
        InputError: If no row is.
    """
    if not len(rows):
        reasons = [f"{count} {reason}" for reason, count in rows.dropped.items()]
        reasons += [f"{name}: {reason}" for name, reason in rows.unread.items()]
        raise InputError(f"No row is left of {root}: {_first_of(reasons) or 'the files hold nobody'}.")


def remove_parts(output: Path) -> None:
    """Remove the partial results, when the npz has been written."""
    shutil.rmtree(_parts_folder(output), ignore_errors=True)


def join(parts: Sequence[Rows]) -> Rows:
    """Rows of several parts as one.

    Raises:
        ValueError: If their columns differ.
    """
    filled = [part for part in parts if len(part)] or list(parts[:1])
    if any(part.columns.keys() != filled[0].columns.keys() for part in filled):
        raise ValueError("The parts of a data set must have the same columns.")
    dropped: dict[str, int] = {}
    for part in parts:
        for reason, count in part.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return Rows({name: np.concatenate([part.columns[name] for part in filled]) for name in filled[0].columns}, dropped)


def to_annotations(rows: Rows) -> Annotations:
    """The standard schema; labels that the data set does not have are 0 with confidence 0.

    A column with NaN (an image size that could not be found out) is left out, but for the focal length's.
    """
    columns = dict(rows.columns)
    if "img_hw" in columns and not np.isfinite(columns["img_hw"]).all():
        del columns["img_hw"]
    return Annotations.of(**columns)


def summary(rows: Rows, annotations: Annotations, root: Path) -> str:
    """What was kept and what was left out and why, a line each."""
    lines = [f"kept {len(rows)} people in {len(set(annotations.image_names.tolist()))} images"]
    lines += [f"left out {count}: {reason}" for reason, count in rows.dropped.items()]
    lines += [f"could not be read: {name} ({reason})" for name, reason in rows.unread.items()]
    labels = {
        "2D keypoints": (annotations.keypoints2d[..., 2] > 0).any(1),
        "3D joints": (annotations.keypoints3d[..., 3] > 0).any(1),
        "SMPL bodies": annotations.has_smpl > 0,
        "calibrated focal lengths": np.isfinite(annotations.focal_length),
    }
    lines += [f"with {what}: {int(has.sum())}" for what, has in labels.items()]
    if annotations.img_hw is None:
        lines.append("image sizes: not known of all")
    names = sorted(set(annotations.image_names.tolist()))
    missing = _not_there(root, names)
    lines.append(f"image files: {len(names) - len(missing)} of {len(names)} are under {root}")
    if missing:
        lines[-1] += f"; the first that is not: {missing[0]}"
    return "\n".join(lines)


# --- What readers compute with ----------------------------------------------------------------------------------------


def find_files(root: Path, pattern: str, what: str) -> list[Path]:
    """Files under the root, sorted by name, but for hidden ones, such as those that macOS adds to archives.

    Args:
        root: What the user named with --root.
        pattern: Of `Path.glob`.
        what: What they are, for the message.

    Raises:
        InputError: If there is no such folder or no such file.
    """
    if not root.is_dir():
        raise InputError(f"--root: there is no folder '{root}'; give the folder that the data set was unpacked into.")
    paths = _visible_files(root, pattern)
    if not paths:
        inside = sorted(folder for folder in root.iterdir() if folder.is_dir() and _visible_files(folder, pattern))
        advice = f"give --root '{inside[0]}', which has" if inside else "unpack the data set there"
        raise InputError(f"--root '{root}' has no '{pattern}', where {what} would be; {advice}.")
    return paths


def _visible_files(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("."))


def place(points: np.ndarray, joints: Mapping[str, int]) -> np.ndarray:
    """Points of a data set's own order into SPIN24's, with confidence 1; joints that it does not have stay 0.

    Args:
        points: (n, K, D).
        joints: Name in SPIN24 -> place among the K.

    Returns:
        (n, 24, D + 1).
    """
    placed = np.zeros((len(points), len(SPIN24), points.shape[-1] + 1))
    for name, index in joints.items():
        placed[:, SPIN24.index(name), :-1] = points[:, index]
        placed[:, SPIN24.index(name), -1] = 1
    return placed


def box_of(points: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """The tightest boxes around points.

    Args:
        points: (n, K, 2) px.
        valid: (n, K) bool, which of them count; None for all.

    Returns:
        (n, 4) xyxy px; not finite where no point counts.
    """
    valid = np.ones(points.shape[:2], bool) if valid is None else valid
    low = np.where(valid[..., None], points, np.inf).min(1, initial=np.inf)
    high = np.where(valid[..., None], points, -np.inf).max(1, initial=-np.inf)
    return np.concatenate([low, high], 1)


def square_box(boxes: np.ndarray, rescale: float) -> tuple[np.ndarray, np.ndarray]:
    """SPIN's crop of a box: a square on its longer side.

    Args:
        boxes: (n, 4) xyxy px.
        rescale: Factor of enlargement.

    Returns:
        Centre (n, 2) px and side (n,) px.
    """
    with np.errstate(invalid="ignore"):  # a box of no points
        return (boxes[:, :2] + boxes[:, 2:]) / 2, rescale * (boxes[:, 2:] - boxes[:, :2]).max(1)


def good_box(center: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Whether a box is one, (n,) bool: finite and of positive size."""
    return np.isfinite(center).all(1) & np.isfinite(size) & (size > 0)


def _is_finite(rows: Rows) -> np.ndarray:
    """Whether all that a row says is finite as it is written, (n,) bool; what is not known of its camera is NaN."""
    good = np.ones(len(rows), bool)
    for name, column in rows.columns.items():
        if column.dtype.kind == "f" and name not in ("img_hw", "focal_length"):
            with np.errstate(over="ignore"):
                good &= np.isfinite(column.astype(np.float32)).all(tuple(range(1, column.ndim)))
    return good


def _is_first(rows: Rows) -> np.ndarray:
    """Whether no row before says the same of the same picture, (n,) bool."""
    columns = [rows.columns[name] for name in ("center", "size", "keypoints2d", "keypoints3d") if name in rows.columns]
    seen, first = set(), np.ones(len(rows), bool)
    for row, name in enumerate(rows.columns["image_names"].tolist()):
        key = hash((name, *(column[row].tobytes() for column in columns)))
        first[row] = key not in seen
        seen.add(key)
    return first


def _not_there(root: Path, names: Sequence[str]) -> list[str]:
    """Those of the images that are not files under the root; every folder is listed once."""
    files: dict[Path, set[str]] = {}
    missing = []
    for path in map(PurePosixPath, names):
        folder = root / path.parent
        if folder not in files:
            files[folder] = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        if path.name not in files[folder]:
            missing.append(str(path))
    return missing


def _first_of(reasons: list[str]) -> str:
    more = len(reasons) - _REASONS_SHOWN
    return "; ".join(reasons[:_REASONS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _parts_folder(output: Path) -> Path:
    return output.with_name(output.name + ".parts")


def _load(path: Path) -> Rows | None:
    if not path.is_file():
        return None
    try:
        columns = read_npz(path, "Part")
    except InputError:
        log.warning("%s cannot be read; the part is read again", path)
        return None
    return Rows(columns, json.loads(str(columns.pop("dropped"))))
