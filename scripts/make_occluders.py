"""Cut occluders for `augment.occluders` out of Pascal VOC 2012, as Sarandi et al. did whom the paper cites.

    python scripts/make_occluders.py --voc VOCdevkit/VOC2012 --output_dir data/occluders
    python train.py --config configs/cliff_res50.yaml --set augment.occluders=data/occluders

The rules are those of their code, augmentation.py of github.com/isarandi/synthetic-occlusion: objects of segmented
images that are no people, neither difficult nor truncated, with a mask of at least 500 px; the mask's border, what an
8 x 8 ellipse erodes, has an alpha of 192; then everything is halved. Their boxes lack the first row and column, these
do not: VOC counts pixels from 1. An object becomes IMAGE_K.png, K its place among the image's objects, from 1.
"""

import argparse
import logging
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from cliff_ms import cli
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, prepare_output_dir
from cliff_ms.io.images import read_image

MIN_AREA = 500  # px of the mask
_BORDER_ALPHA = 192
_BORDER = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (8, 8))
_FOLDERS = ("Annotations", "JPEGImages", "SegmentationObject")

log = logging.getLogger("cliff_ms")


def main() -> None:
    """Cut out all objects, and count what was left out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--voc", type=Path, required=True, help=f"folder with {', '.join(_FOLDERS)}")
    parser.add_argument("--output_dir", type=Path, required=True, help="for RGBA png files")
    args = parser.parse_args()
    for name in _FOLDERS:
        if not (args.voc / name).is_dir():
            raise InputError(f"--voc '{args.voc}' has no folder '{name}': unpack VOCtrainval_11-May-2012.tar there.")
    folder, counts = prepare_output_dir(args.output_dir), Counter[str]()
    for path in sorted((args.voc / _FOLDERS[0]).glob("*.xml")):
        try:
            cut_out(args.voc, path, folder, counts)
        except InputError as error:
            log.warning("%s: left out", error)
            counts["in files that cannot be read"] += 1
    kept = counts.pop("", 0)
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    if not kept:
        raise InputError(f"--voc '{args.voc}' has no object to cut out; left out: {left_out or 'none'}.")
    print(f"cut out {kept} objects; left out: {left_out or 'none'}\nwritten: {folder}")


def cut_out(voc: Path, annotation: Path, folder: Path, counts: Counter[str]) -> None:
    """Write an image's objects.

    Args:
        voc: VOC's folder.
        annotation: The image's xml.
        folder: Where they go.
        counts: Is increased: objects left out by reason, those written under ''.

    Raises:
        InputError: A file of the image that is missing or damaged.
    """
    root = _read_xml(annotation)
    if root.findtext("segmented", "0").strip() == "0":
        return
    chosen = {}
    for number, thing in enumerate(root.findall("object"), 1):
        reason = _unsuitable(thing)
        if reason:
            counts[reason] += 1
        else:
            chosen[number] = _box(thing, annotation)
    if not chosen:
        return
    image = read_image(voc / "JPEGImages" / f"{annotation.stem}.jpg")
    objects = _read_objects(voc / "SegmentationObject" / f"{annotation.stem}.png", image.shape[:2])
    for number, (left, top, right, bottom) in chosen.items():
        place = slice(top - 1, bottom), slice(left - 1, right)
        mask = (objects[place] == number).astype(np.uint8) * 255
        if np.count_nonzero(mask) < MIN_AREA:
            counts[f"smaller than {MIN_AREA} px"] += 1
            continue
        _write(folder / f"{annotation.stem}_{number}.png", image[place], mask)
        counts[""] += 1


def _unsuitable(thing: ElementTree.Element) -> str:
    """Why an object is left out; '' if it is not."""
    if thing.findtext("name", "").strip() == "person":
        return "people"
    return next((flag for flag in ("difficult", "truncated") if thing.findtext(flag, "0").strip() != "0"), "")


def _box(thing: ElementTree.Element, annotation: Path) -> list[int]:
    """Left, top, right and bottom px, from 1, all within the box."""
    try:
        box = [round(float(thing.findtext(f"bndbox/{side}", ""))) for side in ("xmin", "ymin", "xmax", "ymax")]
    except ValueError:
        box = [0]
    if min(box) < 1:
        raise InputError(f"'{annotation}': an object has no 'bndbox' of four numbers from 1 on")
    return box


def _write(path: Path, colours: np.ndarray, mask: np.ndarray) -> None:
    """Write RGB (h, w, 3) and a mask (h, w) of 0 and 255 at half the size."""
    border = (cv2.erode(mask, _BORDER) == 0) & (mask > 0)
    alpha = np.where(border, _BORDER_ALPHA, mask).astype(np.uint8)
    size = tuple(max(round(side / 2), 1) for side in mask.shape[::-1])
    cutout = cv2.resize(np.dstack([colours[..., ::-1], alpha]), size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".png", cutout)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _read_xml(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise InputError(f"'{path}' is damaged ({error})") from None


def _read_objects(path: Path, image_hw: tuple[int, int]) -> np.ndarray:
    """The number of the object that each px (H, W) shows; 0 for none, 255 for a seam."""
    try:
        with Image.open(path) as image:
            if image.mode != "P":
                raise InputError(f"'{path}' must be a picture of palette numbers, but is {image.mode}")
            objects = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"'{path}' is missing or damaged ({error})") from None
    if objects.shape != image_hw:
        raise InputError(f"'{path}' has {objects.shape} px, but its image has {image_hw}")
    return objects


if __name__ == "__main__":
    cli.run(main)
