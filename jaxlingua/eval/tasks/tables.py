"""Files of benchmarks to rows: what readers.py reads, and tables with a header, quotes or neither."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxlingua.data.fields import MISSING, as_text, lookup
from jaxlingua.data.readers import Row, empty, kind_of, listed, read_lines, read_rows, read_squad, read_text
from jaxlingua.errors import DataError


def read_file(
    path: Path, format: str, columns: Mapping[str, str], rows: Mapping[str, str], where: str
) -> Iterator[Row]:
    """The records of a file, less those that have other values than `rows` says.

    Raises: DataError naming file and line for what cannot be read.
    """
    match format:
        case "squad":
            found = read_squad(path, where)
        case "jsonl" | "json":
            found = read_rows(path, where)
        case "csv":
            found = read_csv(path, where)
        case "tsv":
            found = read_plain_table(path, where, columns)
        case _:
            found = _lines(path, where)
    for row in found:
        if all(str(value_of(row, column)) == value for column, value in rows.items()):
            yield row


def read_csv(path: Path, where: str) -> Iterator[Row]:
    """A comma-separated file with header; a quoted field may hold commas, quotes and line breaks."""
    reader = csv.reader(io.StringIO(read_text(path, where), newline=""), strict=True)
    header: list[str] = []
    line, index = 1, 0
    try:
        for cells in reader:
            place, line = f"{where} ({path}:{line})", reader.line_num + 1
            if not header:
                header = _header(cells, place)
            elif cells:
                yield _table_row(header, cells, place, index, "quote a field that holds a comma")
                index += 1
    except csv.Error as error:
        raise DataError(
            f"{where} ({path}:{line}): broken CSV, {error}; whole lines with paired quotes are needed; "
            f"mend the record or copy the file again"
        ) from None
    if not header:
        raise empty(path, where)


def read_plain_table(path: Path, where: str, columns: Mapping[str, str]) -> Iterator[Row]:
    """A tab-separated file; quotes are text. Columns that are all numbers, from 1, mean no header."""
    numbers = [int(column) for column in columns.values() if column.isdecimal()]
    is_numbered = bool(columns) and len(numbers) == len(columns)
    header: list[str] = []
    for number, line in enumerate(read_lines(path, where), 1):
        place = f"{where} ({path}:{number})"
        cells = line.split("\t")
        if is_numbered:
            if line and len(cells) < max(numbers):
                raise DataError(
                    f"{place}: {len(cells)} columns given; {max(numbers)} or more are needed; "
                    f"part columns by one tab"
                )
            if line:
                yield Row(place, number - 1, {str(at): cell for at, cell in enumerate(cells, 1)})
        elif not header:
            header = _header(cells, place)
        elif line:
            yield _table_row(header, cells, place, number - 2, "have no tab in a text")


def _lines(path: Path, where: str) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path, where), 1):
        yield Row(f"{where} ({path}:{number})", number - 1, {"line": line})


def _header(cells: list[str], place: str) -> list[str]:
    if repeated := [cell for cell in cells if cells.count(cell) > 1]:
        raise DataError(f"{place}: column '{repeated[0]}' given twice; each has its own name; rename one")
    return cells


def _table_row(header: list[str], cells: list[str], place: str, index: int, remedy: str) -> Row:
    if len(cells) != len(header):
        raise DataError(
            f"{place}: {len(cells)} columns given; the header has {len(header)}, {listed(header)}; {remedy}"
        )
    return Row(place, index, dict(zip(header, cells, strict=True)))


# ── one field ───────────────────────────────────────────────────────────────────────────────────────────────


def value_of(row: Row, column: str) -> object:
    """The value of a column that must be there."""
    value = lookup(row.fields, column)
    if value is MISSING:
        raise DataError(
            f"{row.place}: no field '{column}'; the record has {listed(row.fields)}; "
            f"mend the record, or `fields` and `rows` of the task file"
        )
    return value


def text_of(row: Row, column: str) -> str:
    """The text of a column; numbers as they are written, null as nothing."""
    value = row.fields[column] if column in row.fields else value_of(row, column)
    if isinstance(value, str):
        return value if value.isascii() else as_text(value, row.place, column)
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(
        f"{row.place}: field '{column}' is {kind_of(value)}; text or a number is needed; mend the record"
    )
