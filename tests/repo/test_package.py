"""The project as its users install it."""

import os
import subprocess
import sys
import sysconfig
import zipfile

import numpy as np
import pytest

from tests.paths import ROOT, ZOO

EXAMPLES = ZOO / "examples"


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An empty folder with nothing but what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".jpg") and "heldout" in name]
    run(*pip, "install", "--no-deps", "--target", folder / "target", wheel)
    return folder / "target"


@pytest.mark.slow
def test_the_installed_command_works_from_anywhere(installed, tmp_path):
    # Isolated from this checkout, which the environment's own packages know: only what they need is borrowed.
    packages = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": packages}
    cliff = [sys.executable, "-P", "-m", "cliff_ms"]
    where = run(sys.executable, "-P", "-c", "import cliff_ms; print(cliff_ms.__file__)", cwd=tmp_path, env=environment)
    assert where.startswith(str(installed))
    assert "demo" in run(*cliff, "--help", cwd=tmp_path, env=environment)
    flags = ["--keypoints", EXAMPLES / "people_keypoints.json", "--device_target", "CPU", "--output_dir", "out"]
    run(*cliff, "demo", EXAMPLES / "people.jpg", *flags, cwd=tmp_path, env=environment)
    assert len(np.load(tmp_path / "out/people_cliff.npz")["pose"]) == 4


def test_an_unknown_command_names_those_there_are():
    done = subprocess.run([sys.executable, "-m", "cliff_ms", "dmeo"], capture_output=True, text=True)
    assert done.returncode == 2 and "'dmeo'" in done.stderr and "convert" in done.stderr
