"""Files of motion, read back by readers of the tests' own and compared with the float64 reference of SMPL."""

import dataclasses

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_npz
from cliff_ms.keypoints import SMPL24
from cliff_ms.visual import gltf, motion
from tests.paths import ZOO
from tests.toys.body import toy_body
from tests.toys.motion import TO_Y_UP, Gltf, make_track
from tests.toys.reference import reference_smpl

FOCAL, IMG_HW, RATE = 900.0, (720, 1280), 30.0


def recorded_poses(count=4):
    with np.load(ZOO / "poses" / "free.npz") as table:
        vectors = table["pose"].astype(float)
    rows = np.linspace(0, len(vectors) - 1, count).astype(int)
    return Rotation.from_rotvec(vectors[rows].reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)


@pytest.fixture(scope="module", params=["toy", "bundled"])
def body(request):
    return toy_body() if request.param == "toy" else load_body()


@pytest.fixture(scope="module")
def tracks(body):
    """One who is there all the time, and one who comes later, is lost for a while, and leaves before the end."""
    poses = recorded_poses()
    return [
        make_track(body, poses, 3, range(60)),
        make_track(body, poses[::-1], 7, [*range(12, 20), *range(29, 40)], seed=1),
    ]


def truth(body, track):
    """Vertices and the 24 joints at the track's frames, m, y up."""
    vertices, joints = reference_smpl(body, np.tile(track.betas, (len(track.times), 1)), track.rotmats.astype(float))
    return tuple((points + track.translation[:, None]) @ TO_Y_UP for points in (vertices, joints[:, :24]))


def read_bvh(path):
    """Names, parents (-1 for the root), offsets and channels of the joints in the file's order; rows; frame time."""
    words = iter(path.read_text().split())
    names, parents, offsets, channels, open_, ends = [], [], [], [], [], 0
    for word in words:
        if word in ("ROOT", "JOINT", "End"):
            if word == "End":
                ends += 1
            names.append(next(words))
            parents.append(open_[-1] if open_ else -1)
            channels.append([])
            offsets.append(None)
        elif word == "{":
            open_.append(len(names) - 1)
        elif word == "}":
            open_.pop()
        elif word == "OFFSET":
            offsets[-1] = [float(next(words)) for _ in range(3)]
        elif word == "CHANNELS":
            channels[-1] = [next(words) for _ in range(int(next(words)))]
        elif word == "MOTION":
            break
    assert [next(words), int(count := next(words)), next(words), next(words)] == [
        "Frames:",
        int(count),
        "Frame",
        "Time:",
    ]
    frame_time = float(next(words))
    rows = np.array([float(word) for word in words]).reshape(int(count), -1)
    keep = [k for k, name in enumerate(names) if name != "Site"]
    assert ends == len(names) - len(keep) == 5
    parents = [keep.index(parents[k]) if parents[k] >= 0 else -1 for k in keep]
    return (
        [names[k] for k in keep],
        parents,
        np.array(offsets)[keep],
        [channels[k] for k in keep],
        rows,
        float(frame_time),
    )


def bvh_joints(path):
    """Name -> places (T, 3) cm, by turning about one axis after the other."""
    names, parents, offsets, channels, rows, _ = read_bvh(path)
    turns, places, column = [], [], 0
    for joint, parent in enumerate(parents):
        turn, shift = np.tile(np.eye(3), (len(rows), 1, 1)), np.tile(offsets[joint], (len(rows), 1))
        for channel in channels[joint]:
            value, axis = rows[:, column], "XYZ".index(channel[0])
            column += 1
            if channel.endswith("position"):
                shift[:, axis] += value
            else:
                turn = turn @ Rotation.from_rotvec(np.outer(np.radians(value), np.eye(3)[axis])).as_matrix()
        if parent >= 0:
            shift = places[parent] + np.einsum("txy,ty->tx", turns[parent], shift)
            turn = turns[parent] @ turn
        places.append(shift)
        turns.append(turn)
    assert column == rows.shape[1]
    return dict(zip(names, places, strict=True))


def test_gaps_are_filled_and_times_become_even(body, tracks):
    for track in tracks:
        filled = motion.at_constant_rate(track, RATE)
        assert len(filled.pelvis) == len(filled.rotmats) == track.frames[-1] - track.frames[0] + 1
        given_ = track.frames - track.frames[0]
        np.testing.assert_allclose(filled.rotmats[given_], motion.y_up_motion(track).rotmats, atol=1e-6)
        np.testing.assert_allclose(filled.pelvis[given_], truth(body, track)[1][:, 0], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.01, 0.3), max_size=12), st.sampled_from([12.5, 24.0, 29.97, 30.0]))
def test_steady_motion_stays_so_whatever_its_times(steps, rate):
    track = make_track(toy_body(), recorded_poses(2), 0, range(len(steps) + 1))
    times = 2 + np.cumsum([0, *steps])
    axis, speed = np.array([0.6, 0.0, 0.8]), np.array([0.5, -0.2, 1.0])
    steady = Rotation.from_rotvec(np.outer(times, 1.5 * axis)).as_matrix()[:, None].repeat(24, 1)
    track = dataclasses.replace(track, times=times, rotmats=steady, translation=np.outer(times, speed))
    made = motion.at_constant_rate(track, rate)
    expected = np.minimum(2 + np.arange(len(made.pelvis)) / rate, times[-1])
    assert abs(times[-1] - 2 - (len(expected) - 1) / rate) <= 0.5 / rate + 1e-9
    np.testing.assert_allclose(
        made.rotmats[:, 5], Rotation.from_rotvec(np.outer(expected, 1.5 * axis)).as_matrix(), atol=1e-9
    )
    pelvis = (np.outer(expected, speed) + track.rig.joints[0]) @ TO_Y_UP
    np.testing.assert_allclose(made.pelvis, pelvis, atol=1e-9)


def test_amass_gives_the_joints(body, tracks, tmp_path):
    for track in tracks:
        path = tmp_path / f"clip_{track.number}_amass.npz"
        motion.write_amass(path, track, RATE, "neutral")
        data = read_npz(path, "Motion")
        count = track.frames[-1] - track.frames[0] + 1
        assert (data["poses"].shape, data["betas"].shape, str(data["gender"])) == ((count, 165), (16,), "neutral")
        assert data["mocap_framerate"] == data["mocap_frame_rate"] == 30
        np.testing.assert_array_equal(data["poses"][:, :66], np.c_[data["root_orient"], data["pose_body"]])
        assert not data["poses"][:, 66:].any()
        vectors = np.concatenate([data["poses"][:, :66], np.zeros((count, 6))], 1)
        rotmats = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
        _, joints = reference_smpl(body, np.tile(data["betas"][:10], (count, 1)), rotmats)
        places = (joints + data["trans"][:, None])[track.frames - track.frames[0], :24]
        np.testing.assert_allclose(places, truth(body, track)[1], atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip_3_amass.npz", "clip_7_amass.npz"]


@pytest.mark.parametrize(("rate", "stated"), [(30000 / 1001, 30), (24000 / 1001, 24), (12.5, 12.5), (60, 60)])
def test_amass_states_a_rate_that_add_ons_take(tmp_path, rate, stated):
    track = make_track(toy_body(), recorded_poses(2), 0, range(40), rate)
    motion.write_amass(tmp_path / "a.npz", track, rate, "female")
    data = read_npz(tmp_path / "a.npz", "Motion")
    assert data["mocap_framerate"] == stated and len(data["trans"]) == 40
    pelvis = track.rig.joints[0] + track.translation
    np.testing.assert_allclose((track.rig.joints[0] + data["trans"]) @ TO_Y_UP, pelvis, atol=1e-6)


def test_bvh_gives_the_joints(body, tracks, tmp_path):
    for track in tracks:
        path = tmp_path / f"clip_{track.number}.bvh"
        motion.write_bvh(path, track, RATE)
        names, parents, offsets, channels, rows, frame_time = read_bvh(path)
        assert sorted(names) == sorted(SMPL24) and frame_time == pytest.approx(1 / RATE, abs=1e-8)
        assert len(rows) == track.frames[-1] - track.frames[0] + 1
        assert len(channels[0]) == 6 and {len(each) for each in channels[1:]} == {3}
        order = [SMPL24.index(name) for name in names]
        assert [order[parent] if parent >= 0 else -1 for parent in parents] == [body.parents[joint] for joint in order]
        rest = track.rig.joints[order]
        np.testing.assert_allclose(offsets[1:], 100 * (rest[1:] - rest[parents[1:]]), atol=1e-4)
        places = bvh_joints(path)
        expected = truth(body, track)[1]
        for joint, name in enumerate(SMPL24):
            seen = places[name][track.frames - track.frames[0]] / 100
            np.testing.assert_allclose(seen, expected[:, joint], atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip_3.bvh", "clip_7.bvh"]


def test_bvh_ends_at_the_skin(tmp_path):
    """The end sites of the bundled body are near its surface, upwards of the head, and forwards of the feet."""
    body = load_body()
    track = make_track(body, recorded_poses(2), 0, [0])
    motion.write_bvh(tmp_path / "a.bvh", track, RATE)
    lines = [line.strip() for line in (tmp_path / "a.bvh").read_text().splitlines()]
    ends = {}
    for k, line in enumerate(lines):
        if line.startswith("JOINT"):
            name = line.split()[1]
        elif line == "End Site":
            ends[name] = np.array([float(word) for word in lines[k + 2].split()[1:]]) / 100
    assert set(ends) == {"left_foot", "right_foot", "head", "left_hand", "right_hand"}
    tips = {name: track.rig.joints[SMPL24.index(name)] + end for name, end in ends.items()}
    for tip in tips.values():
        assert np.linalg.norm(track.rig.vertices - tip, axis=1).min() < 0.05
    assert ends["head"][1] > 0.1 and ends["left_foot"][2] > 0.02 and ends["left_hand"][0] > 0.02 > ends["right_hand"][0]


def test_bvh_angles_hold_at_the_lock_and_do_not_jump(tmp_path):
    """A thigh that rises through 90 degrees, where two of the three angles turn about one axis, and a full turn."""
    track = make_track(toy_body(), recorded_poses(2), 0, range(73))
    rotmats = np.tile(np.eye(3), (73, 24, 1, 1))
    rotmats[:, 0] = Rotation.from_rotvec(np.outer(np.radians(np.arange(73) * 10), (0, 1, 0))).as_matrix()
    raised = np.c_[np.full(73, 20), np.linspace(-60, -120, 73)]
    rotmats[:, 1] = Rotation.from_euler("yx", raised, degrees=True).as_matrix()
    track = dataclasses.replace(track, rotmats=rotmats)
    motion.write_bvh(tmp_path / "a.bvh", track, RATE)
    names, _, _, _, rows, _ = read_bvh(tmp_path / "a.bvh")
    column = 3 + 3 * names.index("left_hip")
    seen = Rotation.from_euler("ZXY", rows[:, column : column + 3], degrees=True).as_matrix()
    np.testing.assert_allclose(seen, rotmats[:, 1], atol=1e-6)
    root = rows[:, 3:6]
    assert np.abs(np.diff(root, axis=0)).max() < 10.01 and np.ptp(root, axis=0).max() == pytest.approx(720, abs=0.01)


@pytest.fixture(scope="module")
def animation(tracks, tmp_path_factory):
    path = tmp_path_factory.mktemp("gltf") / "clip.glb"
    gltf.write_animation(path, tracks, FOCAL, IMG_HW, RATE)
    assert list(path.parent.iterdir()) == [path]
    return path


def test_gltf_has_people_and_the_camera_by_name(tracks, animation):
    scene = Gltf(animation)
    tree = scene.tree
    assert [tree["nodes"][k]["name"] for k in tree["scenes"][0]["nodes"]] == ["camera", "person_3", "person_7"]
    assert [entry["name"] for entry in tree["animations"]] == ["everybody", "person_3", "person_7"]
    assert [[tree["nodes"][k]["name"] for k in skin["joints"]] for skin in tree["skins"]] == [list(SMPL24)] * 2
    camera = tree["nodes"][scene.node("camera")]
    assert set(camera) == {"name", "camera"}  # at the origin, looking along -z
    view = tree["cameras"][camera["camera"]]["perspective"]
    assert view["yfov"] == pytest.approx(2 * np.arctan(360 / 900)) and view["aspectRatio"] == pytest.approx(16 / 9)
    for track in tracks:
        for target, times, values, _ in scene.animation(f"person_{track.number}"):
            if target["path"] != "scale":
                np.testing.assert_allclose(times, track.times, atol=1e-6)
            if target["path"] == "rotation":
                np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
                assert ((values[1:] * values[:-1]).sum(1) > 0).all()


def test_gltf_gives_joints_and_skin(body, tracks, animation):
    """The joints are SMPL's, and the skin is that of four influences without pose blend shapes."""
    scene = Gltf(animation)
    weights = body.weights.astype(float)
    for row in weights:
        row[sorted(range(24), key=lambda joint: -row[joint])[4:]] = 0
        row /= row.sum()
    plain = dataclasses.replace(body, weights=weights, posedirs=0 * body.posedirs)
    for track in tracks:
        expected, (vertices, _) = truth(body, track)[1], truth(plain, track)
        for k in range(0, len(track.times), 6):
            name = f"person_{track.number}"
            joints, skin = scene.pose(name, track.times[k], "everybody" if k % 12 else name)
            np.testing.assert_allclose(joints, expected[k], atol=2e-5)
            np.testing.assert_allclose(skin, vertices[k], atol=2e-5)
        joints, skin = scene.pose(f"person_{track.number}")
        np.testing.assert_allclose(joints, expected[0], atol=2e-5)
        np.testing.assert_allclose(skin, vertices[0], atol=2e-5)


def test_the_skin_costs_what_its_docstring_says(tmp_path):
    body = load_body()
    with np.load(ZOO / "poses" / "cmu.npz") as table:
        vectors = table["pose"][table["test"]][::70].astype(float)
    poses = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    track = make_track(body, poses, 0, range(0, 30 * len(poses), 30))  # at the poses themselves
    gltf.write_animation(tmp_path / "a.glb", [track], FOCAL, IMG_HW, RATE)
    scene, exact = Gltf(tmp_path / "a.glb"), truth(body, track)[0]
    shown = np.stack([scene.pose("person_0", time, "person_0")[1] for time in track.times])
    moved = 1000 * np.linalg.norm(shown - exact, axis=-1)
    assert 0.5 < moved.mean() < 1.2 and np.quantile(moved, 0.99) < 12 and moved.max() < 25
    assert np.median(moved, axis=1).max() < 0.5


def test_gltf_projects_to_the_pictures_pixels(body, tracks, animation):
    """Through the camera's node, as a viewer does, the joints land where f X / Z puts them."""
    scene, track = Gltf(animation), tracks[0]
    view = scene.tree["cameras"][0]["perspective"]
    joints, _ = scene.pose("person_3", track.times[30], "person_3")
    at_camera = joints @ np.linalg.inv(scene.globals_at(None)[scene.node("camera")])[:3, :3].T
    tangent = np.tan(view["yfov"] / 2)
    device = at_camera[:, :2] / -at_camera[:, 2:] / (tangent * view["aspectRatio"], tangent)
    pixels = (device * (1, -1) + 1) / 2 * IMG_HW[::-1]
    in_camera = truth(body, track)[1][30] @ TO_Y_UP
    expected = FOCAL * in_camera[:, :2] / in_camera[:, 2:] + np.array(IMG_HW[::-1]) / 2
    np.testing.assert_allclose(pixels, expected, atol=0.05)


def test_gltf_hides_who_is_not_there(tracks, animation):
    scene = Gltf(animation)
    assert not [target for target, *_ in scene.animation("person_3") if target["path"] == "scale"]
    person = scene.node("person_7")
    for frame in range(60):
        scale = scene.locals_at("person_7", frame / RATE)[person]["scale"]
        assert scale.tolist() == [float(frame in tracks[1].frames)] * 3
        if not scale.any():
            assert not np.ptp(scene.pose("person_7", frame / RATE, "everybody")[1], axis=0).any()
    before = scene.locals_at(None, 0)[person]["scale"]
    assert before.all()  # without the animation everybody is seen


def test_gltf_opens_in_trimesh(body, tracks, animation):
    scene = trimesh.load(animation, process=False)
    assert sorted(scene.geometry) == ["person_3", "person_7"]
    for track in tracks:
        mesh = scene.geometry[f"person_{track.number}"]
        np.testing.assert_array_equal(mesh.faces, body.faces)
        np.testing.assert_allclose(mesh.vertices, track.rig.vertices, atol=1e-6)
        np.testing.assert_array_equal(mesh.visual.material.baseColorFactor, (51, 102, 255, 255))
    # What people have in common is stored once.
    tree = Gltf(animation).tree
    attributes = [mesh["primitives"][0] for mesh in tree["meshes"]]
    assert attributes[0]["indices"] == attributes[1]["indices"]
    assert attributes[0]["attributes"]["POSITION"] != attributes[1]["attributes"]["POSITION"]


def test_one_frame_is_a_motion_too(body, tmp_path):
    track = make_track(body, recorded_poses(2), 2, [0])
    motion.write_amass(tmp_path / "a.npz", track, RATE, "neutral")
    motion.write_bvh(tmp_path / "a.bvh", track, RATE)
    gltf.write_animation(tmp_path / "a.glb", [track], FOCAL, IMG_HW, RATE)
    (expected,) = truth(body, track)[1]
    assert len(read_npz(tmp_path / "a.npz", "Motion")["poses"]) == 1
    np.testing.assert_allclose(
        [place[0] / 100 for place in bvh_joints(tmp_path / "a.bvh").values()],
        expected[[SMPL24.index(name) for name in bvh_joints(tmp_path / "a.bvh")]],
        atol=1e-4,
    )
    np.testing.assert_allclose(Gltf(tmp_path / "a.glb").pose("person_2")[0], expected, atol=2e-5)


def test_four_influences_of_fewer_and_of_more():
    weights = np.zeros((3, 24))
    weights[0, 5] = 1
    weights[1, [2, 9, 4]] = 0.2, 0.5, 0.3
    weights[2, :6] = 0.3, 0.05, 0.25, 0.15, 0.05, 0.2
    joints, shares = gltf.four_influences(weights)
    assert joints.tolist() == [[5, 0, 0, 0], [9, 4, 2, 0], [0, 2, 5, 3]]
    expected = [[1, 0, 0, 0], [0.5, 0.3, 0.2, 0], np.array([0.3, 0.25, 0.2, 0.15]) / 0.9]
    np.testing.assert_allclose(shares, expected, rtol=1e-6)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    track = make_track(toy_body(), recorded_poses(2), 0, [0, 1])
    for write in (
        lambda path: motion.write_amass(path, track, RATE, "neutral"),
        lambda path: motion.write_bvh(path, track, RATE),
        lambda path: gltf.write_animation(path, [track], FOCAL, IMG_HW, RATE),
    ):
        with pytest.raises(InputError, match="Cannot write '.*nowhere"):
            write(tmp_path / "nowhere" / "a")
