"""One annotation file and its pictures: a row of it to the arrays of a sample."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.camera import estimate_focal_length
from cliff_ms.config import AugmentConfig, ModelConfig, SourceConfig
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.data.augment import Sample, augment, channel_noise, crop_to_input, cut
from cliff_ms.data.batching import Batch
from cliff_ms.data.crop import crop_rounded, fitting_reduction, normalize_image, normalize_keypoints
from cliff_ms.data.decoding import ImageFile
from cliff_ms.data.label_checks import box_outside_image
from cliff_ms.data.occlusion import occlude
from cliff_ms.data.picture_checks import CENTER_OUTSIDE, MISSING, OTHER_SIZE, is_other_size, look_at_pictures
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import convert_keypoints

_PROBED_IMAGES = 100  # looked at when a source is opened, so that a wrong folder is found before training starts


class Source:
    """The rows of one annotation file.

    Args:
        config: The file and its image folder.
        model: What the network reads.
        key: What names the image folder, such as 'data.train[0].image_dir', for messages.
        augmentation: How samples are varied; None to read them as they are.
        occluders: Cut-outs for `occlusion.occlude`.
        known_focal_length: Give the file's focal lengths, and those that it lacks estimated from the image size; else
            all are estimated.

    Attributes:
        annotations: All rows.
        reads_pixels: Whether the network reads crops; else it reads keypoints.

    Raises:
        InputError: What `load_annotations` raises; no image folder, or of up to 100 images none is in it or most are
            not those annotated; for a keypoint model, no input keypoints or no image sizes.
    """

    def __init__(
        self,
        config: SourceConfig,
        model: ModelConfig,
        key: str,
        augmentation: AugmentConfig | None = None,
        occluders: Sequence[np.ndarray] = (),
        known_focal_length: bool = True,
    ) -> None:
        self.path = config.annotations
        self.annotations = load_annotations(config.annotations)
        if not known_focal_length:
            unknown = np.full_like(self.annotations.focal_length, np.nan)
            self.annotations = replace(self.annotations, focal_length=unknown)
        self.reads_pixels = not model.reads_keypoints
        self._model = model
        self._image_dir = Path(config.image_dir)
        self._augmentation = augmentation
        self._occluders = occluders
        if self.reads_pixels:
            self._check_images(config.image_dir, key)
            return
        for name in ("input_keypoints", "img_hw"):
            if getattr(self.annotations, name) is None:
                raise InputError(f"Annotation file '{self.path}': key '{name}' is missing; a keypoint model needs it.")
        self._keypoints = self.annotations.input_keypoints
        if self.annotations.input_joint_set != model.joint_set:
            self._keypoints = convert_keypoints(self._keypoints, self.annotations.input_joint_set, model.joint_set)

    def __len__(self) -> int:
        return len(self.annotations)

    def usable_rows(self) -> np.ndarray:
        """Rows to learn from, (n,): some label is known, and a keypoint model sees some keypoint."""
        known = self.annotations
        usable = (known.keypoints2d[..., 2] > 0).any(1) | (known.keypoints3d[..., 3] > 0).any(1) | (known.has_smpl > 0)
        if not self.reads_pixels:
            usable &= (self._keypoints[..., 2] > 0).any(1)
        return np.flatnonzero(usable)

    def image_path(self, row: int) -> Path:
        """The picture of a row."""
        return self._image_dir / self.annotations.image_names[row]

    def read(self, row: int, rng: np.random.Generator | None = None) -> Batch:
        """Load one row.

        Args:
            row: Row of the annotations.
            rng: Randomness of the augmentation; None for the row as it is, cut as `model.crop_style` says. An
                augmented crop is always one affine warp.

        Returns:
            One sample.

        Raises:
            InputError: If its picture cannot be read, has another size than the annotations say, or is not where the
                box is.
        """
        if self.reads_pixels:
            try:
                return self._read_pixels(row, rng)
            except InputError as error:
                raise InputError(
                    f"Annotation file '{self.path}', row {self.annotations.file_row(row)}: {error}"
                ) from None
        sample = self._augmented(self._sample(row, self.annotations.img_hw[row]), rng)
        inputs = normalize_keypoints(sample.input_keypoints[None], sample.center[None], np.array([sample.size]))
        return self._arrays(row, sample, inputs[0])

    def _read_pixels(self, row: int, rng: np.random.Generator | None) -> Batch:
        picture, known = ImageFile(self.image_path(row)), self.annotations
        img_hw, stated = np.array(picture.img_hw), known.img_hw
        if stated is not None and is_other_size(stated[row], img_hw):
            height, width = (f"{n:g}" for n in stated[row])
            raise InputError(
                f"image '{known.image_names[row]}' is {img_hw[1]} x {img_hw[0]} px, but the annotations are "
                f"for {width} x {height}; turn or resize the images, or annotate these."
            )
        if box_outside_image(*(array[row : row + 1] for array in (known.center, known.size)), img_hw[None])[0]:
            raise InputError(f"the box lies outside the image '{known.image_names[row]}'; are its pixels the image's?")
        sample, crop_hw = self._augmented(self._sample(row, img_hw), rng), self._model.crop_hw
        if rng is None and self._model.crop_style == "rounded":
            crop = crop_rounded(picture.decode(1), sample.center, sample.size, crop_hw)
            return self._arrays(row, sample, normalize_image(crop))
        reduction = fitting_reduction(sample.size / crop_hw[0])
        crop = cut(picture.decode(reduction), reduction, sample, crop_hw)
        noise = np.ones(3)
        if rng is not None:
            if rng.random() < self._augmentation.occlusion:
                crop = occlude(crop, rng, self._occluders)
            noise = channel_noise(rng, self._augmentation)
        return self._arrays(row, sample, crop_to_input(crop, noise))

    def _sample(self, row: int, img_hw: np.ndarray) -> Sample:
        known = self.annotations
        return Sample(
            center=known.center[row].astype(np.float64),
            size=float(known.size[row]),
            img_hw=img_hw.astype(np.float64),
            keypoints2d=known.keypoints2d[row].astype(np.float64),
            keypoints3d=known.keypoints3d[row].astype(np.float64),
            rotmats=Rotation.from_rotvec(known.pose[row].reshape(24, 3)).as_matrix(),
            input_keypoints=None if self.reads_pixels else self._keypoints[row].astype(np.float64),
            input_joint_set=None if self.reads_pixels else self._model.joint_set,
        )

    def _augmented(self, sample: Sample, rng: np.random.Generator | None) -> Sample:
        return sample if rng is None else augment(sample, rng, self._augmentation, self._model.crop_hw)

    def _arrays(self, row: int, sample: Sample, inputs: np.ndarray) -> Batch:
        focal_length = self.annotations.focal_length[row]
        arrays = Batch(
            inputs=inputs,
            center=sample.center,
            bbox_size=sample.size,
            img_hw=sample.img_hw,
            focal_length=estimate_focal_length(sample.img_hw) if np.isnan(focal_length) else focal_length,
            keypoints2d=sample.keypoints2d,
            keypoints3d=sample.keypoints3d,
            rotmats=sample.rotmats,
            betas=self.annotations.betas[row],
            has_smpl=self.annotations.has_smpl[row],
        )
        return Batch(*(np.asarray(array, np.float32) for array in arrays))

    def _check_images(self, image_dir: str, key: str) -> None:
        if not image_dir or not self._image_dir.is_dir():
            raise InputError(f"{key}: there is no folder '{image_dir}'; set it to where the images are.")
        rows = np.linspace(0, len(self) - 1, min(len(self), _PROBED_IMAGES)).astype(int)
        problems = look_at_pictures(self.annotations, self._image_dir, rows)
        found = len(rows) - len(problems.get(MISSING, ()))
        if not found:
            raise InputError(
                f"{key}: '{image_dir}' has none of {len(rows)} images of '{self.path}', such as "
                f"'{self.annotations.image_names[0]}'."
            )
        for problem in (OTHER_SIZE, CENTER_OUTSIDE):
            wrong = problems.get(problem, ())
            if len(wrong) > found / 2:
                raise InputError(
                    f"{key}: of {found} images of '{self.path}' looked at in '{image_dir}', {len(wrong)} are "
                    f"not those that were annotated, such as '{self.annotations.image_names[wrong[0]]}': {problem}."
                )
