#!/usr/bin/env bash
# Shows the output of the newest training from its beginning, and follows it until it ends. Ctrl-C ends only this.
# shellcheck source=tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: tpu/logs.sh --name NAME --zone ZONE [--worker N|all] [...]

  --name NAME        TPU VM on which tpu/launch.sh has started a training
  --zone ZONE        its zone
  --slices N         number of slices, as given to tpu/create.sh
  --worker N|all     a worker of the first slice (0, which tells the most); all: every worker, each line with its name
  --project PROJECT  Google Cloud project; without it, the one that gcloud is set to
  --dry-run          print the commands and do nothing

Exit code: that of the training (0 done, 1 the machine failed, 2 the input is wrong, 143 stopped and saved); 2 also if
something is wrong with the command line.
END
}

name="" zone="" project="" slices="" worker="" dry_run=""
read_options "name zone project slices worker" "dry-run" "" "$@"
refuse_missing name zone
refuse_bad_names
worker=${worker:-0}
[[ "$worker" == all || "$worker" =~ ^[0-9]{1,4}$ ]] || fail "--worker: '$worker' given; a number from 0 on, or all, is allowed; write --worker 0"
refuse_without gcloud https://cloud.google.com/sdk
set_where
if [ "$worker" = all ]; then
  in_clone all follow --named
else
  in_clone "$worker" follow
fi
