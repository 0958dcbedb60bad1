"""Goodput: every second of every start is counted once, and repeated steps do not count."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlingua.eval.report.words import time_of
from jaxlingua.tracking.compiling import CompileLog
from jaxlingua.tracking.goodput import FILE, GoodputLog, programs_made, read_starts, spent
from jaxlingua.tracking.speed import StepClock


class Time:
    """A clock that is moved by hand."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def start(folder, restored_step, *, steps: int, save_seconds: float, starting: float = 5.0):
    """A start of `steps` steps of 2 s after `starting`; a checkpoint takes `save_seconds` at its end."""
    now = Time()
    clock = StepClock(now=now)
    log = GoodputLog(folder, restored_step, clock, now, began=now(), compiled=CompileLog())
    now.seconds += starting
    for step in range((restored_step or 0) + 1, (restored_step or 0) + steps + 1):
        clock.start()
        now.seconds += 2.0
        clock.tick()
        log.note(step)
    with clock.paused("checkpoint"):
        now.seconds += save_seconds
    return log


def test_all_time_of_one_start_is_told_by_what_it_went_into(tmp_path):
    start(tmp_path, None, steps=10, save_seconds=1.0).close()
    told = spent(read_starts(tmp_path))
    assert told == {"steps": 20.0, "repeated": 0.0, "checkpoint": 1.0, "starting": 5.0}


def test_steps_that_a_killed_start_did_after_its_checkpoint_do_not_count(tmp_path):
    start(tmp_path, None, steps=10, save_seconds=1.0).close()
    start(tmp_path, 7, steps=5, save_seconds=1.0).close()
    told = spent(read_starts(tmp_path))
    assert told == {"steps": 24.0, "repeated": 6.0, "checkpoint": 2.0, "starting": 10.0}
    assert told["steps"] == 12 * 2.0, "twelve steps are in the run that came of it"


def test_a_step_counts_only_if_no_later_start_began_before_it(tmp_path):
    """The newest checkpoint may be found damaged, so that a start goes back behind the start before."""
    for restored_step, steps in ((None, 30), (30, 10), (20, 40)):
        start(tmp_path, restored_step, steps=steps, save_seconds=0.0, starting=0.0).close()
    starts = read_starts(tmp_path)
    assert [(one["first_step"], one["last_step"]) for one in starts] == [(0, 30), (30, 40), (20, 60)]
    told = spent(starts)
    assert (told["steps"], told["repeated"]) == (60 * 2.0, 20 * 2.0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=6))
def test_each_step_of_the_run_counts_once_whatever_the_starts_were(asked):
    """Against a list of who did which step last; a second a step."""
    starts, owner, reached = [], {}, 0
    for place, (wanted, count) in enumerate(asked):
        first = min(wanted, reached)
        reached = first + count
        starts.append(
            {"first_step": first, "last_step": reached, "seconds": float(count), "steps": float(count)}
        )
        owner = {step: who for step, who in owner.items() if step <= first}
        owner |= dict.fromkeys(range(first + 1, reached + 1), place)
    told = spent(starts)
    assert told["steps"] == pytest.approx(len(owner), abs=0.01)
    assert told["repeated"] == pytest.approx(sum(count for _, count in asked) - len(owner), abs=0.01)


def test_starts_that_end_before_their_first_checkpoint_are_starts_of_the_run(tmp_path):
    start(tmp_path, None, steps=10, save_seconds=0.0).close()
    start(tmp_path, None, steps=3, save_seconds=1.0).close()
    starts = read_starts(tmp_path)
    assert [(one["first_step"], one["last_step"]) for one in starts] == [(0, 10), (0, 3)]
    assert spent(starts) == {"steps": 6.0, "repeated": 20.0, "checkpoint": 1.0, "starting": 10.0}


def test_a_start_that_is_killed_has_told_all_but_its_last_seconds(tmp_path):
    start(tmp_path, None, steps=20, save_seconds=9.0)  # never closed
    (told,) = read_starts(tmp_path)
    assert 16 <= told["last_step"] <= 20
    assert told["seconds"] == 5.0 + 2.0 * told["last_step"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"starts": 3}', '{"starts": [{"step": 1}]}'])
def test_a_damaged_file_is_as_none(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert read_starts(tmp_path) == []
    assert spent([]) == {}


def test_a_start_without_a_step_is_all_starting(tmp_path):
    start(tmp_path, None, steps=0, save_seconds=0.0, starting=7.0).close()
    assert spent(read_starts(tmp_path)) == {"steps": 0.0, "repeated": 0.0, "checkpoint": 0.0, "starting": 7.0}
    assert json.loads((tmp_path / FILE).read_text())["starts"][0]["first_step"] == 0


def test_programs_made_within_an_evaluation_are_compilation_not_evaluation(tmp_path):
    """Of 30 s: 4 of steps, 1 of them waiting; 10 of evaluation, 6 of them compiling; 8 of the first step."""
    parts = {"lowering": 0.0, "programs": 1, "cached": 0}
    begun = {"purpose": "starting", "stage": "", "tracing": 1.0, "compiling": 1.0, **parts}
    step = {"purpose": "step", "stage": "coit", "tracing": 3.0, "compiling": 4.0, **parts}
    answered = {"purpose": "eval", "stage": "coit", "tracing": 2.0, "compiling": 4.0, **parts}
    one = {"first_step": 0, "last_step": 2, "seconds": 30.0, "steps": 3.0, "data": 1.0, "compile": 8.0,
           "eval": 10.0, "compiled": [begun, step, answered]}  # fmt: skip
    told = spent([one])
    assert told == {"steps": 3.0, "repeated": 0.0, "data": 1.0, "compile": 16.0, "eval": 4.0, "starting": 6.0}
    assert sum(told.values()) == one["seconds"]
    assert programs_made([one, one])[0] == step | {
        "tracing": 6.0, "compiling": 8.0, "lowering": 0.0, "programs": 2, "cached": 0
    }  # fmt: skip


def test_what_devices_waited_for_data_is_told_apart_from_steps(tmp_path):
    now = Time()
    clock = StepClock(now=now)
    log = GoodputLog(tmp_path, None, clock, now, began=now(), compiled=CompileLog())
    clock.start()
    since = now()
    now.seconds += 3.0
    clock.waited(since)
    now.seconds += 2.0
    clock.tick()
    log.note(1, is_last=True)
    told = spent(read_starts(tmp_path))
    assert (told["steps"], told["data"]) == (2.0, 3.0)
    assert "docs/profiling.md" in time_of(told)
    assert "docs/profiling.md" not in time_of({"steps": 96.0, "data": 4.0})
