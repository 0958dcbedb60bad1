"""A run that begins as a copy of another one, to go on from there while that one stays as it is.

The copy is made in a hidden folder beside run.folder, and takes its name once all is there.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from jaxlingua.bucket import is_bucket
from jaxlingua.checkpoint.steps import faults, newest_sound, numbered_steps
from jaxlingua.checkpoint.store import located
from jaxlingua.config import RunConfig
from jaxlingua.errors import ConfigError, MachineError
from jaxlingua.processes.roll_call import alone

FILES = ("config.yaml", "provenance.json", "data.json")  # without one of them a folder is no run that trained
# Of provenance.json: what tells of another run in a copy. The rest is the run's, wherever it goes on.
_STARTS = ("command", "started", "devices", "host", "git_commit", "versions", "resumed", "branched")
# What is made again, what is of that run alone, and what is being written.
_NOT_COPIED = ("cache", "checkpoints", "export", "stacks", "wandb", "report.*", "unfinished.jsonl")
_PASSING = (".*", "*.partial", "*.tmp")


def branch_source(run: RunConfig) -> Path | None:
    """The run that run.folder has to begin as a copy of; None where there is none, or it holds a run already.

    Raises: ConfigError where that is no run, or the two cannot be copied of one another.
    """
    if not run.branch_from:
        return None
    for field in ("branch_from", "folder"):
        if is_bucket(given := getattr(run, field)):
            raise ConfigError(
                f"run.{field}: '{given}' given; a run branches from and to a folder of this machine or of a "
                f"shared file system; copy it yourself (gcloud storage cp -r), give the copy as run.folder, "
                f"and leave run.branch_from out"
            )
    source, folder = Path(run.branch_from), Path(run.folder)
    where = f"run.branch_from: '{source}' given"
    if source.resolve() == folder.resolve():
        raise ConfigError(
            f"{where}, which is run.folder; a run goes on without it; leave it out, or choose another "
            f"run.folder"
        )
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        if (folder / "provenance.json").is_file() and numbered_steps(located(folder / "checkpoints")):
            return None
        raise ConfigError(
            f"run.folder: '{folder}' given with run.branch_from, which holds files and no checkpoint; a run "
            f"that goes on, or a new folder, is allowed; choose another run.folder"
        )
    if not source.is_dir():
        raise ConfigError(f"{where}, which is no folder; that of a run is needed; name it, or train it first")
    if missing := [name for name in FILES if not (source / name).is_file()]:
        raise ConfigError(f"{where}, which has no {missing[0]}; the folder of a run is needed; name one")
    return source


def step_to_branch_from(source: Path, say: Callable[[str], None]) -> int:
    """The newest sound step of a run, which may be training.

    Raises: ConfigError where it has none.
    """
    step = newest_sound(located(source / "checkpoints"), alone(), say, is_owner=False)
    if step is None:
        raise ConfigError(
            f"run.branch_from: '{source}' given, which has no checkpoint that is whole; one is needed; train "
            f"it first"
        )
    return step


def copy_run(source: Path, folder: Path, step: int, say: Callable[[str], None]) -> None:
    """Make `folder`, which this process holds, a copy of the run in `source` at a step of it.

    Other checkpoints stay behind, and answers from after the step.

    Raises: MachineError where files cannot be copied.
    Cost: time and disk of one checkpoint.
    """
    hidden = folder.parent / f".{folder.name}.branch"
    shutil.rmtree(hidden, ignore_errors=True)  # of a start that was interrupted
    try:
        shutil.copytree(source, hidden, ignore=shutil.ignore_patterns(*_NOT_COPIED, *_PASSING))
        while not _copy_step(source, hidden, step):
            step = step_to_branch_from(source, say)
    except shutil.Error as error:
        raise MachineError(
            f"{source}: cannot be copied to {hidden} ({error.args[0][0][2]}); see to the disk and run the "
            f"same command again"
        ) from None
    for home in hidden.glob("evals/*-*"):
        if int(home.name.rpartition("-")[2]) > step:
            shutil.rmtree(home)
    facts = hidden / "provenance.json"
    told = json.loads(facts.read_text("utf-8"))
    starts = {name: told.pop(name) for name in _STARTS if name in told}
    told["branched"] = {"folder": str(source.absolute()), "step": step, **starts}
    facts.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
    for path in folder.glob(".*"):
        path.unlink()  # the lock, which goes with this process anyway
    os.rename(hidden, folder)
    say(f"{folder}: begins as a copy of {source} at step {step:,}")


def _copy_step(source: Path, hidden: Path, step: int) -> bool:
    """False where the step went meanwhile: the run that trains there keeps its newest ones alone."""
    there, copy = (home / "checkpoints" / str(step) for home in (source, hidden))
    try:
        shutil.copytree(there, copy)
    except (shutil.Error, FileNotFoundError):
        if there.exists():
            raise
    if copy.is_dir() and not faults(located(copy)):
        return True
    shutil.rmtree(copy, ignore_errors=True)
    return False
