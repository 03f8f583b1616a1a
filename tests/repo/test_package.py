"""The project as others get it: the wheel, the command `cliff`, the public names, and what all of it depends on."""

import ast
import doctest
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

import cliff_ms
from cliff_ms import __main__ as command
from cliff_ms.commands import VERBS
from tests.paths import ROOT

ZOO = {
    "README.md", "manifest.yaml", "cliff_keypoints.safetensors", "cliff_keypoints.safetensors.json",
    "body/LICENSE.md", "body/neutral.npz", "examples/people.jpg", "examples/000000000785_overlay.jpg",
    "examples/people_boxes.json", "examples/people_keypoints.json", "heldout/annotations.npz",
    "heldout_recorded/annotations.npz",
    "examples/000000000785.jpg", "examples/astronaut.jpg", "examples/README.md",
    "people/LICENSE.md", "people/README.md", "people/nanodet.onnx", "people/movenet-thunder.onnx",
    "poses/LICENSE.md", "poses/cmu.npz", "poses/free.npz",
}  # fmt: skip
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because a build leaves files beside its source."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("cliff_ms", "model_zoo"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md"):
        shutil.copy(ROOT / file, source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", output)
    subprocess.run([*PIP, "wheel", *options, source], check=True)
    (file,) = output.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with nothing but the wheel's content, and a function that runs its command elsewhere."""
    target, elsewhere = tmp_path_factory.mktemp("target"), tmp_path_factory.mktemp("elsewhere")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel], check=True)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(target)}
        return subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=elsewhere, env=environment, capture_output=True, text=True
        )

    return target, elsewhere, run


def test_wheel_holds_every_module_and_what_is_bundled(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    ours = [name.removeprefix("cliff_ms/") for name in names if name.startswith("cliff_ms/")]
    package, zoo = ROOT / "cliff_ms", "model_zoo/"
    expected = {p.relative_to(package).as_posix() for p in package.rglob("*") if p.suffix in (".py", ".html", ".js")}
    assert {name for name in ours if not name.startswith(zoo)} == expected
    assert {name.removeprefix(zoo) for name in ours if name.startswith(zoo)} == ZOO
    assert any(name.endswith("licenses/THIRD_PARTY.md") for name in names)


@pytest.mark.slow
def test_installed_command_makes_bodies_from_another_folder(installed):
    target, elsewhere, run = installed
    examples = target / "cliff_ms" / "model_zoo" / "examples"
    done = run(
        target / "bin" / "cliff", "demo", examples / "people.jpg", "--keypoints", examples / "people_keypoints.json",
        "--focal_length", 1100, "--device_target", "CPU",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.load(elsewhere / "outputs/demo/people_cliff.npz")["pose"].shape == (4, 72)
    assert (elsewhere / "outputs/demo/index.html").is_file()
    asked = run("-c", "import cliff_ms, cliff_ms.zoo as z; print(cliff_ms.__file__, z.MODEL_ZOO, sep='\\n')")
    assert asked.stdout.splitlines() == [str(target / "cliff_ms/__init__.py"), str(target / "cliff_ms/model_zoo")]


def test_installed_command_tells_its_verbs(installed):
    target, _, run = installed
    listed = run(target / "bin" / "cliff", "--help").stdout
    assert all(f"    {verb:10}{line}" in listed for verb, line in VERBS.items())
    assert run("-m", "cliff_ms", "--help").stdout == listed
    assert run("-m", "cliff_ms", "--version").stdout == f"cliff_ms {cliff_ms.__version__}\n"
    assert run("-m", "cliff_ms", "export", "--help").stdout.startswith("usage: cliff export [-h]")
    for words in ([], ["paint"]):
        done = run("-m", "cliff_ms", *words)
        assert done.returncode == 2 and "VERB" in done.stderr.splitlines()[-1]


def test_command_imports_no_verb_before_it_is_named(monkeypatch, capsys):
    code = "import sys; from cliff_ms import __main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "mindspore", *(f"cliff_ms.commands.{verb}" for verb in VERBS)} & set(loaded)
    monkeypatch.setattr(sys, "argv", ["cliff", "convert", "--to", "torch", "gone.ckpt", "w.pt"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "There is no file gone.ckpt" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("name", cliff_ms.__all__)
def test_example_of_a_public_name_runs_as_written(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(cliff_ms, name), name, globs={})
    assert len(test.examples) > 1 and "from cliff_ms import " in test.docstring
    assert doctest.DocTestRunner().run(test).failed == 0


def test_editors_see_what_is_imported_on_first_use():
    tree = ast.parse(Path(cliff_ms.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {alias.asname: node.module for node in block.body for alias in node.names}
    assert sorted(told) == sorted(cliff_ms.__all__)
    for name, module in told.items():
        assert getattr(cliff_ms, name).__module__ == module


@pytest.mark.slow
def test_a_predictor_takes_the_device_as_it_finds_it():
    code = (
        "from mindspore import ops; from cliff_ms import load_predictor, runtime; {first}; load_predictor();"
        "import mindspore as ms; print(ms.get_context('mode'))"
    )
    for first, mode in (("pass", 0), ("ops.ones((2,)) + 1", 1), ("runtime.setup_device('CPU')", 0)):
        done = subprocess.run([sys.executable, "-c", code.format(first=first)], capture_output=True, text=True)
        assert done.stdout.split() == [str(mode)], done.stderr


def test_exact_set_lies_in_the_stated_ranges(wheel):
    files = ["requirements.txt", "requirements-data.txt", "requirements-dev.txt"]
    lines = re.sub(r"#.*", "", "\n".join((ROOT / file).read_text() for file in files)).splitlines()
    pins = [Requirement(line) for line in lines if "==" in line]
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    stated = re.findall(r"^Requires-Dist: (.*)", archive.read(metadata).decode(), re.MULTILINE)
    ranges = {requirement.name: requirement.specifier for requirement in map(Requirement, stated)}
    assert ranges.keys() == {pin.name for pin in pins} - {"setuptools"}
    for pin in pins:
        version = next(iter(pin.specifier)).version
        assert version in ranges.get(pin.name, pin.specifier), pin
