"""The SMPL Cell against a float64 reference, smplx, finite differences, and itself."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import mindspore as ms
from mindspore import Tensor, nn, ops

from cliff_ms import SMPL, load_body
from tests.toys.body import toy_body
from tests.toys.reference import reference_smpl

pytestmark = pytest.mark.usefixtures("graph_mode")
SMPLX_EXTRA = (
    "nose reye leye rear lear LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel "
    "lthumb lindex lmiddle lring lpinky rthumb rindex rmiddle rring rpinky"
).split()


def pose_and_shape(batch):
    rng = np.random.default_rng(0)
    betas, axis_angle = rng.standard_normal((batch, 10)), 0.7 * rng.standard_normal((batch, 72))
    return betas.astype(np.float32), axis_angle.astype(np.float32)


def to_rotmats(axis_angle):
    matrices = Rotation.from_rotvec(axis_angle.reshape(-1, 3)).as_matrix()
    return matrices.reshape(-1, 24, 3, 3).astype(np.float32)


def run(smpl, betas, pose):
    return [t.asnumpy() for t in smpl(Tensor(betas), Tensor(pose))]


@pytest.fixture(scope="module", params=["toy", "bundled"])
def body(request):
    return toy_body() if request.param == "toy" else load_body()


def test_equals_the_float64_reference_with_either_pose_input(body):
    betas, axis_angle = pose_and_shape(2)
    rotmats = to_rotmats(axis_angle)
    smpl = SMPL(body)
    from_matrices, from_vectors = run(smpl, betas, rotmats), run(smpl, betas, axis_angle)
    for k in range(2):
        vertices, joints = reference_smpl(body, betas[k].astype(float), rotmats[k].astype(float))
        for got in (from_matrices, from_vectors):
            np.testing.assert_allclose(got[0][k], vertices, atol=1e-5)
            np.testing.assert_allclose(got[1][k], joints, atol=1e-5)


def test_any_regressor_and_ten_betas_of_a_body_that_has_more():
    body = toy_body(betas=16)
    regressor = np.random.default_rng(1).dirichlet(np.ones(body.vertex_count), 5).astype(np.float32)
    betas, axis_angle = pose_and_shape(2)
    vertices, joints = run(SMPL(body, joint_regressor=regressor), betas, axis_angle)
    expected, _ = reference_smpl(body, betas[1].astype(float), to_rotmats(axis_angle)[1].astype(float))
    np.testing.assert_allclose(vertices[1], expected, atol=1e-5)
    assert joints.shape == (2, 50, 3)
    np.testing.assert_allclose(joints[:, 45:], regressor @ vertices, atol=1e-5)


def test_zero_pose_is_template_plus_shape(body):
    betas, _ = pose_and_shape(1)
    vertices, _ = run(SMPL(body), betas, np.zeros((1, 72), np.float32))
    np.testing.assert_allclose(vertices[0], body.v_template + body.shapedirs[:, :, :10] @ betas[0], atol=1e-5)


def test_root_rotation_turns_the_body_about_the_pelvis(body):
    betas, axis_angle = pose_and_shape(1)
    rotmats = to_rotmats(axis_angle)
    turned = rotmats.copy()
    turn = Rotation.from_rotvec([0.3, 1.1, -0.4]).as_matrix().astype(np.float32)
    turned[:, 0] = turn @ rotmats[:, 0]
    smpl = SMPL(body)
    vertices, joints = run(smpl, betas, rotmats)
    pelvis = joints[:, :1]
    np.testing.assert_allclose(run(smpl, betas, turned)[0], (vertices - pelvis) @ turn.T + pelvis, atol=1e-5)


class Objective(nn.Cell):
    """A scalar in which every vertex and joint counts differently."""

    def __init__(self, body):
        super().__init__()
        self.smpl = SMPL(body)
        rng = np.random.default_rng(5)
        self.on_vertices = Tensor(rng.standard_normal((body.vertex_count, 3)).astype(np.float32))
        self.on_joints = Tensor(rng.standard_normal((45, 3)).astype(np.float32))

    def construct(self, betas, pose):
        vertices, joints = self.smpl(betas, pose)
        return (vertices * self.on_vertices).sum() + (joints * self.on_joints).sum()


class Gradients(nn.Cell):
    def __init__(self, body):
        super().__init__()
        self.objective = Objective(body)

    def construct(self, betas, pose):
        return ops.grad(self.objective, (0, 1))(betas, pose)


def test_gradients_equal_finite_differences_of_the_reference():
    body = toy_body()
    net = Gradients(body)
    betas, axis_angle = pose_and_shape(1)

    def objective(x):
        vertices, joints = reference_smpl(body, x[:10], Rotation.from_rotvec(x[10:].reshape(24, 3)).as_matrix())
        weight_v, weight_j = net.objective.on_vertices.asnumpy(), net.objective.on_joints.asnumpy()
        return (vertices * weight_v).sum() + (joints * weight_j).sum()

    x = np.concatenate([betas[0], axis_angle[0]]).astype(float)
    steps = 1e-6 * np.eye(len(x))
    expected = np.array([(objective(x + d) - objective(x - d)) / 2e-6 for d in steps])
    got = np.concatenate([g.asnumpy()[0] for g in net(Tensor(betas), Tensor(axis_angle))])
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_gradients_are_finite_at_zero_rotation():
    gradients = Gradients(toy_body())(Tensor(np.zeros((1, 10), np.float32)), Tensor(np.zeros((1, 72), np.float32)))
    assert all(np.isfinite(g.asnumpy()).all() and g.asnumpy().any() for g in gradients)


def test_pynative_equals_graph():
    body = toy_body()
    betas, axis_angle = pose_and_shape(2)
    graph = run(SMPL(body), betas, axis_angle)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        eager = run(SMPL(body), betas, axis_angle)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    for a, b in zip(graph, eager, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_arrays_of_the_body_are_no_parameters():
    assert not list(SMPL(toy_body()).get_parameters())


def test_wrong_shapes_are_refused():
    smpl = SMPL(toy_body())
    with pytest.raises(ValueError, match=r"'betas' must have shape \(B, 10\)"):
        smpl(ops.zeros((1, 16)), ops.zeros((1, 72)))
    with pytest.raises(ValueError, match="'pose' must have shape"):
        smpl(ops.zeros((1, 10)), ops.zeros((1, 23, 3, 3)))
    with pytest.raises(ValueError, match="must have 10 betas, but has 8"):
        SMPL(toy_body(betas=8))
    with pytest.raises(ValueError, match="'joint_regressor' must have shape"):
        SMPL(toy_body(), joint_regressor=np.zeros((17, 6890)))


@pytest.mark.slow
@pytest.mark.torch
def test_equals_smplx_in_values_and_gradients(body):
    torch, smplx = pytest.importorskip("torch"), pytest.importorskip("smplx")
    from smplx.utils import Struct

    kintree = np.array([[4294967295, *body.parents[1:]], range(24)], np.uint32)
    arrays = dict(
        v_template=body.v_template, shapedirs=body.shapedirs, posedirs=body.posedirs, weights=body.weights,
        J_regressor=body.joint_regressor, kintree_table=kintree, f=body.faces,
    )  # fmt: skip
    ids = dict(zip(SMPLX_EXTRA, body.extra_vertex_ids.tolist(), strict=True))
    theirs = smplx.SMPL("", data_struct=Struct(**arrays), vertex_ids=ids)
    betas, axis_angle = pose_and_shape(3)
    net = Gradients(body)
    their_betas, their_pose = (torch.tensor(a, requires_grad=True) for a in (betas, axis_angle))
    output = theirs(betas=their_betas, body_pose=their_pose[:, 3:], global_orient=their_pose[:, :3])

    vertices, joints = run(net.objective.smpl, betas, axis_angle)
    np.testing.assert_allclose(vertices, output.vertices.detach(), atol=1e-5)
    np.testing.assert_allclose(joints, output.joints.detach(), atol=1e-5)

    weight_v, weight_j = (torch.tensor(w.asnumpy()) for w in (net.objective.on_vertices, net.objective.on_joints))
    ((output.vertices * weight_v).sum() + (output.joints * weight_j).sum()).backward()
    ours = net(Tensor(betas), Tensor(axis_angle))
    for got, expected in zip(ours, (their_betas.grad, their_pose.grad), strict=True):
        np.testing.assert_allclose(got.asnumpy(), expected, atol=1e-4 * float(expected.abs().max()))
