"""Two workers on the CPU: the gradients of one; scripts that end with the right code and leave nobody behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cliff_ms import runtime
from tests.paths import ROOT
from tests.toys.training import cliff_with_loss, people, plain_cliff, train_step, training_body

SCRIPT = ["bash", str(ROOT / "scripts" / "run_distribute_train.sh")]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(**variables):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "GLOG_v": "3", **variables}


def run_toy(script, workers, folder):
    """A script of tests/toys as some workers."""
    command = [sys.executable]
    if workers > 1:
        command = ["msrun", f"--worker_num={workers}", f"--local_worker_num={workers}", "--master_addr=127.0.0.1"]
        command += ["--join=True", f"--master_port={free_port()}", f"--log_dir={folder}/log_{workers}"]
    command += [str(ROOT / "tests/toys" / script), str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_validation_is_the_same_however_it_is_shared(tmp_path):
    for workers in (1, 2, 3):
        run_toy("distributed_validation.py", workers, tmp_path)
    errors = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("errors_*.json")}
    assert len(errors) == 6 and errors["errors_1_0.json"]["count"] > 700
    for each in errors.values():
        assert each == pytest.approx(errors["errors_1_0.json"], rel=1e-6)


@pytest.mark.slow
def test_two_halves_are_one_batch(graph_mode, tmp_path):
    run_toy("distributed_step.py", 2, tmp_path)
    ranks = [dict(np.load(tmp_path / f"rank_{rank}.npz")) for rank in (0, 1)]
    for name, array in ranks[0].items():
        assert np.array_equal(array, ranks[1][name])
    assert ranks[0].pop("skipped") == 1

    runtime.set_seed(0)
    body = training_body()
    batch, _ = people(body, 8)
    step, run = train_step(*cliff_with_loss(plain_cliff(), body))
    np.testing.assert_allclose(ranks[0].pop("report"), run(batch)[0], rtol=1e-5)
    for param, moment in zip(step.weights, step.optimizer.moment1, strict=True):
        scale = np.abs(moment.asnumpy()).max()
        np.testing.assert_allclose(ranks[0][param.name], moment.asnumpy(), atol=1e-5 * scale, err_msg=param.name)


def start(output_dir, *flags, workers="2"):
    settings = ["--set", "train.steps=100000", "train.val_every=0", "train.picture_every=0", "data.batch_size=4"]
    arguments = [str(ROOT / "configs/smoke.yaml"), workers, "CPU", "--output_dir", str(output_dir), *settings, *flags]
    return subprocess.Popen(
        [*SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for_step(output_dir, step, process):
    """Until that step is in the log."""
    while process.poll() is None:
        log = output_dir / "log.jsonl"
        if log.is_file() and any(json.loads(line)["step"] >= step for line in log.read_text().splitlines()):
            return
        time.sleep(0.05)
    raise AssertionError(process.stdout.read())


def workers_of(output_dir):
    found = subprocess.run(["pgrep", "-f", f"train.py.*{output_dir}"], capture_output=True, text=True).stdout.split()
    return [int(number) for number in found]


@pytest.mark.slow
def test_script_stops_resumes_and_fails_cleanly(tmp_path):
    output_dir = tmp_path / "run"
    process = start(output_dir, "train.save_every=1000000")
    wait_for_step(output_dir, 3, process)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 143, printed
    assert workers_of(output_dir) == []
    (state,) = (output_dir / "checkpoints").glob("state_*.json")
    stopped = json.loads(state.read_text())["step"]
    assert len((output_dir / "log.jsonl").read_text().splitlines()) == stopped

    process = start(output_dir, "train.save_every=1000000", "--resume")
    wait_for_step(output_dir, stopped + 3, process)
    log = output_dir / "msrun_log" / "worker_1.log"
    assert log.is_file()
    victim = next(pid for pid in workers_of(output_dir) if b"RANK_ID=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 1 and time.monotonic() - killed < 60
    assert "A worker failed: worker_1 ended with signal 9 (KILL), as the kernel sends it" in printed
    assert workers_of(output_dir) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["configs/none.yaml"], {}, "error: Configuration 'configs/none.yaml' does not exist."),
        (["configs/smoke.yaml", "1000", "CPU"], {}, "error: WORKERS must be a number from 1 to"),
        (["configs/smoke.yaml", "two", "CPU"], {}, "error: WORKERS must be a number from 1 to"),
        (["--set", "data.batch_size=0", "data.global_batch_size=7"], {}, "error: data.global_batch_size 7 cannot be"),
        (["configs/smoke.yaml", "2", "CPU"], {"MASTER_PORT": "taken"}, "set MASTER_PORT to a free one"),
        (["configs/smoke.yaml", "2", "CPU"], {"MASTER_PORT": "http"}, "MASTER_PORT must be a number"),
        (["configs/smoke.yaml", "2", "CPU"], {"NNODES": "two"}, "NNODES must be a number, but is 'two'"),
        (
            ["configs/smoke.yaml", "2", "CPU", "--output_dir", "/none", "--resume"],
            {},
            "error: There is no training to resume",
        ),
    ],
)
def test_mistakes_are_one_sentence(arguments, variables, message):
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        if variables.get("MASTER_PORT") == "taken":
            variables = {"MASTER_PORT": str(listener.getsockname()[1])}
        done = subprocess.run([*SCRIPT, *arguments], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["run_distribute_train.sh", "run_standalone_train.sh"])
def test_scripts_explain_themselves(script):
    done = subprocess.run(["bash", str(ROOT / "scripts" / script), "-h"], capture_output=True, text=True, check=True)
    assert f"bash scripts/{script} [CONFIG]" in done.stdout and "set -euo" not in done.stdout
