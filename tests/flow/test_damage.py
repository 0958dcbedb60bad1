"""Eight ways in which the newest checkpoint comes to harm: each is recognized, told, and costs only the steps since."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flow.kills import differences
from tests.flow.small import train, write_config

# One worker of pytest-xdist takes all, so that the run that is damaged in many ways is trained once.
pytestmark = pytest.mark.xdist_group("damage")

NOBODY = 65534


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps with checkpoints of the last two of 4, 8 and 12, and without tasks, which are slow."""
    config = write_config(tmp_path_factory.mktemp("damage") / "small.yaml", eval={"tasks": []})
    train(config)
    return config.parent / "run"


def largest(step: Path) -> Path:
    """The file with most of the arrays."""
    return max(
        (path for path in (step / "state").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def missing(step: Path) -> Path:
    path = largest(step)
    path.unlink()
    return path


def truncated(step: Path) -> Path:
    path = largest(step)
    os.truncate(path, path.stat().st_size // 2)
    return path


def zeroed(step: Path) -> Path:
    path = largest(step)
    path.write_bytes(bytes(path.stat().st_size))
    return path


def flipped(step: Path) -> Path:
    """One bit of array data, which Orbax restores without a word."""
    path = largest(step)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def without_metadata(step: Path) -> Path:
    path = step / "state" / "_METADATA"
    path.unlink()
    return path


def without_digests(step: Path) -> Path:
    """As a process leaves it that dies after the last array and before the end of the save."""
    path = step / "files.json"
    path.unlink()
    return path


def with_torn_digests(step: Path) -> Path:
    path = step / "files.json"
    path.write_bytes(path.read_bytes()[:-100])
    return path


def empty(step: Path) -> Path:
    shutil.rmtree(step)
    step.mkdir()
    return step / "files.json"


DAMAGES = [missing, truncated, zeroed, flipped, without_metadata, without_digests, with_torn_digests, empty]


def told_of(step: int, out: str) -> str:
    """The one line of the output that tells of damage to this step."""
    [line] = re.findall(rf"^.*checkpoints: step {step} is (?:damaged|unfinished).*$", out, re.MULTILINE)
    return line


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_is_used(
    damage: Callable[[Path], Path], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = shutil.copytree(finished, tmp_path / "run")
    newest = run / "checkpoints" / "12"
    file = damage(newest).relative_to(newest)
    train(run, f"run.folder={run}")
    out = capsys.readouterr().out
    line = told_of(12, out)
    assert str(file) in line
    assert "step 8" in line
    assert "going on from step 8" in out
    assert differences(finished, run, 12) == []


def test_what_is_damaged_is_kept_for_whoever_wants_to_know_why(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    flipped(run / "checkpoints" / "12")
    content = largest(run / "checkpoints" / "12").read_bytes()
    train(run, f"run.folder={run}")
    assert largest(run / "checkpoints" / "12.damaged").read_bytes() == content


def test_a_run_without_a_whole_checkpoint_begins_again_and_says_so(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = shutil.copytree(finished, tmp_path / "run")
    flipped(run / "checkpoints" / "12")
    truncated(run / "checkpoints" / "8")
    train(run, f"run.folder={run}")
    out = capsys.readouterr().out
    assert "step 8" in told_of(12, out)
    assert re.search("none|step 0|beginning", told_of(8, out))
    assert "going on from" not in out
    assert differences(finished, run, 12) == []


def test_what_a_killed_save_left_behind_is_no_damage_and_goes(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Beside whole checkpoints, and under the name of a step that is written again."""
    run = shutil.copytree(finished, tmp_path / "run")
    checkpoints = run / "checkpoints"
    leavings = checkpoints / "12.orbax-checkpoint-tmp"
    (checkpoints / "12").rename(leavings)
    missing(leavings)
    (leavings / "state" / "more").mkdir()
    shutil.copytree(leavings, checkpoints / "16.orbax-checkpoint-tmp")
    train(run, f"run.folder={run}")
    out = capsys.readouterr().out
    assert "damaged" not in out
    assert "going on from step 8" in out
    assert sorted(path.name for path in checkpoints.iterdir()) == ["12", "8"]
    assert differences(finished, run, 12) == []


@pytest.mark.parametrize("what", ["a file", "a folder", "the step"])
def test_a_checkpoint_that_may_not_be_read_is_damaged(
    what: str, finished: Path, capsys: pytest.CaptureFixture
):
    with as_somebody_without_rights(finished) as run:
        newest = run / "checkpoints" / "12"
        path = {"a file": largest(newest), "a folder": newest / "state", "the step": newest}[what]
        path.chmod(0)
        try:
            train(run, f"run.folder={run}")
        finally:
            for there in (path, newest.with_name("12.damaged") / path.relative_to(newest)):
                if there.exists():
                    there.chmod(stat.S_IRWXU)
    out = capsys.readouterr().out
    line = told_of(12, out)
    assert "Permission denied" in line
    assert {"a file": path.name, "a folder": "state", "the step": "files.json"}[what] in line
    assert "going on from step 8" in out


@contextmanager
def as_somebody_without_rights(finished: Path) -> Iterator[Path]:
    """A copy of a run that belongs to whoever this process now is: nobody if it was root, whom nothing stops."""
    with tempfile.TemporaryDirectory() as home:
        run = shutil.copytree(finished, Path(home) / "run")
        is_root = os.geteuid() == 0
        if is_root:
            for path in (Path(home), run, *run.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield run
            found = differences(finished, run, 12)
        finally:
            if is_root:
                os.seteuid(0)
        assert found == []
