"""MPII Human Pose: people in pictures from videos (Andriluka et al., CVPR 2014)."""

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from cliff_ms.data.readers.raw import hdf5_array, open_hdf5, read_mat
from cliff_ms.data.readers.rows import Part, Rows, find_files, good_box, place
from cliff_ms.io.errors import InputError

_MAT = "mpii_human_pose_v1_u12_1.mat"
_H5 = {"train": "train.h5", "val": "valid.h5"}
_PERSON_HEIGHT = 200  # px, the unit of MPII's own scale
# What the h5 files hold and SPIN used: boxes lowered and enlarged, so that feet are inside.
_LOWERED, _ENLARGED = 15, 1.25  # px per unit of scale; factor
_COUNT = 16
# SPIN24 -> place among the 16 joints.
_JOINTS = {
    "right_ankle": 0, "right_knee": 1, "right_hip_lsp": 2, "left_hip_lsp": 3, "left_knee": 4, "left_ankle": 5,
    "pelvis_mpii": 6, "thorax_mpii": 7, "neck_lsp": 8, "head_top_lsp": 9, "right_wrist": 10, "right_elbow": 11,
    "right_shoulder": 12, "left_shoulder": 13, "left_elbow": 14, "left_wrist": 15,
}  # fmt: skip

log = logging.getLogger("cliff_ms")


def read(root: Path, split: str) -> list[Part]:
    """People all of whose 16 joints are labelled.

    Args:
        root: Holds `images` and, itself or in a folder, `train.h5` or `valid.h5` of Newell's hourglass code or the
            data set's own mpii_human_pose_v1_u12_1.mat, whose training images are the split 'train'. An h5 is
            preferred: SPIN and CLIFF used it.
        split: 'train' or 'val'.

    Raises:
        InputError: Missing file. The part raises it for a damaged one.
    """
    found = [path for name in (_H5[split], *[_MAT] * (split == "train")) for path in _find(root, name)]
    if not found:
        find_files(root, f"*/{_H5[split]}", f"MPII's annotations (or {_MAT}, which has no 'val')")
    path = found[0]
    log.info("reading %s", path)
    return [Part(split, functools.partial(_read_h5 if path.suffix == ".h5" else _read_mat, path))]


def _find(root: Path, name: str) -> list[Path]:
    return sorted(root.glob(name)) + sorted(root.glob(f"*/{name}"))


def _read_h5(path: Path) -> Rows:
    with open_hdf5(path) as file:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in np.asarray(file["imgname"])]
        points, center = hdf5_array(file, "part", _COUNT, 2), hdf5_array(file, "center", 2)
        scale = hdf5_array(file, "scale")
    if not len(names) == len(points) == len(center) == len(scale):
        raise InputError(f"{path}: 'imgname', 'part', 'center' and 'scale' must be equally long.")
    return _rows([name.rstrip("\0") for name in names], points, center, scale)


def _read_mat(path: Path) -> Rows:
    release = read_mat(path, "RELEASE", plain=True)
    try:
        images = list(zip(np.atleast_1d(release.annolist), np.atleast_1d(release.img_train), strict=True))
    except (AttributeError, ValueError) as error:
        raise InputError(f"{path}: not MPII's annotations ({error}).") from None
    people, damaged = [], 0
    for image, is_train in images:
        for person in np.atleast_1d(getattr(image, "annorect", [])) if is_train else ():
            try:
                people.append((str(image.image.name), *_person(person)))
            except (AttributeError, TypeError, ValueError, IndexError):
                damaged += 1
    if not people:
        raise InputError(f"{path}: no training image has people that can be read.")
    names, *columns = zip(*people, strict=True)
    points, center, scale = map(np.array, columns)
    center[:, 1] += _LOWERED * scale  # as in the h5 files
    rows = _rows(list(names), points, center, _ENLARGED * scale)
    return Rows(rows.columns, rows.dropped | ({"damaged annotation": damaged} if damaged else {}))


def _person(person: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Joints (16, 2) px, centre (2,) px and scale, all 0 where nothing is annotated.

    MATLAB leaves fields out or empty where there is nothing, and makes no list of one.
    """
    points = np.zeros((_COUNT, 2))
    position: Any = getattr(person, "objpos", None)
    if not hasattr(position, "x"):
        return points, np.zeros(2), 0.0
    for joint in np.atleast_1d(getattr(getattr(person, "annopoints", None), "point", [])):
        points[int(joint.id)] = joint.x, joint.y
    return points, np.array([position.x, position.y], float), float(person.scale)


def _rows(names: list[str], points: np.ndarray, center: np.ndarray, scale: np.ndarray) -> Rows:
    """Rows of people with points (n, 16, 2) px, 0 where missing."""
    size = _PERSON_HEIGHT * scale.astype(np.float64)
    columns = {
        "image_names": np.array([f"images/{name}" for name in names], np.str_),
        "center": center,
        "size": size,
        "keypoints2d": place(points, _JOINTS),
    }
    return Rows(columns).keep({"fewer than 16 joints": (points > 0).all((1, 2)), "no box": good_box(center, size)})
