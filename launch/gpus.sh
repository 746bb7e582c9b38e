#!/usr/bin/env bash
# One host with several GPUs, one process for each.
#
#   launch/gpus.sh --gpus 8 --gin gin/spot_xxl.gin --out gs://b/run --engine t5x
#
# The processes find each other through jax.distributed on this host. For one
# process that drives all GPUs, with either engine, take launch/single.sh.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

read_arguments "$@"
GPUS='' PORT=${PORT:-12345}
set -- "${REST[@]}"
while (($#)); do
  case "$1" in
    --gpus) GPUS=${2:?--gpus needs a number} && shift 2 ;;
    *) fail "unknown argument: $1" ;;
  esac
done
[[ $GPUS =~ ^[1-9][0-9]*$ ]] ||
  fail "--gpus: expected how many there are, found '$GPUS'"
need nvidia-smi 'This launcher is for NVIDIA GPUs.'
need "${PYTHON:-python3}" 'Name another one by PYTHON=...'
need_file "$GIN"
make_command

all() {
  local number pids=() failed=0
  for ((number = 0; number < GPUS; number++)); do
    who_is_who "localhost:$PORT" "$GPUS" "$number"
    local one=(env "CUDA_VISIBLE_DEVICES=$number" "${COMMAND[@]}" "${WHO[@]}")
    if [[ -n $DRY ]]; then
      run "${one[@]}"
    else
      "${one[@]}" &
      pids+=($!)
    fi
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || failed=1
  done
  return "$failed"
}

if [[ -n $DRY ]]; then all; else run_with_retries all; fi
