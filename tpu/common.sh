# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables of the scripts that source it
# What the scripts of this folder share. Sourced by them, never run; for bash 3.2, the one of macOS, and newer.
set -euo pipefail

clone=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=tpu/$(basename "$0")
rest=() # what the command line has beside its options

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# Reads the command line into variables of the options' names ("dry-run" into dry_run), which exist already.
# read_options "OPTIONS WITH A VALUE" "OPTIONS WITHOUT" "WHAT ELSE IS ALLOWED" ARGUMENTS...
# What else: "" for nothing, or key=value.
read_options() {
  local with_value=$1 without=$2 others=$3 known=" $1 $2 " option
  shift 3
  while [ $# -gt 0 ]; do
    option=${1#--}
    if [[ "$1" == --*=* ]] && [[ " $with_value " == *" ${option%%=*} "* ]]; then
      set -- "${1%%=*}" "${1#*=}" "${@:2}"
      option=${1#--}
    elif [[ "$1" == --* && $# -ge 2 && "$2" == --* && " $with_value " == *" $option "* ]]; then
      fail "$1: no value given; write $1 VALUE"
    fi
    case "$1" in
      -h | --help) usage && exit 0 ;;
      --*)
        if [[ "$option" == *" "* || "$known" != *" $option "* ]]; then
          # shellcheck disable=SC2086 # words
          fail "$1: unknown option; known are$(printf ' --%s' $with_value $without); $script --help tells of each"
        elif [[ " $without " == *" $option "* ]]; then
          printf -v "${option//-/_}" yes && shift
        else
          if [ $# -lt 2 ] || [ -z "$2" ]; then fail "$1: no value given; write $1 VALUE"; fi
          printf -v "${option//-/_}" '%s' "$2" && shift 2
        fi
        ;;
      -*) fail "$1: unknown option; $script --help tells of all" ;;
      *)
        [ -n "$others" ] || fail "'$1': not understood; only options are; $script --help tells of each"
        [[ "$1" == [A-Za-z]*=* ]] || fail "'$1': neither an option nor key=value; the configuration goes with --config"
        rest+=("$1") && shift
        ;;
    esac
  done
}

# refuse_missing OPTION...: those that must have been given.
refuse_missing() {
  local option variable
  for option in "$@"; do
    variable=${option//-/_}
    [ -n "${!variable}" ] || fail "--$option: not given; $script --help tells of all options"
  done
}

# The name goes into commands and file names, and Google Cloud takes no other; slices are counted.
refuse_bad_names() {
  if [ -n "${name-}" ] && [[ ! "$name" =~ ^[a-z][a-z0-9-]{0,60}[a-z0-9]$ ]]; then
    fail "--name: '$name' given; 2 to 62 small letters, digits and -, a letter first, are allowed; choose another"
  fi
  if [ -n "${slices-}" ] && [[ ! "$slices" =~ ^[1-9][0-9]{0,3}$ ]]; then
    fail "--slices: '$slices' given; a whole number from 1 on is allowed; write --slices 2"
  fi
}

refuse_without() {
  [ -n "${dry_run-}" ] || command -v "$1" >/dev/null || fail "$1: not found; install it: $2"
}

# ── commands ─────────────────────────────────────────────────────────────────

# The words as a shell would have to be given them. (bash 3.2 has no ${word@Q}.)
quoted() {
  local word line="" quote="'\\''"
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word="'${word//\'/$quote}'"
    line+="$word "
  done
  printf '%s' "${line% }"
}

# Each command is printed as it could be typed, then run.
run() {
  printf '%s\n' "$(quoted "$@")"
  [ -n "${dry_run-}" ] || "$@"
}

# A question: printed too, its answer goes into the variable `answer`; empty where the command fails.
ask() {
  printf '%s\n' "$(quoted "$@")"
  answer=""
  [ -n "${dry_run-}" ] || answer=$("$@") || answer=""
}

# ── TPU VMs: one slice is a TPU VM, several are a queued resource ─────────────

# Sets `where`, the options that every gcloud command on a TPU gets.
set_where() {
  where=(--zone "$zone")
  [ -z "${project-}" ] || where+=(--project "$project")
}

# on_workers WORKER COMMAND: a number is one of the first slice, all are those of all slices.
on_workers() {
  local node=0
  [ "$1" != all ] || node=all
  if [ "${slices:-1}" = 1 ]; then
    run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker "$1" --command "$2"
  else
    run gcloud compute tpus queued-resources ssh "$name" "${where[@]}" --node "$node" --worker "$1" \
      --batch-size all --command "$2"
  fi
}

# in_clone WORKER ACTION...: tpu/worker.sh there, which tpu/setup.sh has sent.
in_clone() {
  local code=0
  on_workers "$1" "$(quoted bash jaxlingua/tpu/worker.sh "${@:2}")" || code=$?
  [ "$code" != 127 ] || fail "--name: '$name' is not set up; run tpu/setup.sh first"
  return "$code"
}

# to_workers DESTINATION FILE-OR-FOLDER: copies it to all of them.
to_workers() {
  if [ "${slices:-1}" = 1 ]; then
    run gcloud compute tpus tpu-vm scp --recurse "$2" "$name:$1" "${where[@]}" --worker all
  else
    run gcloud compute tpus queued-resources scp --recurse "$2" "$name:$1" "${where[@]}" --node all --worker all \
      --batch-size all
  fi
}

# Sets `hosts`, of all slices, and `is_spot`; neither is known in a dry run.
refuse_not_ready() {
  local vms=("$name") vm state count spot
  hosts="" is_spot=""
  if [ "${slices:-1}" != 1 ]; then
    ask gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
      --format 'csv[no-heading](state.state,tpu.nodeSpec.len())' # one for each slice
    if [ -z "${dry_run-}" ]; then
      IFS=, read -r state count <<<"$answer"
      [ -n "$state" ] || fail "--name: gcloud knows no queued resource '$name' in $zone; make one with tpu/create.sh --slices $slices"
      [ "$state" = ACTIVE ] || fail "--name: '$name' is $state; wait until it is ACTIVE, or delete it and make another"
      [ "$count" = "$slices" ] || fail "--slices: $slices given, and '$name' has $count; give that number"
    fi
    vms=()
    for ((count = 0; count < slices; count++)); do vms+=("$name-$count"); done
  fi
  for vm in "${vms[@]}"; do
    ask gcloud compute tpus tpu-vm describe "$vm" "${where[@]}" \
      --format 'csv[no-heading](state,networkEndpoints.len(),schedulingConfig.spot)'
    [ -z "${dry_run-}" ] || continue
    IFS=, read -r state count spot <<<"$answer"
    [ -n "$state" ] || fail "--name: gcloud knows no TPU VM '$vm' in $zone; make one with tpu/create.sh, or give --slices if it is several"
    [ "$state" = READY ] || fail "--name: '$vm' is $state; wait until it is READY, or delete it and make another"
    hosts=$((hosts + ${count:-1}))
    [[ "$spot" != [Tt]rue ]] || is_spot=yes
  done
}

# ── chips ────────────────────────────────────────────────────────────────────

# Sets chip, shape and chips from --topology, such as v5e:2x4: the names of `python -m jaxlingua.plan`, of those
# the ones that can be asked for by name. v4 takes any sides from a cube on.
read_topology() {
  local known=""
  chip=${topology%%:*} shape=${topology#*:}
  case "$chip" in
    v5e | v6e) known="1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16" ;;
    v4) known="2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x4x12 4x4x16 4x8x8 4x8x12 4x8x16 8x8x8 8x8x12 8x8x16 8x16x16" ;;
    v5p) known="2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16 16x16x24" ;;
    *) fail "--topology: '$topology' given; CHIP:SHAPE of v4, v5e, v5p or v6e is allowed, such as v5e:2x4" ;;
  esac
  [[ "$shape" != *" "* && " $known " == *" $shape "* ]] ||
    fail "--topology: '$topology' given; $chip has ${known// /, }; write such as $chip:${known%% *}"
  chips=$((${shape//x/*}))
}
