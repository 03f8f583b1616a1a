"""Raw data sets through prepare.py: every box, focal length, frame number and joint order against known numbers."""

import json
import sys
from collections import Counter

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.commands import prepare
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.data.readers.mpi_inf_3dhp import read_calibration
from cliff_ms.data.readers.prepare import PrepareJob
from cliff_ms.data.readers.rows import Part, Rows, collect
from cliff_ms.io.errors import InputError
from cliff_ms.io.pickles import read_pickle
from cliff_ms.keypoints import COCO17, SPIN24
from tests.toys import datasets as raw
from tests.toys.reference import reference_smpl

# SPIN's index lists, as its preprocessing code states them: an independent check of our names.
H36M_RAW = [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]
TRAIN_3DHP_RAW = [4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
TEST_3DHP_RAW = [14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
SEVENTEEN = [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]
COCO = [19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0]
MPII = [0, 1, 2, 3, 4, 5, 14, 15, 12, 13, 6, 7, 8, 9, 10, 11]
OPENPOSE18 = [10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7, 0, 15, 14, 17, 16]
OF_OPENPOSE18 = [*range(12), 19, 20, 21, 22, 23]


def run(monkeypatch, root, *arguments):
    """The verb itself; the npz is read as training and evaluation read it."""
    output = root.parent / "out" / f"{root.name}.npz"
    command = ["prepare.py", arguments[0], "--root", root, "--output", output, *arguments[1:]]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    prepare.main()
    assert not output.with_name(output.name + ".parts").exists()
    return load_annotations(output)


def assert_square(annotations, boxes, rescale):
    """Of the first rows."""
    boxes, count = np.asarray(boxes, float), len(boxes)
    np.testing.assert_allclose(annotations.center[:count], (boxes[:, :2] + boxes[:, 2:]) / 2, rtol=1e-6)
    np.testing.assert_allclose(annotations.size[:count], rescale * (boxes[:, 2:] - boxes[:, :2]).max(1), rtol=1e-6)


def boxes_of(points):
    return np.concatenate([points.min(1), points.max(1)], 1)


def assert_placed(got, expected, order, atol=1e-3):
    """Joints at their places with confidence 1, and nothing anywhere else."""
    np.testing.assert_allclose(got[:, order, :-1], expected, atol=atol)
    assert (got[:, order, -1] == 1).all()
    assert not np.delete(got, order, 1).any()


# --- 3DPW ------------------------------------------------------------------------------------------------------------


def test_3dpw_as_cliff(tmp_path, monkeypatch, capsys):
    """Boxes of the gendered body's COCO joints, camera frame, translation: against SMPL in float64 in the world."""
    bodies, root = raw.write_bodies(tmp_path / "bodies"), tmp_path / "3dpw"
    content = raw.write_3dpw(root)
    raw.write_3dpw_image(root, (960, 540))
    got = run(monkeypatch, root, "3dpw", "--body_dir", bodies, "--image_scale", "0.5")
    expected = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]  # person, frame
    assert got.image_names.tolist() == [f"imageFiles/court_00/image_{i:05d}.jpg" for _, i in expected]
    assert got.gender.tolist() == list("mmfff") and set(got.group) == {"court_00"}
    np.testing.assert_allclose(got.focal_length, (1961 + 1969) / 2 / 2)
    np.testing.assert_array_equal(got.img_hw, [[960, 540]] * 5)
    assert got.has_smpl.all()
    for row, (person, frame) in enumerate(expected):
        joints = raw.placed_in_camera(content, bodies, person, frame)
        pixels = {name: (raw.INTRINSICS @ xyz)[:2] / xyz[2] / 2 for name, xyz in joints.items()}
        coco = np.array([pixels[name] for name in COCO17])
        (width, height), center = coco.max(0) - coco.min(0), (coco.max(0) + coco.min(0)) / 2
        np.testing.assert_allclose(got.center[row], center, rtol=1e-4)
        np.testing.assert_allclose(got.size[row], 1.2 * max(width * 4 / 3, height), rtol=1e-4)
        np.testing.assert_allclose(got.keypoints2d[row, :, :2], [pixels[n] for n in SPIN24], rtol=1e-4, atol=2e-2)
        three = np.array([joints[n] for n in SPIN24])
        np.testing.assert_allclose(got.keypoints3d[row, :, :3], three - joints["pelvis_mpii"], atol=1e-4)
        # SMPL in the camera with the pose and translation of the row is where the world's body is.
        model = load_body(bodies / {"m": "SMPL_MALE.pkl", "f": "SMPL_FEMALE.pkl"}[got.gender[row]])
        rotmats = Rotation.from_rotvec(got.pose[row].reshape(24, 3)).as_matrix()
        _, camera_joints = reference_smpl(model, got.betas[row], rotmats)
        placed = camera_joints + got.translation[row]
        np.testing.assert_allclose(placed[0], joints["pelvis"], atol=1e-4)
        np.testing.assert_allclose(placed[20], joints["left_wrist"], atol=1e-4)
    out = capsys.readouterr().out
    assert "kept 5 people in 3 images" in out and "left out 1: camera pose not valid" in out
    assert "image files: 2 of 5" in out


def test_3dpw_as_spin_and_vibe(tmp_path, monkeypatch, capsys):
    """Squares around OpenPose's keypoints; no bodies needed; VIBE's choice of rows."""
    root = tmp_path / "3dpw"
    content = raw.write_3dpw(root, "val")
    got = run(monkeypatch, root, "3dpw", "--boxes", "poses2d", "--split", "val")
    rows = [(0, 0), (0, 2), (1, 0), (1, 1)]
    detected = [content["poses2d"][person][frame].T for person, frame in rows]
    seen = [points[points[:, 2] > 0, :2] for points in detected]
    assert_square(got, [[*points.min(0), *points.max(0)] for points in seen], 1.2)
    first = np.where(detected[0][:, 2:] > 0.3, [1, 1, 1], 0) * np.c_[detected[0][:, :2], np.ones(18)]
    np.testing.assert_allclose(got.keypoints2d[0, OF_OPENPOSE18], first[OPENPOSE18], rtol=1e-6)
    assert not got.keypoints3d.any() and got.translation is None and got.img_hw is None
    assert "left out 1: no 2D keypoint to draw a box around" in capsys.readouterr().out
    content["poses2d"][1][1, 2, 2:8] = 0.3  # not above the threshold: 6 of 12 limb joints are left
    raw.write_python2_pickle(root / "sequenceFiles" / "validation" / "court_00.pkl", content)
    got = run(monkeypatch, root, "3dpw", "--boxes", "poses2d", "--split", "val", "--min_limbs", "7")
    assert got.image_names.tolist() == [f"imageFiles/court_00/image_{i:05d}.jpg" for i in (0, 2, 0)]
    assert "left out 2: too few limbs seen by OpenPose" in capsys.readouterr().out


def test_3dpw_without_spins_regressor_leaves_out_what_it_gives(tmp_path, monkeypatch, caplog):
    bodies = raw.write_bodies(tmp_path / "bodies", with_extra=False)
    raw.write_3dpw(tmp_path / "3dpw")
    got = run(monkeypatch, tmp_path / "3dpw", "3dpw", "--body_dir", bodies)
    missing = {name for k, name in enumerate(SPIN24) if not got.keypoints2d[0, k, 2]}
    assert missing == {name for name in SPIN24 if name.split("_")[-1] in ("lsp", "mpii", "h36m")}
    assert "J_regressor_extra.npy" in caplog.text


def test_3dpw_bad_input(tmp_path, monkeypatch):
    root, bodies = tmp_path / "3dpw", raw.write_bodies(tmp_path / "bodies")
    content = raw.write_3dpw(root)
    path = root / "sequenceFiles" / "test" / "court_00.pkl"
    with pytest.raises(InputError, match="--boxes smpl .*--body_dir"):
        run(monkeypatch, root, "3dpw")
    with pytest.raises(InputError, match=r"no body file at .*SMPL_MALE.pkl.*smpl.is.tue.mpg.de"):
        run(monkeypatch, root, "3dpw", "--body_dir", tmp_path)
    with pytest.raises(InputError, match=r"no 'sequenceFiles/train/\*.pkl'"):
        run(monkeypatch, root, "3dpw", "--body_dir", bodies, "--split", "train")
    raw.write_3dpw_image(root, (960, 540))
    with pytest.raises(InputError, match=r"0.50 times the size .* --image_scale is 1"):
        run(monkeypatch, root, "3dpw", "--body_dir", bodies)
    for key, value, message in [
        ("cam_poses", np.zeros((3, 3, 4)), r"'cam_poses' must have shape .* but has \(3, 3, 4\)"),
        ("trans", [content["trans"][0][:2], content["trans"][1]], r"'trans\[0\]' must have shape \(3, 3\)"),
        ("genders", ["m", "x"], "'genders' must be 'm' or 'f'"),
        ("poses", [content["poses"][0] * np.nan, content["poses"][1]], "not finite"),
    ]:
        raw.write_python2_pickle(path, content | {key: value})
        with pytest.raises(InputError, match=message):
            run(monkeypatch, root, "3dpw", "--body_dir", bodies, "--image_scale", "0.5")
    raw.write_python2_pickle(path, {key: value for key, value in content.items() if key != "campose_valid"})
    with pytest.raises(InputError, match="'campose_valid' is missing, so this is no sequence file of 3DPW"):
        run(monkeypatch, root, "3dpw", "--body_dir", bodies, "--image_scale", "0.5")


def test_python2_strings_are_read_as_latin1(tmp_path):
    raw.write_3dpw(tmp_path)
    assert read_pickle(tmp_path / "sequenceFiles/test/court_00.pkl")["sequence"] == "court\xe9_00"


# --- Human3.6M and MPI-INF-3DHP --------------------------------------------------------------------------------------


def test_h36m(tmp_path, monkeypatch, capsys):
    root, mosh = tmp_path / "h36m", tmp_path / "neutrSMPL_H3.6"
    raw.write_h36m(root, "S9", "_ALL.60457274")  # all actions in one: not an action
    truth = raw.write_h36m(root, "S9")
    raw.write_h36m(root, "S11", "Phoning 2.54138969", frames=6)
    raw.write_video(truth.video, 11)
    raw.write_video(root / "S11" / "Videos" / "Phoning 2.54138969.mp4", 6)
    poses = np.random.default_rng(0).normal(0, 0.4, (1, 72))  # of frame 0 alone
    betas = raw.write_mosh(mosh, poses)
    got = run(monkeypatch, root, "h36m", "--fits", mosh, "--extract")
    names = ["S9_TakingPhoto_1.60457274_000001", "S9_TakingPhoto_1.60457274_000006", "S11_Phoning_2.54138969_000001"]
    assert got.image_names.tolist()[:3] == [f"images/{name}.jpg" for name in names]
    assert got.group.tolist() == ["Photo", "Photo", "Phoning", "Phoning"]
    boxes = [(300, 100, 500, 701), (200, 400, 600, 450)]  # edges of the silhouettes
    assert_square(got, boxes * 2, 0.9)
    np.testing.assert_allclose(got.focal_length[[0, 2]], [1145.142639, 1144.415283], rtol=1e-6)
    np.testing.assert_array_equal(got.img_hw, [[1002, 1000]] * 4)
    assert_placed(got.keypoints2d[:2], truth.points[[0, 5]][:, H36M_RAW], SEVENTEEN)
    joints = truth.joints[[0, 5]] / 1000
    assert_placed(got.keypoints3d[:2], (joints - joints[:, 11:12])[:, H36M_RAW], SEVENTEEN, atol=1e-5)
    assert got.has_smpl.tolist() == [1, 0, 0, 0] and set(got.gender) == {"n"}
    np.testing.assert_allclose(got.betas[0], betas, rtol=1e-6)
    np.testing.assert_allclose(got.pose[0, 3:], poses[0, 3:], rtol=1e-6)
    root_matrix = Rotation.from_rotvec(poses[0, :3]).as_matrix() @ np.diag([1, -1, -1])
    np.testing.assert_allclose(Rotation.from_rotvec(got.pose[0, :3]).as_matrix(), root_matrix, atol=1e-6)
    assert "left out 1: no silhouette" in capsys.readouterr().out
    for frame in (0, 5):  # picture number k + 1 is frame k
        assert abs(raw.cv2.imread(str(root / got.image_names[frame // 5])).mean() - 10 * frame) < 4
    for path in (root / "images").iterdir():
        path.unlink()
    run(monkeypatch, root, "h36m", "--extract", "--spin_frames")
    assert abs(raw.cv2.imread(str(root / got.image_names[0])).mean() - 10) < 4
    with pytest.raises(InputError, match="no 'S1/MyPoseFeatures"):
        run(monkeypatch, root, "h36m", "--split", "train")
    (root / "S9/MySegmentsMat/ground_truth_bb/TakingPhoto 1.60457274.mat").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="not the HDF5 file"):
        run(monkeypatch, root, "h36m")


def test_3dhp_train(tmp_path, monkeypatch, capsys):
    """Every tenth visible frame, counted on through cameras and sequences; numbers of images from 1."""
    root, frames = tmp_path / "3dhp", 25
    (points, joints), _ = raw.write_3dhp_train(root), raw.write_3dhp_train(root, "S1/Seq2", 5)
    for sequence, count in (("Seq1", frames), ("Seq2", 5)):
        for camera in (0, 1, 2, 4, 5, 6, 7, 8):
            raw.write_video(root / "S1" / sequence / "imageSequence" / f"video_{camera}.avi", count)
    got = run(monkeypatch, root, "mpi_inf_3dhp", "--split", "train", "--extract")
    visible = [("S1/Seq1", c, f) for c in (0, 1, 2, 4, 5, 6, 7, 8) for f in range(frames) if (c, f) != (0, 1)]
    visible += [("S1/Seq2", c, f) for c in (0, 1, 2, 4, 5, 6, 7, 8) for f in range(5) if (c, f) != (0, 1)]
    kept = visible[::10]
    expected = [f"{s}/imageFrames/video_{c}/frame_{f + 1:06d}.jpg" for s, c, f in kept]
    assert got.image_names.tolist() == expected
    for name, (_, _, frame) in zip(expected[:4], kept, strict=False):
        assert abs(raw.cv2.imread(str(root / name)).mean() - 10 * frame) < 4
    np.testing.assert_allclose(got.focal_length, [1501 + c for _, c, _ in kept])
    first = [(c, f) for s, c, f in kept if s == "S1/Seq1"]
    points, joints = (np.array([array[c, f] for c, f in first]) for array in (points, joints / 1000))
    rows = len(first)
    assert_placed(got.keypoints2d[:rows], points[:, TRAIN_3DHP_RAW], SEVENTEEN)
    assert_placed(got.keypoints3d[:rows], (joints - joints[:, 4:5])[:, TRAIN_3DHP_RAW], SEVENTEEN, atol=1e-5)
    assert got.group.tolist() == [s for s, _, _ in kept]
    assert_square(got, boxes_of(points[:, TRAIN_3DHP_RAW]), 1.2)
    out = capsys.readouterr().out
    assert "left out 2: joints outside the image" in out
    assert f"left out {len(visible) - len(kept)}: not every tenth frame" in out
    (root / "S1/Seq2/camera.calibration").write_text("Skeletool\nname 0\n  intrinsic 1 2 3\n")
    with pytest.raises(InputError, match="'intrinsic' of camera 0 must be 16 numbers"):
        run(monkeypatch, root, "mpi_inf_3dhp", "--split", "train")
    assert read_calibration(root / "S1/Seq1/camera.calibration")[13] == 1514


def test_3dhp_test(tmp_path, monkeypatch, capsys):
    root = tmp_path / "3dhp"
    points, joints = raw.write_3dhp_test(root)
    got = run(monkeypatch, root, "mpi_inf_3dhp")
    names = [f"mpi_inf_3dhp_test_set/TS5/imageSequence/img_{k:06d}.jpg" for k in (1, 3)]
    assert got.image_names.tolist() == names and got.group.tolist() == ["TS5"] * 2
    np.testing.assert_allclose(got.focal_length, 8.770747 * 192)
    np.testing.assert_array_equal(got.img_hw, [[1080, 1920]] * 2)
    assert_placed(got.keypoints2d, points[[0, 2]][:, TEST_3DHP_RAW], SEVENTEEN)
    joints = joints[[0, 2]] / 1000
    assert_placed(got.keypoints3d, (joints - joints[:, 14:15])[:, TEST_3DHP_RAW], SEVENTEEN, atol=1e-5)
    assert_square(got, boxes_of(points[[0, 2]]), 1.2)
    assert "left out 1: frame not valid" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no 'S\[1-8\]/Seq\[12\]/annot.mat'"):
        run(monkeypatch, root, "mpi_inf_3dhp", "--split", "train")


# --- 2D data sets and fits -------------------------------------------------------------------------------------------


def test_coco(tmp_path, monkeypatch, capsys):
    root = tmp_path / "coco"
    points = raw.write_coco(root)
    got = run(monkeypatch, root, "coco")
    assert got.image_names.tolist() == ["train2014/COCO_train2014_000000000042.jpg"]
    assert_square(got, [[10, 20, 50, 110]], 1.2)
    np.testing.assert_array_equal(got.img_hw, [[480, 640]])
    assert_placed(got.keypoints2d, points[:1, 3:, :2], COCO[3:])
    assert np.isnan(got.focal_length).all() and got.group is None and not got.has_smpl.any()
    assert "left out 2: fewer than 12 body joints" in capsys.readouterr().out
    (root / "annotations/person_keypoints_train2014.json").write_text('{"images": []}')
    with pytest.raises(InputError, match="not COCO's person keypoints"):
        run(monkeypatch, root, "coco")


@pytest.mark.parametrize(("write", "left_out"), [(raw.write_mpii_h5, 1), (raw.write_mpii_mat, 2)])
def test_mpii(tmp_path, monkeypatch, capsys, write, left_out):
    """The mat with centre lowered and scale enlarged is the h5."""
    root = tmp_path / "mpii"
    write(root)
    got = run(monkeypatch, root, "mpii")
    assert got.image_names.tolist() == ["images/015601864.jpg", "images/086617615.jpg"]
    np.testing.assert_allclose(got.center, [[100, 145], [300, 215]])
    np.testing.assert_allclose(got.size, [750, 250])
    assert_placed(got.keypoints2d, raw.mpii_points()[[0, 2]], MPII)
    assert f"left out {left_out}: fewer than 16 joints" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"valid.h5.*which has no 'val'"):
        run(monkeypatch, root, "mpii", "--split", "val")


def test_lsp_and_lspet(tmp_path, monkeypatch):
    points = raw.write_lsp(tmp_path / "lsp")
    for split, first in (("train", 0), ("test", 1000)):
        got = run(monkeypatch, tmp_path / "lsp", "lsp", "--split", split)
        assert got.image_names[[0, -1]].tolist() == [f"images/im{first + k:04d}.jpg" for k in (1, 1000)]
        assert_placed(got.keypoints2d, points[first : first + 1000], list(range(14)))
        assert_square(got, boxes_of(points[first : first + 1000]), 1.2)
    points = raw.write_lspet(tmp_path / "lspet")
    got = run(monkeypatch, tmp_path / "lspet", "lspet")
    assert got.image_names.tolist() == ["im00001.png", "im00002.png", "im00003.png"]
    assert_placed(got.keypoints2d, points, list(range(14)))
    with pytest.raises(InputError, match="'joints' must have shape .* is it LSPET's"):
        run(monkeypatch, tmp_path / "lspet", "lsp")
    (tmp_path / "lspet" / "im00002.png").unlink()
    with pytest.raises(InputError, match="3 people, but 2 png images"):
        run(monkeypatch, tmp_path / "lspet", "lspet")


def fits_file(tmp_path, got, kind):
    """Bodies of the rows of `got` in turned order, and one of a person who is not there."""
    count, rng = len(got), np.random.default_rng(1)
    order = np.arange(count)[::-1]
    part = np.concatenate(
        [
            got.keypoints2d[order] + np.array([0.3, 0, 0]) * got.keypoints2d[order, :, 2:],
            np.tile(np.arange(24)[:, None] + 1.0, (1, 1, 3)),
        ]
    )
    part[..., 2] = np.minimum(part[..., 2], 1)
    pose, shape = rng.normal(0, 0.3, (count + 1, 72)), rng.normal(size=(count + 1, 10))
    names = [*got.image_names[order], got.image_names[0]]
    arrays = {"imgname": np.array(names), "center": np.ones((count + 1, 2)), "scale": np.ones(count + 1), "part": part}
    path, extra = tmp_path / f"fits_{kind}.npz", []
    if kind == "cliffgt":
        depth = np.tile([0, 0, 5.0], (count + 1, 1))
        np.savez(path, **arrays, pose=pose, shape=shape, global_t=depth, focal_l=np.full(count + 1, 800.0))
    elif kind == "eft":
        path = path.with_suffix(".json")
        rows = [
            {
                "imageName": name.rpartition("/")[2],
                "bbox_center": [1, 1],
                "bbox_scale": 1,
                "gt_keypoint_2d": np.concatenate([np.zeros((25, 3)), part[k]]).tolist(),
                "parm_pose": Rotation.from_rotvec(pose[k].reshape(24, 3)).as_matrix().tolist(),
                "parm_shape": shape[k].tolist(),
            }
            for k, name in enumerate(names)
        ]
        path.write_text(json.dumps({"ver": 0.1, "data": rows}))
    else:
        np.savez(tmp_path / "spin.npz", **arrays)
        path = path.with_suffix(".npy")
        np.save(path, np.concatenate([pose, shape], 1))
        extra = ["--fits_rows", tmp_path / "spin.npz"]
    return ["--fits", path, *extra], pose[order], shape[order]


@pytest.mark.parametrize("kind", ["cliffgt", "eft", "spin"])
def test_fits_go_to_the_person_they_are_of(tmp_path, monkeypatch, capsys, kind):
    root = tmp_path / "lspet"
    raw.write_lspet(root)
    plain = run(monkeypatch, root, "lspet")
    arguments, pose, shape = fits_file(tmp_path, plain, kind)
    got = run(monkeypatch, root, "lspet", *arguments)
    assert "merged 3 of 4 bodies" in capsys.readouterr().out
    np.testing.assert_allclose(got.pose, pose, atol=1e-5)
    np.testing.assert_allclose(got.betas, shape, rtol=1e-5)
    assert got.has_smpl.all()
    np.testing.assert_array_equal(got.keypoints2d, plain.keypoints2d)
    assert (got.focal_length == 800).all() == (kind == "cliffgt") == (got.translation is not None)


def test_fits_of_others_are_refused(tmp_path, monkeypatch):
    root = tmp_path / "lspet"
    raw.write_lspet(root)
    arguments, *_ = fits_file(tmp_path, run(monkeypatch, root, "lspet"), "spin")
    with pytest.raises(InputError, match="give SPIN's npz of them as --fits_rows"):
        run(monkeypatch, root, "lspet", *arguments[:2])
    np.save(tmp_path / "fits_spin.npy", np.zeros((2, 82)))
    with pytest.raises(InputError, match="has 2 rows, but --fits_rows .* has 4"):
        run(monkeypatch, root, "lspet", *arguments)
    raw.write_coco(tmp_path / "coco")
    coco, _, _ = fits_file(tmp_path, run(monkeypatch, tmp_path / "coco", "coco"), "cliffgt")
    with pytest.raises(InputError, match="none of its bodies is of a person in the data set"):
        run(monkeypatch, root, "lspet", *coco)


# --- Parts -----------------------------------------------------------------------------------------------------------


def part_of(name, calls, fail=False):
    def read():
        calls[name] += 1
        if fail:
            raise KeyboardInterrupt
        columns = {"image_names": np.array([f"{name}.jpg"]), "center": np.ones((1, 2)), "size": np.array([2.0])}
        return Rows(columns, {"too small": 2})

    return Part(name, read)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    """Finished parts are not read again, unless a partial result is damaged; those of other settings are refused."""
    calls, output, settings = Counter(), tmp_path / "new" / "a.npz", {"split": "test", "root": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        collect([part_of("a", calls), part_of("b", calls, fail=True)], output, settings)
    parts = [part_of("a", calls), part_of("b", calls)]
    rows = collect(parts, output, settings)
    assert calls == {"a": 1, "b": 2} and rows.dropped == {"too small": 4}
    assert rows.columns["image_names"].tolist() == ["a.jpg", "b.jpg"]
    first = next((tmp_path / "new" / "a.npz.parts").glob("00000_*.npz"))
    first.write_bytes(first.read_bytes()[:50])
    collect(parts, output, settings)
    assert calls == {"a": 2, "b": 2}
    with pytest.raises(InputError, match="a.npz.parts' was made with other settings: split differ; choose another"):
        collect(parts, output, settings | {"split": "train"})
    collect(parts, output, settings)
    assert calls == {"a": 2, "b": 2}


def test_a_run_that_read_nothing_leaves_nothing(tmp_path):
    """So that what it complained of can be set right."""
    output = tmp_path / "a.npz"
    with pytest.raises(KeyboardInterrupt):
        collect([part_of("a", Counter(), fail=True)], output, {"split": "train"})
    assert not list(tmp_path.iterdir())
    assert len(collect([part_of("a", Counter())], output, {"split": "test"})) == 1


def test_nothing_left_and_nothing_there(tmp_path, monkeypatch):
    empty = Rows({"image_names": np.zeros(0, np.str_), "center": np.zeros((0, 2)), "size": np.zeros(0)}, {"blurred": 7})
    with pytest.raises(InputError, match="No row is left of data: 7 blurred"):
        collect([Part("a", lambda: empty)], tmp_path / "a.npz", {"root": "data"})
    with pytest.raises(InputError, match="must end in .npz"):
        PrepareJob("lsp", tmp_path, "train", tmp_path / "a.json", {}).check()
    with pytest.raises(InputError, match="there is no folder"):
        run(monkeypatch, tmp_path / "nowhere", "lsp")


@pytest.mark.parametrize(("package", "dataset"), [("h5py", "mpi_inf_3dhp"), ("cdflib", "h36m")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, dataset):
    root = tmp_path / "data"
    raw.write_3dhp_test(root)
    raw.write_h36m(root)
    raw.write_h36m(root, "S11")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"'{package}': pip install {package}"):
        run(monkeypatch, root, dataset)
