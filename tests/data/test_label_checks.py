"""Files that are well formed and mean something else are refused; of a file that is right, bad rows are left out."""

import shutil

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.commands import prepare
from cliff_ms.config import ModelConfig, SourceConfig
from cliff_ms.data.annotation_files import load_annotations, read_annotations
from cliff_ms.data.source import Source
from cliff_ms.io.errors import InputError
from cliff_ms.io.images import write_image
from cliff_ms.keypoints import SPIN24, flip_permutation
from cliff_ms.zoo import HELD_OUT

MIRRORED = flip_permutation(SPIN24)


@pytest.fixture(scope="module")
def people():
    """The held-out people as arrays of a file."""
    with np.load(HELD_OUT / "annotations.npz") as file:
        return {key: file[key] for key in file.files if not key.startswith("input_keypoints_")}


def write(folder, arrays):
    path = folder / "a.npz"
    np.savez(path, **arrays)
    return path


def scaled(key, factor, channels=slice(None)):
    def change(arrays):
        arrays[key][..., channels] *= factor

    return change


def exchanged(key, places=(slice(None), MIRRORED)):
    return lambda arrays: arrays.update({key: arrays[key][places]})


def turned(key, *signs):
    return scaled(key, np.array(signs), slice(len(signs)))


def of_half_size(arrays):
    for key in ("img_hw", "focal_l"):
        arrays[key] /= 2


def degrees_of(arrays):
    arrays["pose"] = np.rad2deg(arrays["pose"])


WRONG = {
    "joints in mm": (scaled("S", 1000, slice(3)), "'S' must be in m, but most people's joints extend over 1"),
    "joints in a box of 1": (scaled("S", 0.05, slice(3)), "'S' must be in m"),
    "degrees": (degrees_of, "'pose' must be axis-angle in rad"),
    "scale in px": (scaled("scale", 200), "'scale' must be the box height in px / 200"),
    "keypoints as fractions": (scaled("part", 1 / 1280, slice(2)), "'part' must be in px of the full image"),
    "centre as (y, x)": (lambda a: a.update(center=a["center"][:, ::-1]), r"'center' must be \(x, y\), but most lie"),
    "keypoints of larger images": (scaled("part", 4, slice(2)), "'center' and 'part' must be px of the same image"),
    "images as (width, height)": (lambda a: a.update(img_hw=a["img_hw"] / [4, 1]), r"'img_hw' \(height, width\)"),
    "focal length in mm": (scaled("focal_l", 1 / 40), "'focal_l' must be in px"),
    "translation in mm": (scaled("global_t", 1000), "'global_t' must be in m"),
    "sides of 3D joints": (exchanged("S"), "'part' and 'S' agree only with left and right exchanged"),
    "sides of keypoints": (exchanged("part"), "agree only with left and right exchanged"),
    "axes of 3D joints": (turned("S", 1, -1, -1), r"'part' and 'S' agree only with \(x, -y, z\) for \(x, y, z\)"),
    "order of axes": (
        lambda a: a.update(S=a["S"][..., [2, 1, 0, 3]]),
        r"agree only with \(z, y, x\) for \(x, y, z\) in",
    ),
    "corners for centres": (lambda a: a.update(center=a["center"] - 100 * a["scale"][:, None]), "'center' and 'part'"),
    "people behind the camera": (scaled("global_t", -1), "'global_t' must be in m before the camera"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_meaning_is_refused(case, people, tmp_path):
    arrays = {key: np.array(array) for key, array in people.items()}
    change, message = WRONG[case]
    change(arrays)
    with pytest.raises(InputError, match=message):
        load_annotations(write(tmp_path, arrays))


def test_sides_of_bodies_are_compared_with_3d_joints(people, tmp_path):
    arrays = {key: people[key] for key in ("imgname", "center", "scale", "pose", "shape")}
    with pytest.raises(InputError, match="'S' and 'pose' agree only with left and right exchanged"):
        load_annotations(write(tmp_path, {**arrays, "S": people["S"][:, MIRRORED]}))


def test_bodies_in_another_frame_are_noticed(people, tmp_path):
    """3DPW's own poses are relative to the world, not to the camera."""
    pose = people["pose"].copy()
    turn = Rotation.from_euler("y", np.random.default_rng(0).uniform(-180, 180, (len(pose), 1)), degrees=True)
    pose[:, :3] = (turn * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    _, findings = read_annotations(write(tmp_path, {**people, "pose": pose}))
    assert (
        "'S' and 'pose' are hardly alike: of other people, or another camera?" in findings.notes and not findings.wrong
    )


def test_what_is_right_passes(people, tmp_path):
    for keys in (people, ["imgname", "center", "scale", "part"], ["imgname", "center", "scale", "pose", "shape"]):
        known, findings = read_annotations(write(tmp_path, {key: people[key] for key in keys}))
        assert not (findings.wrong or findings.bad or findings.notes) and len(known) == len(people["imgname"])


def test_odd_bad_rows_are_left_out(people, tmp_path, caplog):
    arrays = {key: np.array(array) for key, array in people.items()}
    arrays["part"][7, 3] = [3e4, 100, 1]
    arrays["S"][9, 0, :3] = [0, 0, 50]
    arrays["pose"][11, 5] = np.nan
    arrays["shape"][13, 0] = 300
    arrays["center"][15] = [-5000, 100]
    arrays["scale"][17] = np.inf
    known = load_annotations(write(tmp_path, arrays))
    reasons = known.left_out
    assert list(reasons) == [7, 9, 11, 13, 15, 17]
    assert "'part' has a keypoint more than 10 box heights" in reasons[7] and "4 m apart" in reasons[9]
    assert "'pose' must be finite" in reasons[11] and "beta beyond 20" in reasons[13] and "outside" in reasons[15]
    assert "6 of 713 rows left out, such as row 7" in caplog.text
    kept = np.delete(np.arange(713), [7, 9, 11, 13, 15, 17])
    assert [known.file_row(row) for row in range(len(known))] == kept.tolist()
    np.testing.assert_array_equal(known.keypoints2d, people["part"][kept].astype(np.float32))
    few = write(tmp_path, {key: array[:20] if array.ndim else array for key, array in arrays.items()})
    with pytest.raises(InputError, match="row 7: 'part' has .* 6 of 20 rows are bad, too many"):
        load_annotations(few)


def test_nan_means_missing_where_nothing_is_labelled(people, tmp_path):
    arrays = {key: np.array(array) for key, array in people.items()}
    arrays["has_smpl"] = np.arange(713) != 3
    arrays["pose"][3], arrays["shape"][3], arrays["global_t"][3] = np.nan, np.nan, np.nan
    arrays["S"][5] = np.nan
    arrays["part"][6, :, :2], arrays["part"][6, :, 2] = np.nan, 0
    known, findings = read_annotations(write(tmp_path, arrays))
    assert not findings.bad and known.has_smpl[2:5].tolist() == [1, 0, 1] and not known.pose[3].any()
    assert not known.keypoints3d[5].any() and not known.keypoints2d[6].any()
    del arrays["has_smpl"]
    assert load_annotations(write(tmp_path, arrays)).has_smpl[2:5].tolist() == [1, 0, 1]


def test_what_is_taken_otherwise_is_said(people, tmp_path):
    arrays = {key: np.array(array) for key, array in people.items()}
    arrays["part"][:, :, 2] *= 2  # COCO's flags
    arrays["part"][4, [3, 7], :2] = [[-1, -1], [0, 0]]
    arrays["shape"] = np.concatenate([people["shape"], np.ones((713, 1))], 1)  # BEDLAM's 11
    arrays["gender"] = np.array(["male", "F", "neutral"])[np.arange(713) % 3]
    arrays["input_keypoints"] = np.roll(people["input_keypoints"], 5, 0)
    known, findings = read_annotations(write(tmp_path, arrays))
    notes = " ".join(findings.notes)
    assert "confidences above 1 in 'part' count as 1" in notes and "of 11 betas in 'shape' the first 10" in notes
    assert "'part' and 'input_keypoints' lie in different places" in notes
    assert "2 points of 'part' at (0, 0) or (-1, -1) count as missing" in notes and not known.keypoints2d[4, 3].any()
    assert known.keypoints2d[..., 2].max() == 1 and known.gender[:3].tolist() == ["m", "f", "n"]
    np.testing.assert_array_equal(known.betas, people["shape"].astype(np.float32))


def test_check_lists_rows_and_pictures(people, tmp_path, capsys, monkeypatch):
    shutil.copytree(HELD_OUT, tmp_path / "pictures")
    arrays = {key: np.array(array) for key, array in people.items()}
    arrays["part"][[3, 4, 5, 77], 2] = [1e5, 1e5, 1]
    names = arrays["imgname"].tolist()
    gone, cut = names.index(names[100]), names.index(names[200])
    (tmp_path / "pictures" / names[gone]).unlink()
    picture = tmp_path / "pictures" / names[cut]
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2] + whole[-2:])  # ends as a JPEG does, but lacks a half
    file = str(write(tmp_path, arrays))

    def check(*more):
        monkeypatch.setattr("sys.argv", ["prepare.py", "check", file, *more])
        return prepare.main(), capsys.readouterr().out

    code, report = check("--image_dir", str(tmp_path / "pictures"), "--decode")
    assert code == 0 and "4 bad: 'part' has a keypoint more than 10" in report and ": rows 3-5, 77\n" in report
    rows = [row for row, name in enumerate(names) if name == names[gone]]
    assert f"{len(rows)} bad: the picture is not there: rows {rows[0]}" in report
    rows = [row for row, name in enumerate(names) if name == names[cut]]
    assert f"{len(rows)} bad: the picture is a damaged JPEG" in report and f"photographed: rows {rows[0]}" in report
    code, report = check("--output", str(tmp_path / "good.npz"))
    good = load_annotations(tmp_path / "good.npz")
    assert code == 0 and len(good) == len(names) - 4 and not good.left_out and not good.pose.flags.writeable
    arrays["S"] *= 1000
    write(tmp_path, arrays)
    code, report = check()
    assert code == 2 and "wrong: 'S' must be in m" in report and "\nrefused: Annotation file" in report


@pytest.mark.parametrize(("change", "problem"), [("half", "another size than 'img_hw'"), ("unsaid", "lies outside")])
def test_pictures_of_another_size_are_refused_at_the_start(people, tmp_path, change, problem):
    """CLIFF's authors halved 3DPW's pictures; SPIN's file of the whole ones says no size."""
    arrays = {key: array for key, array in people.items() if change == "half" or key not in ("img_hw", "focal_l")}
    for name in set(people["imgname"].tolist()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(tmp_path / name, np.zeros((180, 320, 3), np.uint8))
    with pytest.raises(InputError, match=f"data.val.image_dir: of .* are not those that were annotated.*{problem}"):
        Source(
            SourceConfig(str(write(tmp_path, arrays)), str(tmp_path)),
            ModelConfig(crop_hw=(64, 48)),
            "data.val.image_dir",
        )
