"""Batches by name, and of one size whatever the number of people."""

import numpy as np
import pytest

from cliff_ms.body.smpl import SMPL
from cliff_ms.data.batching import Batch, collate, filled_batches, pose_in_batches
from tests.toys.body import toy_body


def test_samples_are_stacked_and_the_network_reads_the_first_five_fields():
    samples = [Batch(*(np.float32([10 * k + row]) for k in range(10))) for row in range(3)]
    batch = collate(samples)
    assert isinstance(batch, Batch) and all(array.shape == (3, 1) for array in batch)
    assert batch.has_smpl[:, 0].tolist() == [90, 91, 92]
    read = (batch.inputs, batch.center, batch.bbox_size, batch.img_hw, batch.focal_length)
    assert all(a is b for a, b in zip(batch.network_inputs, read, strict=True))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (2, [([0, 1, 1], 2)]), (3, [([0, 1, 2], 3)]), (7, [([0, 1, 2], 3), ([3, 4, 5], 3), ([6, 6, 6], 1)])],
)
def test_the_last_batch_is_filled_up_with_the_last_row(count, expected):
    assert [(rows.tolist(), kept) for rows, kept in filled_batches(count, 3)] == expected


def test_posing_in_batches_is_posing_one_by_one(graph_mode):
    rng = np.random.default_rng(0)
    smpl = SMPL(toy_body(), joint_regressor=rng.dirichlet(np.ones(97), 17))
    betas, rotmats = rng.standard_normal((5, 10)), np.tile(np.eye(3), (5, 24, 1, 1))
    vertices, joints = pose_in_batches(smpl, betas, rotmats, 2)
    assert vertices.shape == (5, 97, 3) and joints.shape == (5, 45 + 17, 3)
    alone = [pose_in_batches(smpl, betas[k : k + 1], rotmats[k : k + 1], 2) for k in range(5)]
    np.testing.assert_array_equal(vertices, np.concatenate([v for v, _ in alone]))
    np.testing.assert_array_equal(joints, np.concatenate([j for _, j in alone]))
    nobody = pose_in_batches(smpl, betas[:0], rotmats[:0], 2)
    assert [array.shape for array in nobody] == [(0, 97, 3), (0, 62, 3)]
