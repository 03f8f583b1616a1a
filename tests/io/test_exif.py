"""Focal lengths from files written here by Pillow, against the definition of the 35 mm equivalent."""

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from cliff_ms.io.exif import stated_focal_length

TAG = ExifTags.Base


def photo(path, size, tags):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update(tags)
    Image.new("RGB", size).save(path, exif=exif)
    return path


def stated(tmp_path, size, tags):
    width, height = size
    return stated_focal_length(photo(tmp_path / "photo.jpg", size, tags), (height, width))


def test_35_mm_equivalent_keeps_the_diagonal_field_of_view(tmp_path):
    found = stated(tmp_path, (1280, 720), {TAG.FocalLengthIn35mmFilm: 24})
    of_full_frame = 2 * np.arctan(np.hypot(36, 24) / 2 / 24)
    assert 2 * np.arctan(np.hypot(1280, 720) / 2 / found.px) == pytest.approx(of_full_frame)
    assert "24 mm" in found.source and not found.doubt


def test_sensor_resolution_is_scaled_with_the_picture(tmp_path):
    tags = {
        TAG.FocalLength: IFDRational(50),
        TAG.FocalPlaneXResolution: IFDRational(4000, 1),
        TAG.FocalPlaneResolutionUnit: 3,
        TAG.ExifImageWidth: 6000,
        TAG.ExifImageHeight: 4000,
    }
    assert stated(tmp_path, (600, 400), tags).px == pytest.approx(50 * 400 / 10)
    assert stated(tmp_path, (400, 600), tags).px == pytest.approx(50 * 400 / 10)  # turned upright


@pytest.mark.parametrize(("size", "whole"), [((800, 600), True), ((600, 800), True), ((800, 800), False)])
def test_a_resized_photo_is_trusted_and_a_crop_is_not(tmp_path, size, whole):
    tags = {TAG.FocalLengthIn35mmFilm: 26, TAG.ExifImageWidth: 4032, TAG.ExifImageHeight: 3024}
    found = stated(tmp_path, size, tags)
    assert bool(found.doubt) != whole
    assert whole or "4032 x 3024" in found.doubt


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {TAG.FocalLengthIn35mmFilm: 0},
        {TAG.FocalLengthIn35mmFilm: 65535},
        {TAG.FocalLength: IFDRational(50)},
        {TAG.FocalLength: IFDRational(50, 0), TAG.FocalPlaneXResolution: IFDRational(1, 0)},
        {TAG.FocalLength: IFDRational(50), TAG.FocalPlaneXResolution: IFDRational(1), TAG.ExifImageWidth: 0},
    ],
)
def test_what_is_not_known_is_not_invented(tmp_path, tags):
    assert stated(tmp_path, (64, 48), tags) is None


def test_files_without_exif(tmp_path):
    (tmp_path / "junk.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50))
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    for name in ("junk.jpg", "plain.png"):
        assert stated_focal_length(tmp_path / name, (8, 8)) is None
