"""AMASS, BVH and glTF files, read back by readers of their own: the joints and the skin that went in."""

import dataclasses
import json

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from cliff_ms import load_body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.body.skinning import global_rotations
from cliff_ms.inference.video import rig_of
from cliff_ms.keypoints import SMPL24
from cliff_ms.visual.gltf import Camera, Shape, write_people, write_tracks
from cliff_ms.visual.motion import Track, write_amass, write_bvh

Y_UP = np.array([1, -1, -1])
CAMERA = Camera(900.0, (720, 1280))


@pytest.fixture(scope="module")
def body():
    return load_body()


def make_track(body, number=0, frames=12, start=0.0, seed=0):
    rng = np.random.default_rng(seed)
    times = start + np.arange(frames) / 25
    axes = rng.normal(0, 0.4, (24, 3))
    swing = np.sin(3 * times[:, None] + rng.uniform(0, 6, 24))[..., None] * axes
    swing[:, 0] += np.outer(4 * times, (0, 1, 0))  # past half a turn, where quaternions change their sign
    rotmats = Rotation.from_rotvec(swing.reshape(-1, 3)).as_matrix().reshape(frames, 24, 3, 3)
    rotmats[:, 0] = np.diag([1.0, -1, -1]) @ rotmats[:, 0]
    translation = np.stack([times, 0.1 * times, 4 + times], 1)
    betas = rng.normal(size=10)
    return Track(number, times, rotmats, betas, translation, rig_of(body, betas), (0.5, 0.6, 0.9))


def true_joints(body, track):
    """(T, 24, 3) m, y up, by another way than the rig."""
    joints, _ = Kinematics(body, SMPL24)(track.rotmats, np.tile(track.betas, (len(track.times), 1)))
    return (joints + track.translation[:, None]) * Y_UP


def pose(parents, offsets, turns, root):
    """Joints (T, J, 3) by forward kinematics."""
    whole = global_rotations(turns, parents)
    places = np.zeros((*turns.shape[:2], 3))
    places[:, 0] = root
    for joint in range(1, len(parents)):
        parent = parents[joint]
        places[:, joint] = places[:, parent] + whole[:, parent] @ offsets[joint]
    return places


def test_amass(body, tmp_path):
    track = make_track(body)
    write_amass(tmp_path / "a.npz", track)
    file = np.load(tmp_path / "a.npz")
    assert file["poses"].shape == (12, 156) and str(file["gender"]) == "neutral"
    assert file["mocap_framerate"] == pytest.approx(25) and not file["poses"][:, 66:].any()
    rest = body.joint_regressor @ (body.v_template + body.shapedirs[..., :10] @ file["betas"])
    turns = Rotation.from_rotvec(file["poses"][:, :66].reshape(-1, 3)).as_matrix().reshape(-1, 22, 3, 3)
    offsets = rest - rest[np.maximum(body.parents, 0)]
    joints = pose(body.parents[:22], offsets[:22], turns, rest[0] + file["trans"])
    np.testing.assert_allclose(joints, true_joints(body, track)[:, :22], atol=1e-3)


def read_bvh(path):
    """Names, parents, offsets, turns (T, J, 3, 3), root (T, 3), seconds a frame."""
    head, motion = path.read_text().split("MOTION\n")
    names, parents, offsets, above, is_end = [], [], [], [], False
    for words in (line.split() for line in head.splitlines()):
        if words[0] in ("ROOT", "JOINT"):
            parents.append(above[-1] if above else -1)
            names.append(words[1])
        is_end = words[0] == "End" or (is_end and words[0] != "}")
        if words[0] == "{":
            above.append(len(names) - 1)
        elif words[0] == "}":
            above.pop()
        elif words[0] == "CHANNELS":
            moves = ["Xposition", "Yposition", "Zposition"] * (len(names) == 1)
            assert words[2:] == [*moves, "Zrotation", "Xrotation", "Yrotation"] and int(words[1]) == len(words) - 2
        elif words[0] == "OFFSET" and not is_end:
            offsets.append([float(word) for word in words[1:]])
    lines = motion.splitlines()
    values = np.array([line.split() for line in lines[2:]], float)
    assert lines[0] == f"Frames: {len(values)}"
    turns = Rotation.from_euler("ZXY", values[:, 3:].reshape(-1, 3), degrees=True).as_matrix()
    turns = turns.reshape(len(values), -1, 3, 3)
    return names, parents, np.array(offsets), turns, values[:, :3], float(lines[1].split(": ")[1])


def test_bvh(body, tmp_path):
    track = make_track(body)
    write_bvh(tmp_path / "a.bvh", track)
    names, parents, offsets, turns, root, period = read_bvh(tmp_path / "a.bvh")
    assert sorted(names) == sorted(SMPL24) and period == pytest.approx(1 / 25)
    joints = pose(parents, offsets, turns, root) / 100
    np.testing.assert_allclose(joints, true_joints(body, track)[:, [SMPL24.index(name) for name in names]], atol=1e-3)


def test_uneven_times_become_even_ones(body, tmp_path):
    track = make_track(body, frames=40)
    kept = np.delete(np.arange(40), [5, 6, 20, 33])
    fewer = {name: getattr(track, name)[kept] for name in ("times", "rotmats", "translation")}
    uneven = dataclasses.replace(track, **fewer)
    write_amass(tmp_path / "a.npz", uneven)
    file = np.load(tmp_path / "a.npz")
    assert len(file["trans"]) == 40 and file["mocap_framerate"] == pytest.approx(25)
    expected = track.root - track.rig.joints[0]
    np.testing.assert_allclose(file["trans"], expected, atol=5e-3)


class Glb:
    """A reader of what is in a GLB."""

    def __init__(self, path):
        data = path.read_bytes()
        length = int.from_bytes(data[12:16], "little")
        assert data[:4] == b"glTF" and int.from_bytes(data[8:12], "little") == len(data)
        self.content, self.bytes = json.loads(data[20 : 20 + length]), data[28 + length :]
        self.nodes = self.content["nodes"]
        self.named = {node["name"]: k for k, node in enumerate(self.nodes)}

    def array(self, number):
        accessor = self.content["accessors"][number]
        view = self.content["bufferViews"][accessor["bufferView"]]
        kind = {5126: "<f4", 5121: "u1", 5123: "<u2", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor["type"]]
        values = np.frombuffer(self.bytes, kind, accessor["count"] * width, view["byteOffset"])
        return values.reshape(accessor["count"], width).astype(float)

    def at(self, animation, key):
        """Matrices of all nodes at a key frame of an animation, where every sampler but that of scale has it."""
        state = [dict(node) for node in self.nodes]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            if channel["target"]["path"] != "scale":
                state[channel["target"]["node"]][channel["target"]["path"]] = self.array(sampler["output"])[key]
        whole = {}

        def place(number, above):
            own = np.eye(4)
            own[:3, :3] = Rotation.from_quat(state[number].get("rotation", (0, 0, 0, 1))).as_matrix()
            own[:3, 3] = state[number].get("translation", (0, 0, 0))
            whole[number] = above @ own
            for child in state[number].get("children", ()):
                place(child, whole[number])

        for number in self.content["scenes"][0]["nodes"]:
            place(number, np.eye(4))
        return whole


def test_gltf_of_a_video_moves_joints_and_skin(body, tmp_path):
    tracks = [make_track(body, 3), make_track(body, 8, frames=6, start=0.2, seed=1)]
    write_tracks(tmp_path / "a.glb", tracks, CAMERA)
    glb = Glb(tmp_path / "a.glb")
    assert {"camera", "person_3", "person_8"} <= set(glb.named)
    lens = glb.content["cameras"][0]["perspective"]
    assert lens["yfov"] == pytest.approx(2 * np.arctan(360 / 900)) and lens["aspectRatio"] == pytest.approx(16 / 9)
    everybody, *clips = glb.content["animations"]
    moved = [[(channel["target"], clip["samplers"][channel["sampler"]]) for channel in clip["channels"]]
             for clip in (everybody, *clips)]  # fmt: skip
    assert everybody["name"] == "everybody" and moved[0] == moved[1] + moved[2]
    for track, animation, skin in zip(tracks, clips, glb.content["skins"], strict=True):
        assert animation["name"] == f"track_{track.number}"
        np.testing.assert_allclose(glb.array(animation["samplers"][0]["input"])[:, 0], track.times, atol=1e-6)
        inverse = glb.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
        node = glb.nodes[glb.named[f"body_{track.number}"]]
        attributes = glb.content["meshes"][node["mesh"]]["primitives"][0]["attributes"]
        points, joints, weights = (glb.array(attributes[name]) for name in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
        for key in (0, 4, len(track.times) - 1):
            placed = glb.at(animation, key)
            bones = np.stack([placed[joint] for joint in skin["joints"]])
            np.testing.assert_allclose(bones[:, :3, 3], true_joints(body, track)[key], atol=1e-3)
            moved = np.einsum("vk,vkij->vij", weights, (bones @ inverse)[joints.astype(int)])
            skinned = np.einsum("vij,vj->vi", moved[:, :3, :3], points) + moved[:, :3, 3]
            whole = np.einsum("vk,kij->vij", body.weights.astype(float), bones @ inverse)
            exact = np.einsum("vij,vj->vi", whole[:, :3, :3], points) + whole[:, :3, 3]
            off = np.linalg.norm(skinned - exact, axis=1)
            assert off.max() < 0.02 and off.mean() < 1e-3
        turns = np.stack([glb.array(sampler["output"]) for sampler in animation["samplers"][1:25]])
        np.testing.assert_allclose(np.linalg.norm(turns, axis=-1), 1, atol=1e-6)
        assert (np.einsum("jtk,jtk->jt", turns[:, 1:], turns[:, :-1]) > 0).all()


def test_who_is_not_there_all_the_time_is_shrunk_away(body, tmp_path):
    write_tracks(tmp_path / "a.glb", [make_track(body, 0), make_track(body, 1, frames=5, start=0.12)], CAMERA)
    glb = Glb(tmp_path / "a.glb")
    _, *clips = glb.content["animations"]
    first, second = ([channel["target"]["path"] for channel in clip["channels"]] for clip in clips)
    assert "scale" not in first and second[-1] == "scale"
    sampler = clips[1]["samplers"][-1]
    assert sampler["interpolation"] == "STEP" and glb.array(sampler["output"])[:, 0].tolist() == [0, 1, 0]
    np.testing.assert_allclose(glb.array(sampler["input"])[:, 0], [0, 0.12, 0.32], atol=1e-6)


def test_gltf_of_a_photo_is_opened_by_trimesh(body, tmp_path):
    vertices = np.stack([body.v_template * (1, -1, -1) + (x, 0, 5) for x in (-1, 1)])
    shapes = [Shape(k, *shape) for k, shape in enumerate(zip(vertices, [(1, 0, 0), (0, 0, 1)], strict=True), 3)]
    write_people(tmp_path / "a.glb", shapes, body.faces, CAMERA)
    assert {"person_3", "person_4", "camera"} == set(Glb(tmp_path / "a.glb").named)
    scene = trimesh.load(tmp_path / "a.glb")
    meshes = [scene.geometry[scene.graph[f"person_{k}"][1]] for k in (3, 4)]
    for mesh, points, colour in zip(meshes, vertices, ((255, 0, 0, 255), (0, 0, 255, 255)), strict=True):
        np.testing.assert_allclose(mesh.bounds, [(points * Y_UP).min(0), (points * Y_UP).max(0)], atol=1e-5)
        material = mesh.visual.material
        assert tuple(material.baseColorFactor) == colour and material.metallicFactor == 0
        assert len(mesh.faces) == len(body.faces) and mesh.is_winding_consistent
        outward = mesh.vertices - mesh.vertices.mean(0)
        assert (mesh.vertex_normals * outward).sum(1).mean() > 0  # the flip is a rotation: nothing turns inside out
