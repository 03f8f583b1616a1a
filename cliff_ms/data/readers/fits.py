"""SMPL bodies that others fitted to a data set's keypoints (cliffGT, EFT, SPIN), given to the rows they belong to."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from cliff_ms.data.annotation_files import load_annotations, read_annotations
from cliff_ms.data.annotations import Annotations
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import check_not_overwritten, read_npy, read_npz, require_file

_SAME_PERSON = 2.0  # px; how far the same person's keypoints in both files may be apart, on average
_FEWEST_JOINTS = 4  # known in both
_FINAL_FITS = {"betas": "shape", "valid_fit": "has_smpl"}  # what SPIN's final fits call what its others call so


def load_fits(path: Path | None, rows_of: Path | None, output: Path) -> Annotations | None:
    """Read fitted bodies with the keypoints that they belong to.

    Args:
        path: An annotation file with bodies (cliffGT's or SPIN's npz, EFT's json); or SPIN's `*_fits.npy`, (N, 82)
            numbers of pose and shape; or an npz of SPIN's with `pose shape has_smpl` (`mpi-inf-3dhp_mview_fits.npz`) or
            `pose betas valid_fit` (its final fits).
        rows_of: For the last two, whose rows have no names: SPIN's npz with the same rows.
        output: What will be written, which must be neither of them.

    Returns:
        The bodies; None if neither file is given.

    Raises:
        InputError: Missing, damaged or foreign file, or files of different length.
    """
    if path is None and rows_of is None:
        return None
    if path is None:
        raise InputError("--fits_rows says whose the bodies of --fits are: give --fits too.")
    check_not_overwritten(output, {"--fits": path, "--fits_rows": rows_of})
    path = require_file(path, "Fits")
    arrays = _nameless(path)
    if arrays is None:
        if rows_of is not None:
            raise InputError(f"--fits '{path}' names its images itself: leave out --fits_rows.")
        return load_annotations(path)
    if rows_of is None:
        raise InputError(f"--fits '{path}' does not say which people it is of: give SPIN's npz of them as --fits_rows.")
    people, findings = read_annotations(rows_of)  # all rows, as the bodies have no names
    pose, betas, has_smpl = arrays
    if not len(pose) == len(betas) == len(has_smpl) == len(people):
        raise InputError(f"--fits '{path}' has {len(pose)} rows, but --fits_rows '{rows_of}' has {len(people)}.")
    good = np.isfinite(pose).all(1) & np.isfinite(betas).all(1) & (has_smpl > 0)
    people = replace(
        people,
        pose=np.where(good[:, None], pose, 0).astype(np.float32),
        betas=np.where(good[:, None], betas, 0).astype(np.float32),
        has_smpl=good.astype(np.float32),
        focal_length=np.full(len(people), np.nan, np.float32),
        translation=None,
    )
    return people.take(~findings.bad_rows(len(people)))


def merge(annotations: Annotations, fits: Annotations) -> tuple[Annotations, int]:
    """Give rows the bodies of the same person in the same image.

    The same image: one of the names ends with the other. The same person: keypoints that both files know, at least 4,
    are 2 px apart or less on average; each body goes to the nearest such row. `translation` and `focal_length` come
    with the body where the fits have them.

    Args:
        annotations: Rows without bodies.
        fits: Bodies.

    Returns:
        The rows, and how many of them have a body now.

    Raises:
        InputError: If no body belongs to any row.
    """
    chosen = _match(annotations, fits)
    rows, bodies = np.flatnonzero(chosen >= 0), chosen[chosen >= 0]
    if not len(rows):
        raise InputError(
            f"--fits: none of its bodies is of a person in the data set, such as '{annotations.image_names[0]}'; the "
            f"fits are of '{fits.image_names[0]}' and others."
        )
    pose, betas, has_smpl = (getattr(annotations, name).copy() for name in ("pose", "betas", "has_smpl"))
    pose[rows], betas[rows], has_smpl[rows] = fits.pose[bodies], fits.betas[bodies], 1
    focal_length = annotations.focal_length.copy()
    focal_length[rows] = np.where(np.isnan(fits.focal_length[bodies]), focal_length[rows], fits.focal_length[bodies])
    translation = annotations.translation
    if fits.translation is not None:
        translation = np.zeros((len(annotations), 3), np.float32)
        translation[rows] = fits.translation[bodies]
    labels = {"pose": pose, "betas": betas, "has_smpl": has_smpl}
    return replace(annotations, **labels, focal_length=focal_length, translation=translation), len(rows)


def _nameless(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Pose, betas and has_smpl of a file that holds nothing else."""
    if path.suffix == ".npy":
        array = read_npy(path, "Fits")
        if array.ndim != 2 or array.shape[1] != 82:
            raise InputError(f"--fits '{path}' must have shape (N, 82), pose and shape, but has {array.shape}.")
        return array[:, :72], array[:, 72:], np.ones(len(array))
    if path.suffix != ".npz":
        return None
    arrays = read_npz(path, "Fits", ("imgname", "pose", "shape", "has_smpl", *_FINAL_FITS))
    arrays = {_FINAL_FITS.get(key, key): array for key, array in arrays.items()}
    if "imgname" in arrays or not {"pose", "shape"} <= arrays.keys():
        return None
    if arrays["pose"].size % 72 or arrays["shape"].size % 10:
        raise InputError(f"--fits '{path}': 'pose' must hold 72 and 'shape' 10 numbers of each person.")
    pose, betas = arrays["pose"].reshape(-1, 72), arrays["shape"].reshape(-1, 10)
    return pose, betas, arrays.get("has_smpl", np.ones(len(pose)))


def _match(annotations: Annotations, fits: Annotations) -> np.ndarray:
    """For each row the body that is the person's, or -1, (n,)."""
    by_image = defaultdict(list)
    for index in np.flatnonzero(fits.has_smpl > 0).tolist():
        by_image[PurePosixPath(str(fits.image_names[index])).name].append(index)
    pairs = []
    for row, name in enumerate(annotations.image_names.tolist()):
        for body in by_image.get(PurePosixPath(name).name, ()):
            distance = _distance(annotations.keypoints2d[row], fits.keypoints2d[body])
            if distance <= _SAME_PERSON and _same_image(name, str(fits.image_names[body])):
                pairs.append((distance, row, body))
    chosen, taken = np.full(len(annotations), -1), set()
    for _, row, body in sorted(pairs):
        if chosen[row] < 0 and body not in taken:
            chosen[row] = body
            taken.add(body)
    return chosen


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of the keypoints (24, 3) that both know, px; infinite if they are too few."""
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    if both.sum() < _FEWEST_JOINTS:
        return float("inf")
    return float(np.linalg.norm(a[both, :2] - b[both, :2], axis=1).mean())


def _same_image(a: str, b: str) -> bool:
    return f"/{a}".endswith(f"/{b}") or f"/{b}".endswith(f"/{a}")
