"""Sentences of published files beside their translations: of one file, or of a file for each language."""

from collections.abc import Iterator

from jaxlingua.data.readers import Row
from jaxlingua.data.records import Pair
from jaxlingua.errors import DataError
from jaxlingua.eval.tasks.asked import Asked, Columns, LeftOut, columns_of, repeated, rows_of
from jaxlingua.eval.tasks.entry import Entry, Found, fill_name
from jaxlingua.eval.tasks.tables import text_of


def read_sentences(entry: Entry, found: Found) -> Iterator[Asked | LeftOut]:
    """Each pair, or why it cannot be asked; files are joined by id, else by the number of the record."""
    columns = columns_of(found, 0)
    others = {name: each for name, each in columns.shown.items() if name not in ("text", "pivot")}
    columns = Columns(columns.every, others)
    source, target = (_text_column(entry, found, side) for side in (0, 1))
    if len({path for path, _ in found.files}) == 1:
        for row in rows_of(entry, found, 0):
            yield _pair(entry, columns, row, text_of(row, source), text_of(row, target))
        return
    targets = _by_id(entry, found, 1)
    sources = _by_id(entry, found, 0)
    if "id" not in columns.every and len(sources) != len(targets):
        raise DataError(
            f"{entry.where}: {found.files[0][0]} has {len(sources)} records, {found.files[1][0]} has "
            f"{len(targets)}; record n of each must be the same sentence; get both files of one release"
        )
    for name, row in sources.items():
        if name in targets:
            yield _pair(entry, columns, row, text_of(row, source), text_of(targets[name], target))
        else:
            yield LeftOut(f"only in {entry.languages[0]}", name, row.index)
    for name, row in targets.items():
        if name not in sources:
            yield LeftOut(f"only in {entry.languages[1]}", name, row.index)


def _by_id(entry: Entry, found: Found, number: int) -> dict[str, Row]:
    columns = columns_of(found, number)
    rows: dict[str, Row] = {}
    for row in rows_of(entry, found, number):
        name = columns.id(row)
        if name in rows:
            raise repeated(name, row.place)
        rows[name] = row
    return rows


def _text_column(entry: Entry, found: Found, side: int) -> str:
    """The column in which the text of the source (0) or of the target (1) stands."""
    layout = found.layout
    slots = found.files[min(side, len(found.files) - 1)][1]
    is_pivot = layout.pivot == entry.languages[side] and len(found.files) == 1
    return fill_name(layout.columns["pivot" if is_pivot else "text"], slots)


def _pair(entry: Entry, columns: Columns, row: Row, source: str, target: str) -> Asked | LeftOut:
    texts = dict(zip(entry.languages, (source, target), strict=True))
    for language, text in texts.items():
        if not text.strip():
            return LeftOut(f"no text in {language}", columns.id(row), row.index)
    slots = (columns.texts(row) if columns.shown else {}) | {"text": source}
    return Asked(columns.id(row), row.place, slots, (target,), source, Pair(row.index, texts))
