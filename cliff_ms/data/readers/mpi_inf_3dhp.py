"""MPI-INF-3DHP: actors before a green screen, indoors and outdoors, without markers (Mehta et al., 3DV 2017)."""

import functools
from pathlib import Path

import numpy as np

from cliff_ms.data.readers.raw import hdf5_array, open_hdf5, read_mat
from cliff_ms.data.readers.rows import Part, Rows, box_of, find_files, good_box, place, square_box
from cliff_ms.io.errors import InputError
from cliff_ms.io.packages import optional_module

_RESCALE = 1.2
_STEP = 10  # of the training frames in which the person is wholly visible
_TRAIN_SIZE = 2048  # px, height and width
_CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)  # the others of the 14 look down from the ceiling or are not released
# SPIN24 -> place among the 28 joints of the training set.
_TRAIN_JOINTS = {
    "pelvis_mpii": 4, "left_hip_lsp": 18, "left_knee": 19, "left_ankle": 20, "right_hip_lsp": 23, "right_knee": 24,
    "right_ankle": 25, "spine_h36m": 3, "neck_lsp": 5, "jaw_h36m": 6, "head_h36m": 7, "left_shoulder": 9,
    "left_elbow": 10, "left_wrist": 11, "right_shoulder": 14, "right_elbow": 15, "right_wrist": 16,
}  # fmt: skip
# SPIN24 -> place among the 17 joints of the test set.
_TEST_JOINTS = {
    "pelvis_mpii": 14, "left_hip_lsp": 11, "left_knee": 12, "left_ankle": 13, "right_hip_lsp": 8, "right_knee": 9,
    "right_ankle": 10, "spine_h36m": 15, "neck_lsp": 1, "jaw_h36m": 16, "head_h36m": 0, "left_shoulder": 5,
    "left_elbow": 6, "left_wrist": 7, "right_shoulder": 2, "right_elbow": 3, "right_wrist": 4,
}  # fmt: skip
# Test sequences -> focal length in px and image height and width in px. The cameras' files state mm: 7.32506 mm on a
# sensor of 10 mm for the studio, 8.770747 mm on one of 10 mm outdoors.
_STUDIO, _OUTDOORS = (7.32506 / 10 * 2048, (2048, 2048)), (8.770747 / 10 * 1920, (1080, 1920))
_TEST_CAMERAS = {f"TS{k}": _STUDIO if k <= 4 else _OUTDOORS for k in range(1, 7)}


def read(root: Path, split: str, *, extract: bool = False) -> list[Part]:
    """The actors' joints relative to the pelvis, in m, and calibrated focal lengths.

    Training: S1 to S8, the eight cameras at chest height, every tenth of the frames in which all 17 joints are inside
    the image; a part for each sequence. Test: all valid frames of TS1 to TS6 with the universal skeleton (every actor
    scaled to one height), which PCK is defined on. Boxes are squares around the joints, enlarged by 1.2.

    Args:
        root: Holds S1 ... S8, or mpi_inf_3dhp_test_set.
        split: 'train' or 'test'.
        extract: Write the training videos' frames to `imageFrames`; those that are there are kept.

    Raises:
        InputError: Missing files or package, or frames of the test set, which has no videos. Parts raise it for a
            damaged file.
    """
    if split == "test":
        if extract:
            raise InputError("--extract is for --split train: the test set comes as pictures.")
        optional_module("h5py")
        paths = find_files(root, "mpi_inf_3dhp_test_set/TS*/annot_data.mat", "the test sequences of MPI-INF-3DHP")
        return [Part(path.parent.name, functools.partial(_test_sequence, path)) for path in paths]
    paths = find_files(root, "S[1-8]/Seq[12]/annot.mat", "the training sequences of MPI-INF-3DHP")
    points = functools.lru_cache(maxsize=1)(_training_points)

    @functools.cache
    def visible(path: Path) -> int:
        try:
            return int(sum(_visible(p).sum() for p in points(path)))
        except InputError:  # is raised again by the sequence's own part
            return 0

    def part(index: int) -> Rows:
        first = sum(visible(path) for path in paths[:index])  # every tenth counts on from sequence to sequence
        return _train_sequence(root, paths[index], points(paths[index]), first, extract)

    return [Part(str(path.parent.relative_to(root)), functools.partial(part, k)) for k, path in enumerate(paths)]


def read_calibration(path: Path) -> dict[int, float]:
    """The focal lengths of a `camera.calibration` file.

    Args:
        path: Skeletool's text file.

    Returns:
        Number of the camera -> mean of its two focal lengths, px.

    Raises:
        InputError: If it is no such file.
    """
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the cameras' calibration cannot be read ({error}).") from None
    focal_lengths, camera = {}, None
    for words in filter(None, lines):
        if words[0] == "name" and len(words) == 2 and words[1].isdigit():
            camera = int(words[1])
        elif words[0] == "intrinsic":
            try:
                matrix = np.array(words[1:17], float).reshape(4, 4)
            except ValueError:
                matrix = None
            if matrix is None or camera is None or not (matrix[[0, 1], [0, 1]] > 0).all():
                raise InputError(f"{path}: 'intrinsic' of camera {camera} must be 16 numbers, a 4x4 matrix in px.")
            focal_lengths[camera] = float(matrix[[0, 1], [0, 1]].mean())
    if not focal_lengths:
        raise InputError(f"{path}: no camera is described, so this is no calibration file of MPI-INF-3DHP.")
    return focal_lengths


def _training_points(path: Path) -> list[np.ndarray]:
    return _per_camera(path, "annot2", 2)


def _per_camera(path: Path, key: str, channels: int) -> list[np.ndarray]:
    """One (N, 28, channels) array for each of `_CAMERAS`."""
    cells = np.ravel(read_mat(path, key))
    if cells.dtype != object or len(cells) <= max(_CAMERAS):
        raise InputError(f"{path}: '{key}' must be a list of the 14 cameras' joints, but has shape {cells.shape}.")
    try:
        arrays = [np.asarray(cells[camera], np.float64) for camera in _CAMERAS]
    except (TypeError, ValueError):
        arrays = [np.zeros(0)]
    if any(array.ndim != 2 or array.shape[1] != 28 * channels for array in arrays):
        raise InputError(f"{path}: '{key}' must hold rows of {28 * channels} numbers for each camera.")
    return [array.reshape(-1, 28, channels) for array in arrays]


def _visible(points: np.ndarray) -> np.ndarray:
    """Whether all 17 joints are inside the image, (N,) bool."""
    used = points[:, list(_TRAIN_JOINTS.values())]
    return ((used >= 0) & (used < _TRAIN_SIZE)).all((1, 2))


def _train_sequence(root: Path, path: Path, points: list[np.ndarray], first: int, extract: bool) -> Rows:
    joints = _per_camera(path, "annot3", 3)
    sequence = path.parent.relative_to(root).as_posix()
    focal_lengths = read_calibration(path.parent / "camera.calibration")
    names, columns, videos, dropped = [], [], [], {"joints outside the image": 0, "not every tenth frame": 0}
    for index, camera in enumerate(_CAMERAS):
        if len(joints[index]) != len(points[index]) or camera not in focal_lengths:
            raise InputError(f"{path}: annot2, annot3 and camera.calibration do not agree on camera {camera}.")
        visible = np.flatnonzero(_visible(points[index]))
        frames = visible[-first % _STEP :: _STEP]  # numbers 0, 10, 20, ... of all visible frames
        first += len(visible)
        dropped["joints outside the image"] += len(points[index]) - len(visible)
        dropped["not every tenth frame"] += len(visible) - len(frames)
        names += [f"{sequence}/imageFrames/video_{camera}/frame_{frame + 1:06d}.jpg" for frame in frames]
        columns.append((points[index][frames], joints[index][frames], np.full(len(frames), focal_lengths[camera])))
        videos.append((np.full(len(frames), f"{sequence}/imageSequence/video_{camera}.avi"), frames))
    points2d, points3d, focal_length = (np.concatenate(column) for column in zip(*columns, strict=True))
    image_hw = (_TRAIN_SIZE, _TRAIN_SIZE)
    video, frame = (np.concatenate(column) for column in zip(*videos, strict=True))
    source = {"video": video, "frame": frame} if extract else {}
    rows = _rows(names, points2d, points3d, _TRAIN_JOINTS, focal_length, image_hw, sequence, source)
    return Rows(rows.columns, {**{reason: n for reason, n in dropped.items() if n}, **rows.dropped})


def _test_sequence(path: Path) -> Rows:
    name = path.parent.name
    if name not in _TEST_CAMERAS:
        raise InputError(f"{path}: the test sequences are {', '.join(_TEST_CAMERAS)}.")
    with open_hdf5(path) as file:
        valid = hdf5_array(file, "valid_frame", 1)[:, 0] > 0
        points = hdf5_array(file, "annot2", 17, 2)
        joints = hdf5_array(file, "univ_annot3", 17, 3)
    if not len(valid) == len(points) == len(joints):
        raise InputError(f"{path}: 'valid_frame', 'annot2' and 'univ_annot3' must be equally long.")
    frames = np.flatnonzero(valid)
    focal_length, image_hw = _TEST_CAMERAS[name]
    names = [f"mpi_inf_3dhp_test_set/{name}/imageSequence/img_{frame + 1:06d}.jpg" for frame in frames]
    focal_lengths = np.full(len(frames), focal_length)
    rows = _rows(names, points[frames], joints[frames], _TEST_JOINTS, focal_lengths, image_hw, name, {})
    return Rows(rows.columns, {"frame not valid": int((~valid).sum()), **rows.dropped})


def _rows(
    names: list[str],
    points: np.ndarray,
    joints: np.ndarray,
    order: dict[str, int],
    focal_length: np.ndarray,
    image_hw: tuple[int, int],
    group: str,
    source: dict[str, np.ndarray],
) -> Rows:
    """Rows of people with points (n, K, 2) px and joints (n, K, 3) mm in the camera; `source` are more columns."""
    used = list(order.values())
    center, size = square_box(box_of(points[:, used]), _RESCALE)
    root = order["pelvis_mpii"]
    columns = {
        "image_names": np.array(names, np.str_),
        "center": center,
        "size": size,
        "keypoints2d": place(points, order),
        "keypoints3d": place((joints - joints[:, root : root + 1]) / 1000, order),
        "focal_length": focal_length,
        "img_hw": np.tile(image_hw, (len(names), 1)),
        "group": np.full(len(names), group),
        **source,
    }
    return Rows(columns).keep({"no box": good_box(center, size)})
