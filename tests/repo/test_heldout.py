"""The bundled held-out sets: whole, as stated, away from the frame's middle, and labels that fit one another."""

import hashlib

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.io.images import read_image
from cliff_ms.keypoints import COCO17, LSP_EXTRA9, OPENPOSE25, SMPL45, SPIN24, index_map
from tests.paths import ZOO
from tests.toys.reference import reference_joints


@pytest.fixture(scope="module", params=["heldout", "heldout_recorded"])
def folder(request):
    return ZOO / request.param


@pytest.fixture(scope="module")
def people(folder):
    return load_annotations(folder / "annotations.npz")


@pytest.fixture(scope="module")
def observed(folder):
    with np.load(folder / "annotations.npz") as file:
        return {key: file[key] for key in file.files if key.startswith("input_keypoints")}


def test_the_manifest_states_what_is_there(folder, people):
    file = f"{folder.name}/annotations.npz"
    (entry,) = (e for e in yaml.safe_load((ZOO / "manifest.yaml").read_text())["datasets"] if e["file"] == file)
    assert hashlib.sha256((ZOO / file).read_bytes()).hexdigest() == entry["sha256"]
    assert len(people) == entry["people"] >= 300
    pictures = {file.name for file in folder.glob("*.jpg")}
    assert set(people.image_names) == pictures
    assert len(pictures) == entry["pictures"] >= 200
    assert (
        sum(file.stat().st_size for file in folder.iterdir()) <= {"heldout": 15e6, "heldout_recorded": 8e6}[folder.name]
    )


def test_every_picture_has_the_stated_size(folder, people):
    for name in np.unique(people.image_names):
        sizes = people.img_hw[people.image_names == name]
        assert (sizes == read_image(folder / name).shape[:2]).all(), name


@pytest.mark.slow
def test_the_body_projects_onto_its_keypoints(people, observed):
    assert people.has_smpl.all()
    body, names = load_body(), SMPL45 + LSP_EXTRA9
    rotmats = Rotation.from_rotvec(people.pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    batches = np.array_split(np.arange(len(people)), 20)
    joints = np.concatenate([reference_joints(body, people.betas[b], rotmats[b], names)[1] for b in batches])
    points = joints + people.translation[:, None]
    pixels = points[..., :2] / points[..., 2:] * people.focal_length[:, None, None] + people.img_hw[:, None, ::-1] / 2

    def gap(keypoints, joint_set):
        seen = keypoints[..., 2] > 0
        return np.linalg.norm(pixels[:, index_map(names, joint_set)] - keypoints[..., :2], axis=-1)[seen]

    assert gap(people.keypoints2d, SPIN24).max() < 1
    assert gap(people.input_keypoints, COCO17).max() < 1
    assert gap(observed["input_keypoints_openpose25"], OPENPOSE25).max() < 1
    joints = joints[:, index_map(names, SPIN24)]
    pelvis = joints[:, SPIN24.index("pelvis_mpii")][:, None]
    np.testing.assert_allclose(people.keypoints3d[..., :3], joints - pelvis, atol=1e-3)


def test_observations_are_of_the_same_people_and_harder(people, observed):
    size, clean = people.size, people.input_keypoints
    assert people.input_joint_set == "coco17"
    np.testing.assert_array_equal(clean, observed["input_keypoints"])
    assert set(np.unique(clean[..., 2])) == {0, 1}
    shares = []
    for key in ("input_keypoints_noisy", "input_keypoints_half"):
        keypoints = observed[key]
        both = (keypoints[..., 2] > 0) & (clean[..., 2] > 0)
        np.testing.assert_array_equal(both, keypoints[..., 2] > 0)  # nothing is made up
        error = np.linalg.norm(keypoints[..., :2] - clean[..., :2], axis=-1) / size[:, None]
        assert 0.003 < np.median(error[both]) < 0.04
        shares.append(both.sum() / (clean[..., 2] > 0).sum())
    noisy, half = shares
    assert half < noisy - 0.1
    assert half > 0.4 and noisy < 0.95


def test_boxes_hold_the_clean_keypoints_and_lie_all_over_the_frame(people):
    seen = people.input_keypoints[..., 2] > 0
    away = np.abs(people.input_keypoints[..., :2] - people.center[:, None]) / people.size[:, None, None]
    assert away[seen][:, 0].max() <= 0.375 and away[seen][:, 1].max() <= 0.5  # crops are 3:4
    middle = people.img_hw[:, ::-1] / 2
    off = (people.center - middle) / middle
    assert np.abs(off.mean(0)).max() < 0.1  # to no side
    assert np.median(np.abs(off).max(1)) > 0.5
    low, high = np.quantile(people.size / people.img_hw[:, 0], (0.05, 0.95))
    assert low < 0.3 and high > 0.9  # small and large


def test_the_detector_found_most_people_near_their_joints(people, observed):
    detected, exact = observed["input_keypoints_detected"], people.input_keypoints
    found = (detected[..., 2] > 0).any(1)
    assert 0.8 < found.mean() < 0.97
    both = (detected[..., 2] > 0) & (exact[..., 2] > 0)
    error = np.linalg.norm(detected[..., :2] - exact[..., :2], axis=-1) / people.size[:, None]
    assert 0.005 < np.median(error[both]) < 0.03
    assert np.quantile(error[both], 0.95) > 0.08  # real mistakes are among them
