#!/usr/bin/env bash
# Makes a TPU VM: now, or by a queued resource, for which it waits. It costs money until tpu/delete.sh.
# shellcheck source=tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: tpu/create.sh --name NAME --zone ZONE --topology CHIP:SHAPE [--spot] [--queued] [--slices N] [...]

  --name NAME                what to call it
  --zone ZONE                a zone that has such chips and in which you have quota, such as us-west4-a
  --topology CHIP:SHAPE      as of python -m jaxlingua.plan: v5e:2x4, v6e:4x4, v5p:2x2x2, v4:4x4x4
  --spot                     cheaper, and may be taken away at any time
  --queued                   a queued resource: waits until there is one, with a line every 30 seconds
  --slices N                 several slices of this shape; always queued; give it to the other scripts as well
  --runtime-version VERSION  image of the VM, in place of the one of the chip
  --project PROJECT          Google Cloud project; without it, the one that gcloud is set to
  --dry-run                  print the commands and do nothing

Exit code 2: something is wrong with the command line; 1: the request failed; else that of gcloud.
END
}

name="" zone="" project="" topology="" slices="" runtime_version="" spot="" queued="" dry_run=""
read_options "name zone project topology slices runtime-version" "spot queued dry-run" "" "$@"
refuse_missing name zone topology
refuse_bad_names
read_topology
[ "${slices:-1}" = 1 ] || queued=yes
refuse_without gcloud https://cloud.google.com/sdk
set_where

# What Google Cloud calls them: v4 and v5p count cores, two to a chip. Of v4 a number of cores has several shapes, so
# the shape is given. The images are those of https://cloud.google.com/tpu/docs/runtimes for JAX.
case "$chip" in
  v4) kind=(--type v4 --topology "$shape") version=tpu-ubuntu2204-base ;;
  v5p) kind=(--accelerator-type "v5p-$((2 * chips))") version=v2-alpha-tpuv5 ;;
  v5e) kind=(--accelerator-type "v5litepod-$chips") version=v2-alpha-tpuv5-lite ;;
  v6e) kind=(--accelerator-type "v6e-$chips") version=v2-alpha-tpuv6e ;;
esac
version=${runtime_version:-$version}

if [ -z "$queued" ]; then
  printf '# Ctrl-C ends the waiting, not the request: tpu/delete.sh takes it back\n'
  run gcloud compute tpus tpu-vm create "$name" "${where[@]}" "${kind[@]}" --version "$version" ${spot:+--spot} || {
    code=$?
    ask gcloud compute tpus tpu-vm describe "$name" "${where[@]}" --format 'value(state)'
    told="no such TPU VM is shown; 'gcloud compute tpus tpu-vm list $(quoted "${where[@]}")' tells if it comes later, and costs; where there is no capacity, --queued waits for it"
    [ -z "$answer" ] || told="it is there, $answer, and costs; tpu/delete.sh deletes it"
    printf 'error: %s: gcloud ended with exit code %s; %s\n' "$name" "$code" "$told" >&2
    exit "$code"
  }
  exit 0
fi

nodes=(--node-id "$name")
[ "${slices:-1}" = 1 ] || nodes=(--node-count "$slices" --node-prefix "$name")
run gcloud compute tpus queued-resources create "$name" "${where[@]}" "${nodes[@]}" "${kind[@]}" \
  --runtime-version "$version" ${spot:+--spot}

# ── wait ─────────────────────────────────────────────────────────────────────
printf '# until it is ACTIVE, and costs from then on; Ctrl-C ends only the waiting, tpu/delete.sh --queued the request\n'
describe=(gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format 'value(state.state)')
ask "${describe[@]}"
[ -z "$dry_run" ] || exit 0
began=$SECONDS
while true; do
  printf '%s: %s after %d min\n' "$name" "${answer:-no answer}" $(((SECONDS - began) / 60))
  case "$answer" in
    ACTIVE) exit 0 ;;
    FAILED | SUSPENDING | SUSPENDED | DELETING)
      printf 'error: %s: the request is %s; tpu/delete.sh --queued removes it; then ask again, or in another zone\n' \
        "$name" "$answer" >&2
      exit 1
      ;;
  esac
  sleep "${JAXLINGUA_POLL_SECONDS:-30}"
  answer=$("${describe[@]}") || answer=""
done
