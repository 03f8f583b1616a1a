"""Reader of the animations of a binary glTF file (GLB), as the specification of glTF 2.0 has them."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.io.errors import InputError
from poses.motion import PERIOD, Motion, chain

_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
_FLOAT = 5126


class _File:
    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        try:
            if data[:4] != b"glTF":
                raise ValueError("no magic word")
            (length,) = struct.unpack("<I", data[12:16])
            self.json = json.loads(data[20 : 20 + length])
            self.binary = data[28 + length :]
            self.nodes, self.animations = self.json["nodes"], self.json["animations"]
        except (ValueError, KeyError, struct.error):
            raise InputError(f"Motion '{path}' is no binary glTF file with animations.") from None

    def values(self, index: int) -> np.ndarray:
        """An accessor of floats, (count, width)."""
        accessor = self.json["accessors"][index]
        if accessor["componentType"] != _FLOAT:
            raise InputError("Motion: an animation holds something else than float numbers, which is not supported.")
        view = self.json["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        width = _WIDTHS[accessor["type"]]
        return np.frombuffer(self.binary, "<f4", accessor["count"] * width, start).reshape(-1, width)

    def order(self) -> tuple[list[int], list[int]]:
        """Nodes with parents first, and the place of each one's parent in that list."""
        order = [node for scene in self.json["scenes"] for node in scene["nodes"]]
        parents = [-1] * len(order)
        for place, node in enumerate(order):  # grows while it is walked
            children = self.nodes[node].get("children", [])
            order.extend(children)
            parents.extend([place] * len(children))
        return order, parents


def read_gltf(path: Path, rest: str, period: float = PERIOD) -> Iterator[tuple[str, Motion]]:
    """Read all animations but the one that shows the rest pose.

    Args:
        path: The file; its figure faces +z with y up. Scales of nodes are not read.
        rest: Name of the animation whose first frame is a T-pose.
        period: Seconds between frames taken.

    Yields:
        An animation's name and its motion.

    Raises:
        InputError: If the file is no GLB file or has no such animation.
    """
    file = _File(path)
    order, parents = file.order()
    bones = [file.nodes[node].get("name", "") for node in order]
    named = {animation["name"]: animation for animation in file.animations}
    if rest not in named:
        raise InputError(f"Motion '{path}' has no animation '{rest}', which tells the pose at rest.")
    still, _ = chain(parents, *_frames(file, named[rest], order, period))
    for name, animation in named.items():
        if name != rest:
            rotations, positions = chain(parents, *_frames(file, animation, order, period))
            yield name, Motion(bones, rotations, positions, still[0])


def _frames(file: _File, animation: dict, order: list[int], period: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, J, 3, 3) and offsets (T, J, 3) relative to the parent."""
    samplers = animation["samplers"]
    end = max(float(file.values(sampler["input"])[-1, 0]) for sampler in samplers)
    times = np.arange(0, end + 1e-6, period)
    nodes = [file.nodes[node] for node in order]
    quats = np.tile(np.array([node.get("rotation", (0, 0, 0, 1)) for node in nodes], np.float64), (len(times), 1, 1))
    offsets = np.tile(np.array([node.get("translation", (0, 0, 0)) for node in nodes], np.float64), (len(times), 1, 1))
    places = {node: place for place, node in enumerate(order)}
    for channel in animation["channels"]:
        target, sampler = channel["target"], samplers[channel["sampler"]]
        if target["path"] not in ("rotation", "translation"):
            continue
        keys, values = file.values(sampler["input"])[:, 0], file.values(sampler["output"])
        if sampler.get("interpolation") == "CUBICSPLINE":
            values = values[1::3]  # between two tangents
        nearest = np.abs(keys[None] - times[:, None]).argmin(1)  # keys lie closer than frames are taken
        (quats if target["path"] == "rotation" else offsets)[:, places[target["node"]]] = values[nearest]
    return Rotation.from_quat(quats.reshape(-1, 4)).as_matrix().reshape(*quats.shape[:2], 3, 3), offsets
