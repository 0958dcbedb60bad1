"""The command as two and as four processes of one machine: one run, which ends as a whole and goes on as a whole."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.flow.kills import Run, differences, lines, patiently
from tests.flow.small import scored, write_config
from tests.processes.members import free_port

LAST = 12
FP32_STEPS = 1e-5  # of the loss, over the steps of a run on different meshes
OTHERS_END_SECONDS = 200
# One worker of pytest-xdist takes all, so that the run that others are compared with is made once.
pytestmark = pytest.mark.xdist_group("together")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps, each of them told, with a base that is not evaluated, which takes its time."""
    return write_config(
        tmp_path_factory.mktemp("together") / "small.yaml",
        eval={
            "tasks": ["phrases.eng_Latn-ell_Grek"],
            "items": 4,
            "bootstrap_samples": 20,
            "base_model": False,
        },
        tracking={"log_every_steps": 1, "tensorboard": False},
    )


def run_of(config: Path, name: str, processes: int, devices: int) -> Run:
    return Run(config, config.parent / name, processes=processes, devices=devices, ends=(LAST,))


@pytest.fixture(scope="module")
def alone(config: Path) -> Path:
    """The folder of a run of one process with eight devices."""
    run = run_of(config, "alone", 1, 8)
    run.finish()
    return run.folder


def pair_of(config: Path, name: str) -> Run:
    """Two processes with four devices each, as two slices."""
    run = run_of(config, name, 2, 4)
    run.options = ("sharding.slices=2",)
    return run


@pytest.fixture(scope="module")
def pair(config: Path) -> Path:
    """The folder of an undisturbed run of two slices."""
    run = pair_of(config, "pair")
    run.finish()
    return run.folder


def assert_the_same_but_for_rounding(run: Path, other: Path) -> None:
    told, expected = ([line["loss"] for line in lines(folder)] for folder in (run, other))
    np.testing.assert_allclose(told, expected, rtol=FP32_STEPS)
    assert scored(run, f"coit-{LAST}") == scored(other, f"coit-{LAST}")


def devices_of(run: Path) -> str:
    return yaml.safe_load((run / "provenance.json").read_text("utf-8"))["devices"]


def test_two_slices_of_one_process_train_and_score_as_one(alone: Path, pair: Path):
    assert_the_same_but_for_rounding(pair, alone)
    assert devices_of(alone) == "8 devices (cpu) in 1 process: data=1 fsdp=8 tensor=1"
    assert devices_of(pair) == "8 devices (cpu) in 2 processes and 2 slices: data=2 fsdp=4 tensor=1"


@pytest.mark.slow
def test_two_slices_of_two_processes_as_gke_starts_them_train_and_score_as_one(config: Path, alone: Path):
    """Each finds the others by the variables that a JobSet's pods have, as on real slices."""
    run, port = run_of(config, "jobset", 4, 2), str(free_port())
    hosts = {"TPU_WORKER_HOSTNAMES": "127.0.0.1,127.0.0.1", "TPU_SKIP_MDS_QUERY": "1", "MEGASCALE_NUM_SLICES": "2",
             "MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.1:8080", "JAX_COORDINATOR_PORT": port}  # fmt: skip
    pods = [{**hosts, "MEGASCALE_SLICE_ID": part, "TPU_WORKER_ID": host} for part in "01" for host in "01"]
    try:
        run.start([["sharding.slices=2"]] * 4, pods)
        run.await_end()
    finally:
        run.kill()
    assert_the_same_but_for_rounding(run.folder, alone)
    assert devices_of(run.folder) == "8 devices (cpu) in 4 processes and 2 slices: data=2 fsdp=4 tensor=1"


@pytest.mark.slow
def test_four_processes_train_and_score_as_one(config: Path, alone: Path):
    run = run_of(config, "four", 4, 2)
    run.finish()
    assert_the_same_but_for_rounding(run.folder, alone)


def at(run: Run, moment: str, step: int) -> None:
    """Return as soon as the run is at such a moment, at this step or later."""
    for _ in patiently(0.002):
        assert not run.has_ended(), f"the run ended before {moment} of step {step}"
        if run.steps()[0] >= step and run.moment() == moment:
            return


def kill_one(run: Run, victim: int) -> None:
    """kill -9 of one process, which the others see by themselves: each ends and names it in one line."""
    pid = run.living[victim].pid
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    for index, process in enumerate(run.living):
        if index == victim:
            continue
        left = killed_at + OTHERS_END_SECONDS - time.monotonic()
        assert process.wait(left) == 1, run.errors(index).read_text()
        told = run.errors(index).read_text().splitlines()
        if victim == 0:  # JAX's own service was there, and its absence is told by JAX too
            told = [line for line in told if line.startswith("error: ")]
        [line] = told
        who = rf"process {victim} of {run.processes} \(\S+, pid {pid}\)"
        assert re.fullmatch(rf"error: {who} died, last heard of (at|before) .*; .*again", line)


def stop_one(run: Run, index: int) -> None:
    """SIGTERM to one process: all save the same step and tell the scheduler why they ended."""
    os.kill(run.living[index].pid, signal.SIGTERM)
    codes = [process.wait(OTHERS_END_SECONDS) for process in run.living]
    told = [run.errors(index).read_text() for index in range(run.processes)]
    assert codes == [143] * run.processes, told
    [step] = {int(step) for line in told for step in re.findall(r"stopped: step (\d+) is saved", line)}
    assert [line.count("\n") for line in told] == [1] * run.processes
    assert (run.folder / "checkpoints" / str(step) / "files.json").is_file()
    assert run.steps()[0] == step


DEATHS: list[tuple[str, int, Callable[[Run, int], object], int]] = [
    # moment, step, what happens, to which process
    ("step", 2, kill_one, 1),
    ("save", 4, kill_one, 0),
    ("step", 5, stop_one, 1),
    ("evaluation", LAST, kill_one, 1),
]


def disturbed(config: Path, undisturbed: Path, run: Run, deaths: list) -> None:
    """A run that meets all these deaths, and is started again after each, ends like another."""
    try:
        for moment, step, happen, who in deaths:
            run.start()
            at(run, moment, step)
            happen(run, who)
        run.finish()
    finally:
        run.kill()
    assert differences(undisturbed, run.folder, LAST) == []


@pytest.mark.slow
def test_two_slices_end_together_and_go_on_bit_for_bit(config: Path, pair: Path):
    """Killed in a step, in a save and in an evaluation; stopped by SIGTERM to one of them."""
    disturbed(config, pair, pair_of(config, "pair-disturbed"), DEATHS)


@pytest.mark.slow
def test_four_processes_end_together_and_go_on_bit_for_bit(config: Path):
    undisturbed = run_of(config, "four-undisturbed", 4, 2)
    undisturbed.finish()
    deaths = [(moment, step, happen, who + 1) for moment, step, happen, who in DEATHS]
    disturbed(config, undisturbed.folder, run_of(config, "four-disturbed", 4, 2), deaths)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_in_one(config: Path, alone: Path):
    """Another number of processes: the same batches, losses but for rounding."""
    run = run_of(config, "fewer", 2, 4)
    try:
        run.start()
        at(run, "step", 5)
        stop_one(run, 0)
        run.processes, run.devices = 1, 2
        run.finish()
    finally:
        run.kill()
    assert_the_same_but_for_rounding(run.folder, alone)


def test_a_process_that_never_comes_is_named_by_all_that_came(config: Path):
    processes = f"coordinator: '127.0.0.1:{free_port()}', count: 3, wait_seconds: 4"
    places = [[f"sharding.processes={{{processes}, index: {index}}}"] for index in (0, 2)]
    run = run_of(config, "missing", 2, 4)
    run.start(places)
    codes = [process.wait(200) for process in run.living]
    assert codes == [1, 1]
    for index in range(2):
        [line] = run.errors(index).read_text().splitlines()
        assert line.startswith("error: sharding.processes: 1 of 3 processes did not come within 4 s: 1;")
    assert not run.folder.exists()
