#!/usr/bin/env bash
# Sets up .venv and compares the annotator with its rivals on synthetic people; under two hours on two cores.
#   bash scripts/run_annotator_study.sh [annotator_study.py flags]
# Writes model_zoo/annotator/study.md and study.json. Ended and started again, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh requirements.txt

exec "$PYTHON" scripts/annotator_study.py "$@"
