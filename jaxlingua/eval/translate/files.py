"""The output of a translation and what lies beside it.

OUT                    the records of FILE in their order, other fields untouched
OUT.report.json        counts, and each record that needs a look
OUT.unfinished/        settings, and answers so far, while it goes on (`generate.output`)
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlingua.data.instruction_file import InstructionFile, write_like
from jaxlingua.eval.translate.fields import Field
from jaxlingua.eval.translate.report import report_of
from jaxlingua.generate.output import is_done as output_is_done
from jaxlingua.generate.output import write_record


def report_path(output: Path) -> Path:
    """Where the report lies."""
    return output.with_name(f"{output.name}.report.json")


def settings_of(file: InstructionFile, **settings: Any) -> dict[str, Any]:
    """All that the output depends on, beside what is in the model."""
    content = hashlib.sha256(file.path.read_bytes()).hexdigest()
    return {"file": file.path.name, "file_sha256": content, **settings}


def is_done(output: Path, settings: Mapping[str, Any], *, are_all: bool = True) -> bool:
    """Whether the translation of these settings is there already; see `generate.output.is_done`."""
    return output_is_done(output, settings, report_path(output), what="translation", are_all=are_all)


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
    write_record(report_path(output), report)
    return report
