"""Rendered people and what a detector made of them find each other."""

import numpy as np

from cliff_ms.body.files import load_body
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.detections import Detections
from cliff_ms.keypoints import COCO17, convert_keypoints, flip_permutation
from cliff_ms.synthetic.detected import as_detected
from cliff_ms.synthetic.scene import SceneMaker

COUNT = 5


def five_people():
    """People who stand 300 px apart."""
    maker = SceneMaker(load_body(), [])
    people = [maker.make((k,))[1].take(slice(1)) for k in range(COUNT)]
    return [
        Annotations.of(
            image_names=one.image_names,
            center=one.center,
            size=one.size,
            keypoints2d=one.keypoints2d * np.array([100, 100, 1]) / [*one.size.repeat(2), 1] + [300 * k, 0, 0],
        )
        for k, one in enumerate(people)
    ]


def test_people_get_their_own_joints_even_if_mixed_up():
    people = five_people()
    joined = Annotations.of(
        image_names=np.full(COUNT, "a.jpg"),
        center=np.zeros((COUNT, 2)),
        size=np.full(COUNT, 100.0),
        keypoints2d=np.concatenate([one.keypoints2d for one in people]),
    )
    truth = convert_keypoints(joined.keypoints2d, "spin24", "coco17")
    found = truth[[3, 1, 4, 0]] + np.random.default_rng(0).normal(0, 2, (4, 17, 3)) * (1, 1, 0)
    found[1] = found[1, flip_permutation(COCO17)]
    found[2, :, 0] += 60  # of nobody: more than half of the size away
    detections = Detections(np.zeros((4, 4)), np.ones(4), found.astype(np.float32), "coco17")
    rows, seen = as_detected(joined, detections)
    assert rows.tolist() == [0, 1, 3]
    np.testing.assert_array_equal(seen.input_keypoints, found[[3, 1, 0]].astype(np.float32))
    np.testing.assert_array_equal(seen.keypoints2d, joined.keypoints2d[rows])
    visible = seen.input_keypoints[..., 2] > 0
    away = np.abs(seen.input_keypoints[..., :2] - seen.center[:, None]) / seen.size[:, None, None]
    assert away[visible].max(0).tolist() <= [0.375, 0.5]  # the crops hold them


def test_nobody_found_is_nobody():
    nobody = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 17, 3), np.float32), "coco17")
    rows, seen = as_detected(five_people()[0], nobody)
    assert len(rows) == len(seen) == 0
