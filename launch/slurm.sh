#!/usr/bin/env bash
# Several GPU nodes under SLURM, one process for each node.
#
#   launch/slurm.sh --nodes 4 --gpus 8 --time 24:00:00 --partition gpu \
#     --gin gin/spot_xxl.gin --out /shared/run --engine t5x
#
# It submits one job, which is put back into the queue when it is pre-empted and
# goes on from its last checkpoint.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

read_arguments "$@"
NODES='' GPUS='' TIME='' PARTITION=''
set -- "${REST[@]}"
while (($#)); do
  case "$1" in
    --nodes) NODES=${2:?} && shift 2 ;;
    --gpus) GPUS=${2:?} && shift 2 ;;
    --time) TIME=${2:?} && shift 2 ;;
    --partition) PARTITION=${2:?} && shift 2 ;;
    *) fail "unknown argument: $1" ;;
  esac
done
for name in NODES GPUS; do
  [[ ${!name} =~ ^[1-9][0-9]*$ ]] ||
    fail "--${name,,}: expected a number, found '${!name}'"
done
need sbatch 'This launcher is for a login node of a SLURM cluster.'
need_file "$GIN"
make_command

options=(--job-name=prompt_subspace "--nodes=$NODES" --ntasks-per-node=1
  "--gpus-per-node=$GPUS" --requeue --open-mode=append)
[[ -z $TIME ]] || options+=("--time=$TIME")
[[ -z $PARTITION ]] || options+=("--partition=$PARTITION")
# These are known where the job runs, and not here.
# shellcheck disable=SC2016
who_is_who '$HEAD:12345' '$SLURM_NTASKS' '$SLURM_PROCID'
each="$(printf '%q ' "${COMMAND[@]}")${WHO[*]}"
# shellcheck disable=SC2016
head='export HEAD=$(scontrol show hostnames "$SLURM_NODELIST" | head -n 1);'
run sbatch "${options[@]}" --wrap \
  "$head srun --kill-on-bad-exit=1 bash -c $(printf '%q' "$each")"
