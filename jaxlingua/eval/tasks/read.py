"""The files of an entry to what is asked, with counts of what cannot be."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from jaxlingua.data.readers import Row, cut, listed
from jaxlingua.data.records import Instruction
from jaxlingua.errors import DataError, nearest
from jaxlingua.eval.tasks.asked import Asked, Columns, LeftOut, columns_of, repeated, rows_of
from jaxlingua.eval.tasks.entry import Entry, Found
from jaxlingua.eval.tasks.questions import NO_ANSWER, read_questions
from jaxlingua.eval.tasks.sentences import read_sentences
from jaxlingua.eval.tasks.tables import text_of


class Reading(NamedTuple):
    """What can be asked, in the order of the file; how many records cannot, by reason; what is to be told.

    Of translations `why_left_out` tells the reason of each id that was left out.
    """

    asked: list[Asked]
    left_out: dict[str, int]
    note: str
    why_left_out: dict[str, str]


def read_asked(entry: Entry, found: Found) -> Reading:
    """The records of an entry. Ids that repeat, as in TyDi QA's files, are replaced by numbers.

    Raises: DataError naming file and line for a damaged record, where nothing is left, and for ids that
        repeat where languages are joined by them.
    """
    asked: list[Asked] = []
    left_out: Counter[str] = Counter()
    named: list[LeftOut] = []
    for each in _READERS[entry.task.kind](entry, found):
        if isinstance(each, str):
            left_out[each] += 1
        elif isinstance(each, LeftOut):
            left_out[each.reason] += 1
            named.append(each)
        else:
            asked.append(each)
    if not asked:
        raise _nothing(entry, found, left_out)
    seen: set[str] = set()
    for each in asked:
        if each.id in seen and entry.task.kind == "qa" and entry.task.is_parallel:
            raise repeated(each.id, each.place)
        seen.add(each.id)
    if len(seen) == len(asked):
        return Reading(asked, dict(left_out), "", {each.id: each.reason for each in named})
    numbered = [each.with_id(str(each.record.index)) for each in asked]
    why = {str(each.index): each.reason for each in named}
    return Reading(numbered, dict(left_out), "ids repeat, so items are numbered", why)


def _nothing(entry: Entry, found: Found, left_out: Counter[str]) -> DataError:
    files = listed(str(path) for path in dict.fromkeys(path for path, _ in found.files))
    reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.items())
    why = f"none of its {left_out.total()} records can be asked: {reasons}" if reasons else "no record"
    return DataError(f"{entry.where} ({files}): {why}; one or more is needed; choose another split or file")


# ── choices, numbers, instructions ──────────────────────────────────────────────────────────────────────────


def _read_choices(entry: Entry, found: Found) -> Iterator[Asked | str]:
    columns = columns_of(found, 0)
    label_of = {said: label for label, of_label in entry.task.values.items() for said in of_label}
    for row in rows_of(entry, found, 0):
        slots = columns.texts(row)
        value = text_of(row, columns.every["label"]).strip()
        if not any(map(str.strip, slots.values())):
            yield "empty text"
        elif not value:
            yield "no label"
        elif value not in label_of:
            raise DataError(
                f"{row.place}: label '{cut(value)}' given; {nearest(value, [*label_of])}; "
                f"mend the record, or `labels` of the task file"
            )
        else:
            yield _plain(row, entry, columns, slots, (label_of[value],))


def _read_numbers(entry: Entry, found: Found) -> Iterator[Asked | str]:
    columns = columns_of(found, 0)
    for row in rows_of(entry, found, 0):
        slots = columns.texts(row)
        answer = text_of(row, columns.every["answer"]).strip()
        if not slots["question"].strip():
            yield "empty question"
        else:
            yield _plain(row, entry, columns, slots, (answer,)) if answer else NO_ANSWER


def _read_instructions(entry: Entry, found: Found) -> Iterator[Asked | str]:
    columns = columns_of(found, 0)
    for row in rows_of(entry, found, 0):
        slots = columns.texts(row)
        is_empty = not any(map(str.strip, slots.values()))
        yield "empty text" if is_empty else _plain(row, entry, columns, slots, ())


def _plain(
    row: Row, entry: Entry, columns: Columns, slots: dict[str, str], targets: tuple[str, ...]
) -> Asked:
    """For leaks, an instruction of all the texts that are asked about."""
    text = "\n".join(text for text in slots.values() if text.strip())
    record = Instruction(row.index, entry.languages[0], text, "", "".join(targets))
    return Asked(columns.id(row), row.place, slots, targets, text, record)


_READERS = {
    "qa": read_questions,
    "translation": read_sentences,
    "choice": _read_choices,
    "number": _read_numbers,
    "open": _read_instructions,
}
