"""Questions of a file of JSON lines, and the same lines with their answers."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxlingua.data.readers import Row, find_file, kind_of, read_rows, sha256_of
from jaxlingua.errors import ConfigError, DataError, JaxlinguaError
from jaxlingua.generate.framing import Framing, Question
from jaxlingua.languages import check_language

KINDS = ("prompt", "instruction", "text")  # the field that says what a line asks for
ADDED = ("answer", "ended_by", "new_tokens", "cut_prompt_tokens", "model")


@dataclass(frozen=True)
class Lines:
    """The lines of a file, and what each of them asks."""

    path: Path
    sha256: str
    rows: Sequence[Row]
    questions: Sequence[Question]


def read_lines_of(path: str, framing: Framing, asked: Question) -> Lines:
    """All lines of a file, each of which can be framed.

    Args:
        asked: has the languages that lines without "from" and "to" get.
    Raises: DataError naming the first line that asks for nothing, or for more than one thing.
    """
    file = find_file(path, "", "--file")
    rows, questions, seen = [], [], Counter()
    for row in read_rows(file, "--file"):
        try:
            question = _question(row, asked)
            prompt = framing.prompt(question)
        except JaxlinguaError as error:
            told = str(error)
            raise DataError(told if told.startswith(row.place) else f"{row.place}: {told}") from None
        rows.append(row)
        questions.append(replace(question, repeat=seen[prompt]))
        seen[prompt] += 1
    if not rows:
        raise DataError(f"--file ({file}): no line in it; one or more is needed; write the file again")
    return Lines(file, sha256_of([file], "--file"), rows, questions)


def write_lines(lines: Lines, answers: Sequence[Mapping[str, Any]], output: Path) -> None:
    """The lines with their answers, at once or not at all."""
    partial = output.with_name(f".{output.name}.partial")
    with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        for row, answer in zip(lines.rows, answers, strict=True):
            file.write(json.dumps({**row.fields, **answer}, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, output)


def _question(row: Row, asked: Question) -> Question:
    if taken := [name for name in ADDED if name in row.fields]:
        raise DataError(f"a field '{taken[0]}' given, which is written here; other names are kept; rename it")
    try:
        json.dumps(dict(row.fields), allow_nan=False)
    except (TypeError, ValueError):
        raise DataError(
            "a value that JSON cannot hold is given, such as NaN, Infinity or a number above 1.8e308; every "
            "field has to come back as it was; write it as text, or leave the field out"
        ) from None
    there = [name for name in KINDS if name in row.fields]
    if len(there) != 1:
        what = " and ".join(f"'{name}'" for name in there) or "none of prompt, instruction and text"
        raise DataError(f"{what} given; each line has one of prompt, instruction and text; mend the line")
    (kind,) = there
    text = _text(row, kind)
    if not text.strip():
        raise DataError(f"'{kind}' is empty; text is needed; fill it in, or remove the line")
    if kind == "prompt":
        return Question(text, is_raw=True)
    wanted = _language(row, "to")
    if kind == "instruction":
        return Question(text, _text(row, "input"), language=wanted or asked.language)
    given, wanted = _language(row, "from"), wanted or asked.language
    if asked.direction is not None:
        given, wanted = given or asked.direction[0], wanted or asked.direction[1]
    if not (given and wanted):
        lacks = "from" if not given else "to"
        raise DataError(
            f"a text without '{lacks}' given; a translation needs both languages; write '{lacks}' into the "
            f"line, or give --{lacks}"
        )
    if given == wanted:
        raise DataError(f"'{given}' given as from and to; a translation needs two languages; mend the line")
    return Question(text, direction=(given, wanted))


def _text(row: Row, name: str) -> str:
    """A field; empty where it is not there or null."""
    value = row.fields.get(name)
    if not isinstance(value, str | None):
        raise DataError(f"'{name}' is {kind_of(value)}; text is needed; mend the line")
    return value or ""


def _language(row: Row, name: str) -> str:
    code = _text(row, name)
    if code:
        try:
            check_language(code, f"'{name}'")
        except ConfigError as error:
            raise DataError(str(error)) from None
    return code
