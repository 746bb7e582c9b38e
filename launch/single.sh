#!/usr/bin/env bash
# One host: a laptop, a workstation with GPUs, or one TPU VM.
#
#   launch/single.sh --gin gin/spot.gin --out runs/spot -- --gin.SEEDS='[0]'
#
# All devices that JAX sees on this host are one process's.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

read_arguments "$@"
((${#REST[@]} == 0)) || fail "unknown arguments: ${REST[*]}"
need "${PYTHON:-python3}" 'Name another one by PYTHON=...'
need_file "$GIN"
make_command
run_with_retries "${COMMAND[@]}"
