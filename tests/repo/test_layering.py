"""The house's rules that a linter does not know: who may import whom, and how long a file is."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "cliff_ms").rglob("*.py"))
# Module -> what of ours it may import. Rooms that are not listed may import any other, but not those
# in EDGES.
ALLOWED = {
    "errors": set(),
    "camera": set(),
    "rotation": set(),
    "keypoints": set(),
    "files": set(),
    "runtime": set(),
    "config": {"files"},
    "pickles": set(),
    "body": {"files", "keypoints", "pickles"},
    "models.smpl": {"body", "rotation"},
    "models.resnet": set(),
    "models.hrnet": {"models.resnet"},
    "models.keypoint_encoder": set(),
    "models.regressor": {"keypoints", "rotation"},
    "data.crop": set(),
    "data.annotations": {"files", "keypoints"},
    "data.augment": {"config", "data.crop", "keypoints"},
    "data.pictures": {"data.crop", "media"},
    "data.occlusion": {"media"},
    "data.loader": set(),
    "data.readers.rows": {"data.annotations", "files", "keypoints"},
    "data.readers.raw": {"files", "media", "video"},
    "data.readers.fits": {"data.annotations", "files"},
    "engine": {"checkpoint", "config", "deploy", "predict"},
    "metrics": set(),
    "protocols": {"body", "data.annotations", "keypoints"},
    "data.keypoint_files": {"files", "keypoints"},
    "data.detections": {"data.keypoint_files", "files", "keypoints"},
    "data.readers.foreign_pickles": {"files"},
    "data.readers.agora": {"data.crop", "data.readers.foreign_pickles", "data.readers.rows", "keypoints"},
    "agora": {"data.readers.agora", "files", "keypoints"},
    "annotator_input": {
        "config",
        "data.annotations",
        "data.crop",
        "data.detections",
        "data.pictures",
        "files",
        "keypoints",
        "media",
    },  # fmt: skip
}
# What users see: only the room that puts everything together, and the verbs, look in there.
EDGES = {
    "render": {"report", "demo", "synthetic.scene", "worst_cases", "annotator_report"},
    "report": {"demo", "annotator_report"},
    "worst_cases": {"evaluate"},
    "annotator": {"annotator_report"},
    "annotator_report": set(),
    "demo": set(),
    "evaluate": set(),
}


def module_name(path):
    return ".".join(path.relative_to(ROOT / "cliff_ms").with_suffix("").parts)


def imports_of_ours(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cliff_ms":
            within = node.module.removeprefix("cliff_ms").lstrip(".")
            names = [alias.name for alias in node.names]
            is_module = [(ROOT / "cliff_ms" / within.replace(".", "/") / f"{n}.py").is_file() for n in names]
            found |= {f"{within}.{n}".lstrip(".") if m else within for n, m in zip(names, is_module, strict=True)}
    return found - {"", "errors"}


@pytest.mark.parametrize("path", PACKAGE, ids=module_name)
def test_import_direction_and_length(path):
    name, imported = module_name(path), imports_of_ours(path)
    if name in ALLOWED:
        assert imported <= ALLOWED[name]
    for room in imported & EDGES.keys():
        assert name in EDGES[room]
    assert len(path.read_text().splitlines()) <= 400


def test_every_listed_module_exists():
    assert set(ALLOWED) | set(EDGES) <= {module_name(path) for path in PACKAGE}


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.name)
def test_verbs_are_thin(path):
    assert len(path.read_text().splitlines()) <= 80
