"""Leeds Sports Pose Extended, in high resolution: HR-LSPET (Johnson and Everingham, CVPR 2011)."""

import functools
from pathlib import Path

import numpy as np

from cliff_ms.data.readers.lsp import LSP_JOINTS, rows_of
from cliff_ms.data.readers.raw import read_mat
from cliff_ms.data.readers.rows import Part, Rows, find_files
from cliff_ms.io.errors import InputError


def read(root: Path, split: str) -> list[Part]:
    """All people; the k-th is that of the k-th image by name. Boxes as LSP's, and all 14 joints count as known.

    Args:
        root: Holds `joints.mat` and the png images.
        split: 'train', all there is.

    Raises:
        InputError: Missing files. The part raises it for a damaged one.
    """
    path = find_files(root, "joints.mat", "HR-LSPET's joints")[0]
    images = [image.name for image in find_files(root, "*.png", "HR-LSPET's images")]
    return [Part(split, functools.partial(_read_file, path, images))]


def _read_file(path: Path, images: list[str]) -> Rows:
    joints = read_mat(path, "joints")  # x, y, flag
    if joints.dtype.kind not in "fiu" or joints.ndim != 3 or joints.shape[:2] != (len(LSP_JOINTS), 3):
        raise InputError(f"{path}: 'joints' must be numbers of shape (14, 3, N), but has {joints.shape}; is it LSP's?")
    if joints.shape[2] != len(images):
        raise InputError(f"{path}: {joints.shape[2]} people, but {len(images)} png images beside it; unpack all.")
    return rows_of(images, joints[:, :2].transpose(2, 0, 1).astype(np.float64))
