"""What all readers share: rows of people, why others were left out, boxes, and partial results that survive a kill."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cliff_ms.data.annotations import Annotations
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, claim_folder, prepare_output_dir, read_npz
from cliff_ms.keypoints import SPIN24

_PROBED_IMAGES = 100

log = logging.getLogger("cliff_ms")


@dataclass(eq=False)
class Rows:
    """Some people of a data set.

    Attributes:
        columns: Attributes of `Annotations` -> (n, ...); `image_names`, `center` and `size` at least. All parts of a
            data set have the same columns.
        dropped: Reason -> how many people were left out for it.
    """

    columns: dict[str, np.ndarray]
    dropped: dict[str, int] = field(default_factory=dict)

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
        return Rows({name: column[left] for name, column in self.columns.items()}, dropped)


@dataclass(frozen=True)
class Part:
    """A piece of a data set that is read in one go, such as a sequence.

    Attributes:
        name: Unique in its data set; a file name is made of it.
        read: Reads it.
    """

    name: str
    read: Callable[[], Rows]


def collect(parts: Sequence[Part], output: Path, settings: Mapping[str, object]) -> Rows:
    """Read all parts, showing progress; those that an interrupted run has read are taken from `OUTPUT.parts`.

    Args:
        parts: What a reader gives.
        output: The npz that will be written. The partial results lie beside it until `remove_parts`.
        settings: What the rows depend on besides the files.

    Returns:
        The rows of all parts, in order.

    Raises:
        InputError: What the parts raise, a folder that cannot be written, partial results of other settings, or no row
            is left.
    """
    folder, done = _parts_folder(output), []
    settings = {key: str(value) for key, value in settings.items()}
    if folder.exists():
        claim_folder(folder, settings)
    for index, part in enumerate(tqdm(parts, unit="part", disable=len(parts) < 2)):
        name = hashlib.sha256(part.name.encode()).hexdigest()[:16]
        path = folder / f"{index:05d}_{name}.npz"
        rows = _load(path)
        if rows is None:
            rows = part.read()
            claim_folder(prepare_output_dir(folder), settings)  # now that there is something to keep
            with atomic_path(path) as temporary:
                np.savez(temporary, dropped=json.dumps(rows.dropped), **rows.columns)
        done.append(rows)
    rows = join(done)
    if not len(rows):
        reasons = "; ".join(f"{count} {reason}" for reason, count in rows.dropped.items()) or "the files hold nobody"
        raise InputError(f"No row is left of {settings.get('root')}: {reasons}.")
    return rows


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
    labels = {
        "2D keypoints": (annotations.keypoints2d[..., 2] > 0).any(1),
        "3D joints": (annotations.keypoints3d[..., 3] > 0).any(1),
        "SMPL bodies": annotations.has_smpl > 0,
        "calibrated focal lengths": np.isfinite(annotations.focal_length),
    }
    lines += [f"with {what}: {int(has.sum())}" for what, has in labels.items()]
    if annotations.img_hw is None:
        lines.append("image sizes: not known")
    probed = annotations.image_names[np.linspace(0, len(rows) - 1, min(len(rows), _PROBED_IMAGES)).astype(int)]
    found = sum((root / name).is_file() for name in probed.tolist())
    lines.append(f"image files: {found} of {len(probed)} looked for are under {root}")
    return "\n".join(lines)


# --- What readers compute with ----------------------------------------------------------------------------------------


def find_files(root: Path, pattern: str, what: str) -> list[Path]:
    """Files under the root, sorted by name.

    Args:
        root: What the user named with --root.
        pattern: Of `Path.glob`.
        what: What they are, for the message.

    Raises:
        InputError: If there is no such folder or no such file.
    """
    if not root.is_dir():
        raise InputError(f"--root: there is no folder '{root}'; give the folder that the data set was unpacked into.")
    paths = sorted(root.glob(pattern))
    if not paths:
        raise InputError(f"--root '{root}' has no '{pattern}', where {what} would be; unpack the data set there.")
    return paths


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
