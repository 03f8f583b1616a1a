#!/usr/bin/env bash
# Sets up .venv and trains with one process per device, data parallel.
#   bash scripts/run_distribute_train.sh [CONFIG] [WORKERS] [DEVICE_TARGET] [train.py flags]
# CONFIG         file in configs/; default configs/smoke.yaml, 20 steps that show that training runs here
# WORKERS        processes on this machine; default: all visible devices, or 2 on the CPU
# DEVICE_TARGET  auto (default), Ascend, GPU or CPU
# Flags may follow any of them: bash scripts/run_distribute_train.sh --set train.steps=40
# The workers share data.global_batch_size samples. Their logs: OUTPUT_DIR/msrun_log/worker_*.log.
# They wait for each other TIMEOUT_S seconds (environment; default 1800), on CPU, GPU and Ascend alike: longer than the
# slowest disk, validation or compilation takes. A worker that dies ends the others at once.
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

positional=()
while (($#)) && [[ "$1" != -* ]] && ((${#positional[@]} < 3)); do
  positional+=("$1")
  shift
done
config=${positional[0]:-configs/smoke.yaml}
plan=$("$PYTHON" scripts/plan_workers.py "${positional[1]:-all}" "${positional[2]:-auto}" "$config" "$@")
read -r workers device_target port output_dir <<< "$plan"
nodes=${NNODES:-1}
export GLOG_v=${GLOG_v:-3} PATH="$PWD/$(dirname "$PYTHON"):$PATH"  # msrun calls python
timeout=${TIMEOUT_S:-1800}
export MS_CPU_COMM_OP_TIMEOUT=$timeout MS_RECEIVE_MSG_TIMEOUT=$timeout
export MS_NODE_TIMEOUT=300  # without a sign of life, as of a worker that is stopped or a machine that is off
export HCCL_EXEC_TIMEOUT=$timeout HCCL_CONNECT_TIMEOUT=$timeout  # NCCL waits without end
echo "$workers worker(s) on $device_target, which wait for each other up to $timeout s"
log_dir=$output_dir/msrun_log

if [[ "${NODE_RANK:-0}" == 0 ]]; then
  rm -f "$log_dir"/worker_*.log  # an old run's error is not this one's
fi
# A session of its own keeps the terminal's Ctrl-C from msrun, which would kill the workers before they have saved.
setsid msrun --worker_num=$((workers * nodes)) --local_worker_num="$workers" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" --node_rank="${NODE_RANK:-0}" \
  --log_dir="$log_dir" --join=True \
  train.py --config "$config" --device_target "$device_target" "$@" 2> >(tee "$output_dir/msrun.log" >&2) &
msrun=$!

tell_who_died() {  # msrun knows processes; each worker's log says which one it is
  local pid code log last
  read -r pid code < <(sed -nE 's/.*Worker process ([0-9]+) exit .*code: (-?[0-9]+).*/\1 \2/p' "$output_dir/msrun.log") ||
    true
  log=$(grep -lE "^worker [0-9]+ of [0-9]+: process ${pid:-none}$" "$log_dir"/worker_*.log 2>/dev/null | head -n 1) || true
  if [[ -z "$log" ]]; then
    echo "A worker failed; see $log_dir/worker_*.log, of which the last lines are:"
    tail -q -n 5 "$log_dir"/worker_*.log || true
    return
  fi
  last="exit code $code"
  if ((code < 0)); then
    last="signal ${code#-} ($(kill -l "${code#-}"))"
    ((code != -9)) || last+=", as the kernel sends it where memory runs out"
  fi
  echo "A worker failed: $(basename "$log" .log) ended with $last. Its last words, in $log:"
  tail -n 5 "$log"
}

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

# msrun ends the other workers when one fails, but its scheduler waits for the dead one as for a slow one.
while kill -0 "$msrun" 2>/dev/null; do
  if grep -q "Worker process .* exit with exception" "$output_dir/msrun.log"; then
    sleep 5
    pkill -KILL -P "$msrun" || true
    break
  fi
  sleep 1
done
code=0
wait "$msrun" || code=$?
if ((code != 0)); then
  error=$(grep -h "^error: " "$log_dir"/worker_*.log 2>/dev/null | head -n 1 || true)
  if [[ -n "$error" ]]; then
    echo "$error" >&2
    exit 2
  fi
  tell_who_died >&2
  exit 1
fi
