"""Leeds Sports Pose: people doing sports (Johnson and Everingham, BMVC 2010)."""

import functools
from pathlib import Path

import numpy as np

from cliff_ms.data.readers.raw import read_mat
from cliff_ms.data.readers.rows import Part, Rows, box_of, find_files, good_box, place, square_box
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SPIN24

# The first fourteen of SPIN's keypoints are LSP's, in its order.
LSP_JOINTS = {name: k for k, name in enumerate(SPIN24[:14])}
_RESCALE = 1.2
_SPLITS = {"train": slice(0, 1000), "test": slice(1000, 2000)}


def read(root: Path, split: str) -> list[Part]:
    """All people of a split. All 14 joints count as known, also those that the data set calls hidden: they are marked.

    Boxes are squares around the joints, enlarged by 1.2.

    Args:
        root: `lsp_dataset_original` or `lsp_dataset`: holds `joints.mat` and `images`.
        split: 'train' for the first thousand images, 'test' for the second.

    Raises:
        InputError: Missing file. The part raises it for a damaged one.
    """
    path = find_files(root, "joints.mat", "LSP's joints")[0]
    return [Part(split, functools.partial(_read_file, path, split))]


def rows_of(names: list[str], points: np.ndarray) -> Rows:
    """Rows of people with LSP's 14 joints.

    Args:
        names: Image names.
        points: (n, 14, 2) px.
    """
    center, size = square_box(box_of(points), _RESCALE)
    columns = {
        "image_names": np.array(names, np.str_),
        "center": center,
        "size": size,
        "keypoints2d": place(points, LSP_JOINTS),
    }
    return Rows(columns).keep({"no box": good_box(center, size)})


def _read_file(path: Path, split: str) -> Rows:
    joints = read_mat(path, "joints")  # x, y, hidden
    if joints.dtype.kind not in "fiu" or joints.shape != (3, len(LSP_JOINTS), 2000):
        raise InputError(
            f"{path}: 'joints' must be numbers of shape (3, 14, 2000), but has {joints.dtype} of {joints.shape}; is it "
            "LSPET's?"
        )
    numbers = np.arange(joints.shape[2])[_SPLITS[split]]
    names = [f"images/im{number + 1:04d}.jpg" for number in numbers]
    return rows_of(names, joints[:2].transpose(2, 1, 0)[numbers].astype(np.float64))
