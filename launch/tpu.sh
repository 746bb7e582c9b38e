#!/usr/bin/env bash
# A Cloud TPU pod: one command, which runs on every worker.
#
#   launch/tpu.sh create --name pod --zone us-central2-b --type v4-32
#   launch/tpu.sh setup  --name pod --zone us-central2-b
#   launch/tpu.sh run    --name pod --zone us-central2-b \
#     --gin gin/spot_xxl.gin --out gs://bucket/run --engine t5x
#   launch/tpu.sh delete --name pod --zone us-central2-b
#
# `create` asks for a queued resource (`--spot` for a pre-emptible one), and
# returns at once; `setup` copies this repository to all workers and installs it
# there; `run` starts the same command on all of them, and again when it fails.
# A pod that was pre-empted is created and set up again: results in a bucket go
# on from their last checkpoint.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

ACTION=${1:-} NAME='' ZONE='' TYPE='' SPOT='' VERSION=tpu-ubuntu2204-base
case "$ACTION" in create | setup | run | delete) shift ;; *)
  fail "expected create, setup, run or delete, found '$ACTION'"
  ;;
esac
arguments=()
while (($#)); do
  case "$1" in
    --name) NAME=${2:?} && shift 2 ;;
    --zone) ZONE=${2:?} && shift 2 ;;
    --type) TYPE=${2:?} && shift 2 ;;
    --version) VERSION=${2:?} && shift 2 ;;
    --spot) SPOT=yes && shift ;;
    --)
      arguments+=("$@")
      break
      ;;
    --dry-run) DRY=yes && arguments+=("$1") && shift ;;
    *) arguments+=("$1") && shift ;;
  esac
done
[[ -n $NAME ]] || fail '--name: expected the name of the TPU, found none'
[[ -n $ZONE ]] || fail '--zone: expected a zone, found none'
need gcloud 'See https://cloud.google.com/sdk/docs/install.'
on_all=(gcloud compute tpus tpu-vm ssh "$NAME" "--zone=$ZONE" --worker=all)

case "$ACTION" in
  create)
    [[ -n $TYPE ]] || fail '--type: expected one such as v4-32, found none'
    command=(gcloud compute tpus queued-resources create "$NAME"
      "--node-id=$NAME" "--zone=$ZONE" "--accelerator-type=$TYPE"
      "--runtime-version=$VERSION")
    [[ -z $SPOT ]] || command+=(--spot)
    run "${command[@]}"
    ;;
  setup)
    run gcloud compute tpus tpu-vm scp --recurse . "$NAME:prompt_subspace" \
      "--zone=$ZONE" --worker=all
    run "${on_all[@]}" --command \
      "cd prompt_subspace && python3 -m pip install -e '.[tpu]'"
    ;;
  run)
    read_arguments "${arguments[@]}"
    ((${#REST[@]} == 0)) || fail "unknown arguments: ${REST[*]}"
    [[ $OUT == gs://* ]] ||
      fail "--out: expected a bucket, gs://..., that all workers reach, found \
$OUT"
    make_command
    found_by_jax
    COMMAND+=("${WHO[@]}")
    run_with_retries "${on_all[@]}" --command "cd prompt_subspace && $(
      printf '%q ' "${COMMAND[@]}"
    )"
    ;;
  delete)
    run gcloud compute tpus queued-resources delete "$NAME" "--zone=$ZONE" \
      --force
    ;;
esac
