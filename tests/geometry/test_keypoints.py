"""Joint sets: counts, mirror images, conversion by name."""

import numpy as np
import pytest

from cliff_ms import keypoints as kp


@pytest.mark.parametrize("names", [kp.SMPL24, kp.SMPL45, kp.LSP_EXTRA9, kp.H36M17, kp.COCO17, kp.OPENPOSE25])
def test_names_are_unique_and_mirror_onto_themselves(names):
    assert len(set(names)) == len(names)
    flip = kp.flip_permutation(names)
    assert [flip[i] for i in flip] == list(range(len(names)))


def test_known_mirror_permutation():
    """The published one of SMPL's joints."""
    published = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    assert kp.flip_permutation(kp.SMPL24) == published


def test_h36m_regressor_has_the_left_leg_first():
    published_h36m_to_lsp14 = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
    names = [kp.H36M17[i] for i in published_h36m_to_lsp14]
    assert names[:6] == ["right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"]
    assert names[6:] == [
        "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ]  # fmt: skip


def test_conversion_is_by_name_and_leaves_unknown_joints_missing():
    openpose = np.random.default_rng(0).random((2, 25, 3)) + 0.1
    coco = kp.convert_keypoints(openpose, "openpose25", "coco17")
    assert (coco[:, :, 2] > 0).all()  # OpenPose has all of COCO's joints
    np.testing.assert_array_equal(coco[:, kp.COCO17.index("left_ankle")], openpose[:, 14])
    back = kp.convert_keypoints(coco, "coco17", "openpose25")
    missing = [i for i, name in enumerate(kp.OPENPOSE25) if name not in kp.COCO17]
    assert [kp.OPENPOSE25[i] for i in missing[:2]] == ["neck", "pelvis"]
    assert not back[:, missing].any()
    kept = [i for i in range(25) if i not in missing]
    np.testing.assert_array_equal(back[:, kept], openpose[:, kept])


def test_oks_is_cocos():
    """Joint by joint in plain Python; COCO's sigmas as pycocotools lists them."""
    rng = np.random.default_rng(3)
    people, others = rng.uniform(0, 100, (2, 4, 17, 3))
    people[..., 2] = rng.random((4, 17)) > 0.3
    others[..., :2] = people[..., :2] + rng.normal(0, 6, (4, 17, 2))
    others[..., 2] = rng.random((4, 17)) > 0.3
    sigmas = [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89]
    areas = [900.0, 2500.0, 400.0, 10000.0]
    got = kp.oks(people[:, None], others[None], np.array(areas)[:, None])
    assert got.shape == (4, 4)
    for i in range(4):
        for j in range(4):
            terms = []
            for a, b, sigma in zip(people[i], others[j], sigmas, strict=True):
                if a[2] and b[2]:
                    squared = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
                    terms.append(np.exp(-squared / (2 * areas[i] * (2 * sigma / 10) ** 2)))
            np.testing.assert_allclose(got[i, j], sum(terms) / len(terms), rtol=1e-12)
    assert kp.oks(people[0], people[0], 900.0) == 1
    people[..., 2] = 0
    assert not kp.oks(people, others, np.array(areas)).any()


@pytest.mark.parametrize(("joint_set", "count"), [("coco17", 17), ("openpose25", 17)])
def test_detected_joints_become_labels_and_back(joint_set, count):
    """Hips stand for LSP's; OpenPose's neck and pelvis, which lie elsewhere, for nothing."""
    names, points = kp.JOINT_SETS[joint_set], np.random.default_rng(0).random((2, len(kp.JOINT_SETS[joint_set]), 3)) + 1
    labels = kp.convert_keypoints(points, joint_set, "spin24")
    assert (labels[0, :, 2] > 0).sum() == count
    for label, name in (("left_hip_lsp", "left_hip"), ("right_hip_lsp", "right_hip"), ("nose", "nose")):
        np.testing.assert_array_equal(labels[:, kp.SPIN24.index(label)], points[:, names.index(name)])
    assert not labels[:, [kp.SPIN24.index("neck_lsp"), kp.SPIN24.index("pelvis_mpii")]].any()
    back = kp.convert_keypoints(labels, "spin24", joint_set)
    np.testing.assert_array_equal(back[:, kp.index_map(names, kp.COCO17)], points[:, kp.index_map(names, kp.COCO17)])
