import io
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.data.readers import agora as reader
from cliff_ms.data.readers.foreign_pickles import read_dataframe, read_tensors
from cliff_ms.evaluation.agora import AgoraPrediction, evaluate_agora, load_body_vertices, match_people
from cliff_ms.evaluation.submission import write_submission
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SMPL45, SPIN24
from tests.paths import GOLDEN
from tests.toys.agora import CAMERAS, make_people, write_agora, write_dataframe, write_fit
from tests.toys.body import toy_body
from tests.toys.reference import reference_smpl

IDS = np.array([0, 3, 5])
NAMES = tuple(CAMERAS)


def truth(count=3, seed=0, **changes):
    """People far from each other, 8 vertices each."""
    rng = np.random.default_rng(seed)
    joints = rng.normal(0, 0.3, (count, 45, 3)) + [0, 0, 5]
    joints2d = rng.normal(0, 60, (count, 45, 2)) + [[[300 + 800 * k, 1000]] for k in range(count)]
    image = reader.AgoraImage(
        stem="ag_image",
        focal_length=1920.0,
        joints2d=joints2d,
        joints=joints,
        vertices=rng.normal(0, 0.3, (count, 8, 3)),
        valid=np.ones(count, bool),
        occlusion=np.zeros(count),
        kid=np.zeros(count, bool),
        root_rotations=np.tile(np.eye(3), (count, 1, 1)),
        fits=("",) * count,
    )
    return replace(image, **changes)


def predicted(image, rows=None, img_hw=(720, 1280)):
    """The true people, or some of them, as if predicted in an image of that size."""
    rows = np.arange(len(image)) if rows is None else np.array(rows, int)
    rotmats = Rotation.random(24 * len(rows), random_state=0).as_matrix() if len(rows) else np.zeros(0)
    return AgoraPrediction(
        img_hw,
        rotmats.reshape(-1, 24, 3, 3),
        np.arange(10.0 * len(rows)).reshape(-1, 10),
        np.arange(3.0 * len(rows)).reshape(-1, 3),
        image.vertices[rows],
        image.joints[rows],
        image.joints2d[rows] * (img_hw[0] / 2160),
    )


def score(bodies, image):
    return evaluate_agora([bodies], [image], IDS)


# --- Evaluation ------------------------------------------------------------------------------------------------------


def test_the_truth_scores_zero_wherever_it_stands():
    image = truth(kid=np.array([False, True, False]))
    bodies = predicted(image, [2, 0, 1])
    moved = replace(bodies, joints=bodies.joints + [3, -1, 2], vertices=bodies.vertices + [3, -1, 2])
    for people in (bodies, moved):
        numbers = score(people, image)
        for key in ("mpjpe_mm", "mve_mm", "nmje_mm", "nmve_mm"):
            assert numbers[key] == numbers[f"kid_{key}"] == 0
        assert numbers["precision"] == numbers["recall"] == numbers["f1"] == 1
        assert (numbers["people"], numbers["kid_people"], numbers["missed"], numbers["false_positives"]) == (3, 1, 0, 0)


def test_known_errors_are_from_the_middle_of_the_hips_and_rounded():
    image = truth()
    bodies = predicted(image)
    joints, vertices = bodies.joints.copy(), bodies.vertices.copy()
    joints[:, 20] += [0.12, 0, 0]  # one of 24: 5 mm
    joints[:, 30] += 9  # not scored
    vertices[:, 3] += [0, 0.0906, 0]  # one of the three scored: 30.2 mm
    vertices[:, 4] += 9  # not scored
    numbers = score(replace(bodies, joints=joints, vertices=vertices), image)
    assert (numbers["mpjpe_mm"], numbers["mve_mm"]) == (5.0, 30.2)
    hips = bodies.joints.copy()
    hips[:, 1, 0] += 0.048  # the root moves by 24 mm: 22 joints and a hip by 24, the other hip by 24
    numbers = score(replace(bodies, joints=hips), image)
    assert (numbers["mpjpe_mm"], numbers["mve_mm"]) == (24.0, 24.0)
    root = bodies.joints.copy()
    root[:, 0] += 0.1 * np.array([0.6, 0.8, 0])  # SMPL's pelvis is no root here: 100 / 24
    assert score(replace(bodies, joints=root), image)["mpjpe_mm"] == 4.2


@pytest.mark.parametrize(
    ("rows", "changes", "expected"),
    [
        pytest.param([0, 1], {}, (3, 1, 0, 1.0, 0.67, 0.8), id="missed"),
        pytest.param([0, 1, 2, 1], {}, (3, 0, 1, 0.75, 1.0, 0.86), id="duplicate"),
        pytest.param([], {}, (3, 3, 0, 0.0, 0.0, 0.0), id="nobody"),
        pytest.param([0, 2], {"valid": [1, 0, 1]}, (2, 0, 0, 1.0, 1.0, 1.0), id="invalid, not predicted"),
        pytest.param([0, 1, 2], {"valid": [1, 0, 1]}, (2, 0, 1, 0.67, 1.0, 0.8), id="invalid, predicted"),
        pytest.param([0, 1, 2], {"occlusion": [0, 90, 90.5]}, (3, 1, 1, 0.67, 0.67, 0.67), id="too occluded"),
        pytest.param([0, 1, 2], {"occlusion": [0, -1, 0]}, (3, 1, 1, 0.67, 0.67, 0.67), id="occlusion not known"),
    ],
)
def test_detection_scores_by_hand(rows, changes, expected):
    image = truth()
    image = replace(image, **{k: np.array(v, bool if k == "valid" else float) for k, v in changes.items()})
    numbers = score(predicted(image, rows), image)
    assert tuple(numbers[k] for k in ("people", "missed", "false_positives", "precision", "recall", "f1")) == expected
    assert numbers["mpjpe_mm"] == (0 if rows else None)


def test_kids_are_scored_apart_but_with_all_false_positives():
    kid = np.array([True, True, False, False])
    image = truth(4, kid=kid)
    bodies = predicted(image, [3, 0, 2, 3, 3], img_hw=(2160, 3840))
    joints = bodies.joints.copy()
    joints[1, 10, 1] += 0.24  # 10 mm
    numbers = score(replace(bodies, joints=joints), image)
    assert (numbers["precision"], numbers["recall"], numbers["f1"]) == (0.6, 0.75, 0.67)
    assert (numbers["mpjpe_mm"], numbers["nmje_mm"]) == (3.3, 4.9)  # 10 / 3; 3.3 / 0.67, both already rounded
    assert (numbers["kid_people"], numbers["kid_missed"]) == (2, 1)
    assert (numbers["kid_precision"], numbers["kid_recall"], numbers["kid_f1"]) == (0.33, 0.5, 0.4)
    assert (numbers["kid_mpjpe_mm"], numbers["kid_nmje_mm"]) == (10.0, 25.0)
    grown_up = score(bodies, replace(image, kid=np.zeros(4, bool)))
    assert grown_up["kid_people"] == 0 and grown_up["kid_f1"] is None and grown_up["kid_nmve_mm"] is None


def test_means_are_over_the_people_of_all_images():
    first, second = truth(3), truth(1, seed=1)
    bodies = [predicted(first), predicted(second, img_hw=(2160, 3840))]
    joints = bodies[1].joints.copy()
    joints[0, 5, 2] += 0.48  # 20 mm
    numbers = evaluate_agora([bodies[0], replace(bodies[1], joints=joints)], [first, second], IDS)
    assert (numbers["images"], numbers["people"], numbers["mpjpe_mm"]) == (2, 4, 5.0)
    with pytest.raises(ValueError):
        evaluate_agora(bodies, [first], IDS)


def test_people_are_matched_closest_first_and_only_if_boxes_meet():
    square = np.tile(np.array([[0.0, 0], [99, 0], [0, 99], [99, 99]]), (6, 1))  # a box of 100 px a side
    shifts = np.array([[0.0, 0], [30, 0]])
    people = square + shifts[:, None]
    near_both = square + [20.0, 0]
    assert match_people(near_both[None], people, np.ones(2, bool)).tolist() == [[0, 1]]
    assert match_people(np.stack([near_both, people[1]]), people, np.ones(2, bool)).tolist() == [[1, 1], [0, 0]]
    once = np.stack([square + [1, 0], square + [80, 0]])  # nobody is matched twice, though the first is near both
    assert match_people(once, people, np.ones(2, bool)).tolist() == [[0, 0], [1, 1]]
    # Shifted by d, two boxes of 100 share (100 - d) / (100 + d): 0.1 lies between 81 and 82.
    for shift, matches in ((81, [[0, 0]]), (82, [])):
        assert match_people(square[None] + [shift, 0], square[None], np.ones(1, bool)).tolist() == matches


def test_distance_is_the_largest_singular_value():
    base = np.random.default_rng(0).uniform(0, 400, (24, 2))
    line, cross = np.zeros((24, 2)), np.zeros((24, 2))
    line[:, 0] = 10  # Frobenius and spectral norm are the same, 49
    cross[::2, 0], cross[1::2, 1] = 12, 12  # Frobenius norm 59, but spectral norm 42: this is the closer one
    pairs = match_people(np.stack([base + line, base + cross]), base[None], np.ones(1, bool))
    assert pairs.tolist() == [[1, 0]]


def test_far_pairs_use_up_the_search():
    square = np.tile(np.array([[0.0, 0], [99, 0], [0, 99], [99, 99]]), (6, 1))
    people = square + np.array([[[0.0, 0]], [[170, 0]], [[3000, 0]]])
    # The first prediction lies between two people and meets neither box: two pairs, as many as there are predictions,
    # that are closer than the second, which is three times too large but meets the box of the third person.
    preds = np.stack([square + [85, 0], people[2] + 2 * (square - 49.5)])
    assert match_people(preds, people, np.ones(3, bool)).tolist() == []
    assert match_people(preds[1:], people, np.ones(3, bool)).tolist() == [[0, 2]]
    # A match counts too: with it, one pair that does not meet is enough.
    preds[0], people[1] = square, square + [85, 0]
    assert match_people(preds, people, np.ones(3, bool)).tolist() == [[0, 0]]


def test_another_body_or_wrong_arrays_are_refused():
    image = truth()
    bodies = predicted(image)
    with pytest.raises(InputError, match="have 8 vertices"):
        score(replace(bodies, vertices=np.zeros((3, 9, 3))), image)
    for changes in (
        {"img_hw": (100, 100)},
        {"joints2d": bodies.joints2d[:, :23]},
        {"joints": np.where(bodies.joints > 5, np.nan, bodies.joints)},
    ):
        with pytest.raises(ValueError):
            score(replace(bodies, **changes), image)


def test_body_vertices(tmp_path):
    path = tmp_path / "body_verts_smpl.npy"
    with pytest.raises(InputError, match="agora_evaluation"):
        load_body_vertices(path)
    np.save(path, np.array([5, 6889], np.uint32))
    assert load_body_vertices(path).tolist() == [5, 6889]
    for wrong in (np.array([6890]), np.array([0.5]), np.array([None])):
        np.save(path, wrong)
        with pytest.raises(InputError):
            load_body_vertices(path)


# --- Submission ------------------------------------------------------------------------------------------------------


def test_submission_is_as_the_checker_wants_it(tmp_path):
    image = truth()
    bodies = replace(predicted(image), joints2d=predicted(image).joints2d[:, :24])
    path = tmp_path / "predictions.zip"
    images = [(f"images/{NAMES[0]}_1280x720.png", bodies), (f"{NAMES[1]}.png", predicted(image, []))]
    assert write_submission(path, images) == 3
    assert list(tmp_path.iterdir()) == [path]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"predictions/{NAMES[0]}_personId_{k}.pkl" for k in range(3)]
        payloads = [archive.read(name) for name in archive.namelist()]
    for k, payload in enumerate(payloads):
        assert b"numpy._core" not in payload
        person = pickle.loads(payload, encoding="latin1")
        assert set(person) == {"joints", "params", "pose2rot"} and person["pose2rot"] is False
        np.testing.assert_allclose(person["joints"], image.joints2d[k, :24])  # px of 3840 x 2160
        shapes = {"transl": (1, 3), "betas": (1, 10), "global_orient": (1, 1, 3, 3), "body_pose": (1, 23, 3, 3)}
        assert {name: array.shape for name, array in person["params"].items()} == shapes
        assert {array.dtype.str for array in person["params"].values()} == {"<f4"}
        np.testing.assert_allclose(person["params"]["body_pose"][0], bodies.rotmats[k, 1:], atol=1e-7)
        np.testing.assert_allclose(person["params"]["global_orient"][0, 0], bodies.rotmats[k, 0], atol=1e-7)
        np.testing.assert_allclose(person["params"]["transl"][0], bodies.translation[k])


def test_pickles_written_by_numpy_2_name_its_module_as_numpy_1_does(tmp_path, monkeypatch):
    def as_numpy_2(person, protocol):
        return original(person, protocol).replace(b"cnumpy.core.", b"cnumpy._core.")

    original = pickle.dumps
    monkeypatch.setattr(pickle, "dumps", as_numpy_2)
    write_submission(tmp_path / "a.zip", [("a.png", predicted(truth(1)))])
    payload = zipfile.ZipFile(tmp_path / "a.zip").read("predictions/a_personId_0.pkl")
    assert b"numpy.core.multiarray" in payload and b"numpy._core" not in payload
    assert pickle.loads(payload)["joints"].shape == (45, 2)


@pytest.mark.parametrize(
    ("names", "message"),
    [(("a.png", "x/a_1280x720.png"), "twice"), (("a.b.png",), "dot"), ((), "nobody")],
)
def test_submission_that_the_leaderboard_would_refuse(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        write_submission(tmp_path / "a.zip", [(name, predicted(truth(1))) for name in names])
    assert not list(tmp_path.iterdir())


# --- Reader ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def body():
    return load_body()


def read_all(root, split):
    (part,) = reader.read(root, split)
    return part.read()


def move_out(person, focal, inside):
    """Move a person to the left until so many of the first 25 joints are inside the image."""
    edge = np.sort(person.joints[:25, 0] + person.joints[:25, 2] * 1920 / focal)[::-1]  # m from the image's left edge
    person.joints = person.joints - [(edge[inside - 1] + edge[inside]) / 2, 0, 0]
    person.joints2d = focal * person.joints[:, :2] / person.joints[:, 2:] + [1920, 1080]


@pytest.mark.torch
def test_from_raw_to_rows(tmp_path, body):
    rng = np.random.default_rng(0)
    people = {name: make_people(body, name, rng) for name in NAMES}
    kid, hidden, (bad, outside, _) = people[NAMES[0]][1], people[NAMES[1]][2], people[NAMES[2]]
    kid.kid, hidden.occlusion, bad.valid = True, 75.0, False
    move_out(outside, focal=28 / 36 * 3840, inside=7)
    write_agora(tmp_path, people, split="train")
    rows = read_all(tmp_path, "train")
    kept = [(name, p) for name in NAMES for p in people[name] if all(p is not x for x in (hidden, bad, outside))]
    reasons = ("not valid", "occluded by more than 70 %", "fewer than 8 joints inside the image")
    assert rows.dropped == dict.fromkeys(reasons, 1)
    columns = rows.columns
    assert columns["image_names"].tolist() == [f"images/{name}_1280x720.png" for name, _ in kept]
    np.testing.assert_allclose(columns["focal_length"], [640, 640, 640, 16000 / 9, 16000 / 9, 8960 / 9])
    assert (columns["img_hw"] == [720, 1280]).all() and set(columns["gender"]) == {"n"}
    assert columns["group"].tolist() == ["kid" if p is kid else "adult" for _, p in kept]
    assert columns["has_smpl"].tolist() == [p is not kid for _, p in kept]
    for k, (_, person) in enumerate(kept):
        small = person.joints2d / 3
        box = small[:25][((small[:25] >= 0) & (small[:25] <= [1280, 720])).all(1)]
        low, high = box.min(0), box.max(0)
        np.testing.assert_allclose(columns["center"][k], (low + high) / 2, rtol=1e-6)
        extent = high - low
        np.testing.assert_allclose(columns["size"][k], 1.2 * max(extent[0] * 4 / 3, extent[1]), rtol=1e-6)
        shared = [name for name in SPIN24 if name in SMPL45]
        ours, theirs = ([names.index(n) for n in shared] for names in (SPIN24, SMPL45))
        assert columns["keypoints2d"][k, :, 2].sum() == len(shared) == 15
        np.testing.assert_allclose(columns["keypoints2d"][k, ours, :2], small[theirs])
        if person is not kid:  # the body as labelled stands as its joints do
            rotmats = Rotation.from_rotvec(columns["pose"][k].reshape(24, 3)).as_matrix()
            joints = reference_smpl(body, columns["betas"][k], rotmats)[1]
            np.testing.assert_allclose(joints - joints[0], person.joints - person.joints[0], atol=2e-6)


@pytest.mark.torch
def test_predicting_the_truth_of_a_raw_tree_scores_zero(tmp_path, body):
    rng = np.random.default_rng(1)
    people = {name: make_people(body, name, rng, count=2) for name in NAMES}
    people[NAMES[0]][0].kid = True
    write_agora(tmp_path, people, small=False)
    truths = list(reader.read_images(tmp_path, "validation"))
    assert [image.stem for image in truths] == list(NAMES)
    ids = np.arange(0, body.vertex_count, 7)
    numbers = evaluate_agora([predicted(image) for image in truths], truths, ids)
    assert (numbers["mpjpe_mm"], numbers["mve_mm"], numbers["f1"], numbers["kid_people"]) == (0, 0, 1, 1)
    rows = read_all(tmp_path, "validation")
    assert rows.columns["img_hw"][0].tolist() == [2160, 3840] and rows.columns["focal_length"][0] == 1920
    # With fits or without, validation can be prepared: its truth is in the dataframes.
    (tmp_path / "smpl_gt").rename(tmp_path / "other")
    assert read_all(tmp_path, "validation").columns["has_smpl"].sum() == 0
    write_agora(tmp_path / "new", people, split="train")
    (tmp_path / "new" / "smpl_gt").rename(tmp_path / "more")
    with pytest.raises(InputError, match="smpl_gt"):
        reader.read(tmp_path / "new", "train")


@pytest.fixture
def small_tree(tmp_path):
    """An image of one person of a toy body, and the row of its dataframe."""
    person = make_people(toy_body(), NAMES[1], np.random.default_rng(0), count=2)[1]
    write_agora(tmp_path, {NAMES[1]: [person]})
    frame = tmp_path / "SMPL" / "validation_0_withjv.pkl"
    return tmp_path, frame, {name: column[0] for name, column in read_dataframe(frame).items()}


@pytest.mark.torch
def test_dataframes_made_for_the_small_images(small_tree):
    root, frame, row = small_tree
    (large,) = reader.read_images(root, "validation")
    row["gt_joints_2d"] = [joints / 3 for joints in row["gt_joints_2d"]]
    write_dataframe(frame, [row])
    with pytest.raises(InputError, match="row 0.*px beside"):
        list(reader.read_images(root, "validation"))
    row["imgPath"] = f"{NAMES[1]}_1280x720.png"
    write_dataframe(frame, [row])
    (image,) = reader.read_images(root, "validation")
    assert image.stem == NAMES[1]
    np.testing.assert_allclose(image.joints2d, large.joints2d)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gt_joints_2d": None}, "'gt_joints_2d' is missing"),
        ({"gt_joints_2d": [np.zeros((127, 2))]}, "row 0: 'gt_joints_2d' must have shape"),
        ({"kid": [True, False]}, "row 0: these must be lists"),
        ({"occlusion": ["much"]}, "row 0: 'occlusion' must be numbers"),
    ],
)
def test_bad_dataframes_are_named(small_tree, changes, message):
    root, frame, row = small_tree
    row = {name: value for name, value in (row | changes).items() if value is not None}
    write_dataframe(frame, [row])
    with pytest.raises(InputError, match=message):
        list(reader.read_images(root, "validation"))


@pytest.mark.torch
def test_what_is_damaged_costs_no_more_than_itself(tmp_path, caplog):
    """A row of a dataframe its image, a fit its person; of the validation split a person without a fit stays."""
    people = {name: make_people(toy_body(), name, np.random.default_rng(0), count=2) for name in NAMES}
    for split in ("train", "validation"):
        write_agora(tmp_path, people, split=split)
        (tmp_path / f"smpl_gt/set/{NAMES[1]}_0.pkl").unlink()
        frame = tmp_path / "SMPL" / f"{split}_0_withjv.pkl"
        rows = [{name: column[k] for name, column in read_dataframe(frame).items()} for k in range(3)]
        for damage in ({"kid": [True]}, {"Yaw": [np.nan, 0.0]}, {"camYaw": None}):
            write_dataframe(frame, [*rows[:2], rows[2] | damage])
            got = read_all(tmp_path, split)
            kept = [0, 0, 1, 1] if split == "validation" else [0, 0, 1]
            stems = [Path(name).stem.removesuffix("_1280x720") for name in got.columns["image_names"].tolist()]
            assert stems == [NAMES[k] for k in kept]
            (reason, *others) = got.dropped
            assert re.search("row is damaged, the first: .*, row 2: ", reason)
            assert others == ([] if split == "validation" else ["SMPL fit missing or damaged"])
        assert got.columns["has_smpl"].sum() == 3
    assert f"{NAMES[1]}_0.pkl' does not exist" in caplog.text


@pytest.mark.torch
def test_files_that_are_not_there(small_tree):
    root, frame, _ = small_tree
    for path in (root / "images").iterdir():
        path.rename(path.with_name("other.png"))
    with pytest.raises(InputError, match="lacks the image"):
        read_all(root, "validation")
    with pytest.raises(InputError, match="has no"):
        next(reader.read_images(root, "train"))
    (root / "SMPLX").mkdir()
    frame.rename(root / "SMPLX" / frame.name)
    with pytest.raises(InputError, match="SMPL-X only"):
        read_all(root, "validation")


@pytest.mark.parametrize("version", ["1.0", "2.2", "3.1"])
def test_dataframes_of_pandas(version):
    columns = read_dataframe(GOLDEN / f"dataframe_pandas_{version}.pkl")
    assert columns["imgPath"].tolist() == ["ag_0.png", "ag_1.png", "ag_2.png"]
    assert columns["camX"].tolist() == [0, 10, 20] and columns["Yaw"][2] == [90, -10]
    assert columns["kid"][0] == [False, True] and columns["kid"][2][0] is True
    np.testing.assert_array_equal(columns["gt_joints_2d"][1][0], [[1, 2], [3, 4]])


@pytest.mark.torch
def test_pickles_are_read_without_running_them(tmp_path):
    person = make_people(toy_body(), NAMES[1], np.random.default_rng(0), count=1)[0]
    write_fit(tmp_path / "fit.pkl", person)
    arrays = read_tensors(tmp_path / "fit.pkl")
    np.testing.assert_allclose(arrays["body_pose"][0], person.pose[1:], atol=1e-6)

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"betas": Harmful()}))
    buffer = io.BytesIO((tmp_path / "fit.pkl").read_bytes()[:200])
    (tmp_path / "cut.pkl").write_bytes(buffer.getvalue())
    for name, message in (("bad.pkl", "refused"), ("cut.pkl", "truncated"), ("none.pkl", "does not exist")):
        for read in (read_dataframe, read_tensors):
            with pytest.raises(InputError, match=f"{message}|refused"):
                read(tmp_path / name)
    assert not (tmp_path / "ran").exists()
