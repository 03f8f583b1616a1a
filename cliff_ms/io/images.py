"""Images in and out of memory as (H, W, 3) uint8 RGB, and the list of those to work on."""

import io
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, require_file

_NAMES_SHOWN = 5
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_JPEG = b"\xff\xd8\xff"  # how one starts
# The same of JPEG, PNG, BMP, TIFF, PNM and JPEG 2000 files.
_SIGNATURES = (
    _JPEG, b"\x89PNG", b"BM", b"II*\0", b"MM\0*", *(b"P%d" % k for k in range(1, 7)), b"\0\0\0\x0cjP  ",
)  # fmt: skip
_JPEG_END, _MORE = b"\xff\xd9", b"\x55\xaa" * 256
_MAX_PIXELS = 1 << 30  # what OpenCV decodes

log = logging.getLogger("cliff_ms")
_lock = threading.Lock()
_log_levels: list[int] = []  # as each thread in `quiet_opencv` found the process's level, so the first is the true one


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own log off stderr: the caller reports the failure in one sentence."""
    with _lock:
        _log_levels.append(cv2.getLogLevel())
        cv2.setLogLevel(0)
    try:
        yield
    finally:
        with _lock:
            level = _log_levels.pop()
            if not _log_levels:
                cv2.setLogLevel(level)


def find_inputs(paths: list[str]) -> list[Path]:
    """List the files to work on.

    Args:
        paths: Images, videos and folders. Of a folder, the files with one of IMAGE_EXTENSIONS are taken (not those of
            its sub-folders, and no hidden ones), sorted by name. A file that is named itself is taken whatever it is
            called: reading it decides.

    Returns:
        The files, in the order given.

    Raises:
        InputError: If a path does not exist, a folder holds no image, or two files have the same stem: the results are
            called `<stem>_...` and one would replace the other.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            images = sorted(p for p in path.iterdir() if _is_listed_image(p))
            if not images:
                raise InputError(f"Folder '{path}' holds no image ({', '.join(IMAGE_EXTENSIONS)}).")
            files += images
            _report_others(path, images)
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"Input '{path}' does not exist.")
    first_with: dict[str, Path] = {}
    for file in files:
        other = first_with.setdefault(file.stem, file)
        if other is not file:
            raise InputError(
                f"Inputs '{other}' and '{file}' would both write '{file.stem}_...': rename one, or run them one at a "
                "time into two output folders."
            )
    return files


def is_image(path: Path) -> bool:
    """Whether a file starts as one of the kinds that `read_image` reads or names, and holds one picture."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if head.startswith(b"GIF8"):
            with Image.open(path) as image:
                return not getattr(image, "is_animated", False)
    except (OSError, SyntaxError):  # whoever reads it says why not
        return False
    return _is_heic(head) or head.startswith(_SIGNATURES) or _is_webp(head)


def read_image(path: str | Path) -> np.ndarray:
    """Read an image.

    Grey becomes three equal channels and 16 bits become 8 (v / 257, rounded). The EXIF orientation is applied. A JPEG
    that lacks its end marker, but no pixels, is taken. An alpha channel is dropped: files store colours that are not
    multiplied by it, so a cut-out person keeps her colours up to the soft edge, and the pixels are those the published
    networks were run on.

    Args:
        path: JPEG, PNG, BMP, WebP, TIFF or GIF (its first picture), recognised by content.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: If the file is missing, a folder, empty, truncated, too large, or no image that can be read.
    """
    path = require_file(path, "Image")
    data = _whole(path)
    if _is_heic(data):
        raise InputError(f"Image '{path}' is a HEIC or AVIF file, which is not supported; save it as JPEG or PNG.")
    if data.startswith(b"GIF8"):
        return _read_gif(path, data)
    with quiet_opencv():
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        except cv2.error:
            image = None
    if image is None:
        _refuse_too_large(path, data)
        raise InputError(f"File '{path}' is damaged or not an image: JPEG, PNG, BMP, WebP or TIFF was expected.")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise InputError(f"Image '{path}' holds {image.dtype} values; save it with 8 or 16 bits per channel.")
    if _is_webp(data):
        image = _turned(image, data)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_image(path: str | Path, image_rgb: np.ndarray, quality: int = 92) -> None:
    """Write an image under a temporary name and rename it.

    Args:
        path: The suffix chooses the format.
        image_rgb: (H, W, 3) uint8 RGB.
        quality: JPEG quality, 1-100; other formats ignore it.

    Raises:
        InputError: If the folder cannot be written.
    """
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(Path(path).suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _report_others(folder: Path, images: list[Path]) -> None:
    others = sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and p not in images)
    if others:
        names = ", ".join(others[:_NAMES_SHOWN]) + (", ..." if len(others) > _NAMES_SHOWN else "")
        log.warning(
            "%s: %d of its files are left out, because of a folder only %s are taken (name a video itself): %s",
            folder, len(others), " ".join(IMAGE_EXTENSIONS), names,
        )  # fmt: skip


def _is_listed_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"avif")


def _is_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def _turned(image: np.ndarray, data: bytes) -> np.ndarray:
    """A WebP image as its EXIF says it is to be shown, which OpenCV does for other kinds."""
    with suppress(OSError, SyntaxError, ValueError), Image.open(io.BytesIO(data)) as opened:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation in range(5, 9):  # lies on its side
            image = image.swapaxes(0, 1)
        if orientation in (2, 3, 6, 7):
            image = image[:, ::-1]
        if orientation in (3, 4, 7, 8):
            image = image[::-1]
    return np.ascontiguousarray(image)


def _refuse_too_large(path: Path, data: bytes) -> None:
    size = ""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height <= _MAX_PIXELS:
                return
            size = f" ({opened.width} x {opened.height})"
    except Image.DecompressionBombError:  # Pillow, too, has a limit
        pass
    except (OSError, SyntaxError, ValueError):
        return
    raise InputError(f"Image '{path}' is too large{size}: at most 2^30 pixels can be decoded; make it smaller.")


def _read_gif(path: Path, data: bytes) -> np.ndarray:
    """By Pillow: OpenCV's wheels have no GIF."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise InputError(f"Image '{path}' is a damaged GIF ({error}); copy or download it again.") from None


def _whole(path: Path) -> bytes:
    """What a file holds, its end included."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Image '{path}' cannot be read: {error.strerror}.") from error
    if data.startswith(_JPEG) and not _jpeg_has_end(data):
        data = _with_end(data)
    if _is_truncated(data):
        raise InputError(f"Image '{path}' is truncated: its end is missing; copy or download it again.")
    return data


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker, a PNG its last chunk, or a WebP some of the length it states."""
    if data.startswith(_JPEG):
        return not _jpeg_has_end(data)
    if data.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" not in data
    if _is_webp(data):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False


def _with_end(data: bytes) -> bytes:
    """A JPEG with an end marker, if that is all it lacks, as of some cameras: more coded pixels would change none."""
    data = data.rstrip(b"\0")  # of a download that ended before the length that was known
    try:
        shown, with_more = (_decoded_by_pillow(data + more + _JPEG_END) for more in (b"", _MORE))
    except (OSError, SyntaxError, ValueError):
        return data
    return data + _JPEG_END if np.array_equal(shown, with_more) else data


def _decoded_by_pillow(data: bytes) -> np.ndarray:
    """In silence: OpenCV's JPEG decoder writes to stderr what it misses."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _jpeg_has_end(data: bytes) -> bool:
    """Walk the segments of a JPEG to its end marker.

    A plain search would find the end marker of the thumbnail inside the EXIF segment.
    """
    marker = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)  # not a stuffed 0xFF nor a restart marker
    position = 2
    while found := marker.search(data, position):
        position = found.end()
        if found[1] == b"\xd9":
            return True
        position += int.from_bytes(data[position : position + 2], "big")
    return False
