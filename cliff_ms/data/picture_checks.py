"""Whether the pictures that annotations name are there, can be read, and are those that the labels are of."""

import multiprocessing
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cliff_ms.data.annotations import Annotations
from cliff_ms.data.decoding import ImageFile
from cliff_ms.data.label_checks import box_outside_image, outside_image
from cliff_ms.data.loader import in_order
from cliff_ms.io.errors import InputError
from cliff_ms.io.images import read_image

MISSING, UNREADABLE = "the picture is not there", "the picture cannot be read"
DAMAGED = "the picture is a damaged JPEG, of which a part is not what was photographed"
OTHER_SIZE = "the picture has another size than 'img_hw' says"
CENTER_OUTSIDE, BOX_OUTSIDE = "the centre of the box lies outside the picture", "the box lies outside the picture"


def look_at_pictures(
    known: Annotations, image_dir: Path, rows: Sequence[int] | np.ndarray, decode: bool = False
) -> dict[str, list[int]]:
    """Look at the pictures of some rows, each once, with all cores.

    Args:
        known: The annotations.
        image_dir: Folder that their image names are relative to.
        rows: Which rows.
        decode: Decode the pictures to their end; else only read how large they are.

    Returns:
        What is wrong, one of the constants above -> rows; a row may be in several.
    """
    rows_of = defaultdict(list)
    for row in rows:
        rows_of[str(known.image_names[row])].append(int(row))
    problems: dict[str, list[int]] = defaultdict(list)
    with _workers(decode) as pool:
        look = _decoded_size if decode else _stated_size
        sizes = in_order(pool, look, ((image_dir / name,) for name in rows_of), 64)
        shown = tqdm(sizes, total=len(rows_of), unit="image", leave=False, disable=None)
        for same, found in zip(rows_of.values(), shown, strict=True):
            if isinstance(found, str):
                problems[found] += same
                continue
            img_hw = np.tile(found, (len(same), 1))
            wrong = {
                CENTER_OUTSIDE: outside_image(known.center[same], img_hw),
                BOX_OUTSIDE: box_outside_image(known.center[same], known.size[same], img_hw),
            }
            if known.img_hw is not None:
                wrong[OTHER_SIZE] = is_other_size(known.img_hw[same], img_hw)
            for problem, those in wrong.items():
                problems[problem] += np.array(same)[those].tolist()
    return {problem: those for problem, those in problems.items() if those}


def is_other_size(stated: np.ndarray, img_hw: np.ndarray) -> np.ndarray:
    """Whether sizes (..., 2) px differ by more than rounding, (...,) bool."""
    return (np.abs(stated - img_hw) > 1).any(-1)


def _workers(decode: bool) -> Executor:
    """Threads; to decode, processes, as what a decoder complains of comes out on the stderr of a process only."""
    if not decode:
        return ThreadPoolExecutor(os.cpu_count())
    return ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), _catch_stderr)


def _catch_stderr() -> None:
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)


def _stated_size(path: Path) -> tuple[int, int] | str:
    if not path.is_file():
        return MISSING
    try:
        return ImageFile(path).img_hw
    except InputError:
        return UNREADABLE


def _decoded_size(path: Path) -> tuple[int, int] | str:
    os.truncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    try:
        height, width, _ = read_image(path).shape
    except InputError:
        return UNREADABLE if path.is_file() else MISSING
    complaints = os.pread(2, 4096, 0)
    return DAMAGED if b"JPEG" in complaints else (height, width)
