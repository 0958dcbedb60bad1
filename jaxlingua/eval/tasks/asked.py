"""What is asked, before any prompt: texts by name, the answers that are right, the data record."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaxlingua.data.readers import Row
from jaxlingua.data.records import Question, Record
from jaxlingua.errors import DataError
from jaxlingua.eval.tasks.entry import Entry, Found, fill_name
from jaxlingua.eval.tasks.tables import read_file, text_of

# Fields that no prompt may show.
SECRET = ("id", "answers", "answer", "label")


@dataclass(frozen=True, slots=True)
class Asked:
    """One record that can be asked, still without a prompt.

    Attributes:
        id: the same in all languages of a parallel set.
        place: file and line, for errors.
        slots: texts by the names of their fields.
        source_text: what a copier would answer.
    """

    id: str
    place: str
    slots: dict[str, str]
    targets: tuple[str, ...]
    source_text: str
    record: Record

    def with_id(self, name: str) -> "Asked":
        """The same under another id."""
        is_question = isinstance(self.record, Question)
        record = dataclasses.replace(self.record, id=name) if is_question else self.record
        return dataclasses.replace(self, id=name, record=record)


class LeftOut(NamedTuple):
    """A record that cannot be asked: why, its id, and its place in the file."""

    reason: str
    id: str
    index: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Fields of one file and their columns, with the slots of languages filled.

    Attributes:
        shown: those that prompts may show.
    """

    every: dict[str, str]
    shown: dict[str, str]

    def texts(self, row: Row) -> dict[str, str]:
        """What prompts may show of a record."""
        return {name: text_of(row, column) for name, column in self.shown.items()}

    def id(self, row: Row) -> str:
        """The id where the layout has one, else the number of the record."""
        return text_of(row, self.every["id"]) if "id" in self.every else str(row.index)


def columns_of(found: Found, number: int) -> Columns:
    """The columns of file `number`."""
    slots = found.files[number][1]
    every = {name: fill_name(column, slots) for name, column in found.layout.columns.items()}
    return Columns(every, {name: column for name, column in every.items() if name not in SECRET})


def rows_of(entry: Entry, found: Found, number: int) -> Iterator[Row]:
    """The records of file `number`."""
    path, slots = found.files[number]
    rows = {fill_name(column, slots): fill_name(value, slots) for column, value in found.layout.rows.items()}
    return read_file(path, found.layout.format, columns_of(found, number).every, rows, entry.where)


def slot_names(found: Found) -> list[str]:
    """Fields that prompts may show."""
    return list(columns_of(found, 0).shown)


def repeated(name: str, place: str) -> DataError:
    """The error for an id that two records have."""
    return DataError(f"{place}: id '{name}' given twice; each record needs its own; mend the file")
