"""Raw data sets through prepare.py: every box, focal length, frame number and joint order against known numbers."""

import json
import re
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.commands import prepare
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.data.readers import extraction
from cliff_ms.data.readers import prepare as prepare_module
from cliff_ms.data.readers.mpi_inf_3dhp import read_calibration
from cliff_ms.data.readers.prepare import PrepareJob
from cliff_ms.data.readers.rows import Part, Rows, WholeSetError, collect, summary, to_annotations
from cliff_ms.io.errors import InputError
from cliff_ms.io.pickles import read_pickle
from cliff_ms.io.video import VideoReader
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
    assert "image files: 1 of 3 are under" in out


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
    with pytest.raises(InputError, match="'intrinsic' of camera 0 must be 16 numbers"):
        (root / "S1/Seq2/camera.calibration").write_text("Skeletool\nname 0\n  intrinsic 1 2 3\n")
        read_calibration(root / "S1/Seq2/camera.calibration")
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


# --- Downloads with faults -------------------------------------------------------------------------------------------


def break_file(path, content=None):
    """Cut a file off in the middle, or give it another content."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if content is None else content)


def write_h36m_videos(root, *stems):
    """One video of each actor of the test set, and more of S11."""
    paths = []
    for subject, stem in [("S9", "Greeting.54138969"), *(("S11", stem) for stem in stems)]:
        paths.append(raw.write_h36m(root, subject, stem).video)
        raw.write_video(paths[-1], 11)
    return paths[1:]


def test_h36m_videos_that_cannot_be_read(tmp_path, monkeypatch, capsys):
    """S11's Directions is published like that: its rows are left out and named, the others have their pictures."""
    root = tmp_path / "h36m"
    stems = [f"{action}.54138969" for action in ("Directions", "Eating", "Phoning", "Posing", "Sitting", "Waiting")]
    cut, empty, missing, short, _, _ = write_h36m_videos(root, *stems)
    break_file(cut)
    break_file(empty, b"")
    missing.unlink()
    raw.write_video(short, 3)  # ends between the frames 0 and 5
    break_file(root / "S11/MyPoseFeatures/D3_Positions_mono/Sitting.54138969.cdf")
    break_file(root / "S11/MySegmentsMat/ground_truth_bb/Waiting.54138969.mat", b"no HDF5")
    (root / "S11/MyPoseFeatures/D3_Positions_mono/._Eating.54138969.cdf").write_bytes(b"macOS")
    got = run(monkeypatch, root, "h36m", "--extract")
    kept = ["S9_Greeting.54138969_000001", "S9_Greeting.54138969_000006", "S11_Posing.54138969_000001"]
    assert got.image_names.tolist() == [f"images/{name}.jpg" for name in kept]
    assert sorted(path.stem for path in (root / "images").iterdir()) == sorted(kept)
    out = capsys.readouterr().out
    for video, reason in ((cut, "is truncated"), (empty, r"is empty \(0 bytes\)"), (missing, "does not exist")):
        assert re.search(f"left out 2: Video '{video}' {reason}", out)
    assert f"left out 1: video '{short}' ends after 3 frames" in out
    for part, reason in (("Sitting.54138969", "no CDF file"), ("Waiting.54138969", "not the HDF5 file")):
        assert re.search(rf"could not be read: S11 {part} \(.*{reason}", out)
    assert "image files: 3 of 3 are under" in out
    for path in [*root.rglob("*.mp4"), *root.rglob("*.jpg")]:
        path.unlink()
    with pytest.raises(InputError, match="No row is left of .*Greeting.54138969.mp4' does not exist"):
        run(monkeypatch, root, "h36m", "--extract")


def test_3dhp_videos_and_annotations_that_end_early(tmp_path, monkeypatch, capsys):
    """Every row that is kept has its picture, whatever becomes of the sequence before."""
    root = tmp_path / "3dhp"
    for sequence in ("S1/Seq1", "S1/Seq2"):
        raw.write_3dhp_train(root, sequence, outside=())
        for camera in (0, 1, 2, 4, 5, 6, 7, 8):
            raw.write_video(root / sequence / "imageSequence" / f"video_{camera}.avi", 25)
    (root / "S1/Seq2/imageSequence/video_4.avi").unlink()
    raw.write_video(root / "S1/Seq2/imageSequence/video_8.avi", 12)
    break_file(root / "S1/Seq1/annot.mat")
    got = run(monkeypatch, root, "mpi_inf_3dhp", "--split", "train", "--extract")
    kept = [divmod(k, 25) for k in range(0, 8 * 25, 10)]
    kept = [(camera, frame) for camera, frame in kept if camera != 3 and not (camera == 7 and frame >= 12)]
    numbers = (0, 1, 2, 4, 5, 6, 7, 8)
    names = [f"S1/Seq2/imageFrames/video_{numbers[c]}/frame_{f + 1:06d}.jpg" for c, f in kept]
    assert got.image_names.tolist() == names and all((root / name).is_file() for name in names)
    out = capsys.readouterr().out
    assert "could not be read: S1/Seq1 (" in out
    assert re.search("left out [23]: Video '.*video_4.avi' does not exist", out)
    assert re.search("left out [12]: video '.*video_8.avi' ends after 12 frames", out)


def test_extraction_goes_on_after_a_kill(tmp_path, monkeypatch):
    """Whole pictures stay as they are, what lies under temporary names goes; videos that are done are not opened."""
    root = tmp_path / "h36m"
    write_h36m_videos(root, "Eating.54138969")
    run(monkeypatch, root, "h36m", "--extract")
    done, empty, gone = (root / "images" / f"{name}.54138969_00000{k}.jpg" for name, k in
                         (("S11_Eating", 1), ("S11_Eating", 6), ("S9_Greeting", 1)))  # fmt: skip
    done.write_bytes(b"whole")
    empty.write_bytes(b"")
    half = root / "images" / f".{empty.name}.x1y2z3.unfinished"
    half.mkdir()
    (half / empty.name).write_bytes(b"half")
    opened = []
    monkeypatch.setattr(extraction, "VideoReader", lambda path, threads: opened.append(path.name) or VideoReader(path))
    run(monkeypatch, root, "h36m", "--extract")
    assert opened == ["Eating.54138969.mp4"]
    assert done.read_bytes() == b"whole" and empty.stat().st_size > 0 and not half.exists()
    gone.unlink()

    def full(*_):
        raise InputError("Cannot write: no space left.")

    monkeypatch.setattr(extraction, "write_image", full)
    with pytest.raises(InputError, match="no space left"):  # is no fault of the video's
        run(monkeypatch, root, "h36m", "--extract")


def test_3dpw_people_and_sequences_that_cannot_be_used(tmp_path, monkeypatch, capsys):
    bodies, root = raw.write_bodies(tmp_path / "bodies"), tmp_path / "3dpw"
    content = raw.write_3dpw(root)
    folder = root / "sequenceFiles" / "test"
    content["campose_valid"][0] = np.zeros(3, int)  # nobody's camera is valid
    content["cam_poses"][1, :3, :3] = 0  # no rotation
    raw.write_python2_pickle(folder / "court_00.pkl", content)
    raw.write_python2_pickle(folder / "alley_00.pkl", content)
    break_file(folder / "alley_00.pkl")
    for key in ("campose_valid", "betas"):
        lacking = {name: value for name, value in content.items() if name != key}
        raw.write_python2_pickle(folder / f"no_{key}.pkl", lacking)
    raw.write_python2_pickle(folder / "short.pkl", content | {"betas": content["betas"][:1]})
    raw.write_3dpw_image(root, (1920, 1080))
    (root / "imageFiles/court_00/image_00000.jpg").rename(root / "imageFiles/court_00/image_00002.jpg")
    (root / "imageFiles/court_00/image_00000.jpg").write_bytes(b"")  # costs no more than itself
    got = run(monkeypatch, root, "3dpw", "--body_dir", bodies)
    assert got.image_names.tolist() == [f"imageFiles/court_00/image_0000{k}.jpg" for k in (0, 2)]
    assert got.gender.tolist() == ["f", "f"] and got.img_hw.tolist() == [[1920, 1080]] * 2
    out = capsys.readouterr().out
    assert "left out 4: camera pose not valid" in out
    for part, reason in {
        "alley_00": "truncated",
        "no_campose_valid": "key 'campose_valid' is missing",
        "no_betas": "key 'betas' is missing",
        "short": "'betas' must be a list of 2 people, but has 1",
    }.items():
        assert re.search(rf"could not be read: {part} \(.*{reason}", out)
    (folder / "court_00.pkl").unlink()
    with pytest.raises(InputError, match="No part of .* can be read: .*truncated"):
        run(monkeypatch, root, "3dpw", "--body_dir", bodies)


def test_an_archive_unpacked_one_folder_too_deep(tmp_path, monkeypatch):
    raw.write_lspet(tmp_path / "data" / "hr-lspet")
    (tmp_path / "data" / "hr-lspet" / "._im00001.png").write_bytes(b"macOS")
    with pytest.raises(InputError, match="no 'joints.mat'.*give --root '.*hr-lspet', which has"):
        run(monkeypatch, tmp_path / "data", "lspet")
    assert len(run(monkeypatch, tmp_path / "data" / "hr-lspet", "lspet")) == 3


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
    path = root / "annotations/person_keypoints_train2014.json"
    content = json.loads(path.read_text())
    images, (good, *_) = content["images"], content["annotations"]
    images += [{"id": 43, "file_name": "b.jpg"}, {"id": 44, "file_name": "c.jpg"}, {"id": 44, "file_name": "d.jpg"}]
    content["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    bad = {
        "without keypoints (the first: annotations row 3)": [{"keypoints": None}, {"keypoints": []}],
        "of another category (the first: annotations row 5)": [{"category_id": 2}],
        "of an image that the file does not list (the first: annotations row 6)": [{"image_id": 5}],
        "of an image_id that two images have (the first: annotations row 7)": [{"image_id": 44}],
        "damaged annotations (the first: annotations row 8: expected the joints of COCO (17), Halpe (26 or 136) or "
        "COCO-WholeBody (133) as x, y, confidence, got 52 numbers)": [
            {"keypoints": [1] * 52}, {"keypoints": [float("nan")] * 51}, {"keypoints": "none"},
        ],
        "no box": [{"bbox": [1, 2, 3]}, {"bbox": None}],
        "image without height and width": [{"image_id": 43}],
        "the same row again": [{"id": 7}],
    }  # fmt: skip
    content["annotations"] += [good | changes for kind in bad.values() for changes in kind]
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    again = run(monkeypatch, root, "coco")
    assert again.image_names.tolist() == got.image_names.tolist() and again.img_hw.tolist() == [[480, 640]]
    out = capsys.readouterr().out
    for reason, kind in bad.items():
        assert f"left out {len(kind)}: {reason}\n" in out
    path.write_text(json.dumps(content | {"annotations": [good | {"keypoints": [1] * 396}]}))
    with pytest.raises(InputError, match="nobody's keypoints; .*1 damaged .*annotations row 0: .* got 396"):
        run(monkeypatch, root, "coco")
    path.write_text('{"images": []}')
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


def test_mpii_people_that_are_damaged(tmp_path, monkeypatch, capsys):
    """Of a joint that there is not, or without a scale: they cost nobody else."""
    raw.write_mpii_mat(tmp_path / "mpii", damaged=True)
    assert len(run(monkeypatch, tmp_path / "mpii", "mpii")) == 2
    assert "left out 2: damaged annotation\n" in capsys.readouterr().out


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
    with pytest.raises(InputError, match="'joints' must be numbers of shape .* is it LSPET's"):
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
        if kind == "spin_final":
            np.savez(path, pose=pose, betas=shape, valid_fit=np.arange(count + 1) > 0)
        else:
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


def test_final_fits_of_spin_are_told_good_from_bad(tmp_path, monkeypatch, capsys):
    raw.write_lspet(tmp_path)
    arguments, pose, shape = fits_file(tmp_path, run(monkeypatch, tmp_path, "lspet"), "spin_final")
    got = run(monkeypatch, tmp_path, "lspet", *arguments)
    assert "merged 2 of 3 bodies" in capsys.readouterr().out
    np.testing.assert_array_equal(got.has_smpl, [1, 1, 0])  # in turned order, and the first of the file is not valid
    np.testing.assert_allclose(got.pose[:2], pose[:2], atol=1e-5)
    np.testing.assert_allclose(got.betas[:2], shape[:2], rtol=1e-5)


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


def test_parts_that_cannot_be_read_are_named_and_tried_again(tmp_path):
    """Also when others were taken from an interrupted run; what is wrong with the whole data set ends the run."""
    calls, output = Counter(), tmp_path / "a.npz"

    def broken(error):
        def read():
            calls["broken"] += 1
            raise error

        return Part("broken", read)

    parts = [part_of("a", calls), broken(InputError("it is cut off.")), part_of("b", calls)]
    with pytest.raises(KeyboardInterrupt):
        collect([*parts[:2], part_of("b", calls, fail=True)], output, {})
    rows = collect(parts, output, {})
    assert rows.unread == {"broken": "it is cut off"} and rows.dropped == {"too small": 4}
    assert calls == {"a": 1, "b": 2, "broken": 2}
    assert "could not be read: broken (it is cut off)" in summary(rows, to_annotations(rows), tmp_path)
    collect([parts[0], part_of("broken", calls), parts[2]], output, {})  # mended
    assert calls == {"a": 1, "b": 2, "broken": 3}
    for error, others in ((WholeSetError("the option is wrong"), parts[2:]), (InputError("it is the only one"), [])):
        with pytest.raises(InputError, match=str(error)):
            collect([broken(error), *others], tmp_path / "b.npz", {})


def test_rows_that_are_not_finite_or_there_twice(tmp_path):
    columns = {
        "image_names": np.array(["a.jpg", "a.jpg", "a.jpg", "b.jpg", "c.jpg"]),
        "center": np.ones((5, 2)),
        "size": np.array([2.0, 2, 3, 2, 2]),
        "pose": np.zeros((5, 72)),
        "focal_length": np.full(5, np.nan),
    }
    columns["pose"][3, 7], columns["pose"][4, 7] = np.nan, 1e39  # too large for what is written
    rows = collect([Part("a", lambda: Rows(columns))], tmp_path / "a.npz", {})
    assert rows.columns["size"].tolist() == [2, 3]
    assert rows.dropped == {"label not finite": 2, "the same row again": 1}


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


def test_rows_that_cannot_be_right_are_left_out_and_counted(tmp_path, monkeypatch):
    rng, count = np.random.default_rng(0), 30
    points = np.concatenate([100 + rng.uniform(-40, 40, (count, 24, 2)), np.ones((count, 24, 1))], -1)
    points[3, 5, 0] = 3e4
    columns = {"image_names": np.array([f"{k}.jpg" for k in range(count)]), "center": np.full((count, 2), 100.0)}
    columns |= {"size": np.full(count, 100.0), "keypoints2d": points, "keypoints3d": np.zeros((count, 24, 4))}

    def read(root, split):
        return [Part("a", lambda: Rows(columns))]

    monkeypatch.setitem(prepare_module.DATASETS, "coco", replace(prepare_module.DATASETS["coco"], read=read))
    job = PrepareJob("coco", tmp_path, "train", tmp_path / "o.npz", {})
    assert "left out 1: 'part' has a keypoint more than 10 box heights" in prepare_module.prepare(job)
    assert len(load_annotations(tmp_path / "o.npz")) == count - 1
    columns["keypoints3d"] = np.concatenate([rng.normal(0, 300, (count, 24, 3)), np.ones((count, 24, 1))], -1)
    with pytest.raises(InputError, match="'S' must be in m, .*; is it the data set's own release"):
        prepare_module.prepare(job)
