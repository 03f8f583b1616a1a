"""Pictures of synthetic people: labels that fit what is drawn, and a generator that survives being killed."""

import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from cliff_ms.body.files import load_body
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.data.annotations import concatenate
from cliff_ms.io.images import read_image
from cliff_ms.keypoints import COCO17, LSP_EXTRA9, SMPL45, SPIN24, index_map
from cliff_ms.synthetic.scene import SceneMaker, annotate
from tests.paths import ROOT

SCRIPT = ROOT / "scripts" / "make_synthetic.py"


@pytest.fixture(scope="module")
def maker():
    return SceneMaker(load_body(), [])


def command(folder, *options):
    return [sys.executable, str(SCRIPT), "--output_dir", str(folder), "--seed", "5", *map(str, options)]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_joints_lie_on_the_people_who_own_them(maker):
    """At the joints inside trunk and thighs that are said to be seen, nobody else is drawn."""
    inner = index_map(COCO17, ("left_shoulder", "right_shoulder", "left_hip", "right_hip", "left_knee", "right_knee"))
    mine = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scene = maker.place(rng)
        _, owner, depth = maker.draw(rng, scene)
        rows = annotate(scene, owner, depth)
        for joints, translation in zip(rows.input_keypoints[:, inner], rows.translation, strict=True):
            person = np.flatnonzero((scene.people.translation == translation).all(1))[0]
            x, y = joints[joints[:, 2] > 0, :2].astype(int).T
            mine += (owner[y, x] == person).tolist()
    assert len(mine) > 50
    assert np.mean(mine) > 0.97


def test_people_hide_one_another(maker):
    scene = next(s for s in (maker.place(np.random.default_rng(k)) for k in range(50)) if len(s.vertices) == 2)
    nobody, far = np.full(scene.view.img_hw, -1), np.full(scene.view.img_hw, np.inf)
    both = annotate(scene, nobody, far)
    assert len(both) == 2
    in_frame = (both.input_keypoints[..., 2] > 0).sum(1)
    # The second person right in front of everything: the first one is gone, the second one is not hidden by itself.
    alone = annotate(scene, np.full_like(nobody, 1), np.full_like(far, 0.3))
    np.testing.assert_array_equal(alone.translation, both.translation[1:])
    assert (alone.input_keypoints[..., 2] > 0).sum() == in_frame[1]
    # A thing behind both hides nobody.
    behind = annotate(scene, np.full_like(nobody, 2), np.full_like(far, 50.0))
    np.testing.assert_array_equal(behind.input_keypoints, both.input_keypoints)


@pytest.mark.slow
def test_labels_project_from_the_smpl_cell(graph_mode, maker):
    from mindspore import Tensor

    from cliff_ms.body.smpl import SMPL

    rows = concatenate([maker.make((9, k))[1] for k in range(6)])
    body = load_body()
    smpl = SMPL(body, joint_regressor=body.regressors["extra"])
    joints = smpl(Tensor(rows.betas), Tensor(rows.pose))[1].asnumpy()
    joints = joints[:, index_map(SMPL45 + LSP_EXTRA9, SPIN24)]
    pelvis = joints[:, SPIN24.index("pelvis_mpii")][:, None]
    np.testing.assert_allclose(rows.keypoints3d[..., :3], joints - pelvis, atol=1e-4)
    points = joints + rows.translation[:, None]
    pixels = points[..., :2] / points[..., 2:] * rows.focal_length[:, None, None] + rows.img_hw[:, None, ::-1] / 2
    assert np.abs(pixels - rows.keypoints2d[..., :2]).max() < 0.1
    size = rows.size
    low, high = (
        (np.where(rows.keypoints2d[..., 2:] > 0, rows.keypoints2d[..., :2], fill)) for fill in (np.inf, -np.inf)
    )
    extent = high.max(1) - low.min(1)
    np.testing.assert_allclose(size, 1.2 * np.maximum(extent[:, 0] * 4 / 3, extent[:, 1]), rtol=1e-4)


def test_own_photos_are_the_background(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((50, 80, 3), (20, 20, 230), np.uint8))
    image, _ = SceneMaker(load_body(), [tmp_path / "red.png"]).make((1, 0))
    corners = np.concatenate([image[:40].reshape(-1, 3), image[-40:].reshape(-1, 3)]).astype(int)
    assert ((corners[:, 0] - corners[:, 1:].max(1)) > 60).mean() > 0.4


@pytest.mark.slow
def test_the_same_files_after_a_kill_and_with_other_workers(tmp_path):
    options = ("--images", 7, "--shard_size", 2)
    subprocess.run(command(tmp_path / "a", *options, "--workers", 2), check=True, capture_output=True)
    killed = subprocess.Popen(command(tmp_path / "b", *options, "--workers", 1), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "b/shard_00000").is_dir() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for shard in (tmp_path / "b").glob("shard_*"):
        assert len(load_annotations(shard / "annotations.npz")) >= len(list(shard.glob("*.jpg"))) == 2
    kept = {
        path: (tmp_path / "b" / path).stat().st_mtime_ns for path in files(tmp_path / "b") if path.parts[0][0] == "s"
    }

    again = subprocess.run(
        command(tmp_path / "b", *options, "--workers", 1), check=True, capture_output=True, text=True
    )
    assert "there already" in again.stdout
    assert all((tmp_path / "b" / path).stat().st_mtime_ns == then for path, then in kept.items())
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all(a[path] == b[path] for path in a)

    people = load_annotations(tmp_path / "a/annotations.npz")
    assert people.input_joint_set == "coco17"
    assert set(people.image_names) == {path.as_posix() for path in a if path.suffix == ".jpg"}
    for name, img_hw in zip(people.image_names, people.img_hw, strict=True):
        assert read_image(tmp_path / "a" / name).shape[:2] == tuple(img_hw)

    other = subprocess.run(command(tmp_path / "a", "--images", 9), capture_output=True, text=True)
    assert other.returncode == 2
    assert "was made with other settings: images, shard_size differ" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--images", 0), "--images"),
        (("--images", 2, "--workers", 0), "--workers"),
        (("--images", 2, "--backgrounds", "nowhere"), "folder of photos 'nowhere'"),
        (("--images", 2, "--backgrounds", "."), "holds no image"),
        (("--images", 2, "--body", "none.npz"), "none.npz"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, options, message):
    result = subprocess.run(command(tmp_path / "out", *options), capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
