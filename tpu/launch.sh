#!/usr/bin/env bash
# Starts training on all workers, so that no lost connection ends it. Run it again after an interruption: training
# goes on from its last checkpoint.
# shellcheck source=tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: tpu/launch.sh --name NAME --zone ZONE --config CONFIG [...] [key=value ...]

  --name NAME        TPU VM that tpu/setup.sh has set up
  --zone ZONE        its zone
  --slices N         number of slices, as given to tpu/create.sh
  --config CONFIG    configuration file, as a path within this clone
  --project PROJECT  Google Cloud project; without it, the one that gcloud is set to
  --dry-run          print the commands and do nothing
  key=value          overrides of the configuration, such as train.optimizer.peak_lr=1e-5

run.platform=tpu is added unless a platform is given. With several hosts run.folder has to be given: a folder in a
bucket (gs://BUCKET/runs/mine), or the path of one that all hosts share.
Exit code 2: something is wrong with the command line, a training goes on there, or the configuration there is
another; 1: not all hosts were reached; else that of the command that failed.
END
}

name="" zone="" project="" slices="" config="" dry_run=""
read_options "name zone project slices config" "dry-run" key=value "$@"
refuse_missing name zone config
refuse_bad_names
[[ "$config" != /* ]] || fail "--config: '$config' is absolute; give a path within the clone, $clone"
[ -f "$clone/$config" ] || fail "--config: no file '$config' in $clone; only what is in the clone is sent"
folder=""
has_platform=""
for override in ${rest[@]+"${rest[@]}"}; do
  [[ "$override" != run.folder=* ]] || folder=${override#run.folder=}
  [[ "$override" != run.platform=* ]] || has_platform=yes
done
refuse_without gcloud https://cloud.google.com/sdk
set_where
refuse_not_ready
if [ "${hosts:-${slices:-1}}" -gt 1 ] && [[ "$folder" != gs://?* && "$folder" != /* ]]; then
  fail "run.folder: ${folder:-none} given, and '$name' has several hosts, which need one folder that all reach; give run.folder=gs://BUCKET/runs/mine"
fi

# A run on the VM's CPU would waste the TPU, so it is refused unless a platform was given.
[ -n "$has_platform" ] || rest+=(run.platform=tpu)

# ── start ────────────────────────────────────────────────────────────────────
in_clone all idle "$config" "$(cksum <"$clone/$config")"
code=0
said=$(in_clone all start "$(date +%Y%m%d-%H%M%S)-$$" "$config" "${rest[@]}") || code=$?
printf '%s\n' "$said"
[ "$code" = 0 ] || exit "$code"
# Of several slices gcloud leaves out one that it cannot reach, and says nothing in its exit code.
started=$(sort -u <<<"$said" | grep -c ': started, output in ' || true) # a host whose connection broke says it twice
if [ -z "$dry_run" ] && [ "$started" != "$hosts" ]; then
  printf 'error: %s: started on %s of %s hosts; run tpu/stop.sh, then this again\n' "$name" "$started" "$hosts" >&2
  exit 1
fi

same=$(quoted --name "$name" "${where[@]}")
[ "${slices:-1}" = 1 ] || same+=" --slices $slices"
cat <<END
# It goes on by itself. To follow it, until it ends: tpu/logs.sh $same
# To have it save and stop: tpu/stop.sh $same
END
if [ -n "$is_spot" ]; then
  echo "# A spot VM that is taken away does not come back: tpu/delete.sh, create.sh, setup.sh and this command again."
  [[ "$folder" == gs://* ]] ||
    echo "# note: only a run in a bucket goes on then; this one lies on the VM's disk, which goes with it"
fi
