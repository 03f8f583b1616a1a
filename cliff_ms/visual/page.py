"""One web page that a run leaves to look at: pictures, numbers and a 3D view, see `meshes` for its frame."""

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from cliff_ms.io.files import atomic_path
from cliff_ms.visual.meshes import TO_GLTF

_PICTURE_SIDE = 1280  # px, the longer side of a picture in the page
_MAX_ENTRIES = 100  # entries in a page: about 30 MB of pictures
_MAX_MESHES = 300  # people in the page's 3D views: 55 kB each


@dataclass(frozen=True)
class Person:
    """One person of a picture.

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
    """One picture of the page.

    Attributes:
        title: plain text, such as the name of the photo.
        overlay: the people over the photo, shape (H, W, 3), uint8 RGB.
        side: the people from the side, shape (H, W, 3), uint8 RGB.
        people: in the order of the table.
        files: label -> path relative to the page, shown as links.
        video: path of an mp4 relative to the page, shown as a player above the pictures; or None.
    """

    title: str
    overlay: np.ndarray
    side: np.ndarray
    people: Sequence[Person]
    files: Mapping[str, str] = field(default_factory=dict)
    video: str | None = None


def write_page(path: str | Path, entries: Iterable[PageEntry], faces: np.ndarray, title: str, note: str) -> None:
    """Write one self-contained web page: pictures, tables and a 3D view to turn, for each entry.

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
    templates = resources.files("cliff_ms.visual") / "templates"
    head, tail = (templates / "report.html").read_text(encoding="utf-8").split("{{entries}}")
    viewer = (templates / "viewer.js").read_text(encoding="utf-8")

    names: list[str] = []
    count, meshes, without_scene = 0, 0, 0
    # A file name that is not UTF-8 holds lone surrogates: they are written as character references.
    with atomic_path(path) as unfinished, unfinished.open("w", encoding="utf-8", errors="xmlcharrefreplace") as page:
        page.write(_fill(head, title=html.escape(title), note=html.escape(note), faces=_pack_faces(faces)))
        for entry in entries:
            count += 1
            if count > _MAX_ENTRIES:
                continue
            in_3d = bool(entry.people) and meshes + len(entry.people) <= _MAX_MESHES
            meshes += len(entry.people) * in_3d
            without_scene += bool(entry.people) and not in_3d
            page.write(_entry(len(names), entry, in_3d))
            names.append(entry.title)
        links = "".join(f'<a href="#e{k}">{html.escape(name)}</a>' for k, name in enumerate(names))
        footer = _left_out(count - len(names), without_scene)
        page.write(_fill(tail, nav=links if len(names) > 1 else "", footer=footer, viewer=viewer))


def _fill(template: str, **texts: str) -> str:
    """Replace each {{name}}, in one pass: what is filled in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: texts[match[1]], template)


def _left_out(entries: int, scenes: int) -> str:
    """Say what the limits cost."""
    parts = []
    if entries:
        parts.append(f"The page ends after {_MAX_ENTRIES} pictures; not on it: {entries}.")
    if scenes:
        parts.append(f"The page holds {_MAX_MESHES} people in 3D; pictures without a 3D view: {scenes}.")
    return " ".join(parts)


def _entry(number: int, entry: PageEntry, in_3d: bool) -> str:
    """HTML of one picture."""
    name = html.escape(entry.title)
    views = [
        _figure(_picture(entry.overlay, f"The people drawn over {name}"), "Over the photo"),
        _figure(
            _picture(entry.side, f"The people of {name} from the side"),
            "From the side: the camera is on the left, the far end on the right",
        ),
    ]
    if entry.video is not None:
        views.insert(0, _figure(f'<video controls preload="metadata" src="{_url(entry.video)}"></video>', "Video"))
    if in_3d:
        height, width = entry.overlay.shape[:2]
        slot = f'<div class="slot" style="aspect-ratio: {width} / {height}"><p>The 3D view needs JavaScript.</p></div>'
        data = f'<script type="application/json">{_pack_people(entry.people)}</script>'
        help_text = (
            "In 3D: drag or arrow keys to turn, wheel or pinch to zoom, shift-drag to move, double click to reset"
        )
        views.append(_figure(slot + data, help_text))
    links = "".join(f'<a href="{_url(path)}">{html.escape(label)}</a>' for label, path in entry.files.items())
    parts = [f'<article id="e{number}">', f"<h2>{name}</h2>", f'<div class="views">{"".join(views)}</div>']
    parts.append(_table(entry.people))
    if links:
        parts.append(f'<p class="files">{links}</p>')
    return "\n".join([*parts, "</article>\n"])


def _table(people: Sequence[Person]) -> str:
    if not people:
        return "<p>Nobody here.</p>"
    columns = list(dict.fromkeys(key for person in people for key in person.row))
    lines = ["<tr><th></th>" + "".join(f"<th>{html.escape(column)}</th>" for column in columns) + "</tr>"]
    for person in people:
        red, green, blue = (round(255 * float(c)) for c in person.colour)
        cells = [f'<td><span class="dot" style="background: rgb({red} {green} {blue})"></span></td>']
        cells += [f"<td>{html.escape(_text(person.row.get(column)))}</td>" for column in columns]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="table"><table>{"".join(lines)}</table></div>'


def _text(value: object) -> str:
    """A table cell: two decimals for what is not whole, commas between the numbers of a sequence."""
    if value is None:
        return "\u2013"
    if isinstance(value, float | np.floating):
        return f"{value:.2f}"
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return ", ".join(f"{item:.0f}" for item in value)
    return str(value)


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def _picture(image: np.ndarray, alt: str) -> str:
    """An inlined JPEG, at most `_PICTURE_SIDE` px on its longer side."""
    height, width = image.shape[:2]
    shrink = _PICTURE_SIDE / max(height, width)
    if shrink < 1:
        width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return f'<img alt="{alt}" width="{width}" height="{height}" src="data:image/jpeg;base64,{_base64(jpeg)}">'


def _pack_people(people: Sequence[Person]) -> str:
    """JSON of a 3D view: per person int16 vertices with offset and scale (glTF's frame, m), and the box around all."""
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
    return json.dumps({"low": low.round(4).tolist(), "high": high.round(4).tolist(), "people": packed})


def _pack_faces(faces: np.ndarray) -> str:
    faces = np.asarray(faces)
    size = 2 if faces.max() < 1 << 16 else 4
    return json.dumps({"bytes": size, "data": _base64(faces.astype(f"<u{size}"))})


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _url(path: str) -> str:
    return html.escape(quote(os.fsencode(path)))
