"""The steps of a checkpoint folder: which are whole, which are not, and what is kept of them.

    <step>/state <step>/meta             written by Orbax, under another name until all is there
    <step>/files.json                    written last: size and digest of every file; without it none counts
    <step>/commit_success.txt            in a bucket after that, by Orbax; without it none counts either
    <step>.unfinished  <step>.damaged    what was found wanting and moved out of the way

Orbax has no digest of array data: one flipped byte in them is restored without a word (measured, 0.12.8).
"""

import base64
import errno
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import xxhash
from etils import epath

from jaxlingua.bucket import is_bucket, listing, move
from jaxlingua.errors import CheckpointError, ConfigError, MachineError
from jaxlingua.processes.roll_call import Group

RECORD = "files.json"
LOCAL, IN_BUCKETS = "xxh3_128", "crc32c"  # storage tells the latter of every object without reading it
_READ_AT_ONCE = 1 << 22
_THREADS = 4
# What a network file system or a busy machine answers, and a disk that fails; none of it tells of a file.
_PASSING = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.ENOMEM}
_TEMPORARY = ".orbax-checkpoint-tmp"
_MARK = "commit_success.txt"  # in a bucket, where nothing is renamed; without it Orbax does not read a step
# Into these Orbax writes when it commits, which is after files.json; nothing is read from them.
_NOT_COUNTED = (RECORD, f".{RECORD}.partial", "_CHECKPOINT_METADATA", _MARK)


@dataclass(frozen=True)
class Record:
    """What files.json tells of a step."""

    step: int
    metric: float | None
    algorithm: str
    files: Mapping[str, tuple[int, str]]


def write_record(folder: epath.Path, step: int, metric: float | None) -> None:
    """Make a step count: all its files are read once, or listed where they lie in a bucket.

    Cost: 1.2 GB that are still in memory in 0.4 s at most, on 4 busy cores; in a bucket nothing is read.
    """
    algorithm = IN_BUCKETS if is_bucket(str(folder)) else LOCAL
    content = {"step": step, "metric": metric, "algorithm": algorithm}
    files = _contents(folder, algorithm)
    for told in files.values():
        if isinstance(told, OSError):
            raise told
    text = json.dumps(content | {"files": files}, indent=0)
    if is_bucket(str(folder)):  # where an object is there whole or not at all
        (folder / RECORD).write_text(text)
        return
    partial = folder / f".{RECORD}.partial"
    partial.write_text(text)
    partial.rename(folder / RECORD)


def _written_last(folder: epath.Path) -> tuple[str, ...]:
    return (RECORD, _MARK) if is_bucket(str(folder)) else (RECORD,)


def being_written(folder: epath.Path, step: int) -> epath.Path:
    """Where Orbax has the files of a step that it is about to commit, by a rename or, in a bucket, a mark."""
    under_another_name = [path for path in _entries(folder) if path.name.startswith(f"{step}{_TEMPORARY}")]
    return under_another_name[0] if under_another_name else folder / str(step)


def read_record(folder: epath.Path) -> Record | None:
    """None where there is none, so that the step does not count.

    Raises: ValueError where it is damaged; OSError where it cannot be read.
    """
    try:
        content = json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        return None
    try:
        files = {name: (size, digest) for name, (size, digest) in content["files"].items()}
        return Record(content["step"], content["metric"], content["algorithm"], files)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{error!r}") from None


def complete_steps(folder: epath.Path) -> list[int]:
    """Steps that were written to their end, oldest first; whether they still are whole is not looked at."""
    return sorted(
        step
        for step in numbered_steps(folder)
        if all((folder / str(step) / name).exists() for name in _written_last(folder))
    )


def faults(folder: epath.Path, part: int = 0, parts: int = 1) -> list[str]:
    """What is wrong with a step, file by file; nothing if it is whole.

    Args:
        part, parts: several processes look at a part of the files each.
    Cost: reads everything, or in a bucket nothing.
    """
    try:
        record = read_record(folder)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError):
            _raise_if_passing(error)
        return [f"{RECORD} cannot be read: {_reason(error)}"]
    if record is None:
        return [f"it has no {RECORD}, which is written last"]
    if missing := [name for name in _written_last(folder) if not (folder / name).exists()]:
        return [f"it has no {missing[0]}, which is written last"]
    names = sorted(record.files)[part::parts]
    try:
        there = _contents(folder, record.algorithm, names)
    except OSError as error:
        _raise_if_passing(error)
        return [f"it cannot be read: {_reason(error)}"]
    return [
        f"{name}: {fault}"
        for name in names
        if (fault := _fault(there.get(name), record.files[name])) is not None
    ]


def _raise_if_passing(error: OSError) -> None:
    """Raises: MachineError for what may be gone at the next try, which is no damage."""
    if error.errno in _PASSING:
        raise MachineError(
            f"{error.filename or 'checkpoints'}: cannot be read now ({_reason(error)}); see to the disk and "
            f"run the same command again"
        ) from None


def _fault(there: Any, written: tuple[int, str]) -> str | None:
    if there is None:
        return "it is missing"
    if isinstance(there, OSError):
        return f"it cannot be read: {_reason(there)}"
    if there[0] != written[0]:
        return f"{there[0]:,} bytes there, {written[0]:,} written"
    return None if there == written else "its content is not what was written"


def newest_sound(
    folder: epath.Path, group: Group, say: Callable[[str], None], *, is_owner: bool
) -> int | None:
    """The newest step that is whole; None if there is none. The same in all processes, which all call this.

    Args:
        say: told what is wrong with newer ones.
        is_owner: whether those are moved out of the way, so that the run can write these steps again.
    """
    steps = group.share(sorted(numbered_steps(folder), reverse=True) if group.is_primary else None)
    for place, step in enumerate(steps):
        if not is_owner and not (folder / str(step)).exists():  # the run that trains there has removed it
            return newest_sound(folder, group, say, is_owner=is_owner)
        found = faults(folder / str(step), group.index, group.count)
        parts = group.gather([found[:1], len(found)])
        wrong = list(dict.fromkeys(fault for first, _ in parts for fault in first))
        if not wrong:
            return step
        if not is_owner and not (folder / str(step)).exists():
            return newest_sound(folder, group, say, is_owner=is_owner)
        if group.is_primary:
            older = steps[place + 1 :]
            next_ = f"looking at step {older[0]}" if older else "there is none before it"
            count = len(wrong) + sum(number - 1 for _, number in parts if number)
            more = f" and {count - 1} more" if count > 1 else ""
            # On a disk the name of a step comes with its record; in a bucket files come one by one.
            is_unfinished = is_bucket(str(folder)) and wrong[0].endswith("written last")
            what = "unfinished" if is_unfinished else "damaged"
            kept = f"; it is kept as {_move_away(folder, step, what).name}" if is_owner else ""
            say(f"{folder}: step {step} is {what} ({wrong[0]}{more}){kept}; {next_}")
    return None


def _move_away(folder: epath.Path, step: int, what: str) -> epath.Path:
    target = folder / f"{step}.{what}"
    if is_bucket(str(folder)):
        move(str(folder / str(step)), str(target))
        return target
    try:
        if target.exists():
            target.rmtree()
        (folder / str(step)).rename(target)
    except OSError as error:
        raise MachineError(
            f"{folder / str(step)}: {what}, and it cannot be moved away ({_reason(error)}); move or remove "
            f"it and run the same command again"
        ) from None
    return target


def remove_leavings(folder: epath.Path) -> None:
    """What interrupted saves and removals have left. Not to be called while a step is being written."""
    complete = complete_steps(folder)
    for path in _entries(folder):
        is_old = (
            path.name.isdigit()
            and int(path.name) not in complete
            and int(path.name) < max(complete, default=0)
        )
        if is_old or _TEMPORARY in path.name or path.name.endswith(".unfinished"):
            path.rmtree(missing_ok=True)


def keep_only(
    folder: epath.Path, *, last: int, best: int, also: Collection[int] = (), after: int = 0
) -> None:
    """Remove complete steps but the newest `last`, the `best` with the lowest metric, and those in `also`.

    Args:
        after: the step after which the newest stage began; only those of later steps are compared.
    """
    steps = complete_steps(folder)
    kept = {*steps[-last:], *also}
    if best:
        kept |= set(best_steps(folder, after)[:best])
    for step in steps:
        if step not in kept:
            (folder / str(step) / RECORD).unlink()  # it no longer counts, should the removal be interrupted
            (folder / str(step)).rmtree()


def best_steps(folder: epath.Path, after: int = 0) -> list[int]:
    """Complete steps that have a metric, from the lowest on; of two that are equal the later one.

    Args:
        after: only later steps; losses of different stages are of different text.
    """
    told = []
    for step in complete_steps(folder):
        try:
            record = read_record(folder / str(step))
        except (ValueError, OSError):
            continue
        if record is not None and record.metric is not None and step > after:
            told.append((record.metric, -step))
    return [-step for _, step in sorted(told)]


def numbered_steps(folder: epath.Path) -> list[int]:
    """Steps that have a folder, whole or not."""
    return [int(path.name) for path in _entries(folder) if re.fullmatch(r"\d+", path.name)]


def _entries(folder: epath.Path) -> Iterable[epath.Path]:
    try:
        return list(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be listed ({_reason(error)}); a folder that can be read is needed; mend its "
            f"permissions"
        ) from None


def _contents(folder: epath.Path, algorithm: str, names: Iterable[str] | None = None) -> dict[str, Any]:
    """(size, digest) by name, or the OSError of those that cannot be read; absent files are left out."""
    if is_bucket(str(folder)) and algorithm == IN_BUCKETS:
        there = listing(str(folder))
        return {
            name: told for name, told in there.items() if _counts(name) and (names is None or name in names)
        }
    if names is None:
        names = [
            os.path.relpath(os.path.join(home, name), folder)
            for home, _, files in os.walk(folder, onerror=_raise)
            for name in files
        ]
    wanted = [name for name in names if _counts(name)]

    def told(name: str) -> Any:
        try:
            return _digest(folder / name, algorithm)
        except FileNotFoundError:
            return None
        except OSError as error:
            _raise_if_passing(error)
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        return {name: value for name, value in zip(wanted, pool.map(told, wanted), strict=True) if value}


def _counts(name: str) -> bool:
    return name not in _NOT_COUNTED


def _digest(path: epath.Path, algorithm: str) -> tuple[int, str]:
    """Size and digest of a file, the latter as storage gives it."""
    state, size = xxhash.xxh3_128() if algorithm == LOCAL else _crc32c(path), 0
    with path.open("rb") as file:
        while block := file.read(_READ_AT_ONCE):
            state.update(block)
            size += len(block)
    return size, state.hexdigest() if algorithm == LOCAL else base64.b64encode(state.digest()).decode()


def _crc32c(path: epath.Path) -> Any:
    try:
        from google_crc32c import Checksum
    except ImportError:
        raise ConfigError(
            f"{path}: was written in a bucket, whose digests need google-crc32c, which is not installed; "
            f"pip install 'jaxlingua[gcs]'"
        ) from None
    return Checksum()


def _raise(error: OSError) -> None:
    raise error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return " ".join(str(error).split())[:200]
