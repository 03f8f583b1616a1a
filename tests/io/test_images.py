"""Images of every kind come in upright and 8-bit; what is no image is refused in one sentence."""

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cliff_ms.io import files, images
from cliff_ms.io.errors import InputError

CORNERS = np.zeros((20, 40, 3), np.uint8)  # RGB: the top left quarter is red
CORNERS[:10, :20] = (255, 0, 0)


def encode(extension, image):
    """Encode an (H, W[, C]) array as OpenCV orders its channels (BGR)."""
    return cv2.imencode(extension, image)[1].tobytes()


def exif_jpeg(rgb, orientation, thumbnail=b""):
    """A JPEG with an EXIF segment of one entry: the orientation, and bytes in the place of a thumbnail."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0) + thumbnail
    payload = b"Exif\0\0" + tiff
    data = encode(".jpg", rgb[..., ::-1])
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]


@pytest.fixture
def put(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".webp", ".jpg"])
def test_channels_are_rgb_whatever_the_extension_says(put, extension):
    rgb = images.read_image(put("photo.dat", encode(extension, CORNERS[..., ::-1])))
    assert rgb.dtype == np.uint8
    assert rgb.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(rgb[4, 4], (255, 0, 0), atol=8)
    np.testing.assert_allclose(rgb[15, 30], 0, atol=8)


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_become_eight(put, extension, channels):
    values = np.array([0, 128, 129, 257 * 77, 0xFFFF - 129, 0xFFFF], np.uint16)
    stored = np.repeat(values[None, :, None], channels, axis=2)
    if channels == 4:
        stored[..., 3] = 0x8000
    rgb = images.read_image(put("deep" + extension, encode(extension, stored)))
    expected = np.round(values / 257.0).astype(int)
    np.testing.assert_array_equal(rgb, np.repeat(expected[None, :, None], 3, axis=2))


def test_grey_and_alpha(put):
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)
    np.testing.assert_array_equal(
        images.read_image(put("grey.png", encode(".png", grey))), grey[..., None].repeat(3, 2)
    )
    bgra = np.dstack([CORNERS[..., ::-1], np.full((20, 40), 7, np.uint8)])
    np.testing.assert_array_equal(images.read_image(put("cut_out.png", encode(".png", bgra))), CORNERS)


@pytest.mark.parametrize("orientation, turned", [(1, 0), (6, 3), (3, 2), (8, 1)])  # quarter turns counter-clockwise
def test_exif_orientation_is_applied(put, orientation, turned):
    rgb = images.read_image(put("phone.jpg", exif_jpeg(CORNERS, orientation)))
    np.testing.assert_allclose(rgb, np.rot90(images.read_image(put("raw.jpg", exif_jpeg(CORNERS, 1))), turned), atol=1)


def test_names_beyond_ascii(tmp_path):
    path = tmp_path / "фото 人 ü.png"
    images.write_image(path, CORNERS)
    np.testing.assert_array_equal(images.read_image(path), CORNERS)


NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
def test_half_a_file_is_truncated(put, extension, kept):
    data = encode(extension, NOISE)
    with pytest.raises(InputError, match=r"photo.* is truncated"):
        images.read_image(put("photo" + extension, data[: int(kept * len(data))]))


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_may_lack_its_end_marker_but_no_pixels(put, progressive):
    data = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    whole = images.read_image(put("whole.jpg", data))
    for name, cut in (("cut.jpg", data[:-2]), ("filled.jpg", data[:-2] + bytes(100))):
        np.testing.assert_array_equal(images.read_image(put(name, cut)), whole)
    with pytest.raises(InputError, match="truncated"):
        images.read_image(put("shorter.jpg", data[:-12]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_of_webp_is_applied_as_of_jpeg(put, orientation):
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8, :8], picture[8:, 24:] = 255, 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {}
    for kind in ("JPEG", "WEBP"):
        data = io.BytesIO()
        Image.fromarray(picture).save(data, kind, exif=exif, quality=100)
        turned[kind] = images.read_image(put(f"a.{kind}", data.getvalue())).astype(int)
    assert turned["JPEG"].shape == turned["WEBP"].shape
    assert np.abs(turned["JPEG"] - turned["WEBP"]).max() < 12


def test_a_picture_that_is_too_large_is_called_so(put):
    picture = Image.new("1", (40_000, 30_000))
    data = io.BytesIO()
    picture.save(data, "PNG")
    with pytest.raises(InputError, match="is too large.*2\\^30 pixels"):
        images.read_image(put("huge.png", data.getvalue()))


def test_names_that_are_no_text(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xd5\xd5.jpg"
    Path(os.fsdecode(name)).write_bytes(encode(".jpg", CORNERS))
    (path,) = images.find_inputs([str(tmp_path)])
    assert images.is_image(path) and images.read_image(path).shape == CORNERS.shape


def test_jpeg_end_marker_is_the_one_of_the_picture(put):
    thumbnail = encode(".jpg", CORNERS)  # has an end marker of its own
    data = exif_jpeg(NOISE, 1, thumbnail)
    images.read_image(put("whole.jpg", data))
    images.read_image(put("with_trailer.jpg", data + b"\0" * 100))
    progressive = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1]
    images.read_image(put("progressive.jpg", progressive.tobytes()))
    zero_filled = data[: len(data) // 2] + b"\0" * (len(data) // 2)  # an interrupted download of known length
    with pytest.raises(InputError, match="truncated"):
        images.read_image(put("half.jpg", zero_filled))


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("empty.jpg", b"", r"empty.jpg' is empty \(0 bytes\)"),
        ("text.jpg", b"this is a letter, not a picture", "text.jpg' is damaged or not an image: JPEG, PNG"),
        ("half.bmp", encode(".bmp", NOISE)[:5000], "half.bmp' is damaged"),
        ("phone.heic", b"\0\0\0\x18ftypheic" + b"\0" * 64, "HEIC or AVIF file, which is not supported; save it as"),
        ("float.tif", encode(".tif", np.ones((4, 5, 3), np.float32)), "float32 values; save it with 8 or 16 bits"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(put, capfd, name, data, message):
    with pytest.raises(InputError, match=message) as caught:
        images.read_image(put(name, data))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="nothing.jpg' does not exist"):
        images.read_image(tmp_path / "nothing.jpg")
    with pytest.raises(InputError, match="is a folder; a file was expected"):
        images.read_image(tmp_path)


def test_writing_leaves_only_the_final_file(tmp_path):
    images.write_image(tmp_path / "a.jpg", NOISE, quality=95)
    images.write_image(tmp_path / "a.jpg", NOISE, quality=10)
    assert os.listdir(tmp_path) == ["a.jpg"]
    small = (tmp_path / "a.jpg").stat().st_size
    images.write_image(tmp_path / "b.jpg", NOISE, quality=95)
    assert (tmp_path / "b.jpg").stat().st_size > 2 * small
    with pytest.raises(KeyError), files.atomic_path(tmp_path / "b.jpg") as temporary:
        temporary.write_bytes(b"half of it")
        raise KeyError
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "b.jpg"]
    assert images.read_image(tmp_path / "b.jpg").shape == NOISE.shape


def test_folder_that_cannot_be_written(put, tmp_path):
    under_a_file = put("notes.txt", b"x") / "out"
    with pytest.raises(InputError, match="Cannot write to the output folder .*Not a directory"):
        files.prepare_output_dir(under_a_file)
    with pytest.raises(InputError, match="Cannot write to the output folder"):
        files.prepare_output_dir(put("notes.txt", b"x"))
    with pytest.raises(InputError, match="Cannot write .*Not a directory"):
        images.write_image(under_a_file / "a.jpg", NOISE)
    made = files.prepare_output_dir(tmp_path / "new" / "deep")
    assert made.is_dir()
    assert os.listdir(made) == []


def test_find_inputs(put, tmp_path):
    for name in ("in/b.PNG", "in/a.jpg", "in/notes.txt", "in/.hidden.jpg", "clip.mp4", "odd_name"):
        put(name, b"x")
    (tmp_path / "in" / "sub.jpg").mkdir()
    found = images.find_inputs([str(tmp_path / "clip.mp4"), str(tmp_path / "in"), str(tmp_path / "odd_name")])
    assert [p.name for p in found] == ["clip.mp4", "a.jpg", "b.PNG", "odd_name"]

    with pytest.raises(InputError, match="gone.jpg' does not exist"):
        images.find_inputs([str(tmp_path / "gone.jpg")])
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="bare' holds no image"):
        images.find_inputs([str(tmp_path / "bare")])
    put("other/a.png", b"x")
    with pytest.raises(InputError, match=r"in/a.jpg' and '.*other/a.png' would both write 'a_...'"):
        images.find_inputs([str(tmp_path / "in"), str(tmp_path / "other" / "a.png")])
