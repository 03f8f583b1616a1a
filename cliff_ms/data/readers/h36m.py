"""Human3.6M: eleven actors in a studio with motion capture (Ionescu et al., TPAMI 2014)."""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.data.readers.raw import open_hdf5, read_cdf
from cliff_ms.data.readers.rows import Part, Rows, find_files, good_box, place, square_box
from cliff_ms.io.errors import InputError
from cliff_ms.io.packages import optional_module
from cliff_ms.io.pickles import read_pickle, to_array

if TYPE_CHECKING:
    import h5py

_SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
_STEP = 5  # of 50 frames per second, 10 are used
_RESCALE = 0.9  # the masks' boxes are loose; SPIN's factor
_ROOT = 11
# SPIN24 -> place among the data set's 32 joints.
_JOINTS = {
    "pelvis_mpii": _ROOT, "left_hip_lsp": 6, "left_knee": 7, "left_ankle": 8, "right_hip_lsp": 1, "right_knee": 2,
    "right_ankle": 3, "spine_h36m": 12, "neck_lsp": 24, "jaw_h36m": 14, "head_h36m": 15, "left_shoulder": 17,
    "left_elbow": 18, "left_wrist": 19, "right_shoulder": 25, "right_elbow": 26, "right_wrist": 27,
}  # fmt: skip
# Camera -> focal lengths in px, and height and width of its images in px; the same for all actors.
_CAMERAS = {
    "54138969": ((1145.0494384765625, 1143.7811279296875), (1002, 1000)),
    "55011271": ((1149.6756591796875, 1147.5916748046875), (1000, 1000)),
    "58860488": ((1149.1407470703125, 1148.7989501953125), (1000, 1000)),
    "60457274": ((1145.5113525390625, 1144.77392578125), (1002, 1000)),
}
_CAMERA_ORDER = tuple(_CAMERAS)  # of the numbers in the names of MoSh files
# Two actions are called otherwise in some actors' files.
_SAME_ACTION = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
_UPSIDE_DOWN = Rotation.from_rotvec([np.pi, 0, 0])  # between MoSh's bodies and the camera's


def read(
    root: Path, split: str, *, fits: Path | None = None, extract: bool = False, spin_frames: bool = False
) -> list[Part]:
    """Every fifth frame of all actions and cameras; a part for each video.

    `keypoints3d` are the markers' 17 joints relative to the pelvis, `focal_length` is the calibrated one. Boxes are
    squares around the silhouette. With MoSh fits, SMPL bodies are labelled where there is a fit.

    Args:
        root: Holds S1, S5, ... with `MyPoseFeatures`, `MySegmentsMat` and, to extract frames, `Videos`.
        split: 'train' for actors 1, 5, 6, 7, 8; 'test' for 9 and 11.
        fits: Folder `neutrSMPL_H3.6` with S1, S5, ... of the MoSh fits.
        extract: Write the frames to `images`; those that are there are kept.
        spin_frames: Give each pose the picture of the frame after it, as SPIN's test set does by mistake. Extracting
            only.

    Raises:
        InputError: Missing files or packages, or `spin_frames` without `extract`. Parts raise it for a damaged file.
    """
    if spin_frames and not extract:
        raise InputError("--spin_frames is about which frames are extracted: give --extract too, or leave it out.")
    if fits is not None and not fits.is_dir():
        raise InputError(f"--fits: there is no folder '{fits}'; give the folder neutrSMPL_H3.6 that holds S1, S5, ....")
    for package in ("cdflib", "h5py"):
        optional_module(package)
    paths = []
    for subject in _SUBJECTS[split]:
        pattern = f"S{subject}/MyPoseFeatures/D3_Positions_mono/*.cdf"
        paths += [path for path in find_files(root, pattern, "Human3.6M's poses") if not path.stem.startswith("_ALL")]

    def part(path: Path) -> Rows:
        video = _Video(path)
        rows = _add_fits(_rows(video), video, fits)
        return _with_frames(rows, video, root, spin_frames) if extract else rows

    return [Part(f"{path.parents[2].name} {path.stem}", functools.partial(part, path)) for path in paths]


class _Video:
    """The names around one file of poses, `S9/MyPoseFeatures/D3_Positions_mono/Directions 1.54138969.cdf`."""

    def __init__(self, path: Path) -> None:
        self.path, self.stem = path, path.stem
        self.folder = path.parents[2]
        self.action, _, self.camera = path.stem.rpartition(".")
        if self.camera not in _CAMERAS:
            raise InputError(f"{path}: the name must end in one of the cameras {', '.join(_CAMERAS)}, then .cdf.")

    def image_name(self, frame: int) -> str:
        """Frames count from 0, names from 1."""
        return f"images/{self.folder.name}_{self.action.replace(' ', '_')}.{self.camera}_{frame + 1:06d}.jpg"

    @property
    def group(self) -> str:
        """The action without the number of the trial."""
        action = re.sub(r" \d+$", "", self.action)
        return _SAME_ACTION.get(action, action)


def _rows(video: _Video) -> Rows:
    joints = read_cdf(video.path, "Pose", 32, 3)
    points = read_cdf(video.folder / "MyPoseFeatures" / "D2_Positions" / video.path.name, "Pose", 32, 2)
    if len(points) != len(joints):
        raise InputError(f"{video.path}: {len(joints)} poses in 3D, but {len(points)} in 2D.")
    frames = np.arange(0, len(joints), _STEP)
    count = len(frames)
    focal_lengths, image_hw = _CAMERAS[video.camera]
    center, size = square_box(_mask_boxes(video, frames), _RESCALE)
    joints = joints[frames] / 1000  # mm
    columns = {
        "image_names": np.array([video.image_name(frame) for frame in frames], np.str_),
        "center": center,
        "size": size,
        "keypoints2d": place(points[frames], _JOINTS),
        "keypoints3d": place(joints - joints[:, _ROOT : _ROOT + 1], _JOINTS),
        "focal_length": np.full(count, np.mean(focal_lengths)),
        "img_hw": np.tile(image_hw, (count, 1)),
        "group": np.full(count, video.group),
    }
    return Rows(columns).keep({"no silhouette to draw a box around": good_box(center, size)})


def _mask_boxes(video: _Video, frames: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy px around the silhouettes, edge to edge; not finite where there is none."""
    folder = video.folder / "MySegmentsMat"
    names = [folder / kind / f"{video.stem}.mat" for kind in ("ground_truth_bb", "ground_truth_bs")]
    path = next((name for name in names if name.is_file()), names[0])
    boxes = np.full((len(frames), 4), np.inf)
    with open_hdf5(path) as file:
        masks = file["Masks"]
        for row, frame in enumerate(frames[frames < masks.shape[0]]):
            boxes[row] = _mask_box(file, masks[frame, 0])
    return boxes


def _mask_box(file: "h5py.File", reference: "h5py.Reference") -> np.ndarray:
    mask = np.asarray(file[reference]).T > 0  # MATLAB's columns come as rows: this is (H, W)
    if mask.ndim != 2 or not mask.any():
        return np.full(4, np.inf)
    x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], float)


def _add_fits(rows: Rows, video: _Video, fits: Path | None) -> Rows:
    """MoSh's bodies of neutral gender, for every fifth frame; some videos have none."""
    if fits is None:
        return rows
    count = len(rows)
    pose, betas, has_smpl = np.zeros((count, 72)), np.zeros((count, 10)), np.zeros(count)
    path = fits / video.folder.name / f"{video.action}_cam{_CAMERA_ORDER.index(video.camera)}_aligned.pkl"
    if path.is_file() and count:
        content = read_pickle(path)
        missing = {"new_poses", "betas"} - content.keys()
        if missing:
            raise InputError(f"{path}: key '{missing.pop()}' is missing, so this is no MoSh fit of Human3.6M.")
        poses, shape = (to_array(content[key], path, key) for key in ("new_poses", "betas"))
        if poses.size % 72 or shape.size < 10:
            raise InputError(f"{path}: a MoSh fit of Human3.6M has poses of 72 numbers and 10 betas; this one has not.")
        poses = poses.reshape(-1, 72)
        frames = np.array([int(name[-10:-4]) - 1 for name in rows.columns["image_names"].tolist()]) // _STEP
        known = frames < len(poses)
        pose[known] = poses[frames[known]]
        pose[known, :3] = (Rotation.from_rotvec(pose[known, :3]) * _UPSIDE_DOWN).as_rotvec()
        betas[known], has_smpl[known] = shape.ravel()[:10], 1
    labels = {"pose": pose, "betas": betas, "has_smpl": has_smpl, "gender": np.full(count, "n")}
    return Rows(rows.columns | labels, rows.dropped)


def _with_frames(rows: Rows, video: _Video, root: Path, spin_frames: bool) -> Rows:
    """The columns of `extraction.extract`."""
    frames = np.array([int(name[-10:-4]) for name in rows.columns["image_names"].tolist()], int)
    path = (video.folder / "Videos" / f"{video.stem}.mp4").relative_to(root).as_posix()
    columns = {"video": np.full(len(rows), path), "frame": frames - (0 if spin_frames else 1)}
    return Rows(rows.columns | columns, rows.dropped)
