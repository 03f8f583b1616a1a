"""The bundled tables of recorded poses: split, spacing, anatomy; and how they are drawn from and mixed with others."""

import hashlib

import numpy as np
import pytest
import yaml
from build_poses import TEST, THINNING, joint_places
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SMPL24
from cliff_ms.synthetic import quaternions
from cliff_ms.synthetic.poses import PosePrior, limits
from cliff_ms.synthetic.real_poses import TABLES, MixedPoses, RealPoses
from cliff_ms.synthetic.stream import KeypointStream
from cliff_ms.synthetic.world import World
from tests.paths import ZOO

FOLDER = ZOO / "poses"


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def tables():
    return {name: dict(np.load(FOLDER / name)) for name in TABLES}


@pytest.fixture(scope="module")
def rotmats(tables):
    vectors = np.concatenate([table["pose"] for table in tables.values()]).astype(np.float64)
    return Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)


def test_the_manifest_states_what_is_there(tables):
    entries = {entry["file"]: entry for entry in yaml.safe_load((ZOO / "manifest.yaml").read_text())["poses"]}
    assert set(entries) == {f"poses/{name}" for name in TABLES}
    for name, table in tables.items():
        entry = entries[f"poses/{name}"]
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == entry["sha256"]
        assert (len(table["pose"]), table["test"].sum()) == (entry["poses"], entry["for_tests"])
        assert table["pose"].dtype == np.float16 and table["pose"].shape[1:] == (24, 3)
    assert sum((FOLDER / name).stat().st_size for name in TABLES) < 2e6


def test_no_subject_or_action_of_the_tests_is_trained_on(tables):
    assert {"1", "2", "5", "10", "11", "49", "85", "127", "soccer", "washwindow", "indian"} == TEST
    for table in tables.values():
        np.testing.assert_array_equal(table["test"], np.isin(table["subject"], list(TEST)))
        assert not set(table["clip"][table["test"]]) & set(table["clip"][~table["test"]])
    test = tables["cmu.npz"]["test"]
    assert set(tables["cmu.npz"]["subject"][test]) == TEST
    assert test.sum() > 4000 and (~test).sum() > 6000
    for clip, subject in zip(tables["cmu.npz"]["clip"], tables["cmu.npz"]["subject"], strict=True):
        assert subject in clip.split("/")[1]
    assert not any("humanoid3d" in clip for table in tables.values() for clip in table["clip"])


def test_no_two_poses_of_a_part_are_close(tables, rotmats, body):
    places = joint_places(rotmats, body.joint_regressor @ body.v_template, body.parents)
    parts = [(name, part) for name, table in tables.items() for part in (table["test"], ~table["test"]) if part.any()]
    assert len(parts) == 3
    first = dict(zip(tables, (0, len(tables[TABLES[0]]["pose"])), strict=True))
    for name, part in parts:
        rows = np.flatnonzero(part) + first[name]
        for row in np.random.default_rng(0).permutation(rows)[:100]:
            apart = np.linalg.norm(places[rows] - places[row], axis=-1).mean(1)
            assert np.sort(apart)[1] > THINNING - 1e-3  # float16 moves joints by less than a millimetre


def test_recorded_poses_are_what_joints_can_do(rotmats):
    low, high, bone = limits()
    quats = Rotation.from_matrix(rotmats[:, 1:].reshape(-1, 3, 3)).as_quat().reshape(-1, 23, 4)
    parts = quaternions.swing_twist(quats, bone)
    beyond = np.degrees(np.maximum(low - parts, parts - high).clip(0)).max(2)
    assert (beyond > 30).mean(0).max() < 0.03  # of one joint's poses
    assert (beyond > 5).mean() < 0.1
    held = [SMPL24.index(joint) - 1 for joint in ("neck", "head")]
    assert beyond[:, held].max() < 0.5
    for side, outward in (("left", 1), ("right", -1)):  # in coordinates: shins fold back, forearms to the front
        shin = rotmats[:, SMPL24.index(f"{side}_knee")] @ (0, -1, 0)
        forearm = rotmats[:, SMPL24.index(f"{side}_elbow")] @ (outward, 0, 0)
        assert shin[:, 2].max() < np.sin(np.radians(15))
        assert (np.abs(shin[:, 0]) < 0.25).all()
        assert np.quantile(forearm[:, 2], 0.001) > -0.3
    left = rotmats[:, 0, :, 0]
    level = np.hypot(left[:, 0], left[:, 2]) > 0.35
    assert np.abs(left[level, 2]).max() < 5e-3 and level.mean() > 0.95  # heading is taken out
    up = rotmats[:, 0, 1, 1]
    assert (up > 0.8).mean() > 0.7 and 0.005 < (up < -0.3).mean() < 0.1  # most stand, some stand on their hands


def test_drawn_from_the_table_with_some_noise_half_of_them_mirrored(rotmats, tables, body):
    poses = RealPoses()
    drawn, air = poses.sample(np.random.default_rng(0), 3000)
    again, _ = poses.sample(np.random.default_rng(0), 3000)
    np.testing.assert_array_equal(drawn, again)
    assert not air.any()
    np.testing.assert_allclose(drawn @ drawn.transpose(0, 1, 3, 2), np.broadcast_to(np.eye(3), drawn.shape), atol=1e-9)

    train = rotmats[~np.concatenate([table["test"] for table in tables.values()])]
    assert len(train) == len(poses.poses)
    mirror = np.diag([-1.0, 1, 1])
    flipped = mirror @ train[:, [SMPL24.index(_other(joint)) for joint in SMPL24]] @ mirror
    joints = body.joint_regressor @ body.v_template
    known, other, seen = (joint_places(part, joints, body.parents) for part in (train, flipped, drawn[:300]))
    to_known, to_other = (
        np.array([np.linalg.norm(part - place, axis=-1).mean(1).min() for place in seen]) for part in (known, other)
    )
    nearest = np.minimum(to_known, to_other)
    assert 0.01 < np.median(nearest) < 0.05  # m
    assert 0.4 < (to_other < to_known).mean() < 0.6


def _other(joint):
    side, _, part = joint.partition("_")
    return {"left": f"right_{part}", "right": f"left_{part}"}.get(side, joint)


def test_noise_takes_no_joint_out_of_its_limits():
    """Where the table's poses are out of them, drawn ones are so no further."""
    poses, prior = RealPoses(), PosePrior()
    low, high, bone = limits()
    table = quaternions.swing_twist(poses.poses[:, 1:], bone)
    mirror = quaternions.swing_twist((poses.poses * [1, -1, -1, 1])[:, 1:], bone)[
        :, [SMPL24.index(_other(joint)) - 1 for joint in SMPL24[1:]]
    ]
    low = np.minimum(low, np.minimum(table, mirror).min(0))
    high = np.maximum(high, np.maximum(table, mirror).max(0))
    drawn, _ = poses.sample(np.random.default_rng(1), 2000)
    quats = Rotation.from_matrix(drawn[:, 1:].reshape(-1, 3, 3)).as_quat().reshape(-1, 23, 4)
    parts = quaternions.swing_twist(quats, prior.bone)
    assert (parts >= low - 1e-6).all() and (parts <= high + 1e-6).all()


class Same:
    """Draws nothing but one pose."""

    def __init__(self, angle, air):
        self.turn, self.air = Rotation.from_euler("x", angle).as_matrix(), air

    def sample(self, rng, count):
        return np.broadcast_to(self.turn, (count, 24, 3, 3)), np.full(count, self.air)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixture_takes_its_share(share):
    rotmats, air = MixedPoses(Same(0, True), Same(1, False), share).sample(np.random.default_rng(0), 2000)
    real = rotmats[:, 5, 1, 1] < 0.9
    assert abs(real.mean() - share) < 0.03
    np.testing.assert_array_equal(air, ~real)


def test_worlds_take_recorded_poses_as_told(body, tables):
    held_out = [KeypointStream(body, "coco17", 8, 0, held_out=test).world.poses.real for test in (False, True)]
    test = np.concatenate([table["test"] for table in tables.values()])
    assert [len(poses.poses) for poses in held_out] == [(~test).sum(), test.sum()]
    assert isinstance(World(body, real=0).poses, PosePrior)
    assert World(body, real=0.25).poses.share == 0.25
    people = World(body, real=1, test=True).sample(np.random.default_rng(0), 300)
    assert (people.in_frame().sum(1) > 0).all() and np.isfinite(people.points2d).all()


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match="Table of poses '.*cmu.npz' does not exist"):
        RealPoses(folder=tmp_path)
