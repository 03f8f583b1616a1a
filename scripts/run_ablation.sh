#!/usr/bin/env bash
# Sets up .venv and repeats Table 2 of the paper on synthetic people: HMR, CLIFF without its location input, CLIFF.
#   bash scripts/run_ablation.sh [scripts/ablation.py flags]
# Writes the table and a plot into model_zoo/ablation/. Trainings that are done already are not repeated.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh requirements-dev.txt

"$PYTHON" scripts/ablation.py "$@"
