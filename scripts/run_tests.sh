#!/usr/bin/env bash
# Sets up .venv, then lint, types and tests. Further arguments go to pytest.
#   bash scripts/run_tests.sh [--fast] [-k NAME ...]
# --fast   without the tests that take long: the lane for daily work.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh requirements-dev.txt
if [[ "${1:-}" == --fast ]]; then
  set -- -m "not slow" "${@:2}"
fi

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" -m pytest "$@"
