#!/usr/bin/env bash
# Has the training save and stop, on all workers, and waits for it. tpu/launch.sh goes on from there.
# shellcheck source=tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: tpu/stop.sh --name NAME --zone ZONE [...]

  --name NAME        TPU VM on which tpu/launch.sh has started a training
  --zone ZONE        its zone
  --slices N         number of slices, as given to tpu/create.sh
  --project PROJECT  Google Cloud project; without it, the one that gcloud is set to
  --dry-run          print the commands and do nothing

The VM goes on costing money: tpu/delete.sh ends that.
END
}

name="" zone="" project="" slices="" dry_run=""
read_options "name zone project slices" "dry-run" "" "$@"
refuse_missing name zone
refuse_bad_names
refuse_without gcloud https://cloud.google.com/sdk
set_where
in_clone all stop
