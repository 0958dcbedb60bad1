"""The run folder: one process has it, one run is in it, and it tells how the run can be repeated."""

import datetime
import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import yaml
from etils import epath
from jax.sharding import Mesh
from pydantic import BaseModel

from jaxlingua import __version__
from jaxlingua.bucket import in_one_line, is_bucket, working_copy
from jaxlingua.checkpoint.steps import newest_sound, numbered_steps
from jaxlingua.checkpoint.store import located
from jaxlingua.command_line import load_config
from jaxlingua.config import Config, StageConfig
from jaxlingua.data.records import RecordSource
from jaxlingua.data.replay import write_replay
from jaxlingua.errors import ConfigError, DataError, MachineError
from jaxlingua.processes.roll_call import Group, alone
from jaxlingua.sharding.mesh import describe_mesh
from jaxlingua.tokens.describe import describe_source, describe_stage
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.stages import Stage
from jaxlingua.tokens.tokenizer import is_learned
from jaxlingua.train.branch import branch_source, copy_run, step_to_branch_from

# Packages whose version can change what a run computes or how it is stored.
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
    *("transformers", "tokenizers", "sacrebleu", "babel", "regex", "pycountry"),
)
DIFFERENCES_SHOWN = 5
SEEN_SECONDS = 30.0  # in which a shared file system shows what another process wrote
PUBLIC, ADAPTER = "model.path", "model.lora.adapter"  # in the fingerprints of provenance.json
KEPT = "model"  # config.json and generation_config.json of the public checkpoint that a run begins from


@dataclass(frozen=True)
class RunFolder:
    """A run's folder as this process has it.

    `path` is where small files are read and written: the folder itself, or a copy of one in a bucket, which
    `carry` brings up to date there. `step` is the newest whole checkpoint, None where a run begins.
    """

    path: Path
    checkpoints: epath.Path
    step: int | None
    carry: Callable[[], None]
    group: Group

    @property
    def tokenizer(self) -> Path | None:
        """Where the tokenizer is kept. At a run's beginning the first process alone writes it."""
        return self.path / "tokenizer" if is_primary() or self.step is not None else None


@contextmanager
def own_folder(config: Config, group: Group, say: Callable[[str], None]) -> Iterator[RunFolder]:
    """The folder of the run, for the processes of this run alone; a folder of another run is refused.

    Where checkpoints are there already, every field that is part of a run's identity must be the same, but
    for stages that are not begun; sources and stages may be added. Where there are none, a run begins anew,
    or as a copy of the run that `run.branch_from` names.

    Args:
        say: told of checkpoints that are damaged or unfinished, and of the copy.
    Raises: ConfigError with the differences, or where the folder cannot be made; MachineError while another
        process has it.
    """
    if config.run.branch_from:
        if group.is_primary:
            _branch(config, say)
        group.share(None)  # it is there before anybody looks for it
    with held_folder(config.run.folder, group, say) as (folder, carry):
        is_ours = (folder / "provenance.json").is_file()
        checkpoints = located(f"{config.run.folder}/checkpoints")
        with _in_one_line(config.run.folder):
            saved = numbered_steps(checkpoints) if group.is_primary else []
        before = refuse_other_run(config, folder, saved)  # before any checkpoint is touched
        with _in_one_line(config.run.folder):
            step = newest_sound(checkpoints, group, say, is_owner=True)
        is_own = group.is_primary or is_bucket(config.run.folder)
        if step is None and is_own and is_ours:  # what is left of a run that cannot go on
            trained = [path for path in folder.glob("evals/*-*") if not path.name.endswith("-0")]
            for path in (*trained, folder / "tokenizer", folder / KEPT):
                shutil.rmtree(path, ignore_errors=True)
        if step is not None and is_own and before is not None:
            _forget_evaluations(folder, step, {stage.name for stage in before.stages[: _begun(folder, step)]})
        group.share(None)  # what is removed is gone before anybody reads on
        yield RunFolder(folder, checkpoints, step, carry, group)


def refuse_other_run(config: Config, folder: Path, saved: Collection[int]) -> Config | None:
    """The configuration of the run whose checkpoints are `saved`; None where there is none to go on with.

    Args:
        folder: run.folder, or the local copy of it.
    Raises: ConfigError where `config` is of another run, or the folder is no run's.
    """
    kept = folder / "config.yaml"
    if not kept.is_file():
        return None
    if not (folder / "provenance.json").is_file():
        raise ConfigError(
            f"run.folder: '{config.run.folder}' given, which has a config.yaml that is not a run's; the "
            f"folder of a run, or a new one, is allowed; choose another run.folder"
        )
    if not saved:
        return None
    before = load_config(str(kept))
    now, begun = _with_kept_paths(config, before), _begun(folder, max(saved))
    _refuse_differences(config.run.folder, list(identity_differences(before, now, begun)))
    return before


def _forget_evaluations(folder: Path, step: int, begun: Collection[str]) -> None:
    """Remove those of later steps of stages that are not begun any more, where a run went back to `step`.

    Such a stage may become another one, whose scores they are not.
    """
    for path in folder.glob("evals/*-*"):
        stage, _, number = path.name.rpartition("-")
        if number.isdecimal() and int(number) > step and stage not in begun:
            shutil.rmtree(path, ignore_errors=True)


def _branch(config: Config, say: Callable[[str], None]) -> None:
    """Copy the run that this one branches from, unless it is here; first everything is checked."""
    if (branch := checked_branch(config, say)) is None:
        return
    source, step = branch
    with lock_folder(Path(config.run.folder), say):
        copy_run(source, Path(config.run.folder), step, config.run.seed, say)


def checked_branch(config: Config, say: Callable[[str], None]) -> tuple[Path, int] | None:
    """The run that run.folder begins as a copy of, and its step; None where it holds a run already.

    The copy may have another run.seed where the stages that are begun have ended, and nothing of them but
    the order of their examples was drawn by the seed: what they learned is in the checkpoint then.

    Raises: ConfigError where there is no such run, or it is another one.
    """
    source = branch_source(config.run)
    if source is None:
        return None
    step, before = step_to_branch_from(source, say), load_config(str(source / "config.yaml"))
    now = _with_kept_paths(config, before)
    if now.run.seed != before.run.seed:
        _refuse_seed(before, now.run.seed, source, step)
        before = before.model_copy(update={"run": before.run.model_copy(update={"seed": now.run.seed})})
    if differences := list(identity_differences(before, now, _begun(source, step))):
        raise ConfigError(
            f"run.branch_from: '{source}' given, which is another run: {_shown(differences)}; stages, "
            f"sources and tasks may be added; extend it (extends={source}), or leave run.branch_from out"
        )
    return source, step


def _refuse_seed(before: Config, seed: int, source: Path, step: int) -> None:
    """Raises: ConfigError where a stage that a run has begun would be another one with another seed."""
    kept = before.run.seed
    where = f"run.seed: {seed} given, and run.branch_from '{source}' has {kept}"
    begun = _begun(source, step) or 0
    ends = sum(stage["steps"] for stage in _read_json(source / "data.json")["stages"][:begun])
    if step != ends:
        raise ConfigError(
            f"{where}, whose stage '{before.stages[begun - 1].name}' ends at step {ends:,} and is at "
            f"{step:,}; another seed is allowed from the end of a stage on; train it to its end, or give "
            f"run.seed={kept}"
        )
    for stage in before.stages[:begun]:
        drawn = "has objectives" if any(e.objectives != "off" for e in stage.mixture.values()) else ""
        if drawn or stage.steps == "auto":
            raise ConfigError(
                f"{where}, whose stage '{stage.name}' {drawn or 'has a length in epochs or tokens'}, which "
                f"the seed changes; another seed is allowed after stages with steps and without "
                f"objectives; give run.seed={kept}, or train such a run"
            )


@contextmanager
def held_folder(
    folder: str, group: Group, say: Callable[[str], None]
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The folder here, held by the first process alone, and what carries it to where it belongs."""
    with ExitStack() as stack:
        if not group.is_primary:
            group.share(None)  # the first has it before anybody else looks into it
        if is_bucket(folder):
            copy = stack.enter_context(working_copy(folder, is_primary=group.is_primary, say=say))
            path, carry = copy.path, copy.carry
        else:
            path, carry = Path(folder), _nothing
            stack.enter_context(lock_folder(path, say) if group.is_primary else nullcontext())
        if group.is_primary:
            group.share(None)
        if not is_bucket(folder):
            _refuse_other_folder(path, group)
        yield path, carry


def _refuse_other_folder(folder: Path, group: Group) -> None:
    """Raises: MachineError in a process whose folder of that name is not the one of the first process."""
    mark = folder / ".lock"
    if group.is_primary:
        mark.write_text(uuid.uuid4().hex)
    wanted = group.share(mark.read_text() if group.is_primary else None)
    end = time.monotonic() + SEEN_SECONDS
    while not mark.is_file() or mark.read_text() != wanted:
        if time.monotonic() > end:
            raise MachineError(
                f"run.folder: '{folder}' given, which here is {folder.absolute()} and not the folder of "
                f"process 0; all processes need the same one; give a path on a shared file system, or gs://…"
            )
        time.sleep(0.1)


def _in_one_line(folder: str) -> AbstractContextManager[None]:
    return in_one_line(folder) if is_bucket(folder) else nullcontext()


def _nothing() -> None:
    """What is here need not be carried anywhere."""


@contextmanager
def opened_run(folder: str, say: Callable[[str], None]) -> Iterator[RunFolder]:
    """The folder of a run, to be read; it may be one in which a process trains.

    Args:
        say: told of checkpoints that are damaged or unfinished.
    """
    checkpoints = located(f"{folder}/checkpoints")
    with ExitStack() as stack:
        path = Path(folder)
        if is_bucket(folder):
            path = stack.enter_context(working_copy(folder, is_primary=False, say=say)).path
        with _in_one_line(folder):
            step = newest_sound(checkpoints, alone(), say, is_owner=False)
        yield RunFolder(path, checkpoints, step, _nothing, alone())


@contextmanager
def lock_folder(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Make the folder and hold it; the lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        known = (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError)
        if not isinstance(error, known) and error.errno != errno.EROFS:
            raise
        raise ConfigError(
            f"run.folder: '{folder}' given, which cannot be made or written ({error.strerror}); a folder "
            f"that can is allowed; choose another run.folder"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError(
                f"{folder}: another process trains here; one at a time is allowed; wait for it or stop it, "
                f"or choose another run.folder"
            ) from None
        except OSError as error:
            say(f"{folder}: the file system has no locks ({error.strerror}); see that no other run uses it")
        yield


def _with_kept_paths(config: Config, before: Config) -> Config:
    """`config` with the absolute paths of `before` where its own mean the same, whether they exist or not."""
    for section, field in (("model", "path"), ("tokens", "path"), ("data", "wording_folder")):
        given, kept = getattr(config, section), getattr(getattr(before, section), field)
        path = getattr(given, field)
        if path and _absolute(path) == kept:
            config = config.model_copy(update={section: given.model_copy(update={field: kept})})
    given, kept = config.model.lora, before.model.lora
    if "off" not in (given, kept) and given.adapter and _absolute(given.adapter) == kept.adapter:
        config = _with_adapter(config, kept.adapter)
    return config


def _with_adapter(config: Config, path: str) -> Config:
    lora = config.model.lora.model_copy(update={"adapter": path})
    return config.model_copy(update={"model": config.model.model_copy(update={"lora": lora})})


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _with_absolute_paths(config: Config) -> Config:
    """Where relative paths start from is written out, so that the run can be repeated from anywhere."""
    folders = {"folder": config.data.folder, "wording_folder": config.data.wording_folder}
    folders = {field: _absolute(path) for field, path in folders.items() if path}
    changed: dict[str, Any] = {"data": config.data.model_copy(update=folders)}
    for section in ("model", "tokens"):
        given = getattr(config, section)
        local = Path(given.path).expanduser()
        if given.path and local.exists():
            changed[section] = given.model_copy(update={"path": str(local.absolute())})
    changed["run"] = config.run.model_copy(update={"branch_from": ""})  # all of it is here now
    config = config.model_copy(update=changed)
    adapter = "" if config.model.lora == "off" else config.model.lora.adapter
    is_here = adapter and Path(adapter).expanduser().exists()
    return _with_adapter(config, _absolute(adapter)) if is_here else config


def _begun(folder: Path, step: int) -> int | None:
    """How many stages of the run in the folder are begun at `step`; None where it does not tell."""
    if not (folder / "data.json").is_file():
        return None
    return sum(first < step for first in _first_steps(folder))


def stage_began_at(folder: Path, step: int) -> int:
    """The step after which the stage of a checkpoint began; 0 where the folder does not tell."""
    if not (folder / "data.json").is_file():
        return 0
    return max((first for first in _first_steps(folder) if first < step), default=0)


def _first_steps(folder: Path) -> Iterator[int]:
    told = _read_json(folder / "data.json")["stages"]
    return itertools.accumulate((stage["steps"] for stage in told[:-1]), initial=0)


def _refuse_differences(folder: str, differences: list[str]) -> None:
    if differences:
        raise ConfigError(
            f"{folder}: holds another run: {_shown(differences)}; choose another run.folder, or go on with "
            f"the values of {folder}/config.yaml"
        )


def _shown(differences: list[str]) -> str:
    more = len(differences) - DIFFERENCES_SHOWN
    return "; ".join(differences[:DIFFERENCES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def identity_differences(before: Config, now: Config, begun: int | None = None) -> Iterator[str]:
    """ "path: old there, new given" for each field of a run's identity in which two configurations differ.

    Only the first `begun` stages count (None: all there were), those whose learning rate goes on from them,
    and sources that both have. Where the base of adapters lies is no matter: it is read at each start, and
    its fingerprint tells whether it is the same.
    """
    if "off" not in (before.model.lora, now.model.lora) and now.model.path:
        now = now.model_copy(update={"model": now.model.model_copy(update={"path": before.model.path})})
    count = _scheduled(before.stages, len(before.stages) if begun is None else begun)
    stages = before.stages[:count]
    if count < _scheduled(now.stages, count):
        name = now.stages[count].name
        yield (
            f"stages[{count}].schedule: 'continue' given for '{name}', and the learning rate of the stage "
            f"before was to end with it (restart is allowed)"
        )
    sources = {name: source for name, source in before.data.sources.items() if name in now.data.sources}
    added = {name: source for name, source in now.data.sources.items() if name not in sources}
    data = before.data.model_copy(update={"sources": sources | added})
    yield from _differences(before.model_copy(update={"stages": stages, "data": data}), now, "")


def _scheduled(stages: Sequence[StageConfig], begun: int) -> int:
    """How many stages have a learning rate that is fixed once `begun` of them are begun."""
    while 0 < begun < len(stages) and stages[begun].schedule == "continue":
        begun += 1
    return begun


def _differences(before: Any, now: Any, where: str) -> Iterator[str]:
    if isinstance(before, BaseModel) and type(before) is type(now):
        for name, field in type(before).model_fields.items():
            is_identity = (field.json_schema_extra or {}).get("on_resume") == "identity"
            if is_identity or isinstance(getattr(before, name), BaseModel):
                path = f"{where}.{name}" if where else name
                yield from _differences(getattr(before, name), getattr(now, name), path)
    elif isinstance(before, list) and where == "stages":
        for place, stage in enumerate(before):
            path = f"{where}[{place}]"
            if place < len(now):
                yield from _differences(stage, now[place], path)
            else:
                yield f"{path}: '{stage.name}' there, none given"
    elif isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), f"{where}.{key}")
    elif before != now:
        yield f"{where}: {_short(before)} there, {_short(now)} given"


def write_facts(
    home: RunFolder,
    config: Config,
    sources: Mapping[str, RecordSource],
    tokenizer: Tokenizer,
    stages: Sequence[Stage],
    mesh: Mesh,
    *,
    public: Mapping[str, str],
    program: str = "jaxlingua.train",
) -> None:
    """config.yaml; provenance.json: versions, command, commit and hashes; data.json: what is learned.

    What was chosen for replay is in replay/, a file for each entry.

    The command, versions, commit and devices are those the run began with; `resumed` has those of each start
    after that. Of a run that began as a copy `branched` tells the same of the other one, and its folder and
    step; config.yaml has all stages, and names that run no more.

    Args:
        public: fingerprints of the public checkpoint and adapter that the run begins from, as far as they are
            opened.
    Raises: ConfigError if tokenizer or data are not those that the folder's checkpoints were made with.
    """
    folder, step = home.path, home.step
    path = folder / "provenance.json"
    fingerprints = {"tokenizer": tokenizer.fingerprint}
    fingerprints |= {f"data.sources.{name}": source.fingerprint for name, source in sources.items()}
    fingerprints |= public
    fingerprints |= {
        f"stages.{stage.config.name}.mixture.{entry}": fingerprint
        for stage in stages
        for entry, fingerprint in stage.batches.fingerprints.items()
    }
    start = {
        "command": " ".join([f"python -m {program}", *sys.argv[1:]]),
        "started": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "devices": describe_mesh(mesh, config.sharding.slices),
        "host": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "git_commit": _git_commit(),
        "versions": _versions(),
    }
    _refuse_processes_that_differ(home.group, fingerprints, [stage.end_step for stage in stages])
    content = {**start, "resumed": [], "begun_with": _digest(config.stages)}
    if path.is_file() and step is not None:
        before = _read_json(path)
        is_copy = "command" not in before  # of another run, at its first start
        resumed = [] if is_copy else [*before["resumed"], {"step": step, **start}]
        content |= {name: before[name] for name in (*content, "branched") if name in before}
        content["resumed"] = resumed
        begun = sum(stage.first_step < step for stage in stages)
        begun = _scheduled([stage.config for stage in stages], begun)
        names = [stage.config.name for stage in stages[:begun]]
        _refuse_other_data(config, before["fingerprints"], fingerprints, names)
        for name in (PUBLIC, ADAPTER):
            if name in before["fingerprints"]:
                fingerprints.setdefault(name, before["fingerprints"][name])
    repeat = (
        f"python -m jaxlingua.train {config.run.folder} run.folder=ANOTHER" if stages else content["command"]
    )
    if is_learned(config.tokens, config.model.path) and content["begun_with"] != _digest(config.stages):
        # It was learned on the stages that there were at the start.
        repeat += f" tokens.kind=huggingface tokens.path={config.run.folder}/tokenizer"
    if "seed" in content.get("branched", {}):  # its earlier stages were drawn by another one
        repeat += f" run.branch_from={content['branched']['folder']}"
    content |= {"repeat": repeat, "tokenizer": tokenizer.fingerprint, "fingerprints": fingerprints}
    write_json(path, content)
    if is_primary():
        resolved = _with_absolute_paths(config).model_dump(mode="json")
        _replace(folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        _write_replays(folder / "replay", stages)
    described = [describe_source(source) for source in sources.values()]
    write_json(
        folder / "data.json", {"sources": described, "stages": [describe_stage(stage) for stage in stages]}
    )


def _write_replays(folder: Path, stages: Sequence[Stage]) -> None:
    """What was chosen for each entry that is replay."""
    for stage in stages:
        for entry, records in stage.examples.replay.items():
            folder.mkdir(exist_ok=True)
            write_replay(folder / f"{stage.config.name}.{entry}.jsonl", records)


def _refuse_other_data(
    config: Config, before: Mapping[str, str], now: Mapping[str, str], begun: Sequence[str]
) -> None:
    """Whatever was hashed then and now must be the same, but for stages that are not begun."""
    for name, fingerprint in now.items():
        kept = before.get(name, fingerprint)
        is_begun = not name.startswith("stages.") or name.split(".")[1] in begun
        if kept != fingerprint and is_begun:
            dropped = ", and with data.leaks=drop the eval.tasks and eval.items"
            raise ConfigError(
                f"{config.run.folder}: {name} is not what the run began with (fingerprint {kept[:12]} there, "
                f"{fingerprint[:12]} now); restore it{dropped if config.data.leaks == 'drop' else ''}, or "
                f"choose another run.folder"
            )


def _refuse_processes_that_differ(
    group: Group, fingerprints: Mapping[str, str], end_steps: Sequence[int]
) -> None:
    """Raises: ConfigError, in all processes, where one has read other data than the first."""
    first, *others = group.gather([dict(fingerprints), list(end_steps)])
    for index, told in enumerate(others, start=1):
        if told != first:
            names = [*first[0], *told[0]]
            name = next((name for name in names if first[0].get(name) != told[0].get(name)), "stages")
            raise ConfigError(
                f"{name}: process {index} has read other content than process 0; all processes need the same "
                f"data; copy it to all hosts, or to a folder that all see"
            )


def _digest(stages: Sequence[StageConfig]) -> str:
    return hashlib.sha256(repr(stages).encode()).hexdigest()[:16]


def kept_fingerprint(folder: Path, name: str) -> str | None:
    """A fingerprint in the folder's provenance.json; None where it tells none."""
    path = folder / "provenance.json"
    return _read_json(path)["fingerprints"].get(name) if path.is_file() else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path}: damaged ({error}); a run writes whole JSON; bring it back, or choose another run.folder"
        ) from None


def write_json(path: Path, content: Any) -> None:
    """The whole file or none of it; by the first process alone."""
    if is_primary():
        _replace(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def is_primary() -> bool:
    """Whether this process writes files and speaks."""
    return process_index() == 0


def process_index() -> int:
    """Which of the run's processes this is."""
    return jax.process_index()


def _short(value: Any) -> str:
    text = json.dumps(
        value, ensure_ascii=False, default=lambda v: v.model_dump() if isinstance(v, BaseModel) else str(v)
    )
    return text if len(text) <= 60 else text[:59] + "…"


@functools.cache
def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"jaxlingua": __version__, "python": platform.python_version(), **packages}


def _git_commit() -> str:
    """Commit of the checkout that jaxlingua runs from; "none" where it was installed from a wheel.

    tpu/setup.sh sends files without their history, and the commit as JAXLINGUA_COMMIT.
    """
    if "JAXLINGUA_COMMIT" in os.environ:
        return os.environ["JAXLINGUA_COMMIT"]
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        ours = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "none"
    return commit.stdout.strip() if ours.returncode == 0 else "none"


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)
