"""A signal or a notice of pre-emption becomes the wish to stop, which all processes then follow together.

Signals are taken by a thread, since Python's own handlers wait for the main thread to come back from C++,
where it may stay for as long as a step or a compilation takes.
"""

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from jaxlingua.processes.environment import MetadataServer, metadata_server

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGINT_CODE = 128 + signal.SIGINT
SIGTERM_CODE = 128 + signal.SIGTERM
# What the metadata server says when it is about to take the machine away, by path.
NOTICES = {"preempted": "TRUE", "maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}
SERVER_WAITS_SECONDS = 60  # for a change, until it answers with what there is
ANSWER_SECONDS = SERVER_WAITS_SECONDS + 30.0
SHORTEST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0

_END = 0  # no signal has this number


@runtime_checkable
class Asked(Protocol):
    """What is told of the wish: a Group."""

    def ask(self, what: str) -> None: ...


class Stop:
    """What asked this process to stop, and how it ends."""

    def __init__(self, group: Asked, say: Callable[[str], None]):
        self._group, self._say = group, say
        self._lock = threading.Lock()
        self._came_first: signal.Signals | None = None
        self.cause: str | None = None
        self.exit_code = SIGTERM_CODE
        self.is_at_once = False  # whether there is nothing to save, so that nobody need wait for a boundary

    def signal(self, number: int) -> None:
        """SIGINT or SIGTERM: the first asks, a second ends the process at once."""
        came = signal.Signals(number)
        if self._came_first is not None:
            os._exit(128 + number)
        self._came_first = came
        self._ask(
            came.name,
            128 + number,
            f"{came.name}: stops after this step and saves; again: at once",
        )

    def notice(self, what: str) -> None:
        """The machine is about to go. The SIGTERM that then comes as well is not yet a second signal."""
        self._ask(what, SIGTERM_CODE, f"{what}: stops after this step and saves")

    def _ask(self, cause: str, exit_code: int, line: str) -> None:
        if self.is_at_once:
            end = f"stopped: {cause} before the first step of this start; nothing was to be saved; exit code"
            os.write(2, f"{end} {exit_code}\n".encode())
            os._exit(exit_code)
        with self._lock:
            if self.cause is None:
                self.cause, self.exit_code = cause, exit_code
        self._group.ask("stop")
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more; stop nevertheless
            self._say(line)


@contextmanager
def signals_stop(
    group: Asked, say: Callable[[str], None], environ: Mapping[str, str] = os.environ
) -> Iterator[Stop]:
    """Within, SIGINT, SIGTERM and a pre-emption notice ask `group` to stop; afterwards all is as before.

    A signal that was ignored before stays ignored, as after nohup. Outside the main thread, where Python
    takes no signals, they are left as they are, which is said. Notices are waited for where this is a TPU VM,
    or where `environ` names a metadata server.
    """
    stop, ended = Stop(group, say), threading.Event()
    server = metadata_server(environ)
    for path in NOTICES if server else ():
        arguments = (server, path, stop, ended)
        threading.Thread(target=_wait_for_notice, args=arguments, name=f"notice {path}", daemon=True).start()
    try:
        if threading.current_thread() is threading.main_thread():
            with _signals_to(stop.signal):
                yield stop
        else:
            say("signals: not in the main thread, so SIGTERM and Ctrl-C end the run without saving")
            yield stop
    finally:
        ended.set()


# ── signals ──────────────────────────────────────────────────────────────────


@contextmanager
def _signals_to(take: Callable[[int], None]) -> Iterator[None]:
    """Call `take` with each signal that comes, in a thread that needs nothing of the main one."""
    taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    reader = threading.Thread(target=_read, args=(reading, take), name="signals", daemon=True)
    reader.start()
    old_descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    old_handlers = {number: signal.signal(number, _do_nothing) for number in taken}

    def restore() -> None:
        for number, handler in old_handlers.items():
            # None: it was set by C code, and Python cannot set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(old_descriptor)

    _to_restore.append(restore)
    try:
        yield
    finally:
        _to_restore.remove(restore)
        restore()
        writing.setblocking(True)
        writing.send(bytes([_END]))
        reader.join()
        reading.close()
        writing.close()


def _read(reading: socket.socket, take: Callable[[int], None]) -> None:
    while True:
        for number in reading.recv(64):
            if number == _END:
                return
            if number in SIGNALS:
                take(number)


def _do_nothing(number: int, frame: object) -> None:
    """Python's part of the handler; the number has already gone to the thread."""


_to_restore: list[Callable[[], None]] = []
_blocked_before: list[set[int]] = []  # by the fork that is under way


def _hold_back() -> None:
    """Signals wait while a process forks: one for a child that is just born would find our handlers there."""
    if _to_restore:
        _blocked_before.append(signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))


def _let_come() -> None:
    if _blocked_before:
        signal.pthread_sigmask(signal.SIG_SETMASK, _blocked_before.pop())


def _restore_in_child() -> None:
    """A forked child would write its signals to the descriptor it shares with us, and not end by them."""
    while _to_restore:
        _to_restore.pop()()
    _let_come()


os.register_at_fork(before=_hold_back, after_in_parent=_let_come, after_in_child=_restore_in_child)


# ── notices ──────────────────────────────────────────────────────────────────


def _wait_for_notice(server: MetadataServer, path: str, stop: Stop, ended: threading.Event) -> None:
    """Ask until the answer is the one that means the end; where none comes, less and less often."""
    etag, pause = "0", SHORTEST_WAIT_SECONDS  # no answer has the ETag 0, so that the first comes at once
    while not ended.is_set():
        query = f"{path}?wait_for_change=true&timeout_sec={SERVER_WAITS_SECONDS}"
        query += f"&last_etag={etag}" if etag else ""
        start = time.monotonic()
        try:
            status, text, etag = server.ask(query, ANSWER_SECONDS)
        except (OSError, http.client.HTTPException):
            status, text = 0, ""
        if ended.is_set():
            return
        if status == 200:
            if text.strip() == NOTICES[path]:
                stop.notice(f"notice of the machine ({path}={text.strip()})")
                return
            pause = SHORTEST_WAIT_SECONDS
            ended.wait(max(0.0, pause - (time.monotonic() - start)))  # for a server that does not wait
        else:
            ended.wait(pause)
            etag, pause = "0", min(2 * pause, LONGEST_WAIT_SECONDS)
