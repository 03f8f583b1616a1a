"""The annotator: what goes in, what comes out, and that an ended run goes on to the same result."""

import dataclasses
import json
import pickle
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from cliff_ms.annotation.input import read_target
from cliff_ms.body.errors import expected_deviations
from cliff_ms.body.files import load_body
from cliff_ms.config import AugmentConfig, Config, DataConfig, ModelConfig, SourceConfig, load_config
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.crop import box_to_crop
from cliff_ms.data.detections import box_around
from cliff_ms.inference.fit import Fit
from cliff_ms.io.errors import InputError
from cliff_ms.io.images import write_image
from cliff_ms.keypoints import COCO17, H36M17, LSP14, OPENPOSE25, SPIN24, convert_keypoints
from cliff_ms.weights.checkpoint import WeightsMeta, load_weights, parameter_arrays, save_weights
from tests.paths import ROOT, ZOO
from tests.toys.body import toy_body, toy_regressor
from tests.toys.reference import reference_joints, reference_smpl

PEOPLE = 32
MODEL = ModelConfig("keypoints", width=0.0625, joint_set="coco17")
HELD_OUT = ZOO / "heldout" / "annotations.npz"
KEYS = "imgname center scale part annot_id pose shape has_smpl global_t focal_l S"


@pytest.fixture(scope="module")
def files(tmp_path_factory, graph_mode):
    """Weights that know nothing, a configuration that learns fast, people with their truth."""
    from cliff_ms import runtime
    from cliff_ms.models.cliff import build_model

    folder = tmp_path_factory.mktemp("annotator")
    runtime.set_seed(0)
    save_weights(
        folder / "start.safetensors", parameter_arrays(build_model(MODEL)), WeightsMeta(MODEL, "test", body="neutral")
    )
    values = yaml.safe_load((ROOT / "configs" / "annotator_keypoints.yaml").read_text())
    values["model"] = dataclasses.asdict(MODEL) | {"crop_hw": [256, 192]}
    values["data"]["batch_size"] = 8
    values["train"] |= {"learning_rate": 2e-3, "save_every": 10}
    values["loss"] |= {"keypoints3d": 1.0, "pose": 0.1}  # a wild guess is no prior
    values["annotator"]["epochs"] = 15
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    known = np.load(HELD_OUT)
    rows = np.flatnonzero((known["input_keypoints_noisy"][..., 2] > 0.2).sum(1) >= 10)[:PEOPLE]
    columns = {
        key: known[key][rows] for key in "imgname center scale pose shape has_smpl gender focal_l img_hw".split()
    }
    np.savez(
        folder / "people.npz",
        **columns,
        input_keypoints=known["input_keypoints_noisy"][rows],
        input_joint_set="coco17",
        annot_id=np.arange(PEOPLE)[::-1] + 1000,
    )
    return folder


def command(files, output, **replaced):
    given = {"config": "config.yaml", "ckpt": "start.safetensors", "annotations": "people.npz"} | replaced
    flags = [part for name, file in given.items() for part in (f"--{name}", str(files / file))]
    return [sys.executable, str(ROOT / "annotate.py"), *flags, "--output", str(output), "--device_target", "CPU"]


def run(*arguments, **replaced):
    return subprocess.run(command(*arguments, **replaced), capture_output=True, text=True)


@pytest.fixture(scope="module")
def finished(files):
    done = run(files, files / "out.npz")
    assert done.returncode == 0, done.stderr
    return files / "out.npz", done


@pytest.mark.slow
def test_what_an_annotation_holds(finished, files):
    output, done = finished
    given, made = np.load(files / "people.npz"), dict(np.load(output))
    assert set(KEYS.split()) <= set(made)
    for key in ("imgname", "annot_id", "center", "input_keypoints", "focal_l"):
        np.testing.assert_array_equal(made[key], given[key])
    np.testing.assert_array_equal(made["part"], convert_keypoints(given["input_keypoints"], "coco17", "spin24"))
    assert made["error_box_finetuned"].mean() < 0.8 * made["error_box_before"].mean()
    assert made["error_box_after"].mean() < 0.7 * made["error_box_finetuned"].mean()
    assert np.isfinite(made["fit_sigma"]).all()
    np.testing.assert_allclose(made["error_box_after"] * 200 * made["scale"], made["error_px_after"], rtol=1e-5)
    # The truth was in the file that came in, and nowhere in what the annotator worked with.
    target = np.load(output.with_suffix(".work") / "target.npz")
    assert not any(target[key].any() for key in ("pose", "shape", "S", "has_smpl"))
    assert not {"global_t", "gender"} & set(target.files)
    assert re.search(r"predicted +32 .*\nfinetuned +32 .*\nfinetuned, fitted +32 ", done.stdout)
    assert "PA-MPJPE" in done.stdout
    assert "no pictures" in done.stderr and not (output.with_suffix(".work") / "index.html").exists()


@pytest.mark.slow
def test_the_geometry_closes(finished):
    """The file's pose, shape and translation, posed and projected in float64, give its joints, errors and flags."""
    made, body = dict(np.load(finished[0])), load_body()
    rotmats = Rotation.from_rotvec(made["pose"].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    _, joints = reference_joints(body, made["shape"].astype(float), rotmats)
    pelvis = joints[:, SPIN24.index("pelvis_mpii"), None]
    np.testing.assert_allclose(made["S"][..., :3], joints - pelvis, atol=1e-4)
    assert (made["S"][..., 3] == 1).all() and (made["has_smpl"] == 1).all()
    moved = joints + made["global_t"][:, None]
    points = moved[..., :2] / moved[..., 2:] * made["focal_l"][:, None, None] + made["img_hw"][:, None, ::-1] / 2
    weight = made["part"][..., 2].astype(float)
    distance = np.linalg.norm(points - made["part"][..., :2], axis=-1)
    np.testing.assert_allclose(made["error_px_after"], (weight * distance).sum(1) / weight.sum(1), rtol=2e-3)
    loss2d = (weight * distance**2).sum(1) / (100 * made["scale"]) ** 2 / 98
    np.testing.assert_array_equal(made["good"], (loss2d <= 5e-4) & (np.abs(made["shape"]) <= 3).all(1))


def reference_errors(pairs):
    """MPJPE, PA-MPJPE and PVE in mm (N, 3), in float64, of pairs of (body, pose (72,), betas (10,)): found and true."""
    errors = []
    for pair in pairs:
        posed = []
        for body, pose, betas in pair:
            rotmats = Rotation.from_rotvec(pose.reshape(24, 3).astype(float)).as_matrix()
            vertices, _ = reference_smpl(body, betas.astype(float), rotmats)
            joints = body.regressors["h36m"].astype(float) @ vertices
            pelvis = joints[H36M17.index("pelvis")]
            posed.append((joints[[H36M17.index(name) for name in LSP14]] - pelvis, vertices - pelvis))
        (joints, vertices), (true_joints, true_vertices) = posed
        moved, target = joints - joints.mean(0), true_joints - true_joints.mean(0)
        moved = Rotation.align_vectors(target, moved)[0].apply(moved)
        moved *= (moved * target).sum() / (moved**2).sum()
        gaps = (joints - true_joints, moved - target, vertices - true_vertices)
        errors.append([1000 * np.linalg.norm(gap, axis=1).mean() for gap in gaps])
    return np.array(errors)


def test_truth_is_of_its_gender(graph_mode):
    """3DPW's protocol, Table 3: what is annotated on the neutral body, the truth on the body of its gender."""
    from cliff_ms.annotation.report import check_truth, errors3d, mean_errors

    regressors = {"h36m": toy_regressor(H36M17, seeds=(0, 1, 2)).astype(np.float32)}
    bodies = {key: dataclasses.replace(toy_body(seed=k), regressors=regressors) for k, key in enumerate("nmf")}
    rng, count = np.random.default_rng(3), 7

    def people(turn, **columns):
        return Annotations.of(
            image_names=np.array(["a.jpg"] * count),
            center=np.ones((count, 2)),
            size=np.full(count, 200.0),
            pose=turn * np.random.default_rng(4).standard_normal((count, 72)),
            betas=rng.standard_normal((count, 10)),
            has_smpl=np.ones(count),
            **columns,
        )

    known, truth = people(0.3), people(0.4, gender=np.array(list("mfmnffm")))
    expected = reference_errors(
        ((bodies["n"], known.pose[k], known.betas[k]), (bodies[truth.gender[k]], truth.pose[k], truth.betas[k]))
        for k in range(count)
    )
    found = errors3d(known, truth, bodies)
    np.testing.assert_allclose(np.array([*found.values()]).T, expected, rtol=1e-5)
    assert (errors3d(truth, dataclasses.replace(truth, gender=np.full(count, "n")), bodies)["PVE (mm)"] == 0).all()
    row = mean_errors(known, np.ones(count), truth, bodies)
    assert list(row)[3:] == ["MPJPE (mm)", "PA-MPJPE (mm)", "PVE (mm)"]
    assert len(mean_errors(known, np.ones(count), truth, {"n": bodies["n"]})) == 3  # men are not compared with it
    assert check_truth(truth, "in.npz") is truth.gender
    for bad in (None, known, dataclasses.replace(truth, has_smpl=np.zeros(count))):
        with pytest.raises(InputError, match="'in.npz' has no true bodies to compare with"):
            check_truth(bad, "in.npz")
    with pytest.raises(InputError, match="'in.npz', row 2: there is no true body"):
        check_truth(dataclasses.replace(truth, has_smpl=np.array([1, 1, 0, 1, 1, 1, 0])), "in.npz")


def write_body(path, body, template):
    """A body as a file in SMPL's format, with the regressor beside it."""
    arrays = {key: getattr(body, key) for key in ("shapedirs", "posedirs", "weights", "extra_vertex_ids")}
    tree = np.array([[2**32 - 1, *body.parents[1:]], range(24)], np.uint32)
    arrays |= {"v_template": template, "J_regressor": body.joint_regressor, "kintree_table": tree, "f": body.faces}
    path.write_bytes(pickle.dumps(arrays, protocol=2))
    np.save(path.parent / "J_regressor_h36m.npy", body.regressors["h36m"])


@pytest.mark.slow
def test_true_bodies_of_both_genders(finished, files, tmp_path):
    body, made = load_body(), dict(np.load(finished[0]))
    bodies = {"m": 1.1 * body.v_template, "f": body.v_template * np.float32([0.9, 1, 1])}
    for key, template in bodies.items():
        write_body(tmp_path / f"SMPL_{'FEMALE' if key == 'f' else 'MALE'}.pkl", body, template)
    known = dict(np.load(files / "people.npz"))
    gender = np.where(np.arange(PEOPLE) % 3, "f", "m")
    np.savez(files / "gendered.npz", **(known | {"gender": gender}))
    done = run(files, finished[0], annotations="gendered.npz", body_dir=tmp_path)  # goes on: nothing is trained again
    assert done.returncode == 0, done.stderr
    true_bodies = {key: dataclasses.replace(body, v_template=template) for key, template in bodies.items()}
    expected = reference_errors(
        ((body, made["pose"][k], made["shape"][k]), (true_bodies[gender[k]], known["pose"][k], known["shape"][k]))
        for k in range(PEOPLE)
    ).mean(0)
    row = re.search(r"^finetuned, fitted +32 .*", done.stdout, re.MULTILINE)[0].split()
    np.testing.assert_allclose([float(number) for number in row[-3:]], expected, atol=0.06)
    (tmp_path / "SMPL_MALE.pkl").unlink()
    done = run(files, finished[0], annotations="gendered.npz", body_dir=tmp_path)
    assert done.returncode == 2 and "SMPL_MALE.pkl" in done.stderr


@pytest.mark.slow
def test_training_reads_it(finished):
    from cliff_ms.data.dataset import TrainDataset

    assert load_annotations(finished[0]).has_smpl.all()
    data = DataConfig(train=(SourceConfig(str(finished[0])),), batch_size=4)
    batch = TrainDataset(Config(MODEL, data, AugmentConfig())).batch(0)
    assert batch.inputs.shape == (4, 17, 3) and batch.has_smpl.all()


@pytest.mark.slow
def test_killed_and_started_again_is_the_same(finished, files):
    output = files / "killed.npz"
    process = subprocess.Popen(command(files, output), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log = files / "killed.work" / "finetune" / "log.jsonl"
    while process.poll() is None and not (log.is_file() and len(log.read_text().splitlines()) >= 15):
        time.sleep(0.02)
    assert process.poll() is None
    process.kill()
    process.wait()
    prior = (files / "killed.work" / "prior.npz").stat().st_mtime_ns
    done = run(files, output)
    assert done.returncode == 0, done.stderr
    assert (files / "killed.work" / "prior.npz").stat().st_mtime_ns == prior
    assert output.read_bytes() == finished[0].read_bytes()


@pytest.mark.slow
def test_without_the_fit(finished, files):
    """The work folder is that of both; what is written without the fit is what the fit starts from."""
    output = files / "plain.npz"
    shutil.copytree(finished[0].with_suffix(".work"), output.with_suffix(".work"))
    done = subprocess.run([*command(files, output), "--no_fit"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"predicted +32 .*\nfinetuned +32 ", done.stdout) and "fitted" not in done.stdout + done.stderr
    plain, fitted = dict(np.load(output)), dict(np.load(finished[0]))
    assert fitted.keys() - plain.keys() == {"fit_sigma", "error_px_finetuned", "error_box_finetuned"}
    for key, column in plain.items():
        same = fitted[key.replace("_after", "_finetuned")]
        if key not in ("pose", "shape", "global_t", "S", "good", "checked"):
            np.testing.assert_array_equal(column, same, err_msg=key)
    rotmats = Rotation.from_rotvec(plain["pose"].reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    fit = Fit(load_body(), "coco17", expected_deviations(), as_detected=True)
    view = (plain["input_keypoints"], 200 * plain["scale"], plain["img_hw"], plain["focal_l"])
    bodies, sigma = fit(rotmats.astype(np.float32), plain["shape"], plain["global_t"], *view)
    np.testing.assert_allclose(bodies.betas, fitted["shape"], atol=1e-3)
    np.testing.assert_allclose(bodies.translation, fitted["global_t"], atol=1e-3)
    np.testing.assert_allclose(sigma, fitted["fit_sigma"], rtol=1e-3)
    again = run(files, output)
    assert again.returncode == 0 and output.read_bytes() == finished[0].read_bytes()


@pytest.mark.slow
def test_another_annotation_is_refused(finished, files):
    values = yaml.safe_load((files / "config.yaml").read_text())
    values["annotator"]["epochs"] = 5
    (files / "other.yaml").write_text(yaml.safe_dump(values))
    people = dict(np.load(files / "people.npz"))
    np.savez(files / "other.npz", **people | {"input_keypoints": people["input_keypoints"] * [1.01, 1, 1]})
    for replaced, named in (({"config": "other.yaml"}, "annotator.epochs"), ({"annotations": "other.npz"}, "annot")):
        done = run(files, finished[0], **replaced)
        assert done.returncode == 2 and "was made with other settings" in done.stderr and named in done.stderr
        assert "Traceback" not in done.stderr


def assert_same(found, expected):
    for name in ("image_names", "center", "size", "keypoints2d", "img_hw", "input_keypoints"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        if name == "image_names":
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, err_msg=name)
    assert found.input_joint_set == expected.input_joint_set


def boxed(folder, keypoints, names, joint_set, img_hw):
    """The npz of the same people, with the boxes of the rule."""
    center, size = box_to_crop(np.array([box_around(each, "test") for each in keypoints]), (256, 192))
    columns = {"imgname": names, "center": center, "scale": size.astype(float) / 200, "img_hw": img_hw}
    np.savez(folder / "same.npz", **columns, input_keypoints=keypoints, input_joint_set=joint_set)
    return read_target(folder / "same.npz", None, MODEL).people


def test_coco_json_is_the_same_people(files, tmp_path, caplog):
    known = np.load(files / "people.npz")
    keypoints = np.ceil(known["input_keypoints"] * [1, 1, 0.001])[:6].astype(np.float32)  # whole px, flags 0 and 1
    names = ["a.jpg", "b.jpg", "a.jpg", "b.jpg", "b.jpg", "a.jpg"]
    annotations = [
        {"id": 100 - k, "image_id": int(names[k] == "b.jpg"), "keypoints": (each * [1, 1, 2]).ravel().tolist()}
        for k, each in enumerate(keypoints)
    ]
    annotations.insert(2, annotations[0] | {"iscrowd": 1})
    annotations.insert(4, annotations[0] | {"keypoints": [5, 5, 2] * 3 + [0] * 42})
    annotations.insert(0, {"id": 1, "image_id": 0, "category_id": 62, "bbox": [1, 2, 3, 4]})  # a chair
    images = [{"id": k, "file_name": name, "height": 720, "width": 1280} for k, name in enumerate(("a.jpg", "b.jpg"))]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    found = read_target(tmp_path / "coco.json", None, MODEL).people
    sizes = np.tile(np.float32([720, 1280]), (6, 1))
    assert_same(found, boxed(tmp_path, keypoints, np.array(names), "coco17", sizes))
    assert found.extras["annot_id"].tolist() == [100, 99, 98, 97, 96, 95]
    assert "1 annotations left out: without keypoints (the first: annotations row 0)" in caplog.text


def test_openpose_folder_is_the_same_people(tmp_path):
    keypoints = np.load(HELD_OUT)["input_keypoints_openpose25"][:40]
    keypoints = keypoints[(keypoints[..., 2] > 0).sum(1) > 12][:5]
    for folder in ("json", "images"):
        (tmp_path / folder).mkdir()
    for name, rows in (("x", slice(0, 3)), ("y", slice(3, 5))):
        people = [{"pose_keypoints_2d": each.ravel().tolist()} for each in keypoints[rows]]
        (tmp_path / "json" / f"{name}_keypoints.json").write_text(json.dumps({"people": people}))
        write_image(tmp_path / "images" / f"{name}.png", np.zeros((720, 1280, 3), np.uint8))
    model = dataclasses.replace(MODEL, joint_set="openpose25")
    found = read_target(tmp_path / "json", tmp_path / "images", model).people
    names, sizes = np.array(["x.png"] * 3 + ["y.png"] * 2), np.tile(np.float32([720, 1280]), (5, 1))
    assert_same(found, boxed(tmp_path, keypoints, names, "openpose25", sizes))
    hip, knee = SPIN24.index("left_hip_lsp"), SPIN24.index("left_knee")
    np.testing.assert_array_equal(found.keypoints2d[:, hip], keypoints[:, OPENPOSE25.index("left_hip")])
    np.testing.assert_array_equal(found.keypoints2d[:, knee], keypoints[:, OPENPOSE25.index("left_knee")])
    assert not found.keypoints2d[:, [SPIN24.index("neck_lsp"), SPIN24.index("pelvis_mpii")]].any()


def test_results_of_a_detector_are_the_same_people(tmp_path):
    keypoints = np.load(HELD_OUT)["input_keypoints"][:40]
    keypoints = keypoints[(keypoints[..., 2] > 0).sum(1) > 12][:3]
    names = np.array(["000000000007.png", "b.png", "b.png"])
    (tmp_path / "images").mkdir()
    for name in names[:2]:
        write_image(tmp_path / "images" / name, np.zeros((720, 1280, 3), np.uint8))
    rows = [
        {"image_id": k, "keypoints": each.ravel().tolist()} for k, each in zip((7, "b", "b"), keypoints, strict=True)
    ]
    sizes = np.tile(np.float32([720, 1280]), (3, 1))
    for nobody in ([], [{"image_id": "c.png", "keypoints": [0] * 51}]):
        (tmp_path / "results.json").write_text(json.dumps(rows + nobody))
        found = read_target(tmp_path / "results.json", tmp_path / "images", MODEL).people
        assert_same(found, boxed(tmp_path, keypoints, names, "coco17", sizes))
    for text, message in [
        (
            json.dumps([*rows, rows[0] | {"image_id": "c.png"}]),
            "images' has no image 'c.png', of which '.*results.json'",
        ),
        ("[]", "nobody has the 6 visible joints"),
        ('{"b.png": [[1, 2, 3, 4]]}', "is of no known kind: expected OpenPose JSON"),
        (json.dumps({"b": {"people": [], "canvas_height": 9}}), "nobody has the 6 visible joints"),
    ]:
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_target(tmp_path / "results.json", tmp_path / "images", MODEL)


def test_people_in_bad_images_end_it_or_are_left_out(files, tmp_path, caplog):
    with np.load(files / "people.npz") as known:
        names, sizes = known["imgname"], known["img_hw"].astype(int)
    for name, (height, width) in zip(names, sizes, strict=True):
        write_image(tmp_path / name, np.zeros((height, width, 3), np.uint8))
    gone = tmp_path / names[0]
    gone.unlink()
    there = names != names[0]
    pixels = ModelConfig(encoder="res18")
    with pytest.raises(InputError, match=f"{(~there).sum()} of {len(names)} people, such as in .* not there; set"):
        read_target(files / "people.npz", tmp_path, pixels)
    target = read_target(files / "people.npz", tmp_path, pixels, "skip")
    np.testing.assert_array_equal(target.people.extras["annot_id"], np.load(files / "people.npz")["annot_id"][there])
    assert len(target.truth) == there.sum() and "left out" in caplog.text


def test_labels_and_inputs_replace_each_other(files, tmp_path):
    """A data set that has `part` only, such as MPII's, can be read by a keypoint model."""
    first = read_target(files / "people.npz", None, MODEL)
    assert first.truth.has_smpl.all() and not first.people.has_smpl.any() and not first.people.pose.any()
    known = first.people
    columns = {"imgname": known.image_names, "center": known.center, "scale": known.box_height / 200}
    np.savez(tmp_path / "part.npz", **columns, img_hw=known.img_hw, part=known.keypoints2d)
    second = read_target(tmp_path / "part.npz", None, MODEL).people
    assert second.input_joint_set == "coco17"
    np.testing.assert_array_equal(second.input_keypoints, known.input_keypoints)
    assert second.extras["annot_id"].tolist() == list(range(PEOPLE))
    assert len(COCO17) == second.input_keypoints.shape[1]


def test_bad_input(files, tmp_path):
    from cliff_ms.annotation.annotator import AnnotationJob, FinetuneConfig, load_annotator_config

    known = dict(np.load(files / "people.npz"))

    def refused(message, model=MODEL, **columns):
        np.savez(tmp_path / "bad.npz", **{key: c for key, c in (known | columns).items() if c is not None})
        with pytest.raises(InputError, match=message):
            read_target(tmp_path / "bad.npz", None, model)

    refused("nobody has a 2D keypoint", input_keypoints=None, part=np.zeros((PEOPLE, 24, 3)))
    refused("needs an 'input_joint_set' out of coco17", input_joint_set="body99")
    refused("read pixels: name the folder of the images", ModelConfig("res18"))
    refused("does not say how large the images are", img_hw=None)
    refused("'annot_id' must have 32 entries", annot_id=np.arange(3))
    config = load_annotator_config(files / "config.yaml")
    job = AnnotationJob(
        config, load_weights(files / "start.safetensors"), files / "people.npz", None, tmp_path / "out.npz"
    )
    with pytest.raises(InputError, match="must end in .npz"):
        dataclasses.replace(job, output=tmp_path / "out.json").check(load_body())
    with pytest.raises(InputError, match="--exact_keypoints says how the fit reads keypoints"):
        dataclasses.replace(job, fit=False, exact_keypoints=True).check(load_body())
    with pytest.raises(InputError, match="given with --annotations and would be overwritten"):
        dataclasses.replace(job, output=job.annotations).check(load_body())
    with pytest.raises(InputError, match="speaks the shapes of the body 'neutral', not of 'smpl'"):
        job.check(dataclasses.replace(load_body(), name="smpl"))
    with pytest.raises(InputError, match="width is 0.0625, not 0.5"):
        other = load_annotator_config(ROOT / "configs/annotator_keypoints.yaml")
        dataclasses.replace(job, config=other).check(load_body())
    with pytest.raises(InputError, match="'hip' is none of"):
        FinetuneConfig(joint_weights={"hip": 0.5})
    with pytest.raises(InputError, match="must be from 0 to 1, but got 2"):
        FinetuneConfig(joint_weights={"left_knee": 2})
    assert not (tmp_path / "out.work").exists()


def test_configurations():
    from cliff_ms.annotation.annotator import NO_AUGMENTATION, load_annotator_config

    for name in ("annotator_keypoints", "annotator_res50"):
        config = load_annotator_config(ROOT / "configs" / f"{name}.yaml")
        assert (config.annotator.epochs, config.train.learning_rate) == (30, 5e-5)
        assert config.augment == NO_AUGMENTATION and config.train.freeze_norm and not config.train.lr_drops


def test_people_without_finite_numbers_are_marked(files, graph_mode):
    from cliff_ms.annotation.annotator import run_network
    from cliff_ms.body.smpl import build_smpl
    from cliff_ms.data.dataset import EvalDataset
    from cliff_ms.data.source import Source

    def network(inputs, *_):
        rotmats = np.tile(np.eye(3, dtype=np.float32), (len(inputs), 24, 1, 1))
        rotmats[2, 5] = np.nan
        return rotmats, np.zeros((len(inputs), 10), np.float32), None, np.tile(np.float32([0, 0, 5]), (len(inputs), 1))

    data = EvalDataset(Source(SourceConfig(str(files / "people.npz")), MODEL, "data.val.image_dir"), PEOPLE)
    found, points2d = run_network(network, build_smpl(load_body(), "body"), data, 0)
    assert np.flatnonzero(found["has_smpl"] == 0).tolist() == [2]
    assert not found["keypoints3d"][2].any() and not found["pose"][2].any()
    assert np.isnan(points2d[2]).all() and np.isfinite(np.delete(points2d, 2, 0)).all()
    assert all(np.isfinite(column).all() for column in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
def test_freeze_norm(graph_mode, frozen):
    from cliff_ms.data.dataset import TrainDataset
    from cliff_ms.training.trainer import Trainer

    settings = [
        "data.stream=false", f"data.train=[{{annotations: {HELD_OUT}}}]", "data.batch_size=8", "model.width=0.0625",
        f"train.freeze_norm={frozen}", "train.ema=0",
    ]  # fmt: skip
    config = load_config(ROOT / "configs" / "smoke.yaml", settings)
    trainer, batch = Trainer(config, load_body(), 1), TrainDataset(config).batch(0)
    before = {name: array.copy() for name, array in trainer.weights().items()}
    trainer.run([batch], False, 0)
    after = trainer.weights()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    moving = {name for name in before if "moving_" in name}
    assert moving and (moving & changed == set() if frozen else moving <= changed)
    assert {name for name in before if name.endswith((".gamma", ".beta"))} <= changed
