"""Everybody of a photo or a video and the camera as one binary glTF (Khronos, glTF 2.0).

The frame is glTF's: x right, y up, z towards the camera, m; the camera is at the origin and looks along -z.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.io.files import atomic_path
from cliff_ms.visual.motion import Y_UP, Track
from cliff_ms.visual.render import vertex_normals

_FLOAT, _BYTE, _SHORT, _INT = 5126, 5121, 5123, 5125
_KINDS = {np.dtype("<f4"): _FLOAT, np.dtype("u1"): _BYTE, np.dtype("<u2"): _SHORT, np.dtype("<u4"): _INT}
_SHAPES = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
_VERTICES, _FACES = 34962, 34963  # what a buffer view is for
INFLUENCES = 4  # joints that a vertex follows: what every program reads
_NEAREST = 0.05  # m, of the camera


class Camera(NamedTuple):
    """The camera of the full image.

    Attributes:
        focal_length: px.
        img_hw: Height and width, px.
    """

    focal_length: float
    img_hw: tuple[int, int]


class _File:
    """A glTF in the making."""

    def __init__(self, camera: Camera) -> None:
        height, width = camera.img_hw
        lens = {"yfov": 2 * float(np.arctan(height / 2 / camera.focal_length)), "aspectRatio": width / height}
        self.content: dict[str, list] = {
            name: [] for name in ("accessors", "bufferViews", "meshes", "materials", "nodes", "skins", "animations")
        }
        self.content["cameras"] = [{"type": "perspective", "perspective": {**lens, "znear": _NEAREST}}]
        self.top = [self.put("nodes", {"name": "camera", "camera": 0})]
        self._bytes = bytearray()

    def put(self, kind: str, item: dict) -> int:
        """Append, and say where."""
        self.content[kind].append(item)
        return len(self.content[kind]) - 1

    def array(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Append numbers, one row per element."""
        values = np.ascontiguousarray(values)
        view = {"buffer": 0, "byteOffset": len(self._bytes), "byteLength": values.nbytes}
        self._bytes += values.tobytes() + b"\0" * (-values.nbytes % 4)
        accessor = {
            "bufferView": self.put("bufferViews", view | ({"target": target} if target else {})),
            "componentType": _KINDS[values.dtype],
            "count": len(values),
            "type": _SHAPES[values.shape[1:]],
        }
        if bounds:
            low, high = (np.atleast_1d(f(values, 0)).tolist() for f in (np.min, np.max))
            accessor |= {"min": low, "max": high}
        return self.put("accessors", accessor)

    def mesh(self, vertices: np.ndarray, faces: np.ndarray, colour: Sequence[float], more: dict[str, int]) -> int:
        """Append a mesh of a matt colour."""
        attributes = {
            "POSITION": self.array(vertices.astype("<f4"), _VERTICES, bounds=True),
            "NORMAL": self.array(vertex_normals(vertices.astype(np.float32), faces).astype("<f4"), _VERTICES),
            **more,
        }
        # Without a material a viewer must take the mesh for metal (glTF 2.0, 3.9.2), black without surroundings.
        surface = {"baseColorFactor": [*map(float, colour), 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8}
        material = self.put("materials", {"pbrMetallicRoughness": surface})
        kind = "<u2" if len(vertices) <= 1 << 16 else "<u4"
        indices = self.array(faces.ravel().astype(kind), _FACES)
        return self.put(
            "meshes", {"primitives": [{"attributes": attributes, "indices": indices, "material": material}]}
        )

    def write(self, path: str | Path) -> None:
        """Write it as GLB."""
        content = {name: items for name, items in self.content.items() if items}
        content |= {
            "asset": {"version": "2.0", "generator": "cliff_ms"},
            "scene": 0,
            "scenes": [{"nodes": self.top}],
            "buffers": [{"byteLength": len(self._bytes)}],
        }
        text = json.dumps(content, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = b"".join(
            len(data).to_bytes(4, "little") + kind + data for kind, data in ((b"JSON", text), (b"BIN\0", self._bytes))
        )
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(b"glTF" + b"".join(n.to_bytes(4, "little") for n in (2, 12 + len(chunks))) + chunks)


class Shape(NamedTuple):
    """A person as she is.

    Attributes:
        number: Who it is.
        vertices: (V, 3) m, camera frame.
        colour: RGB in [0, 1].
    """

    number: int
    vertices: np.ndarray
    colour: Sequence[float]


def write_people(path: str | Path, people: Sequence[Shape], faces: np.ndarray, camera: Camera) -> None:
    """Write people of a photo.

    Args:
        path: The .glb: nodes `person_<number>` and `camera`.
        people: The people.
        faces: (F, 3).
        camera: The camera.
    """
    file = _File(camera)
    for person in people:
        mesh = file.mesh(person.vertices @ Y_UP.T, faces, person.colour, {})
        file.top.append(file.put("nodes", {"name": f"person_{person.number}", "mesh": mesh}))
    file.write(path)


def write_tracks(path: str | Path, tracks: Sequence[Track], camera: Camera) -> None:
    """Write the people of a video as skinned bodies that move.

    Each has a skeleton with the joints' names, and an animation `track_<number>`; the first animation is `everybody`,
    since programs play one. Outside the frames of a track its body is shrunk to nothing. Vertices follow the four
    joints that move them most; pose blend shapes are left out.

    Args:
        path: The .glb: nodes `person_<number>` and `camera`.
        tracks: The people.
        camera: The camera.
    """
    file = _File(camera)
    start, end = (f([f(track.times) for track in tracks]) if tracks else 0.0 for f in (min, max))
    for track in tracks:
        _add_track(file, track, start, end)
    clips = file.content["animations"]
    together = {"name": "everybody", "samplers": [], "channels": []}
    for clip in clips:
        before = len(together["samplers"])
        together["samplers"] += clip["samplers"]
        together["channels"] += [channel | {"sampler": before + channel["sampler"]} for channel in clip["channels"]]
    clips[:0] = [together] if clips else []
    file.write(path)


def _add_track(file: _File, track: Track, start: float, end: float) -> None:
    rig, joints = track.rig, len(track.rig.joints)
    quaternions = _continuous(Rotation.from_matrix(track.turns.reshape(-1, 3, 3)).as_quat().reshape(-1, joints, 4))
    at_parent = rig.joints - rig.joints[np.maximum(rig.parents, 0)]
    first = len(file.content["nodes"])
    for joint in range(joints):
        children = [first + child for child, parent in enumerate(rig.parents) if parent == joint]
        place = at_parent[joint] if joint else track.root[0]
        node = {"name": rig.names[joint], "translation": place.tolist(), "rotation": quaternions[0, joint].tolist()}
        file.put("nodes", node | ({"children": children} if children else {}))
    inverse = np.tile(np.eye(4), (joints, 1, 1))
    inverse[:, 3, :3] = -rig.joints  # column by column
    skin = {"joints": list(range(first, first + joints)), "inverseBindMatrices": file.array(inverse.astype("<f4"))}
    followed = np.argsort(-rig.weights, 1, kind="stable")[:, :INFLUENCES]
    weights = np.take_along_axis(rig.weights, followed, 1).astype(np.float64)
    skinning = {
        "JOINTS_0": file.array(np.where(weights > 0, followed, 0).astype("u1"), _VERTICES),
        "WEIGHTS_0": file.array((weights / weights.sum(1, keepdims=True)).astype("<f4"), _VERTICES),
    }
    mesh = file.mesh(rig.vertices, rig.faces, track.colour, skinning)
    skinned = file.put(
        "nodes", {"name": f"body_{track.number}", "mesh": mesh, "skin": file.put("skins", {**skin, "skeleton": first})}
    )
    file.top.append(file.put("nodes", {"name": f"person_{track.number}", "children": [first, skinned]}))
    file.put("animations", _animation(file, track, quaternions, first, start, end))


def _animation(file: _File, track: Track, quaternions: np.ndarray, first: int, start: float, end: float) -> dict:
    """The clip of a track, counted from the start of the video's."""
    times = file.array((track.times - start).astype("<f4"), bounds=True)
    samplers, channels = [], []

    def move(node: int, path: str, at: int, values: np.ndarray, interpolation: str = "LINEAR") -> None:
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
        samplers.append({"input": at, "output": file.array(values.astype("<f4")), "interpolation": interpolation})

    move(first, "translation", times, track.root)
    for joint in range(quaternions.shape[1]):
        move(first + joint, "rotation", times, quaternions[:, joint])
    # There for as long as she is seen: from her first frame to the one after her last.
    after = track.times[-1] + (np.median(np.diff(track.times)) if len(track.times) > 1 else 0.0)
    here = [(start, 0.0)] * (track.times[0] > start) + [(track.times[0], 1.0)] + [(after, 0.0)] * (after < end)
    if len(here) > 1:
        moments, sizes = np.array(here).T
        shown = file.array((moments - start).astype("<f4"), bounds=True)
        move(first, "scale", shown, np.repeat(sizes[:, None], 3, 1), "STEP")
    return {"name": f"track_{track.number}", "samplers": samplers, "channels": channels}


def _continuous(quaternions: np.ndarray) -> np.ndarray:
    """The same turns (T, J, 4) without changes of sign from frame to frame, which would be a full turn in between."""
    flips = np.einsum("tjk,tjk->tj", quaternions[1:], quaternions[:-1]) < 0
    signs = np.concatenate([np.ones_like(quaternions[:1, :, 0]), np.where(flips, -1.0, 1.0)])
    return quaternions * np.cumprod(signs, 0)[..., None]
