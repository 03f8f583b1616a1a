"""People keep their numbers through crossings, gaps and shuffled rows."""

import numpy as np
import pytest

from cliff_ms.inference.tracking import MAX_GAP, Sighting, Tracker
from cliff_ms.keypoints import COCO17

FPS = 30.0
FOCAL, CENTRE = 1000.0, 640.0


def sighting(places, order=None, ids=None, with_keypoints=True):
    """People 1.7 m tall at places (P, 3) m, their joints on a line from head to feet that leans a little."""
    places = np.asarray(places, np.float64).reshape(-1, 3)
    rows = np.arange(len(places)) if order is None else np.asarray(order)
    heights = np.linspace(-0.85, 0.85, len(COCO17))
    points = places[:, None] + np.stack([0.1 * heights, heights, 0 * heights], -1)
    pixels = points[..., :2] / points[..., 2:] * FOCAL + CENTRE
    low, high = pixels.min(1) - 20, pixels.max(1) + 20
    keypoints = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], -1)
    boxes = np.concatenate([low, high], -1)
    return Sighting(boxes[rows], places[rows], keypoints[rows] if with_keypoints else None, COCO17, ids)


def crossing(frame):
    """Two people walk past each other, half a metre apart in depth, at 1.5 m/s."""
    along = -1.5 + 1.5 * frame / FPS
    return [[along, 0, 4.0], [-along, 0, 4.6]]


@pytest.mark.parametrize("with_keypoints", [True, False])
def test_numbers_follow_people_past_each_other_whatever_the_order_of_rows(with_keypoints):
    rng, tracker = np.random.default_rng(0), Tracker()
    for frame in range(60):
        order = rng.permutation(2) if frame else np.arange(2)
        numbers = tracker(frame / FPS, sighting(crossing(frame), order, with_keypoints=with_keypoints))
        np.testing.assert_array_equal(numbers, order)


def test_somebody_hidden_behind_another_comes_back_as_who_she_was():
    tracker = Tracker()
    for frame in range(60):
        hidden = 25 <= frame < 36
        places = crossing(frame)[: 1 if hidden else 2]
        assert tracker(frame / FPS, sighting(places)).tolist() == ([0] if hidden else [0, 1])


@pytest.mark.parametrize(("gap", "expected"), [(0.8 * MAX_GAP, 0), (1.2 * MAX_GAP, 1)])
def test_who_was_away_for_too_long_is_somebody_new(gap, expected):
    tracker = Tracker()
    tracker(0.0, sighting([[0, 0, 4]]))
    assert tracker(0.1, sighting([])).tolist() == []
    assert tracker(gap, sighting([[0.05, 0, 4]])).tolist() == [expected]


def test_numbers_of_the_file_stay_and_nobody_else_gets_them():
    tracker = Tracker(taken=[0, 7])
    for frame in range(40):
        ids = np.array([7, -1] if frame < 20 else [7, 0])
        numbers = tracker(frame / FPS, sighting(crossing(frame), ids=ids)).tolist()
        assert numbers == ([7, 1] if frame < 20 else [7, 0])


def test_frames_far_apart_and_at_uneven_times():
    rng, tracker, time = np.random.default_rng(1), Tracker(), 0.0
    while time < 2:
        assert tracker(time, sighting(crossing(time * FPS))).tolist() == [0, 1]
        time += rng.uniform(0.02, 0.12)


@pytest.mark.parametrize("seed", range(20))
def test_every_number_is_one_persons_in_a_frame(seed):
    rng, tracker = np.random.default_rng(seed), Tracker(taken=[2])
    for frame in range(30):
        places = rng.normal((0, 0, 5), (1.5, 0.3, 1), (rng.integers(5), 3)).clip((-3, -1, 2), (3, 1, 9))
        numbers = tracker(frame / FPS, sighting(places))
        assert len(set(numbers.tolist())) == len(places) and 2 not in numbers
