"""Starts processes that do nothing but the roll call and what a scenario says, without JAX.

As a module: `python -m tests.processes.members SCENARIO PLACE LIMITS ARGUMENTS`, with JSON for the last three.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jaxlingua.errors import DataError, JaxlinguaError, Stopped, exit_with_one_line
from jaxlingua.processes.environment import Place
from jaxlingua.processes.hub import Limits
from jaxlingua.processes.roll_call import Group, call_roll

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port whose successor is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@dataclass
class Ended:
    code: int
    out: str
    err: str
    seconds: float  # after the start of the wait

    @property
    def told(self) -> list:
        """What it said as JSON, one line each."""
        return [json.loads(line) for line in self.out.splitlines()]


class Members:
    """Processes under way on one coordinator; `start` adds one."""

    def __init__(self, scenario: str, count: int, coordinator: str | None = None, **limits: float):
        self.scenario = scenario
        self.count = count
        self.coordinator = coordinator or f"127.0.0.1:{free_port()}"
        self.limits = limits
        self.running: list[subprocess.Popen] = []

    def start(self, index: int, *, configuration: str = "same", version: str = "1", wait_seconds: float = 20,
              count: int | None = None, names: tuple[str, ...] = (), **arguments: object) -> subprocess.Popen:  # fmt: skip
        place = {"coordinator": self.coordinator, "count": count or self.count, "index": index,
                 "found_in": "the configuration", "names": names}  # fmt: skip
        roll = {"configuration": configuration, "version": version, "wait_seconds": wait_seconds}
        given = (place, self.limits, {**arguments, "roll": roll})
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.members", self.scenario, *map(json.dumps, given)],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.running.append(process)
        return process

    def start_all(self, **arguments: object) -> None:
        for index in range(self.count):
            self.start(index, **arguments)

    def await_line(self, index: int, wanted: str) -> None:
        """Read what process `index` says until a line is `wanted`."""
        for line in self.running[index].stdout:
            if line.strip() == wanted:
                return
        raise AssertionError(self.running[index].stderr.read())

    def ends(self, timeout: float = 120) -> list[Ended]:
        """How each process ended, in order of start."""
        started, seconds = time.monotonic(), {}

        def watch(process: subprocess.Popen) -> None:
            process.wait()
            seconds[process.pid] = time.monotonic() - started

        for process in self.running:
            threading.Thread(target=watch, args=(process,), daemon=True).start()
        ended = []
        for process in self.running:
            out, err = process.communicate(timeout=timeout)
            while process.pid not in seconds:
                time.sleep(0.01)
            ended.append(Ended(process.returncode, out, err, seconds[process.pid]))
        return ended


@contextmanager
def members(scenario: str, count: int, coordinator: str | None = None, **limits: float) -> Iterator[Members]:
    """Processes that are killed at the end, whatever comes."""
    those = Members(scenario, count, coordinator, **limits)
    try:
        yield those
    finally:
        for process in those.running:
            process.kill()
            process.wait()


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


# ── scenarios: what a process does with its group ────────────────────────────────────────────────────────


def come(group: Group) -> None:
    say([group.index, group.count, group.is_primary])
    group.leave()


def exchange(group: Group) -> None:
    for turn in range(20):
        say(group.share({"from": group.index, "turn": turn}))
        say(group.gather([group.index, turn]))
    large = "x" * 900_000
    say(all(value == large for value in group.gather(large)))
    group.leave()


def boundaries(group: Group, *, seed: int, calls: int, barrier: str, asks: int, folder: str) -> None:
    """`calls` boundaries with sleeps, and asks from a thread at random moments; tells who acted where.

    barrier: "lock-step" waits for all after every fourth call, "ahead" lets a process pass call k + 1 as soon
    as all have passed k - 1, as a computation does that is dispatched ahead, "none" lets it run.
    """
    rng = random.Random(f"{seed} {group.index}")
    moments = sorted((rng.randrange(calls // 4), rng.choice(["save", "save", "stop"])) for _ in range(asks))
    reached = threading.Semaphore(0)

    def ask_at_random() -> None:
        for call in range(calls):
            reached.acquire()
            for moment, what in moments:
                if moment == call:
                    group.ask(what)

    asking = threading.Thread(target=ask_at_random)
    asking.start()
    progress = Progress(group, Path(folder))
    acted = []
    for call in range(1, calls + 1):
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.004)
        if barrier == "ahead":
            progress.await_all(call - 2)
        reached.release()
        what = group.boundary(f"call {call}")
        progress.tell()
        if what:
            acted.append([call, sorted(what)])
            if barrier != "none":
                assert group.share(call) == call  # the others are at the same point of the program
        if barrier == "lock-step" and call % 4 == 0:
            assert group.gather(call) == [call] * group.count
    asking.join()
    say({"acted": acted, "asked": [what for _, what in moments]})
    group.leave()


class Progress:
    """How many calls each process has passed, told through files: not through what is tested."""

    def __init__(self, group: Group, folder: Path):
        self.paths = [folder / str(index) for index in range(group.count)]
        self.own = self.paths[group.index].open("ab", buffering=0)
        group.gather(None)  # all files are there

    def tell(self) -> None:
        self.own.write(b".")

    def await_all(self, call: int) -> None:
        while any(path.stat().st_size < call for path in self.paths):
            time.sleep(0.0005)


def ask_late(group: Group) -> None:
    """The last one asks when all others have left or are about to."""
    for step in range(3):
        group.boundary(f"step {step}")
    group.gather(None)
    if group.index == group.count - 1:
        group.ask("stop")
        time.sleep(0.5)
    group.leave()
    say("left")


def ask_twice(group: Group) -> None:
    """All ask for both while nobody is in a boundary."""
    group.boundary("step 1")
    group.gather(None)
    group.ask("save")
    time.sleep(0.1)
    group.ask("stop")
    time.sleep(0.3)
    group.gather(None)
    say([sorted(group.boundary(f"step {step}")) for step in (2, 3)])
    group.leave()


def hang(group: Group, *, how: str) -> None:
    """After step 41 the main thread waits for ever, or in an exchange that one process never joins."""
    group.boundary("step 41")
    time.sleep(0.5)  # a beat tells it
    say("ready")
    if how == "exchange" and group.index != group.count - 1:
        group.gather(None)
    time.sleep(600)


def fail(group: Group, *, who: int, kind: str) -> None:
    """One ends with an error, the others wait."""
    group.boundary("step 5")
    if group.index != who:
        time.sleep(600)
    error = {
        "data": DataError("data/x.jsonl:7: no text;\ngive it one"),
        "bug": ZeroDivisionError("division by zero"),
    }[kind]
    try:
        raise error
    except Exception as caught:
        group.leave(caught)
        raise


def is_running(pid: int) -> bool:
    """False for one that is dead, whether or not its parent has asked for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def follow(group: Group) -> None:
    """Process 1 is killed; process 2 gets an error from that, as collectives do, before it can know why."""
    first = group.gather(os.getpid())[1]
    if group.index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if group.index == 2:
        while is_running(first):
            time.sleep(0.01)
        try:
            raise RuntimeError("Gloo: connection closed by peer")
        except RuntimeError as error:
            group.leave(error)
            raise
    time.sleep(600)


def leave_early(group: Group, *, who: int) -> None:
    """One is done long before the others."""
    started = time.monotonic()
    if group.index != who:
        time.sleep(3)
        group.boundary("step 1")
    group.leave()
    say(time.monotonic() - started)


def stop(group: Group) -> None:
    """All end with the same `Stopped`, one a little later."""
    time.sleep(group.index)
    stopped = Stopped("saved", 143)
    group.leave(stopped)
    raise stopped


def exchange_with_nobody(group: Group, *, who: int) -> None:
    """One leaves while the others wait for its value."""
    try:
        if group.index != who:
            group.gather(None)
        group.leave()
    except JaxlinguaError as error:
        group.leave(error)
        raise


def worker_outlives(group: Group) -> None:
    """Process 1 forks a worker and is killed."""
    group.gather(None)
    if group.index == 1:
        if os.fork() == 0:
            os.close(1)
            os.close(2)
            time.sleep(40)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


SCENARIOS = (
    *(come, exchange, boundaries, ask_late, ask_twice, hang, fail, follow, leave_early),
    *(stop, exchange_with_nobody, worker_outlives),
)


def main() -> None:
    scenario, place, limits, arguments = sys.argv[1], *map(json.loads, sys.argv[2:])
    place["names"] = tuple(place["names"])
    roll = arguments.pop("roll")
    try:
        group = call_roll(Place(**place), **roll, limits=Limits(**limits))
    except JaxlinguaError as error:
        say(type(error).__name__)
        raise
    next(one for one in SCENARIOS if one.__name__ == scenario)(group, **arguments)


if __name__ == "__main__":
    exit_with_one_line(main)
