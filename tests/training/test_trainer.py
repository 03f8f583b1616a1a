"""Training from end to end: what a run writes, and that a killed one goes on as if nothing had happened."""

import dataclasses
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cliff_ms.body.files import load_body
from cliff_ms.config import TrainConfig, load_config
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import build_model
from cliff_ms.training.data import TrainingData, for_workers
from cliff_ms.training.log import EventFile, TrainLog
from cliff_ms.training.state import Progress, check_folder, describe_training, load_state, locked_folder, save_state
from cliff_ms.weights.checkpoint import WeightsMeta, encoder_entries, load_weights, parameter_arrays, save_weights
from cliff_ms.weights.networks import load_model
from cliff_ms.zoo import BUNDLED_BODY, HELD_OUT
from tests.paths import ROOT

CONFIG = ROOT / "configs" / "smoke.yaml"
# 8 steps with everything that has state: BatchNorm, accumulation, moving average, schedule.
SETTINGS = ["train.steps=8", "data.batch_size=32", "train.accumulate=2", "train.val_every=4", "train.save_every=2"]
SETTINGS += ["train.picture_every=4", "train.ema=0.9", "train.keep=2"]


def command(output_dir, *flags):
    return [
        sys.executable, str(ROOT / "train.py"), "--config", str(CONFIG), "--output_dir", str(output_dir),
        "--device_target", "CPU", "--set", *SETTINGS, *flags,
    ]  # fmt: skip


def run(output_dir, *flags):
    return subprocess.run(command(output_dir, *flags), cwd=output_dir.parent, capture_output=True, text=True)


def lines(output_dir, name="log"):
    return [json.loads(line) for line in (output_dir / f"{name}.jsonl").read_text().splitlines()]


def wait_for_step(output_dir, step, process):
    """Until that step is in the log."""
    while process.poll() is None:
        if (output_dir / "log.jsonl").is_file() and len((output_dir / "log.jsonl").read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"training ended with {process.returncode} before step {step}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a training that was never interrupted, and what it printed."""
    output_dir = tmp_path_factory.mktemp("finished") / "run"
    done = run(output_dir)
    assert done.returncode == 0, done.stderr
    return output_dir, done


@pytest.mark.slow
def test_what_a_training_writes(finished):
    output_dir, done = finished
    assert [line["step"] for line in lines(output_dir)] == list(range(1, 9))
    first = lines(output_dir)[0]
    assert list(first) == [
        "step",
        "loss",
        "keypoints2d",
        "keypoints3d",
        "pose",
        "betas",
        "camera",
        "grad_norm",
        "lr",
        "skipped",
    ]
    assert load_config(output_dir / "config.yaml") == load_config(CONFIG, SETTINGS)
    assert [(line["step"], line["count"]) for line in lines(output_dir, "validation")] == [(4, 2048), (8, 2048)]
    states = sorted(p.name for p in (output_dir / "checkpoints").glob("state_*.json"))
    assert states == ["state_00000006.json", "state_00000008.json"]
    assert len(list((output_dir / "pictures").glob("*.jpg"))) == 2
    meta = load_weights(output_dir / "checkpoints" / "best.ckpt").meaning
    assert meta.model == load_config(CONFIG).model and meta.body == "neutral"
    best = min(line["mpjpe_mm"] for line in lines(output_dir, "validation"))
    assert meta.metrics["mpjpe_mm"] == best
    final = load_weights(output_dir / "checkpoints" / "final.ckpt")
    load_model(final)
    assert len(final.meaning.error_deviations) == 85 and not meta.error_deviations
    assert "final.ckpt" in done.stdout


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_last_bit(finished, tmp_path):
    output_dir = tmp_path / "run"
    process = subprocess.Popen(command(output_dir), cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for_step(output_dir, 5, process)
    process.kill()
    process.wait()
    newest = max((output_dir / "checkpoints").glob("state_*.safetensors"))
    with newest.open("r+b") as file:  # as if the disk had lost its end
        file.truncate(newest.stat().st_size // 2)
    done = run(output_dir, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{newest.name}' is damaged" in done.stderr
    assert lines(output_dir) == lines(finished[0])
    assert lines(output_dir, "validation") == lines(finished[0], "validation")
    states = [load_state(folder) for folder in (output_dir, finished[0])]
    assert states[0][1] == states[1][1]
    assert all(np.array_equal(states[0][0][name], states[1][0][name]) for name in states[1][0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_leave(tmp_path, number):
    output_dir = tmp_path / "run"
    flags = ["train.save_every=1000", "train.val_every=0", "train.steps=500"]
    process = subprocess.Popen(command(output_dir, *flags), cwd=tmp_path, stderr=subprocess.PIPE)
    wait_for_step(output_dir, 2, process)
    process.send_signal(number)
    _, message = process.communicate()
    assert process.returncode in {128 + number, 143}  # MindSpore may turn Ctrl-C into SIGTERM
    steps = len(lines(output_dir))
    assert f"stopped after step {steps}; go on with --resume" in message.decode()
    assert load_state(output_dir)[1].step == steps < 500


@pytest.mark.slow
def test_mistakes_are_one_sentence(finished, tmp_path):
    done = run(finished[0])
    assert done.returncode == 2 and "already holds a training: go on with --resume" in done.stderr
    done = run(finished[0], "train.seed=3", "--resume")
    assert done.returncode == 2 and "train.seed was 0 and is 3" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(InputError, match="no training to resume"):
        check_folder(tmp_path / "none", load_config(CONFIG), resume=True)


ARRAYS = {"a": np.arange(5, dtype=np.float32), "n": np.array(3, np.int32)}


def test_states(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    assert load_state(tmp_path) == ({}, Progress())
    for step in (5, 10, 100):
        save_state(tmp_path, {**ARRAYS, "a": ARRAYS["a"] + step}, Progress(step, 64, 8, best_mpjpe_mm=90.5), keep=2)
    arrays, progress = load_state(tmp_path)
    assert progress == Progress(100, 64, 8, best_mpjpe_mm=90.5)
    assert np.array_equal(arrays["a"], ARRAYS["a"] + 100) and arrays["n"] == 3 and arrays["n"].dtype == np.int32
    files = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    assert [f.name for f in files] == ["state_00000010.safetensors", "state_00000100.safetensors"]
    files[1].write_bytes(files[1].read_bytes()[:-1])
    assert load_state(tmp_path)[1].step == 10 and "state_00000100" in caplog.text
    files[0].unlink()
    with pytest.raises(InputError, match="None of the 2 checkpoints"):
        load_state(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    save_state(tmp_path, ARRAYS, Progress(5), keep=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(InputError, match="step 10 was not saved, the last good.*00005.*No space left"):
        save_state(tmp_path, ARRAYS, Progress(10), keep=1)
    assert load_state(tmp_path)[1].step == 5
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_log_forgets_what_will_come_again(tmp_path):
    log = TrainLog(tmp_path)
    for step in (1, 2, 3):
        log.write("log", step, {"loss": float("nan") if step == 2 else 1.5})
    log.write_spike(3, float("inf"), 1.5, [("a.npz", 7)])
    assert json.loads((tmp_path / "spikes.jsonl").read_text())["rows"] == [["a.npz", 7]]
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    TrainLog(tmp_path, 2).close()
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "loss": 1.5}\n{"step": 2, "loss": null}\n'
    assert not (tmp_path / "spikes.jsonl").read_text()


def test_log_survives_a_power_failure_and_a_full_disk(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1, "loss": 1.5}\n' + bytes(20) + b"\n")
    log = TrainLog(tmp_path, 2)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "loss": 1.5}\n'
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # stands for the end of the disk
    try:
        with pytest.raises(InputError, match="Cannot write validation.jsonl of step 3: File too large"):
            log.write("validation", 3, {"mpjpe_mm": 90.0})
        log.close()  # quietly, so that the message is what the user sees
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_mistake_does_not_lock_the_folder(graph_mode, tmp_path):
    from cliff_ms.training.trainer import train

    for settings in (["train.pretrained=none.ckpt"], ["data.val=[{annotations: none.npz}]"]):
        with pytest.raises(InputError, match="none"):
            train(load_config(CONFIG, settings), tmp_path / "out", load_body())
    assert not (tmp_path / "out").exists()


def masked_crc32c(data):
    """Polynomial division, a bit at a time: Castagnoli's 0x1EDC6F41, bits reversed in and out."""
    remainder = 0xFFFFFFFF
    for byte in data:
        for k in range(8):
            remainder ^= (byte >> k & 1) << 31
            remainder = (remainder << 1) & 0xFFFFFFFF ^ (0x1EDC6F41 if remainder >> 31 else 0)
    crc = int(f"{remainder ^ 0xFFFFFFFF:032b}"[::-1], 2)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_event_file_is_tensorboards(tmp_path):
    events = EventFile(tmp_path, 0)
    events.write(300, {"log/loss": 0.5})
    events.close()
    data = next(tmp_path.glob("events.*")).read_bytes()
    records = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        records.append(data[12 : 12 + length])
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(records[-1])
        data = data[16 + length :]
    assert records[0][9:] == b"\x1a\x0dbrain.Event:2"
    # step 300 as varint; summary { value { tag, simple_value } }
    assert records[2][9:] == b"\x10\xac\x02\x2a\x11\x0a\x0f\x0a\x08log/loss\x15" + struct.pack("<f", 0.5)


@pytest.mark.parametrize(
    ("drops", "anneal", "expected"),
    [
        ((0.5, 0.9), 0, [1e-3] * 5 + [1e-4] * 4 + [1e-5]),
        ((), 1, np.linspace(1e-3, 1e-4, 10)),
        ((0.5,), 0.4, [1e-3] * 5 + [1e-4] * 2 + [7.5e-5, 5e-5, 2.5e-5]),
    ],
)
def test_learning_rate(drops, anneal, expected):
    from cliff_ms.training.trainer import learning_rate

    config = TrainConfig(steps=10, learning_rate=1e-3, lr_drops=drops, lr_anneal=anneal)
    np.testing.assert_allclose([learning_rate(config, step) for step in range(1, 11)], expected)


def test_training_starts_from_weights(graph_mode, tmp_path, file_reads):
    from cliff_ms.training.trainer import Trainer

    def trainer(*settings):
        return Trainer(
            load_config(CONFIG, [f"train.pretrained={tmp_path}/start.safetensors", *settings]), load_body(), 1
        )

    model = load_config(CONFIG).model
    arrays = {name: array + 1 for name, array in parameter_arrays(build_model(model)).items()}
    save_weights(tmp_path / "start.safetensors", arrays, WeightsMeta(model, "test", body="neutral"))
    weights = trainer().weights()
    assert weights.keys() == arrays.keys()
    assert all(np.array_equal(weights[name], arrays[name]) for name in arrays)
    with pytest.raises(InputError, match="made for another 'model': bbox_norm is eq5, not released"):
        trainer("model.bbox_norm=released")
    trainer("model.crop_style=rounded")  # for inference only
    save_weights(tmp_path / "start.safetensors", arrays, WeightsMeta(model, "test", body="smpl"))
    with pytest.raises(InputError, match="speaks the shapes of the body 'smpl', not of 'neutral'"):
        trainer()

    save_weights(tmp_path / "start.safetensors", encoder_entries(arrays), WeightsMeta(model, "test", part="encoder"))
    file_reads.clear()
    weights = trainer("model.bbox_norm=released").weights()
    assert file_reads == {kind: [tmp_path / "start.safetensors"] for kind in ("hash", "arrays")}
    taken = {name for name in arrays if np.array_equal(weights[name], arrays[name])}
    assert taken == encoder_entries(arrays).keys()


def test_the_stream_is_for_keypoint_models(tmp_path):
    with pytest.raises(InputError, match="data.stream makes keypoints, which model.encoder 'res50' does not read"):
        TrainingData(load_config(CONFIG, ["model.encoder=res50"]), load_body())


def test_a_stream_leaves_a_share_of_each_batch_to_files(tmp_path):
    from cliff_ms.synthetic.stream import KeypointStream

    source = f"{{annotations: {HELD_OUT}/annotations.npz, weight: 0.25}}"
    config = load_config(
        CONFIG, [f"data.train=[{source}]", "data.batch_size=16", "augment={flip: 0, rotation_prob: 0}"]
    )
    body = load_body()
    data = TrainingData(config, body)
    stream = KeypointStream(body, config.model.joint_set, 12, config.train.seed)
    shapes = {tuple(betas) for betas in load_annotations(HELD_OUT / "annotations.npz").betas}
    seen = set()
    for index in range(3):
        batch, drawn = data.batch(index), stream.batch(index)
        assert all(len(array) == 16 for array in batch)
        for whole, part in zip(batch, drawn, strict=True):
            np.testing.assert_array_equal(whole[:12], part)
        seen |= {tuple(betas) for betas in batch.betas[12:]}
    assert len(seen) == 12  # all of an epoch before any again
    assert seen <= shapes


def test_resume_compares_what_changes_the_result(tmp_path, caplog):
    caplog.set_level("INFO", "cliff_ms")
    config = load_config(CONFIG)
    describe_training(tmp_path, config, [("a.npz", 7, "far off")])
    assert (tmp_path / "left_out.csv").read_text().splitlines() == ["annotations,row,reason", "a.npz,7,far off"]
    body = os.path.relpath(BUNDLED_BODY, Path.cwd())
    same = ["data.workers=4", "train.keep=5", "train.save_every=7", "train.picture_every=0", "data.bad_image=skip"]
    same += ["train.steps=100", "train.accumulate=2", "data.batch_size=16"]
    check_folder(tmp_path, load_config(CONFIG, same), resume=True)
    assert "data.workers was 1 and is 4" in caplog.text and "train.steps was 20 and is 100" in caplog.text
    describe_training(tmp_path, dataclasses.replace(config, body=str(BUNDLED_BODY)), [])
    check_folder(tmp_path, dataclasses.replace(config, body=body), resume=True)  # another spelling
    for settings, message in (
        (["train.learning_rate=0.1"], "train.learning_rate was 0.0003 and is 0.1"),
        (["train.steps=10"], "train.steps was 20 and is 10"),
        (["train.lr_drops=[0.5, 0.7]"], r"train.lr_drops\[1\] was not set and is 0.7"),
        (["body=other.npz"], "body was .*neutral.npz and is other.npz"),
    ):
        with pytest.raises(InputError, match=message):
            check_folder(tmp_path, load_config(CONFIG, [f"body={BUNDLED_BODY}", *settings]), resume=True)


def test_a_folder_is_for_one_training_at_a_time(tmp_path):
    with locked_folder(tmp_path / "out"):
        with pytest.raises(InputError, match="Another training runs in"), locked_folder(tmp_path / "out"):
            pass
        assert (tmp_path / "out").is_dir()
    assert not (tmp_path / "out").exists()  # nothing was written into it
    with locked_folder(tmp_path / "out"):
        (tmp_path / "out" / "config.yaml").touch()
    assert (tmp_path / "out" / "config.yaml").exists()


def test_workers_share_the_samples_of_one(tmp_path):
    """What a step sees does not depend on how it is divided, nor on whether a training went on with other workers."""
    source = f"{{annotations: {HELD_OUT}/annotations.npz, weight: 0.25}}"
    settings = [f"data.train=[{source}]", "data.batch_size=0", "data.global_batch_size=32"]
    body, steps = load_body(), {}
    for workers, accumulate in ((1, 1), (2, 1), (4, 1), (2, 2)):
        config = for_workers(load_config(CONFIG, [*settings, f"train.accumulate={accumulate}"]), workers)
        data = [TrainingData(config, body, rank, workers, stream_batch=24) for rank in range(workers)]
        numbers = range(accumulate, 2 * accumulate)  # batches of the second step
        rows = [np.r_[of_rank.batch(number).betas] for number in numbers for of_rank in data]
        drawn = config.data.batch_size * 3 // 4
        steps[workers, accumulate] = np.concatenate([*(r[:drawn] for r in rows), *(r[drawn:] for r in rows)])
        assert data[0].rows_of(2) == data[-1].rows_of(2) and len(json.dumps(data[0].rows_of(2)).split("npz")) == 9
    for step in steps.values():
        np.testing.assert_array_equal(step, steps[1, 1])
    with pytest.raises(InputError, match="global_batch_size 32 cannot be divided among 3 worker"):
        for_workers(load_config(CONFIG, settings), 3)
    for wrong in (["data.global_batch_size=0"], ["data.batch_size=8"]):
        with pytest.raises(InputError, match="give global_batch_size, of all workers together, or batch_size"):
            load_config(CONFIG, [*settings, *wrong])
