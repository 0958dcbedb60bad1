"""Eight ways in which a checkpoint comes to harm: each is recognized and told, and costs only the steps since."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flow.kills import differences
from tests.flow.small import train, write_config
from tests.rights import stopped_by_permissions

# One worker of pytest-xdist takes all, so that the run that is damaged in many ways is trained once.
pytestmark = pytest.mark.xdist_group("damage")

STALE = ".orbax-checkpoint-tmp"  # what Orbax calls a step until all of it is written


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps with a checkpoint of each, and without tasks, which are slow."""
    config = write_config(
        tmp_path_factory.mktemp("damage") / "small.yaml",
        eval={"tasks": []},
        checkpoint={"save_every_steps": 1, "keep_last": 12},
    )
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


def forbidden_file(step: Path) -> Path:
    path = largest(step)
    path.chmod(0)
    return path


def forbidden_folder(step: Path) -> Path:
    (step / "state").chmod(0)
    return step / "state"


def forbidden_step(step: Path) -> Path:
    step.chmod(0)
    return step / "files.json"


DAMAGES = {
    **{12: missing, 11: truncated, 10: zeroed, 9: flipped, 8: without_metadata, 7: without_digests},
    **{6: with_torn_digests, 5: empty, 4: forbidden_file, 3: forbidden_folder, 2: forbidden_step},
}


def told_of(step: int, out: str) -> str:
    """The one line of the output that tells of damage to this step."""
    [line] = re.findall(rf"^.*checkpoints: step {step} is (?:damaged|unfinished).*$", out, re.MULTILINE)
    return line


def test_every_kind_of_damage_is_told_and_the_newest_whole_checkpoint_is_used(
    finished: Path, capsys: pytest.CaptureFixture
):
    """Of twelve checkpoints eleven are damaged, each in its way; a save that was cut off has left its folder."""
    with copied_as_somebody_without_rights(finished) as run:
        checkpoints = run / "checkpoints"
        shutil.copytree(checkpoints / "12", checkpoints / f"13{STALE}")
        damaged = {step: damage(checkpoints / str(step)) for step, damage in DAMAGES.items()}
        files = {step: str(file.relative_to(checkpoints / str(step))) for step, file in damaged.items()}
        flipped_bytes = damaged[9].read_bytes()
        train(run, f"run.folder={run}")
        out = capsys.readouterr().out
        there = {path.name for path in checkpoints.iterdir()}
        kept_bytes = (checkpoints / "9.damaged" / files[9]).read_bytes()
    for step, file in files.items():
        line = told_of(step, out)
        assert file in line, DAMAGES[step]
        assert f"step {step - 1}" in line
    assert all("Permission denied" in told_of(step, out) for step in (4, 3, 2))
    assert "step 13" not in out
    assert "going on from step 1\n" in out
    # Written again under their names; what may tell somebody why is kept beside.
    assert {str(step) for step in range(1, 13)} <= there
    assert not [name for name in there if STALE in name]
    assert kept_bytes == flipped_bytes


def test_a_run_without_a_whole_checkpoint_begins_again_and_says_so(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = shutil.copytree(finished, tmp_path / "run")
    for step in range(1, 11):
        shutil.rmtree(run / "checkpoints" / str(step))
    flipped(run / "checkpoints" / "12")
    truncated(run / "checkpoints" / "11")
    train(run, f"run.folder={run}")
    out = capsys.readouterr().out
    assert "step 11" in told_of(12, out)
    assert re.search("none|step 0|beginning", told_of(11, out))
    assert "going on from" not in out
    assert differences(finished, run, 12) == []


@contextmanager
def copied_as_somebody_without_rights(finished: Path) -> Iterator[Path]:
    """A copy of a run; within, permissions stop this process even if it is root.

    At the end the copy has to be what the run is.
    """
    with tempfile.TemporaryDirectory() as home:
        run = shutil.copytree(finished, Path(home) / "run")
        try:
            with stopped_by_permissions():
                yield run
        finally:
            for path in (run / "checkpoints").glob("*.damaged*"):
                for inner in (path, path / "state", *path.rglob("*")):
                    if inner.exists():
                        inner.chmod(stat.S_IRWXU)
        assert differences(finished, run, 12) == []
