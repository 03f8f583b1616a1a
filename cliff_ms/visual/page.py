"""One web page that a run leaves to look at: images, a video with its people moving beside it, numbers, 3D views."""

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
from cliff_ms.visual.browser import Clip, map_from_above, pack, pack_faces, photo_scene, timing, video_scene
from cliff_ms.visual.motion import Track

MAX_ENTRIES = 100  # entries in a page: about 30 MB of images
MAX_PEOPLE = 300  # people in the page's 3D views: 55 kB each
MAX_POSES = 100_000  # of people in videos, in the page's 3D views: 272 bytes each
MAX_VIDEO = 32_000_000  # bytes of videos inside the page; others are read from beside it
_PIECE = 3 << 18  # bytes of a video at a time; threes, which base64 makes fours of with nothing left
_IMAGE_SIDE = 1280  # px, the longer side of an image in the page


@dataclass(frozen=True)
class Person:
    """One person of an image.

    Attributes:
        body: of a photo, vertices of shape (V, 3), m, camera frame; of a video, her track.
        colour: RGB in [0, 1], shape (3,).
        row: what the table says of the person: column name -> value (text, number, or a sequence of numbers).
    """

    body: np.ndarray | Track
    colour: Sequence[float]
    row: Mapping[str, object]


@dataclass(frozen=True)
class PageEntry:
    """One image or video of the page.

    Attributes:
        title: plain text, such as the name of the image.
        overlay: the people over the image, shape (H, W, 3), uint8 RGB; of a video, over one frame of it.
        side: the people from the side, shape (H, W, 3), uint8 RGB; None for a video.
        people: in the order of the table.
        files: label -> path relative to the page, shown as links.
        note: plain text below the title, such as how the people were found; '' for none.
        clip: of a video, what plays.
    """

    title: str
    overlay: np.ndarray
    side: np.ndarray | None
    people: Sequence[Person]
    files: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    clip: Clip | None = None

    @property
    def tracks(self) -> list[Track]:
        """The people of a video."""
        return [person.body for person in self.people if isinstance(person.body, Track)]


def write_page(path: str | Path, entries: Iterable[PageEntry], faces: np.ndarray, title: str, note: str) -> None:
    """Write one self-contained web page: images, tables and a 3D view to turn, for each entry.

    The entries are written as they come and none is kept, so a generator may make them one by one. A page stays of a
    size that a browser can open: after 100 entries, or 300 people or 100,000 poses in 3D, the rest is left out and the
    page says so; after 32 MB of videos the others are played from their files, which then belong beside the page. If
    `entries` raises, no page is written and an older one stays.

    Args:
        path: file to write; links in the entries are relative to it.
        entries: what to show.
        faces: shape (F, 3), shared by everybody.
        title: plain text.
        note: plain text below the title, such as the model and what the numbers mean.
    """
    template = _environment().get_template("report.html")
    contents = _Contents(entries, Path(path).parent)
    page = template.generate(title=title, note=note, faces=pack_faces(faces), contents=contents)
    # A file name that is not UTF-8 holds lone surrogates: they are written as character references.
    with atomic_path(path) as unfinished, unfinished.open("w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.writelines(page)


class _Contents:
    """What the page shows of the entries, one by one, and afterwards what it has shown and left out."""

    def __init__(self, entries: Iterable[PageEntry], folder: Path) -> None:
        self.max_entries, self.max_people, self.max_poses = MAX_ENTRIES, MAX_PEOPLE, MAX_POSES
        self.titles: list[str] = []
        self.without_3d = 0
        self._entries = iter(entries)
        self._folder = folder
        self._video_room = MAX_VIDEO

    def __iter__(self) -> Iterator[tuple[int, PageEntry, bool]]:
        """Yield the number of an entry, the entry, and whether its people are shown in 3D."""
        room, poses_room = self.max_people, self.max_poses
        for number, entry in enumerate(itertools.islice(self._entries, self.max_entries)):
            poses = sum(len(track.frames) for track in entry.tracks)
            in_3d = 0 < len(entry.people) <= room and poses <= poses_room
            room -= len(entry.people) * in_3d
            poses_room -= poses * in_3d
            self.without_3d += len(entry.people) > 0 and not in_3d
            self.titles.append(entry.title)
            yield number, entry, in_3d

    def source(self, clip: Clip) -> Iterator[str]:
        """The address of a video, in pieces: itself, as long as there is room."""
        file = self._folder / clip.path
        if not file.is_file() or (size := file.stat().st_size) > self._video_room:
            yield _to_url(clip.path)
            return
        self._video_room -= size
        yield "data:video/mp4;base64,"
        with file.open("rb") as video:
            while piece := video.read(_PIECE):
                yield base64.b64encode(piece).decode("ascii")

    def count_rest(self) -> int:
        """Go through the entries that are not shown."""
        return sum(1 for _ in self._entries)


class _Jpeg(NamedTuple):
    width: int
    height: int
    data: str


def _environment() -> jinja2.Environment:
    """The templates; all that is filled in is escaped, numbers of a view as JSON."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cliff_ms.visual"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (_columns, _to_cell, _to_css, _to_jpeg, _to_scene, _to_url, map_from_above, timing)
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
    return _Jpeg(width, height, pack(jpeg))


def _to_scene(entry: PageEntry) -> dict:
    if tracks := entry.tracks:
        return video_scene(tracks)
    bodies = [person.body for person in entry.people if isinstance(person.body, np.ndarray)]
    return photo_scene(bodies, [person.colour for person in entry.people])


def _to_url(path: str) -> str:
    return quote(os.fsencode(path))
