"""What a browser is given to show bodies in 3D: numbers in base64, in glTF's frame, see `meshes`.

A person of a photo comes as vertices. One of a video comes as a body at rest and, for each frame, 24 quaternions and a
place, 204 bytes: the browser poses the skeleton and moves the skin, as `gltf` describes it and with the same loss.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cliff_ms.visual.gltf import continuous_quaternions, four_influences
from cliff_ms.visual.meshes import TO_GLTF
from cliff_ms.visual.motion import Track, y_up_motion

_MAX_INT16 = 32767
_MARGIN = 0.5  # m around a map


@dataclass(frozen=True, eq=False)
class Clip:
    """An overlay that plays beside its people.

    Attributes:
        path: Of the MP4, relative to the page.
        fps: Its frames a second.
        frames: (T,) int, ascending: those of the video that it shows, as `Track.frames` counts.
        starts: (T,) int, the MP4's frame from which each of them is shown.
    """

    path: str
    fps: float
    frames: np.ndarray
    starts: np.ndarray


def pack(array: np.ndarray) -> str:
    """An array's bytes in base64."""
    return base64.b64encode(array.tobytes()).decode("ascii")


def pack_faces(faces: np.ndarray) -> dict:
    """(F, 3) as integers of 2 or 4 bytes."""
    size = 2 if np.max(faces) < 1 << 16 else 4
    return {"bytes": size, "data": pack(np.asarray(faces, f"<u{size}"))}


def photo_scene(people: Sequence[np.ndarray], colours: Sequence[Sequence[float]]) -> dict:
    """A 3D view of a photo.

    Args:
        people: (V, 3) m each, camera frame.
        colours: RGB in [0, 1] each.

    Returns:
        The people, and the box around all of them.
    """
    meshes = [np.asarray(vertices, np.float32) * TO_GLTF for vertices in people]
    low, high = np.min([mesh.min(0) for mesh in meshes], 0), np.max([mesh.max(0) for mesh in meshes], 0)
    packed = [_packed_skin(mesh, colour) for mesh, colour in zip(meshes, colours, strict=True)]
    return {"low": low.round(4).tolist(), "high": high.round(4).tolist(), "people": packed}


def video_scene(tracks: Sequence[Track]) -> dict:
    """A 3D view of a video: bodies at rest, what moves their skin, and their poses."""
    joints, weights = four_influences(tracks[0].rig.weights)
    people = []
    for track in tracks:
        motion = y_up_motion(track)
        turns = np.round(_MAX_INT16 * continuous_quaternions(motion.rotmats))
        people.append(
            {
                **_packed_skin(track.rig.vertices, track.colour),
                "joints": track.rig.joints.round(5).tolist(),
                "turns": pack(turns.astype("<i2")),
                "pelvis": pack(motion.pelvis.astype("<f4")),
            }
        )
    influences = {"joints": pack(joints), "weights": pack(np.round(255 * weights).astype(np.uint8))}
    return {"parents": tracks[0].rig.parents.tolist(), **influences, "people": people}


def timing(clip: Clip, tracks: Sequence[Track]) -> dict:
    """When what is shown: for each person, which of `clip.frames` her poses belong to."""
    return {
        "fps": clip.fps,
        "starts": clip.starts.tolist(),
        "people": [np.searchsorted(clip.frames, track.frames).tolist() for track in tracks],
    }


def map_from_above(tracks: Sequence[Track]) -> dict:
    """Where people walked, as lines in m: x to the right, y towards the camera, which is at the origin."""
    ways = [y_up_motion(track).pelvis[:, [0, 2]] for track in tracks]
    everywhere = np.concatenate([*ways, np.zeros((1, 2))])
    low, high = everywhere.min(0) - _MARGIN, everywhere.max(0) + _MARGIN
    step = 10 ** max(0, int(np.ceil(np.log10((high - low).max() / 20))))
    return {
        "low": low.round(3).tolist(),
        "size": (high - low).round(3).tolist(),
        "step": step,
        "grid": [(np.arange(np.ceil(a / step), b / step) * step).tolist() for a, b in zip(low, high, strict=True)],
        "ways": [
            (track.colour, " ".join(f"{x:.2f},{y:.2f}" for x, y in way))
            for track, way in zip(tracks, ways, strict=True)
        ],
    }


def _packed_skin(vertices: np.ndarray, colour: Sequence[float]) -> dict:
    """Vertices (V, 3) m as int16, with what they are counted from and in."""
    low, high = vertices.min(0), vertices.max(0)
    centre, unit = (low + high) / 2, max(float((high - low).max()) / 2 / _MAX_INT16, 1e-9)
    return {
        "place": [round(float(x), 6) for x in centre] + [unit],
        "colour": [round(float(c), 3) for c in colour],
        "vertices": pack(np.round((vertices - centre) / unit).clip(-_MAX_INT16, _MAX_INT16).astype("<i2")),
    }
