"""People who move before a camera, and a reader of animated glTF that shares nothing with the writer."""

import json
import struct

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from cliff_ms.body.skinning import rest_shape
from cliff_ms.keypoints import SMPL24
from cliff_ms.visual.motion import Rig, Track

TO_Y_UP = np.diag([1.0, -1.0, -1.0])


def make_track(body, key_poses, number, frames, rate=30.0, seed=0):
    """A walk past the camera through poses (K, 24, 3, 3) of upright bodies with y up, one a second."""
    rng = np.random.default_rng(seed)
    frames = np.asarray(frames)
    times = frames / rate
    when = np.arange(len(key_poses)) * max(1.0, times[-1] / (len(key_poses) - 1))
    rotmats = np.stack(
        [Slerp(when, Rotation.from_matrix(turns))(times).as_matrix() for turns in key_poses.swapaxes(0, 1)], 1
    )
    heading = Rotation.from_rotvec(np.outer(0.5 + times, (0, 1, 0))).as_matrix()
    rotmats[:, 0] = TO_Y_UP @ heading @ rotmats[:, 0]
    betas = rng.standard_normal(10)
    rig = Rig(*rest_shape(body, betas), body.weights, np.array(body.parents), body.faces, SMPL24)
    path = np.outer(times, (0.6, 0.0, 0.3)) + rng.uniform((-1, -0.2, 4), (0, 0.2, 6))
    return Track(number, frames, times, rotmats.astype(np.float32), betas, path, rig, (0.2, 0.4, 1.0))


class Gltf:
    """An animated GLB, by the specification: what a program sees at a time."""

    def __init__(self, path):
        content = path.read_bytes()
        magic, version, length, size, kind = struct.unpack("<4sIII4s", content[:20])
        assert (magic, version, length, kind, size % 4) == (b"glTF", 2, len(content), b"JSON", 0)
        self.tree = json.loads(content[20 : 20 + size])
        size, kind = struct.unpack("<I4s", content[20 + size : 28 + size])
        assert kind == b"BIN\0" and size % 4 == 0
        self.numbers = content[-size:]
        assert self.tree["buffers"] == [{"byteLength": len(self.numbers)}]

    def array(self, accessor):
        entry = self.tree["accessors"][accessor]
        view = self.tree["bufferViews"][entry["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        dtype = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[entry["componentType"]]
        shape = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}[entry["type"]]
        raw = self.numbers[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        array = np.frombuffer(raw, dtype).reshape(entry["count"], *shape)
        flat = array.reshape(len(array), -1)
        np.testing.assert_array_equal(flat.min(0), entry["min"])
        np.testing.assert_array_equal(flat.max(0), entry["max"])
        return array

    def node(self, name):
        (index,) = [k for k, node in enumerate(self.tree["nodes"]) if node.get("name") == name]
        return index

    def animation(self, name):
        (entry,) = [entry for entry in self.tree["animations"] if entry["name"] == name]
        for channel in entry["channels"]:
            sampler = entry["samplers"][channel["sampler"]]
            yield (
                channel["target"],
                self.array(sampler["input"]),
                self.array(sampler["output"]),
                sampler["interpolation"],
            )

    def locals_at(self, name, time):
        """Translation, rotation and scale of every node while this animation plays."""
        kinds = {"translation": (0, 0, 0), "rotation": (0, 0, 0, 1), "scale": (1, 1, 1)}
        state = [{kind: np.array(node.get(kind, rest)) for kind, rest in kinds.items()} for node in self.tree["nodes"]]
        for target, times, values, interpolation in self.animation(name) if name else ():
            assert (np.diff(times) > 0).all() and len(times) == len(values)
            k = int(np.clip(np.searchsorted(times, time + 1e-6, "right") - 1, 0, len(times) - 1))
            value = np.float64(values[k])
            if interpolation == "LINEAR" and k + 1 < len(times):
                share = (np.clip(time, times[k], times[k + 1]) - times[k]) / (times[k + 1] - times[k])
                if target["path"] == "rotation":
                    value = Slerp([0, 1], Rotation.from_quat(values[k : k + 2]))(share).as_quat()
                else:
                    value = (1 - share) * values[k] + share * values[k + 1]
            state[target["node"]][target["path"]] = value
        return state

    def globals_at(self, name, time=0.0):
        """4 x 4 matrices of every node."""
        state, found = self.locals_at(name, time), {}

        def visit(index, above):
            matrix, local = np.eye(4), state[index]
            matrix[:3, :3] = Rotation.from_quat(local["rotation"]).as_matrix() * local["scale"]
            matrix[:3, 3] = local["translation"]
            found[index] = above @ matrix
            for child in self.tree["nodes"][index].get("children", ()):
                visit(child, found[index])

        for root in self.tree["scenes"][self.tree["scene"]]["nodes"]:
            visit(root, np.eye(4))
        assert len(found) == len(self.tree["nodes"])
        return found

    def pose(self, name, time=0.0, animation=None):
        """Joints (24, 3) and skinned vertices (V, 3) of a person."""
        everything = self.globals_at(animation, time)
        node = self.tree["nodes"][self.node(f"{name}_body")]
        skin, (primitive,) = self.tree["skins"][node["skin"]], self.tree["meshes"][node["mesh"]]["primitives"]
        joints = np.stack([everything[joint] for joint in skin["joints"]])
        inverse_bind = self.array(skin["inverseBindMatrices"]).swapaxes(1, 2)
        data = {key: self.array(accessor) for key, accessor in primitive["attributes"].items()}
        blended = np.einsum("vk,vkxy->vxy", data["WEIGHTS_0"], (joints @ inverse_bind)[data["JOINTS_0"]])
        vertices = np.einsum("vxy,vy->vx", blended, np.c_[data["POSITION"], np.ones(len(data["POSITION"]))])
        return joints[:, :3, 3], vertices[:, :3]
