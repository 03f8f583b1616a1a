"""From raw downloads through prepare.py and eval.py: whoever predicts the truth scores 0, known errors come out."""

import json
import pickle
import shutil
import sys
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import load_body
from cliff_ms.commands import eval as verb
from cliff_ms.commands import prepare
from cliff_ms.config import ModelConfig
from cliff_ms.data.crop import IMAGENET_MEAN, IMAGENET_STD
from cliff_ms.evaluation import evaluate
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import COCO17, H36M17, LSP_EXTRA9, SMPL45, index_map
from cliff_ms.weights.checkpoint import Weights, WeightsMeta
from tests.toys import agora as raw_agora
from tests.toys import datasets as raw
from tests.toys.body import toy_arrays, toy_regressor
from tests.toys.reference import reference_smpl

META = WeightsMeta(ModelConfig(), "the truth", body="SMPL_NEUTRAL")
CLOSE = {"abs": 0.1}  # mm or degrees
# Of each data set, the places of the 17 joints that the common regressor gives: SPIN's lists, as in test_readers.
H36M_RAW = [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]
TEST_3DHP_RAW = [14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
EVALUATED = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]  # SPIN's H36M_TO_J14
REGRESSOR = toy_regressor(H36M17)
FLIP = np.diag([1.0, -1, -1])
UPSET = Rotation.from_euler("z", 10, degrees=True).as_matrix()

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """Toys of one mesh, the size of people; the male one is the neutral one at another place."""
    folder = tmp_path_factory.mktemp("bodies")
    arrays = toy_arrays() | {"v_template": 0.4 * toy_arrays()["v_template"]}
    male = arrays | {"v_template": arrays["v_template"] + [0.3, 0, 0.4]}
    for name, content in (("NEUTRAL", arrays), ("FEMALE", arrays), ("MALE", male)):
        (folder / f"SMPL_{name}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    np.save(folder / "J_regressor_h36m.npy", REGRESSOR)
    np.save(folder / "J_regressor_extra.npy", toy_regressor(LSP_EXTRA9))
    return folder


@pytest.fixture(scope="module")
def body(bodies):
    return load_body(bodies / "SMPL_NEUTRAL.pkl")


class Oracle:
    """Knows people by the grey of their picture and, where several are in one, by the middle of their box."""

    def __init__(self, people, turn=None, betas=0.0):
        self._people, self._turn, self._betas = people, np.eye(3) if turn is None else turn, betas

    def __call__(self, inputs, center, size, img_hw, focal_length):
        pictures = inputs * IMAGENET_STD[:, None, None] + IMAGENET_MEAN[:, None, None]
        found = [self._find(*row) for row in zip(255 * pictures.max((1, 2, 3)), center, strict=True)]
        rotmats = np.array([person.rotmats for person in found])
        rotmats[:, 0] = self._turn @ rotmats[:, 0]
        translation = np.array([getattr(person, "translation", (0, 0, 5.0)) for person in found])
        translation[:, 2] *= [f / getattr(p, "focal_length", f) for p, f in zip(found, focal_length, strict=True)]
        betas = np.array([person.betas for person in found]) + self._betas
        return rotmats.astype(np.float32), betas.astype(np.float32), np.ones((len(found), 3)), translation

    def _find(self, grey, center):
        def gap(person):
            return abs(person.grey - grey) + np.abs(getattr(person, "center", center) - center).max()

        nearest = min(self._people, key=gap)
        assert gap(nearest) < 3
        return nearest


def prepared(monkeypatch, root, *arguments):
    """What prepare.py writes."""
    output = root.parent / f"{root.name}.npz"
    command = ["prepare.py", arguments[0], "--root", root, "--output", output, *arguments[1:]]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    prepare.main()
    return output


def evaluated(monkeypatch, network, dataset, annotations, *arguments):
    """What eval.py writes."""
    output = annotations.parent / "out" / "r.json"
    command = ["eval.py", "--dataset", dataset, "--annotations", annotations, "--output", output, "--ckpt", "w.ckpt"]
    command += ["--batch_size", "3", "--device_target", "CPU", *arguments]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    monkeypatch.setattr(verb, "load_weights", lambda path: Weights(path, META, sha256=""))
    monkeypatch.setattr(evaluate, "load_network", lambda _, engine, batch_size: (network, batch_size))
    assert verb.main() == 0
    assert output.with_suffix(".md").stat().st_size
    return json.loads(output.read_text())


def write_picture(path, hw, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*hw, 3), grey, np.uint8))


@pytest.mark.slow
def test_3dpw_and_custom(tmp_path, monkeypatch, bodies, body):
    root = tmp_path / "3dpw"
    content = raw.write_3dpw(root)
    people = []
    for frame in range(3):
        write_picture(root / "imageFiles/court_00" / f"image_{frame:05d}.jpg", (960, 540), 60 + 40 * frame)
        for person in range(2):
            joints = raw.placed_in_camera(content, bodies, person, frame)
            pixels = np.array([(raw.INTRINSICS @ joints[name])[:2] / joints[name][2] / 2 for name in COCO17])
            rotmats = Rotation.from_rotvec(content["poses"][person][frame].reshape(24, 3)).as_matrix()
            rotmats[0] = content["cam_poses"][frame][:3, :3] @ rotmats[0]
            center, betas = (pixels.min(0) + pixels.max(0)) / 2, content["betas"][person][:10]
            people.append(SimpleNamespace(grey=60 + 40 * frame, center=center, rotmats=rotmats, betas=betas))
    npz = prepared(monkeypatch, root, "3dpw", "--body_dir", bodies, "--image_scale", "0.5")
    given = (npz, "--image_dir", root, "--body_dir", bodies)

    def run(network, *names):
        return evaluated(monkeypatch, network, names[0], *given, "--protocol", names[1])

    result = run(Oracle(people), "3dpw", "cliff")
    assert result["count"] == 5 and result["groups"].keys() == {"court_00"}
    for key in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg"):
        assert result[key] == pytest.approx(0, **CLOSE)
    assert result["pve_raw_mm"] == pytest.approx(500 * 2 / 5, **CLOSE)  # two of the five are men
    # Turned about the camera's axis.
    gaps = []
    for person in (people[k] for k in (0, 4, 1, 3, 5)):
        joints = REGRESSOR @ reference_smpl(body, person.betas, person.rotmats)[0]
        joints -= joints[0]
        gaps.append(1000 * np.linalg.norm(joints @ UPSET.T - joints, axis=1)[EVALUATED].mean())
    result = run(Oracle(people, UPSET), "3dpw", "spin")
    assert result["mpjpe_mm"] == pytest.approx(np.mean(gaps), **CLOSE) and np.mean(gaps) > 20
    assert result["pa_mpjpe_mm"] == pytest.approx(0, **CLOSE) and result["pve_mm"] is None
    assert result["global_rotation_deg"] == pytest.approx(10, **CLOSE)
    result = run(Oracle(people), "custom", "standard")
    assert result["mpjpe_mm"] == pytest.approx(0, **CLOSE) and result["count"] == 5
    assert sum(b["count"] for b in result["by_distance"]) == 5 and result["mean_pose"]["mpjpe_mm"] > 20
    with pytest.raises(InputError, match="SMPL_NEUTRAL.pkl"):
        evaluated(monkeypatch, Oracle(people), "3dpw", *given[:3])


@pytest.mark.slow
def test_human36m(tmp_path, monkeypatch, bodies, body):
    """S9's left wrist is 28 mm beside where the body has it, which is 2 mm over the 14 joints."""
    root, mosh, rng = tmp_path / "h36m", tmp_path / "neutrSMPL_H3.6", np.random.default_rng(0)
    people, betas = [], np.linspace(-1, 1, 10)
    videos = [("S9", "TakingPhoto 1.60457274", "TakingPhoto 1_cam3"), ("S11", "Phoning 2.54138969", "Phoning 2_cam0")]
    for subject, stem, fit in videos:
        joints, poses = np.full((6, 32, 3), 9999.0), []
        for frame in (0, 5):
            pose = rng.normal(0, 0.4, (24, 3))
            rotmats = Rotation.from_rotvec(pose).as_matrix()
            joints[frame, H36M_RAW] = 1000 * (REGRESSOR @ reference_smpl(body, betas, rotmats)[0]) + [50, 60, 4000]
            poses.append(pose.ravel())
            poses[-1][:3] = Rotation.from_matrix(rotmats[0] @ FLIP).as_rotvec()
            grey = 60 + 40 * len(people)
            people.append(SimpleNamespace(grey=grey, rotmats=rotmats, betas=betas))
            name = f"{subject}_{stem.replace(' ', '_')}_{frame + 1:06d}.jpg"
            write_picture(root / "images" / name, (1002, 1000), grey)
        joints[:, 17 + 2, 1] += 28 * (subject == "S9")
        raw.write_h36m(root, subject, stem, 6, joints)
        np.testing.assert_array_equal(raw.write_mosh(mosh, np.array(poses), f"{subject}/{fit}_aligned.pkl"), betas)
    npz = prepared(monkeypatch, root, "h36m", "--fits", mosh)

    def run(dataset, protocol):
        given = ("--image_dir", root, "--body_dir", bodies, "--protocol", protocol)
        return evaluated(monkeypatch, Oracle(people), dataset, npz, *given)

    for dataset, count, mocap in (("h36m_p1", 4, 1), ("h36m_p2", 2, 2)):
        result = run(dataset, "cliff")
        assert result["count"] == count and result["global_rotation_deg"] == pytest.approx(0, **CLOSE)
        assert result["mpjpe_mm"] == pytest.approx(0, **CLOSE) and result["pa_mpjpe_mm"] == pytest.approx(0, **CLOSE)
        result = run(dataset, "spin")
        assert result["mpjpe_mm"] == pytest.approx(mocap, **CLOSE) and result["global_rotation_deg"] is None
        assert result["groups"]["Photo"]["mpjpe_mm"] == pytest.approx(2, **CLOSE)
    assert result["left_out"] == {"image name does not match '(^|/)S(9|11)_[^/]*\\.60457274'": 2}
    result = run("custom", "mocap")
    assert result["groups"]["Phoning"]["pa_mpjpe_mm"] == pytest.approx(0, **CLOSE)
    assert result["mean_over_groups"]["mpjpe_mm"] == pytest.approx(1, **CLOSE)


@pytest.mark.slow
def test_mpi_inf_3dhp(tmp_path, monkeypatch, bodies, body):
    """In the third frame, the head is 170 mm beside where the body has it: 10 mm over the 17 joints."""
    root, rng, people, joints = tmp_path / "3dhp", np.random.default_rng(0), [], np.zeros((3, 17, 3))
    for frame in range(3):
        rotmats = Rotation.from_rotvec(rng.normal(0, 0.4, (24, 3))).as_matrix()
        people.append(SimpleNamespace(grey=60 + 40 * frame, rotmats=rotmats, betas=rng.normal(0, 0.5, 10)))
        vertices, _ = reference_smpl(body, people[-1].betas, rotmats)
        joints[frame, TEST_3DHP_RAW] = 1000 * (REGRESSOR @ vertices) + [-300, 200, 3000]
        folder = root / "mpi_inf_3dhp_test_set/TS5/imageSequence"
        write_picture(folder / f"img_{frame + 1:06d}.jpg", (1080, 1920), 60 + 40 * frame)
    joints[2, 0, 2] += 170
    raw.write_3dhp_test(root, joints=joints)  # its second frame is not valid
    npz = prepared(monkeypatch, root, "mpi_inf_3dhp")
    given = (npz, "--image_dir", root, "--body_dir", bodies)
    result = evaluated(monkeypatch, Oracle(people), "mpi_inf_3dhp", *given)
    assert (result["protocol"], result["count"]) == ("official", 2)
    assert result["mpjpe_mm"] == pytest.approx(5, **CLOSE)
    assert result["pck_percent"] == pytest.approx((100 + 100 * 13 / 14) / 2)
    result = evaluated(monkeypatch, Oracle(people), "mpi_inf_3dhp", *given, "--protocol", "spin")
    assert result["count"] == 1 and result["mpjpe_mm"] == pytest.approx(10, **CLOSE)


def agora_tree(root, body, monkeypatch):
    """Nine people in three images; one is too hidden to be found, one is a kid, and one is not valid."""
    rng = np.random.default_rng(0)
    images = {name: raw_agora.make_people(body, name, rng) for name in raw_agora.CAMERAS}
    first, second, third = images.values()
    first[0].occlusion, second[1].kid, third[2].valid = 95.0, True, False
    monkeypatch.setattr(raw_agora, "write_fit", lambda *_: None)  # needs PyTorch; validation does without fits
    raw_agora.write_agora(root, images)
    shutil.rmtree(root / "smpl_gt")
    for k, (name, people) in enumerate(images.items()):
        write_picture(root / "images" / f"{name}_1280x720.png", (720, 1280), 60 + 40 * k)
        for person in people:
            points = person.joints2d[:25] / 3
            points = points[((points >= 0) & (points <= [1280, 720])).all(1)]
            person.grey, person.center = 60 + 40 * k, (points.min(0) + points.max(0)) / 2
            person.focal_length = raw_agora.CAMERAS[name][0] / 36 * 1280
            person.rotmats = Rotation.from_rotvec(person.pose).as_matrix()
            person.rotmats[0] = person.to_camera @ FLIP @ person.rotmats[0]
            person.translation = person.joints[0] - reference_smpl(body, person.betas, person.rotmats)[1][0]
    return images


@pytest.mark.slow
def test_agora(tmp_path, monkeypatch, bodies, body):
    root, ids = tmp_path / "agora", np.arange(0, 97, 3)
    images = agora_tree(root, body, monkeypatch)
    people = [person for image in images.values() for person in image]
    npz = prepared(monkeypatch, root, "agora")
    given = (npz, "--image_dir", root, "--body_dir", bodies)
    with pytest.raises(InputError, match="no file '.*body_verts_smpl.npy'.*pixelite1201/agora_evaluation"):
        evaluated(monkeypatch, Oracle(people), "agora", *given, "--agora_root", root)
    np.save(bodies / "body_verts_smpl.npy", ids)
    for protocol in ("cliff", "known-focal"):
        zip_path = tmp_path / "zip" / f"{protocol}.zip"
        files = ("--agora_root", root, "--agora_zip", zip_path, "--protocol", protocol)
        result = evaluated(monkeypatch, Oracle(people), "agora", *given, *files)
        assert (result["mpjpe_mm"], result["pve_mm"], result["kid_nmve_mm"]) == (0, 0, 0)
        assert result["pa_mpjpe_mm"] is None and result["global_rotation_deg"] is None
        counts = ("images", "count", "people", "missed", "false_positives", "kid_people", "precision", "recall")
        assert tuple(result[key] for key in counts) == (3, 7, 8, 1, 0, 1, 1.0, 0.88)
        assert ("estimated" in result["settings"]["focal lengths"]) == (protocol == "cliff")
        report = npz.parent.joinpath("out/r.md").read_text().splitlines()
        assert any(line.startswith("| kids | 1 | 0 | ") for line in report)
    with zipfile.ZipFile(zip_path) as archive:  # of known focal lengths: joints are where they are in the image
        written = {name: pickle.loads(archive.read(name)) for name in archive.namelist()}
    found = [(name, p) for name, image in images.items() for p in image if p.valid and p.occlusion < 90]
    assert len(written) == len(found)
    for (name, person), payload in zip(found, written, strict=True):
        assert payload.startswith(f"predictions/{name}_personId_")
        np.testing.assert_allclose(written[payload]["joints"], person.joints2d, atol=0.05)
        np.testing.assert_allclose(written[payload]["params"]["transl"][0], person.translation, atol=1e-4)
    # People of another shape: MPJPE and MVE from the middle of the hips, in float64.
    errors = []
    for _, person in found:
        pair = [reference_smpl(body, person.betas + step, person.rotmats) for step in (0, 0.3)]
        points = [np.concatenate([j[:24], v[ids]]) - j[1:3].mean(0) for v, j in pair]
        distance = 1000 * np.linalg.norm(points[0] - points[1], axis=1)
        errors.append((distance[:24].mean(), distance[24:].mean()))
    result = evaluated(monkeypatch, Oracle(people, betas=0.3), "agora", *given, "--agora_root", root)
    assert (result["mpjpe_mm"], result["pve_mm"]) == pytest.approx(tuple(np.mean(errors, 0)), abs=0.11)
    assert result["mpjpe_mm"] > 10 and result["nmje_mm"] == pytest.approx(result["mpjpe_mm"] / result["f1"], abs=0.06)
    # The same people, fitted to where a detector has seen their joints.
    wrong, camera = Oracle(people, betas=0.3), ("--agora_root", root, "--protocol", "known-focal")
    with pytest.raises(InputError, match="'input_keypoints' is missing; a fit needs a detector's"):
        evaluated(monkeypatch, wrong, "agora", *given, *camera, "--fit")
    with np.load(npz) as file:
        columns = dict(file)
    by_box = {tuple(np.round(p.center)): p.joints2d[index_map(SMPL45, COCO17)] / 3 for p in people}
    points = [by_box[tuple(np.round(center))] for center in columns["center"]]
    columns["input_keypoints"] = np.concatenate([points, np.ones((len(points), 17, 1))], -1)
    np.savez(npz, **columns, input_joint_set="coco17")
    predicted, fitted = (evaluated(monkeypatch, wrong, "agora", *given, *camera, *fit) for fit in ((), ("--fit",)))
    assert fitted["settings"]["fit"] and not predicted["settings"]["fit"]
    assert fitted["mpjpe_mm"] < 0.7 * predicted["mpjpe_mm"]


def test_agora_without_truth_and_of_another_split(tmp_path, monkeypatch, bodies, body):
    root = tmp_path / "agora"
    images = agora_tree(root, body, monkeypatch)
    people = [person for image in images.values() for person in image]
    np.savez(  # what a detector finds in the test split: boxes and nothing else
        tmp_path / "test.npz",
        imgname=[f"images/{name}_1280x720.png" for name, image in images.items() for _ in image],
        center=[person.center for person in people],
        scale=np.ones(len(people)),
    )
    given = (tmp_path / "test.npz", "--image_dir", root, "--body_dir", bodies)
    result = evaluated(monkeypatch, Oracle(people), "agora", *given, "--agora_zip", tmp_path / "a.zip")
    assert result["count"] == 9 and result["mpjpe_mm"] is None and "f1" not in result
    assert "\n|  | people |\n| --- | --- |\n| network | 9 |\n" in tmp_path.joinpath("out/r.md").read_text()
    assert len(zipfile.ZipFile(tmp_path / "a.zip").namelist()) == 9
    np.save(bodies / "body_verts_smpl.npy", np.arange(3))
    frame = root / "SMPL/validation_0_withjv.pkl"
    names = list(images)
    raw_agora.write_agora(root, {names[0]: images[names[0]]}, small=True)
    assert frame.is_file()
    with pytest.raises(InputError, match=f"Row 3 .*{names[1]}.*validation split"):
        evaluated(monkeypatch, Oracle(people), "agora", *given, "--agora_root", root)
    with pytest.raises(InputError, match="--agora_root D to score"):
        evaluated(monkeypatch, Oracle(people), "agora", *given)
    with pytest.raises(InputError, match="--agora_root D to score"):
        evaluated(monkeypatch, Oracle(people), "custom", *given, "--agora_zip", tmp_path / "a.zip")
    with pytest.raises(InputError, match="--visualize is not for agora"):
        evaluated(monkeypatch, Oracle(people), "agora", *given, "--agora_zip", tmp_path / "a.zip", "--visualize", "2")
