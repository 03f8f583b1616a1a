"""3DPW: outdoor videos of one or two people with SMPL bodies (von Marcard et al., ECCV 2018)."""

import functools
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import WHERE_TO_GET_SMPL, load_body
from cliff_ms.body.skinning import Skinner
from cliff_ms.data.crop import box_to_crop
from cliff_ms.data.decoding import ImageFile
from cliff_ms.data.readers.rows import Part, Rows, WholeSetError, box_of, find_files, good_box, join, place, square_box
from cliff_ms.io.errors import InputError
from cliff_ms.io.pickles import read_pickle, to_array
from cliff_ms.keypoints import COCO17, LANDMARKS, LSP_EXTRA9, SPIN24, index_map

_FOLDERS = {"train": "train", "val": "validation", "test": "test"}
_BODY_FILES = {"m": "SMPL_MALE.pkl", "f": "SMPL_FEMALE.pkl"}
_RESCALE = 1.2
_CROP_HW = (256, 192)  # only the aspect ratio counts
# OpenPose's 18 keypoints, the order of `poses2d`.
_OPENPOSE18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip_lsp", "right_knee", "right_ankle", "left_hip_lsp", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
_SEEN = 0.3  # OpenPose's score from which a keypoint counts as seen, as in EFT and VIBE
_LIMBS = slice(_OPENPOSE18.index("right_shoulder"), _OPENPOSE18.index("left_ankle") + 1)
_CENTER_SLACK = 0.1  # how far a camera's axis may be from the middle of its image, relative to half the image
_NEAREST = 0.05  # m; a joint nearer to the camera's plane than this is not projected

log = logging.getLogger("cliff_ms")


def read(
    root: Path,
    split: str,
    *,
    body_dir: Path | None = None,
    boxes: str = "smpl",
    min_limbs: int = 0,
    image_scale: float = 1.0,
) -> list[Part]:
    """3DPW's `sequenceFiles`, people whose camera is valid; a part for each sequence.

    `pose` and `translation` are relative to the camera, `betas` those of the annotated gender. With `body_dir`,
    keypoints are those of the annotated body; without, OpenPose's of the data set, and there are no 3D joints.

    Args:
        root: Holds `sequenceFiles` and `imageFiles`.
        split: 'train', 'val' or 'test'.
        body_dir: Folder with SMPL_MALE.pkl and SMPL_FEMALE.pkl, best with J_regressor_extra.npy.
        boxes: 'smpl' for CLIFF's, around the projected COCO-17 joints of the annotated body, to fill a 4:3 crop;
            'poses2d' for SPIN's and mmhuman3d's, squares around OpenPose's keypoints. Both are enlarged by 1.2.
        min_limbs: Keep people of whose 12 limb joints OpenPose saw so many; VIBE's evaluation needs 7.
        image_scale: Size of the images in `imageFiles` relative to the original ones; CLIFF's are 0.5.

    Raises:
        InputError: Missing files, or boxes of bodies that are not there. Parts raise it for a damaged file, and
            WholeSetError for images of another size.
    """
    if boxes == "smpl" and body_dir is None:
        raise InputError(
            "--boxes smpl are drawn around the annotated bodies: name the folder with SMPL_MALE.pkl and "
            f"SMPL_FEMALE.pkl with --body_dir ({WHERE_TO_GET_SMPL.partition(' and pass')[0]}), or take --boxes poses2d."
        )
    if not image_scale > 0:
        raise InputError(f"--image_scale must be positive, but is {image_scale}.")
    paths = find_files(root, f"sequenceFiles/{_FOLDERS[split]}/*.pkl", "3DPW's sequences")
    bodies = {gender: _load(body_dir, gender) for gender in _BODY_FILES}
    settings = _Settings(boxes, min_limbs, image_scale)

    def part(path: Path) -> Rows:
        sequence = _Sequence(path)
        image_hw = _image_hw(root, sequence, image_scale)
        people = [(k, bodies[gender]) for k, gender in enumerate(sequence.genders)]
        return join([_person(sequence, k, body, settings, image_hw) for k, body in people])

    return [Part(path.stem, functools.partial(part, path)) for path in paths]


@dataclass(frozen=True)
class _Settings:
    boxes: str
    min_limbs: int
    image_scale: float


@dataclass(frozen=True)
class _Body:
    skinner: Skinner
    joints: dict[str, int]  # of SPIN24, those the body knows -> place in LANDMARKS


class _Sequence:
    """One file: N frames of P people."""

    def __init__(self, path: Path) -> None:
        self._path, self._content = path, read_pickle(path)
        self.name = path.stem
        self.people = len(self._list("poses"))
        self.cameras = self.array("cam_poses", None, 4, 4)  # world to camera
        self.intrinsics = to_array(self._get("cam_intrinsics"), path, "cam_intrinsics")
        if self.intrinsics.shape != (3, 3) or not (self.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]] > 0).all():
            raise InputError(f"{path}: 'cam_intrinsics' must be a camera's matrix, (3, 3), but is {self.intrinsics}.")
        self.genders = [str(gender) for gender in self._list("genders")]
        if not self.people or not set(self.genders) <= _BODY_FILES.keys() or len(self.genders) != self.people:
            raise InputError(f"{path}: 'genders' must be 'm' or 'f' for each of {self.people} people: {self.genders}.")

    def person(self, key: str, index: int, *shape: int) -> np.ndarray:
        """What is known of one person, (N, *shape)."""
        return self._checked(f"{key}[{index}]", self._of(key, index), (len(self.cameras), *shape))

    def betas(self, index: int) -> np.ndarray:
        """(10,); the files may hold more."""
        betas = to_array(self._of("betas", index), self._path, "betas").ravel()[:10]
        return self._checked("betas", betas, (10,))

    def array(self, key: str, *shape: int | None) -> np.ndarray:
        """What is known of the sequence."""
        return self._checked(key, self._get(key), shape)

    def _of(self, key: str, index: int) -> Any:
        values = self._list(key)
        if len(values) != self.people:
            raise InputError(f"{self._path}: '{key}' must be a list of {self.people} people, but has {len(values)}.")
        return values[index]

    def _list(self, key: str) -> Any:
        values = self._get(key)
        if not isinstance(values, list | tuple) and not (isinstance(values, np.ndarray) and values.ndim):
            raise InputError(f"{self._path}: '{key}' must be a list with an entry for each person.")
        return values

    def _get(self, key: str) -> Any:
        if key not in self._content:
            raise InputError(f"{self._path}: key '{key}' is missing, so this is no sequence file of 3DPW.")
        return self._content[key]

    def _checked(self, key: str, value: object, shape: tuple[int | None, ...]) -> np.ndarray:
        array = to_array(value, self._path, key)
        if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
            raise InputError(f"{self._path}: '{key}' must have shape {shape}, but has {array.shape}.")
        return array


def _person(sequence: _Sequence, index: int, body: _Body | None, settings: _Settings, image_hw: np.ndarray) -> Rows:
    """One person of a sequence: image i goes with row i of every array."""
    is_rotation = np.linalg.det(sequence.cameras[:, :3, :3]) > 0
    valid = (sequence.person("campose_valid", index) > 0) & is_rotation
    frames = np.flatnonzero(valid)
    dropped = {"camera pose not valid": int((~valid).sum())} if not valid.all() else {}
    if not len(frames):
        nothing = {"image_names": np.zeros(0, np.str_), "center": np.zeros((0, 2)), "size": np.zeros(0)}
        return Rows(nothing, dropped)
    count, gender, scale = len(frames), sequence.genders[index], settings.image_scale
    cameras = sequence.cameras[frames]
    pose, betas = sequence.person("poses", index, 72)[frames].astype(np.float64), sequence.betas(index)
    root = cameras[:, :3, :3] @ Rotation.from_rotvec(pose[:, :3]).as_matrix()
    pose[:, :3] = Rotation.from_matrix(root).as_rotvec()
    columns = {
        "image_names": np.array([f"imageFiles/{sequence.name}/image_{i:05d}.jpg" for i in frames], np.str_),
        "pose": pose,
        "betas": np.tile(betas, (count, 1)),
        "has_smpl": np.ones(count),
        "focal_length": np.full(count, scale * sequence.intrinsics[[0, 1], [0, 1]].mean()),
        "img_hw": np.tile(image_hw, (count, 1)),
        "gender": np.full(count, gender),
        "group": np.full(count, sequence.name),
    }
    in_front, seen = np.ones(count, bool), np.ones(count, bool)
    if body is None or settings.boxes == "poses2d" or settings.min_limbs:
        detected = sequence.person("poses2d", index, 3, len(_OPENPOSE18))[frames].swapaxes(1, 2)  # x, y, score
        seen = (detected[:, _LIMBS, 2] > _SEEN).sum(1) >= settings.min_limbs
    if body is None:
        columns["keypoints2d"] = _openpose_keypoints(detected)
    else:
        translation = _camera_translation(body.skinner, betas, sequence.person("trans", index, 3)[frames], cameras)
        labels, in_front, joints = _body_labels(body, columns | {"translation": translation}, sequence.intrinsics)
        columns |= labels
    if settings.boxes == "poses2d":
        center, size = square_box(box_of(detected[..., :2], detected[..., 2] > 0), _RESCALE)
    else:
        center, size = box_to_crop(box_of(joints), _CROP_HW, _RESCALE)
    columns["center"], columns["size"] = scale * center, scale * size
    columns["keypoints2d"][..., :2] *= scale
    return Rows(columns, dropped).keep(
        {
            "reaches behind the camera": in_front,
            "too few limbs seen by OpenPose": seen,
            "no 2D keypoint to draw a box around": good_box(columns["center"], columns["size"]),
        }
    )


def _camera_translation(skinner: Skinner, betas: np.ndarray, trans: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """SMPL's translation in the camera, (n, 3) m: SMPL turns about the pelvis at rest, not about its origin."""
    pelvis = skinner.rest_joints(betas[None, : skinner.num_betas])[0, 0]
    return (cameras[:, :3, :3] @ (pelvis + trans)[..., None])[..., 0] + cameras[:, :3, 3] - pelvis


def _body_labels(
    body: _Body, columns: dict[str, np.ndarray], intrinsics: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Keypoints of the annotated body: labels, whether it is in front of the camera (n,), COCO-17 joints in px."""
    rotmats = Rotation.from_rotvec(columns["pose"].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    betas = columns["betas"][:, : body.skinner.num_betas]
    _, landmarks, _ = body.skinner(betas.astype(np.float32), rotmats.astype(np.float32))
    points = landmarks + columns["translation"][:, None]
    in_front = (points[..., 2] > _NEAREST).all(1)
    homogeneous = points @ intrinsics.T
    pixels = homogeneous[..., :2] / np.where(in_front[:, None, None], homogeneous[..., 2:], 1)
    origin = LANDMARKS.index("pelvis_mpii" if "pelvis_mpii" in body.joints else "pelvis")
    labels = {
        "translation": columns["translation"],
        "keypoints2d": place(pixels, body.joints),
        "keypoints3d": place(points - points[:, origin : origin + 1], body.joints),
    }
    return labels, in_front, pixels[:, index_map(LANDMARKS, COCO17)]


def _openpose_keypoints(detected: np.ndarray) -> np.ndarray:
    """OpenPose's 18 keypoints as SPIN's 24, (n, 24, 3), those seen with confidence 1, as in EFT."""
    keypoints = place(detected[..., :2], {name: k for k, name in enumerate(_OPENPOSE18) if name in SPIN24})
    scores = place(detected[..., 2:], {name: k for k, name in enumerate(_OPENPOSE18) if name in SPIN24})[..., 0]
    keypoints[scores <= _SEEN] = 0
    return keypoints


def _load(body_dir: Path | None, gender: str) -> _Body | None:
    if body_dir is None:
        return None
    path = body_dir / _BODY_FILES[gender]
    body = load_body(path)
    joints = {name: LANDMARKS.index(name) for name in SPIN24}
    if "extra" not in body.regressors:
        log.warning(
            "There is no J_regressor_extra.npy (see SPIN's fetch_data.sh) beside %s: hips, neck, head and pelvis are "
            "missing from the keypoints, which matters for training only.",
            path,
        )
        joints = {name: k for name, k in joints.items() if name not in LSP_EXTRA9}
        body = replace(body, regressors={"extra": np.zeros((len(LSP_EXTRA9), body.vertex_count), np.float32)})
    return _Body(Skinner(body), joints)


def _image_hw(root: Path, sequence: _Sequence, image_scale: float) -> np.ndarray:
    """Height and width (2,) px of a sequence's images, from the first that can be read; NaN if there is none.

    Raises:
        WholeSetError: If it does not fit the camera.
    """
    image_hw = np.full(2, np.nan)
    for path in sorted((root / "imageFiles" / sequence.name).glob("image_*.jpg")):
        with suppress(InputError):
            image_hw = np.array(ImageFile(path).img_hw, float)
            break
    else:
        return image_hw
    ratio = image_hw / (2 * sequence.intrinsics[[1, 0], 2])
    if (np.abs(ratio / image_scale - 1) > _CENTER_SLACK).any():
        raise WholeSetError(
            f"Image '{path}' is {ratio.mean():.2f} times the size that the camera of {sequence.name} was calibrated "
            f"for, but --image_scale is {image_scale:g}: state the size that the images have."
        )
    return image_hw
