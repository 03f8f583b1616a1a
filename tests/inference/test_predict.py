"""The predictor: order, padding, empty images, both kinds of input, geometry that closes."""

import numpy as np
import pytest

from cliff_ms.body.kinematics import Kinematics
from cliff_ms.config import ModelConfig
from cliff_ms.data.crop import box_to_crop
from cliff_ms.data.detections import Detections
from cliff_ms.inference.predict import Predictor
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import COCO17
from cliff_ms.models.cliff import build_model
from cliff_ms.weights.networks import mindspore_network
from tests.toys.body import toy_body

pytestmark = pytest.mark.usefixtures("graph_mode")
IMAGE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
BOXES = np.array([[20, 30, 120, 200], [150, 10, 260, 230], [-20, 60, 60, 240], [200, 100, 330, 230], [5, 5, 90, 90.0]])


def detections(count, joint_set="coco17"):
    rng = np.random.default_rng(1)
    size = {"coco17": 17, "openpose25": 25}[joint_set]
    keypoints = rng.uniform(0, 200, (count, size, 3)).astype(np.float32)
    keypoints[..., 2] = 1
    return Detections(BOXES[:count], np.ones(count), keypoints, joint_set)


@pytest.fixture(scope="module")
def setting():
    config = ModelConfig(encoder="keypoints")
    return mindspore_network(build_model(config), config), config, toy_body()


@pytest.mark.slow
def test_batches_do_not_change_the_result_or_the_order(setting):
    one_by_one = Predictor(*setting, batch_size=1)(IMAGE, detections(5))
    in_pairs = Predictor(*setting, batch_size=2)(IMAGE, detections(5))
    assert len(in_pairs) == 5
    for field in ("rotmats", "betas", "translation", "vertices", "joints", "joints2d"):
        np.testing.assert_allclose(getattr(in_pairs, field), getattr(one_by_one, field), rtol=1e-4, atol=1e-4)
    swapped = Detections(BOXES[[1, 0]], np.ones(2), detections(5).keypoints[[1, 0]], "coco17")
    other = Predictor(*setting)(IMAGE, swapped)
    np.testing.assert_allclose(other.vertices, one_by_one.vertices[[1, 0]], atol=1e-4)


@pytest.mark.slow
def test_joints_project_to_joints2d_with_the_focal_length_given_or_estimated(setting):
    for given, expected in ((700.0, 700.0), (None, 400.0)):
        people = Predictor(*setting)(IMAGE, detections(3), given)
        assert people.focal_length == expected
        xyz = people.joints
        projected = xyz[..., :2] / xyz[..., 2:] * expected + [160, 120]
        np.testing.assert_allclose(people.joints2d, projected, rtol=1e-4, atol=1e-2)


def test_arrays_of_the_official_demo(setting):
    people = Predictor(*setting)(IMAGE, detections(2))
    arrays = people.to_arrays("a.jpg", 7)
    shapes = {key: value.shape for key, value in arrays.items()}
    assert shapes == dict(
        imgname=(2,), pose=(2, 72), shape=(2, 10), global_t=(2, 3), pred_joints=(2, 45, 3), focal_l=(2,),
        detection_all=(2, 8), joints2d=(2, 45, 2), fit_sigma=(2,), error_2d=(2,),
    )  # fmt: skip
    np.testing.assert_array_equal(arrays["detection_all"][:, :6], np.c_[[7, 7], BOXES[:2], [1, 1]])
    assert arrays["imgname"].tolist() == ["a.jpg", "a.jpg"]


def test_how_far_to_trust_each_person(setting):
    found = detections(3)
    found.keypoints[1] = np.nan
    found.keypoints[1, :, 2] = 0  # boxes only
    found.keypoints[2, 5:, 2] = 0
    predicted, fitted = (Predictor(*setting, fits=fits)(IMAGE, found) for fits in (False, True))
    assert np.isnan(predicted.fit_sigma).all()
    assert np.isnan(fitted.fit_sigma).tolist() == [False, True, False]
    assert np.all(fitted.fit_sigma[[0, 2]] > 0.002) and np.all(fitted.fit_sigma[[0, 2]] < 0.05)
    size, markers = box_to_crop(BOXES[:3], (256, 192))[1], Kinematics(setting[2], COCO17, as_detected=True)
    for people in (predicted, fitted):
        points = markers(people.rotmats.astype(float), people.betas.astype(float))[0] + people.translation[:, None]
        pixels = points[..., :2] / points[..., 2:] * people.focal_length + np.array(IMAGE.shape[1::-1]) / 2
        off = np.linalg.norm(pixels - found.keypoints[..., :2], axis=-1)
        expected = [off[k, :n].mean() / size[k] for k, n in ((0, 17), (2, 5))]
        np.testing.assert_allclose(people.error_2d[[0, 2]], expected, rtol=1e-5)
        assert np.isnan(people.error_2d[1])
    assert np.all(fitted.error_2d[[0, 2]] < predicted.error_2d[[0, 2]])
    for name in ("rotmats", "betas", "translation", "joints2d"):
        np.testing.assert_array_equal(getattr(fitted, name)[1], getattr(predicted, name)[1])
    nothing = Predictor(*setting)(IMAGE, Detections(np.zeros((0, 4)), np.zeros(0)))
    assert nothing.error_2d.shape == nothing.fit_sigma.shape == (0,)


def test_nobody(setting):
    people = Predictor(*setting)(IMAGE, Detections(np.zeros((0, 4)), np.zeros(0)))
    assert len(people) == 0
    assert people.vertices.shape == (0, setting[2].vertex_count, 3)
    assert people.to_arrays("a.jpg")["pose"].shape == (0, 72)


def test_keypoint_weights_need_keypoints_and_take_either_joint_set(setting):
    with pytest.raises(InputError, match="--keypoints"):
        Predictor(*setting)(IMAGE, Detections(BOXES, np.ones(5)))
    openpose = detections(1, "openpose25")
    assert len(Predictor(*setting)(IMAGE, openpose)) == 1


@pytest.mark.parametrize("crop_style", ["affine", "rounded"])
def test_pixel_network_gets_normalised_crops(crop_style):
    seen = []

    def network(inputs, *_):
        seen.append(inputs)
        count = len(inputs)
        return np.tile(np.eye(3, dtype=np.float32), (count, 24, 1, 1)), *(
            np.ones((count, n), np.float32) for n in (10, 3, 3)
        )

    config = ModelConfig(encoder="res18", crop_hw=(64, 48), crop_style=crop_style)
    Predictor(network, config, toy_body(), batch_size=2)(IMAGE, detections(3))
    assert [s.shape for s in seen] == [(2, 3, 64, 48)] * 2
    assert all(s.dtype == np.float32 and -2.2 < s.min() < 0 < s.max() < 2.7 for s in seen)
    np.testing.assert_array_equal(seen[1][0], seen[1][1])  # the last person fills up the batch
