"""A step that hangs leaves the stacks of all threads once; slow beginnings and pauses leave nothing."""

import re
import threading
import time

import pytest

from jaxlingua.processes.watchdog import limit_seconds, watching
from jaxlingua.tracking.speed import StepClock

FLOOR = 0.1  # the watchdog looks five times in that
LONG = 4 * FLOOR


class Time:
    """A clock that stands still until it is told to go on; what really passes does not count."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def clock_after(*step_seconds: float) -> tuple[StepClock, Time]:
    """A clock that has seen these steps, and its time."""
    now = Time()
    clock = StepClock(now)
    clock.start()
    for seconds in step_seconds:
        now.seconds += seconds
        clock.tick()
    return clock, now


@pytest.fixture
def watch(tmp_path):
    """Starts to watch a clock; gives what was said."""

    def start(clock, **options):
        said = []
        watched = watching(clock, tmp_path, said.append, process=3, floor_seconds=FLOOR, **options)
        return watched, said

    return start


def written(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stacks(text: str) -> dict[str, str]:
    """The stack of each thread by its name."""
    _, threads, tail = text.split("\n\n", 2)
    names = dict(line.split(" ", 1) for line in threads.splitlines())
    blocks = re.split(r"(?:Current thread|Thread) (0x[0-9a-f]+)[^\n]*\n", tail)[1:]
    return {
        names[ident]: stack for ident, stack in zip(blocks[::2], blocks[1::2], strict=True) if ident in names
    }


def waits_for_a_neighbor_that_never_comes(seconds: float) -> None:
    time.sleep(seconds)


def test_a_step_that_hangs_leaves_one_file_that_names_where_each_thread_is(tmp_path, watch):
    clock, now = clock_after(*[0.5] * 10)
    never = threading.Event()
    other = threading.Thread(target=never.wait, name="reads ahead", daemon=True)
    other.start()
    watched, said = watch(clock, steps_before=1000)
    with watched:
        now.seconds += 5.5
        waits_for_a_neighbor_that_never_comes(LONG)
        now.seconds += 100
        time.sleep(LONG)
    never.set()
    assert written(tmp_path) == ["step-1011.process-3.txt"]
    text = (tmp_path / "step-1011.process-3.txt").read_text()
    assert text.startswith("step 1011 takes 6 s so far, more than the 5 s to expect\n")
    where = stacks(text)
    assert "waits_for_a_neighbor_that_never_comes" in where["MainThread"]
    assert "test_a_step_that_hangs_leaves" in where["MainThread"]
    assert "threading.py" in where["reads ahead"]
    assert "_leave_stacks" in where["watchdog"]
    assert said == [
        "watchdog: step 1011 takes 6 s so far, more than the 5 s to expect; the stacks of all threads are in "
        f"{tmp_path / 'step-1011.process-3.txt'}"
    ]


def test_each_step_that_hangs_has_its_file(tmp_path, watch):
    clock, now = clock_after(*[0.5] * 10)
    watched, said = watch(clock)
    with watched:
        for _ in range(2):
            now.seconds += 6
            time.sleep(LONG)
            clock.tick()
            time.sleep(LONG)
    assert written(tmp_path) == ["step-11.process-3.txt", "step-12.process-3.txt"]
    assert len(said) == 2


def test_steps_as_long_as_ever_leave_nothing(tmp_path, watch):
    clock, now = clock_after(*[0.5] * 10)
    watched, said = watch(clock)
    with watched:
        for _ in range(5):
            now.seconds += 4.9
            time.sleep(FLOOR)
            clock.tick()
    assert (written(tmp_path), said) == ([], [])


def test_steps_of_a_millisecond_may_take_the_floor(tmp_path, watch):
    clock, now = clock_after(*[0.001] * 10)
    watched, said = watch(clock)
    with watched:
        now.seconds += 0.9 * FLOOR
        time.sleep(LONG)
    assert (written(tmp_path), said) == ([], [])


@pytest.mark.parametrize("kind", ["compile", "held_out", "checkpoint", "eval"])
def test_a_pause_is_no_step_however_long_and_what_follows_it_starts_anew(kind, tmp_path, watch):
    clock, now = clock_after(*[0.5] * 10)
    watched, said = watch(clock)
    with watched:
        now.seconds += 4
        with clock.paused(kind):
            now.seconds += 1000
            time.sleep(LONG)
        time.sleep(LONG)
        assert clock.waiting_seconds() == pytest.approx(4)
        assert (written(tmp_path), said) == ([], [])


def test_a_slow_first_step_leaves_nothing_and_one_that_hangs_does(tmp_path, watch):
    """Other processes may still compile what this one had in its cache."""
    clock, now = clock_after()
    watched, said = watch(clock)
    with watched:
        now.seconds += 599
        time.sleep(LONG)
        assert (written(tmp_path), said) == ([], [])
        now.seconds += 2
        time.sleep(LONG)
    assert written(tmp_path) == ["step-1.process-3.txt"]
    assert said[0].startswith(
        "watchdog: step 1 takes 10 min 01 s so far, more than the 10 min 00 s to expect;"
    )


def test_before_the_first_step_nothing_is_awaited(tmp_path, watch):
    now = Time()
    clock = StepClock(now)
    watched, said = watch(clock)
    with watched:
        now.seconds += 10_000
        time.sleep(LONG)
    assert clock.waiting_seconds() is None
    assert (written(tmp_path), said) == ([], [])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], 600),
        ([2.0] * 4, 600),
        ([2.0] * 5, 20),
        ([300.0, 2.0, 2.0, 2.0, 900.0], 20),  # where a mean would allow 40 minutes
        ([0.01, 2.0, 2.0, 2.0, 0.01], 20),
        ([50.0] * 100 + [2.0] * 51, 20),  # what lies 100 steps back counts no longer
        ([50.0] * 100 + [2.0] * 49, 500),
        ([0.1] * 9, 5),
    ],
)
def test_how_long_a_step_may_take(steps, expected):
    clock, _ = clock_after(*steps)
    assert limit_seconds(clock, floor_seconds=5.0, first_seconds=600.0) == pytest.approx(expected)


def test_another_program_begins_without_history():
    """The steps of the next stage may be a hundred times as long."""
    clock, _ = clock_after(*[0.5] * 10)
    with clock.paused("eval"):
        pass
    assert limit_seconds(clock, 1.0, 600.0) == 5
    with clock.paused("compile"):
        pass
    assert limit_seconds(clock, 1.0, 600.0) == 600


def test_a_pause_within_a_pause_lasts_to_the_end_of_the_outer_one():
    clock, now = clock_after(1.0)
    with clock.paused("eval"):
        with clock.paused("checkpoint"):
            now.seconds += 1
        assert clock.waiting_seconds() is None
    assert clock.waiting_seconds() is not None


def test_a_folder_that_cannot_be_written_is_told_and_watching_goes_on(tmp_path, watch):
    (tmp_path / "file").touch()
    clock, now = clock_after(*[0.5] * 10)
    said = []
    with watching(clock, tmp_path / "file", said.append, process=0, floor_seconds=FLOOR):
        now.seconds += 6
        time.sleep(LONG)
        clock.tick()
        now.seconds += 6
        time.sleep(LONG)
    assert [line.split(";")[0] for line in said] == [
        f"watchdog: step {step} takes 6 s so far, more than the 5 s to expect" for step in (11, 12)
    ]
    assert "its stacks could not be written: " in said[0]
    assert said[0].count("\n") == 0


def test_the_watchdog_ends_with_the_run(tmp_path, watch):
    clock, now = clock_after(*[0.5] * 10)
    watched, said = watch(clock)
    with watched:
        assert any(thread.name == "watchdog" for thread in threading.enumerate())
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
    now.seconds += 1000
    time.sleep(LONG)
    assert (written(tmp_path), said) == ([], [])


def test_a_jump_of_the_machines_clock_is_no_time(tmp_path, watch, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    clock = StepClock()
    clock.start()
    for _ in range(10):
        clock.tick()
    monkeypatch.setattr(time, "time", lambda: 1e12)
    said = []
    with watching(clock, tmp_path, said.append, process=0, floor_seconds=1.0):
        time.sleep(0.5)
    assert (written(tmp_path), said) == ([], [])
