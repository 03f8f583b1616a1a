"""Where things lie: the repository, the golden numbers, the bundled files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
ZOO = ROOT / "model_zoo"
