"""A run that begins as a copy of another one, to go on from there while that one stays as it is.

The copy is made in a hidden folder beside run.folder, and takes its name once all is there.
"""

import json
import os
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from jaxlingua.bucket import is_bucket
from jaxlingua.checkpoint.steps import faults, newest_sound, numbered_steps
from jaxlingua.checkpoint.store import located
from jaxlingua.command_line import load_config
from jaxlingua.config import RunConfig
from jaxlingua.errors import ConfigError, DataError, MachineError
from jaxlingua.processes.roll_call import alone
from jaxlingua.tokens.tokenizer import is_learned

FILES = ("config.yaml", "provenance.json", "data.json")  # without one of them a folder is no run that trained
# Of provenance.json: what tells of another run in a copy. The rest is the run's, wherever it goes on.
_STARTS = ("command", "started", "devices", "host", "git_commit", "versions", "resumed", "branched")
# Of the folder itself: what is made again, and what is of that run alone.
_NOT_COPIED = (
    "cache", "checkpoints", "export", "stacks", "traces", "wandb", "report.*", "forgetting.csv",
    "memory.json",
)  # fmt: skip
# Of all folders in it: what is being written, and what is counted again where it is needed.
_PASSING = (".*", "*.partial", "*.tmp", "unfinished.jsonl")


def branch_source(run: RunConfig) -> Path | None:
    """The run that run.folder has to begin as a copy of; None where there is none, or it holds a run already.

    Raises: ConfigError where that is no run, or the two cannot be copied of one another; DataError where its
        provenance.json is damaged.
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
    inner, outer = sorted((source.resolve(), folder.resolve()), key=lambda path: -len(path.parts))
    if inner.is_relative_to(outer):
        raise ConfigError(
            f"{where}, and run.folder is '{folder}', one inside the other; folders beside each other are "
            f"allowed; choose another run.folder"
        )
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if others := [name for name in there if name != ".lock"]:
        if (folder / "provenance.json").is_file() and numbered_steps(located(folder / "checkpoints")):
            return None
        raise ConfigError(
            f"run.folder: '{folder}' given to be a copy, which holds '{others[0]}' and no checkpoint; a "
            f"run that goes on, or a new folder, is allowed; choose another run.folder"
        )
    if not source.is_dir():
        raise ConfigError(f"{where}, which is no folder; that of a run is needed; name it, or train it first")
    if missing := [name for name in FILES if not (source / name).is_file()]:
        raise ConfigError(f"{where}, which has no {missing[0]}; the folder of a run is needed; name one")
    _facts(source)
    config, tokenizer = load_config(str(source / "config.yaml")), Path("tokenizer", "tokenizer.json")
    if is_learned(config.tokens, config.model.path) and not (source / tokenizer).is_file():
        raise ConfigError(
            f"{where}, which has no {tokenizer}; the one that its model was trained with is needed; bring it "
            f"back, or name another run"
        )
    return source


def _facts(folder: Path) -> dict[str, Any]:
    """Raises: DataError where provenance.json is damaged."""
    path = folder / "provenance.json"
    try:
        told = json.loads(path.read_text("utf-8"))
        if not isinstance(told, dict):
            raise ValueError("not a map")
    except ValueError as error:
        raise DataError(
            f"{path}: damaged ({error}); a run writes whole JSON; bring it back, or name another run"
        ) from None
    return told


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


def copy_run(source: Path, folder: Path, step: int, seed: int, say: Callable[[str], None]) -> None:
    """Make `folder`, which this process holds, a copy of the run in `source` at a step of it.

    Other checkpoints stay behind, and answers from after the step.

    Args:
        seed: run.seed of the copy; that of the other run is kept in provenance.json where it differs.
    Raises: MachineError where files cannot be copied; nothing is left of the copy then.
    Cost: time and disk of one checkpoint.
    """
    hidden = folder.parent / f".{folder.name}.branch"
    shutil.rmtree(hidden, ignore_errors=True)  # of a process that was killed
    try:
        shutil.copytree(source, hidden, ignore=lambda place, names: _left(Path(place) == source, names))
        while not _copy_step(source, hidden, step):
            step = step_to_branch_from(source, say)
        for home in hidden.glob("evals/*-*"):
            number = home.name.rpartition("-")[2]
            if number.isdecimal() and int(number) > step:
                shutil.rmtree(home)
        told = _facts(hidden)
        starts = {name: told.pop(name) for name in _STARTS if name in told}
        told["branched"] = {"folder": str(source.absolute()), "step": step, **starts}
        kept = yaml.safe_load((hidden / "config.yaml").read_text("utf-8"))
        if (before := kept.setdefault("run", {}).get("seed", seed)) != seed:
            told["branched"]["seed"], kept["run"]["seed"] = before, seed
            content = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
            (hidden / "config.yaml").write_text(content, "utf-8")
        text = json.dumps(told, ensure_ascii=False, indent=1) + "\n"
        (hidden / "provenance.json").write_text(text, "utf-8")
        os.rename(folder / ".lock", hidden / ".lock")  # which this process goes on to hold
        os.rename(hidden, folder)
    except OSError as error:
        why = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise MachineError(
            f"{source}: cannot be copied to {hidden} ({why}); see to the disk and run the same command again"
        ) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    say(f"{folder}: begins as a copy of {source} at step {step:,}")


def _left(is_top: bool, names: list[str]) -> set[str]:
    """What of a folder is not copied."""
    patterns = (*_NOT_COPIED, *_PASSING) if is_top else _PASSING
    return {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)}


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
