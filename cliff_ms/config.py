"""Configuration: frozen dataclasses filled from YAML or a checkpoint's side-car; an unknown key is an error."""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cliff_ms.camera import BboxNorm
from cliff_ms.io.errors import InputError
from cliff_ms.io.yaml_files import parse_yaml, read_with_base
from cliff_ms.keypoints import JointSet

Encoder = Literal["res18", "res50", "hr48", "keypoints"]
CropStyle = Literal["affine", "rounded"]
FocalLengths = Literal["known", "estimated"]
BadImage = Literal["stop", "skip"]
RotationCentre = Literal["image", "crop"]
Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Within:
    """What `from_dict` asks of a number; never infinite, never NaN.

    Attributes:
        low: The least.
        high: The greatest.
    """

    low: float
    high: float = math.inf


Count = Annotated[int, Within(1)]
Interval = Annotated[int, Within(0)]  # 0 for never
Share = Annotated[float, Within(0, 1)]
NotNegative = Annotated[float, Within(0)]


@dataclass(frozen=True)
class ModelConfig:
    """What a checkpoint's weights mean: the network and its conventions.

    Attributes:
        encoder: 'res18', 'res50', 'hr48' (pixels in) or 'keypoints' (2D keypoints in).
        crop_hw: Height and width in px of the crop that an image encoder reads.
        crop_style: 'affine' is one sub-pixel warp; 'rounded' cuts along whole pixels first, as the authors' code does.
        bbox_norm: 'eq5' is Eq. (5) as printed; 'released' are the constants of the authors' published weights.
        location_input: Feed bbox_info to the regressor (CI in Table 2).
        width: Channel multiplier of 'res18' and 'keypoints'.
        joint_set: Keypoints that the 'keypoints' encoder reads, 'coco17' or 'openpose25'.
    """

    encoder: Encoder = "res50"
    crop_hw: tuple[int, int] = (256, 192)
    crop_style: CropStyle = "affine"
    bbox_norm: BboxNorm = "eq5"
    location_input: bool = True
    width: Annotated[float, Within(0.01)] = 1.0
    joint_set: JointSet = "coco17"

    def __post_init__(self) -> None:
        if min(self.crop_hw) < 32:
            raise InputError(f"model.crop_hw must be at least 32 x 32 px, but got {list(self.crop_hw)}.")
        if self.encoder == "hr48" and (self.crop_hw[0] % 32 or self.crop_hw[1] % 32):
            raise InputError(f"model.crop_hw must be multiples of 32 px for hr48, but got {list(self.crop_hw)}.")

    @property
    def reads_keypoints(self) -> bool:
        """Whether 2D keypoints go in, and no pixels."""
        return self.encoder == "keypoints"


@dataclass(frozen=True)
class SourceConfig:
    """One annotation file in a mixture.

    Attributes:
        annotations: npz or EFT json, see `cliff_ms.data.annotation_files`.
        image_dir: Folder that the file's image names are relative to; may be empty for keypoint training.
        weight: Share of the mixture; sources are drawn by partition, the shares sum to 1.
    """

    annotations: str
    image_dir: str = ""
    weight: Share = 1.0


@dataclass(frozen=True)
class DataConfig:
    """What is trained and validated on.

    Attributes:
        stream: True for the endless stream of synthetic keypoint samples; `train` then takes the shares of each batch
            that its weights say, and the stream the rest.
        labelled: Share of the stream's people who have 3D labels; the others have 2D keypoints only.
        train: Sources of the mixture.
        val: Sources for validation; empty for a fixed held-out part of the stream.
        focal_length: 'known' takes those of `train` and the stream where they are known; 'estimated' takes none, and
            computes all from the image size, section 3.3 of the paper.
        global_batch_size: Samples of an update, of all workers and `train.accumulate` batches together; each batch gets
            its share. 0 where `batch_size` is given instead.
        batch_size: Samples per batch and worker; an update takes `train.accumulate` batches of every worker.
        workers: Threads that load, of each worker; 0 loads between the steps.
        bad_image: 'stop' or 'skip' when an image cannot be read, which is logged: in training another sample takes its
            place, validation and annotation are without it.
    """

    stream: bool = False
    labelled: Share = 1.0
    train: tuple[SourceConfig, ...] = ()
    val: tuple[SourceConfig, ...] = ()
    focal_length: FocalLengths = "known"
    global_batch_size: Interval = 0
    batch_size: Interval = 0
    workers: Annotated[int, Within(0)] = 2
    bad_image: BadImage = "stop"

    def __post_init__(self) -> None:
        if not self.stream and not self.train:
            raise InputError("data: give 'stream: true', a list of 'train' sources, or both.")
        if (self.global_batch_size > 0) == (self.batch_size > 0):
            raise InputError("data: give global_batch_size, of all workers together, or batch_size, of each.")
        share = sum(source.weight for source in self.train)
        if self.stream and share >= 1:
            raise InputError("data.train: beside a stream, the weights of the sources must sum to less than 1.")
        if not self.stream and abs(share - 1) > 1e-6:
            raise InputError("data.train: the weights of the sources must sum to 1.")
        if not self.stream and self.labelled < 1:
            raise InputError("data.labelled is a share of the stream's people: it takes 'stream: true'.")

    @property
    def from_files(self) -> int:
        """How many samples of a batch of `batch_size` come from `train`."""
        return round(self.batch_size * sum(source.weight for source in self.train))


@dataclass(frozen=True)
class AugmentConfig:
    """Section 3.5 of the paper; probabilities and ranges are SPIN's where the paper gives none.

    Attributes:
        flip: Probability of mirroring the full frame.
        rotation: Standard deviation in degrees, clipped at twice that.
        rotation_prob: Probability of rotating at all.
        rotate_about: 'image' rolls the camera, exact everywhere in the frame; 'crop' leaves the box where it is and
            turns only the body, as SPIN does, exact on the optical axis only.
        scale: Standard deviation of the factor on the box size, clipped to within one of them.
        noise: Each colour channel is multiplied by U(1 - noise, 1 + noise).
        occlusion: Probability of pasting occluders (Sarandi et al.).
        occluders: Folder of RGBA cut-outs; empty for shapes drawn on the fly.
        crop: Probability of cropping to a part of the person (Rockwell and Fouhey).
    """

    flip: Share = 0.5
    rotation: NotNegative = 30.0
    rotation_prob: Share = 0.4
    rotate_about: RotationCentre = "image"
    scale: Annotated[float, Within(0, 0.9)] = 0.25
    noise: Share = 0.4
    occlusion: Share = 0.0
    occluders: str = ""
    crop: Share = 0.0


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of Eq. (2) and (10), and where 2D keypoints are compared; the defaults are SPIN's.

    Attributes:
        total: Factor on the whole sum.
        keypoints2d: On the mean over SPIN's 24 keypoints; SPIN's 5 is on a mean over 49 of which 25 weigh nothing.
        keypoints3d: On the mean over the same, aligned at the middle of the hips.
        pose: On rotation matrices, the root's included.
        betas: On shape coefficients.
        vertices: On the L1 distance of vertices; 0 does not compute it.
        camera: On exp(-10 s)^2, which keeps the scale s positive.
        full_frame: Project keypoints by the camera of the full image, not of the crop (CS in Table 2).
    """

    total: NotNegative = 60.0
    keypoints2d: NotNegative = 5.0 * 24 / 49
    keypoints3d: NotNegative = 5.0
    pose: NotNegative = 1.0
    betas: NotNegative = 0.001
    vertices: NotNegative = 0.0
    camera: NotNegative = 1.0
    full_frame: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation and what is kept of it.

    Attributes:
        steps: Optimiser updates.
        learning_rate: Of Adam.
        lr_drops: Fractions of `steps` at which the learning rate is divided by 10.
        lr_anneal: Share of `steps`, the last ones, over which the learning rate also falls to zero, in a straight line.
        accumulate: Batches per update.
        clip_norm: Global norm that gradients are clipped to; 0 for none.
        max_skipped: Steps in a row that may be skipped because something is not finite; of more, training ends.
        precision: 'fp32'; or, of encoder and regressor, 'fp16' or 'bf16' (Ascend only); SMPL, camera and losses stay
            fp32.
        loss_scale: Fixed factor, or 0 for a dynamic one; matters with 'fp16' only.
        ema: Decay of the moving average of the weights, which is what is validated, drawn and saved as best and
            final; 0 for none.
        pretrained: Weights to start from, of an encoder or a whole model; empty for none.
        freeze_norm: BatchNorm uses its running statistics and leaves them as they are, and nothing is dropped out: for
            finetuning. Scales and shifts still learn.
        sync_norm: BatchNorm takes mean and variance over the batches of all workers (Ascend only), not of each alone.
        seed: Of weights, order, augmentation and dropout.
        val_every: Steps between validations; 0 for never.
        save_every: Steps between checkpoints.
        keep: Checkpoints kept, besides the best.
        picture_every: Steps between pictures of projected joints; 0 for never.
    """

    steps: Count = 244_000
    learning_rate: float = 1e-4
    lr_drops: tuple[Share, ...] = (0.5,)
    lr_anneal: Share = 0.0
    accumulate: Count = 1
    clip_norm: NotNegative = 0.0
    max_skipped: Count = 20
    precision: Precision = "fp32"
    loss_scale: NotNegative = 0.0
    ema: float = 0.0
    pretrained: str = ""
    freeze_norm: bool = False
    sync_norm: bool = False
    seed: Annotated[int, Within(0, 2**32 - 1)] = 0
    val_every: Interval = 1000
    save_every: Count = 1000
    keep: Count = 3
    picture_every: Interval = 0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf or not 0 <= self.ema < 1:
            raise InputError("train.learning_rate must be positive, and train.ema at least 0 and below 1.")


@dataclass(frozen=True)
class Config:
    """A training configuration, the content of a file in `configs/`.

    Attributes:
        model: The network.
        data: What it is trained on.
        augment: How samples are varied.
        loss: What is minimised.
        train: The optimisation.
        body: Body file; empty for the bundled one.
    """

    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    body: str = ""


def load_config(path: str | Path, overrides: Sequence[str] = (), cls: type[Config] = Config) -> Config:
    """Read a YAML configuration.

    Args:
        path: The file, which may build on another, see `cliff_ms.io.yaml_files`.
        overrides: 'section.key=value' each, the value in YAML; they replace what the file says.
        cls: What the file is to hold, `Config` or a dataclass that extends it.

    Returns:
        The configuration, an instance of `cls`.

    Raises:
        InputError: Missing or unreadable file, unknown, missing or repeated key, value of the wrong type, choice or
            range, bases in a circle.
    """
    values, where = read_with_base(Path(path), "Configuration")
    for override in overrides:
        name, equals, value = override.partition("=")
        *section, key = name.split(".", 1)
        target = values.setdefault(section[0], {}) if section and isinstance(values, dict) else values
        if not equals or not isinstance(target, dict):
            raise InputError(f"'{override}': an override is section.key=value.")
        target[key] = parse_yaml(value, f"'{override}'")
    return from_dict(cls, values, where)


def from_dict(cls: type, values: dict, where: str, section: str = "") -> typing.Any:
    """Fill a frozen dataclass from a plain dict.

    Args:
        cls: The dataclass; its nested dataclass fields are filled from nested dicts.
        values: What a YAML or JSON file held.
        where: The file, for messages.
        section: Name of the enclosing key, for messages.

    Returns:
        An instance of `cls`.

    Raises:
        InputError: Unknown key (the message names the nearest one) or a value of the wrong type, choice or range.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: '{section or 'the file'}' must be a mapping of keys, but got {values!r}.")
    hints = typing.get_type_hints(cls, include_extras=True)
    filled = {}
    for key, value in values.items():
        name = f"{section}.{key}" if section else str(key)
        if key not in hints:
            nearest = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)[0]
            raise InputError(f"{where}: unknown key '{name}'; the nearest known key is '{nearest}'.")
        filled[key] = _convert(hints[key], value, where, name)
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    for name in sorted(required - filled.keys()):
        raise InputError(f"{where}: '{f'{section}.{name}' if section else name}' is missing.")
    try:
        return cls(**filled)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def to_dict(config: typing.Any) -> dict:
    """The dataclass as plain dicts and lists, ready for YAML or JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _convert(hint: typing.Any, value: typing.Any, where: str, name: str) -> typing.Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where, name)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _chosen(args, value, where, name)
    if origin is Annotated:
        return _within(args[1], _convert(args[0], value, where, name), where, name)
    if origin in (typing.Union, types.UnionType):  # Optional[x]
        return None if value is None else _convert(args[0], value, where, name)
    if origin is tuple and isinstance(value, (list, tuple)) and args[-1] is Ellipsis:
        return tuple(_convert(args[0], v, where, f"{name}[{k}]") for k, v in enumerate(value))
    if origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(args):
        return tuple(_convert(a, v, where, name) for a, v in zip(args, value, strict=True))
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-4, without a point, for a string
        except (TypeError, ValueError, OverflowError):
            pass
    if origin is None and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise InputError(f"{where}: '{name}' must be {getattr(hint, '__name__', hint)}, but got {value!r}.")


def _chosen(choices: tuple[str, ...], value: typing.Any, where: str, name: str) -> str:
    if value not in choices:
        raise InputError(f"{where}: {name} must be one of {', '.join(choices)}, but got {value!r}.")
    return value


def _within(bounds: Within, value: float, where: str, name: str) -> float:
    low, high = bounds.low, bounds.high
    if not (math.isfinite(value) and low <= value <= high):
        allowed = f"from {low} to {high}" if high < math.inf else f"finite and at least {low}"
        raise InputError(f"{where}: {name} must be {allowed}, but got {value}.")
    return value
