"""The people of a video: found and estimated frame by frame, and numbered.

What is kept of a frame are the parameters of its people, some kilobytes: memory does not grow with the pictures. The
video is read once more to be drawn, when all of it is known.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from cliff_ms.data.detections import Detections, boxes_in_image
from cliff_ms.inference.predict import Estimate, Predictor
from cliff_ms.inference.tracking import Sighting, Tracker
from cliff_ms.io.errors import InputError
from cliff_ms.io.video import VideoReader
from cliff_ms.keypoints import COCO17, JOINT_SETS

_AHEAD = 4  # frames that a thread may be ahead of their use

Item, Result = TypeVar("Item"), TypeVar("Result")
FindInFrame = Callable[[np.ndarray, int], Detections]  # image (H, W, 3) uint8 RGB and the frame's number

log = logging.getLogger("cliff_ms")


class Moment(NamedTuple):
    """A frame of a video.

    Attributes:
        frame: Its number, from 0.
        time: s, when it is shown.
        people: P of them.
        tracks: (P,) int64, who they are through the video.
    """

    frame: int
    time: float
    people: Estimate
    tracks: np.ndarray


def watch(
    path: Path, find: FindInFrame, predictor: Predictor, focal_length: float | None, taken: Iterable[int]
) -> Iterator[Moment]:
    """Find and estimate everybody, frame by frame.

    What is wrong with a frame or a row costs that one only, and is said at the end.

    Args:
        path: The video.
        find: Where its people are.
        predictor: What estimates the bodies.
        focal_length: px; None to estimate it.
        taken: Numbers that `find` gives people.

    Yields:
        The frames.

    Raises:
        InputError: A file that is no video; no frame at all that could be used; bad weights.
    """
    tracker, problems, used = Tracker(taken), _Problems(path), 0
    with VideoReader(path) as reader, ThreadPoolExecutor(1) as finder:

        def look(frame: int, time: float, image: np.ndarray) -> tuple[int, float, np.ndarray, Detections | str]:
            try:
                people = find(image, frame)
            except InputError as error:
                return frame, time, image, str(error)
            inside = boxes_in_image(people.boxes, image.shape[:2])
            problems.note_rows(frame, np.flatnonzero(~inside))
            return frame, time, image, people.take(np.flatnonzero(inside))

        frames = ((number, time, image) for number, (time, image) in enumerate(reader.timed()))
        for number, time, image, people in in_order(finder, look, frames):
            if isinstance(people, str):
                problems.note_frame(number, people)
                people = Detections(np.zeros((0, 4)), np.zeros(0))
            else:
                used += 1
            estimate = predictor.estimate(image, people, focal_length)
            yield Moment(number, time, estimate, tracker(time, _sighting(estimate)))
    problems.report()
    if not used:
        raise InputError(problems.first)


def in_order(
    pool: ThreadPoolExecutor, work: Callable[..., Result], items: Iterable[tuple], ahead: int = _AHEAD
) -> Iterator[Result]:
    """Work on items in other threads, a few ahead of their use.

    Args:
        pool: The threads.
        work: What to do with an item.
        items: Arguments of `work`; taken from in this thread.
        ahead: How many items at once are in work, or done and not used yet.

    Yields:
        The results in the order of the items.

    Raises:
        Exception: What `work` raised, in its turn.
    """
    items = iter(items)
    waiting = deque(pool.submit(work, *item) for item in islice(items, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, *item) for item in islice(items, 1))
        yield result


def _sighting(estimate: Estimate) -> Sighting:
    people = estimate.detections
    names = JOINT_SETS[people.joint_set] if people.joint_set else COCO17
    return Sighting(people.boxes, estimate.bodies.translation, people.keypoints, names, people.ids)


class _Problems:
    """What could not be used of a video."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = self.frames = 0
        self.first = self.first_row = ""

    def note_rows(self, frame: int, rows: np.ndarray) -> None:
        """Rows of people outside the picture."""
        if len(rows) and not self.rows:
            self.first_row = f"frame {frame}, row {rows[0]}"
        self.rows += len(rows)

    def note_frame(self, frame: int, reason: str) -> None:
        """A frame of which the people are not known."""
        self.first = self.first or f"{self.path}, frame {frame}: {reason}"
        self.frames += 1

    def report(self) -> None:
        """Say it in a line each."""
        if self.rows:
            log.warning("%s: left out, outside the picture: %d (%s first)", self.path, self.rows, self.first_row)
        if self.frames:
            log.warning("frames taken as empty: %d (%s)", self.frames, self.first)
