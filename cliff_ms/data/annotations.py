"""Annotations: one schema for what a data set knows about its people."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

PIXELS_PER_SCALE = 200  # SPIN's and the authors' unit of a file's `scale`
# What a file may leave out, and the shape of a row without it: zeros, of confidence 0.
_LABELS = {"keypoints2d": (24, 3), "keypoints3d": (24, 4), "pose": (72,), "betas": (10,), "has_smpl": ()}


@dataclass(frozen=True, eq=False)
class Annotations:
    """People and what is known of them, one row each; float32 arrays. A label that is missing is 0 with confidence 0.

    Attributes:
        image_names: (N,) str, relative to a folder that the user names.
        center: (N, 2) px, full image.
        size: (N,) px, the crop height b = 200 * scale.
        keypoints2d: (N, 24, 3) px of the full image and a confidence in [0, 1]; order `keypoints.SPIN24`.
        keypoints3d: (N, 24, 4) m along the axes of the camera, of any origin, and a confidence; same order.
        pose: (N, 72) axis-angle in rad, the root's relative to the camera.
        betas: (N, 10).
        has_smpl: (N,) 0 or 1, whether pose and betas are known.
        focal_length: (N,) px, NaN where it is not known.
        img_hw: (N, 2) px, or None.
        translation: (N, 3) m, SMPL's translation in the full-image camera (the pelvis is at J0(betas) + translation),
            or None.
        input_keypoints: (N, K, 3) px of the full image and confidence: what a keypoint model reads; or None.
        input_joint_set: Order of the K, a key of `keypoints.JOINT_SETS`; None without them.
        gender: (N,) 'm', 'f' or 'n': the SMPL model that pose and betas are of; or None.
        group: (N,) str, the sequence, action or subject that results are broken down by; or None.
        extras: Arrays of N rows that only some files have, under the files' own keys.
        file_rows: (N,) int, their rows in the file that they were read from, if bad ones were left out; or None.
        left_out: File row of each that was -> why.
    """

    image_names: np.ndarray
    center: np.ndarray
    size: np.ndarray
    keypoints2d: np.ndarray
    keypoints3d: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    has_smpl: np.ndarray
    focal_length: np.ndarray
    img_hw: np.ndarray | None = None
    translation: np.ndarray | None = None
    input_keypoints: np.ndarray | None = None
    input_joint_set: str | None = None
    gender: np.ndarray | None = None
    group: np.ndarray | None = None
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    file_rows: np.ndarray | None = None
    left_out: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_names)

    @property
    def box_height(self) -> np.ndarray:
        """(N,) float64 px, the `size` that 200 * scale is in a saved file, to the last bit."""
        return PIXELS_PER_SCALE * to_scale(self.size)

    @classmethod
    def of(cls, **known: np.ndarray | str | dict | None) -> "Annotations":
        """Annotations of what is known: numbers become float32, missing labels 0, missing focal lengths NaN.

        Args:
            known: Attributes; `image_names`, `center` and `size` at least.
        """
        count = len(known["image_names"])
        missing = {name: np.zeros((count, *shape)) for name, shape in _LABELS.items()}
        missing["focal_length"] = np.full(count, np.nan)
        columns = missing | {name: column for name, column in known.items() if column is not None}
        numbers = [name for name, column in columns.items() if getattr(column, "dtype", np.dtype("U")).kind in "fiub"]
        return cls(**columns | {name: columns[name].astype(np.float32, copy=False) for name in numbers})

    def take(self, rows: np.ndarray | slice) -> "Annotations":
        """Some of the rows: their numbers, a slice, or a mask (N,) bool."""
        return _per_column([self], lambda columns: columns[0][rows])

    def file_row(self, row: int) -> int:
        """What a message calls a row: its number in the file."""
        return int(row if self.file_rows is None else self.file_rows[row])


def concatenate(parts: Sequence[Annotations]) -> Annotations:
    """The rows of several annotations, all of which have the same attributes and extras, as one."""
    return _per_column(parts, np.concatenate)


def to_scale(size: np.ndarray) -> np.ndarray:
    """Heights in px as the `scale` of a file, float64."""
    return size.astype(np.float64) / PIXELS_PER_SCALE


def _per_column(parts: Sequence[Annotations], function: Callable[[list[np.ndarray]], np.ndarray]) -> Annotations:
    """Apply a function to the columns of the same name of all parts."""
    columns = {}
    for name in (each.name for each in fields(Annotations)):
        values = [getattr(part, name) for part in parts]
        columns[name] = function(values) if isinstance(values[0], np.ndarray) else values[0]
    columns["extras"] = {key: function([part.extras[key] for part in parts]) for key in parts[0].extras}
    return Annotations(**columns)
