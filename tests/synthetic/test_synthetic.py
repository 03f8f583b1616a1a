"""The stream of synthetic keypoint samples: exact labels, a sane distribution, and what a detector leaves of it."""

import dataclasses

import numpy as np
import pytest

from cliff_ms.body.files import load_body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.body.markers import MARKERS
from cliff_ms.data.batching import Batch
from cliff_ms.data.detections import MIN_JOINTS
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import COCO17, JOINT_SETS, LANDMARKS, LSP_EXTRA9, SMPL45, SPIN24, index_map
from cliff_ms.synthetic.observation import Observer
from cliff_ms.synthetic.stream import KeypointStream
from cliff_ms.synthetic.world import World

BATCH = 256


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def many(body):
    """2048 samples as a detector sees them."""
    stream = KeypointStream(body, "coco17", BATCH, seed=1, observation="detector")
    return Batch(*(np.concatenate(arrays) for arrays in zip(*map(stream.batch, range(8)), strict=True)))


def in_pixels(inputs, center, size):
    return inputs[..., :2] * size[:, None, None] / 2 + center[:, None]


def project(points, focal, img_hw):
    return points[..., :2] / points[..., 2:3] * focal[:, None, None] + img_hw[:, None, ::-1] / 2


@pytest.mark.parametrize("joint_set", JOINT_SETS)
def test_labels_are_those_of_the_smpl_cell(graph_mode, body, joint_set):
    from mindspore import Tensor

    from cliff_ms.body.smpl import SMPL

    stream = KeypointStream(body, joint_set, BATCH, seed=2, observation="clean")
    inputs, center, size, img_hw, focal, kp2d, kp3d, rotmats, betas, has_smpl = stream.batch(0)
    smpl = SMPL(body, joint_regressor=body.regressors["extra"])
    joints = smpl(Tensor(betas), Tensor(rotmats))[1].asnumpy()
    names = SMPL45 + LSP_EXTRA9
    labelled = joints[:, index_map(names, SPIN24)]
    translation = kp3d[:, :1, :3] - labelled[:, :1]
    assert np.abs(labelled + translation - kp3d[..., :3]).max() < 1e-4  # m
    assert np.abs(project(kp3d[..., :3], focal, img_hw) - kp2d[..., :2]).max() < 0.1  # px

    seen = inputs[..., 2] > 0
    expected = project(joints[:, index_map(names, JOINT_SETS[joint_set])] + translation, focal, img_hw)
    assert np.abs(in_pixels(inputs, center, size) - expected)[seen].max() < 0.1
    inside = ((expected >= 0) & (expected < img_hw[:, None, ::-1])).all(-1)
    np.testing.assert_array_equal(seen, inside)
    assert set(np.unique(inputs[..., 2])) == {0, 1}
    assert (has_smpl == 1).all()


@pytest.mark.parametrize("joint_set", JOINT_SETS)
def test_shapes_and_types(body, joint_set):
    count = len(JOINT_SETS[joint_set])
    batch = KeypointStream(body, joint_set, 5, seed=0).batch(7)
    shapes = [(5, count, 3), (5, 2), (5,), (5, 2), (5,), (5, 24, 3), (5, 24, 4), (5, 24, 3, 3), (5, 10), (5,)]
    assert [a.shape for a in batch] == shapes
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in batch)


def test_a_batch_depends_on_seed_part_and_index_only(body):
    def inputs(index, **options):
        return KeypointStream(body, "coco17", 8, **{"seed": 3, **options}).batch(index)

    again = KeypointStream(body, "coco17", 8, seed=3)
    again.batch(0)
    for first, second in zip(inputs(5), again.batch(5), strict=True):
        np.testing.assert_array_equal(first, second)
    others = [inputs(6)[0], inputs(5, seed=4)[0], inputs(5, held_out=True)[0]]
    assert not any(np.array_equal(inputs(5)[0], other) for other in others)


def test_people_face_everywhere_and_are_everywhere(body, many):
    front = many.rotmats[:, 0] @ (0, 0, 1)
    standing = np.abs(front[:, 1]) < 0.7  # of people who lie on their back, the yaw says little
    yaw = np.arctan2(front[standing, 0], -front[standing, 2])
    share = np.histogram(yaw, 8, (-np.pi, np.pi))[0] / standing.sum()
    assert share.min() > 0.09
    assert share.max() < 0.16

    where = many.center / many.img_hw[:, ::-1]
    columns = np.histogram(where[:, 0], 4, (0, 1))[0] / len(where)
    assert columns.min() > 0.18  # the outer quarters as often as the inner ones
    half = many.bbox_size[:, None] * (0.375, 0.5)
    crossing = (many.center < half).any(1) | (many.center + half > many.img_hw[:, ::-1]).any(1)
    assert 0.3 < crossing.mean() < 0.8  # crops that reach over the border of the frame
    assert many.keypoints2d[..., 2].mean() < 0.95  # some people reach out of the frame
    assert (many.keypoints2d[..., 2].sum(1) >= 12).all()


def test_people_and_cameras_are_of_this_world(body, many):
    fov = np.degrees(2 * np.arctan(many.img_hw / 2 / many.focal_length[:, None]))
    assert fov[:, 1].min() > 34.9
    assert fov.max() < 75.1
    assert many.keypoints3d[..., 2].min() > 0.45
    assert many.keypoints3d[..., 2].max() < 20
    assert np.abs(many.betas).max() <= 2.5
    shaped = np.einsum("vkn,bn->bvk", body.shapedirs, many.betas[:200]) + body.v_template
    stature = np.ptp(shaped[..., 1], axis=1)
    assert 1.35 < stature.min()
    assert stature.max() < 2.05
    assert 1.6 < np.median(stature) < 1.8


def test_a_detector_is_noisy_unsure_and_incomplete(body, many):
    names = [name for name in JOINT_SETS["coco17"] if name in SPIN24]
    mine, theirs = index_map(JOINT_SETS["coco17"], names), index_map(SPIN24, names)
    seen = many.inputs[:, mine, 2] > 0
    error = in_pixels(many.inputs, many.center, many.bbox_size)[:, mine] - many.keypoints2d[:, theirs, :2]
    error = np.linalg.norm(error, axis=-1) / many.bbox_size[:, None]
    assert 0.005 < np.median(error[seen]) < 0.03  # of the box
    assert np.percentile(error[seen], 99) > 0.08
    confidence = many.inputs[:, mine, 2]
    unsure = seen & (confidence < 0.5)
    assert np.median(error[unsure]) > 2 * np.median(error[seen & (confidence > 0.8)])
    assert 0.5 < seen.mean() < 0.9
    assert (many.inputs[~(many.inputs[..., 2] > 0)] == 0).all()
    assert ((many.inputs[..., 2] > 0).sum(1) >= MIN_JOINTS).all()


def test_some_of_a_mixture_are_exact_and_some_have_only_the_joints_of_coco(body):
    batch = KeypointStream(body, "openpose25", 4 * BATCH, seed=1).batch(0)
    names = [name for name in JOINT_SETS["openpose25"] if name in SPIN24]
    mine, theirs = index_map(JOINT_SETS["openpose25"], names), index_map(SPIN24, names)
    seen = batch.inputs[:, mine, 2] > 0
    error = np.linalg.norm(
        in_pixels(batch.inputs, batch.center, batch.bbox_size)[:, mine] - batch.keypoints2d[:, theirs, :2], axis=-1
    )
    exact = (np.where(seen, error, 0) < 0.1).all(1)  # px
    assert 0.2 < exact.mean() < 0.3
    beyond = [k for k, name in enumerate(JOINT_SETS["openpose25"]) if name not in JOINT_SETS["coco17"]]
    assert 0.4 < (batch.inputs[:, beyond, 2] == 0).all(1).mean() < 0.65


def test_people_without_3d_labels_are_the_same_people(body):
    everybody, third = (KeypointStream(body, "coco17", 4 * BATCH, seed=1, labelled=x).batch(0) for x in (1.0, 1 / 3))
    assert everybody.has_smpl.all() and (everybody.keypoints3d[..., 3] == 1).all()
    assert 0.2 < third.has_smpl.mean() < 0.47
    np.testing.assert_array_equal(third.keypoints3d[..., 3], np.repeat(third.has_smpl[:, None], 24, 1))
    for name in ("inputs", "keypoints2d", "rotmats", "img_hw"):
        np.testing.assert_array_equal(getattr(third, name), getattr(everybody, name))


def test_an_unknown_focal_length_is_estimated_and_nothing_else_changes(body):
    known, estimated = (KeypointStream(body, "coco17", 8, 1, known_focal_length=k).batch(0) for k in (True, False))
    expected = known._replace(focal_length=np.linalg.norm(known.img_hw, axis=1))
    for name, a, b in zip(Batch._fields, expected, estimated, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, err_msg=name)


def test_half_hides_half(body):
    batch = KeypointStream(body, "openpose25", BATCH, seed=1, observation="half").batch(0)
    seen = (batch.inputs[..., 2] > 0).sum(1)
    assert np.median(seen) <= 13
    assert seen.min() >= MIN_JOINTS


def test_a_body_without_the_regressor_is_refused(body):
    with pytest.raises(InputError, match=r"J_regressor_extra\.npy"):
        KeypointStream(dataclasses.replace(body, regressors={}), "coco17", 4, seed=0)


def test_the_bundled_detector_errs_as_it_was_measured(body):
    """Around the markers of the body, some far astray, legs mixed up now and then, nothing at the border."""
    rng = np.random.default_rng(4)
    people = World(body).sample(rng, 1024)
    given, _, size = Observer("coco17", "bundled")(rng, people)
    seen = given[..., 2] > 0
    assert set(np.unique(given[..., 2])) == {0, 1}
    assert 0.7 < seen.sum() / people.in_frame()[:, index_map(LANDMARKS, COCO17)].sum() < 1

    rotmats, betas, translation = (a.astype(np.float64) for a in (people.rotmats, people.betas, people.translation))
    points = Kinematics(body, COCO17, as_detected=True)(rotmats, betas)[0] + translation[:, None]
    focal = people.focal_length[:, None].astype(np.float64)
    markers = points[..., :2] / points[..., 2:] * focal[..., None] + people.img_hw[:, None, ::-1] / 2
    off = 100 * np.linalg.norm(given[..., :2] - markers, axis=-1) * points[..., 2] / focal  # cm
    for k, name in enumerate(COCO17):
        marker = MARKERS[name.rpartition("_")[2]]
        distance = off[seen[:, k], k]
        near = distance < 4 * marker.spread
        legs = 0.05 if name.endswith(("hip", "knee", "ankle")) else 0
        assert abs(np.median(distance[near]) / marker.spread - 1) < 0.2
        assert marker.astray / 2 - 0.02 < 1 - near.mean() < marker.astray + legs + 0.05

    names = {name: k for k, name in enumerate(COCO17)}
    exact = people.points2d[:, index_map(LANDMARKS, COCO17)]
    left, right = names["left_knee"], names["right_knee"]
    rows = seen[:, left] & seen[:, right] & (np.abs(exact[:, left] - exact[:, right]).max(1) > 0.15 * size)
    crossed = np.linalg.norm(given[rows, left, :2] - exact[rows, right], axis=1)
    straight = np.linalg.norm(given[rows, left, :2] - exact[rows, left], axis=1)
    assert 0.02 < (crossed < straight).mean() < 0.15
    known, limit = given[..., :2][seen], np.repeat(people.img_hw[:, None, ::-1], 17, 1)[seen]
    assert (known > 0).all() and (known < limit).all()


def test_an_unknown_observation_is_refused():
    with pytest.raises(ValueError, match="half"):
        Observer("coco17", "noisy")
