"""The focal length that a photo's own file states."""

from pathlib import Path
from typing import NamedTuple, SupportsFloat

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

_FULL_FRAME_DIAGONAL = float(np.hypot(36, 24))  # mm: "35 mm equivalent" compares diagonal fields of view (CIPA DCG-001)
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0}  # FocalPlaneResolutionUnit
_EQUIVALENT_RANGE = (4.0, 2000.0)  # mm in 35 mm terms; files that do not know write 0 or 65535
_SAME_SHAPE = 0.02  # relative difference of two aspect ratios up to which one picture is the other, resized


class StatedFocalLength(NamedTuple):
    """What a photo's EXIF says.

    Attributes:
        px: Focal length in px of the photo as it is now.
        source: Where that comes from, in words.
        doubt: Why it is not of this picture, in words; '' where nothing speaks against it.
    """

    px: float
    source: str
    doubt: str


def stated_focal_length(path: str | Path, img_hw: tuple[int, int]) -> StatedFocalLength | None:
    """Read the focal length of a photo from its EXIF.

    Taken are the 35 mm equivalent or else the focal length with the resolution of the sensor. A picture that was cut
    out of a photo keeps the tags of the whole, whose field of view is another: if the file also states its picture's
    size, and the shape of that is not the shape of this picture, the focal length is doubtful. A resized photo keeps
    its shape and its field of view.

    Args:
        path: A picture that `read_image` reads.
        img_hw: Its height and width, px.

    Returns:
        The focal length, or None if the file does not state it.
    """
    tags = _camera_tags(path)
    long_side, diagonal = max(img_hw), float(np.hypot(*img_hw))
    stated_size = [_number(tags.get(tag)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    sized = all(side >= 1 for side in stated_size)
    equivalent, focal_mm = (
        _number(tags.get(tag)) for tag in (ExifTags.Base.FocalLengthIn35mmFilm, ExifTags.Base.FocalLength)
    )
    px_per_mm = _number(tags.get(ExifTags.Base.FocalPlaneXResolution)) / _MM_PER_UNIT.get(
        int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))), np.inf
    )
    if _EQUIVALENT_RANGE[0] <= equivalent <= _EQUIVALENT_RANGE[1]:
        px, source = equivalent / _FULL_FRAME_DIAGONAL * diagonal, f"EXIF: {equivalent:g} mm, 35 mm equivalent"
    elif focal_mm > 0 and px_per_mm > 0 and sized:
        px = focal_mm * px_per_mm * long_side / max(stated_size)
        source = f"EXIF: {focal_mm:g} mm and {px_per_mm:.0f} px of the sensor per mm"
        if not _EQUIVALENT_RANGE[0] <= px / diagonal * _FULL_FRAME_DIAGONAL <= _EQUIVALENT_RANGE[1]:
            return None
    else:
        return None
    doubt = ""
    if sized and abs(max(stated_size) / min(stated_size) / (long_side / min(img_hw)) - 1) > _SAME_SHAPE:
        doubt = "it was taken as {:.0f} x {:.0f} px and has another shape now".format(*stated_size)
    return StatedFocalLength(px, source, doubt)


def _camera_tags(path: str | Path) -> dict[int, object]:
    """The tags of the camera's own directory; none where the file has no EXIF that can be read."""
    try:
        with Image.open(path) as image:
            return dict(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        SyntaxError,
        Image.DecompressionBombError,
    ):
        return {}


def _number(value: object) -> float:
    """A tag's number; 0 for what is missing, not a number, or not finite (a fraction over 0)."""
    if not isinstance(value, SupportsFloat):
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if np.isfinite(number) else 0.0
