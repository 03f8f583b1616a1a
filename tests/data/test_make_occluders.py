"""Occluders from Pascal VOC: which objects, with which edge, and that training reads them."""

import sys

import cv2
import make_occluders
import numpy as np
import pytest
from PIL import Image

from cliff_ms.data.occlusion import load_occluders
from cliff_ms.io.errors import InputError

HW = (120, 160)
COLOURS = {1: (200, 40, 40), 2: (40, 200, 40), 3: (40, 40, 200), 4: (200, 200, 40)}


def write_image(voc, name, things, segmented=1):
    """An image of flat objects: class, box from 1 on, flags; the mask fills the box but for its last ten columns."""
    image, objects = np.full((*HW, 3), 90, np.uint8), np.zeros(HW, np.uint8)
    text = f"<annotation><filename>{name}.jpg</filename><segmented>{segmented}</segmented>"
    for number, (kind, (left, top, right, bottom), flags) in enumerate(things, 1):
        image[top - 1 : bottom, left - 1 : right] = COLOURS[number]
        objects[top - 1 : bottom, left - 1 : right - 10] = number
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (left, top, right, bottom), strict=True)
        text += f"<object><name>{kind}</name>" + "".join(f"<{flag}>1</{flag}>" for flag in flags)
        text += "<bndbox>" + "".join(f"<{side}>{value}</{side}>" for side, value in corners) + "</bndbox></object>"
    for folder in ("Annotations", "JPEGImages", "SegmentationObject"):
        (voc / folder).mkdir(parents=True, exist_ok=True)
    (voc / "Annotations" / f"{name}.xml").write_text(text + "</annotation>")
    cv2.imwrite(str(voc / "JPEGImages" / f"{name}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    labels = Image.fromarray(objects, "P")
    labels.putpalette([(37 * k) % 256 for k in range(768)])
    labels.save(voc / "SegmentationObject" / f"{name}.png")


def run(monkeypatch, voc, output):
    monkeypatch.setattr(sys, "argv", ["make_occluders.py", "--voc", str(voc), "--output_dir", str(output)])
    make_occluders.main()


def test_objects_are_chosen_and_cut_out(tmp_path, monkeypatch, capsys):
    voc, output = tmp_path / "VOC2012", tmp_path / "occluders"
    things = [
        ("person", (1, 1, 70, 40), ()),
        ("chair", (1, 51, 60, 110), ("truncated",)),
        ("dog", (71, 1, 130, 40), ("difficult",)),
        ("sofa", (91, 61, 150, 120), ()),
    ]
    write_image(voc, "2007_000001", things)
    # Masks of 25 x 20 = 500 px and 24 x 20 = 480 px.
    write_image(voc, "2007_000002", [("bus", (1, 1, 35, 20), ()), ("bus", (51, 1, 84, 20), ())])
    write_image(voc, "2007_000003", [("bus", (1, 1, 60, 60), ())], segmented=0)
    run(monkeypatch, voc, output)
    assert sorted(path.name for path in output.iterdir()) == ["2007_000001_4.png", "2007_000002_1.png"]
    said = capsys.readouterr().out
    for part in ("cut out 2 objects", "1 people", "1 truncated", "1 difficult", "1 smaller than 500 px"):
        assert part in said

    sofa, bus = load_occluders(output)
    assert sofa.shape == (30, 30, 4) and bus.shape[:2] in ((10, 17), (10, 18))
    alpha = sofa[..., 3]
    assert (alpha[:, 25:] == 0).all() and alpha.min() == 0
    # On the right the ellipse reaches three px, one and a half of the cut-out; the box's own sides are no border.
    assert (alpha[:, 24] == 192).all() and (alpha[:, 23] == 224).all() and (alpha[:, :23] == 255).all()
    assert np.abs(sofa[8:-8, 8:-8, :3].astype(int) - COLOURS[4]).max() <= 3  # JPEG mixes the colours of its edges
    left, right = cv2.imread(str(output / "2007_000001_4.png"))[15, [8, -9]]
    assert left[0] < 60 < 190 < min(left[1:]) and abs(left.astype(int) - right).max() <= 3  # BGR in the file


def test_what_cannot_be_read_costs_only_itself(tmp_path, monkeypatch, caplog):
    voc, sofa = tmp_path / "VOC2012", ("sofa", (11, 11, 80, 80), ())
    for name in ("a", "b", "c", "d", "e", "f"):
        write_image(voc, name, [sofa])
    (voc / "Annotations" / "a.xml").write_text("<annotation>")
    (voc / "JPEGImages" / "b.jpg").unlink()
    (voc / "SegmentationObject" / "c.png").write_bytes(b"none")
    Image.new("P", (20, 20)).save(voc / "SegmentationObject" / "d.png")
    Image.new("L", HW[::-1]).save(voc / "SegmentationObject" / "e.png")
    run(monkeypatch, voc, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["f_1.png"]
    for part in ("a.xml", "b.jpg", "c.png", r"d.png' has (20, 20) px", "e.png' must be a picture of palette numbers"):
        assert part in caplog.text
    (voc / "Annotations" / "f.xml").unlink()
    with pytest.raises(InputError, match="has no object to cut out; left out: 5 in files that cannot be read"):
        run(monkeypatch, voc, tmp_path / "out")
    with pytest.raises(InputError, match="has no folder 'Annotations': unpack"):
        run(monkeypatch, tmp_path, tmp_path / "out")
