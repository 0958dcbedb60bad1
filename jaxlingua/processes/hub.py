"""Process 0's side of the roll call: it lets the others in, passes on what they say and sees who dies."""

import os
import selectors
import socket
import time
from dataclasses import asdict, dataclass, fields

from jaxlingua.errors import ConfigError, JaxlinguaError, MachineError
from jaxlingua.processes.environment import Place
from jaxlingua.processes.wire import Wire

AGAIN = "a run needs all of its processes; run the same command on all again"
_STRAGGLERS_SECONDS = 2.0  # after a refusal is due: those who start as late as that are told as well
_PORT_SECONDS = 15.0  # how long the processes of a run that just ended may keep the port
_GONE_SECONDS = 1.0  # how long process 0 waits until all others have read how the run ended
_UNSENT_SECONDS = 0.02


@dataclass(frozen=True)
class Limits:
    """The patience of processes with one another."""

    beat_seconds: float = 2.0
    silent_seconds: float = 30.0  # without a beat: dead
    leave_seconds: float = 60.0  # for the good-bye of all others


@dataclass(frozen=True)
class Arrival:
    """What a process tells about itself when it comes."""

    index: int
    count: int
    host: str
    pid: int
    version: str
    configuration: str

    @property
    def who(self) -> str:
        return f"process {self.index} of {self.count} ({self.host}, pid {self.pid})"

    def hello(self) -> dict:
        return {"kind": "hello", "program": "jaxlingua", **asdict(self)}


@dataclass
class Member:
    """A process that came."""

    arrival: Arrival
    wire: Wire
    at: str = ""
    passed: int = 0  # boundary calls, as far as they were told
    has_left: bool = False


def death(who: str, at: str, silent_seconds: float | None = None) -> str:
    """The line that tells the death of a process, seen by its connection or by its silence."""
    where = f"at {at}" if at else "before its first step"
    silence = "" if silent_seconds is None else f" (nothing heard of it for {silent_seconds:g} s)"
    return f"{who} died, last heard of {where}{silence}; {AGAIN}"


def listen(port: int) -> socket.socket:
    """A listening socket on all interfaces, for IPv4 and IPv6 where both are there.

    Raises: MachineError if the port stays in use.
    """
    deadline = time.monotonic() + _PORT_SECONDS
    while True:
        try:
            return _listen_once(port)
        except OSError as error:
            if time.monotonic() > deadline:
                raise MachineError(
                    f"sharding.processes.coordinator: process 0 cannot listen on port {port} "
                    f"({os.strerror(error.errno or 0)}), which is the coordinator's plus 1; end the "
                    f"program that does, or give another port"
                ) from error
        time.sleep(0.3)


def _listen_once(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        except OSError:
            pass  # IPv6 compiled in, but switched off; or in use, which the next line finds too
    return socket.create_server(("", port), backlog=1024)


def receive_all(
    place: Place, own: Arrival, own_wire: Wire, listener: socket.socket, wait_seconds: float
) -> dict[int, Member]:
    """Wait for all processes of the run and welcome them.

    Raises: MachineError if some did not come, ConfigError if some do not fit; all that came are told.
    """
    with selectors.DefaultSelector() as selector:
        try:
            return _receive_all(place, Member(own, own_wire), listener, selector, wait_seconds)
        finally:
            welcomed = [key.data for key in selector.get_map().values() if isinstance(key.data, Wire)]
            for wire in welcomed:  # strangers and those who were refused
                wire.close()


def _receive_all(
    place: Place, own: Member, listener: socket.socket, selector: selectors.BaseSelector, wait_seconds: float
) -> dict[int, Member]:
    came = {0: own}
    misfits: list[Wire] = []
    refusal: JaxlinguaError | None = None
    deadline = time.monotonic() + wait_seconds
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while (refusal or len(came) < place.count) and time.monotonic() < deadline:
        if refusal and len(came) + len(misfits) >= place.count:
            break
        for key, _ in selector.select(max(0.0, min(0.5, deadline - time.monotonic()))):
            if key.fileobj is listener:
                _accept(listener, selector)
                continue
            wire = key.data
            arrivals = [_read_hello(message) for message in wire.receive()]
            if wire.is_closed or None in arrivals:  # a stranger, or one that was killed while it waited
                selector.unregister(wire.socket)
                wire.close()
                came = {index: member for index, member in came.items() if member.wire is not wire}
            for arrival in () if wire.is_closed else arrivals:
                error = _misfit(arrival, own.arrival, came.get(arrival.index))
                if error is None:
                    came[arrival.index] = Member(arrival, wire)
                    continue
                misfits.append(wire)
                if refusal is None:
                    refusal = error
                    deadline = min(deadline, time.monotonic() + _STRAGGLERS_SECONDS)
    refusal = refusal or _absence(place, came, wait_seconds)
    others = [member.wire for index, member in came.items() if index != 0]
    if refusal is not None:
        kind = "config" if isinstance(refusal, ConfigError) else "machine"
        _tell_and_hang_up([*others, *misfits], {"kind": "refused", "error": kind, "line": str(refusal)})
        raise refusal
    for wire in others:
        selector.unregister(wire.socket)
        wire.put({"kind": "welcome", "who": own.arrival.who})
    return came


def _accept(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    try:
        wire = Wire(listener.accept()[0])
    except OSError:  # it has gone again
        return
    selector.register(wire.socket, selectors.EVENT_READ, wire)


def _read_hello(message: dict) -> Arrival | None:
    values = {field.name: message.get(field.name) for field in fields(Arrival)}
    fits = all(type(values[field.name]) is field.type for field in fields(Arrival))
    is_hello = message.get("kind") == "hello" and message.get("program") == "jaxlingua"
    return Arrival(**values) if is_hello and fits else None


def _misfit(arrival: Arrival, own: Arrival, same_index: Member | None) -> ConfigError | None:
    one = f"process {arrival.index} ({arrival.host}, pid {arrival.pid})"
    if arrival.version != own.version:
        return ConfigError(
            f"jaxlingua: {one} has version {arrival.version}, process 0 has {own.version}; all processes "
            f"need the same one; install it on all"
        )
    if arrival.count != own.count:
        return ConfigError(
            f"sharding.processes.count: {one} was given {arrival.count}, process 0 was given {own.count}; "
            f"give all the same"
        )
    if not 0 <= arrival.index < own.count:
        return ConfigError(
            f"sharding.processes.index: {arrival.index} was given to a process on {arrival.host}; allowed is "
            f"0 to {own.count - 1}"
        )
    if same_index is not None:
        first = same_index.arrival
        return ConfigError(
            f"sharding.processes.index: {arrival.index} was given to two processes ({first.host}, pid "
            f"{first.pid}; {arrival.host}, pid {arrival.pid}); give each its own, 0 to {own.count - 1}"
        )
    if arrival.configuration != own.configuration:
        return ConfigError(
            f"configuration: {one} was started with another one than process 0; all need the same; start all "
            f"with the same command and the same files"
        )
    return None


def _absence(place: Place, came: dict[int, Member], wait_seconds: float) -> MachineError | None:
    missing = [index for index in range(place.count) if index not in came]
    if not missing:
        return None
    named = [f"{index} ({place.names[index]})" if place.names else str(index) for index in missing]
    return MachineError(
        f"sharding.processes: {len(missing)} of {place.count} processes did not come within "
        f"{wait_seconds:g} s: {', '.join(named)}; start the same command on all, or raise "
        f"sharding.processes.wait_seconds"
    )


def _tell_and_hang_up(wires: list[Wire], message: dict, seconds: float = _GONE_SECONDS) -> None:
    """Send a last message and wait until the others hang up: what is in flight would be lost otherwise."""
    for wire in wires:
        wire.put(message)
    _await_hang_up(wires, seconds)


def _await_hang_up(wires: list[Wire], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (wires := [wire for wire in wires if not wire.is_closed]):
        for wire in wires:
            wire.flush()
            wire.receive()
        time.sleep(_UNSENT_SECONDS / 2)


class Hub:
    """What process 0 runs in a thread; its own part is a member like the others.

    All state belongs to that thread. "value" is passed on to everybody. What is asked is agreed on in a
    round: "hold" to all, "held" by all with the number of boundary calls that they have passed, and "act"
    at the first call that none has passed.
    """

    def __init__(self, members: dict[int, Member], limits: Limits):
        self._members = members
        self._limits = limits
        self._asked: set[str] = set()
        self._held: dict[int, int] | None = None  # by index, while a round is under way
        self._own_leave: float | None = None
        self._is_over = False

    def run(self) -> None:
        """Serve all members until the run is over."""
        try:
            self._serve()
        finally:
            for member in self._members.values():
                member.wire.close()

    def _serve(self) -> None:
        limits, last_turn, last_beat = self._limits, time.monotonic(), 0.0
        for member in self._members.values():
            member.wire.heard = last_turn
        with selectors.DefaultSelector() as selector:
            for index, member in self._members.items():
                selector.register(member.wire.socket, selectors.EVENT_READ, index)
            while not self._is_over:
                is_waiting = any(member.wire.is_waiting for member in self._members.values())
                for key, _ in selector.select(_UNSENT_SECONDS if is_waiting else limits.beat_seconds / 4):
                    self._read(key.data, selector)
                now = time.monotonic()
                if now - last_turn > limits.silent_seconds / 2:  # this process itself was suspended
                    for member in self._members.values():
                        member.wire.heard = now
                last_turn = now
                for member in self._members.values():
                    member.wire.flush()
                if now - last_beat >= limits.beat_seconds:
                    last_beat = now
                    self._tell_all({"kind": "beat", "at": self._members[0].at})
                self._judge(now)

    def _read(self, index: int, selector: selectors.BaseSelector) -> None:
        member = self._members[index]
        for message in member.wire.receive():
            if not self._is_over:
                self._take(index, member, message)
        if member.wire.is_closed:
            selector.unregister(member.wire.socket)
            member.wire.close()
            if not member.has_left:
                self._end(index, death(member.arrival.who, member.at), 1)

    def _take(self, index: int, member: Member, message: dict) -> None:
        kind = message["kind"]
        if kind == "beat":
            member.at = message["at"]
        elif kind == "value":
            self._tell_all({**message, "index": index})
        elif kind == "ask":
            self._asked.add(message["what"])
            if self._held is None:
                self._held = {}
                self._tell_all({"kind": "hold"})
        elif kind == "held":
            if self._held is not None and not member.has_left:
                self._held[index] = message["passed"]
            self._act_if_all_hold()
        elif kind == "bye":
            member.has_left, member.passed = True, message["passed"]
            if message["error"] is not None:
                line = f"{member.arrival.who} stopped: {message['error']}"
                self._end(index, line if message["code"] == 2 else f"{line}; {AGAIN}", message["code"])
                return
            self._tell_all({"kind": "left", "index": index})
            if index == 0:
                self._own_leave = time.monotonic()
            self._act_if_all_hold()
            if all(member.has_left for member in self._members.values()):
                self._finish()

    def _act_if_all_hold(self) -> None:
        staying = [index for index, member in self._members.items() if not member.has_left]
        if self._held is None or any(index not in self._held for index in staying):
            return
        left = [member.passed for member in self._members.values() if member.has_left]
        call = max(*self._held.values(), *left, 0, 0) + 1
        self._tell_all({"kind": "act", "call": call, "what": sorted(self._asked)})
        self._asked.clear()
        self._held = None

    def _judge(self, now: float) -> None:
        for index, member in self._members.items():
            silent_seconds = now - member.wire.heard
            if not self._is_over and not member.has_left and silent_seconds > self._limits.silent_seconds:
                line = death(member.arrival.who, member.at, self._limits.silent_seconds)
                self._end(index, line, 1)
        if self._own_leave is not None and now - self._own_leave > self._limits.leave_seconds:
            self._finish()

    def _tell_all(self, message: dict) -> None:
        for member in self._members.values():
            member.wire.put(message)

    def _finish(self) -> None:
        """All have said good-bye, or process 0 has waited long enough for that."""
        if self._is_over:
            return
        self._is_over = True
        others = [member.wire for index, member in self._members.items() if index != 0]
        _tell_and_hang_up(others, {"kind": "over"})
        self._members[0].wire.put({"kind": "over"})

    def _end(self, culprit: int, line: str, code: int) -> None:
        """Tell all how the run ended; process 0 last, since this thread ends with it."""
        if self._is_over:
            return
        self._is_over = True
        end = {"kind": "end", "line": line, "code": code}
        # One that left with an error tells that itself; one that is only silent may wake up.
        last = {"kind": "over"} if self._members[culprit].has_left else end
        if culprit != 0:
            self._members[culprit].wire.put(last)
        others = [member.wire for index, member in self._members.items() if index not in (0, culprit)]
        _tell_and_hang_up(others, end)
        self._members[0].wire.put(last if culprit == 0 else end)
