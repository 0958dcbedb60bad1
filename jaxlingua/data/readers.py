"""Files to rows: JSON, JSONL, Parquet, SQuAD and plain lines, with errors that name the line.

Whether a file is gzipped, Parquet, a JSON array or JSONL goes by its first bytes, never by its name. A line
ends at "\\n" (or "\\r\\n") and nowhere else: U+2028 and U+0085 belong to the text. Everything is UTF-8, with
or without a byte order mark.
"""

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from jaxlingua.errors import DataError, nearest

GZIP, PARQUET, BOM = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
SHOWN = 5  # names listed in an error before the rest is counted
SHOWN_CHARACTERS = 40  # of a text in an error
# How files begin that came in place of the data, in lower case, what they are and what to do.
MISTAKEN = {
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the file itself with git lfs pull"),
    b"<!doctype html": ("an HTML page", "download the file itself again"),
    b"<html": ("an HTML page", "download the file itself again"),
    b"pk\x03\x04": ("a ZIP archive or a spreadsheet", "unpack it, or save the sheet as CSV or TSV"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("a spreadsheet", "save it as CSV or TSV"),
}


class Row(NamedTuple):
    """One entry of a file: its place for errors, its number from 0, its fields by name."""

    place: str
    index: int
    fields: Mapping[str, Any]


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────


def find_file(path: str, folder: str, where: str) -> Path:
    """The file that `path` names, absolute or relative to `folder`; it is there, readable and not empty.

    Raises: DataError with the nearest name in its folder where there is no such file, or saying what came in
        place of the data.
    """
    found = Path(folder) / path
    try:
        if not found.is_file():
            raise _no_file(found, folder, where)
        if found.stat().st_size == 0:
            raise empty(found, where)
    except PermissionError as error:
        raise DataError(
            f"{where}.path: '{found}' given, no permission to look into '{error.filename}'; "
            f"a file that can be read is needed; allow it with chmod a+rx on its folders"
        ) from None
    with opened(found, where) as file:
        start = file.read(64).removeprefix(BOM).lstrip().lower()
    for beginning, (kind, remedy) in MISTAKEN.items():
        if start.startswith(beginning):
            raise DataError(f"{where} ({found}): the file is {kind}; data is needed; {remedy}")
    return found


def _no_file(found: Path, folder: str, where: str) -> DataError:
    parent = found.parent
    if found.is_dir():
        names = _names_in(found)
        given = f"'{found}' is {'a' if names else 'an empty'} folder; a file is needed"
        return DataError(f"{where}.path: {given}; name {f'one of {listed(names)}' if names else 'another'}")
    if found.exists():
        return DataError(f"{where}.path: '{found}' is a device; a file is needed; write what it gives to one")
    if not parent.is_dir():
        lacks = f"'{parent}' is a file, no folder" if parent.is_file() else f"there is no folder '{parent}'"
        return DataError(
            f"{where}.path: '{found}' given; {lacks}; "
            f"write an absolute path or one relative to data.folder='{folder}'"
        )
    names = _names_in(parent)
    hint = nearest(found.name, names, "the folder has") if names else "its folder is empty"
    return DataError(f"{where}.path: '{found}' does not exist; {hint}")


def empty(path: Path, where: str) -> DataError:
    """The error for a file with nothing in it."""
    return DataError(
        f"{where} ({path}): the file is empty; one record or more is needed; write the file again"
    )


def listed(names: Iterable[str]) -> str:
    """Names in quotes, cut after five with a count."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(f"'{name}'" for name in names[:SHOWN]) or "nothing") + more


def sha256_of(paths: Iterable[Path], where: str) -> str:
    """One hash over the contents of some files, the same whether they are gzipped or not."""
    digest = hashlib.sha256()
    for path in paths:
        with opened(path, where) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@contextmanager
def opened(path: Path, where: str) -> Iterator[BinaryIO]:
    """The bytes of a file, unzipped where it is gzipped."""
    try:
        with path.open("rb") as file:
            zipped = file.peek(len(GZIP)).startswith(GZIP)
            yield io.BufferedReader(gzip.GzipFile(fileobj=file)) if zipped else file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{where} ({path}): damaged gzip, {error}; a whole file is needed; copy it again"
        ) from None
    except PermissionError:
        raise DataError(f"{where} ({path}): no permission to read it; allow it with chmod a+r") from None


def _names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# ── text ────────────────────────────────────────────────────────────────────────────────────────────────────


def read_lines(path: Path, where: str) -> Iterator[str]:
    """Lines of a file without their ends and without a byte order mark. One line is held at a time."""
    offset = 0
    with opened(path, where) as file:
        for number, line in enumerate(file, 1):
            start, end = 0, len(line)
            if number == 1 and line.startswith(BOM):
                start = len(BOM)
            if line.endswith(b"\n"):
                end -= 2 if line.endswith(b"\r\n") else 1
            try:
                yield line[start:end].decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(path, where, number, offset + start, error) from None
            offset += len(line)


def read_text(path: Path, where: str) -> str:
    """A whole file as it is, without a byte order mark."""
    with opened(path, where) as file:
        content = file.read()
    start = len(BOM) if content.startswith(BOM) else 0
    try:
        return content[start:].decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, start + error.start) + 1
        raise _not_utf8(path, where, line, start, error) from None


def _not_utf8(path: Path, where: str, line: int, offset: int, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"{where} ({path}:{line}): byte 0x{byte:02x} at offset {offset + error.start} is not UTF-8; "
        f"only UTF-8 is read; convert the file, for example with iconv"
    )


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────


def read_rows(path: Path, where: str) -> Iterator[Row]:
    """Objects of a JSON array, of JSON lines or of a Parquet table, told apart by their first bytes.

    Blank lines of JSONL are no rows, but count: the index of a row is its line number less one.
    """
    with opened(path, where) as file:
        head = file.peek(len(PARQUET))
    if head.startswith(PARQUET):
        yield from _parquet_rows(path, where)
    elif _first_byte(path, where) == b"[":
        for index, fields in enumerate(read_json(path, where)):
            yield _row(f"{where} ({path}, record {index + 1})", index, fields)
    else:
        for number, line in enumerate(read_lines(path, where), 1):
            if line and not line.isspace():
                place = f"{where} ({path}:{number})"
                yield _row(place, number - 1, _parse(line, place))


def read_json(path: Path, where: str) -> Any:
    """The one JSON value of a whole file."""
    text = read_text(path, where)
    if not text or text.isspace():
        raise empty(path, where)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} ({path}:{error.lineno}): broken JSON at column {error.colno}, {error.msg}; "
            f"one whole JSON value is needed; mend that line or write the file again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} ({path}): JSON that cannot be read, {error}; write the file again"
        ) from None


def _first_byte(path: Path, where: str) -> bytes:
    with opened(path, where) as file:
        content = file.read(len(BOM)).removeprefix(BOM)
        while not content.strip():
            content = file.read(4096)
            if not content:
                raise empty(path, where)
    return content.lstrip()[:1]


def _parse(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}: broken JSON at column {error.colno}, {error.msg}; one JSON object per line is needed; "
            f"mend or remove the line"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: JSON that cannot be read, {error}; mend or remove the line") from None


def _row(place: str, index: int, fields: Any) -> Row:
    if not isinstance(fields, dict):
        raise DataError(
            f"{place}: {kind_of(fields)} given; a JSON object is needed; write the record as an object"
        )
    return Row(place, index, fields)


def _parquet_rows(path: Path, where: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    index = 0
    with opened(path, where) as file:
        try:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    yield Row(f"{where} ({path}, record {index + 1})", index, fields)
                    index += 1
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk's fault, not the file's
            raise DataError(f"{where} ({path}): damaged Parquet, {error}; write the file again") from None
    if index == 0:
        raise empty(path, where)


# ── nested JSON ─────────────────────────────────────────────────────────────────────────────────────────────


def read_squad(path: Path, where: str) -> Iterator[Row]:
    """Questions of SQuAD's nested JSON, each with its context, in the order of the file."""
    index = 0
    for article, at_article in _children(read_json(path, where), "data", f"{where} ({path}", ""):
        for paragraph, at_paragraph in _children(article, "paragraphs", f"{where} ({path}", at_article):
            for question, place in _children(paragraph, "qas", f"{where} ({path}", at_paragraph):
                if not isinstance(question, dict):
                    raise DataError(
                        f"{where} ({path}, {place}): {kind_of(question)} given; an object is needed; mend it"
                    )
                context = {"context": paragraph["context"]} if "context" in paragraph else {}
                yield Row(f"{where} ({path}, {place})", index, question | context)
                index += 1


def _children(parent: Any, name: str, file: str, path: str) -> Iterator[tuple[Any, str]]:
    """Elements of a list in SQuAD's JSON, each with its path such as data[3].paragraphs[0]."""
    place = f"{file}, {path})" if path else f"{file})"
    if not isinstance(parent, dict) or not isinstance(parent.get(name), list):
        if not isinstance(parent, dict):
            given = f"{kind_of(parent)} given"
        elif name in parent:
            given = f"'{name}' is {kind_of(parent[name])}"
        else:
            given = f"no '{name}' among {listed(parent)}"
        raise DataError(
            f"{place}: {given}; data[].paragraphs[].qas[] is needed, as in SQuAD; convert the file"
        )
    for number, child in enumerate(parent[name]):
        yield child, f"{path}.{name}[{number}]" if path else f"{name}[{number}]"


def kind_of(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"the number {value}"
    return {str: "text", list: "a list", dict: "an object"}.get(type(value), type(value).__name__)


def cut(text: str) -> str:
    """The beginning of a text, as it stands in an error."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
