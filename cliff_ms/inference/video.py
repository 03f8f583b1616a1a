"""The people of a video: found and estimated frame by frame, numbered, and fitted over time.

What is kept of a frame are the parameters of its people, some kilobytes: memory does not grow with the pictures. The
video is read once more to be drawn, when all of it is known.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cliff_ms.body.errors import SMPLParameters
from cliff_ms.body.files import Body
from cliff_ms.body.skinning import rest_shape
from cliff_ms.data.detections import Detections, boxes_in_image
from cliff_ms.data.loader import in_order
from cliff_ms.inference.finder import FindInFrame
from cliff_ms.inference.predict import Estimate, Predictor
from cliff_ms.inference.tracking import MAX_GAP, Sighting, Tracker
from cliff_ms.io.errors import InputError
from cliff_ms.io.video import VideoReader
from cliff_ms.keypoints import COCO17, JOINT_SETS, SMPL24
from cliff_ms.visual.motion import Rig, Track

AHEAD = 4  # frames that a thread may be ahead of their use

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


class Span(NamedTuple):
    """What is taken of a video.

    Attributes:
        start: s, of the first frame.
        end: s, before which the last one is.
        every: Frames from one to the next.
        max_gap: Frames that somebody may be out of sight and keep her number; None for half a second of them.
    """

    start: float = 0.0
    end: float = math.inf
    every: int = 1
    max_gap: int | None = None

    def frames(self, reader: VideoReader) -> Iterator[tuple[int, float, np.ndarray]]:
        """Number, time in s and image of each frame."""
        for number, (time, image) in enumerate(reader.timed()):
            if time >= self.end:
                return
            if time >= self.start and number % self.every == 0:
                yield number, time, image

    def longest_absence(self, fps: float) -> float:
        """`max_gap` in s, of a video of that many frames a second; from one frame taken to the next at least."""
        return max(1.5 * self.every / fps, MAX_GAP if self.max_gap is None else (self.max_gap + 1.5) / fps)


def watch(
    reader: VideoReader,
    span: Span,
    find: FindInFrame,
    predictor: Predictor,
    focal_length: float | None,
    taken: Iterable[int],
    threads: int,
) -> Iterator[Moment]:
    """Find and estimate everybody, frame by frame.

    What is wrong with a frame or a row costs that one only, and is said at the end.

    Args:
        reader: The video.
        span: Which part of it.
        find: Where its people are.
        predictor: What estimates the bodies.
        focal_length: px; None to estimate it.
        taken: Numbers that `find` gives people.
        threads: How many may call `find` at once.

    Yields:
        The frames.

    Raises:
        InputError: A video that cannot be decoded; no frame at all that could be used; bad weights.
    """
    tracker, problems = Tracker(taken, span.longest_absence(reader.fps)), _Problems(reader.path)
    used = 0

    def look(frame: int, time: float, image: np.ndarray) -> tuple[int, float, np.ndarray, Detections | str]:
        try:
            return frame, time, image, find(image, frame)
        except InputError as error:
            return frame, time, image, str(error)

    try:
        with ThreadPoolExecutor(threads) as finders:
            for number, time, image, people in in_order(finders, look, span.frames(reader), AHEAD):
                if isinstance(people, str):
                    problems.note_frame(number, people)
                    people = Detections(np.zeros((0, 4)), np.zeros(0))
                else:
                    used += 1
                inside = boxes_in_image(people.boxes, image.shape[:2])
                problems.note_rows(number, np.flatnonzero(~inside))
                people = people.take(np.flatnonzero(inside))
                estimate = predictor.estimate(image, people, focal_length)
                yield Moment(number, time, estimate, tracker(time, _sighting(estimate)))
    finally:  # also of a run that is stopped
        problems.report()
    if not used:
        raise InputError(problems.first or f"Video '{reader.path}' has no frame from {span.start:g} to {span.end:g} s.")


def showings(times: np.ndarray, fps: float) -> np.ndarray:
    """How often each frame is written at a constant rate to be shown at its time, to half a frame: (T,) s -> (T,)."""
    return np.diff(np.round((np.append(times, times[-1] + 1 / fps) - times[0]) * fps)).astype(int)


def over_time(moments: list[Moment], predictor: Predictor, longest_absence: float) -> list[Moment]:
    """Fit every person over time, and put her into the frames between that she was not found in.

    Args:
        moments: All frames.
        predictor: What estimated them.
        longest_absence: s that she may be out of sight between two of them.

    Returns:
        The same frames.
    """
    parts: list[list[tuple[int, Estimate]]] = [[] for _ in moments]  # of each frame, track and a person
    for track in np.unique(np.concatenate([moment.tracks for moment in moments])).tolist():
        found = {k: int(rows[0]) for k, m in enumerate(moments) if len(rows := np.flatnonzero(m.tracks == track))}
        for run in _without_absences(list(found), moments, longest_absence):
            frames = range(run[0], run[-1] + 1)
            times, seen = np.array([moments[k].time for k in frames]), np.isin(frames, run)
            person = _with_gaps(_joined([_rows(moments[k].people, [found[k]]) for k in run]), times, seen)
            person = predictor.fit_over_time(person, times, seen)
            for row, k in enumerate(frames):
                parts[k].append((track, _rows(person, [row])))
    return [
        moment._replace(tracks=np.array([track for track, _ in part]), people=_joined([person for _, person in part]))
        if part
        else moment
        for moment, part in zip(moments, parts, strict=True)
    ]


def tracks_of(moments: list[Moment], body: Body, colour: Callable[[int], tuple[float, float, float]]) -> list[Track]:
    """The people of a video, each through all of it, as files of motion have them.

    Args:
        moments: What `over_time` returned, or `watch`.
        body: Their body.
        colour: Of a number.

    Returns:
        A track each, of the median of its shapes.
    """
    tracks = []
    for number in np.unique(np.concatenate([moment.tracks for moment in moments])).tolist():
        own = [(m, _rows(m.people, np.flatnonzero(m.tracks == number))) for m in moments if number in m.tracks]
        bodies = _joined([person for _, person in own]).bodies
        betas = np.median(bodies.betas, 0)
        times = np.array([moment.time for moment, _ in own]) - moments[0].time
        rig = Rig(*rest_shape(body, betas), body.weights, np.array(body.parents), body.faces, SMPL24)
        frames = np.array([moment.frame for moment, _ in own])
        tracks.append(Track(number, frames, times, bodies.rotmats, betas, bodies.translation, rig, colour(number)))
    return tracks


def _without_absences(frames: list[int], moments: list[Moment], longest: float) -> list[list[int]]:
    """The frames that somebody is in, cut where she is away for so long that nobody knows what she does."""
    times = np.array([moments[k].time for k in frames])
    cuts = np.flatnonzero(np.diff(times) > longest) + 1
    return [part.tolist() for part in np.split(np.array(frames), cuts)]


def _with_gaps(person: Estimate, times: np.ndarray, seen: np.ndarray) -> Estimate:
    """One person in T frames from those that she is `seen` in; between them boxes go straight, the rest is empty."""
    nearest = np.maximum(np.cumsum(seen) - 1, 0)
    whole = _rows(person, nearest)
    at = times[seen]
    boxes = np.stack([np.interp(times, at, column) for column in person.detections.boxes.T], 1)
    keypoints = whole.detections.keypoints
    if keypoints is not None:
        keypoints = keypoints * seen[:, None, None]
    found = replace(whole.detections, boxes=boxes, scores=whole.detections.scores * seen, keypoints=keypoints)
    return replace(whole, detections=found, fit_sigma=np.where(seen, whole.fit_sigma, np.nan))


def _rows(people: Estimate, rows: Sequence[int] | np.ndarray) -> Estimate:
    rows = np.asarray(rows)
    return replace(
        people,
        detections=people.detections.take(rows),
        predicted=SMPLParameters(*(array[rows] for array in people.predicted)),
        bodies=SMPLParameters(*(array[rows] for array in people.bodies)),
        fit_sigma=people.fit_sigma[rows],
    )


def _joined(people: list[Estimate]) -> Estimate:
    """The people of several estimates of one kind as those of one."""
    first = people[0]
    found = [each.detections for each in people]
    columns = {
        name: None if getattr(found[0], name) is None else np.concatenate([getattr(each, name) for each in found])
        for name in ("boxes", "scores", "keypoints")
    }
    return replace(
        first,
        detections=replace(first.detections, ids=None, **columns),
        predicted=SMPLParameters(*map(np.concatenate, zip(*(each.predicted for each in people), strict=True))),
        bodies=SMPLParameters(*map(np.concatenate, zip(*(each.bodies for each in people), strict=True))),
        fit_sigma=np.concatenate([each.fit_sigma for each in people]),
    )


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
