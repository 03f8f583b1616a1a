"""Pictures taken out of a data set's videos, several videos at once."""

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cliff_ms.data.readers.rows import Rows
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import prepare_output_dir
from cliff_ms.io.images import write_image
from cliff_ms.io.video import VideoReader

_QUALITY = 95  # of the JPEGs

log = logging.getLogger("cliff_ms")


class _UnreadableVideo(Exception):
    """Apart from the errors of writing, which concern all videos."""


def extract(rows: Rows, root: Path) -> Rows:
    """Write the pictures of rows that come from videos, showing progress.

    Pictures that are there already are left as they are. A picture is whole or absent, also after a kill.

    Args:
        rows: Their columns `video`, a path relative to the root, and `frame`, from 0, say where a picture comes from.
        root: Of the data set.

    Returns:
        The rows that have a picture, without those two columns; the others are counted under what is wrong with their
        video.

    Raises:
        InputError: If a picture cannot be written.
    """
    columns = dict(rows.columns)
    videos, frames = columns.pop("video").tolist(), columns.pop("frame").tolist()
    pictures = [root / name for name in columns["image_names"].tolist()]
    wanted: dict[str, dict[int, Path]] = defaultdict(dict)
    for video, frame, picture in zip(videos, frames, pictures, strict=True):
        if not _is_there(picture):
            wanted[video][frame] = picture
    for folder in sorted({picture.parent for picture in pictures}):
        prepare_output_dir(folder)
    reasons = _extract_all({root / video: images for video, images in wanted.items()})
    why = {video: reasons[root / video] for video in wanted if root / video in reasons}
    good = np.array([video not in why or _is_there(picture) for video, picture in zip(videos, pictures, strict=True)])
    names = np.array(videos)
    return Rows(columns, rows.dropped, rows.unread).keep(
        {reason: good | (names != video) for video, reason in why.items()}
    )


def _extract_all(wanted: Mapping[Path, Mapping[int, Path]]) -> dict[Path, str]:
    """Video -> why it does not have all the frames wanted of it, for those that have not."""
    if not wanted:
        return {}
    workers, stop = min(len(wanted), len(os.sched_getaffinity(0))), threading.Event()
    reasons: dict[Path, str] = {}
    with (
        tqdm(desc="extracting", total=sum(map(len, wanted.values())), unit="frame") as bar,
        ThreadPoolExecutor(workers) as pool,
    ):

        def advance(count: int) -> None:
            with bar.get_lock():
                bar.update(count)

        jobs = {pool.submit(_extract_video, video, images, advance, stop): video for video, images in wanted.items()}
        try:
            for job in as_completed(jobs):
                if reason := job.result():
                    log.warning("left out: %s", reason)
                    reasons[jobs[job]] = reason
        except BaseException:  # Ctrl-C too: nobody waits for the ends of videos
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return reasons


def _extract_video(
    video: Path, images: Mapping[int, Path], advance: Callable[[int], None], stop: threading.Event
) -> str | None:
    """Write frames of one video; -> why some are missing."""
    missing, decoded = dict(images), 0
    try:
        for index, image in enumerate(_frames(video)):
            decoded += 1
            if path := missing.pop(index, None):
                write_image(path, image, _QUALITY)
                advance(1)
            if not missing or stop.is_set():
                return None
    except _UnreadableVideo as error:
        return str(error)
    finally:
        advance(len(missing))
    return f"video '{video}' ends after {decoded} frames, before its annotations"


def _frames(video: Path) -> Iterator[np.ndarray]:
    """By a decoder of one thread: the others decode other videos."""
    try:
        with VideoReader(video, threads=1) as reader:
            yield from reader
    except InputError as error:
        raise _UnreadableVideo(str(error).rstrip(".")) from None


def _is_there(picture: Path) -> bool:
    return picture.is_file() and picture.stat().st_size > 0
