"""Rows to records: which fields each kind of record takes, what is refused, and what is skipped and counted.

Each function gives a record, or the reason why the row has none: a text that the record needs is empty. Every
other fault is an error: to mend or skip it would hide that the file is not what the configuration says.
"""

from collections.abc import Mapping
from typing import Any

from jaxlingua.data.readers import Row, cut, kind_of, listed
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.errors import DataError

Built = Record | str
MISSING = object()
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


def instruction_of(row: Row, language: str, columns: Mapping[str, str]) -> Instruction | str:
    """Alpaca's three fields; `input` may be absent or null, which is the same as empty."""
    instruction = text_field(row, "instruction", columns)
    output = text_field(row, "output", columns)
    given = lookup(row.fields, columns.get("input", "input"))
    has_input = given is not None and (given is not MISSING or "input" in columns)
    context = text_field(row, "input", columns) if has_input else ""
    if not instruction.strip():
        return "empty instruction"
    if not output.strip():
        return "empty output"
    return Instruction(row.index, language, instruction, context, output, stratum_of(row, columns))


def pair_of(row: Row, languages: list[str], columns: Mapping[str, str]) -> Pair | str:
    """A sentence in all of `languages`."""
    texts = {language: text_field(row, language, columns) for language in languages}
    for language, text in texts.items():
        if not text.strip():
            return f"empty text in {language}"
    return Pair(row.index, texts)


def text_of(row: Row, language: str, columns: Mapping[str, str]) -> Text | str:
    """Plain text."""
    text = text_field(row, "text", columns)
    return Text(row.index, language, text, stratum_of(row, columns)) if text.strip() else "empty text"


def question_of(row: Row, language: str, columns: Mapping[str, str]) -> Question | str:
    """A question with its answers, each of which must stand in the context where it says.

    `answers` is a list of objects with `text` and `answer_start` (SQuAD's files), or an object with a list of
    each (the datasets library). A question without id gets its index.
    """
    context = text_field(row, "context", columns)
    question = text_field(row, "question", columns)
    answers = _answers(row, columns)
    for text, start in answers:
        given = context[start : start + len(text)]
        if given != text:
            found = context.find(text)
            remedy = (
                f"found at {found}: mend answer_start"
                if found >= 0
                else "not in the context: mend the record"
            )
            raise DataError(
                f"{row.place}: answer '{cut(text)}' with answer_start {start}, where the context has "
                f"'{cut(given)}'; code points of the unstripped context are counted; {remedy}"
            )
    if not context.strip():
        return "empty context"
    if not question.strip():
        return "empty question"
    answers = [(text, start) for text, start in answers if text.strip()]
    if not answers:
        return "question without an answer"
    has_id = lookup(row.fields, columns.get("id", "id")) is not MISSING or "id" in columns
    name = text_field(row, "id", columns) if has_id else str(row.index)
    return Question(
        row.index, name, language, context, question, tuple(text for text, _ in answers), answers[0][1]
    )


def conversation_of(row: Row, language: str, columns: Mapping[str, str]) -> Conversation | str:
    """Turns of OpenAI's `messages` (role, content) or ShareGPT's `conversations` (from, value)."""
    column = columns.get("messages", "conversations" if "conversations" in row.fields else "messages")
    given = required(row, column)
    if not isinstance(given, list):
        raise DataError(
            f"{row.place}: field '{column}' is {kind_of(given)}; a list of turns is needed; mend the record"
        )
    turns = tuple(_turn(turn, row, f"{column}[{number}]") for number, turn in enumerate(given))
    if any(not text.strip() for _, text in turns):
        return "empty turn"
    if all(role != "assistant" for role, _ in turns):
        return "no assistant turn"
    return Conversation(row.index, language, turns, stratum_of(row, columns))


def _turn(turn: Any, row: Row, name: str) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise DataError(
            f"{row.place}: {name} is {kind_of(turn)}; an object with role and content is needed; mend it"
        )
    role_key, text_key = ("from", "value") if "from" in turn else ("role", "content")
    for key in (role_key, text_key):
        if key not in turn:
            raise DataError(f"{row.place}: {name} has no '{key}'; it has {listed(turn)}; add it")
    role = turn[role_key]
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(
            f"{row.place}: {name}.{role_key}={role!r} given; {listed(ROLES)} are allowed; rename or remove it"
        )
    if turn.get("weight", 1) not in (1, None):
        raise DataError(
            f"{row.place}: {name}.weight={turn['weight']} given; every assistant turn is learned; remove it"
        )
    return ROLES[role], as_text(turn[text_key], row.place, f"{name}.{text_key}")


def _answers(row: Row, columns: Mapping[str, str]) -> list[tuple[str, int]]:
    column = columns.get("answers", "answers")
    given = required(row, column)
    if isinstance(given, dict) and all(isinstance(given.get(key), list) for key in ("text", "answer_start")):
        if len(given["text"]) != len(given["answer_start"]):
            raise DataError(
                f"{row.place}: field '{column}' has {len(given['text'])} texts and "
                f"{len(given['answer_start'])} starts; one start per text is needed; mend the record"
            )
        pairs = list(zip(given["text"], given["answer_start"], strict=True))
    elif isinstance(given, list) and all(isinstance(answer, dict) for answer in given):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in given]
    else:
        raise DataError(
            f"{row.place}: field '{column}' is {kind_of(given)}; a list of objects with text and "
            f"answer_start is needed; mend the record"
        )
    for number, (text, start) in enumerate(pairs):
        as_text(text, row.place, f"{column}[{number}].text")
        if not isinstance(start, int) or isinstance(start, bool) or start < 0:
            raise DataError(
                f"{row.place}: field '{column}[{number}].answer_start' is {kind_of(start)}; "
                f"a count of code points from 0 is needed; mend the record"
            )
    return pairs


# ── one field ───────────────────────────────────────────────────────────────────────────────────────────────


def lookup(fields: Mapping[str, Any], column: str) -> Any:
    """The value under a name, or under a dotted path into objects and lists; MISSING where there is none.

    Example:
        >>> lookup({"instances": [{"output": "yes"}]}, "instances.0.output")
        'yes'
    """
    if column in fields:
        return fields[column]
    value: Any = fields
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def required(row: Row, column: str) -> Any:
    """The value of a column that must be there."""
    value = lookup(row.fields, column)
    if value is MISSING:
        raise DataError(
            f"{row.place}: no field '{column}'; the record has {listed(row.fields)}; "
            f"add it, or name the right one in the source's columns"
        )
    return value


def text_field(row: Row, name: str, columns: Mapping[str, str]) -> str:
    """The text of a field, under its own name or the one that `columns` gives it."""
    column = columns.get(name, name)
    return as_text(required(row, column), row.place, column)


def stratum_of(row: Row, columns: Mapping[str, str]) -> str:
    """What the column of `stratum` says, text or a whole number; empty for null, or where none is named."""
    if "stratum" not in columns:
        return ""
    value = required(row, columns["stratum"])
    if value is None or type(value) is int:
        return "" if value is None else str(value)
    return as_text(value, row.place, columns["stratum"])


def as_text(value: Any, place: str, column: str) -> str:
    """`value`, which must be text that UTF-8 can write (JSON can hold half of a surrogate pair)."""
    if not isinstance(value, str):
        raise DataError(f"{place}: field '{column}' is {kind_of(value)}; text is needed; mend the record")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{place}: field '{column}' has half of a surrogate pair, U+{ord(value[error.start]):04X}, "
                f"at character {error.start}; whole characters are needed; mend the record"
            ) from None
    return value
