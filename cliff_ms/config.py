"""Configuration: frozen dataclasses filled from YAML or a checkpoint's side-car; an unknown key is an error."""

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass

from cliff_ms.errors import InputError

ENCODER_NAMES = ("res18", "res50", "hr48", "keypoints")
BBOX_NORMS = ("eq5", "released")
CROP_STYLES = ("affine", "rounded")
JOINT_SETS = ("coco17", "openpose25")


@dataclass(frozen=True)
class ModelConfig:
    """What a checkpoint's weights mean: the network and its conventions.

    Attributes:
        encoder: 'res18', 'res50', 'hr48' (pixels in) or 'keypoints' (2D keypoints in).
        crop_hw: Height and width in px of the crop that an image encoder reads.
        crop_style: 'affine' is one sub-pixel warp; 'rounded' cuts along whole pixels first, as the authors' code does.
        bbox_norm: 'eq5' is Eq. (5) as printed; 'released' are the constants of the authors' published weights.
        location_input: Feed bbox_info to the regressor (CI in Table 2).
        full_frame_loss: The reprojection loss was, or is to be, computed in the full frame (CS in Table 2).
        width: Channel multiplier of 'res18'.
        joint_set: Keypoints that the 'keypoints' encoder reads, 'coco17' or 'openpose25'.
    """

    encoder: str = "res50"
    crop_hw: tuple[int, int] = (256, 192)
    crop_style: str = "affine"
    bbox_norm: str = "eq5"
    location_input: bool = True
    full_frame_loss: bool = True
    width: float = 1.0
    joint_set: str = "coco17"

    def __post_init__(self) -> None:
        _check_choice("model.encoder", self.encoder, ENCODER_NAMES)
        _check_choice("model.crop_style", self.crop_style, CROP_STYLES)
        _check_choice("model.bbox_norm", self.bbox_norm, BBOX_NORMS)
        _check_choice("model.joint_set", self.joint_set, JOINT_SETS)
        if min(self.crop_hw) < 32:
            raise InputError(f"model.crop_hw must be at least 32 x 32 px, but got {list(self.crop_hw)}.")


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
        InputError: Unknown key (the message names the nearest one) or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: '{section or 'the file'}' must be a mapping of keys, but got {values!r}.")
    hints = typing.get_type_hints(cls)
    filled = {}
    for key, value in values.items():
        name = f"{section}.{key}" if section else str(key)
        if key not in hints:
            nearest = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)[0]
            raise InputError(f"{where}: unknown key '{name}'; the nearest known key is '{nearest}'.")
        filled[key] = _convert(hints[key], value, where, name)
    return cls(**filled)


def to_dict(config: typing.Any) -> dict:
    """The dataclass as plain dicts and lists, ready for YAML or JSON."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()
    }


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, but got '{value}'.")


def _convert(hint: typing.Any, value: typing.Any, where: str, name: str) -> typing.Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where, name)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # Optional[x]
        return None if value is None else _convert(args[0], value, where, name)
    if origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(args):
        return tuple(_convert(a, v, where, name) for a, v in zip(args, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise InputError(f"{where}: '{name}' must be {getattr(hint, '__name__', hint)}, but got {value!r}.")
