"""Rows that show one person in frames that follow each other, whatever order they are in."""

import numpy as np

from cliff_ms.data.annotations import Annotations
from cliff_ms.evaluation.sequences import frame_runs


def people(rows):
    """Annotations of (image, person, gender); a person is a shape."""
    names, persons, genders = zip(*rows, strict=True)
    shapes = np.random.default_rng(0).standard_normal((9, 10))
    numbers = {"center": np.zeros((len(rows), 2)), "size": np.ones(len(rows)), "betas": shapes[list(persons)]}
    return Annotations.of(image_names=np.array(names), gender=np.array(genders), **numbers)


def found(rows):
    return sorted(run.tolist() for run in frame_runs(people(rows)))


def frames(sequence, numbers, person=0, gender="m"):
    return [(f"imageFiles/{sequence}/image_{k:05d}.jpg", person, gender) for k in numbers]


def test_people_come_one_after_the_other_or_mixed():
    rows = frames("a_00", range(4)) + frames("a_00", range(2, 6), person=1) + frames("b_00", range(3))
    assert found(rows) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    order = np.random.default_rng(1).permutation(len(rows))
    mixed = found([rows[k] for k in order])
    assert sorted(order[run].tolist() for run in mixed) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_what_is_missing_ends_a_run():
    assert found(frames("a_00", [0, 1, 3, 4, 5, 7, 8, 9, 10])) == [[2, 3, 4], [5, 6, 7, 8]]
    assert found(frames("a_00", [99998, 99999]) + frames("b_00", [100000])) == []
    assert found(frames("a_00", range(0, 50, 5))) == []  # every fifth frame is kept: no frames in succession
    assert found([("portrait.jpg", 0, "m"), ("S9_Directions.60457274.jpg", 0, "m")]) == []


def test_two_of_one_shape_are_told_apart_by_gender_or_not_at_all():
    twins = frames("a_00", range(3)) + frames("a_00", range(3), gender="f") + frames("b_00", range(3))
    assert found(twins) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    alike = frames("a_00", range(3)) + frames("a_00", range(3)) + frames("b_00", range(3))
    assert found(alike) == [[6, 7, 8]]
