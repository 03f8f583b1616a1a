"""Augmentation by geometry: labels stay those of a real camera, and land on what was rendered."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cliff_ms import load_body
from cliff_ms.config import AugmentConfig
from cliff_ms.data import augment
from cliff_ms.data.crop import crop_affine, normalize_image
from cliff_ms.keypoints import COCO17, SPIN24, flip_permutation
from cliff_ms.visual.render import render_meshes
from tests.toys.reference import reference_joints

BODY = load_body()  # symmetric, as mirroring demands
CROP_HW = (128, 96)
IMG_HW = np.array([241.0, 321.0])  # odd, so that half pixels show
FOCAL = 400.0
EVERYTHING = AugmentConfig(flip=1, rotation_prob=1, crop=1)


def pose_body(rotmats, betas):
    """Vertices (V, 3), pelvis (3,), SPIN24 joints (24, 3) and COCO17 joints (17, 3) in m, model frame, float64."""
    vertices, joints = reference_joints(BODY, betas, rotmats, ("pelvis", *SPIN24, *COCO17))
    return vertices, joints[0], joints[1:25], joints[25:]


def project(points):
    return points[:, :2] / points[:, 2:] * FOCAL + IMG_HW[::-1] / 2


def make_person(seed, place=None):
    """A person somewhere in the frame, or with the pelvis at `place`: the sample, her betas, vertices in the camera."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(0, 0.25, (24, 3))
    rotmats = Rotation.from_rotvec(pose).as_matrix()
    rotmats[0] = Rotation.from_euler("yx", [rng.uniform(-2, 2), np.pi]).as_matrix() @ rotmats[0]  # upright, y down
    betas = rng.normal(0, 1, 10)
    vertices, pelvis, joints, coco = pose_body(rotmats, betas)
    shift = (rng.uniform([-1, -0.4, 3.6], [1, 0.4, 5]) if place is None else np.array(place)) - pelvis
    points = project(joints + shift)
    sample = augment.Sample(
        center=(points.min(0) + points.max(0)) / 2,
        size=1.2 * np.ptp(points[:, 1]),
        img_hw=IMG_HW,
        keypoints2d=np.c_[points, np.ones(24)],
        keypoints3d=np.c_[joints + shift, np.ones(24)],
        rotmats=rotmats,
        input_keypoints=np.c_[project(coco + shift), np.ones(17)],
        input_joint_set="coco17",
    )
    return sample, betas, vertices + shift


STEPS = {
    "flip": augment.flip,
    "roll": lambda sample: augment.rotate(sample, 0.7, "image"),
    "scale": lambda sample: replace(sample, size=1.2 * sample.size),
    "part": lambda sample: augment.crop_to_part(sample, np.random.default_rng(3), CROP_HW),
    "all": lambda sample: augment.augment(sample, np.random.default_rng(5), EVERYTHING, CROP_HW),
}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(sorted(STEPS)), max_size=4))
def test_labels_are_those_of_one_camera(seed, names):
    sample, betas, _ = make_person(seed)
    for name in names:
        sample = STEPS[name](sample)
    # 3D keypoints (here with the camera as origin) project onto the 2D ones,
    points = sample.keypoints3d[:, :3]
    np.testing.assert_allclose(project(points), sample.keypoints2d[:, :2], atol=1e-3)
    # the body posed by the labels has these 3D keypoints and, placed on them, projects onto what is read as well.
    _, _, joints, coco = pose_body(sample.rotmats, betas)
    shift = points[0] - joints[0]
    np.testing.assert_allclose(joints + shift, points, atol=1e-6)
    np.testing.assert_allclose(project(coco + shift), sample.input_keypoints[:, :2], atol=1e-3)


def test_flip_and_roll_are_undone_by_themselves_and_the_opposite():
    sample = make_person(1)[0]
    there = augment.rotate(augment.flip(sample), 0.4, "image")
    back = augment.flip(augment.rotate(there, -0.4, "image"))
    for name in ("center", "keypoints2d", "keypoints3d", "rotmats", "input_keypoints", "to_picture"):
        np.testing.assert_allclose(getattr(back, name), getattr(sample, name), atol=1e-9)
    assert there.size == sample.size and np.abs(there.center - sample.center).max() > 1


def marked_pictures(sample, vertices):
    """One picture per keypoint: the body in grey and the keypoint as a red ball in front of it."""
    grey, _ = render_meshes(np.full((241, 321, 3), 90, np.uint8), [(vertices, (0.7, 0.7, 0.7))], BODY.faces, FOCAL)
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 0.02
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]])
    faces = np.concatenate([faces, [[0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]])
    for joint in sample.keypoints3d[:, :3]:
        _, cover = render_meshes(grey, [(corners + joint, (1.0, 0, 0))], faces, FOCAL, supersample=4)
        yield (grey + cover[..., None] * ((255, 0, 0) - grey.astype(float)) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("name", [*STEPS, "crop rotation", "flip and crop rotation"])
def test_labels_land_on_the_rendered_keypoints(name):
    sample, _, vertices = make_person(4, (0.8, 0.1, 4))
    step = STEPS.get(name) or (
        lambda s: augment.rotate(augment.flip(s) if name.startswith("flip") else s, -0.6, "crop")
    )
    moved = step(sample)
    if name not in ("part", "all"):  # the box is still around the same place of the picture
        np.testing.assert_allclose(moved.to_picture @ [*moved.center, 1], sample.center, atol=1e-9)
    corner = moved.center - moved.size * np.array([0.75, 1]) / 2
    expected = (moved.keypoints2d[:, :2] - corner) * CROP_HW[0] / moved.size  # px of the crop
    # Markers are compared under the name they have after the augmentation.
    order = flip_permutation(SPIN24) if np.linalg.det(moved.to_picture[:, :2]) < 0 else range(24)
    checked = 0
    for marker, picture in zip(order, marked_pictures(sample, vertices), strict=True):
        crop = augment.cut(picture, 1, moved, CROP_HW).astype(float)
        x, y = expected[marker]
        red = crop[..., 0] - crop[..., 1]
        if not (5 < x < CROP_HW[1] - 5 and 5 < y < CROP_HW[0] - 5):
            continue
        found = [(red.sum(axis) @ (np.arange(red.shape[1 - axis]) + 0.5)) / red.sum() for axis in (0, 1)]
        np.testing.assert_allclose(found, (x, y), atol=0.25)
        checked += 1
    assert checked >= 6


def test_rotation_about_the_crop_is_exact_on_the_axis_and_known_off_it():
    angle, middle = 0.5, np.r_[IMG_HW[::-1] / 2]
    on_axis = replace(make_person(2)[0], center=middle)
    a, b = (augment.rotate(on_axis, angle, about) for about in ("crop", "image"))
    for name in ("center", "keypoints2d", "keypoints3d", "rotmats", "to_picture"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-9)

    # Off the axis, the picture shows roughly a body turned about the ray through the centre of its box.
    sample = make_person(2, (0.9, 0, 3.5))[0]
    turned = augment.rotate(sample, angle, "crop")
    np.testing.assert_array_equal(turned.center, sample.center)
    ray = np.r_[sample.center - middle, FOCAL]
    away = np.arctan2(np.linalg.norm(ray[:2]), FOCAL)
    true_turn = Rotation.from_rotvec(angle * ray / np.linalg.norm(ray)).as_matrix()
    error = Rotation.from_matrix(turned.rotmats[0] @ (true_turn @ sample.rotmats[0]).T).magnitude()
    np.testing.assert_allclose(error, 2 * away * np.sin(angle / 2), rtol=0.05)
    # The labels then project up to a few percent of the box beside the picture of the person.
    shift = np.zeros(3)
    shift[:2] = (turned.keypoints2d[14, :2] - middle) / FOCAL * sample.keypoints3d[14, 2]
    points = turned.keypoints3d[:, :3] - turned.keypoints3d[14, :3] + shift + [0, 0, sample.keypoints3d[14, 2]]
    beside = np.linalg.norm(project(points) - turned.keypoints2d[:, :2], axis=1).max() / sample.size
    assert 0.005 < beside < 0.08


def test_a_part_is_a_smaller_box_around_some_keypoints():
    sample = make_person(6)[0]
    for seed in range(30):
        part = augment.crop_to_part(sample, np.random.default_rng(seed), CROP_HW)
        assert 0.25 * sample.size <= part.size <= sample.size
        inside = np.abs(part.keypoints2d[:, :2] - part.center) <= part.size / 2 * np.array([0.75, 1]) + 1e-9
        assert inside.all(1).sum() >= 4
    few = replace(sample, keypoints2d=sample.keypoints2d * (np.arange(24) < 5)[:, None])
    assert augment.crop_to_part(few, np.random.default_rng(0), CROP_HW) is few


def test_scale_and_probabilities_follow_the_configuration():
    sample = make_person(7)[0]
    draw = [augment.augment(sample, np.random.default_rng(k), AugmentConfig(), CROP_HW) for k in range(400)]
    factor = np.array([s.size for s in draw]) / sample.size
    assert factor.min() == 0.75 and factor.max() == 1.25
    mirrored = np.array([np.linalg.det(s.to_picture[:, :2]) < 0 for s in draw])
    degrees = np.array([np.rad2deg(np.arctan2(s.to_picture[0, 1], s.to_picture[1, 1])) for s in draw])
    assert 0.4 < mirrored.mean() < 0.6 and 0.3 < (degrees != 0).mean() < 0.5
    assert 55 < np.abs(degrees).max() <= 60 + 1e-9
    still = AugmentConfig(flip=0, rotation_prob=0, scale=0)
    assert augment.augment(sample, np.random.default_rng(0), still, CROP_HW).size == sample.size


def test_without_augmentation_the_crop_is_the_predictors():
    picture = np.random.default_rng(0).integers(0, 256, (241, 321, 3), np.uint8)
    sample = make_person(8)[0]
    crop = augment.cut(picture, 1, sample, CROP_HW)
    np.testing.assert_array_equal(crop, crop_affine(picture, sample.center, sample.size, CROP_HW))
    np.testing.assert_allclose(augment.crop_to_input(crop, np.ones(3)), normalize_image(crop), atol=1e-6)
    noisy = augment.crop_to_input(crop, np.array([1.4, 1, 0.6]))
    expected = normalize_image(np.minimum(crop * np.array([1.4, 1, 0.6]), 255))
    np.testing.assert_allclose(noisy, expected, atol=1e-5)
