"""What is wrong with an annotation file and its pictures, as a report for people."""

from pathlib import Path

import numpy as np

from cliff_ms.data.annotation_files import read_annotations
from cliff_ms.data.label_checks import refusal
from cliff_ms.data.picture_checks import look_at_pictures
from cliff_ms.io.errors import InputError


def check_labels(path: Path, image_dir: Path | None = None, decode: bool = False) -> tuple[str, bool]:
    """Check an annotation file and, if a folder is given, every picture that it names.

    Args:
        path: What `load_annotations` reads.
        image_dir: Folder that its image names are relative to.
        decode: Decode every picture to its end; else only read how large it is.

    Returns:
        The report with the numbers of the rows, and whether `load_annotations` takes the file.

    Raises:
        InputError: A file that cannot be read at all, or no such folder.
    """
    if image_dir is not None and not image_dir.is_dir():
        raise InputError(f"--image_dir: there is no folder '{image_dir}'.")
    known, findings = read_annotations(path)
    labels = {
        "2D keypoints": (known.keypoints2d[..., 2] > 0).any(1),
        "3D joints": (known.keypoints3d[..., 3] > 0).any(1),
        "bodies": known.has_smpl > 0,
        "focal lengths": np.isfinite(known.focal_length),
    }
    counts = ", ".join(f"{int(has.sum())} with {what}" for what, has in labels.items())
    lines = [f"{path}: {len(known)} people in {len(set(known.image_names.tolist()))} images; {counts}"]
    lines += [f"wrong: {problem}" for problem in findings.wrong]
    lines += [f"note: {note}" for note in findings.notes]
    bad = {reason: np.flatnonzero(rows) for reason, rows in findings.bad.items()}
    if image_dir is not None:
        good = np.flatnonzero(~findings.bad_rows(len(known)))
        bad |= look_at_pictures(known, image_dir, good, decode)
    lines += [f"{len(rows)} bad: {reason}: rows {_ranges(rows)}" for reason, rows in bad.items()]
    refused = refusal(path, known, findings)
    lines.append(f"refused: {refused}" if refused else f"taken, without {len(findings.reasons())} of its rows")
    return "\n".join(lines), refused is None


def _ranges(rows: np.ndarray | list[int]) -> str:
    """1, 2, 3, 7 as '1-3, 7'."""
    rows = np.sort(rows)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
