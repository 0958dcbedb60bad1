#!/usr/bin/env bash
# What the other scripts have done on each worker, in ~/jaxlingua. One training at a time:
#   worker.sh idle [CONFIG CKSUM]                  whether none goes on, and CONFIG is as it was sent; else exit code 2
#   worker.sh start LAUNCH CONFIG [key=value ...]  starts one that no lost connection ends
#   worker.sh follow [--named]                     shows its output until it ends, and ends with its exit code
#   worker.sh stop                                 SIGTERM: it saves and ends; waits for that
# launched/current names the newest; launched/LAUNCH.{log,pid,exit} are its output, the process of `worker.sh train`
# and the exit code, .training the process of the training itself, and .stopping says that it has got its SIGTERM.
# gcloud gives a command again when the connection breaks, so that each may come twice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf 'error: %s: %s\n' "$(hostname)" "$1" >&2
  exit "${2:-2}"
}

# The newest training, as launched/LAUNCH; nothing where there was none.
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
    [ $# = 1 ] || [ "$(cksum 2>/dev/null <"$2")" = "$3" ] ||
      fail "$2: not as it is in your clone; run tpu/setup.sh again; what git ignores is sent with --data"
    ;;
  start)
    new=launched/$2
    if [ ! -f "$new.log" ]; then # else this very launch was here already
      bash tpu/worker.sh idle
      mkdir -p launched
      nohup bash tpu/worker.sh train "$new" "${@:3}" >"$new.log" 2>&1 </dev/null &
      echo $! >"$new.pid"
      echo "$new" >launched/current
    fi
    echo "$(hostname): started, output in jaxlingua/$new.log"
    ;;
  train) # in the background, see start
    # A second SIGTERM would end the training unsaved. A machine that goes down sends one to each process.
    trap 'again=yes' TERM
    JAXLINGUA_COMMIT=$(cat .commit) .venv/bin/python -m jaxlingua.train "${@:3}" &
    echo $! >"$2.training"
    again=yes
    while [ -n "$again" ]; do # a signal ends the wait, not the training
      code=0 again=""
      wait $! || code=$?
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
    last=$(current)
    until [ -s "$last.training" ] || ! goes_on; do sleep 0.1; done
    if mkdir "$last.stopping" 2>/dev/null; then # once, whoever asks
      kill -TERM "$(cat "$last.training")" || true
    fi
    echo "$(hostname): saves and stops"
    while goes_on; do sleep 1; done
    echo "$(hostname): stopped, exit code $(cat "$last.exit")"
    ;;
  *) fail "worker.sh ${1-}: not understood; idle, start, follow and stop are" ;;
esac
