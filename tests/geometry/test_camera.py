"""The cameras: official numbers, equations that must close, tensors as arrays."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindspore import Tensor, nn

from cliff_ms import camera
from tests.paths import GOLDEN

CASES = json.loads((GOLDEN / "preprocess.json").read_text())
RNG = np.random.default_rng(0)


def official(key):
    return np.array([case[key] for case in CASES], np.float64)


def official_view():
    return official("center"), 200 * official("scale"), official("img_hw"), official("focal_length")


def test_focal_length_is_the_officials():
    np.testing.assert_allclose(camera.estimate_focal_length(official("img_hw")), official("focal_length"), rtol=1e-12)


def test_bbox_info_is_the_officials():
    np.testing.assert_allclose(camera.bbox_info(*official_view(), "released"), official("bbox_info"), atol=2e-6)


def test_full_translation_is_the_officials():
    full = camera.full_translation(official("pred_cam_crop"), *official_view())
    np.testing.assert_allclose(full, official("pred_cam_full"), rtol=1e-6)


def test_bbox_info_is_eq5_as_printed():
    center, size = np.array([[420.0, 140.0]]), np.array([200.0])
    img_hw, focal = np.array([[480.0, 640.0]]), np.array([800.0])
    np.testing.assert_allclose(camera.bbox_info(center, size, img_hw, focal, "eq5"), [[0.125, -0.125, 0.25]])


def test_crop_translation_is_eq1():
    np.testing.assert_allclose(camera.crop_translation(np.array([[0.5, 0.1, -0.2]]), 250), [[0.1, -0.2, 80.0]])


@given(s=st.floats(0.3, 2), tx=st.floats(-0.5, 0.5), cx=st.floats(0, 1000), cy=st.floats(0, 700),
       size=st.floats(50, 900), focal=st.floats(300, 3e3))  # fmt: skip
def test_full_frame_projection_of_the_root_lands_where_the_crop_camera_puts_it(s, tx, cx, cy, size, focal):
    """Eq. (7) is built so that the root, projected by the full camera, has the same place in the crop as by Eq. (1)."""
    center, size, img_hw, focal = np.array([[cx, cy]]), np.array([size]), np.array([[720.0, 1000.0]]), np.array([focal])
    cam, root = np.array([[s, tx, -tx]]), np.zeros((1, 1, 3))
    full = camera.full_translation(cam, center, size, img_hw, focal)
    in_image = camera.to_image(camera.project(root, full, focal), img_hw)[0, 0]
    in_crop = camera.project(root, camera.crop_translation(cam, 256), np.array([camera.HMR_FOCAL_LENGTH]))[0, 0]
    np.testing.assert_allclose((in_image - center[0]) / size, in_crop / 256, atol=1e-6)


def test_eq7_is_eq7_without_the_substitution():
    cam, (center, size, img_hw, focal) = official("pred_cam_crop"), official_view()
    crop = camera.crop_translation(cam, 224)
    printed = np.stack(
        [
            crop[:, 0] + 2 * (center[:, 0] - img_hw[:, 1] / 2) / (size * cam[:, 0]),
            crop[:, 1] + 2 * (center[:, 1] - img_hw[:, 0] / 2) / (size * cam[:, 0]),
            crop[:, 2] * focal / camera.HMR_FOCAL_LENGTH * 224 / size,
        ],
        -1,
    )
    np.testing.assert_allclose(camera.full_translation(cam, center, size, img_hw, focal), printed, rtol=1e-9)


@pytest.mark.parametrize("name", ["camera", "rotation"])
def test_arrays_do_not_wait_for_mindspore(name):
    calls = {
        "camera": "bbox_info(x, y, x, y, 'eq5'), m.full_translation(m.crop_translation(cam, 256), x, y, x, y), "
        "m.to_image(m.project(cam[:, None], cam, y), x), m.estimate_focal_length(x)",
        "rotation": "rot6d_to_rotmat(np.ones((1, 6))), m.axis_angle_to_rotmat(cam), "
        "m.rotmat_to_axis_angle(np.eye(3)), m.rotmat_to_rot6d(np.eye(3))",
    }
    arrays = "x, y, cam = np.ones((1, 2)), np.ones(1), np.ones((1, 3))"
    code = f"import sys, numpy as np, cliff_ms.{name} as m; {arrays}; m.{calls[name]}"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'mindspore' not in sys.modules"], check=True)


@pytest.mark.usefixtures("graph_mode")
def test_bbox_info_refuses_another_norm():
    class BBoxInfo(nn.Cell):
        def construct(self, center, bbox_size):
            return camera.bbox_info(center, bbox_size, center, bbox_size, "eq6")

    arrays = np.ones((2, 2), np.float32), np.ones(2, np.float32)
    for run, inputs in ((BBoxInfo().construct, arrays), (BBoxInfo(), map(Tensor, arrays))):
        with pytest.raises(ValueError, match="'norm' must be 'eq5' or 'released', but got 'eq6'"):
            run(*inputs)


class Everything(nn.Cell):
    def construct(self, cam, center, size, img_hw, focal, points):
        full = camera.full_translation(cam, center, size, img_hw, focal)
        return (
            camera.bbox_info(center, size, img_hw, focal, "released"),
            camera.crop_translation(cam, 256),
            full,
            camera.to_image(camera.project(points, full, focal), img_hw),
        )


@pytest.mark.usefixtures("graph_mode")
def test_graph_equals_arrays():
    arrays = [official("pred_cam_crop"), *official_view(), RNG.uniform(-0.5, 0.5, (len(CASES), 4, 3))]
    tensors = [Tensor(a.astype(np.float32)) for a in arrays]
    # Outside a Cell the same code runs on arrays.
    for tensor, array in zip(Everything()(*tensors), Everything().construct(*arrays), strict=True):
        np.testing.assert_allclose(tensor.asnumpy(), array, rtol=2e-5, atol=2e-5)
