"""Questions of published files, with context and question in one language or in two."""

import dataclasses
from collections.abc import Iterator

from jaxlingua.data.fields import MISSING, as_text, lookup, question_of
from jaxlingua.data.readers import Row
from jaxlingua.data.records import Instruction, Question
from jaxlingua.eval.tasks.asked import Asked, Columns, columns_of, repeated, rows_of
from jaxlingua.eval.tasks.entry import Entry, Found
from jaxlingua.eval.tasks.tables import text_of, value_of

NO_ANSWER = "question without an answer"


def read_questions(entry: Entry, found: Found) -> Iterator[Asked | str]:
    """Each question of a file, or why it cannot be asked."""
    if len(found.files) > 1:
        return _crossed(entry, found)
    return _of_file(entry, found, 0)


def _of_file(entry: Entry, found: Found, number: int) -> Iterator[Asked | str]:
    columns = columns_of(found, number)
    read = _question if found.layout.format == "squad" else _question_in_any_form
    return (read(row, columns, entry.languages[0]) for row in rows_of(entry, found, number))


def _question_in_any_form(row: Row, columns: Columns, language: str) -> Asked | str:
    """Where answers are texts alone, they may stand nowhere in the context, or there is none."""
    column = columns.every["answers"]
    given = value_of(row, column)
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, list):  # null and NaN, as pandas writes it, are no answers
        texts = [text for text in texts if text is not None and text == text]
    if not texts:
        return NO_ANSWER
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        return _question(row, columns, language)
    slots = columns.texts(row)
    if not slots["question"].strip():
        return "empty question"
    answers = tuple(as_text(text, row.place, column) for text in texts if text.strip())
    if not answers:
        return NO_ANSWER
    context = slots.get("context", "")
    if "context" in slots and not context.strip():
        return "empty context"
    record = Instruction(row.index, language, slots["question"], context, answers[0])
    return Asked(columns.id(row), row.place, slots, answers, context, record)


def _question(row: Row, columns: Columns, language: str) -> Asked | str:
    """A question whose answers stand in the context where the file says. An id may be a number or absent."""
    for column in columns.every.values():
        if column not in row.fields and column != "id":
            value_of(row, column)
    names = {name: columns.every[name] for name in ("context", "question", "answers")}
    name = lookup(row.fields, columns.every["id"]) if "id" in columns.every else MISSING
    if isinstance(name, str):
        names["id"] = columns.every["id"]
        question = question_of(row, language, names)
    else:
        without = row._replace(fields={key: value for key, value in row.fields.items() if key != "id"})
        question = question_of(without, language, names)
        if name is not MISSING and isinstance(question, Question):
            question = dataclasses.replace(question, id=columns.id(row))
    if isinstance(question, str):
        return question
    slots = {"context": question.context, "question": question.question}
    slots |= {name: text_of(row, column) for name, column in columns.shown.items() if name not in slots}
    return Asked(question.id, row.place, slots, question.answers, question.context, question)


def _crossed(entry: Entry, found: Found) -> Iterator[Asked | str]:
    """Context and answers of one file, the question of the other one's record with the same id."""
    questions: dict[str, str] = {}
    left = []
    for each in _of_file(entry, found, 1):
        if isinstance(each, str):
            left.append(each)
        elif each.id in questions:
            raise repeated(each.id, each.place)
        else:
            questions[each.id] = each.slots["question"]
    asked: set[str] = set()
    for each in _of_file(entry, found, 0):
        if isinstance(each, str):
            yield each
        elif each.id not in questions:
            yield f"only in {entry.languages[0]}"
        else:
            asked.add(each.id)
            yield _with_question(each, questions[each.id])
    yield from left
    yield from [f"only in {entry.languages[1]}"] * (len(questions) - len(asked))


def _with_question(asked: Asked, text: str) -> Asked:
    field = "question" if isinstance(asked.record, Question) else "instruction"
    record = dataclasses.replace(asked.record, **{field: text})
    return dataclasses.replace(asked, slots=asked.slots | {"question": text}, record=record)
