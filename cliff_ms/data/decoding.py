"""Images for training, decoded no finer than the crop needs: JPEG can be decoded at 1/2, 1/4 and 1/8 of its size."""

import re
from pathlib import Path

import cv2
import numpy as np

from cliff_ms.data.crop import shrink
from cliff_ms.io.images import quiet_opencv, read_image

_DECODE = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# EXIF's tag for an image that is to be turned or mirrored when shown (2 to 8), little and big endian.
_TURNED = re.compile(
    rb"\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00|\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08]"
)
_END = b"\xff\xd9"  # of a JPEG; it cannot occur inside the coded pixels


class ImageFile:
    """One image file, read but not yet decoded if it is a JPEG.

    Args:
        path: Any image that `images.read_image` reads.

    Attributes:
        img_hw: Height and width in px.

    Raises:
        InputError: As `images.read_image`, here or when it is decoded.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._image: np.ndarray | None = None
        try:
            self._data = Path(path).read_bytes()
        except OSError:
            self._data = b""  # `read_image` says why
        size = _jpeg_size(self._data)
        if size is None:
            self._image = read_image(path)
            size = (self._image.shape[0], self._image.shape[1])
        self.img_hw = size

    def decode(self, reduction: int) -> np.ndarray:
        """The pixels at 1 / reduction of the size: px (x, y) of the image is (x, y) / reduction, edge to edge.

        Args:
            reduction: 1, 2, 4 or 8.

        Returns:
            (ceil(H / reduction), ceil(W / reduction), 3) uint8 RGB.
        """
        image = None
        if self._image is None:
            with quiet_opencv():
                image = cv2.imdecode(np.frombuffer(self._data, np.uint8), _DECODE[reduction])
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        image = read_image(self._path) if self._image is None else self._image  # what is wrong, in one sentence
        return shrink(image, reduction)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width in px of a whole, upright JPEG; None for anything else."""
    if not data.startswith(b"\xff\xd8\xff") or data.rfind(_END, max(len(data) - 1024, 0)) < 0:
        return None
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xE1 and _TURNED.search(data, position, position + length):
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = (int.from_bytes(data[position + k : position + k + 2], "big") for k in (5, 7))
            return (height, width) if height and width else None
        position += 2 + length
    return None
