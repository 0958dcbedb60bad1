"""Answers to questions about values, in the language that they were given in and in English."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxlingua.analysis.values.questions import PIVOT, SETS, Question, json_lines
from jaxlingua.errors import DataError, nearest
from jaxlingua.eval.metrics.off_target import verdict
from jaxlingua.eval.report.files import replace
from jaxlingua.languages import check_language

_NEEDED = ("model", "language", "question", "answer")


@dataclass(frozen=True)
class Answer:
    """One answer of a model to a question in a language.

    Attributes:
        question: its id.
        pivot: the answer in English.
    """

    model: str
    language: str
    question: str
    answer: str
    pivot: str

    @property
    def label(self) -> str:
        """The class: whose answer it is."""
        return f"{self.model} · {self.language}"


def read_answers(path: str, questions: Sequence[Question]) -> list[Answer]:
    """Those of a file of JSON lines {"model", "language", "question", "answer", "pivot"}, as we write it.

    An answer in English is its own pivot where none is given.

    Raises: DataError with the line, for what is no answer to a question that is known.
    """
    known, found = {question.id for question in questions}, []
    for number, line in json_lines(path, "--answers"):
        where = f"{path}:{number}"
        if line.get("language") == PIVOT:
            line.setdefault("pivot", line.get("answer"))
        for name in (*_NEEDED, "pivot"):
            if not isinstance(line.get(name), str):
                raise DataError(f"{where}: no {name} given; {', '.join(_NEEDED)}, pivot are needed; add it")
        check_language(line["language"], where)
        if line["question"] not in known:
            hint = nearest(line["question"], sorted(known))
            raise DataError(f"{where}: question '{line['question']}' given, which is unknown; {hint}")
        found.append(Answer(**{name: line[name] for name in (*_NEEDED, "pivot")}))
    return found


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """The file that `read_answers` reads, whole."""
    replace(path, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in answers))


def check_answers(answers: Sequence[Answer], questions: Sequence[Question]) -> None:
    """Refuse classes of which a control, or the values, were not asked.

    Raises: DataError.
    """
    set_of = {question.id: question.set for question in questions}
    there = {(one.label, set_of[one.question]) for one in answers}
    for label in dict.fromkeys(one.label for one in answers):
        for name in SETS:
            if (label, name) not in there:
                raise DataError(
                    f"--answers: {label} has no answer to a question of {name}; values are never told "
                    f"without both controls, facts and neutral; add its answers"
                )


def counts_of(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Of each class its answers, how many are empty and how many in another language; none is left out.

    An answer too short for the identifier counts as neither.
    """
    total: Counter[str] = Counter(one.label for one in answers)
    empty: Counter[str] = Counter(one.label for one in answers if not one.answer.strip())
    other: Counter[str] = Counter(
        one.label
        for one in answers
        if one.answer.strip() and verdict(one.answer, one.language, PIVOT) == "off"
    )
    labels: Mapping[str, Answer] = {one.label: one for one in reversed(answers)}
    return [
        {
            "model": labels[label].model,
            "language": labels[label].language,
            "answers": count,
            "empty": empty[label],
            "other_language": other[label],
        }
        for label, count in total.items()
    ]
