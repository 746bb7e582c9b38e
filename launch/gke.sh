#!/usr/bin/env bash
# A job on Google Kubernetes Engine: TPU slices or GPU nodes.
#
#   launch/gke.sh --name spot --image IMAGE --hosts 4 --tpu 2x2x4 \
#     --accelerator tpu-v4-podslice --chips 4 \
#     --gin gin/spot_xxl.gin --out gs://bucket/run --engine t5x
#
# It writes an indexed Job, one pod for each host, and applies it; the image
# holds this repository, installed, as its working directory. Failed pods are
# started again (--retries of them), and go on from the last checkpoint.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

read_arguments "$@"
NAME='' IMAGE='' HOSTS='' TOPOLOGY='' ACCELERATOR='' CHIPS=''
set -- "${REST[@]}"
while (($#)); do
  case "$1" in
    --name) NAME=${2:?} && shift 2 ;;
    --image) IMAGE=${2:?} && shift 2 ;;
    --hosts) HOSTS=${2:?} && shift 2 ;;
    --tpu) TOPOLOGY=${2:?} && shift 2 ;;
    --accelerator) ACCELERATOR=${2:?} && shift 2 ;;
    --chips) CHIPS=${2:?} && shift 2 ;;
    *) fail "unknown argument: $1" ;;
  esac
done
for name in NAME IMAGE ACCELERATOR; do
  [[ -n ${!name} ]] || fail "--${name,,}: expected a value, found none"
done
for name in HOSTS CHIPS; do
  [[ ${!name} =~ ^[1-9][0-9]*$ ]] ||
    fail "--${name,,}: expected a number, found '${!name}'"
done
need kubectl 'And credentials: gcloud container clusters get-credentials.'
make_command

if [[ -n $TOPOLOGY ]]; then
  RESOURCE=google.com/tpu
  SELECT="        cloud.google.com/gke-tpu-accelerator: $ACCELERATOR
        cloud.google.com/gke-tpu-topology: $TOPOLOGY"
  found_by_jax
else
  RESOURCE=nvidia.com/gpu
  SELECT="        cloud.google.com/gke-accelerator: $ACCELERATOR"
  # Kubernetes fills in $(NAME) from the pod's environment.
  # shellcheck disable=SC2016
  who_is_who "$NAME-0.$NAME:8476" "$HOSTS" '$(JOB_COMPLETION_INDEX)'
fi
COMMAND+=("${WHO[@]}")

manifest() {
  local word words=''
  for word in "${COMMAND[@]}"; do
    words+="        - '${word//\'/\'\'}'"$'\n'
  done
  cat <<YAML
apiVersion: v1
kind: Service
metadata:
  name: $NAME
spec:
  clusterIP: None
  selector:
    job-name: $NAME
---
apiVersion: batch/v1
kind: Job
metadata:
  name: $NAME
spec:
  completionMode: Indexed
  completions: $HOSTS
  parallelism: $HOSTS
  backoffLimit: $((RETRIES * HOSTS))
  template:
    spec:
      subdomain: $NAME
      restartPolicy: Never
      nodeSelector:
$SELECT
      containers:
      - name: worker
        image: $IMAGE
        command:
${words%$'\n'}
        resources:
          limits:
            $RESOURCE: $CHIPS
YAML
}

if [[ -n $DRY ]]; then manifest; else manifest | kubectl apply -f -; fi
