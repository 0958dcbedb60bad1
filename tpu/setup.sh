#!/usr/bin/env bash
# Sends this clone to all workers, installs it, lets the doctor look. Run it again whenever the clone has changed:
# what is installed stays, and data and runs that lie there do too.
# shellcheck source=tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: tpu/setup.sh --name NAME --zone ZONE [--data FOLDER] [--hf-token FILE] [...]

  --name NAME        TPU VM of tpu/create.sh
  --zone ZONE        its zone
  --slices N         number of slices, as given to tpu/create.sh
  --data FOLDER      a file or folder within this clone that git ignores, to be sent to the same place
  --hf-token FILE    your Hugging Face token, for models that ask for one (~/.cache/huggingface/token)
  --project PROJECT  Google Cloud project; without it, the one that gcloud is set to
  --dry-run          print the commands and do nothing

Exit code 2: something is wrong with the command line; else that of the command that failed.
END
}

name="" zone="" project="" slices="" data="" hf_token="" dry_run=""
read_options "name zone project slices data hf-token" "dry-run" "" "$@"
refuse_missing name zone
refuse_bad_names
data=${data%/}
if [ -n "$data" ]; then
  [[ "/$data/" != //* && "/$data/" != */../* && "/$data/" != */./* ]] ||
    fail "--data: '$data' given; a path within the clone is allowed, without . and ..; write such as data/mine"
  [ -e "$clone/$data" ] || fail "--data: no '$data' in $clone; give a path within the clone"
fi
[ -z "$hf_token" ] || [ -f "$hf_token" ] || fail "--hf-token: no file '$hf_token'; 'hf auth login' writes one to ~/.cache/huggingface/token"
refuse_without gcloud https://cloud.google.com/sdk
set_where
refuse_not_ready

# ── send ─────────────────────────────────────────────────────────────────────
[ "${hosts:-1}" = 1 ] || printf '# several hosts: gcloud needs the key in ssh-agent: ssh-add ~/.ssh/google_compute_engine\n'
# The archive has its name from here, so that the printed command can be typed. (macOS wants the Xs to be last.)
archive=${TMPDIR:-/tmp}
archive=$(mktemp -u "${archive%/}/jaxlingua-XXXXXX").tar.gz
trap 'rm -f "$archive"' EXIT
export COPYFILE_DISABLE=1 # macOS would add files of its own
# What git knows or would know, as it lies there, less what was deleted.
# shellcheck disable=SC2016 # for the inner shell
run bash -c 'cd "$1" && git ls-files -z --cached --others --exclude-standard |
  while IFS= read -r -d "" file; do [ ! -f "$file" ] || printf "%s\0" "$file"; done |
  tar --null -czf "$2" -T -' send "$clone" "$archive"
to_workers jaxlingua.tar.gz "$archive"

# ── install ──────────────────────────────────────────────────────────────────
# Not under a training that goes on. Files that are no longer sent go, what was made there stays. The VM's own
# Python may be too old; uv brings one and needs nothing of the system but curl. Where the connection breaks, gcloud
# gives the command again while the first may be at work still: the second waits, and finds the archive.
commit=$(git -C "$clone" describe --always --dirty --abbrev=40 2>/dev/null || echo none)
# shellcheck disable=SC2016 # for the shell of the VM
on_workers all 'set -e; [ ! -f jaxlingua/tpu/worker.sh ] || bash jaxlingua/tpu/worker.sh idle
mkdir -p jaxlingua; cd jaxlingua; exec 9> .setup; flock 9
[ ! -f .sent ] || tr "\n" "\0" < .sent | xargs -0 rm -f
tar -tzf ../jaxlingua.tar.gz > .sent; tar -xzf ../jaxlingua.tar.gz
echo '"$commit"' > .commit
export PATH="$HOME/.local/bin:$PATH"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[ -x .venv/bin/python ] || { rm -rf .venv; uv venv --quiet --python 3.12 .venv; }
uv pip install --quiet --python .venv/bin/python -e ".[tpu]"'
if [ -n "$data" ]; then
  above=$(dirname "jaxlingua/$data")
  on_workers all "$(quoted mkdir -p "$above")"
  to_workers "$above/" "$clone/$data"
fi
if [ -n "$hf_token" ]; then
  on_workers all 'mkdir -p .cache/huggingface && touch .cache/huggingface/token && chmod 600 .cache/huggingface/token'
  to_workers .cache/huggingface/token "$hf_token"
fi

# ── check ────────────────────────────────────────────────────────────────────
# Without its archive the next setup cannot install what was never sent.
on_workers all 'rm -f jaxlingua.tar.gz; cd jaxlingua && .venv/bin/python -m jaxlingua.doctor'
