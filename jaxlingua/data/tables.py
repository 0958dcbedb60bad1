"""Tables of parallel text to rows: tab-separated, where quotes are text, and CSV, where they are not."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Literal

from jaxlingua.data.readers import Row, cut, listed, read_lines, read_text
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.languages import cldr_locale, display_name

HEADER_WORDS = {"source", "target", "src", "tgt"}
Line = tuple[int, list[str]]  # number of a line, from 1, and its cells

_REMEDIES = {
    "tsv": "part columns by one tab and have no tab in a text",
    "csv": "part columns by one comma and quote a text that holds one",
}
# What may part the columns of a line that has only one, and what to do; {where} is the source.
_OTHER_MARKS = {
    "tsv": {",": "the line has no tab but commas; part columns by one tab, or set {where}.format=csv"},
    "csv": {
        "\t": "the line has no comma but tabs; set {where}.format=tsv",
        ";": "the line has no comma but semicolons; part columns by commas",
    },
}


def read_tsv(path: Path, where: str, languages: list[str], columns: Mapping[str, str]) -> Iterator[Row]:
    """Columns of a tab-separated file under the codes of their languages. Quotes are text, as in MGSM.

    Args:
        columns: of each language a name in the header, or a number counted from 1 for a file without header.
            If empty, a header with the language codes is looked for; without one the columns are in order.
    Raises: DataError naming the line where it has other columns, or line 1 where it reads like a header that
        `columns` does not name.
    """
    lines = ((number, line.split("\t")) for number, line in enumerate(read_lines(path, where), 1))
    return _rows(lines, "tsv", path, where, languages, columns)


def read_csv(path: Path, where: str, languages: list[str], columns: Mapping[str, str]) -> Iterator[Row]:
    """`read_tsv` for commas: a text in quotes may hold commas, line breaks and, doubled, quotes.

    A row has the number of the line that it begins on. Raises: DataError also for a quote without its pair.
    """
    return _rows(_csv_lines(path, where), "csv", path, where, languages, columns)


def _csv_lines(path: Path, where: str) -> Iterator[Line]:
    reader = csv.reader(io.StringIO(read_text(path, where), newline=""), strict=True)
    number = 1
    try:
        for cells in reader:
            yield number, cells or [""]
            number = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{where} ({path}:{number}): broken CSV, {error}; quotes in pairs, doubled inside of a text, are "
            f"needed; mend the record that begins there"
        ) from None


def _rows(
    lines: Iterable[Line],
    format: Literal["tsv", "csv"],
    path: Path,
    where: str,
    languages: list[str],
    columns: Mapping[str, str],
) -> Iterator[Row]:
    lines = iter(lines)
    number, first = next(lines, (1, [""]))
    place = f"{where} ({path}:{number})"
    hint = _other_mark(first, format, where)
    has_header, at = _columns_of(first, place, where, hint, languages, columns)
    needed = len(first) if has_header else max(at.values()) + 1
    is_exact = has_header or not columns
    if not has_header:
        lines = chain([(number, first)], lines)
    for number, cells in lines:
        place = f"{where} ({path}:{number})"
        is_blank = cells == [""]
        if not is_blank and (len(cells) < needed or (is_exact and len(cells) > needed)):
            raise DataError(
                f"{place}: {len(cells)} columns given; {needed}{'' if is_exact else ' or more'} are needed; "
                f"{_other_mark(cells, format, where) or _REMEDIES[format]}"
            )
        texts = {language: "" if is_blank else cells[column] for language, column in at.items()}
        yield Row(place, number - 1, texts)


def _other_mark(cells: list[str], format: str, where: str) -> str:
    """What parts the columns of a line that seems to have one; "" for any other line."""
    if len(cells) > 1:
        return ""
    told = (told for mark, told in _OTHER_MARKS[format].items() if mark in cells[0])
    return next(told, "").format(where=where)


def _columns_of(
    first: list[str],
    place: str,
    where: str,
    hint: str,
    languages: list[str],
    columns: Mapping[str, str],
) -> tuple[bool, dict[str, int]]:
    """Whether line 1 is a header, and the place of each language's column, from 0.

    Args:
        hint: what to do where the line seems to be parted by something else; "" where it does not.
    """
    if columns and all(re.fullmatch(r"[+-]?\d+", columns.get(language, "")) for language in languages):
        at = {language: int(columns[language]) - 1 for language in languages}
        if min(at.values()) < 0:
            given = ", ".join(f"{language}: {columns[language]}" for language in languages)
            raise ConfigError(
                f"{where}.columns: {given} given; columns are counted from 1; mend {where}.columns"
            )
        _refuse_header(first, at, languages, place)
        return False, at
    if not columns and not set(languages) <= set(first):
        at = {language: column for column, language in enumerate(languages)}
        _refuse_header(first, at, languages, place)
        if len(first) > len(languages):
            example = ", ".join(f"{language}: {column + 1}" for language, column in at.items())
            raise DataError(
                f"{place}: {len(first)} columns given, {listed(map(cut, first))}, for "
                f"{len(languages)} languages; one of each is needed; say which by number, such as "
                f"columns: {{{example}}}, or by name if line 1 is a header"
            )
        return False, at
    names = {language: columns.get(language, language) for language in languages}
    for name in names.values():
        if name not in first:
            raise DataError(
                f"{place}: no column '{name}'; the header has {listed(first)}; "
                f"{hint or f'name the columns in {where}.columns'}"
            )
    return True, {language: first.index(name) for language, name in names.items()}


def _refuse_header(first: list[str], at: Mapping[str, int], languages: list[str], place: str) -> None:
    """A file is read without header: no line 1 may name the columns, or it would be learned as a sentence."""
    words = set(HEADER_WORDS)
    for language in languages:
        words |= {
            language,
            language.split("_")[0],
            cldr_locale(language).split("_")[0],
            display_name(language),
        }
    words = {word.casefold() for word in words if word}
    cells = [first[column].strip() for column in at.values() if column < len(first)]
    if cells and all(cell.casefold() in words for cell in cells):
        names = ", ".join(f"{language}: NAME" for language in languages)
        raise DataError(
            f"{place}: {listed(cells)} given, which reads like a header; line 1 is a sentence unless columns "
            f"are named; write columns: {{{names}}}, or remove the line"
        )
