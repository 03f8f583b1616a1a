"""The bundled model on a part of the bundled held-out people: far from what any broken convention would leave of it."""

import hashlib
import json
import sys

import numpy as np
import pytest
import yaml

import eval as verb
from cliff_ms.evaluation.protocols import find_protocol
from cliff_ms.inference.fit import Fit
from cliff_ms.weights.checkpoint import load_weights
from cliff_ms.zoo import BUNDLED_MODEL, HELD_OUT

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Every sixth held-out person."""
    path = tmp_path_factory.mktemp("heldout") / "people.npz"
    with np.load(HELD_OUT / "annotations.npz") as file:
        np.savez(path, **{key: file[key][::6] if file[key].ndim else file[key] for key in file.files})
    return path


def score(people, **changes):
    from cliff_ms.evaluation.evaluate import EvalJob, evaluate

    return evaluate(EvalJob(find_protocol("synthetic", None), load_weights(BUNDLED_MODEL), people, **changes)).values


def test_it_is_as_good_as_stated(people, tmp_path, monkeypatch, file_reads):
    stated = load_weights(BUNDLED_MODEL).meaning.metrics["heldout"]
    file_reads.clear()
    command = ["eval.py", "--annotations", people, "--output", tmp_path / "r.json", "--device_target", "CPU"]
    command += ["--engine", "mindspore"]  # the other one also hashes what it exports
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    assert verb.main() == 0
    assert file_reads == {"hash": [BUNDLED_MODEL], "arrays": [BUNDLED_MODEL]}
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["count"] == 119
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg"):
        assert result[name] == pytest.approx(stated[name], rel=0.08), name  # other people, so not the same
        assert result[name] < 0.6 * result["mean_pose"][name]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mindspore", "onnxruntime"])
@pytest.mark.parametrize("fit", [None, Fit], ids=["predicted", "fitted"])
def test_engines_and_batches_agree(people, engine, fit):
    results = [score(people, engine=engine, batch_size=size, fit=fit)["mpjpe_mm"] for size in (16, 64)]
    assert results[0] == pytest.approx(results[1], abs=0.05)


def test_a_fit_brings_it_nearer(people, tmp_path, monkeypatch):
    predicted = score(people)
    command = ["eval.py", "--annotations", people, "--output", tmp_path / "r.json", "--device_target", "CPU", "--fit"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    assert verb.main() == 0
    fitted = json.loads((tmp_path / "r.json").read_text())
    assert fitted["settings"]["fit"] is True and predicted["settings"]["fit"] is False
    assert "\n- fit: yes\n" in (tmp_path / "r.md").read_text()
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg"):
        assert fitted[name] < 0.82 * predicted[name], name
    assert fitted["mean_pose"] == predicted["mean_pose"]
    for keypoints, gain in (("openpose25", 0.75), ("noisy", 0.97), ("half", 0.99)):
        pair = [score(people, keypoints=keypoints, fit=fit)["mpjpe_mm"] for fit in (Fit, None)]
        assert pair[0] < gain * pair[1], keypoints


@pytest.mark.slow
def test_all_bundled_people_are_as_stated(tmp_path, monkeypatch, capsys):
    """Without arguments eval.py scores both sets, predicted and fitted: what the side-car says, to the last digit."""
    monkeypatch.setattr(sys, "argv", ["eval.py", "--output", str(tmp_path / "r.json"), "--device_target", "CPU"])
    assert verb.main() == 0
    rows = json.loads((tmp_path / "r.json").read_text())["bundled_people"]
    assert [(row["poses"], row["fit"]) for row in rows] == [
        (poses, fit) for poses in ("drawn", "recorded") for fit in (False, True)
    ]
    stated = load_weights(BUNDLED_MODEL).meaning.metrics
    for (predicted, fitted), name in zip((rows[:2], rows[2:]), ("heldout", "heldout_recorded"), strict=True):
        for key in ("mpjpe_mm", "pa_mpjpe_mm"):
            assert predicted[key] == pytest.approx(stated[name][key], abs=0.05)
            assert fitted[key] == pytest.approx(stated[name][f"fitted_{key}"], abs=0.05)
    assert "All bundled people, keypoints 'clean'" in capsys.readouterr().out


def test_the_manifest_states_its_scores():
    manifest = yaml.safe_load((BUNDLED_MODEL.parent / "manifest.yaml").read_text())
    (entry,) = (weights for weights in manifest["weights"] if weights["file"] == BUNDLED_MODEL.name)
    stated = load_weights(BUNDLED_MODEL).meaning.metrics["heldout"]  # which also checks the side-car's sha256
    assert entry["metrics"] == {f"heldout_{name}": value for name, value in stated.items()}
    assert hashlib.sha256(BUNDLED_MODEL.read_bytes()).hexdigest() == entry["sha256"]
