"""Processes that find one another, act at the same boundary, and end together. Real ones, without JAX."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from jaxlingua.errors import ConfigError, DataError
from jaxlingua.processes.environment import Place
from jaxlingua.processes.roll_call import alone, call_roll
from tests.processes.members import Ended, members

AGAIN = "a run needs all of its processes; run the same command on all again"
HOST = socket.gethostname()


def the_line(ended: Ended) -> str:
    """All that it said on stderr: one line."""
    assert ended.err.count("\n") == 1, ended.err
    return ended.err.removesuffix("\n")


def test_all_come_in_any_order_and_leave_together():
    with members("come", 4) as those:
        for index in (3, 1, 2, 0):
            those.start(index)
        ends = those.ends()
    assert [one.told for one in ends] == [[[index, 4, index == 0]] for index in (3, 1, 2, 0)]
    assert all(one.code == 0 and one.err == "" for one in ends)


@pytest.mark.parametrize("host", ["localhost", "[::1]", HOST])
def test_the_coordinator_may_be_a_name_or_an_address_of_either_kind(host):
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        host = "127.0.0.1"
    with members("come", 2) as those:
        those.coordinator = f"{host}:{those.coordinator.rpartition(':')[2]}"
        those.start_all()
        assert [(one.code, one.err) for one in those.ends()] == [(0, "")] * 2


def test_process_0_may_start_late():
    with members("come", 2) as those:
        those.start(1)
        time.sleep(2)
        those.start(0)
        assert [(one.code, one.err) for one in those.ends()] == [(0, "")] * 2


def test_a_process_that_was_killed_while_it_waited_may_come_again():
    with members("come", 3) as those:
        those.start(0)
        those.start(1)
        time.sleep(1.5)
        those.running[1].kill()
        those.start(1)
        those.start(2)
        assert [one.code for one in those.ends()] == [0, -signal.SIGKILL, 0, 0]


def test_all_that_came_are_told_who_is_missing():
    with members("come", 4) as those:
        for index in (0, 2):
            those.start(index, wait_seconds=6, names=("t1v-0", "t1v-1", "t1v-2", "t1v-3"))
        ends = those.ends()
    for one in ends:
        assert one.code == 1
        assert the_line(one) == (
            "error: sharding.processes: 2 of 4 processes did not come within 6 s: 1 (t1v-1), 3 (t1v-3); "
            "start the same command on all, or raise sharding.processes.wait_seconds"
        )
        assert one.told == ["MachineError"]


def test_without_process_0_the_others_name_it_and_its_address():
    with members("come", 2) as those:
        those.start(1, wait_seconds=1)
        (one,) = those.ends()
        port = int(those.coordinator.rpartition(":")[2]) + 1
    assert one.code == 1
    assert the_line(one) == (
        f"error: sharding.processes.coordinator: process 0 does not answer at 127.0.0.1:{port} within 1 s "
        f"(Connection refused); start the same command on all, see that the port is open, or raise "
        f"sharding.processes.wait_seconds"
    )


REFUSALS = {
    "index": (
        {"index": 1},
        f"error: sharding.processes.index: 1 was given to two processes ({HOST}, pid PID; {HOST}, pid PID); "
        f"give each its own, 0 to 2",
    ),
    "range": (
        {"index": 7},
        f"error: sharding.processes.index: 7 was given to a process on {HOST}; allowed is 0 to 2",
    ),
    "count": (
        {"index": 2, "count": 4},
        f"error: sharding.processes.count: process 2 ({HOST}, pid PID) was given 4, process 0 was given 3; "
        f"give all the same",
    ),
    "version": (
        {"index": 2, "version": "2"},
        f"error: jaxlingua: process 2 ({HOST}, pid PID) has version 2, process 0 has 1; all processes need the "
        f"same one; install it on all",
    ),
    "configuration": (
        {"index": 2, "configuration": "other"},
        f"error: configuration: process 2 ({HOST}, pid PID) was started with another one than process 0; all "
        f"need the same; start all with the same command and the same files",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_process_that_does_not_fit_is_named_in_all_and_a_retry_is_not_worth_it(case):
    wrong, told = REFUSALS[case]
    with members("come", 3) as those:
        those.start(0)
        those.start(1)
        those.start(**wrong)
        pids = {str(process.pid) for process in those.running}
        ends = those.ends()
    lines = {the_line(one) for one in ends}
    assert len(lines) == 1
    line = lines.pop()
    for pid in pids:
        line = line.replace(f"pid {pid}", "pid PID")
    assert line == told
    assert [one.code for one in ends] == [2] * 3
    assert max(one.seconds for one in ends) < 15  # they do not wait for one another until the end


def test_a_port_that_is_taken_is_told(monkeypatch):
    monkeypatch.setattr("jaxlingua.processes.hub._PORT_SECONDS", 0.5)
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        place = Place(f"localhost:{port - 1}", 2, 0, "the configuration", ())
        with pytest.raises(Exception, match="cannot listen") as caught:
            call_roll(place, wait_seconds=1.0, configuration="", version="1")
    assert str(caught.value) == (
        f"sharding.processes.coordinator: process 0 cannot listen on port {port} (Address already in use), "
        f"which is the coordinator's plus 1; end the program that does, or give another port"
    )


@pytest.mark.parametrize("coordinator", ["host-0", "host-0:", "host-0:65535", ":8476", "host-0:x"])
def test_a_coordinator_that_is_no_address_is_refused(coordinator):
    place = Place(coordinator, 2, 1, "the configuration", ())
    with pytest.raises(ConfigError) as caught:
        call_roll(place, wait_seconds=1.0, configuration="", version="1")
    assert str(caught.value) == (
        f"sharding.processes.coordinator: '{coordinator}' was given; allowed is host:port with a port of 1 to "
        f"65534 (the next one is used too); write such as host-0:8476"
    )


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\xff\xfe\n",
    b'{"kind": "hello", "program": "jaxlingua", "index": "1", "count": 3}\n',
    b"[" * 500_000 + b"\n",
    b"x" * 3_000_000,
    b"17\n",
    b"",
]


def test_strangers_are_ignored():
    with members("come", 3) as those:
        those.start(0)
        those.start(1)
        port = int(those.coordinator.rpartition(":")[2]) + 1
        strangers = []
        for garbage in GARBAGE:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    strangers.append(socket.create_connection(("127.0.0.1", port)))
                    break
                except ConnectionRefusedError:
                    time.sleep(0.1)
            with contextlib.suppress(OSError):  # hung up on, in the middle of it
                strangers[-1].sendall(garbage)
        assert len(strangers) == len(GARBAGE)
        assert all(process.poll() is None for process in those.running)
        those.start(2)
        ends = those.ends()
        for stranger in strangers:
            stranger.close()
    assert [(one.code, one.err) for one in ends] == [(0, "")] * 3


def test_share_gives_the_value_of_process_0_and_gather_all_of_them():
    with members("exchange", 3) as those:
        those.start_all()
        ends = those.ends()
    for one in ends:
        assert one.code == 0, one.err
        expected = []
        for turn in range(20):
            expected += [{"from": 0, "turn": turn}, [[index, turn] for index in range(3)]]
        assert one.told == [*expected, True]


def check_boundaries(folder: Path, seed: int, barrier: str, *, count: int = 4, asks: int = 3) -> list:
    """Run the scenario; all have acted at the same calls, and on all that was asked."""
    with members("boundaries", count) as those:
        those.start_all(seed=seed, calls=200, barrier=barrier, asks=asks, folder=str(folder))
        ends = those.ends()
    for one in ends:
        assert one.code == 0, one.err
    told = [one.told[0] for one in ends]
    assert [one["acted"] for one in told] == [told[0]["acted"]] * count
    asked = {what for one in told for what in one["asked"]}
    acted = {what for _, those in told[0]["acted"] for what in those}
    assert acted == asked
    return told[0]["acted"]


@pytest.mark.parametrize("barrier", ["lock-step", "ahead"])
@pytest.mark.parametrize("seed", [1, 2])
def test_all_act_at_the_same_call_whoever_asks_whenever(seed, barrier, tmp_path):
    assert len(check_boundaries(tmp_path, seed, barrier)) >= 2


def test_all_act_at_the_same_call_also_where_nothing_keeps_them_together(tmp_path):
    """One may then have passed its last boundary before another asks: then none acts."""
    with members("boundaries", 3) as those:
        those.start_all(seed=5, calls=200, barrier="none", asks=3, folder=str(tmp_path))
        ends = those.ends()
    assert [one.code for one in ends] == [0] * 3
    acted = [one.told[0]["acted"] for one in ends]
    assert acted[0] == acted[1] == acted[2]


def test_what_is_asked_for_one_after_the_other_comes_at_one_call_if_none_has_passed_it():
    with members("ask_twice", 3) as those:
        those.start_all()
        assert [one.told for one in those.ends()] == [[[["save", "stop"], []]]] * 3


def test_what_is_asked_for_after_the_last_boundary_holds_nobody():
    with members("ask_late", 3) as those:
        those.start_all()
        ends = those.ends()
    assert [(one.code, one.err, one.told) for one in ends] == [(0, "", ["left"])] * 3


@pytest.mark.parametrize("how", ["sleep", "exchange"])
@pytest.mark.parametrize("dead", [0, 2])
def test_a_killed_process_ends_all_others_at_once_with_its_name(dead, how):
    with members("hang", 4, beat_seconds=0.2) as those:
        those.start_all(how=how)
        for index in range(4):
            those.await_line(index, '"ready"')
        time.sleep(0.3)
        killed = those.running[dead]
        killed.kill()
        ends = those.ends()
    for index, one in enumerate(ends):
        if index == dead:
            assert one.code == -signal.SIGKILL
            continue
        assert one.code == 1
        line = (
            f"error: process {dead} of 4 ({HOST}, pid {killed.pid}) died, last heard of at step 41; {AGAIN}"
        )
        assert the_line(one) == line
        assert one.seconds < 20


@pytest.mark.parametrize("silent", [0, 1])
def test_a_process_that_falls_silent_ends_the_others(silent):
    with members("hang", 3, beat_seconds=0.2, silent_seconds=2) as those:
        those.start_all(how="sleep")
        for index in range(3):
            those.await_line(index, '"ready"')
        time.sleep(0.3)
        stopped = those.running[silent]
        os.kill(stopped.pid, signal.SIGSTOP)
        others = [process for process in those.running if process is not stopped]
        for process in others:
            assert process.wait(60) == 1
            assert process.stderr.read() == (
                f"error: process {silent} of 3 ({HOST}, pid {stopped.pid}) died, last heard of at step 41 (nothing heard of it "
                f"for 2 s); {AGAIN}\n"
            )
        os.kill(stopped.pid, signal.SIGCONT)
        assert stopped.wait(60) == 1  # it learns that the others have gone


def test_a_pause_of_all_processes_is_no_death():
    """As when a machine is moved to another: the clock goes on, and nobody was heard for that time."""
    with members("hang", 3, beat_seconds=0.2, silent_seconds=2) as those:
        those.start_all(how="sleep")
        for index in range(3):
            those.await_line(index, '"ready"')
        for process in those.running:
            os.kill(process.pid, signal.SIGSTOP)
        time.sleep(3)
        for process in those.running:
            os.kill(process.pid, signal.SIGCONT)
        time.sleep(1.5)
        assert [process.poll() for process in those.running] == [None] * 3


@pytest.mark.parametrize("who", [0, 2])
def test_an_error_of_one_is_told_by_all_with_its_exit_code(who):
    with members("fail", 3) as those:
        those.start_all(who=who, kind="data")
        pid = those.running[who].pid
        ends = those.ends()
    for index, one in enumerate(ends):
        told = "data/x.jsonl:7: no text; give it one"
        if index != who:
            told = f"process {who} of 3 ({HOST}, pid {pid}) stopped: {told}"
        assert the_line(one) == f"error: {told}"
        assert one.code == 2
        assert one.seconds < 25


@pytest.mark.parametrize("who", [0, 1])
def test_a_bug_in_one_ends_the_others_and_keeps_its_traceback(who):
    with members("fail", 2) as those:
        those.start_all(who=who, kind="bug")
        pid = those.running[who].pid
        ends = those.ends()
    assert "Traceback" in ends[who].err
    assert ends[who].err.endswith("ZeroDivisionError: division by zero\n")
    assert the_line(ends[1 - who]) == (
        f"error: process {who} of 2 ({HOST}, pid {pid}) stopped: ZeroDivisionError: division by zero; {AGAIN}"
    )
    assert ends[1 - who].code == 1


def test_an_error_that_follows_from_a_death_is_not_told_in_its_place():
    with members("follow", 4) as those:
        those.start_all()
        pid = those.running[1].pid
        ends = those.ends()
    for index in (0, 2, 3):
        line = f"error: process 1 of 4 ({HOST}, pid {pid}) died, last heard of before its first step; {AGAIN}"
        assert the_line(ends[index]) == line
        assert ends[index].code == 1


def test_a_worker_that_outlives_its_killed_process_does_not_hide_the_death():
    with members("worker_outlives", 3) as those:
        those.start_all()
        gone = [those.running[index].wait(25) for index in (0, 2)]
    assert gone == [1, 1]


@pytest.mark.parametrize("who", [0, 1])
def test_one_that_is_done_waits_for_the_others(who):
    with members("leave_early", 3) as those:
        those.start_all(who=who)
        ends = those.ends()
    assert [(one.code, one.err) for one in ends] == [(0, "")] * 3
    assert ends[who].told[0] > 2


@pytest.mark.parametrize("who", [0, 1])
def test_one_that_is_done_goes_silently_after_a_while(who):
    with members("leave_early", 3, leave_seconds=0.5) as those:
        those.start_all(who=who)
        ends = those.ends()
    assert [(one.code, one.err) for one in ends] == [(0, "")] * 3
    assert ends[who].told[0] < 2.5


def test_a_run_that_stops_on_request_ends_nobody():
    with members("stop", 2) as those:
        those.start_all()
        ends = those.ends()
    assert [one.code for one in ends] == [143] * 2
    assert [the_line(one).rpartition(": ")[2] for one in ends] == ["saved"] * 2


@pytest.mark.parametrize("who", [0, 1])
def test_nobody_waits_for_the_value_of_one_that_has_left(who):
    with members("exchange_with_nobody", 2) as those:
        those.start_all(who=who)
        one = those.ends()[1 - who]
    assert one.code == 1
    assert the_line(one) == f"error: process {who} of 2 has left; nothing can be exchanged; {AGAIN}"


def test_a_process_alone_acts_at_its_next_boundary():
    group = alone()
    assert (group.index, group.count, group.is_primary) == (0, 1, True)
    assert group.boundary("step 1") == frozenset()
    group.ask("save")
    group.ask("stop")
    assert group.boundary("step 2") == {"save", "stop"}
    assert group.boundary("step 3") == frozenset()
    assert group.share((1, 2)) == [1, 2]  # as among several processes
    assert group.gather({"a": 1}) == [{"a": 1}]
    group.leave()
    group.leave(DataError("x"))


def test_a_place_of_one_process_needs_no_others():
    place = Place("nowhere.invalid:1", 1, 0, "the configuration", ())
    assert call_roll(place, wait_seconds=1.0, configuration="", version="1").count == 1


def test_a_value_that_is_too_large_is_refused_before_it_is_sent():
    with pytest.raises(ValueError, match="1100002 bytes"):
        alone().share("x" * 1_100_000)


def test_a_member_in_this_process_calls_the_end_that_is_given(monkeypatch):
    """What the others see of a process 0 that hangs up is checked here without ending this process."""
    told = []
    monkeypatch.setattr("jaxlingua.processes.roll_call.end_process", lambda *end: told.append(end))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def process_0() -> None:
        connection = listener.accept()[0]
        hello = json.loads(connection.makefile().readline())
        assert (hello["index"], hello["count"], hello["configuration"]) == (1, 2, "digest")
        connection.sendall(b'{"kind": "welcome", "who": "process 0 of 2 (a, pid 3)"}\n')
        connection.sendall(b'{"kind": "beat", "at": "step 7"}\n')
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    serving = threading.Thread(target=process_0)
    serving.start()
    place = Place(f"127.0.0.1:{port - 1}", 2, 1, "the configuration", ())
    group = call_roll(place, wait_seconds=5.0, configuration="digest", version="1")
    with pytest.raises(Exception, match="nothing can be exchanged"):
        group.gather(1)
    serving.join()
    listener.close()
    assert told == [(f"process 0 of 2 (a, pid 3) died, last heard of at step 7; {AGAIN}", 1)]
