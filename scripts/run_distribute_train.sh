#!/usr/bin/env bash
# Sets up .venv and trains with one process per device, data parallel.
#   bash scripts/run_distribute_train.sh [CONFIG] [WORKERS] [DEVICE_TARGET] [train.py flags]
# CONFIG         file in configs/; default configs/smoke.yaml, 20 steps that show that training runs here
# WORKERS        processes on this machine; default: all visible devices, or 2 on the CPU
# DEVICE_TARGET  auto (default), Ascend, GPU or CPU
# Each worker takes data.batch_size samples. Logs of the workers: OUTPUT_DIR/msrun_log/worker_*.log.
# Several machines: run this on each, with MASTER_ADDR (address of the first one), NNODES (how many), NODE_RANK (0, 1,
# ...) and, if you like, MASTER_PORT in the environment. OUTPUT_DIR must be a folder that all of them share.
# Leaves with 0 done, 1 a worker failed (the others are ended), 2 bad input, 130 or 143 stopped by a signal and saved.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
  exit 0
fi
source scripts/setup_env.sh requirements.txt

config=${1:-configs/smoke.yaml}
flags=("${@:4}")
plan=$("$PYTHON" scripts/plan_workers.py "${2:-all}" "${3:-auto}" "$config" "${flags[@]}")
read -r workers device_target port output_dir <<< "$plan"
nodes=${NNODES:-1}
export GLOG_v=${GLOG_v:-3} PATH="$PWD/$(dirname "$PYTHON"):$PATH"  # msrun calls python

if [[ "${NODE_RANK:-0}" == 0 ]]; then
  rm -f "$output_dir"/msrun_log/worker_*.log  # an old run's error is not this one's
fi
# A session of its own keeps the terminal's Ctrl-C from msrun, which would kill the workers before they have saved.
setsid msrun --worker_num=$((workers * nodes)) --local_worker_num="$workers" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" --node_rank="${NODE_RANK:-0}" \
  --log_dir="$output_dir/msrun_log" --join=True \
  train.py --config "$config" --device_target "$device_target" "${flags[@]}" &
msrun=$!

stop() {  # the workers save and leave; what is still there after a minute is ended
  trap '' INT TERM
  local children
  mapfile -t children < <(pgrep -P "$msrun")
  kill -KILL "$msrun" 2>/dev/null || true  # it answers the first worker that leaves by killing the others
  wait "$msrun" 2>/dev/null || true
  kill -TERM "${children[@]}" 2>/dev/null || true
  for _ in $(seq 60); do
    kill -0 "${children[@]}" 2>/dev/null || break
    sleep 1
  done
  kill -KILL "${children[@]}" 2>/dev/null || true
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

code=0
wait "$msrun" || code=$?
if ((code != 0)); then
  error=$(grep -h "^error: " "$output_dir"/msrun_log/worker_*.log 2>/dev/null | head -n 1 || true)
  if [[ -n "$error" ]]; then
    echo "$error" >&2
    exit 2
  fi
  echo "A worker failed; see $output_dir/msrun_log/worker_*.log, of which the last lines are:" >&2
  tail -q -n 5 "$output_dir"/msrun_log/worker_*.log >&2 || true
  exit 1
fi
