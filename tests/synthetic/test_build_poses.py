"""The builder of recorded poses: files written here, of skeletons turned in known ways, give their rotations back."""

import json
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
from build_poses import SOURCES, THINNING, thin
from poses import rigs
from poses.bvh import read_bvh
from poses.gltf import read_gltf
from poses.motion import Motion
from poses.retarget import furthest_off, retarget
from poses.text import read_exponential_maps, read_humanoid
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.body.skinning import global_rotations
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SMPL24

FRAMES = 4
CALM = ("neck", "head", "ankle", "foot", "wrist")  # little turned, so that no limit is reached


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def joints(body):
    return body.joint_regressor @ body.v_template


def tree(rig, joints, parents):
    """A skeleton of the rig's bones with the body's measures: joint, parent's place, offset from the parent."""
    rows, places = [], {}
    for index, joint in enumerate(SMPL24):
        if joint in rig.bones:
            above = parents[index]
            while above >= 0 and SMPL24[above] not in places:
                above = parents[above]
            offset = joints[index] - (joints[above] if above >= 0 else 0)
            rows.append((joint, places[SMPL24[above]] if above >= 0 else -1, offset))
            places[joint] = len(places)
    return rows


def known_turns(rows, seed=0):
    """Rotations (T, J) relative to the parent; the root pitches, and turns to another side in each frame."""
    rng, turns = np.random.default_rng(seed), []
    for joint, parent, _ in rows:
        if parent < 0:
            pitch, heading = np.linspace(0.1, 0.7, FRAMES), np.linspace(-2.5, 2.5, FRAMES)
            turns.append(Rotation.from_euler("YX", np.stack([heading, pitch], 1)))
        elif joint.endswith("wrist"):  # not about the forearm, whose roll is shared with the elbow
            turns.append(Rotation.from_rotvec(rng.normal(0, 0.2, (FRAMES, 1)) * (0, 0, 1)))
        else:
            turns.append(Rotation.from_rotvec(rng.normal(0, 0.05 if joint.endswith(CALM) else 0.5, (FRAMES, 3))))
    return turns


def expected_rotations(rows, turns):
    """SMPL's rotations for these: no heading, and the spine's turn shared by the joints that the rig leaves out."""
    expected = np.tile(np.eye(3), (FRAMES, 24, 1, 1))
    for (joint, parent, _), turn in zip(rows, turns, strict=True):
        vector = turn.as_rotvec()
        if parent < 0:
            vector = np.linspace(0.1, 0.7, FRAMES)[:, None] * (1, 0, 0)
        alone = {"spine3": ("spine3", "spine2"), "head": ("head",)}
        share = [j for j in alone.get(joint, (joint,)) if j == joint or j not in [row[0] for row in rows]]
        for shared in share:
            expected[:, SMPL24.index(shared)] = Rotation.from_rotvec(vector / len(share)).as_matrix()
    return expected


def write_bvh(path, rig, rows, turns, axes):
    """Offsets and turns are of a person who faces +z with y up; `axes` takes these to the file's frame."""
    lines = ["HIERARCHY"]

    def branch(place, depth):
        joint, parent, offset = rows[place]
        pad, angles = "  " * depth, "CHANNELS 3 Zrotation Xrotation Yrotation"
        if parent < 0:
            angles = "CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
        lines.append(f"{pad}{'ROOT' if parent < 0 else 'JOINT'} {rig.bones[joint]}")
        lines.append(f"{pad}{{\n{pad}OFFSET {' '.join(map(str, axes @ offset * 100))}\n{pad}{angles}")
        order.append(place)
        children = [k for k, row in enumerate(rows) if row[1] == place]
        for child in children:
            branch(child, depth + 1)
        if not children:
            lines.append(f"{pad}End Site\n{pad}{{\n{pad}OFFSET 1 2 3\n{pad}}}")
        lines.append(pad + "}")

    order = []
    branch(0, 0)
    columns = [np.zeros((FRAMES, 3))]
    for place in order:
        local = Rotation.from_matrix(axes @ turns[place].as_matrix() @ axes.T)
        columns.append(local.as_euler("ZYX" if place == 0 else "ZXY", degrees=True))
    lines += ["MOTION", f"Frames: {FRAMES}", "Frame Time: 0.0333333"]
    lines += [" ".join(f"{value:.9f}" for value in row) for row in np.concatenate(columns, 1)]
    path.write_text("\r\n".join(lines) + "\r\n")


@pytest.mark.parametrize(
    "rig, axes",
    [(replace(rigs.DAZ, roll=0), np.eye(3)), (replace(rigs.MAKEHUMAN, rolls=True), rigs.MAKEHUMAN_AXES)],
    ids=["daz", "makehuman"],
)
def test_bvh_gives_back_the_rotations_it_was_written_with(tmp_path, body, joints, rig, axes):
    rows = tree(rig, joints, body.parents)
    turns = known_turns(rows)
    write_bvh(tmp_path / "a.bvh", rig, rows, turns, axes.T)
    motion = read_bvh(tmp_path / "a.bvh").turned(axes)
    local = retarget(motion, rig, joints, body.parents)
    np.testing.assert_allclose(local, expected_rotations(rows, turns), atol=1e-6)
    assert furthest_off(motion, rig, local, joints, body.parents) < 1e-3


def test_hinges_of_cmu_become_hinges_of_smpl(tmp_path, body, joints):
    rows = tree(rigs.DAZ, joints, body.parents)
    angles = np.radians(np.linspace(0, 120, FRAMES))[:, None]
    turns = [Rotation.identity(FRAMES)] * len(rows)
    hinge = {"left_elbow": (0, -np.cos(np.pi / 6), 0.5), "right_elbow": (0, np.cos(np.pi / 6), -0.5)}
    for place, (joint, *_) in enumerate(rows):
        if joint in hinge:
            turns[place] = Rotation.from_rotvec(angles * hinge[joint])
    write_bvh(tmp_path / "a.bvh", rigs.DAZ, rows, turns, np.eye(3))
    local = retarget(read_bvh(tmp_path / "a.bvh"), rigs.DAZ, joints, body.parents)
    for joint, axis in (("left_elbow", (0, -1, 0)), ("right_elbow", (0, 1, 0))):
        vectors = Rotation.from_matrix(local[:, SMPL24.index(joint)]).as_rotvec()
        np.testing.assert_allclose(vectors, angles * axis, atol=0.01)


def write_glb(path, rig, rows, turns):
    """Bones have frames of their own at rest; the nodes lie in the file with children first."""
    rng, count = np.random.default_rng(5), len(rows)
    rest = Rotation.random(count, rng)
    still, moved = np.empty((1, count, 4)), np.empty((FRAMES, count, 4))
    for place, (_, parent, _) in enumerate(rows):
        above = rest[parent].inv() if parent >= 0 else Rotation.identity()
        still[:, place] = (above * rest[place]).as_quat()
        moved[:, place] = (above * turns[place] * rest[place]).as_quat()
    blob, accessors, views = b"", [], []

    def accessor(values, kind):
        nonlocal blob
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": values.size * 4})
        accessors.append({"bufferView": len(views) - 1, "componentType": 5126, "count": len(values), "type": kind})
        blob += values.astype("<f4").tobytes()
        return len(accessors) - 1

    def animation(name, quats):
        times = accessor(np.arange(len(quats))[:, None] / 30, "SCALAR")
        samplers = [{"input": times, "output": accessor(quats[:, place], "VEC4")} for place in range(count)]
        targets = [{"node": count - 1 - place, "path": "rotation"} for place in range(count)]
        channels = [{"sampler": k, "target": target} for k, target in enumerate(targets)]
        return {"name": name, "samplers": samplers, "channels": channels}

    nodes = []
    for place, (joint, parent, offset) in enumerate(rows):
        local = rest[parent].inv().apply(offset) if parent >= 0 else offset
        children = [count - 1 - k for k, row in enumerate(rows) if row[1] == place]
        nodes.append({"name": rig.bones[joint], "translation": local.tolist(), "children": children})
    content = {
        "scenes": [{"nodes": [count - 1]}],
        "nodes": nodes[::-1],
        "animations": [animation("Walk", moved), animation("T-Pose", still)],
        "accessors": accessors,
        "bufferViews": views,
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
    path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)


def test_glb_gives_back_the_rotations_it_was_written_with(tmp_path, body, joints):
    rows = tree(rigs.RIGIFY, joints, body.parents)
    turns = known_turns(rows)
    write_glb(tmp_path / "a.glb", rigs.RIGIFY, rows, turns)
    ((name, motion),) = read_gltf(tmp_path / "a.glb", "T-Pose")
    assert name == "Walk"
    local = retarget(motion, replace(rigs.RIGIFY, rolls=True), joints, body.parents)
    np.testing.assert_allclose(local, expected_rotations(rows, turns), atol=1e-5)
    with pytest.raises(InputError, match="no animation 'Rest'"):
        next(read_gltf(tmp_path / "a.glb", "Rest"))


def test_thighs_and_upper_arms_that_do_not_roll_are_rolled(tmp_path, body, joints):
    rows = tree(rigs.RIGIFY, joints, body.parents)
    turns = dict(zip((row[0] for row in rows), known_turns(rows), strict=True))
    for side, outward in (("left", 1), ("right", -1)):
        for lower, hinge in (("knee", (1, 0, 0)), ("elbow", (0, -outward, 0))):
            turns[f"{side}_{lower}"] = Rotation.from_rotvec(np.pi / 2 * np.tile(hinge, (FRAMES, 1)))
    clean = expected_rotations(rows, turns.values())
    for side in ("left", "right"):
        for upper, lower in (("hip", "knee"), ("shoulder", "elbow")):
            bone = np.subtract(*(joints[SMPL24.index(f"{side}_{joint}")] for joint in (lower, upper)))
            lost = Rotation.from_rotvec(np.linspace(-1, 1, FRAMES)[:, None] * bone / np.linalg.norm(bone))
            turns[f"{side}_{upper}"] = turns[f"{side}_{upper}"] * lost
            turns[f"{side}_{lower}"] = lost.inv() * turns[f"{side}_{lower}"]
    write_glb(tmp_path / "a.glb", rigs.RIGIFY, rows, list(turns.values()))
    ((_, motion),) = read_gltf(tmp_path / "a.glb", "T-Pose")
    local = retarget(motion, rigs.RIGIFY, joints, body.parents)
    np.testing.assert_allclose(local, clean, atol=0.02)


def directions(local, joints, parents, *limbs):
    """Of limbs in the body's frame, each (T, 3)."""
    turned = global_rotations(local, parents)
    for start, end in limbs:
        way = joints[SMPL24.index(end)] - joints[SMPL24.index(start)]
        yield turned[:, SMPL24.index(start)] @ (way / np.linalg.norm(way))


def test_humanoid_bends_as_its_angles_say(tmp_path, body, joints):
    frames = np.zeros((3, 44))
    frames[:, 0] = 1 / 30
    frames[:, [4, 8, 12, 16, 21, 25, 30, 35, 39]] = 1  # no turn, w x y z
    frames[1, 43], frames[1, 20] = np.pi / 2, -np.pi / 2  # left elbow, right knee
    frames[2, 25:29] = Rotation.from_euler("x", -1.2).as_quat()[[3, 0, 1, 2]]  # right arm: about the way ahead
    (tmp_path / "a.txt").write_text(json.dumps({"Loop": "none", "Frames": frames.tolist()}))
    motion = read_humanoid(tmp_path / "a.txt")
    local = retarget(motion, rigs.HUMANOID, joints, body.parents)
    forearm, shin, arm = directions(
        local, joints, body.parents,
        ("left_elbow", "left_wrist"), ("right_knee", "right_ankle"), ("right_shoulder", "right_elbow"),
    )  # fmt: skip
    np.testing.assert_allclose(forearm, [(0, -1, 0), (0, 0, 1), (0, -1, 0)], atol=1e-6)
    np.testing.assert_allclose(shin, [(0, -1, 0), (0, 0, -1), (0, -1, 0)], atol=1e-6)
    np.testing.assert_allclose(arm[2], (-np.sin(1.2), -np.cos(1.2), 0), atol=1e-6)
    assert furthest_off(motion, rigs.HUMANOID, local, joints, body.parents) < 1e-3


def test_exponential_maps_act_on_row_vectors(tmp_path, body, joints):
    """Against the benchmark's own rule: R = exp(r) R_parent, x = x_parent + offset R_parent, vectors being rows."""
    rng = np.random.default_rng(3)
    maps = rng.normal(0, 0.3, (FRAMES, 38, 3))
    maps[:, 0] = np.linspace(-0.5, 0.5, FRAMES)[:, None] * (1, 0, 0)
    heading = np.concatenate([maps, maps[:1]])
    heading[-1, 0] = (0, np.pi / 2, 0)  # such frames are left out
    rows = np.concatenate([np.zeros((FRAMES + 1, 3)), heading.reshape(FRAMES + 1, -1)], 1)
    np.savetxt(tmp_path / "a.txt", rows, "%.6f", ",")
    motion = read_exponential_maps(tmp_path / "a.txt")
    local = retarget(motion, rigs.BENCHMARK, joints, body.parents)
    assert len(local) == FRAMES
    chains = {  # bones from the root on, and the way along the last one
        ("left_hip", "left_knee"): ((0, 1, 2), (2.5972, -7.13576, 0)),
        ("right_knee", "right_ankle"): ((0, 7, 8, 9), (-2.4678, -6.78024, 0)),
        ("left_elbow", "left_wrist"): ((0, 13, 14, 15, 20, 21, 22), (3.35554, 0, 0)),
    }
    # As the files have it, bone 13's parent is the root and 20's is 15.
    for (ends, (chain, offset)), ours in zip(
        chains.items(), directions(local, joints, body.parents, *chains), strict=True
    ):
        world = np.tile(np.eye(3), (FRAMES, 1, 1))
        for bone in chain:
            world = Rotation.from_rotvec(maps[:, bone]).as_matrix() @ world
        theirs = np.array(offset) / np.linalg.norm(offset) @ world
        np.testing.assert_allclose(ours, theirs, atol=2e-3, err_msg=str(ends))


@pytest.mark.parametrize(
    "read", [read_bvh, read_humanoid, read_exponential_maps, lambda path: next(read_gltf(path, ""))]
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, read):
    (tmp_path / "notes.txt").write_text("HIERARCHY of needs\n")
    with pytest.raises(InputError, match="Motion '.*notes.txt' "):
        read(tmp_path / "notes.txt")


def test_glitches_of_one_frame_are_left_out():
    angles = np.array([0, 5, 10, 95, 20, 25, 60, 95, 130])  # a jump there and back; a quick turn
    turns = Rotation.from_euler("y", angles[:, None], degrees=True).as_matrix()[:, None]
    motion = Motion(["hip"], turns, np.zeros((9, 1, 3)), np.eye(3)[None]).steady(["hip"])
    kept = Rotation.from_matrix(motion.rotations[:, 0]).as_rotvec(degrees=True)[:, 1]
    np.testing.assert_allclose(kept, np.delete(angles, 3), atol=1e-9)


@pytest.mark.parametrize(
    "path, found",
    [
        ("acrnn_train_data_bvh_salsa_01.bvh", ("salsa", "salsa_01")),
        ("iclone_All_BVH_subjects_007_007_08.bvh", ("007", "007_08")),
        ("convseq_data_cmu_mocap_test_soccer_soccer_1.txt", ("soccer", "test_soccer_soccer_1")),
        ("convseq_data_cmu_mocap_train_walking_extra_walking_33.txt", ("walking", "train_walking_extra_walking_33")),
        ("jump_data_vae_txt_cmu81-85_85_85_02.txt", ("85", "85_02")),
        ("jump_data_vae_txt_extra_humanoid3d_roll.txt", None),
        ("acrnn_train_data_bvh_standard.bvh", None),
    ],
)
def test_subjects_and_clips_are_read_off_the_names(path, found):
    (source,) = (source for source in SOURCES if source.folder == path.split("_")[0])
    match = re.search(source.file, path)
    assert (match and (match["subject"], match["clip"])) == found


def test_thinning_keeps_poses_apart_and_leaves_none_out_that_is_far():
    places = np.random.default_rng(0).normal(0, 0.018, (400, 14, 3)).astype(np.float32)
    rows = thin(places)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1).mean(-1)
    kept = apart[np.ix_(rows, rows)] + np.eye(len(rows))
    assert kept.min() >= THINNING
    assert 1 < len(rows) < len(places)
    assert (apart[:, rows].min(1) < THINNING)[np.setdiff1d(np.arange(400), rows)].all()
