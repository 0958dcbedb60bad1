"""SIGTERM, Ctrl-C and a notice of pre-emption ask to stop, while the main thread is anywhere."""

import contextlib
import http.server
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest

from jaxlingua.processes import environment
from jaxlingua.processes import stop as stop_module
from jaxlingua.processes.stop import Stop, signals_stop

ROOT = Path(__file__).parents[2]
SOON_SECONDS = 60.0  # on a very busy machine; it is some milliseconds


class Group:
    """Remembers what was asked."""

    def __init__(self):
        self.asked: list[str] = []
        self.came = threading.Event()

    def ask(self, what: str) -> None:
        self.asked.append(what)
        self.came.set()


class Running:
    """A program in a process of its own, within `signals_stop`; its lines are read as they come."""

    BEGIN = """
import hashlib, os, signal, subprocess, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside a thread
from jaxlingua.processes.stop import signals_stop

class Group:
    def ask(self, what):
        print("asked for", what, flush=True)

def say(line):
    print(line, flush=True)

def far_away():  # holds the main thread in C, without the interpreter's lock, for half an hour
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""

    def __init__(self, program: str, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.BEGIN + program],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            **options,
        )

    def __enter__(self):
        assert self.line() == "ready", self.process.stderr.read()
        time.sleep(0.2)  # until it is in what follows
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):  # its children hold the pipes
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def line(self) -> str:
        return self.process.stdout.readline().rstrip("\n")

    def rest(self) -> tuple[str, str, int]:
        out, err = self.process.communicate(timeout=30)
        return out, err, self.process.returncode


TOLD_OF_SIGTERM = "SIGTERM: stops after this step and saves; again: at once"
FAR_AWAY = """
with signals_stop(Group(), say, {}):
    print("ready", flush=True)
    far_away()
"""


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
        (signal.SIGINT, signal.SIGTERM, 143),
    ],
)
def test_the_first_signal_asks_while_the_main_thread_is_far_away_and_the_second_ends(first, second, code):
    with Running(FAR_AWAY) as running:
        start = time.monotonic()
        running.process.send_signal(first)
        assert running.line() == "asked for stop"
        assert running.line() == f"{first.name}: stops after this step and saves; again: at once"
        assert running.process.poll() is None
        running.process.send_signal(second)
        assert running.rest() == ("", "", code)
        assert time.monotonic() - start < SOON_SECONDS


def test_a_run_that_was_asked_goes_on_until_it_ends_itself():
    """No KeyboardInterrupt, no call that was cut short."""
    program = """
with signals_stop(Group(), say, {}) as stop:
    print("ready", flush=True)
    time.sleep(1)
    print("saved", stop.cause)
sys.exit(stop.exit_code)
"""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with Running(program) as running:
            running.process.send_signal(number)
            out, err, ended = running.rest()
        assert (out.splitlines()[-1], err, ended) == (f"saved {number.name}", "", code)


def test_a_child_that_is_told_to_end_ends_and_asks_nothing():
    """Forked workers have our handlers and share our descriptors; programs that are started have neither."""
    program = """
with signals_stop(Group(), say, {}):
    print("ready", flush=True)
    ends = set()
    for number in range(100):  # killed as soon as they are born, when the handlers may still be ours
        child = os.fork() if number else subprocess.Popen(["sleep", "600"]).pid
        if not child:
            far_away()
        os.kill(child, signal.SIGTERM)
        ends.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    print(ends)
"""
    with Running(program) as running:
        told = f"asked for stop\n{TOLD_OF_SIGTERM}\n"
        assert running.rest() == (told + "{-15}\n", "", 0)


def test_a_signal_that_was_ignored_before_stays_ignored():
    program = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with signals_stop(Group(), say, {}):
    print("ready", flush=True)
    time.sleep(1)
assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
print("done")
"""
    with Running(program) as running:
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)
        assert running.rest() == ("done\n", "", 0)


def test_afterwards_signals_do_what_they_did():
    def mine(number, frame):
        came.append(number)

    came, before = [], {number: signal.getsignal(number) for number in stop_module.SIGNALS}
    signal.signal(signal.SIGTERM, mine)
    try:
        group = Group()
        with signals_stop(group, lambda line: None, {}) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert group.came.wait(SOON_SECONDS)
        assert (came, stop.cause, stop.exit_code) == ([], "SIGTERM", 143)
        assert not any(thread.name == "signals" for thread in threading.enumerate())
        os.kill(os.getpid(), signal.SIGTERM)
        assert (came, group.asked) == ([signal.SIGTERM], ["stop"])
        assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT]
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_handlers_are_put_back_after_an_error_as_well():
    before = [signal.getsignal(number) for number in stop_module.SIGNALS]

    def fails() -> None:
        with signals_stop(Group(), print, {}):
            assert [signal.getsignal(number) for number in stop_module.SIGNALS] != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [signal.getsignal(number) for number in stop_module.SIGNALS] == before


def test_other_signals_are_not_taken():
    came, group = [], Group()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    try:
        with signals_stop(group, print, {}):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not group.came.wait(0.2)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came == [signal.SIGUSR1]


def test_outside_the_main_thread_signals_are_left_alone_and_it_is_said():
    before = [signal.getsignal(number) for number in stop_module.SIGNALS]
    said, seen = [], []

    def run() -> None:
        with signals_stop(Group(), said.append, {}) as stop:
            seen.append(([signal.getsignal(number) for number in stop_module.SIGNALS], stop.exit_code))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, 143)]
    assert said == ["signals: not in the main thread, so SIGTERM and Ctrl-C end the run without saving"]


def test_a_console_that_is_closed_keeps_nobody_from_stopping():
    def say(line: str) -> None:
        raise BrokenPipeError

    group = Group()
    stop = Stop(group, say)
    stop.signal(signal.SIGTERM)
    assert (group.asked, stop.cause) == (["stop"], "SIGTERM")


# ── notices ──────────────────────────────────────────────────────────────────


class Metadata(http.server.ThreadingHTTPServer):
    """Answers as the metadata server does: a question that waits for a change hangs until there is one."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.values = {"preempted": "FALSE", "maintenance-event": "NONE"}
        self.version, self.broken, self.asked = 1, 0, []
        self.waits = True
        self.changed = threading.Condition()
        self.environ = {"GCE_METADATA_HOST": f"127.0.0.1:{self.server_port}"}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def change(self, path: str, value: str) -> None:
        with self.changed:
            self.values[path] = value
            self.version += 1
            self.changed.notify_all()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        path = url.path.removeprefix("/computeMetadata/v1/instance/")
        server = self.server
        server.asked.append(path)
        with server.changed:
            if server.waits and query.get("wait_for_change") == "true":
                server.changed.wait_for(
                    lambda: str(server.version) != query.get("last_etag"), timeout=float(query["timeout_sec"])
                )
            status = 200 if self.headers["Metadata-Flavor"] == "Google" and path in server.values else 403
            if server.broken:
                server.broken -= 1
                status = 503
            body, etag = server.values.get(path, "").encode(), str(server.version)
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def metadata(monkeypatch):
    monkeypatch.setattr(stop_module, "SHORTEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(stop_module, "SERVER_WAITS_SECONDS", 2)
    server = Metadata()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "value"), [("preempted", "TRUE"), ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")]
)
def test_a_notice_that_comes_in_the_run_asks_to_stop(path, value, metadata):
    group, said, was_said = Group(), [], threading.Event()

    def say(line: str) -> None:
        said.append(line)
        was_said.set()

    with signals_stop(group, say, metadata.environ) as stop:
        assert not group.came.wait(0.3)
        assert sorted(metadata.asked) == ["maintenance-event"] * 2 + ["preempted"] * 2
        assert stop.cause is None
        metadata.change(path, value)
        assert was_said.wait(SOON_SECONDS)
    assert group.asked == ["stop"]
    assert stop.exit_code == 143
    assert stop.cause == f"notice of the machine ({path}={value})"
    assert said == [f"notice of the machine ({path}={value}): stops after this step and saves"]


def test_a_notice_that_was_there_before_the_run_counts(metadata):
    metadata.values["preempted"] = "TRUE"
    group = Group()
    with signals_stop(group, print, metadata.environ):
        assert group.came.wait(SOON_SECONDS)


def test_a_machine_that_is_moved_while_it_runs_goes_on(metadata):
    group = Group()
    with signals_stop(group, print, metadata.environ):
        metadata.change("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
        assert not group.came.wait(0.3)


def test_a_server_that_failed_is_asked_again_for_what_there_is_now(metadata, monkeypatch):
    """Not for the next change: it may have come while nobody was there to tell it."""
    monkeypatch.setattr(stop_module, "SERVER_WAITS_SECONDS", 30)
    metadata.broken, group = 4, Group()
    metadata.values["preempted"] = "TRUE"
    with signals_stop(group, print, metadata.environ):
        assert group.came.wait(SOON_SECONDS)


def test_a_server_that_does_not_wait_is_not_asked_without_end(metadata, monkeypatch):
    monkeypatch.setattr(stop_module, "SHORTEST_WAIT_SECONDS", 0.2)
    metadata.waits, group, start = False, Group(), time.monotonic()
    with signals_stop(group, print, metadata.environ):
        time.sleep(0.5)
    seconds = time.monotonic() - start
    assert 2 <= metadata.asked.count("preempted") <= 1 + seconds / 0.2


def test_nobody_who_answers_is_asked_less_and_less_often_and_nothing_is_said(monkeypatch, capfd):
    monkeypatch.setattr(stop_module, "SHORTEST_WAIT_SECONDS", 0.02)
    asked, said, group = [], [], Group()

    def refuse(server, path, seconds):
        asked.append(path)
        raise ConnectionRefusedError

    monkeypatch.setattr(environment.MetadataServer, "ask", refuse)
    start = time.monotonic()
    with signals_stop(group, said.append, {"GCE_METADATA_HOST": "127.0.0.1:1"}):
        time.sleep(0.5)
    doubled = math.log2(1 + (time.monotonic() - start) / 0.02)  # pauses of 0.02, 0.04, 0.08 …
    assert 2 <= sum(path.startswith("preempted") for path in asked) <= 1 + doubled
    assert (said, group.asked, capfd.readouterr()) == ([], [], ("", ""))


def test_a_notice_after_the_run_asks_nobody(metadata):
    group = Group()
    with signals_stop(group, print, metadata.environ):
        time.sleep(0.2)
    metadata.change("preempted", "TRUE")
    assert not group.came.wait(0.3)


def test_no_notice_is_waited_for_where_no_chip_is_attached(monkeypatch):
    monkeypatch.setattr(environment, "tpu_chips_attached", lambda: False)
    monkeypatch.setattr(environment.MetadataServer, "ask", lambda *_: pytest.fail("asked the network"))
    before = set(threading.enumerate())  # with those that wait for the answer of a test that has ended
    with signals_stop(Group(), print, {}):
        assert {thread.name for thread in set(threading.enumerate()) - before} == {"signals"}


def test_the_sigterm_that_follows_a_notice_does_not_end_the_run_that_saves(monkeypatch):
    codes, group, said = [], Group(), []
    monkeypatch.setattr(os, "_exit", codes.append)
    stop = Stop(group, said.append)
    stop.notice("notice of the machine (preempted=TRUE)")
    stop.signal(signal.SIGTERM)
    assert codes == []
    assert stop.cause == "notice of the machine (preempted=TRUE)"
    stop.signal(signal.SIGTERM)
    assert codes == [143]


def test_the_first_cause_decides_the_exit_code():
    stop = Stop(Group(), print)
    assert stop.exit_code == 143
    stop.signal(signal.SIGINT)
    stop.notice("notice of the machine (preempted=TRUE)")
    assert (stop.cause, stop.exit_code) == ("SIGINT", 130)
