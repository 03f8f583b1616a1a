#!/usr/bin/env bash
# Sets up .venv and trains with one process.
#   bash scripts/run_standalone_train.sh [CONFIG] [DEVICE_TARGET] [train.py flags]
# CONFIG         file in configs/; default configs/smoke.yaml, 20 steps that show that training runs here
# DEVICE_TARGET  auto (default), Ascend, GPU or CPU
# Leaves with train.py's exit code: 0 done, 1 failure, 2 bad input, 130 or 143 stopped by a signal and saved.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
  exit 0
fi
source scripts/setup_env.sh requirements.txt

positional=()
while (($#)) && [[ "$1" != -* ]] && ((${#positional[@]} < 2)); do
  positional+=("$1")
  shift
done
exec "$PYTHON" train.py --config "${positional[0]:-configs/smoke.yaml}" --device_target "${positional[1]:-auto}" "$@"
