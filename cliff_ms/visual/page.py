"""One web page that a run leaves to look at: images, numbers and a 3D view, see `meshes` for its frame."""

import base64
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import cv2
import jinja2
import numpy as np

from cliff_ms.io.files import atomic_path
from cliff_ms.visual.meshes import TO_GLTF

MAX_ENTRIES = 100  # entries in a page: about 30 MB of images
MAX_PEOPLE = 300  # people in the page's 3D views: 55 kB each
_IMAGE_SIDE = 1280  # px, the longer side of an image in the page


@dataclass(frozen=True)
class Person:
    """One person of an image.

    Attributes:
        vertices: shape (V, 3), m, camera frame.
        colour: RGB in [0, 1], shape (3,).
        row: what the table says of the person: column name -> value (text, number, or a sequence of numbers).
    """

    vertices: np.ndarray
    colour: Sequence[float]
    row: Mapping[str, object]


@dataclass(frozen=True)
class PageEntry:
    """One image of the page.

    Attributes:
        title: plain text, such as the name of the image.
        overlay: the people over the image, shape (H, W, 3), uint8 RGB.
        side: the people from the side, shape (H, W, 3), uint8 RGB.
        people: in the order of the table.
        files: label -> path relative to the page, shown as links.
        video: path of an mp4 relative to the page, shown as a player above the images; or None.
        note: plain text below the title, such as how the people were found; '' for none.
    """

    title: str
    overlay: np.ndarray
    side: np.ndarray
    people: Sequence[Person]
    files: Mapping[str, str] = field(default_factory=dict)
    video: str | None = None
    note: str = ""


def write_page(path: str | Path, entries: Iterable[PageEntry], faces: np.ndarray, title: str, note: str) -> None:
    """Write one self-contained web page: images, tables and a 3D view to turn, for each entry.

    The entries are written as they come and none is kept, so a generator may make them one by one. A page stays of a
    size that a browser can open: after 100 entries, or 300 people in 3D, the rest is left out and the page says so. If
    `entries` raises, no page is written and an older one stays.

    Args:
        path: file to write; links in the entries are relative to it.
        entries: what to show.
        faces: shape (F, 3), shared by everybody.
        title: plain text.
        note: plain text below the title, such as the model and what the numbers mean.
    """
    template = _environment().get_template("report.html")
    page = template.generate(title=title, note=note, faces=_pack_faces(faces), contents=_Contents(entries))
    # A file name that is not UTF-8 holds lone surrogates: they are written as character references.
    with atomic_path(path) as unfinished, unfinished.open("w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.writelines(page)


class _Contents:
    """What the page shows of the entries, one by one, and afterwards what it has shown and left out."""

    def __init__(self, entries: Iterable[PageEntry]) -> None:
        self.max_entries, self.max_people = MAX_ENTRIES, MAX_PEOPLE
        self.titles: list[str] = []
        self.without_3d = 0
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[tuple[int, PageEntry, bool]]:
        """Yield the number of an entry, the entry, and whether its people are shown in 3D."""
        room = self.max_people
        for number, entry in enumerate(itertools.islice(self._entries, self.max_entries)):
            in_3d = 0 < len(entry.people) <= room
            room -= len(entry.people) * in_3d
            self.without_3d += len(entry.people) > 0 and not in_3d
            self.titles.append(entry.title)
            yield number, entry, in_3d

    def count_rest(self) -> int:
        """Go through the entries that are not shown."""
        return sum(1 for _ in self._entries)


class _Jpeg(NamedTuple):
    width: int
    height: int
    data: str


def _environment() -> jinja2.Environment:
    """The templates; all that is filled in is escaped, numbers of a 3D view as JSON."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cliff_ms.visual"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (_columns, _to_cell, _to_css, _to_jpeg, _to_scene, _to_url)
    environment.filters.update({function.__name__.removeprefix("_"): function for function in filters})
    return environment


def _columns(people: Sequence[Person]) -> list[str]:
    return list(dict.fromkeys(key for person in people for key in person.row))


def _to_cell(value: object) -> str:
    """A table cell: two decimals for what is not whole, commas between the numbers of a sequence."""
    if value is None:
        return "\u2013"
    if isinstance(value, float | np.floating):
        return f"{value:.2f}"
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return ", ".join(f"{item:.0f}" for item in value)
    return str(value)


def _to_css(colour: Sequence[float]) -> str:
    return "rgb({} {} {})".format(*(round(255 * float(c)) for c in colour))


def _to_jpeg(image: np.ndarray) -> _Jpeg:
    """(H, W, 3) uint8 RGB as base64 of a JPEG, at most `_IMAGE_SIDE` px on its longer side."""
    height, width = image.shape[:2]
    shrink = _IMAGE_SIDE / max(height, width)
    if shrink < 1:
        width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return _Jpeg(width, height, _base64(jpeg))


def _to_scene(people: Sequence[Person]) -> dict:
    """A 3D view: per person int16 vertices with offset and scale (glTF's frame, m), and the box around all."""
    packed, corners = [], []
    for person in people:
        vertices = np.asarray(person.vertices, np.float32) * TO_GLTF
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        corners += [low, high]
        centre, unit = (low + high) / 2, max(float((high - low).max()) / 2 / 32767, 1e-9)
        packed.append(
            {
                "place": [round(float(x), 6) for x in centre] + [unit],
                "colour": [round(float(c), 3) for c in person.colour],
                "vertices": _base64(np.round((vertices - centre) / unit).clip(-32767, 32767).astype("<i2")),
            }
        )
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    return {"low": low.round(4).tolist(), "high": high.round(4).tolist(), "people": packed}


def _pack_faces(faces: np.ndarray) -> dict:
    faces = np.asarray(faces)
    size = 2 if faces.max() < 1 << 16 else 4
    return {"bytes": size, "data": _base64(faces.astype(f"<u{size}"))}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _to_url(path: str) -> str:
    return quote(os.fsencode(path))
