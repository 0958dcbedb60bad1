"""The output of a translation and what lies beside it.

OUT                    the records of FILE in their order, other fields untouched
OUT.report.json        counts, and each record that needs a look
OUT.unfinished/        settings, and answers so far, while it goes on
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlingua.data.instruction_file import InstructionFile, write_like
from jaxlingua.errors import ConfigError, DataError, MachineError
from jaxlingua.eval.translate.fields import Field
from jaxlingua.eval.translate.report import report_of


def report_path(output: Path) -> Path:
    """Where the report lies."""
    return output.with_name(f"{output.name}.report.json")


def journal_folder(output: Path) -> Path:
    """Where answers lie until all are there."""
    return output.with_name(f"{output.name}.unfinished")


def settings_of(file: InstructionFile, **settings: Any) -> dict[str, Any]:
    """All that the output depends on, beside what is in the model."""
    content = hashlib.sha256(file.path.read_bytes()).hexdigest()
    return {"file": file.path.name, "file_sha256": content, **settings}


def is_done(output: Path, settings: Mapping[str, Any], *, are_all: bool = True) -> bool:
    """Whether the output of these settings is there already, or else may be written.

    Args:
        are_all: whether settings of further names are other settings; False while some are not known.
    Raises: ConfigError for a file that is not ours, for an output of other settings, and for answers of other
        settings.
    """
    folder, report = journal_folder(output), report_path(output)
    if (folder / "settings.json").is_file():
        before = _settings_in(folder / "settings.json")
        _refuse_other(before if are_all else _part(before, settings), settings, output, f"remove {folder}")
        return False
    if not output.exists():
        return False
    if not report.is_file():
        raise ConfigError(
            f"--output: '{output}' given, which is there already and no translation of ours; a new name is "
            f"allowed; choose one"
        )
    before = _settings_in(report)
    _refuse_other(
        before if are_all else _part(before, settings), settings, output, f"remove it and {report.name}"
    )
    return True


@contextmanager
def held(output: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Make the folder of answers so far, with the settings that they belong to, and hold it.

    It is removed when the block ends well. Raises: MachineError where another process holds it.
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
        _write(folder / "settings.json", {"settings": settings})
        yield
        shutil.rmtree(folder)


def finish(
    file: InstructionFile,
    texts: Sequence[Mapping[str, str]],
    fields: Mapping[str, Field],
    settings: Mapping[str, Any],
    output: Path,
) -> dict[str, Any]:
    """Write output and report. Gives the report."""
    report = report_of(file, texts, fields, settings)
    write_like(file, [{name: fields[text].text for name, text in one.items()} for one in texts], output)
    _write(report_path(output), report)
    return report


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


def _write(path: Path, content: Any) -> None:
    """The whole file or none of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(
        json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8", "backslashreplace", "\n"
    )
    os.replace(partial, path)
