"""A checkpoint by the clock is asked for once; a stop ends with the exit code of what asked for it."""

import os

import pytest

from jaxlingua.errors import Stopped
from jaxlingua.processes.roll_call import Group, alone
from jaxlingua.processes.stop import Stop
from jaxlingua.train.interruptions import Interruptions


class LateGroup(Group):
    """Like several processes: what is asked is done two boundaries later."""

    def __new__(cls):
        group = object.__new__(cls)
        group.index, group.count, group.asked, group.calls = 0, 2, [], 0
        return group

    def __init__(self):
        pass

    def ask(self, what: str) -> None:
        self.asked.append((self.calls + 2, what))

    def boundary(self, at: str) -> frozenset[str]:
        self.calls += 1
        return frozenset(what for call, what in self.asked if call == self.calls)


def saved_steps(
    group: Group, minutes, *, seconds_per_step: float, steps: int, every: int = 1000
) -> list[int]:
    seconds = [0.0]
    asked = Interruptions(group, Stop(group, print), minutes, now=lambda: seconds[0])
    saved = []
    for step in range(1, steps + 1):
        seconds[0] += seconds_per_step
        is_saved, is_stopped = asked.after_step(step, is_saved=step % every == 0)
        assert not is_stopped
        saved += [step] if is_saved else []
    return saved


def test_a_process_alone_saves_when_the_minutes_are_over():
    assert saved_steps(alone(), 1.0, seconds_per_step=25.0, steps=10) == [3, 6, 9]


def test_several_processes_save_once_for_each_time_that_it_is_due():
    assert saved_steps(LateGroup(), 1.0, seconds_per_step=25.0, steps=12) == [4, 8, 12]


def test_a_save_by_steps_begins_the_minutes_anew():
    assert saved_steps(alone(), 1.0, seconds_per_step=25.0, steps=10, every=2) == [2, 4, 6, 8, 10]


def test_off_never_saves_by_the_clock():
    assert saved_steps(alone(), "off", seconds_per_step=1e6, steps=5) == []


def test_a_stop_in_an_evaluation_ends_it_after_the_batch_with_the_code_of_the_signal():
    group, told = alone(), []
    signals = Stop(group, told.append)
    asked = Interruptions(group, signals, "off")
    progress = asked.stoppable(lambda done, total: told.append((done, total)), 40)
    progress(1, 3)
    asked.after_step(40, is_saved=True)
    signals.signal(2)
    with pytest.raises(
        Stopped, match=r"^step 40 is saved; exit code 130; run the same command again to go on$"
    ):
        progress(2, 3)
    assert [one for one in told if isinstance(one, tuple)] == [(1, 3), (2, 3)]


def test_before_the_first_step_of_a_start_nobody_waits_for_a_boundary(monkeypatch, capfd):
    """Reading data and compiling take minutes, in which there is nothing to save."""

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    group = alone()
    signals = Stop(group, print)
    Interruptions(group, signals, "off")
    with pytest.raises(SystemExit) as stopped:
        signals.signal(15)
    assert stopped.value.code == 143
    assert capfd.readouterr().err == (
        "stopped: SIGTERM before the first step of this start; nothing was to be saved; exit code 143\n"
    )


def test_a_stop_before_anything_is_saved_says_so():
    group = alone()
    with pytest.raises(Stopped, match="^nothing was to be saved yet; exit code 143") as stopped:
        Interruptions(group, Stop(group, print), "off").stop(None)
    assert stopped.value.exit_code == 143
