"""Records of published files to what is asked: texts by name, the answers that are right, the data record."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaxlingua.data.fields import MISSING, as_text, lookup, question_of
from jaxlingua.data.readers import Row, cut, listed
from jaxlingua.data.records import Instruction, Pair, Question, Record
from jaxlingua.errors import DataError, nearest
from jaxlingua.eval.tasks.entry import Entry, Found, fill_name
from jaxlingua.eval.tasks.tables import read_file, text_of, value_of

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


class Reading(NamedTuple):
    """What can be asked, in the order of the file; how many records cannot, by reason; what is to be told."""

    asked: list[Asked]
    left_out: dict[str, int]
    note: str


def read_asked(entry: Entry, found: Found) -> Reading:
    """The records of an entry. Ids that repeat, as in TyDi QA's files, are replaced by numbers.

    Raises: DataError naming file and line for a damaged record, where nothing is left, and for ids that
        repeat where languages are joined by them.
    """
    asked: list[Asked] = []
    left_out: Counter[str] = Counter()
    for each in _builders(entry, found):
        if isinstance(each, str):
            left_out[each] += 1
        else:
            asked.append(each)
    files = listed(str(path) for path in dict.fromkeys(path for path, _ in found.files))
    if not asked:
        reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.items())
        why = f"none of its {left_out.total()} records can be asked: {reasons}" if reasons else "no record"
        raise DataError(
            f"{entry.where} ({files}): {why}; one or more is needed; choose another split or file"
        )
    seen: set[str] = set()
    for each in asked:
        if each.id in seen and entry.task.is_parallel:
            raise DataError(
                f"{each.place}: id '{each.id}' given twice; each record needs its own; mend the file"
            )
        seen.add(each.id)
    if len(seen) == len(asked):
        return Reading(asked, dict(left_out), "")
    numbered = [_with_id(each, str(each.record.index)) for each in asked]
    return Reading(numbered, dict(left_out), "ids repeat, so items are numbered")


def _with_id(asked: Asked, name: str) -> Asked:
    record = asked.record
    if isinstance(record, Question):
        record = dataclasses.replace(record, id=name)
    return dataclasses.replace(asked, id=name, record=record)


def _builders(entry: Entry, found: Found) -> Iterator[Asked | str]:
    match entry.task.kind:
        case "translation":
            return _translations(entry, found)
        case "qa" if len(found.files) > 1:
            return _crossed_questions(entry, found)
        case "qa":
            return (_question(row, entry, found) for row in _rows(entry, found, 0))
        case "choice":
            return (_choice(row, entry, found) for row in _rows(entry, found, 0))
        case "number":
            return (_number(row, entry, found) for row in _rows(entry, found, 0))
    return (_open(row, entry, found) for row in _rows(entry, found, 0))


def _rows(entry: Entry, found: Found, number: int) -> Iterator[Row]:
    path, slots = found.files[number]
    layout = found.layout
    columns = {name: fill_name(column, slots) for name, column in layout.columns.items()}
    rows = {fill_name(column, slots): fill_name(value, slots) for column, value in layout.rows.items()}
    return read_file(path, layout.format, columns, rows, entry.where)


def _columns(found: Found, number: int = 0) -> dict[str, str]:
    slots = found.files[number][1]
    return {name: fill_name(column, slots) for name, column in found.layout.columns.items()}


def slot_names(found: Found) -> list[str]:
    """Fields that prompts may show."""
    return [name for name in found.layout.columns if name not in SECRET]


def _texts(row: Row, columns: dict[str, str]) -> dict[str, str]:
    return {name: text_of(row, column) for name, column in columns.items() if name not in SECRET}


def _id(row: Row, columns: dict[str, str]) -> str:
    """The id where the layout has one, else the number of the record."""
    return text_of(row, columns["id"]) if "id" in columns else str(row.index)


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────


def _question(row: Row, entry: Entry, found: Found) -> Asked | str:
    """A question with its answers; where these are texts alone, they may stand nowhere in the context."""
    columns = _columns(found)
    if found.layout.format == "squad" and lookup(row.fields, "id") is MISSING:
        columns.pop("id")
    slots = _texts(row, columns)
    given = value_of(row, columns["answers"])
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        if not slots["question"].strip():
            return "empty question"
        answers = tuple(as_text(text, row.place, columns["answers"]) for text in texts if text.strip())
        if not answers:
            return "question without an answer"
        context = slots.get("context", "")
        record = Instruction(row.index, entry.languages[0], slots["question"], context, answers[0])
        return Asked(_id(row, columns), row.place, slots, answers, context, record)
    if given is None or given == "":
        return "question without an answer"
    names = {name: column for name, column in columns.items() if name in ("context", "question", "answers")}
    id_column = {"id": columns["id"]} if isinstance(_raw_id(row, columns), str) else {}
    question = question_of(row, entry.languages[0], names | id_column)
    if isinstance(question, str):
        return question
    name = _id(row, columns)
    question = dataclasses.replace(question, id=name)
    return Asked(name, row.place, slots, question.answers, question.context, question)


def _raw_id(row: Row, columns: dict[str, str]) -> object:
    return lookup(row.fields, columns["id"]) if "id" in columns else None


def _crossed_questions(entry: Entry, found: Found) -> Iterator[Asked | str]:
    """Context and answers of one file, the question of the other one's record with the same id."""
    questions: dict[str, Asked] = {}
    left = []
    for row in _rows(entry, found, 1):
        each = _question(row, entry, found)
        if isinstance(each, str):
            left.append(each)
        else:
            _put(questions, each.id, each, row)
    asked: set[str] = set()
    for row in _rows(entry, found, 0):
        each = _question(row, entry, found)
        if isinstance(each, str):
            yield each
        elif each.id not in questions:
            yield f"only in {entry.languages[0]}"
        else:
            asked.add(each.id)
            text = questions[each.id].slots["question"]
            record = each.record
            if isinstance(record, Question):
                record = dataclasses.replace(record, question=text)
            else:
                record = dataclasses.replace(record, instruction=text)
            yield dataclasses.replace(each, slots=each.slots | {"question": text}, record=record)
    yield from left
    yield from [f"only in {entry.languages[1]}"] * (len(questions) - len(asked))


# ── translation ─────────────────────────────────────────────────────────────────────────────────────────────


def _translations(entry: Entry, found: Found) -> Iterator[Asked | str]:
    """Pairs of one file, or of the two languages' files joined by id, else by the number of the record."""
    sides = [_text_column(entry, found, side) for side in (0, 1)]
    last = len(found.files) - 1
    if found.files[0][0] == found.files[last][0]:
        columns = _columns(found)
        for row in _rows_of_both(entry, found, sides):
            slots = _other_texts(row, columns)
            pair = text_of(row, sides[0]), text_of(row, sides[1])
            yield _pair(entry, _id(row, columns), row, pair, slots)
        return
    targets: dict[str, Row] = {}
    for row in _rows(entry, found, 1):
        _put(targets, _id(row, _columns(found, 1)), row, row)
    sources: set[str] = set()
    is_by_line = "id" not in found.layout.columns
    for row in _rows(entry, found, 0):
        columns = _columns(found)
        name = _id(row, columns)
        if name in sources:
            raise _repeated(name, row)
        sources.add(name)
        if name in targets:
            pair = text_of(row, sides[0]), text_of(targets[name], sides[1])
            yield _pair(entry, name, row, pair, _other_texts(row, columns))
        elif not is_by_line:
            yield f"only in {entry.languages[0]}"
    if is_by_line and len(sources) != len(targets):
        raise DataError(
            f"{entry.where}: {found.files[0][0]} has {len(sources)} records, {found.files[1][0]} has "
            f"{len(targets)}; record n of each must be the same sentence; get both files of one release"
        )
    yield from [f"only in {entry.languages[1]}"] * len(targets.keys() - sources)


def _rows_of_both(entry: Entry, found: Found, sides: list[str]) -> Iterator[Row]:
    path, slots = found.files[0]
    rows = {fill_name(column, slots): fill_name(value, slots) for column, value in found.layout.rows.items()}
    columns = _columns(found) | {"source": sides[0], "target": sides[1]}
    return read_file(path, found.layout.format, columns, rows, entry.where)


def _text_column(entry: Entry, found: Found, side: int) -> str:
    """The column in which the text of the source (0) or of the target (1) stands."""
    layout = found.layout
    slots = found.files[min(side, len(found.files) - 1)][1]
    is_pivot = layout.pivot and entry.languages[side] == layout.pivot and len(found.files) == 1
    return fill_name(layout.columns["pivot" if is_pivot else "text"], slots)


def _other_texts(row: Row, columns: dict[str, str]) -> dict[str, str]:
    return _texts(row, {name: each for name, each in columns.items() if name not in ("text", "pivot")})


def _pair(entry: Entry, name: str, row: Row, texts: tuple[str, str], further: dict[str, str]) -> Asked | str:
    for language, text in zip(entry.languages, texts, strict=True):
        if not text.strip():
            return f"no text in {language}"
    record = Pair(row.index, dict(zip(entry.languages, texts, strict=True)))
    return Asked(name, row.place, further | {"text": texts[0]}, (texts[1],), texts[0], record)


# ── choices, numbers, instructions ──────────────────────────────────────────────────────────────────────────


def _choice(row: Row, entry: Entry, found: Found) -> Asked | str:
    columns = _columns(found)
    slots = _texts(row, columns)
    if not any(text.strip() for text in slots.values()):
        return "empty text"
    value = text_of(row, columns["label"]).strip()
    if not value:
        return "no label"
    values = {said: label for label, of_label in entry.task.values.items() for said in of_label}
    if value not in values:
        raise DataError(
            f"{row.place}: label '{cut(value)}' given; {nearest(value, [*values])}; "
            f"mend the record, or `labels` of the task file"
        )
    return _plain(row, entry, columns, slots, (values[value],))


def _number(row: Row, entry: Entry, found: Found) -> Asked | str:
    columns = _columns(found)
    slots = _texts(row, columns)
    if not slots["question"].strip():
        return "empty question"
    answer = text_of(row, columns["answer"]).strip()
    return _plain(row, entry, columns, slots, (answer,)) if answer else "question without an answer"


def _open(row: Row, entry: Entry, found: Found) -> Asked | str:
    columns = _columns(found)
    slots = _texts(row, columns)
    if not any(text.strip() for text in slots.values()):
        return "empty text"
    return _plain(row, entry, columns, slots, ())


def _plain(
    row: Row, entry: Entry, columns: dict[str, str], slots: dict[str, str], targets: tuple[str, ...]
) -> Asked:
    """For leaks, an instruction of all the texts that are asked about."""
    text = "\n".join(text for text in slots.values() if text.strip())
    answer = targets[0] if targets else ""
    record = Instruction(row.index, entry.languages[0], text, "", answer)
    return Asked(_id(row, columns), row.place, slots, targets, text, record)


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _put(records: dict, name: str, record: object, row: Row) -> None:
    if name in records:
        raise _repeated(name, row)
    records[name] = record


def _repeated(name: str, row: Row) -> DataError:
    return DataError(f"{row.place}: id '{name}' given twice; each record needs its own; mend the file")
