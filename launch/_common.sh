# shellcheck shell=bash
# Shared by the launchers: arguments, checks, dry runs, restarts.
#
# Every launcher takes
#   --gin FILE          what to run
#   --out DIR           where its results go (kept and continued)
#   --engine local|t5x  `prompt_subspace.run` (default), or `t5x.train`
#   --retries N         starts again after a failure, from the last checkpoint
#   --dry-run           prints what it would run, and runs nothing
#   --                  the rest are gin bindings, such as --gin.SEEDS='[0]'

set -euo pipefail

say() { echo "== $*" >&2; }
fail() {
  echo "error: $*" >&2
  exit 2
}

GIN='' OUT='' ENGINE=local RETRIES=3 DRY='' BINDINGS=()

# Reads what all launchers share; leaves what it does not know in REST.
read_arguments() {
  REST=()
  while (($#)); do
    case "$1" in
      --gin) GIN=${2:?--gin needs a file} && shift 2 ;;
      --out) OUT=${2:?--out needs a folder} && shift 2 ;;
      --engine) ENGINE=${2:?--engine needs local or t5x} && shift 2 ;;
      --retries) RETRIES=${2:?--retries needs a number} && shift 2 ;;
      --dry-run) DRY=yes && shift ;;
      --)
        shift
        BINDINGS=("$@")
        break
        ;;
      *) REST+=("$1") && shift ;;
    esac
  done
  [[ -n $GIN ]] || fail '--gin: expected a gin file, found none'
  [[ -n $OUT ]] || fail '--out: expected a folder for the results, found none'
  case "$ENGINE" in local | t5x) ;; *)
    fail "--engine: expected local or t5x, found $ENGINE"
    ;;
  esac
  [[ $RETRIES =~ ^[0-9]+$ ]] ||
    fail "--retries: expected a whole number, found $RETRIES"
}

# The command of one process, in the array COMMAND.
make_command() {
  local python=${PYTHON:-python3} place="\"$OUT\""
  if [[ $ENGINE == t5x ]]; then
    COMMAND=("$python" -m t5x.train "--gin_file=$GIN" "--gin.MODEL_DIR=$place")
  else
    COMMAND=("$python" -m prompt_subspace.run "--gin_file=$GIN"
      "--gin.OUT=$place")
  fi
  COMMAND+=("${BINDINGS[@]}")
}

# What runs in several processes runs by T5X, which divides the work among them.
# What tells a process who it is, in the array WHO; the arguments may be words
# that are known only where it runs.
who_is_who() {
  local address=$1 count=$2 index=$3
  if [[ $ENGINE == t5x ]]; then
    WHO=(--multiprocess_gpu "--coordinator_address=$address"
      "--process_count=$count" "--process_index=$index")
  else
    WHO=("--processes=$address,$count,$index")
  fi
}

# On machines that tell JAX who is who, T5X asks by itself.
found_by_jax() {
  [[ $ENGINE == t5x ]] && WHO=() || WHO=(--processes=auto)
}

need() {
  [[ -n $DRY ]] || command -v "$1" >/dev/null ||
    fail "$1: expected to find it on this machine. $2"
}

need_file() {
  [[ -n $DRY || -f $1 ]] ||
    fail "$1: expected a file. Start from the repository's root."
}

# Prints a command as it could be typed, or runs it.
run() {
  if [[ -n $DRY ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

# Runs a command again after a failure: what is finished is on disk, and an
# interrupted run goes on from its last checkpoint.
run_with_retries() {
  local number
  for ((number = 0; ; number++)); do
    run "$@" && return 0
    ((number < RETRIES)) || fail "failed $((number + 1)) times: $1"
    say "failed; start $((number + 2)) of $((RETRIES + 1))"
    sleep "${RETRY_SECONDS:-10}"
  done
}
