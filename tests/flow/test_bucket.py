"""A run whose folder is in a bucket: as one in a folder of this machine, however it ends and goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxlingua import bucket
from jaxlingua.checkpoint.steps import complete_steps, newest_sound
from jaxlingua.checkpoint.store import located
from jaxlingua.command_line import load_config
from jaxlingua.processes.roll_call import Group, alone
from jaxlingua.train.run_folder import own_folder
from tests.buckets import Emulator, fresh_emulator
from tests.flow.kills import ROOT, differences, lines, patiently, places
from tests.flow.small import scored, train, write_config
from tests.flow.test_checkpoint import command

LAST = 12
FP32_STEPS = 1e-5  # of the loss, over the steps of a run on different meshes
# One worker of pytest-xdist takes all, so that there is one emulator and one run that others are compared with.
pytestmark = pytest.mark.xdist_group("bucket")

# The clocks of the lock run fast, here and in the processes that are started.
CLOCKS = {"RENEW_SECONDS": 0.4, "STALE_SECONDS": 3.0, "POLL_SECONDS": 0.05, "RETRY_SECONDS": 3.0}
COMMAND = f"""
from jaxlingua import bucket
vars(bucket).update({CLOCKS})
from jaxlingua.errors import exit_with_one_line
from jaxlingua.train.__main__ import main
from tests.compiling import xla_flags
exit_with_one_line(main)
"""


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, and fast clocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXLINGUA_CACHE", str(tmp_path_factory.mktemp("kept")))
        for name, seconds in CLOCKS.items():
            patch.setattr(bucket, name, seconds)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps, each of them told; a checkpoint after every fourth."""
    return write_config(
        tmp_path_factory.mktemp("bucket") / "small.yaml",
        eval={
            "tasks": ["phrases.eng_Latn-ell_Grek"],
            "items": 4,
            "bootstrap_samples": 20,
            "base_model": False,
        },
        tracking={"log_every_steps": 1, "tensorboard": False},
    )


@pytest.fixture(scope="module")
def local(config: Path) -> Path:
    """The folder of the run on this machine."""
    train(config)
    return config.parent / "run"


@pytest.fixture(scope="module")
def finished(config: Path, local: Path) -> dict[str, bytes]:
    """All objects of the same run in a bucket, where its texts have URL for its address."""
    there = fresh_emulator()
    train(config, f"run.folder={there.url}")
    return readdressed(there.content(), there.url, "URL")


@pytest.fixture
def there() -> Emulator:
    """The service with an empty folder."""
    return fresh_emulator()


@pytest.fixture
def run(there: Emulator, finished: dict[str, bytes]) -> Emulator:
    """The service with a finished run in its folder."""
    for name, content in readdressed(finished, "URL", there.url).items():
        there.put(name, content)
    return there


def readdressed(objects: dict[str, bytes], old: str, new: str) -> dict[str, bytes]:
    """With another address in all but the arrays, which may hold any bytes by chance."""
    return {
        name: content if name.startswith("checkpoints/") else content.replace(old.encode(), new.encode())
        for name, content in objects.items()
    }


def largest(run: Emulator, step: int) -> str:
    """The object of a checkpoint with most of the arrays."""
    names = [name for name in run.names() if name.startswith(f"checkpoints/{step}/state/")]
    return max(names, key=lambda name: len(run.read(name)))


def flip(run: Emulator, step: int) -> str:
    """Give one bit of the arrays another value, in an object that is as good as any to the service."""
    name = largest(run, step)
    content = bytearray(run.read(name))
    content[len(content) // 2] ^= 1
    run.put(name, bytes(content))
    return name


def refused(capsys: pytest.CaptureFixture, start: Callable[[], None], code: int) -> str:
    """The one line with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        start()
    told = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == code, told
    assert len(told) == 1, told
    return told[0]


# ── one run, from its first line to its report ────────────────────────────────────────────────────────────


def test_a_run_in_a_bucket_is_the_run_that_a_folder_of_this_machine_has(
    finished: dict[str, bytes], local: Path, run: Emulator, tmp_path: Path
):
    assert differences(local, run.download(tmp_path), LAST) == []
    here = {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()}
    apart = ("checkpoints/", "cache/", ".lock")
    assert {name for name in finished if not name.startswith(apart)} == {
        name for name in here if not name.startswith(apart)
    }
    assert not [name for name in finished if name.startswith(apart[1:])]
    assert {"config.yaml", "provenance.json", "metrics.jsonl", "data.json", "report.html"} <= finished.keys()
    record = json.loads(finished[f"checkpoints/{LAST}/files.json"])
    assert record["algorithm"] == "crc32c"
    assert record["files"].keys() >= {"meta/metadata", "state/_METADATA"}
    assert b"folder: URL\n" in finished["config.yaml"]
    assert not list(Path(os.environ["JAXLINGUA_CACHE"]).glob("runs/*/copy-*"))


def test_the_report_calls_the_run_by_its_name_and_not_by_that_of_its_copy(finished: dict[str, bytes]):
    assert re.fullmatch(r"run-\d+", json.loads(finished["report.json"])["name"])


def test_a_finished_run_is_started_by_its_address_and_trains_nothing(
    run: Emulator, capsys: pytest.CaptureFixture
):
    before = run.content()
    train(run.url)
    out = capsys.readouterr().out
    assert f"going on from step {LAST}\n" in out
    assert not re.search(r"^coit: step", out, re.MULTILINE)
    assert "evaluating" not in out
    after = run.content()
    kept = [name for name in before if re.match(r"checkpoints/|evals/|tokenizer/|metrics|config|data", name)]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after.keys() == before.keys()
    assert len(json.loads(after["provenance.json"])["resumed"]) == 1


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_damaged_checkpoint_is_told_and_moved_and_the_one_before_is_used(
    run: Emulator, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    name = flip(run, LAST)
    damaged = run.read(name)
    train(run.url)
    out = capsys.readouterr().out
    inner = name.removeprefix(f"checkpoints/{LAST}/")
    assert (
        f"{run.url}/checkpoints: step {LAST} is damaged ({inner}: its content is not what was written); "
        f"it is kept as {LAST}.damaged; looking at step 8\n" in out
    )
    assert "going on from step 8\n" in out
    assert run.read(f"checkpoints/{LAST}.damaged/{inner}") == damaged
    assert differences(local, run.download(tmp_path), LAST) == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda run: run.remove(largest(run, LAST)), r"damaged \(state/.*: it is missing\)"),
        (lambda run: run.put(largest(run, LAST), b"12"), r"damaged \(state/.*: 2 bytes there, \S+ written\)"),
        (lambda run: run.put(f"checkpoints/{LAST}/files.json", b"{"), r"damaged \(files.json cannot be read"),
        (
            lambda run: run.remove(f"checkpoints/{LAST}/files.json"),
            r"unfinished \(it has no files.json, which is written last\)",
        ),
        # Killed between the digests and the mark without which Orbax reads nothing.
        (
            lambda run: run.remove(f"checkpoints/{LAST}/commit_success.txt"),
            r"unfinished \(it has no commit_success.txt, which is written last\)",
        ),
    ],
)
def test_every_kind_of_damage_is_seen_without_reading_the_arrays(
    run: Emulator, damage: Callable[[Emulator], None], told: str
):
    damage(run)
    folder, said = located(f"{run.url}/checkpoints"), []
    run.asked.clear()
    assert newest_sound(folder, alone(), said.append, is_owner=False) == 8
    assert re.fullmatch(rf"{folder}: step {LAST} is {told}.*; looking at step 8", said[0])
    assert not [asked for asked in run.asked if "alt=media" in asked and "/state/" in asked]
    if "written last" in told:
        assert complete_steps(folder) == [8]


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────


def test_a_second_run_is_refused_while_one_is_going_on(
    there: Emulator, config: Path, capsys: pytest.CaptureFixture
):
    with bucket.working_copy(there.url, is_primary=True):
        told = refused(capsys, lambda: train(config, f"run.folder={there.url}"), 1)
    assert re.fullmatch(
        rf"error: {there.url}: another process trains here \(\S+, pid {os.getpid()}\); one at a time is .*",
        told,
    )
    assert there.names() == set()


def test_an_absent_bucket_and_a_missing_permission_are_told_and_nothing_is_begun(
    there: Emulator, config: Path, capsys: pytest.CaptureFixture
):
    told = refused(capsys, lambda: train(config, "run.folder=gs://nowhere/run"), 2)
    assert told.startswith("error: gs://nowhere/run: there is no bucket 'nowhere', or it may not be seen;")
    told = refused(capsys, lambda: train("gs://nowhere/run"), 2)
    assert told.startswith("error: gs://nowhere/run/config.yaml: there is no bucket 'nowhere'")
    told = refused(capsys, lambda: train(there.url), 2)
    assert told.startswith(f"error: {there.url}: no config.yaml there;")
    for method in ("GET", "POST"):
        with there.failing(403, containing=method, times=float("inf")):
            told = refused(capsys, lambda: train(config, f"run.folder={there.url}"), 2)
        assert told.startswith(f"error: {there.url}: permission denied by Google Cloud Storage;")
    assert there.names() == set()


def test_another_run_is_refused_by_the_address_of_the_one_that_is_there(
    run: Emulator, config: Path, capsys: pytest.CaptureFixture
):
    before = run.content()
    told = refused(capsys, lambda: train(run.url, "run.seed=1"), 2)
    assert told == (
        f"error: {run.url}: holds another run: run.seed: 0 there, 1 given; choose another run.folder, or go "
        f"on with the values of {run.url}/config.yaml"
    )
    assert run.content() == before


@pytest.mark.parametrize(
    "containing", ["checkpoints/8", "POST /upload/storage/v1/b/bucket/o?uploadType=media"]
)
def test_a_permission_that_is_taken_away_in_the_middle_is_one_line_and_what_was_saved_stays(
    there: Emulator, config: Path, capsys: pytest.CaptureFixture, containing: str
):
    with there.failing(403, containing=containing, times=float("inf")):
        told = refused(capsys, lambda: train(config, f"run.folder={there.url}", "eval.tasks=[]"), 2)
    assert told.startswith(f"error: {there.url}/checkpoints: permission denied by Google Cloud Storage;")
    is_first_saved = containing == "checkpoints/8"
    assert complete_steps(located(f"{there.url}/checkpoints")) == ([4] if is_first_saved else [])
    assert ".lock" not in there.names()
    assert 4 in told_steps(there)


def test_what_is_left_of_a_run_without_checkpoints_is_seen_by_no_process(
    run: Emulator, config: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each has a copy of its own: the first cannot remove it for the others."""
    bucket.move(f"{run.url}/checkpoints", f"{run.url}/moved")
    monkeypatch.setattr(Group, "is_primary", False)
    monkeypatch.setattr(Group, "share", lambda self, value: [])  # there are no steps, says the first
    with own_folder(load_config(str(config), [f"run.folder={run.url}"]), alone(), print) as home:
        assert home.step is None
        assert (home.path / "provenance.json").is_file()
        assert not [path for path in home.path.glob("evals/*") if not path.name.endswith("-0")]
        assert not (home.path / "tokenizer").exists()
    assert f"evals/coit-{LAST}/scores.json" in run.names()


# ── public checkpoints ────────────────────────────────────────────────────────────────────────────────────


def test_a_run_in_a_bucket_is_exported_and_a_model_imported_into_one(
    run: Emulator, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    told = refused(capsys, lambda: command("export", run.url), 2)
    assert told == (
        f"error: checkpoint.export.folder: 'auto' given, and '{run.url}' is in a bucket; a folder of this "
        f"machine is allowed; give one"
    )
    before = run.names()
    command("export", local, f"checkpoint.export.folder={tmp_path / 'local'}")
    command("export", run.url, f"checkpoint.export.folder={tmp_path / 'there'}")
    weights = (tmp_path / "local" / "model.safetensors").read_bytes()
    assert (tmp_path / "there" / "model.safetensors").read_bytes() == weights
    assert run.names() == before

    made = fresh_emulator()
    command("import", tmp_path / "there", made.url)
    assert {"config.yaml", "provenance.json", "tokenizer/tokenizer.json"} <= made.names()
    assert {name for name in made.names() if name.startswith((".lock", "cache/"))} == set()
    command("export", made.url, f"checkpoint.export.folder={tmp_path / 'again'}")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights
    told = refused(capsys, lambda: command("import", tmp_path / "there", made.url), 2)
    assert "which holds checkpoints; a new folder is allowed" in told


# ── ends of all kinds, in processes of their own ──────────────────────────────────────────────────────────


class Process:
    """The command in a process of its own, and what it says."""

    def __init__(self, log: Path, *arguments: object, devices: int = 8):
        self.log, self.err = log.with_suffix(".log"), log.with_suffix(".err")
        flags = xla_flags(devices)
        with self.log.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *map(str, arguments)],
                cwd=ROOT,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
            )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in patiently(0.01):
            if condition():
                return
            assert self.process.poll() is None, self.err.read_text()

    def end(self, number: signal.Signals) -> int:
        """Send a signal; the exit code."""
        os.kill(self.process.pid, number)
        return self.process.wait(300)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def told_steps(there: Emulator) -> list[int]:
    """The steps in metrics.jsonl."""
    return [json.loads(line)["step"] for line in there.read("metrics.jsonl").splitlines()]


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on_bit_for_bit_and_metrics_have_no_hole(
    there: Emulator, config: Path, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = f"run.folder={there.url}"
    with Process(tmp_path / "stopped", config, folder) as stopped:
        stopped.wait_for(lambda: "coit: step 5 of" in stopped.log.read_text())
        assert stopped.end(signal.SIGTERM) == 143
        [step] = re.findall(r"^stopped: step (\d+) is saved; exit code 143;", stopped.err.read_text(), re.M)
    at = int(step)
    assert 5 <= at < LAST
    assert told_steps(there) == list(range(1, at + 1))
    assert f"checkpoints/{at}/commit_success.txt" in there.names()
    assert ".lock" not in there.names()

    newer = at // 4 * 4 + 4
    with Process(tmp_path / "killed", there.url) as killed:  # with the configuration that the bucket has
        killed.wait_for(lambda: f"checkpoints/{newer}/commit_success.txt" in there.names())
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL
        assert f"going on from step {at}\n" in killed.log.read_text()
        pid = killed.process.pid
    assert ".lock" in there.names()
    carried = told_steps(there)
    assert carried == list(range(1, len(carried) + 1))
    assert len(carried) >= newer  # carried by the save: nothing else carries within 30 s

    began = time.monotonic()
    train(there.url)
    assert time.monotonic() - began > CLOCKS["STALE_SECONDS"]
    out = capsys.readouterr().out
    assert re.search(rf"^{there.url}: \S+, pid {pid} trains here, or was killed;", out, re.MULTILINE)
    assert re.search(rf"^going on from step ({newer}|{LAST})$", out, re.MULTILINE)
    assert ".lock" not in there.names()
    assert differences(local, there.download(tmp_path / "there"), LAST) == []


@pytest.mark.slow
def test_two_processes_train_into_one_bucket(there: Emulator, config: Path, local: Path, tmp_path: Path):
    """Each with a copy of its own, of which the first's is carried."""
    began = [
        Process(tmp_path / str(index), config, f"run.folder={there.url}", *given, devices=4)
        for index, given in enumerate(places(2))
    ]
    try:
        codes = [process.process.wait(200) for process in began]
    finally:
        for process in began:
            process.__exit__()
    assert codes == [0, 0], [process.err.read_text() for process in began]
    run = there.download(tmp_path / "there")
    np.testing.assert_allclose(
        [line["loss"] for line in lines(run)], [line["loss"] for line in lines(local)], rtol=FP32_STEPS
    )
    assert scored(run, f"coit-{LAST}") == scored(local, f"coit-{LAST}")
    assert {"process_0", "process_1"} <= {path.name for path in run.glob("checkpoints/*/state/*/*")} | {
        path.name.removeprefix("ocdbt.") for path in run.glob(f"checkpoints/{LAST}/state/ocdbt.*")
    }
    assert not list(Path(os.environ["JAXLINGUA_CACHE"]).glob("runs/*/copy-*"))
