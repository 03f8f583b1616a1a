"""Evaluation: the truth scores 0 by every protocol, known errors give known numbers, and what is missing is said."""

import dataclasses
import functools
import json
import pickle
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.body.errors import SMPLParameters
from cliff_ms.config import Config, DataConfig, ModelConfig
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.evaluation.evaluate import EvalJob, evaluate
from cliff_ms.evaluation.people import summarise, tables
from cliff_ms.evaluation.protocols import MOCAP_OF_H36M17, PROTOCOLS, find_protocol, load_bodies, scored_rows
from cliff_ms.evaluation.refining import as_predicted, choose_refine
from cliff_ms.evaluation.rows import open_rows
from cliff_ms.evaluation.scoring import Evaluator, Scores, Seconds
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import H36M17, LSP14, SPIN24
from cliff_ms.models.cliff import build_model
from cliff_ms.weights.checkpoint import Weights, WeightsMeta, check_model, parameter_arrays, save_weights
from tests.paths import ROOT, ZOO
from tests.toys.body import toy_arrays, toy_body, toy_regressor
from tests.toys.reference import reference_smpl

KEYPOINT_MODEL = ModelConfig(encoder="keypoints")
EVALUATED = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]  # SPIN's H36M_TO_J14
REGRESSOR = toy_regressor(H36M17)
PEOPLE = 7
# AGORA has its own evaluation: test_agora and test_protocols_end_to_end.
EVERY_PROTOCOL = [p for protocols in PROTOCOLS.values() for p in protocols.values() if p.truth != "dataframes"]


def gendered_bodies():
    """The neutral body, a male one that lies elsewhere, a female one that is another altogether."""
    bodies = {"n": toy_body(), "m": toy_body(), "f": toy_body(seed=1)}
    bodies["m"] = dataclasses.replace(bodies["m"], v_template=bodies["m"].v_template + np.float32([0.3, 0, 0.4]))
    regressors = {"h36m": REGRESSOR.astype(np.float32)}
    return {key: dataclasses.replace(body, regressors=regressors) for key, body in bodies.items()}


def reference(body, pose, betas):
    """Vertices and the 17 joints of one person, float64."""
    vertices, _ = reference_smpl(body, betas, Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix())
    return vertices, REGRESSOR @ vertices


def write_annotations(path, **changes):
    """A standard npz of random people; the focal length tells the rows apart."""
    rng = np.random.default_rng(0)
    pose, betas = 0.4 * rng.standard_normal((PEOPLE, 72)), 0.5 * rng.standard_normal((PEOPLE, 10))
    body = gendered_bodies()["n"]
    joints = np.array([reference(body, *person)[1] for person in zip(pose, betas, strict=True)])
    mocap = np.zeros((PEOPLE, 24, 4))
    mocap[:, MOCAP_OF_H36M17] = np.concatenate([joints - joints[:, :1], np.ones((PEOPLE, 17, 1))], -1)
    points = np.concatenate([rng.uniform(1, 300, (PEOPLE, 24, 2)), np.ones((PEOPLE, 24, 1))], -1)
    arrays = {
        "imgname": np.array([f"images/S{9 + 2 * (k % 2)}_Walking_1.60457274_{k:06d}.jpg" for k in range(PEOPLE)]),
        "center": rng.uniform(100, 300, (PEOPLE, 2)),
        "scale": np.full(PEOPLE, 1.0),
        "part": points,
        "S": mocap,
        "pose": pose,
        "shape": betas,
        "has_smpl": np.ones(PEOPLE),
        "gender": np.full(PEOPLE, "n"),
        "focal_l": 1000.0 + np.arange(PEOPLE),
        "img_hw": np.full((PEOPLE, 2), 400.0),
        "input_keypoints": points[:, :17],
        "input_joint_set": "coco17",
    }
    arrays |= changes
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return load_annotations(path)


def network_of(annotations):
    """A network that gives the pose and shape of these annotations."""
    rotmats = Rotation.from_rotvec(annotations.pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)

    def run(inputs, center, size, img_hw, focal_length):
        rows = np.round(focal_length - 1000).astype(int)
        return rotmats[rows].astype(np.float32), annotations.betas[rows], np.ones((len(rows), 3)), np.ones(3)

    return run


@functools.cache
def evaluator(protocol):
    return Evaluator(protocol, gendered_bodies())


def score(protocol, path, network):
    return evaluator(protocol)(network, open_rows(protocol, path, None, KEYPOINT_MODEL, batch_size=3)[0])


def test_joints_are_those_of_the_published_code():
    assert [H36M17.index(name) for name in LSP14] == EVALUATED
    assert MOCAP_OF_H36M17 == [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]  # SPIN's h36m global_idx
    # SPIN's J24_TO_J14: what it compares with the 14 above, in their order.
    assert [MOCAP_OF_H36M17[k] for k in EVALUATED] == [*range(13), 18]


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("protocol", EVERY_PROTOCOL, ids=lambda protocol: f"{protocol.dataset}-{protocol.name}")
def test_the_truth_scores_zero(tmp_path, protocol):
    gender = np.array(list("mfmfnmf" if protocol.pve == "gendered" else "nnnnnnn"))
    truth = write_annotations(tmp_path / "a.npz", gender=gender)
    scores = score(protocol, tmp_path / "a.npz", network_of(truth))
    perfect = {"pck_percent": 100, "auc_percent": 100 * 30 / 31}
    for name, errors in scores.errors.items():
        if protocol.pve == "gendered" and name in ("mpjpe_mm", "pa_mpjpe_mm"):
            continue  # these are of the neutral body's joints
        np.testing.assert_allclose(errors, np.full(PEOPLE, perfect.get(name, 0)), atol=1e-2)
    assert ("pve_mm" in scores.errors) == bool(protocol.pve)
    assert ("pck_percent" in scores.errors) == (protocol.name == "official")
    assert ("global_rotation_deg" in scores.errors) == (protocol.truth != "mocap")


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("name", ["cliff", "spin", "vibe", "mmhuman3d"])
def test_3dpw_against_a_float64_reference(tmp_path, name):
    gender = np.array(list("mfmfnmf"))
    truth = write_annotations(tmp_path / "a.npz", gender=gender)
    rng = np.random.default_rng(3)
    other = dataclasses.replace(
        truth,
        pose=truth.pose + 0.2 * rng.standard_normal(truth.pose.shape).astype(np.float32),
        betas=truth.betas + rng.standard_normal(truth.betas.shape).astype(np.float32),
    )
    bodies = gendered_bodies()
    expected = {"mpjpe_mm": [], "pve_mm": [], "pve_raw_mm": [], "global_rotation_deg": []}
    for k in range(PEOPLE):
        true_gender = "n" if name == "vibe" else gender[k]
        vertices, joints = reference(bodies["n"], other.pose[k], other.betas[k])
        true_vertices, true_joints = reference(bodies[true_gender], truth.pose[k], truth.betas[k])
        root = [1, 4] if name == "vibe" else [0]
        gap = (joints - joints[root].mean(0)) - (true_joints - true_joints[root].mean(0))
        expected["mpjpe_mm"].append(1000 * np.linalg.norm(gap[EVALUATED], axis=1).mean())
        if name == "mmhuman3d":
            vertices, joints = reference(bodies[gender[k]], other.pose[k], other.betas[k])
        for key, shift in (("pve_mm", true_joints[0] - joints[0]), ("pve_raw_mm", 0)):
            expected[key].append(1000 * np.linalg.norm(vertices + shift - true_vertices, axis=1).mean())
        roots = Rotation.from_rotvec(np.stack([other.pose[k, :3], truth.pose[k, :3]]).astype(float))
        expected["global_rotation_deg"].append(np.degrees((roots[0] * roots[1].inv()).magnitude()))
    errors = score(find_protocol("3dpw", name), tmp_path / "a.npz", network_of(other)).errors
    for key in expected if name != "spin" else ("mpjpe_mm", "global_rotation_deg"):
        np.testing.assert_allclose(errors[key], expected[key], rtol=1e-4, atol=1e-2)
    if name == "cliff":  # aligned at the pelvis, the male body is the neutral one
        same = score(find_protocol("3dpw", name), tmp_path / "a.npz", network_of(truth)).errors
        np.testing.assert_allclose(same["pve_raw_mm"][gender == "m"], 500, atol=0.01)
        assert np.all(same["pve_mm"][gender == "m"] < 0.01) and np.all(same["mpjpe_mm"][gender == "f"] > 10)


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_accelerations_against_a_float64_reference(tmp_path):
    """Of 3DPW, whose rows are frames of people that only their shape tells apart."""
    who, frame = np.array([0, 1, 0, 0, 1, 0, 1]), np.array([11, 12, 12, 10, 11, 13, 14])
    names = np.array([f"imageFiles/court_00/image_{k:05d}.jpg" for k in frame])
    shapes = np.random.default_rng(4).standard_normal((2, 10))
    truth = write_annotations(tmp_path / "a.npz", imgname=names, shape=shapes[who], gender=np.full(PEOPLE, "m"))
    turned = truth.pose + 0.2 * np.random.default_rng(3).standard_normal(truth.pose.shape).astype(np.float32)
    bodies = gendered_bodies()

    def joints(body, pose, betas):
        found = reference(body, pose, betas)[1]
        return (found - found[:1])[EVALUATED]

    def errors(dataset, pose):
        network = network_of(dataclasses.replace(truth, pose=pose))
        return score(find_protocol(dataset, None), tmp_path / "a.npz", network).errors

    gaps = [
        joints(bodies["n"], turned[k], truth.betas[k]) - joints(bodies["m"], truth.pose[k], truth.betas[k])
        for k in (3, 0, 2, 5)  # the first person's frames 10 to 13
    ]
    expected = np.full(PEOPLE, np.nan)
    expected[[0, 2]] = 1000 * np.linalg.norm(np.diff(gaps, 2, axis=0), axis=-1).mean(-1)
    found = errors("3dpw", turned)
    np.testing.assert_allclose(found["accel_mm"], expected, rtol=1e-4)
    np.testing.assert_allclose(errors("3dpw", truth.pose)["accel_mm"][[0, 2]], 0, atol=1e-2)
    assert "accel_mm" not in errors("custom", turned)
    scores = Scores(found, None, np.zeros(PEOPLE), Seconds())
    result = summarise(scores, np.where(np.isnan(expected), "without", "with"))
    assert result["accel_mm"] == result["mean_over_groups"]["accel_mm"] == pytest.approx(np.nanmean(expected), rel=1e-4)
    assert result["groups"]["without"]["accel_mm"] is None
    assert [len(row) for row in tables(result)["By group"]] == [8, 7, 8]


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_known_offsets_of_motion_capture(tmp_path):
    truth = write_annotations(tmp_path / "a.npz")
    network, mocap = network_of(truth), truth.keypoints3d.copy()

    def errors(dataset, name, changes):
        moved = mocap.copy()
        for joint, offset in changes.items():
            moved[:, SPIN24.index(joint) if joint else slice(None), :3] += np.float32(offset)
        write_annotations(tmp_path / "b.npz", S=moved)
        means = score(find_protocol(dataset, name), tmp_path / "b.npz", network).errors
        return {key: array.mean() for key, array in means.items()}

    close = {"abs": 0.01}
    assert errors("h36m_p2", "spin", {"": [1, 2, 3]})["mpjpe_mm"] == pytest.approx(0, **close)
    assert errors("h36m_p2", "spin", {"left_wrist": [0.028, 0, 0]})["mpjpe_mm"] == pytest.approx(2, **close)
    assert errors("h36m_p2", "spin", {"jaw_h36m": [0.1, 0, 0]})["mpjpe_mm"] == pytest.approx(0, **close)
    assert errors("h36m_p2", "spin", {"pelvis_mpii": [0, 0.05, 0]})["mpjpe_mm"] == pytest.approx(50, **close)
    assert errors("h36m_p1", "bedlam", {"pelvis_mpii": [0, 0.05, 0]})["mpjpe_mm"] == pytest.approx(0, **close)
    # Both hips by 14 mm: they are right, the other twelve are wrong.
    hips = {"left_hip_lsp": [0, 0, 0.014], "right_hip_lsp": [0, 0, 0.014]}
    assert errors("h36m_p1", "bedlam", hips)["mpjpe_mm"] == pytest.approx(12, **close)
    found = errors("mpi_inf_3dhp", "official", {"head_h36m": [0, 0.2, 0], "jaw_h36m": [0.2, 0, 0]})
    assert found["mpjpe_mm"] == pytest.approx(400 / 17, **close)
    assert found["pck_percent"] == pytest.approx(100 * 13 / 14)  # the jaw does not count
    assert found["auc_percent"] == pytest.approx(100 * 13 / 14 * 30 / 31)


def test_rows_that_a_protocol_scores(tmp_path):
    names = [
        f"images/S{s}_Eating.{c}_000001.jpg" for s, c in ((9, 60457274), (9, 54138969), (11, 60457274), (1, 60457274))
    ]
    names = np.array(names + [names[0]] * 3)
    annotations = write_annotations(tmp_path / "a.npz", imgname=names, has_smpl=np.array([1, 1, 0, 1, 1, 1, 1.0]))
    rows, left_out = scored_rows(find_protocol("h36m_p2", "cliff"), annotations, "a.npz")
    assert rows.tolist() == [0, 4, 5, 6] and list(left_out.values()) == [2, 1]
    assert scored_rows(find_protocol("h36m_p1", "spin"), annotations, "a.npz")[0].tolist() == [0, 1, 2, 4, 5, 6]
    points, mocap = annotations.keypoints2d.copy(), annotations.keypoints3d.copy()
    points[1, SPIN24.index("left_wrist"), 0] = 400.5
    points[2, SPIN24.index("nose"), 0] = -3  # none of the 17
    mocap[3, SPIN24.index("spine_h36m"), 3] = 0
    annotations = dataclasses.replace(annotations, keypoints2d=points, keypoints3d=mocap)
    rows, left_out = scored_rows(find_protocol("mpi_inf_3dhp", "spin"), annotations, "a.npz")
    assert rows.tolist() == [0, 2, 4, 5, 6] and sum(left_out.values()) == 2


@pytest.mark.parametrize(
    ("dataset", "protocol", "changes", "message"),
    [
        ("3dpw", "cliff", {"gender": None}, "'gender' is missing"),
        ("h36m_p1", "cliff", {"has_smpl": np.zeros(PEOPLE)}, "no SMPL labels"),
        ("h36m_p1", "spin", {"S": None}, "no motion-capture joints"),
        ("h36m_p2", "spin", {"imgname": np.full(PEOPLE, "S1_Eating.60457274_000001.jpg")}, "does not match"),
        ("mpi_inf_3dhp", "spin", {"img_hw": None}, "'img_hw' is missing"),
        ("custom", None, {"gender": np.full(PEOPLE, "x")}, "row 0: 'gender' must be 'm', 'f' or 'n'"),
        ("custom", None, {"group": np.full(3, "x")}, "'group' must have 7 entries"),
    ],
)
def test_annotations_that_a_protocol_cannot_use(tmp_path, dataset, protocol, changes, message):
    with pytest.raises(InputError, match=message):
        scored_rows(find_protocol(dataset, protocol), write_annotations(tmp_path / "a.npz", **changes), "a.npz")


def test_body_files(tmp_path):
    protocol, gender = find_protocol("3dpw", None), np.array(["m", "f"])

    def bodies(body=None, body_dir=tmp_path):
        return load_bodies(protocol, gender, body, body_dir)

    with pytest.raises(InputError, match="SMPL_NEUTRAL.pkl.*register at.*--body_dir"):
        bodies(body_dir=None)
    for name, seed in (("NEUTRAL", 0), ("MALE", 1), ("FEMALE", 0)):
        with pytest.raises(InputError, match=f"{tmp_path}/SMPL_{name}.pkl.*register at .*there as SMPL_{name}.pkl"):
            bodies()
        with open(tmp_path / f"SMPL_{name}.pkl", "wb") as file:
            pickle.dump(toy_arrays(seed=seed), file, protocol=2)
        if name == "NEUTRAL":
            with pytest.raises(InputError, match="J_regressor_h36m.npy is missing.*SPIN"):
                bodies()
            np.save(tmp_path / "J_regressor_h36m.npy", REGRESSOR)
    found = bodies()
    assert {key: body.gender for key, body in found.items()} == {"n": "neutral", "m": "male", "f": "female"}
    assert load_bodies(find_protocol("h36m_p1", "cliff"), gender, None, tmp_path).keys() == {"n"}
    with pytest.raises(InputError, match="same mesh"):
        bodies(body=ZOO / "body" / "neutral.npz")
    with pytest.raises(InputError, match="'3dpw' has cliff, spin, vibe, mmhuman3d"):
        find_protocol("3dpw", "hmr")


def test_bins_by_distance_groups_and_the_mean_pose():
    rng = np.random.default_rng(0)
    distance = rng.permutation(np.arange(10) / 10)
    errors = {"mpjpe_mm": 100 * distance, "pa_mpjpe_mm": np.ones(10), "global_rotation_deg": distance}
    scores = Scores(errors, {key: 2 * array for key, array in errors.items()}, distance, Seconds())
    result = summarise(scores, np.array(["a", "b"])[(distance > 0.65).astype(int)])
    assert [b["count"] for b in result["by_distance"]] == [3, 3, 2, 2]
    np.testing.assert_allclose([b["mpjpe_mm"] for b in result["by_distance"]], [10, 40, 65, 85])
    np.testing.assert_allclose([(b["from"], b["to"]) for b in result["by_distance"]][1], (0.3, 0.5))
    assert {name: means["count"] for name, means in result["groups"].items()} == {"a": 7, "b": 3}
    assert result["groups"]["b"]["mpjpe_mm"] == pytest.approx(80)
    assert result["mean_over_groups"]["mpjpe_mm"] == pytest.approx((30 + 80) / 2)
    assert result["mean_pose"]["mpjpe_mm"] == pytest.approx(2 * result["mpjpe_mm"])
    assert result["pve_mm"] is None
    found = tables(result)
    assert [row["people"] for row in found["By group"]] == ["7", "3", "10"]
    assert [row["MPJPE (mm)"] for row in found["All"]] == ["45.00", "90.00"] and "PVE (mm)" not in found["All"][0]


@pytest.mark.usefixtures("graph_mode")
def test_distance_of_boxes(tmp_path):
    center = np.full((PEOPLE, 2), 200.0)
    center[1] = [400, 400]
    center[2] = [0, 200]
    truth = write_annotations(tmp_path / "a.npz", center=center)
    distance = score(find_protocol("custom", None), tmp_path / "a.npz", network_of(truth)).distance
    np.testing.assert_allclose(distance[:4], [0, 1, np.sqrt(0.5), 0], atol=1e-6)


def test_other_keypoints_bring_their_own_boxes(tmp_path):
    half, openpose = np.zeros((PEOPLE, 17, 3)), np.zeros((PEOPLE, 25, 3))
    half[:, :6] = [[60, 70, 0.5], [100, 90, 0.5], [80, 130, 0.5], [70, 80, 0.5], [72, 80, 0.5], [73, 81, 0.5]]
    half[:, 6] = [300, 300, 0.1]  # too unsure for a box
    openpose[:, :17] = half
    arrays = {"input_keypoints_half": half, "input_keypoints_openpose25": openpose}
    write_annotations(tmp_path / "a.npz", center=np.full((PEOPLE, 2), 50), **arrays)

    def batch(index, *keypoints, model=KEYPOINT_MODEL):
        return open_rows(find_protocol("custom", None), tmp_path / "a.npz", None, model, 4, *keypoints)[0].batch(index)

    # 40 px wide and 60 px high: a crop of 4:3 with the margin of ground-truth keypoints.
    other = batch(1, "half")
    np.testing.assert_allclose(other.center, np.full((4, 2), (80, 100)), atol=1e-4)
    np.testing.assert_allclose(other.bbox_size, 1.2 * 60, rtol=1e-6)
    np.testing.assert_allclose(other.inputs[:, 0], np.tile([-20 / 36, -30 / 36, 0.5], (4, 1)), atol=1e-6)
    assert batch(1).center.tolist() == [[50, 50]] * 4
    assert np.all(batch(1).inputs[..., 2] == 1)
    shoulder = batch(0, "openpose25").inputs[:, 6]  # COCO's right one
    np.testing.assert_allclose(shoulder, np.tile([0, 30 / 36, 0.5], (4, 1)), atol=1e-6)
    with pytest.raises(InputError, match="'input_keypoints_noisy' is missing"):
        batch(0, "noisy")
    with pytest.raises(InputError, match="--image_dir"):
        batch(0, model=ModelConfig())
    half[3, 0, 2] = 0
    write_annotations(tmp_path / "a.npz", **arrays)
    data, left_out = open_rows(find_protocol("custom", None), tmp_path / "a.npz", None, KEYPOINT_MODEL, 4, "half")
    assert left_out == {"too few keypoints (half)": 1}
    assert data.rows.tolist() == [row for row in range(PEOPLE) if row != 3]


def test_focal_lengths_that_are_not_known(tmp_path):
    focal_length = np.where(np.arange(PEOPLE) == 2, np.nan, 1000.0)
    write_annotations(tmp_path / "a.npz", focal_l=focal_length, img_hw=np.tile([300.0, 400], (PEOPLE, 1)))

    def focal(*names):
        data, _ = open_rows(find_protocol(*names), tmp_path / "a.npz", None, KEYPOINT_MODEL, PEOPLE)
        return data.batch(0).focal_length.tolist()

    assert focal("custom", None) == [1000, 1000, 500, 1000, 1000, 1000, 1000]
    assert focal("agora", None) == [500] * PEOPLE
    with pytest.raises(InputError, match="row 2: 'focal_l' is not known; protocol 'known-focal'"):
        focal("agora", "known-focal")


def test_what_a_fit_is_given(tmp_path):
    """The keypoints of its rows, in their own joint set, and the protocol's camera; what it gives is scored."""
    half, openpose = np.zeros((PEOPLE, 17, 3)), np.zeros((PEOPLE, 25, 3))
    half[:, :6, 2], openpose[:, :6, 2] = 0.5, 0.7
    half[..., 0], openpose[..., 0] = np.arange(PEOPLE)[:, None], 10 + np.arange(PEOPLE)[:, None]
    write_annotations(
        tmp_path / "a.npz",
        input_keypoints_half=half,
        input_keypoints_openpose25=openpose,
        input_keypoints_detected=half,
    )
    seen = []

    def make(body, joint_set, deviations, as_detected):
        def fit(rotmats, betas, translation, keypoints, size, img_hw, focal_length):
            seen.append((joint_set, as_detected, keypoints, size, focal_length))
            return SimpleNamespace(bodies=SMPLParameters(rotmats, betas + 1, translation))

        assert deviations.shape == (85,)
        return fit

    protocol = find_protocol("custom", None)
    data, _ = open_rows(protocol, tmp_path / "a.npz", None, KEYPOINT_MODEL, 3)
    outputs = (np.zeros((3, 24, 3, 3)), np.zeros((3, 10)), np.zeros((3, 3)), np.ones((3, 3)))
    weights = Weights(tmp_path / "w.ckpt", WeightsMeta(KEYPOINT_MODEL, "test"), "")
    job = EvalJob(protocol, weights, tmp_path / "a.npz", fit=make)
    for which in ("clean", "half", "openpose25", "detected"):
        refine = choose_refine(dataclasses.replace(job, keypoints=which), data, toy_body())
        refined = refine(data.places(1), data.batch(1), outputs)
        assert refined[1].min() == 1 and refined[2] is outputs[2]
    assert [joint_set for joint_set, *_ in seen] == ["coco17", "coco17", "openpose25", "coco17"]
    assert [as_detected for _, as_detected, *_ in seen] == [False, False, False, True]  # the others are exact or noisy
    given = (data.annotations.input_keypoints[3:6], half[3:6], openpose[3:6], half[3:6])
    for (*_, keypoints, size, focal_length), known in zip(seen, given, strict=True):
        np.testing.assert_array_equal(keypoints, known.astype(np.float32))
        assert size.tolist() == [200] * 3 and focal_length.tolist() == [1003, 1004, 1005]
    assert choose_refine(dataclasses.replace(job, fit=None), data, toy_body()) is as_predicted
    with pytest.raises(InputError, match="a place that is not finite for row 4"):
        refine(data.places(1), data.batch(1), (*outputs[:3], np.array([[1, 1, 1], [1, np.inf, 1], [1, 1, 1.0]])))
    with pytest.raises(InputError, match="'input_keypoints_noisy' is missing"):
        choose_refine(dataclasses.replace(job, keypoints="noisy"), data, toy_body())
    pixels = dataclasses.replace(weights, meaning=WeightsMeta(ModelConfig(), "test"))
    with pytest.raises(InputError, match="--keypoints half is for keypoint models or --fit"):
        evaluate(EvalJob(protocol, pixels, tmp_path / "a.npz", keypoints="half"))


@pytest.mark.usefixtures("graph_mode")
def test_weights_that_give_no_numbers(tmp_path):
    truth = write_annotations(tmp_path / "a.npz")
    bad = dataclasses.replace(truth, betas=np.where(np.arange(PEOPLE)[:, None] == 4, np.nan, truth.betas))
    with pytest.raises(InputError, match="not finite for row 4"):
        score(find_protocol("custom", None), tmp_path / "a.npz", network_of(bad))


def test_configuration_of_other_weights():
    config = Config(ModelConfig(encoder="keypoints", joint_set="openpose25"), DataConfig(stream=True, batch_size=4))
    with pytest.raises(InputError, match="w.ckpt .*joint_set is coco17, not openpose25"):
        check_model(config, WeightsMeta(KEYPOINT_MODEL, "test"), "w.ckpt")
    check_model(config, WeightsMeta(config.model, "test"), "w.ckpt")


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_command_line(tmp_path):
    meta = WeightsMeta(KEYPOINT_MODEL, "random", body="neutral")
    save_weights(tmp_path / "w.safetensors", parameter_arrays(build_model(KEYPOINT_MODEL)), meta)
    names = np.array([f"{k % 2}.png" for k in range(PEOPLE)])
    group = np.array([f"sequence {k % 3}" for k in range(PEOPLE)])
    write_annotations(tmp_path / "a.npz", imgname=names, group=group)
    for name in names[:2]:
        cv2.imwrite(str(tmp_path / name), np.full((400, 400, 3), 90, np.uint8))

    def run(*arguments):
        command = [
            sys.executable,
            str(ROOT / "eval.py"),
            "--device_target",
            "CPU",
            "--ckpt",
            tmp_path / "w.safetensors",
        ]
        return subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=tmp_path
        )

    setting = ("--dataset", "custom", "--annotations", tmp_path / "a.npz", "--image_dir", tmp_path)
    done = run(*setting, "--output", tmp_path / "out/r.json", "--visualize", 2, "--batch_size", 4)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/r.json").read_text())
    design = {"dataset", "protocol", "count", "mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg"}
    assert result.keys() == design | {
        "pve_raw_mm", "mean_pose", "by_distance", "groups", "mean_over_groups", "left_out", "seconds", "settings",
    }  # fmt: skip
    assert (result["dataset"], result["protocol"], result["count"]) == ("custom", "standard", PEOPLE)
    assert result["mpjpe_mm"] > 0 and len(result["by_distance"]) == 4 and len(result["groups"]) == 3
    cell = f"{result['mpjpe_mm']:.2f}"
    assert cell in done.stdout and cell in (tmp_path / "out/r.md").read_text()
    assert cv2.imread(str(tmp_path / "out/r.jpg")).shape[1] > 2 * 288
    wrong = run("--dataset", "3dpw", "--annotations", tmp_path / "a.npz")
    assert wrong.returncode == 2 and "SMPL_NEUTRAL.pkl" in wrong.stderr and "Traceback" not in wrong.stderr
