"""Images decoded small: every reduction shows the same place, whatever the file; things pasted over crops."""

import cv2
import numpy as np
import pytest

from cliff_ms.data import occlusion
from cliff_ms.data.crop import fitting_reduction
from cliff_ms.data.decoding import ImageFile
from cliff_ms.io.errors import InputError

HW = (243, 325)  # divisible by none of the reductions
PLACE = np.array([101.3, 140.7])  # x, y px


def blob():
    y, x = np.mgrid[: HW[0], : HW[1]] + 0.5
    light = 250 * np.exp(-((x - PLACE[0]) ** 2 + (y - PLACE[1]) ** 2) / (2 * 12**2))
    return np.dstack([light, light / 2, light / 4]).astype(np.uint8)


def centroid(image):
    light = image[..., 0].astype(float)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    return np.array([(x * light).sum(), (y * light).sum()]) / light.sum()


def encode(suffix):
    return cv2.imencode(suffix, cv2.cvtColor(blob(), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()


def with_orientation(jpeg, value, little):
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([value, 0, 0, 0])
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00" + entry + bytes(4)
    if not little:
        entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, value, 0, 0])
        tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01" + entry + bytes(4)
    segment = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [".jpg", ".png", "turned", "turned, big endian", "not turned"])
def test_each_reduction_shows_the_same_place(kind, reduction, tmp_path):
    path, place, hw = tmp_path / "a.jpg", PLACE, HW
    data = encode(".png" if kind == ".png" else ".jpg")
    if kind.startswith("turned"):  # orientation 6: the picture is shown a quarter turn clockwise
        data = with_orientation(data, 6, "big" not in kind)
        place, hw = np.array([HW[0] - PLACE[1], PLACE[0]]), HW[::-1]
    elif kind == "not turned":
        data = with_orientation(data, 1, True)
    path.write_bytes(data)
    file = ImageFile(path)
    assert tuple(file.img_hw) == hw
    image = file.decode(reduction)
    assert image.shape == (-(-hw[0] // reduction), -(-hw[1] // reduction), 3)
    np.testing.assert_allclose(centroid(image) * reduction, place, atol=0.1)
    assert image[..., 0].mean() > 1.5 * image[..., 1].mean() > 2 * image[..., 2].mean()  # red, green, blue


def test_the_reduction_never_leaves_less_than_the_crop_needs():
    assert [fitting_reduction(step) for step in (0.3, 1.99, 2, 3.9, 4, 7.9, 8, 40)] == [1, 1, 2, 2, 4, 4, 8, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:2] + bytes(300) + b"\xff\xd9", "damaged"),
        (lambda data: b"\xff\xd8\xff\xd9", "damaged"),
        (lambda data: b"", "empty"),
        (lambda data: b"text", "not an image"),
    ],
)
def test_a_bad_file_is_named(change, message, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(change(encode(".jpg")))
    with pytest.raises(InputError, match=message) as error:
        ImageFile(path).decode(2)
    assert str(path) in str(error.value)


def test_occluders_hide_some_of_the_crop_and_follow_the_seed():
    crop = np.full((128, 96, 3), 100, np.uint8)
    hidden = []
    for seed in range(60):
        shapes = occlusion.drawn_occluders()
        first, again = (occlusion.occlude(crop, np.random.default_rng(seed), shapes) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        hidden.append((first != crop).any(-1).mean())
    assert (crop == 100).all() and 0 < min(hidden) and max(hidden) < 0.95 and 0.1 < np.mean(hidden) < 0.5


def test_cut_outs_are_pasted_as_they_are(tmp_path):
    cutout = np.zeros((600, 300, 4), np.uint8)
    cutout[..., :3], cutout[150:450, 75:225, 3] = (0, 0, 255), 255  # blue, green, red
    cv2.imwrite(str(tmp_path / "red.png"), cutout)
    occluders = occlusion.load_occluders(tmp_path)
    assert occluders[0].shape == (256, 128, 4)
    crop = occlusion.occlude(np.zeros((128, 96, 3), np.uint8), np.random.default_rng(0), occluders)
    assert crop[..., 0].max() == 255 and not crop[..., 1:].any()


def test_occluder_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        occlusion.load_occluders(tmp_path / "missing")
    with pytest.raises(InputError, match="holds no"):
        occlusion.load_occluders(tmp_path)
    cv2.imwrite(str(tmp_path / "opaque.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InputError, match="opaque.png.*alpha channel"):
        occlusion.load_occluders(tmp_path)
    (tmp_path / "opaque.png").write_bytes(b"")
    with pytest.raises(InputError, match="opaque.png"):
        occlusion.load_occluders(tmp_path)
