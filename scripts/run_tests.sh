#!/usr/bin/env bash
# Sets up .venv, then lint and tests. Further arguments go to pytest.
#   bash scripts/run_tests.sh [-k NAME ...]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh requirements-dev.txt

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest "$@"
