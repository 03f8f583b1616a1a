"""Synthetic occlusion: things pasted over the crop (Sarandi et al., IROS 2018 workshops).

Theirs are objects cut out of Pascal VOC; without a folder of such cut-outs, there are textured shapes, drawn once.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.io.images import quiet_opencv

_MAX_COUNT = 8
_SIDES = (0.1, 0.6)  # longer side of an occluder relative to the crop's shorter one
_STORED_SIDE = 256  # px; cut-outs are not kept larger
_DRAWN, _DRAWN_SIDE = 256, 160  # shapes, and px; as large as an occluder of the largest crop that is common gets
_FOLDER_SUFFIXES = (".png", ".webp", ".tif", ".tiff")


def load_occluders(folder: str | Path) -> list[np.ndarray]:
    """Read the user's cut-outs.

    Args:
        folder: PNG, WebP or TIFF files with an alpha channel.

    Returns:
        (h, w, 4) uint8 RGBA each, 256 px on the longer side at most.

    Raises:
        InputError: No such folder, none in it, or one that cannot be read or has no alpha channel.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"augment.occluders: '{folder}' is no folder.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _FOLDER_SUFFIXES)
    if not paths:
        raise InputError(f"augment.occluders: '{folder}' holds no {', '.join(_FOLDER_SUFFIXES)} file.")
    return [_read_cutout(path) for path in paths]


@functools.cache
def drawn_occluders() -> list[np.ndarray]:
    """Shapes to use instead, (160, 160, 4) uint8 RGBA each; the same in every process."""
    rng = np.random.default_rng(0)
    return [draw_shape(rng, _DRAWN_SIDE) for _ in range(_DRAWN)]


def occlude(crop: np.ndarray, rng: np.random.Generator, occluders: Sequence[np.ndarray]) -> np.ndarray:
    """Paste one to eight occluders at random places and sizes.

    Args:
        crop: (h, w, 3) uint8 RGB; not changed.
        rng: Source of randomness.
        occluders: Cut-outs to choose from.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    crop = crop.copy()
    shorter = min(crop.shape[:2])
    for _ in range(rng.integers(1, _MAX_COUNT + 1)):
        side = rng.uniform(*_SIDES) * shorter
        cutout = _scaled(occluders[rng.integers(len(occluders))], side)
        _paste(crop, cutout, rng.uniform(size=2) * crop.shape[:2])
    return crop


def draw_shape(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw an ellipse, a rectangle or a blob, plain, striped, chequered or mottled.

    Args:
        rng: Source of randomness.
        side: Height and width in px.

    Returns:
        (side, side, 4) uint8 RGBA.
    """
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    kind = rng.integers(3)
    if kind == 0:  # rectangle
        outline = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.2, 1)] / np.sqrt(2)
    else:
        radius = np.ones(len(angles))
        if kind == 2:  # a blob: the first few waves around the circle
            for wave in (2, 3, 4, 5):
                radius += rng.uniform(-0.25, 0.25) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
            radius = np.clip(radius, 0.2, None) / radius.max()
        outline = radius[:, None] * np.column_stack([np.cos(angles), rng.uniform(0.3, 1) * np.sin(angles)])
    turn = rng.uniform(0, np.pi)
    outline = outline @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    alpha = np.zeros((side, side), np.uint8)
    points = np.round((outline + 1) / 2 * side * 16 - 8).astype(np.int32)  # 1/16 px
    cv2.fillPoly(alpha, [points], (255,), lineType=cv2.LINE_AA, shift=4)
    return np.dstack([_texture(rng, side), alpha])


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """(side, side, 3) uint8: two colours, mixed by a pattern."""
    colours = rng.uniform(0, 255, (2, 3))
    y, x = np.mgrid[:side, :side] * (rng.uniform(2, 12) * np.pi / side)
    kind = rng.integers(4)
    if kind == 0:
        mix: np.ndarray = np.zeros((side, side))
    elif kind == 1:
        turn = rng.uniform(0, np.pi)
        mix = (np.sin(np.cos(turn) * x + np.sin(turn) * y) > 0).astype(float)
    elif kind == 2:
        mix = ((np.sin(x) > 0) ^ (np.sin(y) > 0)).astype(float)
    else:
        mix = cv2.resize(rng.random((6, 6)), (side, side), interpolation=cv2.INTER_LINEAR)
    return (colours[0] + mix[..., None] * (colours[1] - colours[0])).astype(np.uint8)


def _paste(crop: np.ndarray, cutout: np.ndarray, center: np.ndarray) -> None:
    """Blend a cut-out into the crop in place, its middle at `center` = (y, x) px; what sticks out is lost."""
    top, left = (int(c - s / 2) for c, s in zip(center, cutout.shape[:2], strict=True))
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + cutout.shape[0], crop.shape[0]), min(left + cutout.shape[1], crop.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    *colours, alpha = cv2.split(cutout[y0 - top : y1 - top, x0 - left : x1 - left])
    over, alpha = cv2.merge(colours), cv2.merge([alpha] * 3)
    under = crop[y0:y1, x0:x1]
    under[:] = cv2.add(
        cv2.multiply(under, cv2.bitwise_not(alpha), scale=1 / 255), cv2.multiply(over, alpha, scale=1 / 255)
    )


def _scaled(cutout: np.ndarray, side: float) -> np.ndarray:
    factor = side / max(cutout.shape[:2])
    size = tuple(max(round(factor * n), 1) for n in cutout.shape[1::-1])
    return cv2.resize(cutout, size, interpolation=cv2.INTER_AREA)


def _read_cutout(path: Path) -> np.ndarray:
    with quiet_opencv():
        image = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4:
        raise InputError(f"Occluder '{path}' must be an image with 8 bits per channel and an alpha channel (RGBA).")
    image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
    return _scaled(image, _STORED_SIDE) if max(image.shape[:2]) > _STORED_SIDE else image
