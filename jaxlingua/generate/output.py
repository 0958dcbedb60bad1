"""A file that answers become: begun, gone on with, done; never mixed of different settings.

OUT                    all of it, once all is known
OUT.unfinished/        settings, and answers so far, while it goes on
"""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlingua.errors import ConfigError, DataError, MachineError

_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)  # the last is told in /proc
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def journal_folder(output: Path) -> Path:
    """Where answers lie until all are there."""
    return output.with_name(f"{output.name}.unfinished")


def check_output(output: Path) -> None:
    """Raises: ConfigError for a place where no file can be written."""
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(
            f"--output: '{output}' given, which is {'a folder' if output.is_dir() else 'in no folder'}; a "
            f"file in a folder that is there is allowed; give one"
        )
    if output.exists():  # it may be whole already
        return
    try:
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise ConfigError(
            f"--output: '{output}' given, in a folder where no file can be made ({error.strerror}); one "
            f"that can be written is allowed; choose another"
        ) from None


def is_done(
    output: Path, settings: Mapping[str, Any], record: Path, *, what: str, are_all: bool = True
) -> bool:
    """Whether the output of these settings is there already, or else may be written.

    Args:
        record: the file beside a whole output that holds its settings.
        what: a whole output is, such as "translation".
        are_all: whether settings of further names are other settings; False while some are not known.
    Raises: ConfigError for a file that is not ours, for an output of other settings, and for answers of other
        settings.
    """
    folder = journal_folder(output)
    if output.exists() and record.is_file():  # a process that ended here may have left its folder
        before = _settings_in(record)
        if (before if are_all else _part(before, settings)) == settings:
            return True
    if (folder / "settings.json").is_file():
        before = _settings_in(folder / "settings.json")
        _refuse_other(before if are_all else _part(before, settings), settings, output, f"remove {folder}")
        return False
    if not output.exists():
        return False
    if not record.is_file():
        raise ConfigError(
            f"--output: '{output}' given, which is there already and no {what} of ours; a new name is "
            f"allowed; choose one"
        )
    before = _settings_in(record)
    _refuse_other(
        before if are_all else _part(before, settings), settings, output, f"remove it and {record.name}"
    )
    return True


@contextmanager
def held(output: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Make the folder of answers so far, with the settings that they belong to, and hold it.

    It is removed when the block ends well. A full disk is told with its name. Raises: MachineError where
    another process holds it.
    """
    folder = journal_folder(output)
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError(
                f"--output: '{output}' given, which another process is writing; wait for it, or stop it"
            ) from None
        write_record(folder / "settings.json", {"settings": settings})
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM and error.filename is None:
                error.filename = str(folder)
            raise
        shutil.rmtree(folder)


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """The whole file or none of it; `content` has the settings as "settings"."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(
        json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8", "backslashreplace", "\n"
    )
    os.replace(partial, path)


def _part(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in before.items() if name in now}


def _refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], output: Path, remedy: str) -> None:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise ConfigError(
                f"--output: '{output}' given, which was begun with {name} {_short(before.get(name))}; now "
                f"{_short(now.get(name))} is given; give the same again, choose another name, or {remedy}"
            )


def _short(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{shown if len(shown) <= 60 else shown[:12]}'"


def _settings_in(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, dict) and isinstance(content.get("settings"), dict):
            return content["settings"]
    except ValueError:
        pass
    raise DataError(f"{path}: damaged; what this command wrote there is needed; remove it and the output")
