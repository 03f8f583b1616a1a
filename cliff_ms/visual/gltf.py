"""People through a video as one animated binary glTF (glTF 2.0, ISO/IEC 12113).

Written by hand: trimesh writes no skins. In glTF's frame: x right, y up, z towards the camera, metres.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.io.files import atomic_path
from cliff_ms.visual.meshes import camera_of
from cliff_ms.visual.motion import Rig, Track, y_up_motion
from cliff_ms.visual.render import vertex_normals

_COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_SHAPES: dict[tuple[int, ...], str] = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
_VERTEX_DATA, _FACE_DATA = 34962, 34963
_INFLUENCES = 4  # joints that move a vertex, at most: what glTF asks of every viewer


class _Glb:
    """A file in the making: its tree, and its numbers, equal arrays once."""

    def __init__(self) -> None:
        self.tree: dict = {
            "asset": {"version": "2.0", "generator": "cliff_ms"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            **{key: [] for key in ("nodes", "meshes", "materials", "skins", "animations", "cameras")},
            **{key: [] for key in ("accessors", "bufferViews")},
        }
        self.numbers = bytearray()
        self.known: dict[tuple, int] = {}

    def add(self, kind: str, **entry: object) -> int:
        """Add an entry to one of the tree's lists; return its place there."""
        self.tree[kind].append(entry)
        return len(self.tree[kind]) - 1

    def store(self, array: np.ndarray, target: int | None = None) -> int:
        """Store an array, one element per row; return its accessor."""
        array = np.ascontiguousarray(array)
        key = (array.tobytes(), array.dtype.name, array.shape)
        if key not in self.known:
            flat = array.reshape(len(array), -1)
            view = {"buffer": 0, "byteOffset": len(self.numbers), "byteLength": array.nbytes}
            self.numbers += array.tobytes() + bytes(-array.nbytes % 4)
            self.known[key] = self.add(
                "accessors",
                bufferView=self.add("bufferViews", **view, **({"target": target} if target else {})),
                componentType=_COMPONENTS[array.dtype.name],
                count=len(array),
                type=_SHAPES[array.shape[1:]],
                min=flat.min(0).tolist(),
                max=flat.max(0).tolist(),
            )
        return self.known[key]

    def write(self, path: str | Path) -> None:
        """Write the file: a header, the tree as JSON, the numbers."""
        tree = {key: value for key, value in self.tree.items() if value != []}
        text = json.dumps({**tree, "buffers": [{"byteLength": len(self.numbers)}]}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self.numbers)
        with atomic_path(path) as unfinished, unfinished.open("wb") as file:
            file.write(b"glTF" + _uint32(2, length) + _uint32(len(text)) + b"JSON" + text)
            file.write(_uint32(len(self.numbers)) + b"BIN\0")
            file.write(self.numbers)


def write_animation(
    path: str | Path, tracks: Sequence[Track], focal_length: float, img_hw: Sequence[int], frame_rate: float
) -> None:
    """Write the people of a video, moving, and the camera.

    Per track there is a node `person_<number>` with the skeleton and the skinned body below it, and an animation of the
    same name. Of several people there is a first animation, `everybody`, with all of them, as most programs play the
    first one only. Their time is that of `Track.times`. Without an animation, everybody is as in the own first frame. A
    person who is not there has scale 0, by which glTF hides nodes (section 3.5.3): before the first frame, after the
    last, and where two frames of the track are further apart than one and a half at `frame_rate`.

    The joints are exact, the skin is less so: it has no pose blend shapes, and each vertex follows its four strongest
    joints only. On the bundled body in recorded poses that moves a vertex by 0.9 mm on average, one in a hundred by
    more than 10 mm, the worst by 21 mm; nearly all of it for want of the blend shapes.

    Args:
        path: File to write.
        tracks: The people; at least one.
        focal_length: px.
        img_hw: Height and width of the video, px.
        frame_rate: Frames a second.
    """
    glb = _Glb()
    glb.add("cameras", **camera_of(focal_length, img_hw))
    nodes = [glb.add("nodes", name="camera", camera=0)]
    end = float(max(track.times[-1] for track in tracks))
    clips = {}
    for track in tracks:
        person = _add_person(glb, track)
        nodes.append(person)
        clips[f"person_{track.number}"] = _curves(glb, track, person, end, 1 / frame_rate)
    glb.tree["scenes"][0]["nodes"] = nodes
    if len(clips) > 1:
        clips = {"everybody": [curve for curves in clips.values() for curve in curves], **clips}
    for name, curves in clips.items():
        _add_animation(glb, name, curves)
    glb.write(path)


def four_influences(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The four strongest joints of each vertex.

    Args:
        weights: (V, J) skinning weights.

    Returns:
        Joints (V, 4) uint8, strongest first, 0 where there are fewer; their weights (V, 4) float32, which sum to 1.
    """
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :_INFLUENCES]
    strongest = np.take_along_axis(weights, joints, 1)
    strongest = (strongest / strongest.sum(1, keepdims=True)).astype(np.float32)
    return np.where(strongest > 0, joints, 0).astype(np.uint8), strongest


class _Curve(NamedTuple):
    """What a property of a node does; `times` and `values` are accessors."""

    node: int
    path: str
    times: int
    values: int
    interpolation: str = "LINEAR"


def _add_person(glb: _Glb, track: Track) -> int:
    """Add the nodes of a person, in the pose of the first frame: itself, its body, and its joints in their order."""
    rig, motion, name = track.rig, y_up_motion(track), f"person_{track.number}"
    places = rig.joints - rig.joints[rig.parents]
    places[0] = motion.pelvis[0]
    turns = continuous_quaternions(motion.rotmats[:1])[0]
    person = glb.add("nodes", name=name)
    body = glb.add("nodes", name=f"{name}_body", mesh=_add_mesh(glb, track, name))
    first = body + 1
    for joint, joint_name in enumerate(rig.joint_names):
        children = [first + int(child) for child in np.flatnonzero(rig.parents == joint)]
        below = {"children": children} if children else {}
        placed = {"translation": places[joint].tolist(), "rotation": turns[joint].tolist()}
        glb.add("nodes", name=joint_name, **placed, **below)
    glb.tree["nodes"][person]["children"] = [body, first]
    glb.tree["nodes"][body]["skin"] = _add_skin(glb, rig, name, first)
    return person


def _curves(glb: _Glb, track: Track, person: int, end: float, frame_time: float) -> list[_Curve]:
    """How the nodes of `_add_person` move."""
    motion, first = y_up_motion(track), person + 2
    moments = glb.store(track.times.astype(np.float32))
    turns = continuous_quaternions(motion.rotmats)  # (T, 24, 4)
    curves = [_Curve(first, "translation", moments, glb.store(motion.pelvis.astype(np.float32)))]
    curves += [
        _Curve(first + joint, "rotation", moments, glb.store(turns[:, joint])) for joint in range(turns.shape[1])
    ]
    changes, scales = _presence(track.times, end, frame_time)
    if not scales.all():
        curves.append(_Curve(person, "scale", glb.store(changes), glb.store(scales[:, None].repeat(3, 1)), "STEP"))
    return curves


def _add_animation(glb: _Glb, name: str, curves: Sequence[_Curve]) -> None:
    channels = [{"sampler": k, "target": {"node": curve.node, "path": curve.path}} for k, curve in enumerate(curves)]
    samplers = [
        {"input": curve.times, "output": curve.values, "interpolation": curve.interpolation} for curve in curves
    ]
    glb.add("animations", name=name, channels=channels, samplers=samplers)


def _add_mesh(glb: _Glb, track: Track, name: str) -> int:
    vertices = track.rig.vertices.astype(np.float32)
    joints, weights = four_influences(track.rig.weights)
    attributes = {
        "POSITION": vertices,
        "NORMAL": vertex_normals(vertices, track.rig.faces).astype(np.float32),
        "JOINTS_0": joints,
        "WEIGHTS_0": weights,
    }
    colour = {"baseColorFactor": [*track.colour, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8}
    primitive = {
        "attributes": {key: glb.store(values, _VERTEX_DATA) for key, values in attributes.items()},
        "indices": glb.store(track.rig.faces.astype(np.uint32).ravel(), _FACE_DATA),
        "material": glb.add("materials", name=name, pbrMetallicRoughness=colour),
    }
    return glb.add("meshes", name=name, primitives=[primitive])


def _add_skin(glb: _Glb, rig: Rig, name: str, first: int) -> int:
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (len(rig.joints), 1, 1))
    inverse_bind[:, 3, :3] = -rig.joints  # column by column, as glTF stores matrices
    joints = list(range(first, first + len(rig.joints)))
    return glb.add("skins", name=name, joints=joints, skeleton=first, inverseBindMatrices=glb.store(inverse_bind))


def continuous_quaternions(rotmats: np.ndarray) -> np.ndarray:
    """Quaternions x, y, z, w (T, J, 4), float32, on the side of the one before: programs interpolate them by number."""
    turns = Rotation.from_matrix(rotmats.reshape(-1, 3, 3)).as_quat().reshape(*rotmats.shape[:2], 4)
    agree = (turns[1:] * turns[:-1]).sum(-1, keepdims=True) >= 0
    turns[1:] *= np.where(agree, 1, -1).cumprod(0)
    return turns.astype(np.float32)


def _presence(times: np.ndarray, end: float, frame_time: float) -> tuple[np.ndarray, np.ndarray]:
    """When a person comes and goes, s, and the scale from then on, both (K,) float32 and the former ascending from 0.

    Args:
        times: (T,) s, when the person is there.
        end: s, of the last frame of anybody.
        frame_time: s.
    """
    gaps = np.flatnonzero(np.diff(times) > 1.5 * frame_time)
    comes = times[np.r_[0, gaps + 1]]
    goes = times[np.r_[gaps, len(times) - 1]] + frame_time
    changes = [(0.0, 0)] if comes[0] > 0 else []
    for come, go in zip(comes, goes, strict=True):
        changes += [(come, 1), (go, 0)]
    if times[-1] >= end:
        changes.pop()
    moments, scales = zip(*changes, strict=True)
    return np.array(moments, np.float32), np.array(scales, np.float32)


def _uint32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)
