"""What the compiler said of a step, kept under a hash of the step, since the compiler keeps nothing itself.

Its own cache is written for devices that are not here, but cannot be read back. One gzipped file per entry,
written beside and moved into place; what cannot be read whole, or belongs to another step, is not there.
"""

import contextlib
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = 1
LARGEST_BYTES = 2**28  # of all entries; a program of a 7B step takes 0.1 MB


@dataclass(frozen=True)
class Compiled:
    """What the compiler said of a step; sizes in bytes per chip.

    `peak` is what the program holds at its fullest moment, arguments included, or would hold if it could.
    `text` is the scheduled program; it is empty where the step does not fit, and where `no_text` says why the
    compiler does not give it.
    """

    fits: bool
    peak: int
    arguments: int
    temporaries: int
    outputs: int
    aliased: int
    code: int
    seconds: float
    text: str
    no_text: str


@dataclass(frozen=True)
class Stored:
    """An entry, or what is said of one that is damaged, or that may be there but cannot be read."""

    compiled: Compiled | None
    damage: str = ""
    unreadable: str = ""


def store_folder() -> Path:
    """In the user's cache, which XDG_CACHE_HOME moves."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "jaxlingua" / "plans"


def key_of(lowered_text: str, identity: Mapping[str, Any]) -> str:
    """The name of an entry: SHA-256 of the lowered step, and of all else that decides the outcome."""
    about = json.dumps({**identity, "format": FORMAT}, sort_keys=True)
    return hashlib.sha256(f"{about}\n{lowered_text}".encode()).hexdigest()


def load(folder: Path, key: str) -> Stored:
    """The entry of `key`, if there is one and it is whole."""
    path = _path(folder, key)
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
    except FileNotFoundError:
        return Stored(None)
    except (gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
        return Stored(None, f"{path}: {error}")
    except OSError as error:
        return Stored(None, unreadable=f"{folder}: {error.strerror or error}")
    wanted = {field.name for field in fields(Compiled)}
    compiled = content.get("compiled") if isinstance(content, dict) else None
    if not isinstance(compiled, dict) or content.get("key") != key or compiled.keys() != wanted:
        return Stored(None, f"{path}: of another step, or of another version of jaxlingua")
    if content.get("digest") != _digest(compiled):
        return Stored(None, f"{path}: changed since it was written")
    with contextlib.suppress(OSError):
        os.utime(path)  # used last, so removed last
    return Stored(Compiled(**compiled))


def save(folder: Path, key: str, compiled: Compiled) -> None:
    """Keep an entry, and remove those that were not used for longest where there are too many.

    Raises: OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"key": key, "digest": _digest(asdict(compiled)), "compiled": asdict(compiled)}
    packed = gzip.compress(json.dumps(content).encode(), mtime=0)
    handle, beside = tempfile.mkstemp(prefix=".", suffix=".partial", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(packed)
        os.replace(beside, _path(folder, key))
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    _remove_oldest(folder)


def _remove_oldest(folder: Path) -> None:
    left, entries = LARGEST_BYTES, {}
    for path in folder.glob("*.gz"):
        with contextlib.suppress(FileNotFoundError):  # another plan may be removing, too
            entries[path] = path.stat()
    for path in sorted(entries, key=lambda path: entries[path].st_mtime, reverse=True):
        left -= entries[path].st_size
        if left < 0:
            path.unlink(missing_ok=True)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.json.gz"


def _digest(compiled: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(compiled), sort_keys=True).encode()).hexdigest()
