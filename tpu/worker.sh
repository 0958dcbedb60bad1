#!/usr/bin/env bash
# What the other scripts have done on each worker, in ~/jaxlingua. One training at a time:
#   worker.sh idle                          whether none goes on; else one line and exit code 2
#   worker.sh start CONFIG [key=value ...]  starts one that no lost connection ends
#   worker.sh follow [--named]              shows its output until it ends, and ends with its exit code
#   worker.sh stop                          SIGTERM: it saves and ends; waits for that
# launched/current names the newest; launched/<time>-<number>.{log,pid,exit} are its output, process and exit code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf 'error: %s: %s\n' "$(hostname)" "$1" >&2
  exit "${2:-2}"
}

# The newest training, as launched/<time>-<number>; nothing where there was none.
current() { cat launched/current 2>/dev/null || true; }

# A number may be another process's by now, so its command is looked at.
goes_on() {
  local last pid
  last=$(current)
  [ -n "$last" ] && [ ! -f "$last.exit" ] && pid=$(cat "$last.pid" 2>/dev/null) &&
    [[ "$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")" == *"worker.sh train $last"* ]]
}

case "${1-}" in
  idle)
    ! goes_on || fail "a training goes on here ($(current).log); tpu/logs.sh follows it, tpu/stop.sh ends it"
    ;;
  start)
    bash tpu/worker.sh idle
    mkdir -p launched
    new=launched/$(date +%Y%m%d-%H%M%S)-$$
    nohup bash tpu/worker.sh train "$new" "${@:2}" >"$new.log" 2>&1 </dev/null &
    echo $! >"$new.pid"
    echo "$new" >launched/current
    echo "$(hostname): started, output in jaxlingua/$new.log"
    ;;
  train) # in the background, see start
    JAXLINGUA_COMMIT=$(cat .commit) .venv/bin/python -m jaxlingua.train "${@:3}" &
    training=$!
    trap 'kill -TERM "$training"' TERM
    code=0
    wait "$training" || code=$?
    while kill -0 "$training" 2>/dev/null; do # the wait ends when a signal comes, the training later
      code=0
      wait "$training" || code=$?
    done
    echo "$code" >"$2.exit"
    ;;
  follow)
    last=$(current)
    [ -n "$last" ] || fail "no training was started here; tpu/launch.sh does"
    if goes_on; then
      show=(tail --pid="$(cat "$last.pid")" -n +1 -f "$last.log")
    else
      show=(cat "$last.log")
    fi
    if [ "${2-}" = --named ]; then
      "${show[@]}" | sed -u "s/^/$(hostname): /"
    else
      "${show[@]}"
    fi
    [ -f "$last.exit" ] || fail "the training ended without an exit code, as when the machine is started anew; launch it again" 1
    code=$(cat "$last.exit")
    echo "$(hostname): ended with exit code $code" >&2
    exit "$code"
    ;;
  stop)
    goes_on || {
      echo "$(hostname): no training goes on"
      exit 0
    }
    kill -TERM "$(cat "$(current).pid")"
    while goes_on; do sleep 1; done
    echo "$(hostname): stopped, exit code $(cat "$(current).exit")"
    ;;
  *) fail "worker.sh ${1-}: not understood; idle, start, follow and stop are" ;;
esac
