#!/usr/bin/env bash
# Brings a run folder here: from worker 0, or from a bucket. Checkpoints stay there unless asked for.
# shellcheck source=tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: tpu/fetch.sh --run gs://BUCKET/runs/mine [--to FOLDER] [...]
       tpu/fetch.sh --run runs/mine --name NAME --zone ZONE [--to FOLDER] [...]

  --run FOLDER       run.folder of the training: in a bucket, or on the VM
  --to FOLDER        folder here in which it will lie under its own name (runs)
  --checkpoints      bring the checkpoints too (12 bytes per parameter each with AdamW)
  --name NAME        TPU VM on which it lies
  --zone ZONE        its zone
  --slices N         number of slices, as given to tpu/create.sh
  --project PROJECT  Google Cloud project; without it, the one that gcloud is set to
  --dry-run          print the commands and do nothing

Exit code 2: something is wrong with the command line; else that of the command that failed.
END
}

name="" zone="" project="" slices="" run="" to="" checkpoints="" dry_run=""
read_options "name zone project slices run to" "checkpoints dry-run" "" "$@"
refuse_missing run
run=${run%/} to=${to:-runs}
refuse_bad_names
refuse_without gcloud https://cloud.google.com/sdk
own=${run##*/}

if [[ "$run" == *:* ]]; then
  [[ "$run" == gs://?*/?* ]] || fail "--run: '$run' given; a folder on the VM or gs://BUCKET/FOLDER is allowed; write it so"
  [ -n "$checkpoints" ] || less=(--exclude '^checkpoints/')
  # rsync wants the folder to be there; what is here already is not brought again.
  run mkdir -p "$to/$own"
  run gcloud storage rsync --recursive "$run" "$to/$own" ${less[@]+"${less[@]}"} ${project:+--project "$project"}
else
  refuse_missing name zone
  set_where
  case "$run" in
    /*) above=${run%/*}/ ;;
    */*) above=jaxlingua/${run%/*} ;;
    *) above=jaxlingua ;;
  esac
  [ -n "$checkpoints" ] || less=(--exclude="$own/checkpoints")
  pack=$(quoted tar -C "$above" ${less[@]+"${less[@]}"} -czf - "$own")
  fetch=(gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker 0)
  [ "${slices:-1}" = 1 ] ||
    fetch=(gcloud compute tpus queued-resources ssh "$name" "${where[@]}" --node 0 --worker 0)
  # shellcheck disable=SC2016 # for the inner shell
  run bash -c 'set -o pipefail; mkdir -p "$0"; "$@" | tar -C "$0" -xzf -' "$to" "${fetch[@]}" --command "$pack"
fi
[ -n "$dry_run" ] || printf '%s is here: %s/%s\n' "$run" "$to" "$own"
