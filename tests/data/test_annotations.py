"""Every kind of annotation file into the one schema; what is wrong in one is named by file, row and key."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.data import annotation_files
from cliff_ms.data.annotation_files import load_annotations, save_annotations
from cliff_ms.data.annotations import Annotations, concatenate
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SMPL24, SPIN24

COUNT = 3


def spin_arrays():
    rng = np.random.default_rng(0)
    center, scale = rng.uniform(100, 400, (COUNT, 2)), rng.uniform(0.5, 3, COUNT)
    points = center[:, None] + 200 * scale[:, None, None] * rng.uniform(-0.5, 0.5, (COUNT, 24, 2))
    part = np.concatenate([points, np.ones((COUNT, 24, 1))], -1)
    part[1, 5] = (7, 8, 0)
    return {
        "imgname": np.array(["a/1.jpg", "./a/2.jpg", "a\\3.jpg"]),
        "center": center,
        "scale": scale,
        "part": part,
        "S": np.concatenate([rng.normal(0, 0.3, (COUNT, 24, 3)), np.ones((COUNT, 24, 1))], -1),
        "pose": rng.normal(0, 0.5, (COUNT, 72)),
        "shape": rng.normal(size=(COUNT, 10)),
    }


def cliffgt_arrays():
    more = {"annot_id": np.arange(COUNT), "has_smpl": np.ones(COUNT, bool), "focal_l": np.array([800.0, 801, 802])}
    return {**spin_arrays(), **more, "global_t": np.array([[0.1, 0.2, 5]] * COUNT)}


def bedlam_arrays():
    arrays = spin_arrays()
    rng = np.random.default_rng(1)
    camera = np.tile(np.array([[900.0, 0, 640], [0, 902, 360], [0, 0, 1]]), (COUNT, 1, 1))
    place = np.tile(np.eye(4), (COUNT, 1, 1))
    place[:, :3, 3] = [0, 1, 2]
    return {
        **{key: arrays[key] for key in ("imgname", "center", "scale", "shape")},
        "pose_cam": arrays["pose"],
        "trans_cam": np.full((COUNT, 3), 0.5),
        "cam_ext": place,
        "cam_int": camera,
        "gtkps": np.concatenate(
            [arrays["center"][:, None] + rng.uniform(-50, 50, (COUNT, 30, 2)), np.ones((COUNT, 30, 1))], -1
        ),
        "sub": np.array([{}] * COUNT, dtype=object),  # pickled: must not be opened
    }


def eft_rows():
    arrays = spin_arrays()
    keypoints = np.concatenate([np.full((COUNT, 25, 3), 0.7), arrays["part"]], 1)
    rotmats = Rotation.from_rotvec(arrays["pose"].reshape(-1, 3)).as_matrix().reshape(COUNT, 24, 3, 3)
    return [
        {
            "imageName": f"{k}.jpg",
            "bbox_center": arrays["center"][k].tolist(),
            "bbox_scale": float(arrays["scale"][k]),
            "gt_keypoint_2d": keypoints[k].tolist(),
            "parm_pose": rotmats[k].tolist(),
            "parm_shape": arrays["shape"][k].tolist(),
            "parm_cam": [0.9, 0, 0],
        }
        for k in range(COUNT)
    ]


def write(folder, arrays, name="a.npz"):
    path = folder / name
    if isinstance(arrays, dict):
        np.savez(path, **arrays)
    else:
        path.write_text(json.dumps({"ver": 0.1, "data": arrays}))
    return path


def assert_same(a, b):
    for name in Annotations.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=name)
        elif isinstance(x, dict):
            assert x.keys() == y.keys()
            for key in x:
                assert x[key].dtype == y[key].dtype
                np.testing.assert_array_equal(x[key], y[key], err_msg=key)
        else:
            assert x == y, name


def test_spin_and_cliffgt(tmp_path):
    arrays = cliffgt_arrays()
    got = load_annotations(write(tmp_path, arrays))
    assert got.image_names.tolist() == ["a/1.jpg", "a/2.jpg", "a/3.jpg"]
    np.testing.assert_allclose(got.size, 200 * arrays["scale"], rtol=1e-6)
    for name, key in {"keypoints3d": "S", "pose": "pose", "betas": "shape", "translation": "global_t"}.items():
        np.testing.assert_array_equal(getattr(got, name), arrays[key].astype(np.float32))
        assert getattr(got, name).dtype == np.float32
    assert not got.keypoints2d[1, 5].any() and got.keypoints2d[0, 5, 2] == 1
    np.testing.assert_array_equal(got.focal_length, [800, 801, 802])
    assert got.img_hw is None and got.input_keypoints is None and got.has_smpl.tolist() == [1, 1, 1]

    few = {key: arrays[key] for key in ("imgname", "center", "scale", "pose")}
    got = load_annotations(write(tmp_path, few))
    assert np.isnan(got.focal_length).all() and not got.has_smpl.any() and got.translation is None
    assert got.keypoints2d.shape == (COUNT, 24, 3) and not got.keypoints3d.any() and got.betas.shape == (COUNT, 10)
    assert load_annotations(write(tmp_path, spin_arrays())).has_smpl.all()


def test_bedlam(tmp_path):
    arrays = bedlam_arrays()
    got = load_annotations(write(tmp_path, arrays))
    np.testing.assert_allclose(got.translation, [[0.5, 1.5, 2.5]] * COUNT)
    np.testing.assert_allclose(got.focal_length, 901)
    np.testing.assert_array_equal(got.img_hw, [[720, 1280]] * COUNT)
    wrist = arrays["gtkps"][:, SMPL24.index("right_wrist"), :2]
    np.testing.assert_allclose(got.keypoints2d[:, SPIN24.index("right_wrist"), :2], wrist, rtol=1e-6)
    assert not got.keypoints2d[:, SPIN24.index("head_top_lsp")].any() and got.has_smpl.all()
    with pytest.raises(InputError, match="SMPL-X poses"):
        load_annotations(write(tmp_path, {**arrays, "pose_cam": np.zeros((COUNT, 165))}))
    real = {key: spin_arrays()[key] for key in ("imgname", "center", "scale", "part", "shape")}
    got = load_annotations(write(tmp_path, {**real, "pose_cam": arrays["pose_cam"]}))
    assert got.keypoints2d[0, 13, 2] == 1 and np.isnan(got.focal_length).all()


def test_eft(tmp_path):
    got = load_annotations(write(tmp_path, eft_rows(), "eft.json"))
    arrays = spin_arrays()
    expected = Rotation.from_rotvec(arrays["pose"].reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(Rotation.from_rotvec(got.pose.reshape(-1, 3)).as_matrix(), expected, atol=1e-6)
    np.testing.assert_allclose(got.keypoints2d[0], arrays["part"][0], rtol=1e-6)
    np.testing.assert_allclose(got.size, 200 * arrays["scale"], rtol=1e-6)
    assert got.image_names.tolist() == ["0.jpg", "1.jpg", "2.jpg"] and got.has_smpl.all()


def test_own_files_come_back_as_they_were(tmp_path):
    keypoints = np.random.default_rng(2).uniform(0, 1, (COUNT, 17, 3))
    extra = {"img_hw": np.full((COUNT, 2), 480.0), "input_keypoints": keypoints, "input_joint_set": "coco17"}
    arrays = {**cliffgt_arrays(), **extra, "focal_l": np.array([np.nan, 900, np.nan]), "has_smpl": [1.0, 0, 1]}
    first = load_annotations(write(tmp_path, arrays), ("annot_id", "good"))
    assert first.input_joint_set == "coco17"
    assert list(first.extras) == ["annot_id"] and first.extras["annot_id"].dtype == arrays["annot_id"].dtype
    save_annotations(tmp_path / "own.npz", first)
    assert_same(load_annotations(tmp_path / "own.npz", ("annot_id",)), first)
    assert not load_annotations(tmp_path / "own.npz").extras
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with np.load(tmp_path / "own.npz") as file:
        np.testing.assert_array_equal(first.box_height, 200 * file["scale"])


def test_own_files_are_views_until_somebody_changes_them(tmp_path, monkeypatch):
    first = load_annotations(write(tmp_path, cliffgt_arrays()), ["annot_id"])
    own = tmp_path / "own.npz"
    save_annotations(own, first)
    reads = []
    monkeypatch.setattr(annotation_files, "examine", lambda known, findings: reads.append(len(known)))
    mapped = load_annotations(own, ["annot_id"])
    assert not reads and not mapped.keypoints2d.flags.owndata and not mapped.keypoints2d.flags.writeable
    assert_same(mapped, first)
    with np.load(own) as file:
        arrays = {key: file[key] for key in file.files}
    arrays["S"] = arrays["S"] * 2
    np.savez(own, **arrays)  # the mark is still there, but of other arrays
    assert load_annotations(own).keypoints3d[0, 0, 0] == 2 * first.keypoints3d[0, 0, 0] and reads == [COUNT]
    save_annotations(own, first)
    data = bytearray(own.read_bytes())
    data[data.index(first.pose.tobytes()) + 7] ^= 1
    own.write_bytes(data)
    with pytest.raises(InputError, match="own.npz' is damaged"):
        load_annotations(own)


def test_what_is_wrong_is_not_marked_as_checked(tmp_path):
    first = load_annotations(write(tmp_path, cliffgt_arrays()))
    save_annotations(tmp_path / "own.npz", replace(first, keypoints3d=1000 * first.keypoints3d))
    with pytest.raises(InputError, match="'S' must be in m"):
        load_annotations(tmp_path / "own.npz")


def test_rows_are_taken_and_put_together(tmp_path):
    known = load_annotations(write(tmp_path, cliffgt_arrays()), ["annot_id"])
    for rows, expected in ((slice(1, None), [1, 2]), (np.array([2, 0]), [2, 0]), (known.focal_length > 800, [1, 2])):
        some = known.take(rows)
        assert len(some) == 2 and some.extras["annot_id"].tolist() == expected and some.img_hw is None
        np.testing.assert_array_equal(some.pose, known.pose[expected])
    assert_same(concatenate([known.take(slice(1)), known.take(slice(1, None))]), known)


def test_what_is_not_known_is_filled_in():
    boxes = {"image_names": np.array(["a.jpg", "b.jpg"]), "center": np.zeros((2, 2)), "size": np.array([3, 4])}
    known = Annotations.of(**boxes, betas=np.ones((2, 10)), img_hw=None)
    assert known.size.dtype == known.betas.dtype == known.pose.dtype == np.float32 and known.betas.all()
    assert known.keypoints3d.shape == (2, 24, 4) and not known.keypoints3d.any() and not known.has_smpl.any()
    assert np.isnan(known.focal_length).all() and known.img_hw is None and known.extras == {}


def put(key, row, value):
    def change(arrays):
        arrays[key] = np.array(arrays[key])
        arrays[key][row] = value

    return change


WRONG = {
    "nan": (put("pose", (1, 3), np.nan), "row 1: 'pose' must be finite"),
    "infinite": (put("center", (2, 0), np.inf), "row 2: 'center' must be finite"),
    "negative size": (put("scale", 1, -2), "row 1: 'scale' must be positive"),
    "zero size": (put("scale", 0, 0), "row 0: 'scale' must be positive"),
    "negative confidence": (put("S", (0, 4, 3), -1), "row 0: 'S' must not have negative confidences"),
    "flag": (lambda a: a.update(has_smpl=[1, 2, 0]), "row 1: 'has_smpl' must be 0 or 1"),
    "focal length": (put("focal_l", 1, 0), "row 1: 'focal_l' must be positive"),
    "infinite focal length": (put("focal_l", 1, np.inf), "row 1: 'focal_l' must be positive"),
    "rows": (lambda a: a.update(center=a["center"][:2]), r"'center' must be numbers of shape \(3, 2\)"),
    "joints": (lambda a: a.update(part=a["part"][:, :14]), r"'part' must be numbers of shape \(3, 24, 3\)"),
    "text": (lambda a: a.update(scale=np.array(["x"] * 3)), "'scale' must be numbers"),
    "names": (lambda a: a.update(imgname=np.arange(3)), "'imgname' must be a list of strings"),
    "no boxes": (lambda a: a.pop("scale"), "key 'scale' is missing"),
    "no names": (lambda a: a.pop("imgname"), "key 'imgname' is missing"),
    "no pose": (lambda a: a.pop("pose"), "has_smpl is 1, but key 'pose' is missing"),
    "empty": (lambda a: a.update({k: v[:0] for k, v in a.items()}), "holds no rows"),
    "no joint set": (lambda a: a.update(input_keypoints=np.zeros((3, 17, 3))), "needs an 'input_joint_set'"),
    "extra rows": (lambda a: a.update(annot_id=np.arange(2)), r"'annot_id' must have 3 entries, .* has shape \(2,\)"),
    "pickled": (lambda a: a.update(pose=np.array([{}] * 3, dtype=object)), "damaged or not an npz"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, tmp_path):
    arrays = cliffgt_arrays()
    change, message = WRONG[case]
    change(arrays)
    path = write(tmp_path, arrays)
    with pytest.raises(InputError, match=message) as error:
        load_annotations(path, ("annot_id",))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].pop("parm_pose"), "row 1: 'parm_pose' must be numbers"),
        (lambda rows: rows[2].update(bbox_scale="wide"), "row 2: 'bbox_scale' must be one value"),
        (lambda rows: rows[0].update(parm_pose=np.zeros((24, 3, 3)).tolist()), "row 0: 'parm_pose' must hold rotation"),
        (lambda rows: rows[1].update(bbox_scale=-1), "row 1: 'scale' must be positive"),
        (lambda rows: rows.clear(), "holds no rows"),
        (lambda rows: rows.insert(0, 7), "row 0: "),
    ],
)
def test_wrong_eft(change, message, tmp_path):
    rows = eft_rows()
    change(rows)
    with pytest.raises(InputError, match=message):
        load_annotations(write(tmp_path, rows, "eft.json"))


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_annotations(tmp_path / "missing.npz")
    path = write(tmp_path, spin_arrays())
    data = path.read_bytes()
    for content, message in [
        (data[: len(data) // 2], "damaged or not an npz"),
        (b"hello, this is text", "damaged or not an npz"),
        (b"[1, 2]", "not EFT's"),
        (b'{"people": []}', "no list 'data'"),
        (b'{"data": [', "is not JSON"),
        (b"", "is empty"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_annotations(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(InputError, match="not an npz file"):
        load_annotations(tmp_path / "array.npy")
