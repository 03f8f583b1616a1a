"""The house's rules that a linter does not know, one test a rule: who may import whom, how long a file is."""

import ast

import pytest

from cliff_ms.commands import VERBS
from tests.paths import ROOT

PACKAGE = ROOT / "cliff_ms"
SHARED = {"backend", "io", "camera", "rotation", "keypoints", "metrics", "config", "runtime", "zoo"}
# Wing, or module at the root -> what of ours it may import besides itself.
MAY_IMPORT = {
    "io": set(),
    "backend": set(),
    "camera": {"backend"},
    "rotation": {"backend"},
    "keypoints": set(),
    "metrics": set(),
    "zoo": {"io"},
    "config": {"camera", "io", "keypoints"},
    "runtime": {"io"},
    "cli": {"io", "runtime"},
    "body": {"io", "keypoints", "rotation", "zoo"},
    "models": {"body", "camera", "config", "keypoints", "rotation"},
    "data": {"body", "camera", "config", "io", "keypoints", "rotation"},
    "visual": {"io"},
    "weights": {"body", "config", "io", "keypoints", "models", "zoo"},
    "synthetic": {"body", "camera", "data", "io", "keypoints", "visual", "zoo"},
    "training": SHARED | {"body", "models", "data", "weights", "synthetic"},
    "evaluation": SHARED | {"body", "models", "data", "weights", "visual"},
    "inference": SHARED | {"body", "models", "data", "weights", "visual"},
    "annotation": SHARED | {"body", "data", "inference", "training", "visual", "weights"},
}
MAX_LINES = 400


def wing(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """Every module that a file imports, inside functions too: (line, dotted name)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def files(name):
    return [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").is_file() else sorted((PACKAGE / name).rglob("*.py"))


def test_every_wing_has_a_rule():
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - {"__init__", "__main__", "commands"} == set(MAY_IMPORT)


def test_commands_are_above_everything():
    offenders = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for name in MAY_IMPORT
        for path in files(name)
        for line, module in imports(path)
        if module.startswith("cliff_ms.commands")
    ]
    assert not offenders


def test_verbs_at_the_root_are_doors_to_their_commands():
    verbs = {path.stem: path.read_text() for path in ROOT.glob("*.py")}
    assert set(verbs) == set(VERBS) == {path.stem for path in (PACKAGE / "commands").glob("[!_]*.py")}
    assert not {
        name for name, text in verbs.items() if f"cliff_ms.commands.{name}" not in text or text.count("\n") > 10
    }


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_downwards(name):
    offenders = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files(name)
        for line, module in imports(path)
        if module.startswith("cliff_ms.") and module.split(".")[1] not in MAY_IMPORT[name] | {name}
    ]
    assert not offenders


def test_only_runtime_touches_the_state_of_mindspore():
    state = ("set_context", "set_device", "set_seed", "set_auto_parallel_context")
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.func.attr}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "runtime.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in state
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("ms", "mindspore")
    ]
    assert not offenders


def test_files_stay_short():
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in sorted(PACKAGE.rglob("*.py"))}
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}
