"""Alpaca-style instruction files in and out again: other texts in three fields, all else as it was.

What is written has the form of what was read, JSON array, JSON lines or Parquet, with the same records in the
same order. Blank lines of JSON lines stay, so that line n is still record n.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxlingua.data.fields import MISSING, lookup, text_field
from jaxlingua.data.readers import PARQUET, Row, cut, find_file, listed, opened, read_rows
from jaxlingua.errors import ConfigError, DataError

FIELDS = ("instruction", "input", "output")
Form = Literal["JSON", "JSON lines", "Parquet"]
_ENDINGS = {".json": "JSON", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".parquet": "Parquet"}


@dataclass(frozen=True)
class InstructionFile:
    """The records of a file, none of them left out."""

    path: Path
    form: Form
    rows: list[Row]

    def texts(self) -> list[dict[str, str]]:
        """Of each record the fields that hold text. `input` may be absent or null; any may be empty.

        Raises: DataError naming the record that has no instruction or output, or something else than text.
        """
        found = []
        for row in self.rows:
            _refuse_other_names(row)
            texts = {name: text_field(row, name, {}) for name in FIELDS if name != "input"}
            if lookup(row.fields, "input") not in (None, MISSING):
                texts["input"] = text_field(row, "input", {})
            found.append({name: texts[name] for name in FIELDS if name in texts})
        return found


def read_instruction_file(path: str, where: str) -> InstructionFile:
    """All records of a file. Raises: DataError where it cannot be read or holds none."""
    file = find_file(path, "", where)
    _refuse_other_forms(file, where)
    rows = list(read_rows(file, where))
    if not rows:
        raise DataError(f"{where} ({file}): no record in it; one or more is needed; write the file again")
    return InstructionFile(file, _form(file, where), rows)


def check_ending(output: Path, form: Form, where: str) -> None:
    """Raises: ConfigError for a name that tells another form than the one that will be written."""
    told = _ENDINGS.get(output.suffix.lower())
    if output.suffix == ".gz" or told not in (None, form):
        ending = next(ending for ending, name in _ENDINGS.items() if name == form)
        raise ConfigError(
            f"{where}: '{output}' given; the file that is read is {form}, and what is written has its form, "
            f"not zipped; name it {output.name.split('.')[0]}{ending}"
        )


def write_like(file: InstructionFile, texts: Sequence[dict[str, str]], output: Path) -> None:
    """The file with other texts in the fields that `texts` gives for each record, at once or not at all."""
    partial = output.with_name(f".{output.name}.partial")
    if file.form == "Parquet":
        _write_parquet(file, texts, partial)
    else:
        with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as written:
            written.write(_json(file, texts))
            written.flush()
            os.fsync(written.fileno())
    os.replace(partial, output)


def _json(file: InstructionFile, texts: Sequence[dict[str, str]]) -> str:
    """Half of a surrogate pair in another field is written as JSON escapes it, by "backslashreplace"."""
    records: list[Any] = [{**row.fields, **new} for row, new in zip(file.rows, texts, strict=True)]
    if file.form == "JSON":
        return json.dumps(records, ensure_ascii=False, indent=2) + "\n"
    lines = [""] * (file.rows[-1].index + 1)
    for row, record in zip(file.rows, records, strict=True):
        lines[row.index] = json.dumps(record, ensure_ascii=False)
    return "".join(f"{line}\n" for line in lines)


def _write_parquet(file: InstructionFile, texts: Sequence[dict[str, str]], partial: Path) -> None:
    """Other columns keep their types, and the file what it says of itself."""
    import pyarrow
    import pyarrow.parquet

    with opened(file.path, "FILE") as source:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(source.read()))
    for name in FIELDS:
        if name in table.column_names:
            place = table.column_names.index(name)
            field = table.schema.field(place)
            column = pyarrow.array([new.get(name) for new in texts], field.type)
            table = table.set_column(place, field, column)
    pyarrow.parquet.write_table(table, partial)


def _refuse_other_names(row: Row) -> None:
    for name in ("instruction", "output"):
        if lookup(row.fields, name) is MISSING:
            raise DataError(
                f"{row.place}: no field '{name}'; the record has {listed(row.fields)}; instruction and "
                f"output are needed, input may be there; rename the fields to these"
            )


def _refuse_other_forms(file: Path, where: str) -> None:
    """A table, or any other text, would be told of as broken JSON."""
    with opened(file, where) as content:
        start = content.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start and not start.startswith((b"[", b"{", PARQUET)):
        first = start.split(b"\n")[0].decode("utf-8", "replace").strip()
        raise DataError(
            f"{where} ({file}): begins with '{cut(first)}'; a JSON array of objects, JSON lines or Parquet "
            f"is read; convert the file"
        )


def _form(file: Path, where: str) -> Form:
    with opened(file, where) as content:
        start = content.read(4096)
    if start.startswith(PARQUET):
        return "Parquet"
    return "JSON" if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[" else "JSON lines"
