"""CLIFF as a whole: the official outputs, its switches, shared weights, the keypoint encoder, the full frame."""

import numpy as np
import pytest

from mindspore import Tensor, nn, ops

from cliff_ms import CLIFF, SMPL, camera
from cliff_ms.config import ModelConfig
from cliff_ms.models.cliff import FullFrameCLIFF, build_model
from cliff_ms.models.keypoint_encoder import KeypointEncoder
from cliff_ms.models.regressor import Regressor, standing_mean_params
from cliff_ms.rotation import rot6d_to_rotmat
from cliff_ms.weights.checkpoint import load_into
from cliff_ms.weights.pytorch import to_mindspore
from tests.golden import weights
from tests.paths import GOLDEN
from tests.toys.body import toy_body

pytestmark = pytest.mark.usefixtures("graph_mode")
RNG = np.random.default_rng(0)


@pytest.mark.slow
@pytest.mark.torch
def test_outputs_of_a_converted_checkpoint_are_the_officials(tmp_path):
    torch = pytest.importorskip("torch")
    golden = np.load(GOLDEN / "official_res50_out.npz")
    state = {f"module.{k}": torch.tensor(v) for k, v in weights.state_dict("res50").items()}
    torch.save({"model": state}, tmp_path / "official.pt")
    arrays, meta = to_mindspore(tmp_path / "official.pt")
    net = build_model(meta.model)
    load_into(net, arrays, "official.pt")
    net.set_train(False)
    rng = np.random.Generator(np.random.PCG64(7))
    inputs = [Tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((2, 3, 256, 192), (2, 3))]
    for name, output in zip(("pred_rotmat", "pred_betas", "pred_cam_crop"), net(*inputs), strict=True):
        np.testing.assert_allclose(output.asnumpy(), golden[name], atol=1e-5)


def reference_regressor(arrays, feature, relu, iterations=3):
    """The loop of HMR in float64, without dropout, or with a ReLU in its place."""
    pose, betas, cam = (np.tile(arrays[f"init_{k}"], (len(feature), 1)) for k in ("pose", "shape", "cam"))
    for _ in range(iterations):
        hidden = np.concatenate([feature, pose, betas, cam], 1)
        for layer in ("fc1", "fc2"):
            hidden = hidden @ arrays[f"{layer}.weight"].T + arrays[f"{layer}.bias"]
            hidden = hidden.clip(0) if relu else hidden
        pose, betas, cam = (
            x + hidden @ arrays[f"{layer}.weight"].T + arrays[f"{layer}.bias"]
            for x, layer in ((pose, "decpose"), (betas, "decshape"), (cam, "deccam"))
        )
    return pose, betas, cam


@pytest.mark.parametrize(("location_input", "relu"), [(True, False), (False, False), (True, True)])
def test_regressor_equals_the_reference_and_hmr_ignores_the_location(location_input, relu):
    net = Regressor(32, location_input, relu=relu)
    net.set_train(False)
    arrays = {name: p.asnumpy().astype(float) for name, p in net.parameters_and_names()}
    feature, bbox = RNG.standard_normal((2, 32)), RNG.standard_normal((2, 3))
    fed = np.concatenate([feature, bbox], 1) if location_input else feature
    got = [t.asnumpy() for t in net(*(Tensor(a.astype(np.float32)) for a in (feature, bbox)))]
    for a, b in zip(got, reference_regressor(arrays, fed, relu), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    moved = net(*(Tensor(a.astype(np.float32)) for a in (feature, bbox + 1)))[0].asnumpy()
    assert np.array_equal(moved, got[0]) != location_input


def test_mean_person_stands_upright_in_the_cameras_frame():
    pose6d = Tensor(standing_mean_params().pose6d[None].astype(np.float32))
    vertices, joints = SMPL(toy_body())(ops.zeros((1, 10)), rot6d_to_rotmat(pose6d))
    root = rot6d_to_rotmat(pose6d).asnumpy()[0, 0]
    np.testing.assert_allclose(root, np.diag([1, -1, -1]), atol=1e-7)
    assert np.isfinite(vertices.asnumpy()).all() and np.isfinite(joints.asnumpy()).all()


def test_keypoint_encoder_does_not_read_missing_joints():
    net = KeypointEncoder(17, out_channels=64)
    net.set_train(False)
    keypoints = RNG.standard_normal((2, 17, 3)).astype(np.float32)
    keypoints[:, :, 2] = 0.9
    keypoints[:, 3, 2] = 0
    changed = keypoints.copy()
    changed[:, 3, :2] = np.nan, 1e9
    location = Tensor(RNG.standard_normal((2, 3)).astype(np.float32))
    outputs = [net(Tensor(k), location).asnumpy() for k in (keypoints, changed)]
    assert np.isfinite(outputs[0]).all()
    np.testing.assert_array_equal(*outputs)
    changed[:, 4, 0] += 0.1
    assert not np.array_equal(net(Tensor(changed), location).asnumpy(), outputs[0])
    with pytest.raises(ValueError, match=r"\(B, 17, 3\)"):
        net(Tensor(keypoints[:, :16]), location)


@pytest.mark.parametrize("location_input", [True, False])
def test_a_keypoint_network_reads_the_location_as_cliff_and_not_as_hmr(location_input):
    net = CLIFF("keypoints", location_input, width=0.0625)
    net.set_train(False)
    keypoints = Tensor(RNG.random((2, 17, 3)).astype(np.float32))
    outputs = [net(keypoints, Tensor(np.full((2, 3), x, np.float32)))[0].asnumpy() for x in (0.1, 0.4)]
    assert np.array_equal(*outputs) != location_input


class Loss(nn.Cell):
    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, keypoints, bbox_info):
        rotmat, betas, cam = self.net(keypoints, bbox_info)
        weight = Tensor(np.arange(9, dtype=np.float32).reshape(3, 3))
        return (rotmat * weight).sum() + betas.sum() + cam.sum()


def test_every_trainable_parameter_gets_a_gradient_and_the_mean_none():
    net = CLIFF("keypoints", joint_set="openpose25")
    keypoints = Tensor(RNG.random((4, 25, 3)).astype(np.float32))
    bbox = Tensor(RNG.standard_normal((4, 3)).astype(np.float32))
    trainable = net.trainable_params()
    gradients = ops.GradOperation(get_by_list=True)(Loss(net), trainable)(keypoints, bbox)
    for parameter, gradient in zip(trainable, gradients, strict=True):
        assert np.isfinite(gradient.asnumpy()).all() and gradient.asnumpy().any(), parameter.name
    frozen = {p.name for p in net.get_parameters()} - {p.name for p in trainable}
    assert {f"regressor.init_{k}" for k in ("pose", "shape", "cam")} <= frozen


@pytest.mark.slow
def test_full_frame_network_is_camera_network_camera():
    config = ModelConfig(encoder="keypoints", bbox_norm="released")
    net = FullFrameCLIFF(build_model(config), config.bbox_norm, SMPL(toy_body()))
    net.set_train(False)
    keypoints = RNG.random((2, 17, 3)).astype(np.float32)
    view = (np.array([[300, 200], [50, 400]]), np.array([250, 180]), np.array([[480, 640]] * 2), np.array([800, 800]))
    view = tuple(a.astype(np.float32) for a in view)
    rotmat, betas, cam, full, vertices, joints = (t.asnumpy() for t in net(*(Tensor(a) for a in (keypoints, *view))))
    expected = net.cliff(Tensor(keypoints), Tensor(camera.bbox_info(*view, "released")))
    np.testing.assert_allclose(rotmat, expected[0].asnumpy(), atol=1e-6)
    np.testing.assert_allclose(full, camera.full_translation(cam, *view), rtol=1e-5)
    again = net.smpl(Tensor(betas), Tensor(rotmat))
    np.testing.assert_allclose(vertices, again[0].asnumpy(), atol=1e-6)
    np.testing.assert_allclose(joints, again[1].asnumpy(), atol=1e-6)


def test_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="'encoder' must be one of res18, res50, hr48, keypoints"):
        CLIFF("vgg")
