"""The CPU work-around holds whichever module comes first; devices are never replaced."""

import os
import signal
import subprocess
import sys

import pytest

from cliff_ms import runtime
from cliff_ms.io.errors import InputError
from tests.paths import ROOT

VARIABLE = "ONEDNN_MAX_CPU_ISA"


@pytest.mark.parametrize(
    ("first", "given", "expected"),
    [
        ("import cliff_ms", None, "AVX2"),
        ("from cliff_ms.body import smpl", None, "AVX2"),
        ("import mindspore, cliff_ms.camera", None, "AVX2"),
        ("import cliff_ms", "AVX512_CORE", "AVX512_CORE"),
        ("from cliff_ms import runtime; runtime.expect_no_convolutions()", None, "None"),
        ("from cliff_ms import runtime; runtime.expect_no_convolutions()", "AVX2", "AVX2"),
    ],
)
def test_cpu_kernels_are_chosen_by_any_import_unless_the_user_chose(first, given, expected):
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    environment |= {VARIABLE: given} if given else {}
    code = f"{first}\nimport os; print(os.environ.get('{VARIABLE}'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_importing_the_package_does_not_load_mindspore():
    code = "import sys, cliff_ms, cliff_ms.body.files, cliff_ms.data.detections; print('mindspore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_devices(monkeypatch):
    import mindspore as ms

    assert runtime.setup_device("CPU") == "CPU"
    assert ms.get_context("mode") == ms.GRAPH_MODE
    with pytest.raises(InputError, match="Unknown device 'TPU'"):
        runtime.setup_device("TPU")
    monkeypatch.setattr(ms.hal, "is_available", lambda device: device == "CPU")
    assert runtime.setup_device("auto") == "CPU"
    with pytest.raises(InputError, match="'Ascend' is not available: it needs .*CANN"):
        runtime.setup_device("Ascend")


@pytest.mark.parametrize(("module", "code"), [("mindspore", -signal.SIGINT), ("another", 130)])
def test_ctrl_c_in_a_verb(tmp_path, module, code):
    """MindSpore's libraries catch the exception that Python would raise, so inside them there must be none."""
    (tmp_path / f"{module}.py").write_text("import os, time\nos.kill(os.getpid(), 2)\ntime.sleep(1)")
    verb = f"from cliff_ms import cli; cli.run(lambda: __import__('{module}'))"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", verb], env=os.environ | {"PYTHONPATH": path}, capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, b"")
