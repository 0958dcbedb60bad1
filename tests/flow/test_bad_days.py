"""Disks that fill, fail or may not be written, clocks that jump, signals, a second run in the same folder.

Each bad day ends the command with one line and the right exit code, and costs nothing: the same command, run
again once the day is better, ends bit for bit as if nothing had happened.
"""

import contextlib
import ctypes
import errno
import functools
import itertools
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file

import jaxlingua
from jaxlingua.checkpoint import __main__ as exporting
from jaxlingua.checkpoint import steps, store
from jaxlingua.config import CheckpointConfig, TrackingConfig
from jaxlingua.errors import MachineError, exit_with_one_line
from jaxlingua.eval import evaluate, report
from jaxlingua.processes.stop import Stop
from jaxlingua.tokens import learned
from jaxlingua.tokens import store as documents
from jaxlingua.tracking import MetricWriter
from jaxlingua.train import run_folder
from jaxlingua.train.interruptions import Interruptions
from tests.flow.kills import Run, arrays, differences, patiently
from tests.flow.small import CONFIG, train, write_config
from tests.rights import stopped_by_permissions

# One worker of pytest-xdist takes all, so that the run that others are compared with is made once.
pytestmark = pytest.mark.xdist_group("bad days")

LAST = 12
TASKS = {"tasks": ["phrases.eng_Latn-ell_Grek"], "items": 4, "bootstrap_samples": 20, "base_model": False}


@pytest.fixture(scope="module")
def news() -> Iterator[Path]:
    """A file that all runs of this module read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "news.txt"
        path.write_text("".join(f"The train number {n} is late.\n" for n in range(100)))
        path.parent.chmod(0o755)  # also for somebody without rights
        yield path


@pytest.fixture(scope="module")
def small(news: Path) -> Callable[..., Path]:
    """A configuration beside whose file its run lies: twelve steps, each of them told, one task at the end."""
    sources = CONFIG["data"]["sources"] | {
        "news": {"kind": "text", "path": str(news), "language": "eng_Latn"}
    }
    sections = {
        "eval": TASKS,
        "data": CONFIG["data"] | {"sources": sources},
        "stages": [{"name": "coit", "mixture": {name: {} for name in sources}, "steps": LAST}],
        "tracking": {"log_every_steps": 1, "tensorboard": False},
    }
    return lambda folder, **changes: write_config(folder / "small.yaml", **sections | changes)


@pytest.fixture(scope="module")
def undisturbed(small: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that met nothing."""
    config = small(tmp_path_factory.mktemp("undisturbed"))
    train(config)
    return config.parent / "run"


def ends(code: int, capsys: pytest.CaptureFixture, config: Path, *overrides: str) -> str:
    """The one line on stderr of a command that ends with this code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train(config, *overrides)
    told = capsys.readouterr().err
    assert stop.value.code == code, told
    assert told.count("\n") == 1, told
    assert told.startswith("error: " if code < 128 else "stopped: ")
    return told.partition(": ")[2].removesuffix("\n")


@contextmanager
def before(owner: Any, name: str, act: Callable[..., object]) -> Iterator[None]:
    """Within, `act` is called with the arguments of every call of `owner.name`, before it."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def both(*args: Any, **kwargs: Any) -> Any:
        act(*args, **kwargs)
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, both)
        yield


@contextmanager
def after(owner: Any, name: str, act: Callable[[], object]) -> Iterator[None]:
    """Within, `act` is called after every call of `owner.name`."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def both(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        act()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, both)
        yield


def at_step(step: int, act: Callable[[], object]) -> contextlib.AbstractContextManager:
    """Within, `act` is called after this step, before it is saved."""
    return before(Interruptions, "after_step", lambda _, at, **__: act() if at == step else None)


def saving_step(step: int, act: Callable[[], object]) -> contextlib.AbstractContextManager:
    """Within, `act` is called when this step begins to be saved."""
    return before(store.Store, "save", lambda _, at, *__, **___: act() if at == step else None)


def complete(run: Path) -> list[int]:
    return steps.complete_steps(store.located(run / "checkpoints"))


def await_step(run: Path, step: int) -> None:
    """Return as soon as this step is complete."""
    for _ in patiently(0.01):
        if step in complete(run):
            return


# ── a disk without room ───────────────────────────────────────────────────────────────────────────────────

MS_RDONLY, MS_REMOUNT, MNT_DETACH = 1, 32, 2


def mounted(folder: Path, options: str) -> bool:
    """Mount a file system in memory; False where this process may not."""
    return ctypes.CDLL(None).mount(b"none", str(folder).encode(), b"tmpfs", 0, options.encode()) == 0


class FileSizeLimit:
    """Room that ends by what each process is allowed (ulimit -f): works everywhere, and reaches C++ as well."""

    told = "File too large"

    def __init__(self, folder: Path):
        self.folder = folder

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    close = free


class SmallDisk:
    """A real file system of a few MiB that is full to its last block."""

    told = "No space left on device"

    def __init__(self, folder: Path):
        self.folder = folder
        assert mounted(folder, "size=24m")

    def fill(self) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        (self.folder / "ballast").unlink()

    def close(self) -> None:
        ctypes.CDLL(None).umount2(str(self.folder).encode(), MNT_DETACH)


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if not mounted(Path(folder), "size=1m"):
            return False
        ctypes.CDLL(None).umount2(folder.encode(), MNT_DETACH)
        return True


# A real file system only where it may be mounted, as by root: elsewhere there is no such test.
DISKS = [FileSizeLimit, *([SmallDisk] if can_mount() else [])]


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        (FileSizeLimit, ["cache", "save", "predictions"]),
        *(pytest.param(kind, None, marks=pytest.mark.slow) for kind in DISKS),
    ],
)
def test_a_disk_that_is_full_at_any_write_is_one_line_and_costs_nothing(
    kind: Any,
    at: list[str] | None,
    tmp_path: Path,
    small: Callable[..., Path],
    undisturbed: Path,
    capsys: pytest.CaptureFixture,
    request: pytest.FixtureRequest,
):
    """One run that meets a full disk at some or all of nine places, and is started again after each."""
    disk = kind(tmp_path)
    request.addfinalizer(disk.close)
    config, run = small(disk.folder), disk.folder / "run"

    def metrics() -> None:
        await_step(run, 4)
        disk.fill()

    def record(_: Any, step: int, __: Any) -> None:
        if step == 8:
            disk.fill()

    def predictions(*_: Any) -> None:
        await_step(run, LAST)
        disk.fill()

    places = {  # and the steps that are complete afterwards
        "tokenizer": (after(learned, "learn", disk.fill), []),
        "cache": (before(documents, "write", lambda *_: disk.fill()), []),
        "facts": (before(run_folder, "write_facts", lambda *_, **__: disk.fill()), []),
        "floors": (before(evaluate, "evaluate_floors", lambda *_, **__: disk.fill()), []),
        "metrics": (at_step(6, metrics), [4]),
        "save": (saving_step(8, disk.fill), [4]),
        "end of a save": (before(steps, "write_record", record), [4]),
        "predictions": (before(evaluate, "_write", predictions), [8, 12]),
        "report": (before(report, "write_report", lambda *_: disk.fill()), [8, 12]),
    }
    told = {}
    for place in at or places:
        full, there = places[place]
        with full:
            told[place] = ends(1, capsys, config)
        assert complete(run) == there, place
        disk.free()
    train(config)
    assert differences(undisturbed, run, LAST) == []
    assert all(re.fullmatch(rf"\S+: .*({disk.told}|the disk is full).*", line) for line in told.values())
    assert all(
        re.search("; (free some space|raise the limit|see to the disk).* run the same command again", line)
        for line in told.values()
    )
    for place in {"save", "end of a save"} & set(told):
        assert told[place].startswith(f"{run / 'checkpoints'}: ")
        assert "step 8 could not be saved; step 4 is complete; " in told[place]


def test_events_for_tensorboard_that_the_disk_refuses_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A thread that wrote them would die of it, and the run wait for it without end."""
    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda _: open("/dev/full", "wb"))  # noqa: SIM115
    writer = MetricWriter(tmp_path, TrackingConfig(tensorboard=True), None, {})
    with pytest.raises(MachineError) as told:
        writer.write(1, "coit", {"loss": 2.5})
    assert str(told.value).startswith(
        f"{tmp_path / 'tensorboard'}: No space left on device; free some space "
    )
    for step in range(2, 50):
        writer.write(step, "coit", {"loss": 2.5})
    writer.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == [1]


def test_an_error_of_a_save_is_not_told_again_by_the_threads_that_met_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture,
):
    """Of a real full disk there were hundreds of lines, after the one that counts and before it."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: print(unraisable.exc_value))
    store.open_store(tmp_path, CheckpointConfig()).close()
    for error in (RuntimeError("Event loop is closed"), ValueError("another")):
        sys.unraisablehook(SimpleNamespace(exc_value=error))
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    logging.getLogger("asyncio").error("something else")
    assert capsys.readouterr().out == "another\n"
    assert [record.message for record in caplog.records] == ["something else"]


# ── data that go away ─────────────────────────────────────────────────────────────────────────────────────


def test_tokens_that_can_no_longer_be_read_are_one_line_and_are_made_again(
    small: Callable[..., Path],
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    """Cut short while a checkpoint is being saved; then a disk that does not answer."""
    config, run = small(tmp_path), tmp_path / "run"

    def cut() -> None:
        for path in run.glob("cache/*/tokens.npy"):
            os.truncate(path, 200)

    with saving_step(4, cut):
        told = ends(1, capsys, config)
    assert re.fullmatch(
        rf"{run}/cache/\w+/tokens.npy: cannot be read any more \(it was cut short while the run went on\); it is "
        "a cache that is made again; see to the disk and run the same command again",
        told,
    )
    assert complete(run) == [4]

    def fail(*_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, at_step(5, lambda: patch.setattr(os, "pread", fail)):
        told = ends(1, capsys, config)
    assert (
        "/tokens.npy: cannot be read any more (Input/output error); it is a cache that is made again" in told
    )
    train(config)
    assert differences(undisturbed, run, LAST) == []


def test_a_file_that_changed_or_vanished_since_the_run_began_is_refused_until_it_is_back(
    small: Callable[..., Path], undisturbed: Path, news: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    config, run = small(tmp_path), tmp_path / "run"
    with asked_to_stop(lambda act: at_step(3, act), signal.SIGTERM):
        ends(143, capsys, config)
    content = news.read_bytes()
    kept = {
        path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"
    }
    try:
        news.write_bytes(content.replace(b"99", b"98"))
        changed = ends(2, capsys, config)
        news.unlink()
        vanished = ends(2, capsys, config)
    finally:
        news.write_bytes(content)
    assert re.fullmatch(
        rf"{run}: data.sources.news is not what the run began with \(fingerprint \w+ there, \w+ now\); restore "
        "it, or choose another run.folder",
        changed,
    )
    assert vanished.startswith(f"data.sources.news.path: '{news}' does not exist; ")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert complete(run) == [3]
    train(config)
    assert differences(undisturbed, run, LAST) == []


# ── clocks ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clock_that_jumps_hours_to_and_fro_changes_nothing(
    small: Callable[..., Path],
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    config, saved, hours = small(tmp_path), [], itertools.cycle([5, -3, 40, 0])
    real, offset = time.time, 0

    def jump() -> None:
        nonlocal offset
        offset = 3600 * next(hours)

    async def save_meta(*given: Any) -> None:  # called in a thread while the arrays are written
        time.sleep(0.5)
        jump()
        await save(*given)

    save = ocp.JsonCheckpointHandler._save_fn
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", save_meta)
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    capsys.readouterr()
    with at_step(2, jump), before(store.Store, "save", lambda _, step, *__, **___: saved.append(step)):
        train(config, "tracking.tensorboard=true")
    told = capsys.readouterr().out
    assert saved == [4, 8, 12]  # none for checkpoint.save_every_minutes=15
    assert differences(undisturbed, tmp_path / "run", LAST) == []
    assert not re.search(r"-\d+ (s|min|h|d)\b|-[\d,]+ target tokens/s", told)
    assert all(
        json.loads(line)["step_seconds"] > 0 for line in (tmp_path / "run" / "metrics.jsonl").open("rb")
    )


def test_nothing_is_decided_by_the_time_of_day():
    """It is told: when a run began, and when an event of TensorBoard was. A judge may say when to ask again."""
    home = Path(jaxlingua.__file__).parent
    asking = re.compile(r"\btime\.time(_ns)?\(|\bdatetime\.now\(|\butcnow\(|\blocaltime\(|\bgmtime\(")
    found = {
        str(path.relative_to(home)) for path in home.rglob("*.py") if asking.search(path.read_text("utf-8"))
    }
    assert found == {"tracking/writer.py", "train/run_folder.py", "eval/judge/endpoint.py"}


def test_a_checkpoint_that_is_due_by_the_clock_is_saved_after_any_step(
    small: Callable[..., Path], undisturbed: Path, tmp_path: Path
):
    config, saved = small(tmp_path), []
    with before(store.Store, "save", lambda _, step, *__, **___: saved.append(step)):
        train(config, "checkpoint.save_every_minutes=0.001", "checkpoint.save_every_steps=100")
    assert saved[-1] == LAST
    assert len(saved) > 2
    assert differences(undisturbed, tmp_path / "run", LAST) == []


# ── signals, and a second run ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def asked_to_stop(
    moment: Callable[[Callable[[], None]], contextlib.AbstractContextManager], number: signal.Signals
) -> Iterator[None]:
    """Within, this process gets a signal at a moment, which goes on when the wish to stop has arrived."""
    arrived = threading.Event()

    def send() -> None:
        if not arrived.is_set():
            os.kill(os.getpid(), number)
            assert arrived.wait(300)

    with after(Stop, "_ask", arrived.set), moment(send):
        yield


def evaluating(act: Callable[[], None]) -> contextlib.AbstractContextManager:
    return before(evaluate, "answer_tasks", lambda *_, **__: act())


SIGNALS = [
    # when, signal, the step that is then saved
    (lambda act: at_step(3, act), signal.SIGINT, 3),
    (lambda act: saving_step(4, act), signal.SIGTERM, 5),
    (evaluating, signal.SIGINT, LAST),
]


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_bit_for_bit(
    small: Callable[..., Path], undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Before its first checkpoint, while it writes one, and in its evaluation."""
    config, run = small(tmp_path), tmp_path / "run"
    for moment, number, step in SIGNALS:
        code = 128 + number
        with asked_to_stop(moment, number):
            told = ends(code, capsys, config)
        assert told == f"step {step} is saved; exit code {code}; run the same command again to go on"
        assert max(complete(run)) == step
    train(config)
    assert differences(undisturbed, run, LAST) == []


def test_signals_that_end_a_run_at_once_and_a_second_run_that_is_refused(
    small: Callable[..., Path], undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """In a process of its own, which is stopped in the middle for the second run to find it there."""
    config = small(tmp_path)
    run = Run(config, tmp_path / "run", devices=jax.device_count(), ends=(LAST,))

    def start(step: int | None) -> subprocess.Popen:
        """A process that stands still after this step; None: that compiles."""
        run.start()
        for _ in patiently(0.002):
            assert not run.has_ended()
            said = run.log.read_text()
            if "memory by arithmetic" in said if step is None else run.steps()[0] >= step:
                break
        run.living[0].send_signal(signal.SIGSTOP)
        return run.living[0]

    try:
        process = start(None)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(300) == 143
        assert re.fullmatch(
            "stopped: SIGTERM before the first step .*; exit code 143\n", run.errors().read_text()
        )

        process = start(2)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(300) in (130, 143)  # whichever of the two was seen last
        assert run.errors().read_text() == ""
        assert re.search(
            "^SIG(INT|TERM): stops after this step and saves; again: at once$", run.log.read_text(), re.M
        )
        assert complete(run.folder) == []

        process = start(5)
        told = ends(1, capsys, config)
        assert told.startswith(f"{run.folder}: another process ")
        assert "; one at a time is allowed; " in told
        process.send_signal(signal.SIGCONT)
        assert process.wait(300) == 0
    finally:
        run.kill()
    assert differences(undisturbed, run.folder, LAST) == []


# ── a folder that may not be written ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that somebody without rights can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_a_folder_that_may_not_be_written_is_refused_at_the_start(
    small: Callable[..., Path], open_to_all: Path, capsys: pytest.CaptureFixture
):
    config = small(open_to_all)
    with stopped_by_permissions():
        open_to_all.chmod(0o555)
        told = ends(2, capsys, config)
    assert told == (
        f"run.folder: '{open_to_all / 'run'}' given, which cannot be made or written (Permission denied); a "
        "folder that can is allowed; choose another run.folder"
    )


def test_a_folder_that_becomes_read_only_in_the_middle_is_one_line_and_costs_nothing(
    small: Callable[..., Path],
    undisturbed: Path,
    open_to_all: Path,
    capsys: pytest.CaptureFixture,
):
    config, checkpoints = small(open_to_all), open_to_all / "run" / "checkpoints"

    def forbid() -> None:
        await_step(checkpoints.parent, 4)
        checkpoints.chmod(0o555)

    with stopped_by_permissions():
        with saving_step(8, forbid):
            told = ends(1, capsys, config)
        assert complete(checkpoints.parent) == [4]
        checkpoints.chmod(0o755)
        train(config)
    assert told == (
        f"{checkpoints}: it may not be written, step 8 could not be saved; step 4 is complete; mend its "
        "permissions and run the same command again"
    )
    assert differences(undisturbed, open_to_all / "run", LAST) == []


# ── the best checkpoint ───────────────────────────────────────────────────────────────────────────────────


def export(*arguments: object) -> None:
    """`python -m jaxlingua.checkpoint export …` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua.checkpoint", "export", *map(str, arguments)])
        exit_with_one_line(exporting.main)


def test_the_best_checkpoint_is_kept_and_exported_though_later_ones_are_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    config = write_config(
        tmp_path / "small.yaml",
        eval={},
        checkpoint={"save_every_steps": 3, "keep_last": 1, "keep_best": 1},
        train=CONFIG["train"] | {"optimizer": {"peak_lr": 0.05, "final_lr_ratio": 1.0}},
    )
    run = tmp_path / "run"
    train(config)
    told = [json.loads(line) for line in (run / "metrics.jsonl").open("rb")]
    losses = {line["step"]: line["held_out_loss"] for line in told if line["step"] in (3, 6, 9, LAST)}
    best = min(losses, key=losses.get)
    assert best != LAST, "this rate is meant to make it worse"
    assert complete(run) == [best, LAST]
    capsys.readouterr()
    export(run, "checkpoint.export.step=best", "checkpoint.export.dtype=float32")
    assert f"step {best}; AutoModelForCausalLM" in capsys.readouterr().out
    exported = load_file(run / "export" / "model.safetensors")["model.norm.weight"]
    np.testing.assert_array_equal(exported, arrays(run, best)["params/final_norm/scale"])
    assert not np.array_equal(exported, arrays(run, LAST)["params/final_norm/scale"])


def test_what_cannot_be_best_is_refused_before_training(
    small: Callable[..., Path], undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    told = ends(2, capsys, small(tmp_path), "checkpoint.keep_best=1", "checkpoint.best_by=held_out_los")
    assert told.startswith("checkpoint.best_by: 'held_out_los' given; stage 'coit' measures held_out_loss, ")
    assert told.endswith("; choose one of these, or set checkpoint.keep_best=0")
    assert not (tmp_path / "run" / "checkpoints").exists()
    run = shutil.copytree(undisturbed, tmp_path / "unmeasured")
    for path in run.glob("checkpoints/*/files.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"metric": None}))
    with pytest.raises(SystemExit) as stop:
        export(run, "checkpoint.export.step=best")
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: checkpoint.export.step: 'best' given; no checkpoint of {run / 'checkpoints'} was kept "
        "for its held-out loss; train with checkpoint.keep_best=1, or give a step\n"
    )
