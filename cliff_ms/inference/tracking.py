"""Who is who in a video: the people of one frame matched to those of the frames before.

Every person seen has a box, joints where keypoints are known, and a place in the camera's frame, which the body gave.
Each is compared with where a track's person should be by now, at constant velocity, as a likeness from 0 to 1:

    box       intersection over union
    joints    object keypoint similarity, exp(-d^2 / (2 s^2 k^2)), k 1.5 times COCO's and s^2 the person's area
    place     exp(-|d / u|^2 / 2), d the distance to the right, downwards and in ln z, u how far these are usually off

The assignment with the largest sum of their means is taken (Kuhn and Munkres, by SciPy). That people stand at different
depths is what boxes and joints do not tell when one walks past another.

Trackers that are published as packages (ByteTrack and its kin) compare boxes only, and come with PyTorch or a Cython
extension; what is here is one page.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from cliff_ms.keypoints import COCO17

MAX_GAP = 0.5  # s that a person may be out of sight
# Chosen on other videos of scripts/tracking_study.py than its table reports.
_LEAST = 0.03  # likeness of a pair
_PLACE = np.array([0.4, 0.4, 0.15])  # u: m, m, and of ln z
_MOMENTUM = 0.85  # of a velocity, from one frame to the next
# Deviations of COCO's joints as labelled, in roots of a person's area (cocodataset.org, keypoint evaluation).
_COCO_SIGMAS = dict.fromkeys(("nose", "eye"), 0.0255) | {
    "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107, "knee": 0.087, "ankle": 0.089,
}  # fmt: skip
_OTHER_SIGMA = 0.079
_LOOSER = 1.5  # than labels: people are not quite where they are expected
_AREA_OF_BOX = 0.53  # a person's share of the box, as COCO's evaluation has it for boxes without a mask


class Sighting(NamedTuple):
    """The people of one frame.

    Attributes:
        boxes: (P, 4) x1, y1, x2, y2 in px.
        places: (P, 3) m, of the pelvis in the camera's frame.
        keypoints: (P, K, 3), x and y in px and confidence, or None.
        names: The K joints.
        ids: (P,) numbers that somebody has given them, -1 where nobody has; or None.
    """

    boxes: np.ndarray
    places: np.ndarray
    keypoints: np.ndarray | None = None
    names: tuple[str, ...] = COCO17
    ids: np.ndarray | None = None


@dataclass
class _Track:
    """Someone who was seen: what of her, when, and how fast it moved, per second, NaN where nobody knows."""

    number: int
    time: float
    state: dict[str, np.ndarray]
    velocity: dict[str, np.ndarray]

    def at(self, time: float) -> dict[str, np.ndarray]:
        """Where she should be."""
        elapsed = time - self.time
        return {name: value + elapsed * np.nan_to_num(self.velocity[name]) for name, value in self.state.items()}

    def see(self, time: float, state: dict[str, np.ndarray]) -> None:
        """She was found again."""
        elapsed = time - self.time
        for name, value in state.items():
            old, new = self.velocity[name], (value - self.state[name]) / elapsed
            mixed = _MOMENTUM * old + (1 - _MOMENTUM) * new
            # What was never seen twice has no velocity, and a joint that is missing keeps what it had.
            self.velocity[name] = np.where(np.isnan(old), new, np.where(np.isnan(new), old, mixed))
        self.time, self.state = time, state


class Tracker:
    """Gives the people of a video numbers, frame by frame.

    Args:
        taken: Numbers that come with people in some frame, see `Sighting.ids`; nobody else gets them.
        max_gap: s after which somebody who comes back is somebody new.
    """

    def __init__(self, taken: Iterable[int] = (), max_gap: float = MAX_GAP) -> None:
        self._taken = set(taken)
        self._max_gap = max_gap
        self._next = 0
        self._tracks: list[_Track] = []

    def __call__(self, time: float, people: Sighting) -> np.ndarray:
        """Number the people of the next frame.

        Args:
            time: s, later than that of the frame before.
            people: P of them.

        Returns:
            (P,) int64: a number of their own, or who they were before; new people count from 0 on.
        """
        self._tracks = [track for track in self._tracks if time - track.time <= self._max_gap]
        states = _states(people)
        given = np.full(len(states), -1) if people.ids is None else people.ids
        numbers = given.astype(np.int64)
        by_number = {track.number: track for track in self._tracks}
        found = {row: by_number[number] for row, number in enumerate(numbers.tolist()) if number in by_number}
        rows = np.flatnonzero(numbers < 0)
        tracks = [track for track in self._tracks if track.number not in self._taken]
        if len(rows) and tracks:
            likeness = _likeness([track.at(time) for track in tracks], [states[row] for row in rows], people.names)
            for which, row in zip(*linear_sum_assignment(-likeness), strict=True):
                if likeness[which, row] >= _LEAST:
                    found[int(rows[row])] = tracks[which]
        for row, state in enumerate(states):
            if row in found:
                found[row].see(time, state)
                numbers[row] = found[row].number
            else:
                if numbers[row] < 0:
                    numbers[row] = self._new_number()
                unknown = {name: np.full_like(value, np.nan) for name, value in state.items()}
                self._tracks.append(_Track(int(numbers[row]), time, state, unknown))
        return numbers

    def _new_number(self) -> int:
        while self._next in self._taken:
            self._next += 1
        self._next += 1
        return self._next - 1


def _states(people: Sighting) -> list[dict[str, np.ndarray]]:
    """What is followed of each person: box (4,) px, place (3,) with ln z, joints (K, 2) px, NaN where missing."""
    places = np.concatenate([people.places[:, :2], np.log(np.maximum(people.places[:, 2:], 0.1))], 1)
    states = [{"box": box, "place": place} for box, place in zip(people.boxes, places, strict=True)]
    if people.keypoints is not None:
        joints = np.where(people.keypoints[..., 2:] > 0, people.keypoints[..., :2], np.nan)
        for state, own in zip(states, joints, strict=True):
            state["joints"] = own
    return states


def _likeness(
    expected: list[dict[str, np.ndarray]], seen: list[dict[str, np.ndarray]], names: tuple[str, ...]
) -> np.ndarray:
    """The likeness (T, P) of T expected and P seen people."""
    expect, see = (
        {name: np.stack([state[name] for state in states]) for name in ("box", "place")} for states in (expected, seen)
    )
    parts = [box_iou(expect["box"], see["box"])]
    off = (expect["place"][:, None] - see["place"]) / _PLACE
    parts.append(np.exp(-(off**2).sum(-1) / 2))
    if all("joints" in state for state in (*expected, *seen)):
        first, second = (np.stack([state["joints"] for state in states]) for states in (expected, seen))
        similarity = _joint_similarity(first, second, see["box"], names)
        parts.append(np.where(np.isnan(similarity), np.mean(parts, 0), similarity))
    return np.mean(parts, 0)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes, (T, 4) and (P, 4) -> (T, P)."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    both = (high - low).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1) for boxes in (first, second)]
    return both / np.maximum(areas[0][:, None] + areas[1] - both, 1e-9)


def _joint_similarity(first: np.ndarray, second: np.ndarray, boxes: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """COCO's similarity (T, P) of joints (T, K, 2) and (P, K, 2) px, the latter in boxes (P, 4); NaN without any."""
    sigma = np.array([_COCO_SIGMAS.get(name.rpartition("_")[2], _OTHER_SIGMA) for name in names])
    area = _AREA_OF_BOX * (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    scaled = ((first[:, None] - second) ** 2).sum(-1) / (2 * area[:, None] * (_LOOSER * 2 * sigma) ** 2)
    known = ~np.isnan(scaled)
    total = np.where(known, np.exp(-np.nan_to_num(scaled)), 0).sum(-1)
    return np.where(known.any(-1), total / known.sum(-1).clip(1), np.nan)
