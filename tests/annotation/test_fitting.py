"""The annotator's last step: which keypoints it reads, that bodies come nearer to them and to the truth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.annotation.input import Target
from cliff_ms.body.errors import expected_deviations
from cliff_ms.body.files import load_body
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.inference.fit import Fit
from cliff_ms.keypoints import COCO17, SPIN24
from tests.paths import ZOO

PEOPLE = 12


@pytest.fixture(scope="module")
def truth():
    """Held-out people with the exact joints in the frame."""
    return load_annotations(ZOO / "heldout" / "annotations.npz").take(slice(PEOPLE))


def test_keypoints_as_they_came_or_labels_as_they_count(truth):
    from cliff_ms.annotation.fitting import keypoints_to_fit

    weights = np.ones(24, np.float32)
    weights[[SPIN24.index("left_hip_lsp"), SPIN24.index("right_knee")]] = 0, 0.5
    came, joint_set = keypoints_to_fit(Target(truth, None, labelled=False), weights)
    assert came is truth.input_keypoints and joint_set == truth.input_joint_set
    for people in (truth, replace(truth, input_keypoints=None, input_joint_set=None)):
        labels, joint_set = keypoints_to_fit(Target(people, None, labelled=True), weights)
        assert joint_set == "coco17" and labels.shape == (PEOPLE, 17, 3)
        assert not labels[:, COCO17.index("left_hip"), 2].any()
        given = truth.keypoints2d[:, [SPIN24.index(name) for name in ("right_knee", "left_knee")]]
        found = labels[:, [COCO17.index(name) for name in ("right_knee", "left_knee")]]
        np.testing.assert_array_equal(found, given * [[1, 1, 0.5], [1, 1, 1]])


@pytest.mark.slow
def test_fitted_people_are_nearer(truth, graph_mode):
    from cliff_ms.annotation.fitting import fit_people, joint_labels
    from cliff_ms.annotation.report import errors3d
    from cliff_ms.body.smpl import build_smpl

    body, rng = load_body(), np.random.default_rng(0)
    smpl, deviations = build_smpl(body, "body"), expected_deviations()
    turns = Rotation.from_rotvec((rng.standard_normal((PEOPLE, 72)) * deviations[:72]).reshape(-1, 3))
    pose = (Rotation.from_rotvec(truth.pose.reshape(-1, 3)) * turns).as_rotvec().reshape(-1, 72)
    off = replace(truth, pose=pose.astype(np.float32), keypoints3d=np.ones_like(truth.keypoints3d))
    rotmats = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3).astype(np.float32)
    arrays = (smpl, rotmats, off.betas, off.translation, off.focal_length, off.img_hw)
    joints, points = joint_labels(*arrays)
    off.keypoints3d[..., :3] = joints
    off.extras["points2d"] = points
    keypoints = truth.input_keypoints.copy()
    keypoints[4, :, 2] = 0
    fitted = fit_people(Fit(body, truth.input_joint_set, deviations), smpl, off, keypoints, batch_size=5)

    assert np.flatnonzero(np.isnan(fitted.extras["fit_sigma"])).tolist() == [4]
    for name in ("pose", "betas", "translation", "keypoints3d"):
        np.testing.assert_array_equal(getattr(fitted, name)[4], getattr(off, name)[4], err_msg=name)
    np.testing.assert_array_equal(fitted.extras["points2d"][4], points[4])
    np.testing.assert_array_equal(off.extras["points2d"], points)  # what came in is as it was
    others = np.delete(np.arange(PEOPLE), 4)
    seen = truth.keypoints2d[..., 2] > 0
    gaps = [
        np.linalg.norm(each.extras["points2d"] - truth.keypoints2d[..., :2], axis=-1)[others][seen[others]].mean()
        for each in (off, fitted)
    ]
    assert gaps[1] < 0.25 * gaps[0]
    errors = [errors3d(each, truth, {"n": body})["MPJPE (mm)"][others].mean() for each in (off, fitted)]
    assert errors[1] < 0.6 * errors[0]
    # The joints that are written are those of the bodies that are.
    rotmats = Rotation.from_rotvec(fitted.pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3).astype(np.float32)
    arrays = (smpl, rotmats, fitted.betas, fitted.translation, fitted.focal_length, fitted.img_hw)
    joints, points = joint_labels(*arrays)
    np.testing.assert_allclose(fitted.keypoints3d[..., :3], joints, atol=1e-5)
    np.testing.assert_allclose(fitted.extras["points2d"], points, atol=0.02)


@pytest.mark.slow
def test_the_study_of_it(tmp_path, graph_mode, monkeypatch):
    import annotator_fit_study
    import annotator_study

    monkeypatch.setattr(annotator_study, "_CHUNK", 16)
    body, file = load_body(), tmp_path / "people.npz"
    annotator_fit_study.make_people(file, body, 16, 3, narrow=False, observation="bundled")
    rows = annotator_fit_study.study(file, tmp_path / "annotated.npz", body, exact=False)
    errors = {row["bodies"]: row["2D error (px)"] for row in rows}
    assert len(errors) == len(rows) == 8
    assert errors["finetuned, fitted, prior x 1"] < errors["finetuned"] < errors["predicted"]
