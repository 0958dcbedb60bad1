"""The channel between the processes of a run: who is there, who died, what all do at the same time."""

import json
import os
import selectors
import socket
import sys
import threading
import time
from typing import Any

from jaxlingua.errors import ConfigError, JaxlinguaError, MachineError, Stopped, one_line
from jaxlingua.processes.environment import Place
from jaxlingua.processes.hub import AGAIN, Arrival, Hub, Limits, death, listen, receive_all
from jaxlingua.processes.wire import LINE_BYTES, Wire

_RETRY_SECONDS = 0.3
_ANSWER_SECONDS = 10.0  # beyond wait_seconds: process 0 knows best who is missing, and tells it then
_HOLD_BACK_SECONDS = 2.0  # an error of ours may follow from another's death, which is then told instead
_ERROR_SECONDS = 5.0  # for telling the others an error
_ERROR_CHARACTERS = 2000


def alone() -> "Group":
    """The group of a run that is one process."""
    return Group(index=0, count=1, wire=None, primary="", limits=Limits())


def call_roll(
    place: Place, *, wait_seconds: float, configuration: str, version: str, limits: Limits | None = None
) -> "Group":
    """Wait until all processes of the run are there, and give the group that they form.

    Process 0 listens on the coordinator's port plus 1, on all interfaces and without authentication, as
    jax.distributed does; the others connect as soon as it is there.

    Args:
        configuration: a digest of what has to be the same in all processes.
        limits: for tests.
    Raises: MachineError if a process did not come, ConfigError if two have the same index or one has
        another count, version or configuration; with the same line in all processes that came.
    """
    if place.count == 1:
        return alone()
    limits = limits or Limits()
    host, port = _address(place.coordinator)
    own = Arrival(place.index, place.count, socket.gethostname(), os.getpid(), version, configuration)
    if place.index != 0:
        wire, primary = _enroll(own, host, port, wait_seconds)
        return Group(index=place.index, count=place.count, wire=wire, primary=primary, limits=limits)
    mine, the_hubs = (Wire(end) for end in socket.socketpair())
    with listen(port) as listener:
        members = receive_all(place, own, the_hubs, listener, wait_seconds)
    threading.Thread(target=Hub(members, limits).run, daemon=True, name="roll call, all").start()
    return Group(index=0, count=place.count, wire=mine, primary=own.who, limits=limits)


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65535:
        raise ConfigError(
            f"sharding.processes.coordinator: '{coordinator}' was given; allowed is host:port with a "
            f"port of 1 to 65534 (the next one is used too); write such as host-0:8476"
        )
    return host.strip("[]"), int(port) + 1


def _enroll(own: Arrival, host: str, port: int, wait_seconds: float) -> tuple[Wire, str]:
    """The connection to process 0 and how that is called."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            # a moment at least, and not so long that a lost packet costs the whole time
            patience = min(5.0, max(0.1, deadline - time.monotonic()))
            connection = socket.create_connection((host, port), timeout=patience)
            if connection.getsockname() == connection.getpeername():  # TCP found nobody there but itself
                connection.close()
                raise ConnectionRefusedError("connection refused")
            return _greet(Wire(connection), own, wait_seconds + _ANSWER_SECONDS)
        except OSError as error:
            reason = error.strerror or str(error)
        if time.monotonic() > deadline:
            raise MachineError(
                f"sharding.processes.coordinator: process 0 does not answer at {host}:{port} within "
                f"{wait_seconds:g} s ({reason}); start the same command on all, see that the port is open, "
                f"or raise sharding.processes.wait_seconds"
            )
        time.sleep(_RETRY_SECONDS)


def _greet(wire: Wire, own: Arrival, seconds: float) -> tuple[Wire, str]:
    deadline = time.monotonic() + seconds
    wire.put(own.hello())
    with selectors.DefaultSelector() as selector:
        selector.register(wire.socket, selectors.EVENT_READ)
        while not wire.is_closed and time.monotonic() < deadline:
            selector.select(0.5)
            messages = wire.receive()
            if not messages:
                continue
            answer = messages[0]
            if answer.get("kind") == "welcome":
                wire.put_back(messages[1:])  # the run may have begun at once
                return wire, str(answer.get("who"))
            wire.close()
            if answer.get("kind") == "refused":
                kind = ConfigError if answer.get("error") == "config" else MachineError
                raise kind(str(answer.get("line")))
    wire.close()
    raise ConnectionError("it hung up, or is another program")


def end_process(line: str, code: int) -> None:
    """Print one line and end at once, whatever the main thread is waiting for."""
    flushing = threading.Thread(target=sys.stdout.flush, daemon=True)
    flushing.start()
    flushing.join(0.5)  # the main thread may be writing to a pipe that nobody reads
    os.write(2, f"error: {line}\n".encode())
    os._exit(code)


class Group:
    """The processes of a run, as one of them sees them; made by `call_roll` or `alone`.

    A thread answers the others while the main thread computes. It ends this process with one line when
    another one dies or stops with an error, since the main thread may wait for that one forever.
    """

    def __init__(self, *, index: int, count: int, wire: Wire | None, primary: str, limits: Limits):
        self.index = index
        self.count = count
        self._wire = wire
        self._primary = primary
        self._limits = limits
        self._changed = threading.Condition()  # guards all that follows
        self._at = ""
        self._primary_at = ""
        self._passed = 0
        self._is_held = False
        self._acts: dict[int, set[str]] = {}
        self._exchanges = 0
        self._values: dict[int, dict[int, Any]] = {}
        self._left: set[int] = set()  # others, in order
        self._is_leaving = False
        self._has_failed = False
        self._is_over = False
        if wire is not None:
            threading.Thread(target=self._serve, daemon=True, name="roll call, own").start()

    @property
    def is_primary(self) -> bool:
        """Whether this is process 0, which writes what is written once."""
        return self.index == 0

    def share(self, value: Any) -> Any:
        """The value of process 0, in all processes. As JSON; all have to call this in the same order."""
        return self._exchange(value if self.is_primary else None, from_all=False)[0]

    def gather(self, value: Any) -> list:
        """The values of all processes by index, in all processes. As JSON, at most 1 MiB each."""
        return self._exchange(value, from_all=True)

    def ask(self, what: str) -> None:
        """Ask all to do `what` ("save", "stop") at a common boundary; never blocks, from any thread."""
        if self._wire is not None:
            self._wire.put({"kind": "ask", "what": what})
            return
        with self._changed:
            self._acts.setdefault(self._passed + 1, set()).add(what)

    def boundary(self, at: str) -> frozenset[str]:
        """What is to be done now: what somebody asked for, at the same call in all processes.

        All processes call this at the same points of the program; they need not be there at the same time,
        and may wait for one another between calls. Nothing is sent while nothing is asked.

        Args:
            at: where this is, in words, such as "step 41"; told if this process dies.
        """
        with self._changed:
            self._at = at
            while self._is_held and not self._is_over:
                self._changed.wait()
            self._passed += 1
            return frozenset(self._acts.pop(self._passed, ()))

    def leave(self, error: BaseException | None = None) -> None:
        """Say good-bye and wait until all others do; with an error: end the others with its line."""
        if self._wire is None or self._is_leaving:
            return
        bye = {"kind": "bye", "error": None, "code": 1}
        patience = self._limits.leave_seconds
        if error is not None and not isinstance(error, Stopped):
            if not isinstance(error, JaxlinguaError | KeyboardInterrupt):
                self._await_end(_HOLD_BACK_SECONDS)
            bye["error"] = _told(error)
            bye["code"] = 2 if isinstance(error, JaxlinguaError) and error.exit_code == 2 else 1
            patience = _ERROR_SECONDS
        with self._changed:
            self._is_leaving = True
            self._has_failed = bye["error"] is not None
            self._wire.put({**bye, "passed": self._passed})
        # process 0 waits a little longer, so that its thread can tell the others that it has waited enough
        self._await_end(patience + 3 * self.is_primary)
        with self._changed:
            self._is_over = True

    def _await_end(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_over, seconds)

    def _exchange(self, value: Any, *, from_all: bool) -> list:
        line = json.dumps(value)
        if len(line) > LINE_BYTES - 1024:
            raise ValueError(
                f"a value of {len(line)} bytes was given to be sent to all processes; at most 1 MiB"
            )
        if self._wire is None:
            return [json.loads(line)]
        wanted = range(self.count if from_all else 1)
        with self._changed:
            self._exchanges += 1
            call = self._exchanges
            if self.index in wanted:
                self._wire.put({"kind": "value", "call": call, "value": value})
            values = self._values.setdefault(call, {})
            missing = set(wanted) - values.keys()
            while missing and not self._is_over and not missing & self._left:
                self._changed.wait()
                missing = set(wanted) - values.keys()
            del self._values[call]
            if missing:
                # The value of one that stays may still be on its way.
                gone = min(missing & self._left or missing)
                raise MachineError(
                    f"process {gone} of {self.count} has left; nothing can be exchanged; {AGAIN}"
                )
            return [values[index] for index in wanted]

    def _serve(self) -> None:
        """The thread: take what comes, tell that this process lives, notice that process 0 does not."""
        wire, limits = self._wire, self._limits
        last_beat, last_turn = 0.0, time.monotonic()
        wire.heard = last_turn
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(wire.socket, selectors.EVENT_READ)
                while True:
                    for message in wire.receive():
                        self._take(message)
                    if self._is_over:
                        break
                    now = time.monotonic()
                    if now - last_turn > limits.silent_seconds / 2:  # this process itself was suspended
                        wire.heard = now
                    last_turn = now
                    wire.flush()
                    if now - last_beat >= limits.beat_seconds:
                        last_beat = now
                        wire.put({"kind": "beat", "at": self._at})
                    if wire.is_closed:
                        self._end(death(self._primary, self._primary_at), 1)
                    elif now - wire.heard > limits.silent_seconds:
                        self._end(death(self._primary, self._primary_at, limits.silent_seconds), 1)
                    selector.select(0.02 if wire.is_waiting else limits.beat_seconds / 4)
        finally:
            wire.close()

    def _take(self, message: dict) -> None:
        kind = message["kind"]
        if kind == "end":
            self._end(message["line"], message["code"])
            return
        with self._changed:
            if kind == "beat":
                self._primary_at = message["at"]
            elif kind == "value":
                self._values.setdefault(message["call"], {})[message["index"]] = message["value"]
            elif kind == "hold":
                self._is_held = True
                self._wire.put({"kind": "held", "passed": self._passed})
            elif kind == "act":
                self._is_held = False
                self._acts.setdefault(message["call"], set()).update(message["what"])
            elif kind == "left":
                self._left.add(message["index"])
            elif kind == "over":
                self._is_over = True
            self._changed.notify_all()

    def _end(self, line: str, code: int) -> None:
        if self._is_over:
            return
        if not self._has_failed:  # else its own error is told, by itself
            end_process(line, code)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


def _told(error: BaseException) -> str:
    line = one_line(error)
    if not isinstance(error, JaxlinguaError):
        line = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return line[:_ERROR_CHARACTERS]
