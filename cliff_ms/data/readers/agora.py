"""AGORA: rendered scans of 5 to 15 people in an image, with SMPL bodies fitted to the scans (Patel et al., CVPR 2021).

Layout, cameras and validity follow the data set's own code, github.com/pixelite1201/agora_evaluation. What is needed
from its download page: the camera dataframes *with SMPL joints and vertices* (`{train,validation}_{k}_withjv.pkl`),
images of either size and, to train, the SMPL fits (`smpl_gt/`). G is the number of people in an image; keypoints of
the dataframes are in px of the large images, 3840 x 2160.
"""

import functools
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.camera import project, to_image
from cliff_ms.data.crop import box_to_crop
from cliff_ms.data.readers.foreign_pickles import read_dataframe, read_tensors
from cliff_ms.data.readers.rows import Part, Rows, WholeSetError, box_of, find_files, good_box, place
from cliff_ms.io.errors import InputError
from cliff_ms.io.packages import optional_module
from cliff_ms.keypoints import SMPL45, SPIN24

LARGE_HW, SMALL_HW = (2160, 3840), (720, 1280)  # px, the two sizes that the images are published in
_SMALL_MARK = "_1280x720"
_SENSOR_WIDTH = 36.0  # mm
_MAX_OCCLUSION = {"train": 70.0, "validation": 90.0}  # percent: dataframe_agora_smplx_release.py; matching.py
_MIN_JOINTS, _BOX_JOINTS = 8, 25  # at least so many of the first 25 inside the image: dataframe_agora_smplx_release.py
_RESCALE = 1.2
_CROP_HW = (256, 192)  # only the aspect ratio counts
_PROJECTION_GAP = 2.0  # px of the large image
_ADULT_BETAS = 10  # kids have an 11th, the way from SMPL's template to the infant's
# Joints by the names that both orders share; hips, neck and the like are other points in SPIN24.
_JOINTS = {name: SMPL45.index(name) for name in SPIN24 if name in SMPL45}
_FITS = "smpl_gt"
_LISTS = "Yaw kid occlusion isValid gt_path_smpl gt_joints_2d gt_joints_3d gt_verts".split()  # one entry a person
_COLUMNS = ["imgPath", "camYaw", *_LISTS]

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True, eq=False)
class AgoraImage:
    """One image's ground truth. G people, V vertices; the frame is the image's camera.

    Attributes:
        stem: Name of the large image without folder and suffix.
        focal_length: px of the large image.
        joints2d: (G, 45, 2) px of the large image, order `keypoints.SMPL45`.
        joints: (G, 45, 3) m.
        vertices: (G, V, 3) m.
        valid: (G,) bool, the data set's own flag.
        occlusion: (G,) percent; negative if it is not known.
        kid: (G,) bool.
        root_rotations: (G, 3, 3), from the frame of the fits to the camera.
        fits: G paths of the SMPL fits, relative to the root of the data set.
    """

    stem: str
    focal_length: float
    joints2d: np.ndarray
    joints: np.ndarray
    vertices: np.ndarray
    valid: np.ndarray
    occlusion: np.ndarray
    kid: np.ndarray
    root_rotations: np.ndarray
    fits: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.valid)


def read(root: Path, split: str) -> list[Part]:
    """AGORA's people in the standard schema; a part for each dataframe.

    Kept are valid people of at most 70 % occlusion to train and 90 % to evaluate, at least 8 of whose first 25 joints
    lie inside the image. The box is that of these joints, enlarged by 1.2 to fill CLIFF's 4:3 crop. `pose` is relative
    to the camera and `betas` are the neutral model's; has_smpl is 0 for kids, whose shape the 10 betas cannot express,
    and in the validation split where there is no fit. There is no `keypoints3d`: the hips that SPIN's joints are
    compared from are not among AGORA's. `group` is 'adult' or 'kid'. The small image is taken where there are both.

    Args:
        root: Holds the dataframes and images, in any folders, and `smpl_gt`.
        split: 'train' or 'validation'.

    Raises:
        InputError: No dataframes or images, no fits to train with, or no package to read fits. Parts raise it for a
            damaged dataframe and, of the validation split, WholeSetError for an image that is missing: evaluation is
            about all images.
    """
    paths = _dataframes(root, split)
    if split == "train" and not (root / _FITS).is_dir():
        raise InputError(f"--root '{root}' has no folder '{_FITS}', AGORA's SMPL fits; unpack them there.")
    if (root / _FITS).is_dir():
        optional_module("torch")
    images = {path.stem: path.relative_to(root).as_posix() for path in find_files(root, "**/*.png", "AGORA's images")}

    def part(path: Path) -> Rows:
        people, errors = [], []
        for row in _dataframe_rows(path):
            try:
                people.append(_rows(root, _image(*row), images, split))
            except WholeSetError:
                raise
            except InputError as error:
                errors.append(error)
        if not people:
            raise errors[0]
        columns = {name: np.concatenate([columns[name] for columns, _ in people]) for name in people[0][0]}
        checks = {name: np.concatenate([checks[name] for _, checks in people]) for name in people[0][1]}
        damaged = f"images whose row is damaged, the first: {errors[0]}".rstrip(".") if errors else ""
        return Rows(columns, {damaged: len(errors)} if errors else {}).keep(checks)

    return [Part(path.stem, functools.partial(part, path)) for path in paths]


def read_images(root: Path, split: str) -> Iterator[AgoraImage]:
    """The ground truth of every image of a split, all of its people, dataframe by dataframe.

    Args:
        root: Holds the dataframes, in any folder.
        split: 'train' or 'validation'.

    Yields:
        The images, in the order of the dataframes.

    Raises:
        InputError: No dataframes, or a damaged one.
    """
    for path in _dataframes(root, split):
        for row in _dataframe_rows(path):
            yield _image(*row)


def image_stem(name: str) -> str:
    """What the two sizes of an image have in common, the name that AGORA's evaluation knows it by."""
    return PurePosixPath(name).stem.removesuffix(_SMALL_MARK)


def _dataframes(root: Path, split: str) -> list[Path]:
    """By number; those in folders of SMPL-X are another ground truth."""
    found: dict[int, Path] = {}
    pattern = f"{split}_*_withjv.pkl"
    for path in find_files(root, f"**/{pattern}", "AGORA's camera dataframes with SMPL joints and vertices"):
        number = re.fullmatch(rf"{split}_(\d+)_withjv", path.stem)
        if number is None or "smplx" in path.parent.relative_to(root).as_posix().lower():
            continue
        if int(number[1]) in found:
            raise InputError(f"--root: '{found[int(number[1])]}' and '{path}' are the same dataframe; keep one.")
        found[int(number[1])] = path
    if not found:
        raise InputError(
            f"--root '{root}' has '{pattern}' of SMPL-X only; download those with SMPL joints and vertices."
        )
    return [found[number] for number in sorted(found)]


def _dataframe_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows, one or more, and what to call them in messages."""
    columns = read_dataframe(path)
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"{path}: column '{missing[0]}' is missing; AGORA's camera dataframe 'with SMPL joints and vertices' is "
            "needed."
        )
    if not len(columns["imgPath"]):
        raise InputError(f"{path}: the dataframe holds no rows; copy or download it again.")
    for row in range(len(columns["imgPath"])):
        yield {name: columns[name][row] for name in _COLUMNS}, f"{path}, row {row}"


def _image(row: Mapping[str, Any], where: str) -> AgoraImage:
    count = _people(row, where)

    def get(key: str, *shape: int) -> np.ndarray:
        try:
            array = np.asarray(row[key], np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{where}: '{key}' must be numbers, alike for each of the {count} people.") from None
        array = array if count else np.zeros((0, *shape))
        if array.shape != (count, *shape):
            raise InputError(f"{where}: '{key}' must have shape {(count, *shape)}, but has {array.shape}.")
        if key in ("isValid", "kid", "Yaw") and not np.isfinite(array).all():
            raise InputError(f"{where}: '{key}' must be finite.")
        return array

    name = str(row["imgPath"])
    yaw = float(row["camYaw"]) if isinstance(row["camYaw"], int | float | np.number) else np.nan
    focal_mm, camera_yaw, pitch = _camera(PurePosixPath(name).name, yaw)
    if not np.isfinite(camera_yaw):
        raise InputError(f"{where}: 'camYaw' must be a number of degrees, but is {row['camYaw']}.")
    focal_length = focal_mm / _SENSOR_WIDTH * LARGE_HW[1]
    # Dataframes made for the small images name those, and hold px of them.
    to_large = LARGE_HW[1] / SMALL_HW[1] if _SMALL_MARK in name else 1.0
    image = AgoraImage(
        stem=image_stem(name),
        focal_length=focal_length,
        joints2d=to_large * get("gt_joints_2d", len(SMPL45), 2),
        joints=get("gt_joints_3d", len(SMPL45), 3),
        vertices=get("gt_verts", np.size(row["gt_verts"][0]) // 3 if count else 0, 3),
        valid=get("isValid").astype(bool),
        occlusion=get("occlusion"),
        kid=get("kid").astype(bool),
        root_rotations=_to_camera(get("Yaw"), camera_yaw, pitch),
        fits=tuple(str(fit).replace(".obj", ".pkl") for fit in row["gt_path_smpl"]),
    )
    _check_projection(image, where)
    return image


def _people(row: Mapping[str, Any], where: str) -> int:
    """G, the length of all lists."""
    lengths = {name: len(row[name]) if isinstance(row[name], list | tuple | np.ndarray) else None for name in _LISTS}
    if len(set(lengths.values())) > 1 or lengths["isValid"] is None:
        raise InputError(
            f"{where}: these must be lists with an entry for each person, but their lengths are {lengths}."
        )
    return lengths["isValid"]


def _camera(name: str, yaw: float) -> tuple[float, float, float]:
    """Focal length in mm, yaw and pitch in degrees: agora_evaluation, projection.py, project_2d."""
    fixed = {
        "hdri": (50.0, 0.0, 0.0),
        "cam00": (18.0, 135.0, 30.0),
        "cam01": (18.0, -135.0, 30.0),
        "cam02": (18.0, -45.0, 30.0),
        "cam03": (18.0, 45.0, 30.0),
        "ag2": (28.0, 0.0, 15.0),
    }
    return next((camera for mark, camera in fixed.items() if mark in name), (28.0, yaw, 0.0))


def _to_camera(yaw: np.ndarray, camera_yaw: float, pitch: float) -> np.ndarray:
    """Rotation of each person's fit into the camera, (G, 3, 3): projection.py, project2d.

    Fits have y up: half a turn about x makes it y down; the scans stand turned by 90 degrees.
    """
    scene = Rotation.from_euler("y", np.reshape(yaw, (-1, 1)) - 90, degrees=True).as_matrix()
    camera = Rotation.from_euler("x", pitch, degrees=True) * Rotation.from_euler("y", -camera_yaw, degrees=True)
    return camera.as_matrix() @ scene @ np.diag([1.0, -1.0, -1.0])


def _check_projection(image: AgoraImage, where: str) -> None:
    """The camera that the image's name stands for must map the 3D joints of valid people to their 2D joints."""
    joints, joints2d = image.joints[image.valid], image.joints2d[image.valid]
    with np.errstate(divide="ignore", invalid="ignore"):
        from_middle = project(joints, np.zeros((1, 3)), np.array([image.focal_length]))
    pixels = to_image(from_middle, np.array([LARGE_HW]))
    gap = np.abs(pixels - joints2d).max(initial=0.0)
    if not gap <= _PROJECTION_GAP:
        raise InputError(
            f"{where}: 3D joints are projected {gap:.1f} px beside the 2D joints; 2D joints in px of 1280 x 720 need "
            f"an 'imgPath' that ends in '{_SMALL_MARK}.png'."
        )


def _rows(
    root: Path, image: AgoraImage, images: Mapping[str, str], split: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All people of one image: columns, and why some are left out."""
    small = images.get(image.stem + _SMALL_MARK)
    path = small or images.get(image.stem)
    if path is None and split == "validation":
        raise WholeSetError(f"--root '{root}' lacks the image '{image.stem}.png' (or '{image.stem}{_SMALL_MARK}.png').")
    count, size_hw = len(image), SMALL_HW if small else LARGE_HW
    scale = size_hw[0] / LARGE_HW[0]
    box_joints = scale * image.joints2d[:, :_BOX_JOINTS]
    inside = ((box_joints >= 0) & (box_joints <= size_hw[::-1])).all(2)
    with np.errstate(invalid="ignore"):  # a box of no joints
        center, size = box_to_crop(box_of(box_joints, inside), _CROP_HW, _RESCALE)
    limit = _MAX_OCCLUSION[split]
    checks = {
        "not valid": image.valid,
        f"occluded by more than {limit:g} %": (image.occlusion >= 0) & (image.occlusion <= limit),
        f"fewer than {_MIN_JOINTS} joints inside the image": (inside.sum(1) >= _MIN_JOINTS) & good_box(center, size),
        "image not there": np.full(count, path is not None),
    }
    wanted = np.all(list(checks.values()), axis=0)
    pose, betas, has_smpl = _bodies(root, image, wanted)
    if split == "train":
        checks["SMPL fit missing or damaged"] = ~wanted | image.kid | (has_smpl > 0)
    columns = {
        "image_names": np.full(count, path or ""),
        "center": center,
        "size": size,
        "keypoints2d": place(scale * image.joints2d, _JOINTS),
        "pose": pose,
        "betas": betas,
        "has_smpl": has_smpl,
        "focal_length": np.full(count, scale * image.focal_length),
        "img_hw": np.tile(np.array(size_hw, np.float64), (count, 1)),
        "gender": np.full(count, "n"),
        "group": np.where(image.kid, "kid", "adult"),
    }
    return columns, checks


def _bodies(root: Path, image: AgoraImage, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pose (G, 72), betas (G, 10) and has_smpl (G,) of the fits of the people wanted, (G,) bool."""
    pose, betas, has_smpl = np.zeros((len(image), 72)), np.zeros((len(image), _ADULT_BETAS)), np.zeros(len(image))
    if (root / _FITS).is_dir():
        for k in np.flatnonzero(wanted & ~image.kid):
            try:
                pose[k], betas[k] = _fit(root / image.fits[k], image.root_rotations[k])
            except InputError as error:
                log.warning("no SMPL fit: %s", error)
                continue
            has_smpl[k] = 1
    return pose, betas, has_smpl


def _fit(path: Path, to_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose (72,), the root's turned into the camera, and betas (10,)."""
    arrays = read_tensors(path)
    try:
        root_pose = arrays["root_pose" if "root_pose" in arrays else "global_orient"].reshape(3)
        body_pose, betas = arrays["body_pose"].reshape(69), arrays["betas"].reshape(-1)[:_ADULT_BETAS]
        if len(betas) < _ADULT_BETAS:
            raise ValueError(f"{len(betas)} betas")
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: a SMPL fit of AGORA has root_pose (3), body_pose (69) and betas (10); this one has not: {error}."
        ) from None
    turned = Rotation.from_matrix(to_camera @ Rotation.from_rotvec(root_pose).as_matrix())
    return np.concatenate([turned.as_rotvec(), body_pose]), betas
