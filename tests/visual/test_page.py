"""What is written must read back: meshes, pictures, numbers, and a page that needs nothing but itself."""

import base64
import json
import weakref
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import trimesh

from cliff_ms.visual import meshes, page
from tests.toys.body import toy_body
from tests.toys.motion import Gltf, make_track

BALL = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
FACES = np.asarray(BALL.faces)
VERTICES = np.float32(BALL.vertices * (1, 2, 0.5) + (0.3, -0.2, 4))  # camera frame
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes, the text of each script, and the visible text; checks that tags nest."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.scripts, self.words = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.tags[-1][1], data))
        elif self.open and self.open[-1] != "style":
            self.words += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def scenes(self):
        found = [json.loads(text) for attrs, text in self.scripts if attrs.get("type") == "application/json"]
        return found[1:]  # the first holds the faces


def entry(title="a.jpg", people=1, size=(30, 40), **more):
    picture = np.full((*size, 3), (200, 100, 50), np.uint8)
    row = {"person": 0, "box (px)": np.array([1.0, 2.4, 30.6, 28.0]), "distance (m)": 4.0, "score": None}
    group = [page.Person(VERTICES + (k, 0, 0), (0.2, 0.4, 1.0), {**row, "person": k}) for k in range(people)]
    return page.PageEntry(title, picture, picture, group, **more)


def film(path="film 1.mp4"):
    track = make_track(toy_body(), np.tile(np.eye(3), (2, 24, 1, 1)), 0, range(3))
    clip = page.Clip(path, 30.0, np.arange(3), np.arange(3))
    picture = np.zeros((30, 40, 3), np.uint8)
    return page.PageEntry("a film", picture, None, [page.Person(track, track.colour, {"person": 0})], clip=clip)


def test_glb_keeps_geometry_order_and_turns_y_up(tmp_path):
    people = [meshes.person_mesh(VERTICES + (k, 0, 0), FACES, (0.2, 0.4, 1.0)) for k in range(3)]
    meshes.write_glb(tmp_path / "scene.glb", {f"person_{k}": mesh for k, mesh in enumerate(people)}, 500.0, (480, 640))
    scene = trimesh.load(tmp_path / "scene.glb", process=False)
    assert sorted(scene.graph.nodes_geometry) == sorted(scene.geometry) == ["person_0", "person_1", "person_2"]
    np.testing.assert_array_equal(scene.camera_transform, np.eye(4))  # glTF's cameras look along -z
    view = Gltf(tmp_path / "scene.glb").tree["cameras"][0]["perspective"]
    assert (view["yfov"], view["aspectRatio"]) == pytest.approx((2 * np.arctan(240 / 500), 4 / 3))
    for k in range(3):
        mesh = scene.geometry[f"person_{k}"]
        np.testing.assert_allclose(mesh.vertices, (VERTICES + (k, 0, 0)) * (1, -1, -1), atol=1e-6)
        np.testing.assert_array_equal(mesh.faces, FACES)
        outward = mesh.vertices - mesh.vertices.mean(0)
        assert (np.sum(mesh.vertex_normals * outward, 1) > 0).all()  # the flip is a rotation: no face turns inside out
        assert mesh.visual.material.metallicFactor == 0
        np.testing.assert_array_equal(mesh.visual.material.baseColorFactor, (51, 102, 255, 255))
    text = (tmp_path / "scene.glb").read_bytes()
    assert text.count(b'"NORMAL"') == 3
    assert [f.name for f in tmp_path.iterdir()] == ["scene.glb"]


def test_obj_reads_back(tmp_path):
    meshes.write_obj(tmp_path / "person.obj", meshes.person_mesh(VERTICES, FACES, (1, 0, 0)))
    mesh = trimesh.load(tmp_path / "person.obj", process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, VERTICES * (1, -1, -1), atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, FACES)
    lines = (tmp_path / "person.obj").read_text().splitlines()
    assert sum(line.startswith("vn ") for line in lines) == len(VERTICES)
    assert not any(line.startswith(("mtllib", "usemtl")) for line in lines)  # there is no such file beside it


def test_page_stands_alone_and_holds_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_PIECE", 6)  # of the video, as if it were a long one
    entries = [
        entry("a.jpg", 2, files={"mesh": "sub dir/a #1.glb"}),
        entry("big.png", 0, (2000, 1000)),
        film(),
    ]
    (tmp_path / "film 1.mp4").write_bytes(b"a small video")
    page.write_page(tmp_path / "index.html", iter(entries), FACES, "Two pictures", "No model.")
    shown = Page(tmp_path / "index.html")

    links = [attrs.get("src") or attrs.get("href") for _, attrs in shown.tags if "src" in attrs or "href" in attrs]
    pictures = [link for link in links if link.startswith("data:image/jpeg;base64,")]
    video = "data:video/mp4;base64," + base64.b64encode(b"a small video").decode()
    assert sorted(set(links) - set(pictures)) == ["#e0", "#e1", "#e2", video, "sub%20dir/a%20%231.glb"]
    assert {attrs.get("id") for attrs in shown.all("article")} == {"e0", "e1", "e2"}
    assert "http" not in (tmp_path / "index.html").read_text().replace("http-equiv", "")

    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(p.split(",")[1]), np.uint8), 1) for p in pictures]
    assert [picture.shape for picture in decoded] == [(30, 40, 3)] * 2 + [(1280, 640, 3)] * 2
    np.testing.assert_allclose(decoded[0][..., ::-1].mean((0, 1)), (200, 100, 50), atol=3)
    for text in ("Two pictures", "No model.", "distance (m)", "4.00", "1, 2, 31, 28", "\u2013", "Nobody here."):
        assert text in shown.words

    scene = shown.scenes()[0]
    for k, person in enumerate(scene["people"]):
        quantised = np.frombuffer(base64.b64decode(person["vertices"]), "<i2").reshape(-1, 3)
        restored = quantised * person["place"][3] + person["place"][:3]
        np.testing.assert_allclose(restored, (VERTICES + (k, 0, 0)) * (1, -1, -1), atol=1e-4)
        assert person["colour"] == [0.2, 0.4, 1.0]
    everyone = np.concatenate([VERTICES, VERTICES + (1, 0, 0)]) * (1, -1, -1)
    np.testing.assert_allclose([scene["low"], scene["high"]], [everyone.min(0), everyone.max(0)], atol=1e-3)
    assert "getContext" in shown.scripts[-1][1] and sum("getContext" in text for _, text in shown.scripts) == 1


@pytest.mark.parametrize("rows, size", [(65536, 2), (65537, 4)])
def test_faces_are_packed_without_overflow(tmp_path, rows, size):
    faces = np.array([[0, 1, rows - 1], [rows - 1, 2, 0]], np.uint32)
    page.write_page(tmp_path / "index.html", [], faces, "", "")
    packed = json.loads(Page(tmp_path / "index.html").scripts[0][1])
    assert packed["bytes"] == size
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed["data"]), f"<u{size}").reshape(-1, 3), faces)


def test_names_cannot_become_markup(tmp_path):
    nasty = '</h2><script>alert("1")</script> {{nav}} {% endfor %} & \udcff.jpg'
    person = page.Person(VERTICES, (1, 1, 1), {nasty: nasty})
    plain = entry(nasty, files={nasty: nasty})
    clip = page.Clip("javascript:alert(1)", 10.0, np.arange(3), np.arange(3))
    shown = page.PageEntry(nasty, plain.overlay, plain.side, [person], plain.files)
    other = page.PageEntry(nasty, plain.overlay, None, [person], plain.files, clip=clip)
    page.write_page(tmp_path / "index.html", [shown, other], FACES, nasty, nasty)
    shown = Page(tmp_path / "index.html")
    assert len(shown.all("script")) == 5  # faces, two scenes, timing, player and viewer
    assert shown.all("video")[0]["src"] == "javascript%3Aalert%281%29"  # a relative path, not a scheme
    assert (
        shown.words.count('</h2><script>alert("1")</script> {{nav}} {% endfor %} & ') == 13
    )  # title, h1, note, 2 x (h2, th, td, link), 2 in the nav
    assert "%FF.jpg" in shown.all("a")[0]["href"]  # the byte of the real file name


def test_limits_are_kept_and_stated(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_ENTRIES", 3)
    monkeypatch.setattr(page, "MAX_PEOPLE", 3)
    seen = []

    def stream():
        for k in range(5):
            made = entry(f"{k}.jpg", people=2)
            seen.append(weakref.ref(made))
            assert sum(ref() is not None for ref in seen) <= 2  # this one and, until it is asked for, the last one
            yield made
            del made

    page.write_page(tmp_path / "index.html", stream(), FACES, "", "")
    shown = Page(tmp_path / "index.html")
    assert len(shown.all("article")) == 3 and len(shown.scenes()) == 1
    assert "not on it: 2." in shown.words
    assert "pictures without a 3D view: 2." in shown.words
    page.write_page(tmp_path / "index.html", [entry()], FACES, "", "")
    assert "The page ends" not in Page(tmp_path / "index.html").words


def test_long_videos_are_not_packed_into_the_page(tmp_path, monkeypatch):
    for name in ("film 1.mp4", "film 2.mp4"):
        (tmp_path / name).write_bytes(bytes(100))
    monkeypatch.setattr(page, "MAX_VIDEO", 150)
    monkeypatch.setattr(page, "MAX_POSES", 3)
    page.write_page(tmp_path / "index.html", [film(), film("film 2.mp4"), film("gone.mp4")], FACES, "", "")
    shown = Page(tmp_path / "index.html")
    inside, *beside = [attrs["src"] for attrs in shown.all("video")]
    assert inside.startswith("data:") and beside == ["film%202.mp4", "gone.mp4"]
    assert len(shown.scenes()) == 1 + 3  # one scene, and the timing of each
    assert "pictures without a 3D view: 2." in shown.words


def test_a_failure_leaves_the_old_page(tmp_path):
    path = tmp_path / "index.html"
    path.write_text("old")

    def stream():
        yield entry()
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        page.write_page(path, stream(), FACES, "", "")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
