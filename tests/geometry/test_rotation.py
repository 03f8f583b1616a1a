"""Rotations: the official numbers, the layout, round trips, degenerate input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mindspore import Tensor, nn, ops

from cliff_ms import rotation
from tests.paths import GOLDEN

pytestmark = pytest.mark.usefixtures("graph_mode")


def rotations(count, seed=0):
    return Rotation.random(count, random_state=seed).as_matrix()


def from_6d(pose6d):
    return rotation.rot6d_to_rotmat(Tensor(np.asarray(pose6d, np.float32))).asnumpy()


def test_rot6d_is_the_officials():
    golden = np.load(GOLDEN / "rot6d.npz")
    np.testing.assert_allclose(from_6d(golden["rot6d_in"])[:, 0], golden["rot6d_out"], atol=1e-6)


def test_layout_is_two_columns_of_a_3x2_matrix():
    """Six numbers that are orthonormal as columns of (3, 2), and not as rows of (2, 3)."""
    matrix = rotations(1)[0]
    np.testing.assert_allclose(from_6d([[*matrix[0, :2], *matrix[1, :2], *matrix[2, :2]]])[0, 0], matrix, atol=1e-6)


def test_rot6d_round_trip_keeps_the_order_of_joints():
    matrices = rotations(48).reshape(2, 24, 3, 3)
    pose6d = rotation.rotmat_to_rot6d(matrices).reshape(2, 144)
    np.testing.assert_allclose(from_6d(pose6d), matrices, atol=1e-6)


def test_rot6d_is_a_rotation_for_any_input():
    matrices = from_6d(np.random.default_rng(1).standard_normal((100, 6)) * 3)[:, 0]
    np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), np.tile(np.eye(3), (100, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-5)


def test_axis_angle_round_trip():
    vectors = Rotation.from_matrix(rotations(60)).as_rotvec().reshape(5, 12, 3)
    matrices = rotation.axis_angle_to_rotmat(Tensor(vectors.astype(np.float32))).asnumpy()
    assert matrices.shape == (5, 12, 3, 3)
    np.testing.assert_allclose(
        matrices.reshape(-1, 3, 3), Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix(), atol=1e-6
    )
    np.testing.assert_allclose(rotation.rotmat_to_axis_angle(matrices), vectors, atol=2e-5)


class Both(nn.Cell):
    def construct(self, pose6d, axis_angle):
        return rotation.rot6d_to_rotmat(pose6d), rotation.axis_angle_to_rotmat(axis_angle)


def test_graph_equals_arrays_which_keep_their_precision():
    rng = np.random.default_rng(2)
    arrays = rng.standard_normal((3, 144)), rng.standard_normal((3, 24, 3))
    exact = Both().construct(*arrays)
    in_graph = Both()(*(Tensor(a.astype(np.float32)) for a in arrays))
    for array, tensor in zip(exact, in_graph, strict=True):
        assert array.dtype == np.float64
        np.testing.assert_allclose(tensor.asnumpy(), array, atol=1e-5)
    identity = np.broadcast_to(np.eye(3), exact[0].shape)
    np.testing.assert_allclose(exact[0] @ exact[0].swapaxes(-1, -2), identity, atol=1e-12)
    expected = Rotation.from_rotvec(arrays[1].reshape(-1, 3)).as_matrix().reshape(3, 24, 3, 3)
    np.testing.assert_allclose(exact[1], expected, atol=1e-7)  # the shift by 1e-8
    assert rotation.rot6d_to_rotmat(arrays[0].astype(np.float32)).dtype == np.float32


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_matrix_to_axis_angle_and_back(vector):
    matrix = Rotation.from_rotvec(vector).as_matrix()
    again = Rotation.from_rotvec(rotation.rotmat_to_axis_angle(matrix)).as_matrix()
    np.testing.assert_allclose(again, matrix, atol=1e-9)


class Gradients(nn.Cell):
    def construct(self, pose6d, axis_angle):
        weight = Tensor(np.arange(9, dtype=np.float32).reshape(3, 3))
        g6d = ops.grad(lambda x: (rotation.rot6d_to_rotmat(x) * weight).sum())(pose6d)
        return g6d, ops.grad(lambda x: (rotation.axis_angle_to_rotmat(x) * weight).sum())(axis_angle)


def test_gradients_are_finite_at_degenerate_input():
    degenerate = np.array([[0] * 6, [1, 1, 0, 0, 0, 0], [1e-20] * 6, [1e6, 0, 0, 1e6, 0, 0]], np.float32)
    g6d, g_axis_angle = Gradients()(Tensor(degenerate), Tensor(np.zeros((2, 3), np.float32)))
    assert np.isfinite(g6d.asnumpy()).all()
    # d R / d r at 0 is the skew matrix of r, so the gradient is known.
    np.testing.assert_allclose(g_axis_angle.asnumpy(), np.tile([7 - 5, 2 - 6, 3 - 1], (2, 1)), atol=1e-4)
