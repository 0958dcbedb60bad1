#!/usr/bin/env bash
# Trains on one TPU VM: sends this clone there, installs it, lets the doctor look, runs the configuration.
# Run it again after an interruption: what is installed stays, and training goes on from its last checkpoint.
set -euo pipefail

usage() {
  cat <<'END'
usage: tpu/launch.sh --name NAME --zone ZONE --config CONFIG [--project PROJECT] [--dry-run] [key=value ...]

  --name NAME        TPU VM that exists and is READY (tpu/README.md says how to make one)
  --zone ZONE        its zone, such as us-west4-a
  --config CONFIG    configuration file, as a path within this clone
  --project PROJECT  Google Cloud project; without it, the one that gcloud is set to
  --dry-run          print the commands and do nothing
  key=value          overrides of the configuration, such as train.optimizer.peak_lr=1e-5

Exit code 2: something is wrong with the command line; else that of the command that failed.
END
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

name="" zone="" project="" config="" dry_run="" overrides=()
while [ $# -gt 0 ]; do
  if [[ "$1" == --*=* ]]; then set -- "${1%%=*}" "${1#*=}" "${@:2}"; fi
  case "$1" in
    --name | --zone | --project | --config)
      if [ $# -lt 2 ] || [[ "$2" == --* ]]; then fail "$1: no value given; write $1 VALUE"; fi
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --dry-run) dry_run=yes && shift ;;
    -h | --help) usage && exit 0 ;;
    -*) fail "$1: unknown option; known are --name, --zone, --project, --config, --dry-run" ;;
    *=*) overrides+=("$1") && shift ;;
    *) fail "'$1': neither an option nor key=value; give the configuration with --config" ;;
  esac
done
for option in name zone config; do
  [ -n "${!option}" ] || fail "--$option: not given; tpu/launch.sh --help shows all options"
done
clone=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ "$config" != /* ]] || fail "--config: '$config' is absolute; give a path within the clone, $clone"
[ -f "$clone/$config" ] || fail "--config: no file '$config' in $clone; only what is in the clone is sent"
[ -n "$dry_run" ] || command -v gcloud >/dev/null || fail "gcloud: not found; install it: https://cloud.google.com/sdk"

# A run on the VM's CPU would waste the TPU, so it is refused unless a platform was given.
[[ " ${overrides[*]-} " == *" run.platform="* ]] || overrides+=(run.platform=tpu)

where=(--zone "$zone")
[ -z "$project" ] || where+=(--project "$project")

# The words as a shell would have to be given them. (bash 3.2 of macOS has no ${word@Q}.)
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
  [ -n "$dry_run" ] || "$@"
}

on_vm() {
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker 0 --command "$1"
}

# ── is it there, and is it one host? ─────────────────────────────────────────
if [ -z "$dry_run" ]; then
  read -r state hosts < <(gcloud compute tpus tpu-vm describe "$name" "${where[@]}" \
    --format 'value(state,networkEndpoints.len())') || true
  [ -n "${state:-}" ] || fail "--name: gcloud knows no TPU VM '$name' in $zone; make one as tpu/README.md says"
  [ "$state" = READY ] || fail "--name: '$name' is $state; wait until it is READY, or start it"
  [ "${hosts:-1}" -le 1 ] || fail "--name: '$name' has $hosts hosts; this script is for TPU VMs of one host"
fi

# ── send ─────────────────────────────────────────────────────────────────────
archive=$(mktemp -u "${TMPDIR:-/tmp}/jaxlingua-XXXXXX.tar.gz")
trap 'rm -f "$archive"' EXIT
export COPYFILE_DISABLE=1 # macOS would add files of its own
# What git knows or would know, as it lies there, less what was deleted.
# shellcheck disable=SC2016 # for the inner shell
run bash -c 'cd "$1" && git ls-files -z --cached --others --exclude-standard |
  while IFS= read -r -d "" file; do [ ! -f "$file" ] || printf "%s\0" "$file"; done |
  tar --null -czf "$2" -T -' send "$clone" "$archive"
run gcloud compute tpus tpu-vm scp "$archive" "$name:jaxlingua.tar.gz" "${where[@]}" --worker 0

# ── install ──────────────────────────────────────────────────────────────────
# The VM's own Python may be too old; uv brings one and needs nothing of the system but curl.
# shellcheck disable=SC2016 # for the shell of the VM
on_vm 'set -e; mkdir -p jaxlingua; tar -xzf jaxlingua.tar.gz -C jaxlingua; cd jaxlingua
export PATH="$HOME/.local/bin:$PATH"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[ -d .venv ] || uv venv --quiet --python 3.12 .venv
uv pip install --quiet --python .venv/bin/python -e ".[tpu]"'

# ── check ────────────────────────────────────────────────────────────────────
on_vm 'cd jaxlingua && .venv/bin/python -m jaxlingua.doctor'

# ── run ──────────────────────────────────────────────────────────────────────
# nohup: a lost connection does not stop the training, only what is seen of it here.
commit=$(git -C "$clone" describe --always --dirty --abbrev=40 2>/dev/null || echo none)
train=$(quoted env "JAXLINGUA_COMMIT=$commit" .venv/bin/python -m jaxlingua.train "$config" "${overrides[@]}")
on_vm "cd jaxlingua && log=train-\$(date +%Y%m%d-%H%M%S).log && : > \$log || exit 1
nohup $train > \$log 2>&1 &
pid=\$!; tail --pid=\$pid -n +1 -f \$log; wait \$pid"

printf 'The runs lie on the VM under jaxlingua/runs. To bring them here:\n'
quoted gcloud compute tpus tpu-vm scp --recurse "$name:jaxlingua/runs" . "${where[@]}" --worker 0
printf '\n'
