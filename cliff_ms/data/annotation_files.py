"""The files that annotations are read from and written to.

A file is recognised by what it holds. N is the number of people, one per row, counted from 0.

- npz with `imgname center scale`: SPIN's, CLIFF's cliffGT and our own; of these keys, whichever are there are taken:
  `part S pose shape has_smpl focal_l global_t img_hw gender group`, and `input_keypoints` in the order of
  `input_joint_set`. Further arrays of N rows, such as cliffGT's `annot_id`, are read on request.
- npz with `pose_cam` too: BEDLAM's with SMPL bodies; `part` or `gtkps`, `pose_cam shape trans_cam cam_ext cam_int`.
- json with `data`: EFT's; `gt_keypoint_2d parm_pose parm_shape bbox_center bbox_scale imageName`.

What a row lacks may be NaN, or of confidence 0. `scale` is the box height / 200. SPIN's, EFT's and BEDLAM's boxes are
square, cliffGT's are 4:3: the height is taken as it is in either case, and the width of the crop follows from the
network's input.
"""

import logging
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.body.kinematics import NUM_BETAS
from cliff_ms.data.annotations import PIXELS_PER_SCALE, Annotations, to_scale
from cliff_ms.data.label_checks import Findings, examine, without_bad_rows
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, normalise_name, read_json, read_npz, require_file
from cliff_ms.io.mapped import digest_of_members, map_npz
from cliff_ms.keypoints import JOINT_SETS, SMPL24, SPIN24

# Attribute -> key in files.
_KEY_OF = {
    "image_names": "imgname", "center": "center", "size": "scale", "keypoints2d": "part", "keypoints3d": "S",
    "pose": "pose", "betas": "shape", "has_smpl": "has_smpl", "focal_length": "focal_l", "img_hw": "img_hw",
    "translation": "global_t", "input_keypoints": "input_keypoints", "input_joint_set": "input_joint_set",
    "gender": "gender", "group": "group",
}  # fmt: skip
_KEYS = {*_KEY_OF.values(), "pose_cam", "trans_cam", "cam_ext", "cam_int", "gtkps"}
_GENDERS = {"male": "m", "female": "f", "neutral": "n", "m": "m", "f": "f", "n": "n"}
_CHECKED, _CHECKS = "checked", 1  # key of the mark that a file was checked, and the version of the checks
_MANY = 100_000  # rows, from which on reading them takes seconds
_POINT2D = 3  # numbers of a 2D keypoint: x, y, confidence
_SMPLX_POSE = 165  # numbers of a SMPL-X pose: body, jaw, eyes and hands

log = logging.getLogger("cliff_ms")


def load_annotations(path: str | Path, extras: Iterable[str] = ()) -> Annotations:
    """Read the annotations of a data set, leaving out bad rows, with a warning.

    Args:
        path: One of the files of the table above.
        extras: Further keys of an npz to read, as far as they are there; their values are not checked.

    Returns:
        The annotations, every value finite (but for an unknown focal length); not to be changed in place.

    Raises:
        InputError: Missing, damaged or foreign file, SMPL-X bodies, no rows, labels in other units, axes or orders, or
            more than one bad row in twenty; the message names the file, the key and the first such row.
    """
    path, extras = require_file(path, "Annotation file"), tuple(extras)
    mapped = _map_checked(path, extras)
    if mapped is not None:
        return mapped
    known = without_bad_rows(*read_annotations(path, extras), path)
    if len(known) >= _MANY:
        log.info("%s: `prepare.py check` with --output makes a file of it that opens at once", path)
    return known


def read_annotations(path: str | Path, extras: Iterable[str] = ()) -> tuple[Annotations, Findings]:
    """Read all rows of an annotation file and what is wrong with them.

    Args:
        path: As for `load_annotations`.
        extras: The same.

    Returns:
        The annotations, in which bad rows hold anything, and the findings.

    Raises:
        InputError: A file that is missing, damaged, foreign or empty, or a key of it with the wrong shape or type.
    """
    path, extras = require_file(path, "Annotation file"), tuple(extras)
    findings = Findings()
    keys = _KEYS | {*extras}
    arrays = _read_eft(path, findings) if _is_json(path) else read_npz(path, "Annotation file", keys)
    columns = _Columns(path, arrays, findings)
    known = _from_bedlam(columns) if "pose_cam" in columns else _from_spin(columns)
    known.extras.update({key: columns.rows(key) for key in extras if key in columns})
    examine(known, findings)
    return known, findings


def save_annotations(path: str | Path, annotations: Annotations) -> None:
    """Write annotations as our own npz, under a temporary name that is then renamed.

    If nothing is wrong with them the file says so, of these very arrays: `load_annotations` then takes them as views of
    the file, without looking at the labels again.

    Args:
        path: Name that ends in '.npz'.
        annotations: What `load_annotations` will give again.

    Raises:
        InputError: If the folder cannot be written.
    """
    findings = Findings()
    known = _from_spin(_Columns(Path(path), to_arrays(annotations), findings))
    known.extras.update(annotations.extras)
    examine(known, findings)
    with atomic_path(path) as temporary:
        np.savez(temporary, **to_arrays(known))
        if not (findings.wrong or findings.bad or findings.notes):
            with zipfile.ZipFile(temporary, "a") as archive, archive.open(f"{_CHECKED}.npy", "w") as member:
                np.save(member, np.array(_checked_mark(temporary)))


def _checked_mark(path: Path) -> str:
    return f"{_CHECKS};{digest_of_members(path, _CHECKED)}"


def _map_checked(path: Path, extras: Iterable[str]) -> Annotations | None:
    """The rows of a file that `save_annotations` found nothing wrong with, if nobody has changed it since."""
    arrays = map_npz(path, {*_KEY_OF.values(), *extras, _CHECKED})
    if arrays is None or str(arrays.get(_CHECKED)) != _checked_mark(path):
        return None
    columns: dict[str, Any] = {name: arrays.get(key) for name, key in _KEY_OF.items()}
    columns["size"] = _size(arrays["scale"])
    if columns["input_joint_set"] is not None:
        columns["input_joint_set"] = str(columns["input_joint_set"])
    return Annotations(**columns, extras={key: arrays[key] for key in extras if key in arrays})


def _size(scale: np.ndarray) -> np.ndarray:
    return scale.astype(np.float32) * PIXELS_PER_SCALE


def to_arrays(annotations: Annotations) -> dict[str, np.ndarray]:
    """What `save_annotations` writes: SPIN's and our own keys, and the extras' -> arrays."""
    columns = {key: getattr(annotations, name) for name, key in _KEY_OF.items()} | {"scale": to_scale(annotations.size)}
    return {key: np.asarray(column) for key, column in columns.items() if column is not None} | annotations.extras


class _Columns:
    """The arrays of one file under their keys, checked as they are taken; bad rows are noted in the findings."""

    def __init__(self, path: Path, arrays: dict[str, np.ndarray], findings: Findings) -> None:
        self.path = path
        self.arrays = arrays
        self.findings = findings
        self.count = len(self.image_names())
        betas = arrays.get("shape", np.zeros(0))
        if betas.ndim == 2 and betas.shape[1] > NUM_BETAS:  # such as BEDLAM's 11
            findings.notes.append(f"of {betas.shape[1]} betas in 'shape' the first {NUM_BETAS} are taken")
            arrays["shape"] = betas[:, :NUM_BETAS]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def image_names(self) -> np.ndarray:
        """(N,) str."""
        names = self._strings("imgname")
        if not len(names):
            raise InputError(f"Annotation file '{self.path}' holds no rows.")
        return np.array([normalise_name(name) for name in names.tolist()])

    def words(self, key: str) -> np.ndarray | None:
        """(N,) str, or None for a column that is missing."""
        if key not in self.arrays:
            return None
        self.rows(key)
        return self._strings(key)

    def rows(self, key: str) -> np.ndarray:
        """An array that must have N rows, as it is."""
        if self.arrays[key].shape[:1] != (self.count,):
            raise self._error(key, f"must have {self.count} entries, one a row, but has shape {self.arrays[key].shape}")
        return self.arrays[key]

    def get(self, key: str, *shape: int, missing: np.ndarray | bool = False) -> np.ndarray:
        """A column that must be there, (N, *shape) float32 and finite; NaN where it is `missing`, (N,) bool."""
        array = self._required(key)
        expected = (self.count, *shape)
        if array.dtype.kind not in "fiub" or array.shape != expected:
            raise self._error(key, f"must be numbers of shape {expected}, but has shape {array.shape}, {array.dtype}")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        self.check(key, _finite(array) | missing, "must be finite")
        return array

    def optional(self, key: str, *shape: int, missing: np.ndarray | bool = False) -> np.ndarray | None:
        """The same for a column that may be missing: None then."""
        return self.get(key, *shape, missing=missing) if key in self.arrays else None

    def points(self, key: str, count: int, channels: int) -> np.ndarray | None:
        """Points with confidence in the last channel, those of confidence 0 all zero; None if there are none."""
        array = self.optional(key, count, channels, missing=True)
        if array is None:
            return None
        array[(array[..., -1] == 0) | np.isnan(array[..., -1])] = 0
        if channels == _POINT2D:
            nowhere = (array[..., -1] > 0) & ((array[..., :2] == 0).all(-1) | (array[..., :2] == -1).all(-1))
            if nowhere.any():
                self.findings.notes.append(f"{nowhere.sum()} points of '{key}' at (0, 0) or (-1, -1) count as missing")
                array[nowhere] = 0
        confidence = array[..., -1]
        self.check(key, _finite(array), "must be finite where its confidence is not 0")
        self.check(key, (confidence >= 0).all(1), "must not have negative confidences")
        if (confidence > 1).any():
            self.findings.notes.append(f"confidences above 1 in '{key}' count as 1")
            np.minimum(confidence, 1, out=confidence)
        return array

    def check(self, key: str, good: np.ndarray, rule: str) -> None:
        """Note the rows that are not good, (N,) bool."""
        self.findings.add(f"'{key}' {rule}", ~good)

    def _required(self, key: str) -> np.ndarray:
        if key not in self.arrays:
            raise InputError(
                f"Annotation file '{self.path}': key '{key}' is missing; expected an npz as SPIN, CLIFF (cliffGT), "
                "BEDLAM or this project write it, or EFT's json."
            )
        return self.arrays[key]

    def _strings(self, key: str) -> np.ndarray:
        strings = self._required(key)
        if strings.ndim != 1 or strings.dtype.kind not in "US":
            raise self._error(key, f"must be a list of strings, but has shape {strings.shape}, type {strings.dtype}")
        try:
            return np.char.decode(strings, "utf-8") if strings.dtype.kind == "S" else strings
        except UnicodeDecodeError as error:
            raise self._error(key, f"holds bytes that are not UTF-8 ({error})") from None

    def _error(self, key: str, problem: str) -> InputError:
        return InputError(f"Annotation file '{self.path}': '{key}' {problem}.")


def _finite(array: np.ndarray) -> np.ndarray:
    """(N,) bool, whether all of a row is."""
    return np.isfinite(array).all(tuple(range(1, array.ndim)))


def _from_spin(columns: _Columns) -> Annotations:
    """SPIN's keys, of which cliffGT, our own files and `_read_eft` give more or fewer."""
    has_smpl = columns.optional("has_smpl")
    if has_smpl is not None:
        columns.check("has_smpl", np.isin(has_smpl, (0, 1)), "must be 0 or 1")
        for key in ("pose", "shape"):
            if has_smpl.any() and key not in columns:
                raise InputError(f"Annotation file '{columns.path}': has_smpl is 1, but key '{key}' is missing.")
    elif "pose" in columns and "shape" in columns:  # SPIN's rule
        has_smpl = _finite(columns.rows("pose")) & _finite(columns.rows("shape"))
    else:
        has_smpl = np.zeros(columns.count)
    bodiless = has_smpl == 0
    pose, betas, translation = (
        columns.optional(key, width, missing=bodiless)
        for key, width in (("pose", 72), ("shape", NUM_BETAS), ("global_t", 3))
    )
    for label in (pose, betas, translation):
        if label is not None:
            label[bodiless & ~_finite(label)] = 0
    keypoints, joint_set = _input_keypoints(columns)
    return _checked(
        columns,
        keypoints2d=columns.points("part", len(SPIN24), 3),
        keypoints3d=columns.points("S", len(SPIN24), 4),
        pose=pose,
        betas=betas,
        has_smpl=has_smpl,
        focal_length=columns.optional("focal_l", missing=True),
        img_hw=columns.optional("img_hw", 2),
        translation=translation,
        input_keypoints=keypoints,
        input_joint_set=joint_set,
        group=columns.words("group"),
    )


def _input_keypoints(columns: _Columns) -> tuple[np.ndarray | None, str | None]:
    if "input_keypoints" not in columns:
        return None, None
    joint_set = str(columns.arrays.get("input_joint_set"))
    if joint_set not in JOINT_SETS:
        raise InputError(
            f"Annotation file '{columns.path}': 'input_keypoints' needs an 'input_joint_set' out of "
            f"{', '.join(JOINT_SETS)}, but it is '{joint_set}'."
        )
    return columns.points("input_keypoints", len(JOINT_SETS[joint_set]), 3), joint_set


def _from_bedlam(columns: _Columns) -> Annotations:
    """BEDLAM: bodies in the camera frame, its translation in two parts, calibrated cameras."""
    if columns.arrays["pose_cam"].shape[1:] == (_SMPLX_POSE,):
        raise InputError(
            f"Annotation file '{columns.path}': 'pose_cam' holds SMPL-X poses ({_SMPLX_POSE} numbers), whose joints "
            "and shape space are not SMPL's; use BEDLAM's files with SMPL bodies (72 numbers)."
        )
    keypoints2d = columns.points("part", len(SPIN24), 3) if "part" in columns else _bedlam_keypoints(columns)
    focal_length = img_hw = translation = None
    if "cam_int" in columns:
        camera = columns.get("cam_int", 3, 3)
        focal_length = (camera[:, 0, 0] + camera[:, 1, 1]) / 2
        img_hw = 2 * camera[:, [1, 0], 2]  # BEDLAM's optical axis meets the middle of the image
    if "trans_cam" in columns:
        translation = columns.get("trans_cam", 3) + columns.get("cam_ext", 4, 4)[:, :3, 3]
    return _checked(
        columns,
        keypoints2d=keypoints2d,
        keypoints3d=columns.points("S", len(SPIN24), 4),
        pose=columns.get("pose_cam", 72),
        betas=columns.get("shape", NUM_BETAS),
        has_smpl=np.ones(columns.count, np.float32),
        focal_length=focal_length,
        img_hw=img_hw,
        translation=translation,
    )


def _bedlam_keypoints(columns: _Columns) -> np.ndarray | None:
    """The joints of the body in `gtkps`, as far as SPIN's 24 have them."""
    joints = columns.arrays.get("gtkps")
    if joints is None:
        return None
    if joints.ndim != 3 or joints.shape[1] < len(SMPL24):
        raise InputError(
            f"Annotation file '{columns.path}': 'gtkps' must have shape (N, {len(SMPL24)} or more, 3), but has shape "
            f"{joints.shape}."
        )
    joints = columns.get("gtkps", joints.shape[1], 3)
    keypoints = np.zeros((columns.count, len(SPIN24), 3), np.float32)
    for index, name in enumerate(SPIN24):
        if name in SMPL24:
            keypoints[:, index, :2] = joints[:, SMPL24.index(name), :2]
            keypoints[:, index, 2] = 1  # projected, so known
    return keypoints


def _checked(columns: _Columns, **values: np.ndarray | str | None) -> Annotations:
    """Check what all files have."""
    size = _size(columns.get("scale"))
    columns.check("scale", ~(size <= 0), "must be positive")
    gender = columns.words("gender")
    if gender is not None:
        gender = np.array([_GENDERS.get(each.lower(), each) for each in gender.tolist()])
        columns.check("gender", np.isin(gender, [*_GENDERS.values()]), "must be 'm', 'f' or 'n'")
    names, center = columns.image_names(), columns.get("center", 2)
    known = Annotations.of(image_names=names, center=center, size=size, gender=gender, **values)
    focal_length, img_hw = known.focal_length, known.img_hw
    columns.check("focal_l", np.isnan(focal_length) | (focal_length > 0) & (focal_length < np.inf), "must be positive")
    if img_hw is not None:
        columns.check("img_hw", ~(img_hw <= 0).any(1), "must be positive")
    return known


# --- Files to arrays -------------------------------------------------------------------------------------------------


def _is_json(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def _read_eft(path: Path, findings: Findings) -> dict[str, np.ndarray]:
    """EFT's json as SPIN's arrays; bad rows are noted, and hold NaN or ''."""
    content = read_json(path, "Annotation file")
    rows = content.get("data") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise InputError(f"Annotation file '{path}' is json, but not EFT's: it has no list 'data'.")

    def column(key: str, *shape: int, dtype: type = np.float64) -> np.ndarray:
        values, bad = [], np.zeros(len(rows), bool)
        for index, row in enumerate(rows):
            try:
                values.append(np.array(row[key], dtype).reshape(shape))
            except (KeyError, TypeError, ValueError, OverflowError):
                bad[index] = True
                values.append(np.full(shape, "" if dtype is np.str_ else np.nan, dtype))
        findings.add(f"'{key}' must be {f'numbers of shape {shape}' if shape else 'one value'}", bad)
        return np.array(values, dtype).reshape(-1, *shape)

    rotmats = column("parm_pose", 24, 3, 3)
    rotmats[~_finite(rotmats)] = np.eye(3)
    gap = np.abs(rotmats @ rotmats.swapaxes(-1, -2) - np.eye(3)).max((1, 2, 3))
    wrong = ~((gap < 0.01) & (np.linalg.det(rotmats) > 0).all(1))
    findings.add("'parm_pose' must hold rotation matrices", wrong)
    rotmats[wrong] = np.eye(3)
    return {
        "imgname": column("imageName", dtype=np.str_),
        "center": column("bbox_center", 2),
        "scale": column("bbox_scale"),
        "part": column("gt_keypoint_2d", 49, 3)[:, -len(SPIN24) :],  # OpenPose's 25 come first
        "pose": Rotation.from_matrix(rotmats.reshape(-1, 3, 3)).as_rotvec().reshape(len(rows), 72),
        "shape": column("parm_shape", 10),
    }
