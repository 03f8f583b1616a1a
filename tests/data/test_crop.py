"""Crops: the official corners, an independent bilinear reference, keypoints that follow."""

import json

import numpy as np
import pytest

from cliff_ms.data import crop
from tests.paths import GOLDEN

CASES = json.loads((GOLDEN / "preprocess.json").read_text())
HW = (256, 192)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_center_scale_and_corners_are_the_officials(case):
    center, size = crop.box_to_crop(np.array([case["bbox_xyxy"]]), HW)
    np.testing.assert_array_equal(center[0], case["center"])
    np.testing.assert_allclose(size[0], 200 * case["scale"], rtol=1e-7)
    corners = crop.rounded_corners(center[0], size[0], HW)
    np.testing.assert_array_equal(corners, [case["crop_ul"], case["crop_br"]])


def bilinear(image, x, y):
    """Sample at positions in px (corner convention); black outside."""
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)))
    x, y = np.clip(x + 0.5, 0, padded.shape[1] - 1.001), np.clip(y + 0.5, 0, padded.shape[0] - 1.001)
    x0, y0 = x.astype(int), y.astype(int)
    u, v = (x - x0)[:, None], (y - y0)[:, None]
    top = padded[y0, x0] * (1 - u) + padded[y0, x0 + 1] * u
    return top * (1 - v) + (padded[y0 + 1, x0] * (1 - u) + padded[y0 + 1, x0 + 1] * u) * v


@pytest.mark.parametrize(("center", "size"), [((60.3, 40.7), 50.0), ((5.0, 70.0), 90.5), ((101.0, -3.0), 300.0)])
def test_affine_crop_samples_where_the_geometry_says(center, size):
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    got = crop.crop_affine(image, np.array(center), size, (64, 48))
    v, u = (a.ravel() + 0.5 for a in np.mgrid[:64, :48])
    x, y = center[0] + (u - 24) * size / 64, center[1] + (v - 32) * size / 64
    reduction = 4 if size == 300 else 1  # averaged before it is shrunk 4.7 times
    squares = image.reshape(80 // reduction, reduction, 120 // reduction, reduction, 3).mean((1, 3))
    expected = bilinear(squares, x / reduction, y / reduction)
    # OpenCV interpolates with weights of 1/32 px.
    assert np.abs(got.reshape(-1, 3) - expected).max() < 255 / 32 * 2


def test_rounded_crop_is_a_plain_cut_where_nothing_is_resized():
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    got = crop.crop_rounded(image, np.array([110.0, 140.0]), 256.0, HW)
    np.testing.assert_array_equal(got, image[12:268, 14:206])
    outside = crop.crop_rounded(image, np.array([-500.0, -500.0]), 256.0, HW)
    assert not outside.any()


def test_normalized_keypoints_are_one_at_the_upper_and_lower_edge():
    center, size = np.array([[100.0, 50.0]]), np.array([80.0])
    keypoints = np.array([[[100, 10, 0.5], [100, 90, 1.7], [130, 50, 0]]])
    got = crop.normalize_keypoints(keypoints, center, size)
    np.testing.assert_allclose(got, [[[0, -1, 0.5], [0, 1, 1], [0.75, 0, 0]]])


def test_normalized_image():
    got = crop.normalize_image(np.full((2, 3, 3), 255, np.uint8))
    assert got.shape == (3, 2, 3) and got.dtype == np.float32
    np.testing.assert_allclose(got[:, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-6)
