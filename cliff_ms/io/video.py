"""Videos in and out, frame by frame, as (H, W, 3) uint8 RGB."""

import functools
import logging
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, require_file
from cliff_ms.io.images import is_image, quiet_opencv

VIDEO_EXTENSIONS = (
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".gif",
)  # fmt: skip

# FFmpeg inside OpenCV writes its own complaints to stderr; ours come as one sentence. Read when the first video opens.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

log = logging.getLogger("cliff_ms")


def is_video(path: str | Path) -> bool:
    """Whether to read a file as a video.

    Content goes before name: a photo, or a GIF of one picture, is none. What else there is, or is not there at all, is
    one if it is named so (VIDEO_EXTENSIONS, in any case) or FFmpeg can decode it.
    """
    path = Path(path)
    if path.suffix.lower() in VIDEO_EXTENSIONS:
        return not (path.is_file() and is_image(path))
    return path.is_file() and os.access(path, os.R_OK) and not is_image(path) and _can_decode(path)


class VideoReader:
    """The frames of a video, decoded one by one: only the current one is in memory.

    Use it as a context manager and iterate over it once. The rotation that phones store is applied, and pixels that are
    not square are stretched until they are.

    Args:
        path: A video file.
        threads: That decode it; FFmpeg's choice by default.

    Attributes:
        fps: Frames per second.
        img_hw: Height and width of a frame, px.
        frame_count: What the file states; an estimate (0: unknown).

    Raises:
        InputError: When opened, if the file is missing, truncated or no video that can be read; when iterated, if no
            frame can be decoded. Fewer frames than stated (by more than a tenth) are logged as a warning, because the
            stated number is an estimate in several formats.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = require_file(path, "Video")
        self._is_mp4 = _is_mp4(self.path)
        if self._is_mp4 and _mp4_is_truncated(self.path):
            raise InputError(f"Video '{path}' is truncated: its end is missing; copy or download it again.")
        with quiet_opencv(), _name_for_opencv(self.path) as name:
            if threads is None:
                self._capture = cv2.VideoCapture(name)
            else:
                self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
        if not self._capture.isOpened():
            raise InputError(f"File '{path}' is damaged or not a video; expected one of {', '.join(VIDEO_EXTENSIONS)}.")
        # Off unless asked for in OpenCV 4.11: without it a portrait video of a phone lies on its side.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.img_hw = tuple(int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        shape = [self._capture.get(p) for p in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN)]
        self._square = shape[0] in (0, shape[1])  # 0: not known
        if not self._square:  # one side grows, so that nothing is lost
            wide = shape[0] / shape[1]
            if self._capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180:  # it is the stored picture's
                wide = 1 / wide
            self.img_hw = round(self.img_hw[0] * max(1, 1 / wide)), round(self.img_hw[1] * max(1, wide))
        self.frame_count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        if not (math.isfinite(self.fps) and self.fps > 0):
            self._capture.release()
            raise InputError(f"Video '{path}' states no frame rate; encode it again, for example as MP4.")

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 RGB frames."""
        return (image for _, image in self.timed())

    def timed(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the time in s at which a frame is shown, always later than the one before, and the frame."""
        decoded, last = 0, -math.inf
        while True:
            ok, bgr = self._capture.read()
            if not ok:
                break
            stated = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            last = stated if stated > last else last + 1 / self.fps
            decoded += 1
            if not self._square:
                bgr = cv2.resize(bgr, self.img_hw[::-1], interpolation=cv2.INTER_LINEAR)
            yield last, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        if decoded == 0:
            raise InputError(
                f"Video '{self.path}' has no frame that can be decoded; encode it again, for example as MP4."
            )
        # Of a variable rate the number is made of the length: then the length is what counts. An MP4 has its end, see
        # above, and counts the frames that were cut off by an edit list too.
        if not self._is_mp4 and decoded < 0.9 * self.frame_count and last < 0.9 * self.frame_count / self.fps:
            log.warning("Video '%s' states %d frames, %d could be decoded.", self.path, self.frame_count, decoded)


class VideoWriter:
    """An MP4 written frame by frame under a temporary name: renamed when the block ends, removed on an exception.

    H.264 (yuv420p, index first: browsers play it while it loads) through the FFmpeg of imageio-ffmpeg; where that is
    not installed, MPEG-4 part 2 through OpenCV, with a warning. Both need even sizes: the last row or column of an
    odd-sized frame is repeated once. Use it as a context manager.

    Args:
        path: The `.mp4` file.
        fps: Frames per second.
        img_hw: Height and width of every frame, px.
        sound: A video whose sound, if it has some, is copied; not without imageio-ffmpeg.
        start: s of that video at which the first frame is.

    Raises:
        InputError: When entered or left, if the file cannot be written.
    """

    def __init__(
        self, path: str | Path, fps: float, img_hw: tuple[int, int], sound: Path | None = None, start: float = 0.0
    ) -> None:
        self.path = Path(path)
        self._fps = fps
        self._sound, self._start = sound, start
        self._shape = (*img_hw, 3)
        self._pad_hw = (img_hw[0] % 2, img_hw[1] % 2)

    def __enter__(self) -> "VideoWriter":
        height, width = (size + pad for size, pad in zip(self._shape, self._pad_hw, strict=False))
        ffmpeg = find_ffmpeg()
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            if ffmpeg:
                sound = _sound_of(ffmpeg, self._sound, self._start) if self._sound else []
                sink = _h264_sink(ffmpeg, temporary, self._fps, (width, height), sound)
            else:
                log.warning("'%s' is MPEG-4 part 2, which browsers do not play: install imageio-ffmpeg.", self.path)
                sink = _mpeg4_sink(temporary, self._fps, (width, height))
            self._write = stack.enter_context(sink)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.__exit__(*exc)

    def write(self, image_rgb: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 RGB."""
        if image_rgb.shape != self._shape or image_rgb.dtype != np.uint8:
            raise ValueError(
                f"For 'VideoWriter', a frame must be uint8 of shape {self._shape}, "
                f"but got {image_rgb.dtype} of shape {image_rgb.shape}."
            )
        self._write(cv2.copyMakeBorder(image_rgb, 0, self._pad_hw[0], 0, self._pad_hw[1], cv2.BORDER_REPLICATE))


@contextmanager
def _name_for_opencv(path: Path) -> Iterator[str]:
    """OpenCV crashes at a name that is not UTF-8; an open file has another."""
    if os.fsencode(path).decode(errors="replace") == str(path):
        yield str(path)
        return
    with path.open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def _can_decode(path: Path) -> bool:
    with path.open("rb") as file:
        if b"\0" not in file.read(1024):  # text, which FFmpeg would show as a terminal does
            return False
    with quiet_opencv(), _name_for_opencv(path) as name:
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        try:
            return capture.isOpened() and capture.read()[0]
        finally:
            capture.release()


def _is_mp4(path: Path) -> bool:
    """Whether a file is an MP4 or MOV."""
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _mp4_is_truncated(path: Path) -> bool:
    """Whether an MP4 or MOV lacks its index ('moov'), or a box of its frames runs past the end of the file."""
    length = path.stat().st_size
    offset, has_index = 0, False
    with path.open("rb") as file:
        while offset + 8 <= length:
            file.seek(offset)
            size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if size == 1:
                size = int.from_bytes(file.read(8), "big")
            if kind in (b"mdat", b"moov", b"moof") and offset + size > length:
                return True
            has_index |= kind == b"moov"
            offset += size if size >= 8 else length  # 0: to the end of the file
    return not has_index


@functools.cache
def find_ffmpeg() -> str | None:
    """The path of an FFmpeg that writes H.264 with libx264; None if there is none."""
    try:
        import imageio_ffmpeg

        executable = imageio_ffmpeg.get_ffmpeg_exe()
        listing = subprocess.run([executable, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True)
    except (ImportError, RuntimeError, OSError, subprocess.CalledProcessError):
        return None
    return executable if "libx264" in listing.stdout else None


def _sound_of(ffmpeg: str, path: Path, start: float) -> list[str]:
    """Arguments that add a video's sound to the first input, as long as that is; none if the file has no sound.

    `start` is in s from the first picture, as `VideoReader` counts; FFmpeg counts from the first of picture and sound.
    """
    first_picture = ["-map", "0:v:0", "-frames:v", "1", "-fps_mode", "passthrough", "-f", "framecrc", "-"]
    told = subprocess.run(
        [ffmpeg, "-hide_banner", "-copyts", "-i", str(path), *first_picture],
        capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    if "Audio:" not in told.stderr:
        return []
    file_start = re.search(r"start: (-?[\d.]+)", told.stderr)
    picture = re.search(r"#tb 0: (\d+)/(\d+)(?s:.*)^0, *-?\d+, *(-?\d+)", told.stdout, re.MULTILINE)
    if file_start and picture:
        start += int(picture[3]) * int(picture[1]) / int(picture[2]) - float(file_start[1])
    take = ["-ss", f"{max(0.0, start):.6f}", "-i", str(path), "-map", "0:v", "-map", "1:a:0"]
    return [*take, "-c:a", "aac", "-af", "apad", "-shortest"]


@contextmanager
def _h264_sink(
    ffmpeg: str, path: Path, fps: float, size_wh: tuple[int, int], sound: list[str]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Run FFmpeg on `path` and give the function that feeds it a frame; OSError with its last message if it fails.

    `imageio_ffmpeg.write_frames` does not look at FFmpeg's exit code: of a full disk it leaves a broken file.
    """
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*size_wh), "-r", f"{fps:.6f}", "-i", "-"]
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    command = [ffmpeg, "-hide_banner", "-loglevel", "error", "-y", *source, *sound, *codec, "-f", "mp4", str(path)]
    with tempfile.TemporaryFile() as errors:
        # In a session of its own: a Ctrl-C of the terminal is for us, who decide when the film ends.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        try:
            yield lambda frame: process.stdin.write(frame.tobytes())
        except BrokenPipeError:
            pass  # FFmpeg has stopped; its own message follows
        finally:
            with suppress(OSError):
                process.stdin.close()
            code = process.wait()
        if code != 0:
            errors.seek(0)
            messages = errors.read().decode(errors="replace").strip().splitlines()
            raise OSError(messages[-1] if messages else f"ffmpeg left with code {code}")


@contextmanager
def _mpeg4_sink(path: Path, fps: float, size_wh: tuple[int, int]) -> Iterator[Callable[[np.ndarray], None]]:
    """Open OpenCV's own encoder on `path` and give the function that feeds it a frame."""
    with quiet_opencv():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size_wh)
    if not writer.isOpened():
        raise OSError("OpenCV cannot write an MP4 there")
    try:
        yield lambda frame: writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
