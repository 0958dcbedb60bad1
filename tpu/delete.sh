#!/usr/bin/env bash
# Deletes a TPU VM, or a queued resource with its TPU VMs. Their disks go too: tpu/fetch.sh comes before.
# shellcheck source=tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: tpu/delete.sh --name NAME --zone ZONE [--queued] [--yes] [...]

  --name NAME        what tpu/create.sh has made
  --zone ZONE        its zone
  --queued           it is a queued resource (create.sh --queued)
  --slices N         number of slices, as given to tpu/create.sh; several are a queued resource
  --yes              do not ask for the name to be typed
  --project PROJECT  Google Cloud project; without it, the one that gcloud is set to
  --dry-run          print the commands and do nothing

Exit code 2: something is wrong with the command line; else that of the command that failed.
END
}

name="" zone="" project="" slices="" queued="" yes="" dry_run=""
read_options "name zone project slices" "queued yes dry-run" "" "$@"
refuse_missing name zone
refuse_bad_names
[ "${slices:-1}" = 1 ] || queued=yes
refuse_without gcloud https://cloud.google.com/sdk
set_where

if [ -z "$queued" ]; then
  # The queued resource would stay, and count against the quota of queued resources.
  ask gcloud compute tpus tpu-vm describe "$name" "${where[@]}" --format 'csv[no-heading](state,queuedResource.basename())'
  IFS=, read -r state resource <<<"$answer"
  [ -z "$resource" ] || fail "--name: '$name' belongs to the queued resource $resource; give --queued"
  if [ -z "$state$dry_run" ]; then
    ask gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format 'value(state.state)'
    [ -z "$answer" ] || fail "--name: '$name' is a queued resource, $answer; give --queued, or --slices if it is several"
    fail "--name: gcloud shows no TPU VM or queued resource '$name' in $zone; 'gcloud compute tpus tpu-vm list $(quoted "${where[@]}")' shows what is there"
  fi
fi
if [ -z "$yes$dry_run" ]; then
  printf 'This deletes %s in %s and all that is on its disks. Type its name to go on: ' "$name" "$zone"
  read -r typed || typed=""
  [ "$typed" = "$name" ] || fail "'$typed' typed, not $name; nothing was deleted; --yes deletes without asking"
fi
if [ -n "$queued" ]; then
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
else
  run gcloud compute tpus tpu-vm delete "$name" "${where[@]}" --quiet
fi

# ── what is left ─────────────────────────────────────────────────────────────
printf '# What is left in this zone, and costs money:\n'
run gcloud compute tpus tpu-vm list "${where[@]}"
run gcloud compute tpus queued-resources list "${where[@]}"
printf '# Buckets cost money for what lies in them: gcloud storage du --summarize gs://BUCKET\n'
