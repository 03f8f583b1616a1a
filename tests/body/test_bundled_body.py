"""Invariants of the bundled body, read from the committed file: float64, independent of package and build."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.paths import ZOO
from tests.toys.reference import reference_smpl

BODY_DIR = ZOO / "body"
JOINT_NAMES = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hand right_hand"
).split()
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
FLIP = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
REFLECT = np.array([-1.0, 1.0, 1.0])
REGRESSORS = ("J_regressor", "J_regressor_h36m", "J_regressor_extra", "J_regressor_coco")
# Side of every row: L, R or M (midline). The left leg comes first in h36m, the right hip first in extra.
SIDES = {
    "J_regressor": "".join({"l": "L", "r": "R"}[n[0]] if "_" in n else "M" for n in JOINT_NAMES),
    "J_regressor_h36m": "MLLLRRRMMMMLLLRRR",
    "J_regressor_extra": "RLMMMMMMM",
    "J_regressor_coco": "MLRLRLRLRLRLRLRLR",
}
# The vertices that smplx appends to the joints.
EXTRA_NAMES = (
    "nose right_eye left_eye right_ear left_ear left_big_toe left_small_toe left_heel right_big_toe right_small_toe "
    "right_heel left_thumb left_index left_middle left_ring left_pinky right_thumb right_index right_middle right_ring "
    "right_pinky"
).split()
SHAPES = {
    "v_template": ("V", 3), "shapedirs": ("V", 3, 10), "posedirs": ("V", 3, 207), "weights": ("V", 24), "f": ("F", 3),
    "J_regressor": (24, "V"), "J_regressor_h36m": (17, "V"), "J_regressor_extra": (9, "V"),
    "J_regressor_coco": (17, "V"), "kintree_table": (2, 24), "extra_vertex_ids": (21,), "joint_names": (24,),
    "mirror_vertex_ids": ("V",), "license": (), "format_version": (), "gender": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def body():
    with np.load(BODY_DIR / "neutral.npz", allow_pickle=False) as file:
        return {key: file[key].astype(np.float64) if file[key].dtype == np.float32 else file[key] for key in file}


@pytest.fixture(scope="module")
def joints(body):
    return dict(zip(JOINT_NAMES, body["J_regressor"] @ body["v_template"], strict=True))


def pose_body(body, rotvecs, betas=(0.0,) * 10):
    """Vertices (V, 3) and the 24 joints (24, 3)."""
    smpl = SimpleNamespace(**body, joint_regressor=body["J_regressor"], parents=PARENTS)
    vertices, joints = reference_smpl(smpl, np.array(betas), Rotation.from_rotvec(rotvecs).as_matrix())
    return vertices, joints[:24]


def volume(vertices, faces):
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return np.einsum("ij,ij->", a, np.cross(b, c)) / 6


def plausible_pose(rng):
    rotvecs = rng.normal(0.0, 0.2, (24, 3))
    rotvecs[[4, 5], 0] += rng.uniform(0, 1.5, 2)  # knees flex about +x
    rotvecs[[18, 19], 1] += rng.uniform(0, 1.5, 2) * [-1, 1]  # elbows flex forwards
    return rotvecs


def test_keys_shapes_and_types(body):
    sizes = {"V": len(body["v_template"]), "F": len(body["f"])}
    assert {key: value.shape for key, value in body.items()} == {
        key: tuple(sizes.get(size, size) for size in shape) for key, shape in SHAPES.items()
    }
    with np.load(BODY_DIR / "neutral.npz") as file:
        single = {key for key in file if file[key].dtype == np.float32}
        assert single == {"v_template", "shapedirs", "posedirs", "weights", *REGRESSORS}
        assert (file["f"].dtype, file["kintree_table"].dtype) == (np.uint32, np.uint32)
    assert all(np.isfinite(body[key]).all() for key in single)
    assert sizes["V"] != 6890  # SMPL's own regressors must not fit by accident
    assert sizes["V"] > 6787  # the largest vertex id that smplx picks by default


def test_provenance(body):
    assert str(body["license"]).startswith("CC0-1.0")
    assert "not SMPL" in str(body["license"])
    assert int(body["format_version"]) == 1
    assert str(body["gender"]) == "neutral"
    text = (BODY_DIR / "LICENSE.md").read_text()
    assert "CC0 1.0 Universal" in text
    assert "It is not SMPL and contains no SMPL data" in " ".join(text.split())


def test_surface_is_closed_oriented_and_genus_zero(body):
    faces = body["f"].astype(int)
    assert np.array_equal(np.unique(faces), np.arange(len(body["v_template"])))
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = set(map(tuple, edges.tolist()))
    assert len(directed) == len(edges)  # no directed edge twice ...
    assert all((b, a) in directed for a, b in directed)  # ... and each with its opposite
    assert len(body["v_template"]) - len(edges) // 2 + len(faces) == 2  # Euler
    reached, frontier = {0}, {0}  # one component: with Euler 2, a sphere
    neighbours = {}
    for a, b in directed:
        neighbours.setdefault(a, set()).add(b)
    while frontier:
        frontier = set().union(*(neighbours[vertex] for vertex in frontier)) - reached
        reached |= frontier
    assert len(reached) == len(body["v_template"])
    assert 0.055 < volume(body["v_template"], faces) < 0.085  # m3; negative if the faces were inside out


def test_rest_body_is_exactly_mirror_symmetric(body):
    mirror = body["mirror_vertex_ids"]
    assert np.array_equal(mirror[mirror], np.arange(len(mirror)))
    assert np.array_equal(body["v_template"][mirror] * REFLECT, body["v_template"])
    assert np.array_equal(body["shapedirs"][mirror] * REFLECT[:, None], body["shapedirs"])
    assert np.array_equal(body["weights"][mirror][:, FLIP], body["weights"])
    assert np.array_equal(body["J_regressor"][FLIP][:, mirror], body["J_regressor"])
    triangles = {frozenset(face) for face in body["f"].tolist()}
    assert {frozenset(face) for face in mirror[body["f"].astype(int)].tolist()} == triangles


def test_weights_are_convex(body):
    assert body["weights"].min() >= 0
    np.testing.assert_allclose(body["weights"].sum(1), 1, atol=1e-6)
    # Each joint moves vertices of its own side only.
    x = body["v_template"][:, 0]
    for name, column in zip(JOINT_NAMES, body["weights"].T, strict=True):
        if name.startswith(("left_", "right_")):
            strong = x[column > 0.5]
            assert (strong * (1 if name.startswith("left_") else -1) > 0).all(), name


@pytest.mark.parametrize("key", REGRESSORS)
def test_regressors_are_convex_and_on_their_side(body, key):
    assert body[key].min() >= 0
    np.testing.assert_allclose(body[key].sum(1), 1, atol=1e-6)
    x = (body[key] @ body["v_template"])[:, 0]
    sides = np.array(list(SIDES[key]))
    assert (x[sides == "L"] > 0.02).all()
    assert (x[sides == "R"] < -0.02).all()
    assert (np.abs(x[sides == "M"]) < 1e-6).all()


def test_keypoint_regressors_agree_on_common_joints(body, joints):
    h36m, extra, coco = (body[key] @ body["v_template"] for key in REGRESSORS[1:])
    limbs = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    expected = np.array([joints[f"{side}_{limb}"] for limb in limbs for side in ("left", "right")])
    np.testing.assert_allclose(coco[5:], expected, atol=1e-6)
    np.testing.assert_allclose(h36m[[11, 14, 12, 15, 13, 16, 1, 4, 2, 5, 3, 6]], expected, atol=1e-6)
    np.testing.assert_allclose(extra[[1, 0]], expected[6:8], atol=1e-6)
    np.testing.assert_allclose(h36m[0], expected[6:8].mean(0), atol=1e-6)
    np.testing.assert_allclose(extra[4], h36m[0], atol=1e-6)
    # Up the body: pelvis, spine, thorax or neck, jaw, head, head top.
    assert (np.diff(h36m[[0, 7, 8, 9, 10], 1]) > 0.05).all()
    assert (np.diff(extra[[4, 6, 5, 7, 8, 3], 1]) > 0.05).all()
    assert abs(h36m[10, 1] - body["v_template"][:, 1].max()) < 0.005


def test_skeleton_is_smpl_in_order_and_a_person_in_place(body, joints):
    assert list(body["joint_names"]) == JOINT_NAMES
    assert body["kintree_table"][0, 0] == 2**32 - 1
    assert body["kintree_table"][0, 1:].tolist() == PARENTS[1:]
    assert body["kintree_table"][1].tolist() == list(range(24))
    # A pelvis at the origin would hide a forgotten root offset.
    np.testing.assert_allclose(joints["pelvis"], [0, -0.23, 0.03], atol=1e-5)
    up = ["left_foot", "left_ankle", "left_knee", "left_hip", "spine1", "spine2", "spine3", "neck", "head"]
    assert (np.diff([joints[name][1] for name in up]) > 0.03).all()
    out = ["neck", "left_collar", "left_shoulder", "left_elbow", "left_wrist", "left_hand"]
    assert (np.diff([joints[name][0] for name in out]) > 0.03).all()
    arm = np.array([joints[name] for name in out[2:]])
    assert np.ptp(arm[:, 1:], axis=0).max() < 0.01  # T-pose: straight to the side
    assert joints["left_foot"][2] > joints["left_ankle"][2] + 0.05  # forwards is +z


def test_extra_vertices_are_where_their_names_say(body, joints):
    points = dict(zip(EXTRA_NAMES, body["v_template"][body["extra_vertex_ids"]], strict=True))
    for name, point in points.items():
        if name.startswith("left_"):
            np.testing.assert_array_equal(points[name.replace("left", "right")] * REFLECT, point)
            assert point[0] > 0.02
    front = body["v_template"][body["weights"][:, JOINT_NAMES.index("head")] > 0.5, 2].max()
    assert abs(points["nose"][2] - front) < 0.01
    assert points["nose"][0] == 0
    assert points["nose"][1] < points["left_eye"][1] < joints["head"][1] + 0.1
    assert points["left_ear"][0] > 2 * points["left_eye"][0]
    assert points["left_ear"][2] < points["left_eye"][2] < points["nose"][2]
    floor = body["v_template"][:, 1].min()
    assert points["left_big_toe"][2] > joints["left_foot"][2] > points["left_heel"][2] + 0.1
    assert points["left_heel"][2] < joints["left_ankle"][2]
    assert points["left_small_toe"][0] > points["left_big_toe"][0] + 0.01
    for name in ("big_toe", "small_toe", "heel"):
        assert points[f"left_{name}"][1] < floor + 0.06
    fingers = [points[f"left_{name}"] for name in ("thumb", "index", "middle", "ring", "pinky")]
    assert (np.diff([finger[2] for finger in fingers]) < -0.01).all()  # palms down, thumbs forwards
    assert all(finger[0] > joints["left_hand"][0] for finger in fingers[1:])
    assert fingers[0][0] < min(finger[0] for finger in fingers[1:])
    assert fingers[2][0] == max(finger[0] for finger in fingers)


def test_statures_are_human(body):
    betas = np.random.default_rng(0).normal(size=(4000, 10))
    heights = np.ptp(body["v_template"][None, :, 1] + betas @ body["shapedirs"][:, 1].T, axis=1)
    low, middle, high = np.percentile(heights, [1, 50, 99])
    assert 1.40 < low < 1.55
    assert 1.65 < middle < 1.75
    assert 1.85 < high < 1.97
    # The first component makes taller, and shapes are ordered by how much they move.
    taller = body["v_template"] + body["shapedirs"][:, :, 0]
    assert np.ptp(taller[:, 1]) > np.ptp(body["v_template"][:, 1]) + 0.05
    moved = np.sqrt((body["shapedirs"] ** 2).sum(1).mean(0))
    assert moved[0] > 2 * moved[1]
    assert moved[-1] < 0.01


def test_rest_pose_is_the_template(body, joints):
    vertices, centers = pose_body(body, np.zeros((24, 3)))
    np.testing.assert_allclose(vertices, body["v_template"], atol=1e-7)
    np.testing.assert_allclose(centers, list(joints.values()), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_posing_commutes_with_the_mirror(body, seed):
    rng = np.random.default_rng(seed)
    rotvecs, betas = rng.normal(0.0, 0.5, (24, 3)), rng.normal(size=10)
    vertices, centers = pose_body(body, rotvecs, betas)
    flipped, flipped_centers = pose_body(body, rotvecs[FLIP] * [1, -1, -1], betas)
    np.testing.assert_allclose(flipped, vertices[body["mirror_vertex_ids"]] * REFLECT, atol=1e-7)
    np.testing.assert_allclose(flipped_centers, centers[FLIP] * REFLECT, atol=1e-7)


def test_pose_blend_shapes_are_local_and_keep_volume(body):
    posedirs = body["posedirs"].reshape(-1, 3, 23, 9)
    size = np.abs(posedirs).max((0, 1, 3))
    # Every joint has its own, and moves only skin around it.
    assert (size > 1e-4).all()
    assert size.max() < 0.05
    rest = body["J_regressor"] @ body["v_template"]
    for joint in range(1, 24):
        touched = np.abs(posedirs[:, :, joint - 1]).max((1, 2)) > 1e-4
        assert np.linalg.norm(body["v_template"][touched] - rest[joint], axis=1).max() < 0.35
    sitting = np.zeros((24, 3))
    sitting[[1, 2], 0], sitting[[4, 5], 0] = -1.5, 1.5
    faces = body["f"].astype(int)
    bare = volume(pose_body(body | {"posedirs": np.zeros_like(body["posedirs"])}, sitting)[0], faces)
    full = volume(pose_body(body, sitting)[0], faces)
    assert bare < full < volume(body["v_template"], faces)


def test_regressed_joints_follow_the_posed_skin(body):
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(12):
        vertices, centers = pose_body(body, plausible_pose(rng), np.clip(rng.normal(size=10), -2.5, 2.5))
        errors.append(np.linalg.norm(body["J_regressor"] @ vertices - centers, axis=1))
    assert np.mean(errors) < 0.0025  # m
    assert np.max(errors) < 0.02
