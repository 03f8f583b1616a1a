#!/usr/bin/env bash
# Sets up .venv and evaluates weights on a data set.
#   bash scripts/run_eval.sh [DATASET] [CKPT] [DEVICE_TARGET] [eval.py flags]
# DATASET        synthetic (default: the bundled people), 3dpw, h36m_p1, h36m_p2, mpi_inf_3dhp, agora, custom
# CKPT           weights with their .json beside them; default, or '': the bundled keypoint model
# DEVICE_TARGET  auto (default), Ascend, GPU or CPU
# Leaves with eval.py's exit code: 0 done, 1 failure, 2 bad input.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
  exit 0
fi
source scripts/setup_env.sh requirements.txt

ckpt=()
if [[ -n "${2:-}" ]]; then
  ckpt=(--ckpt "$2")
fi
exec "$PYTHON" eval.py --dataset "${1:-synthetic}" "${ckpt[@]}" --device_target "${3:-auto}" "${@:4}"
