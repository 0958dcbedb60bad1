"""Answers to questions about values, in the language that they were given in and in English."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxlingua.analysis.values.questions import PIVOT, SETS, Question, held_out, json_lines
from jaxlingua.errors import DataError, nearest
from jaxlingua.eval.metrics.off_target import FALSE_ALARMS, verdict
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


def check_splits(answers: Sequence[Answer], questions: Sequence[Question], seed: int, where: str) -> None:
    """Refuse classes of which a set has nothing to learn from, or nothing held out.

    What tells a shift needs two held-out questions that both models answered in the language.

    Args:
        where: --answers or --questions, whichever is to be mended.
    Raises: DataError.
    """
    tests, set_of = held_out(questions, seed), {question.id: question.set for question in questions}
    asked: dict[tuple[str, str], dict[str, set[str]]] = {}
    for one in answers:
        sets = asked.setdefault((one.model, one.language), {name: set() for name in SETS})
        sets[set_of[one.question]].add(one.question)
    first = answers[0].model
    for (model, language), sets in asked.items():
        for name, of in sets.items():
            test: Set[str] = of & tests
            if not test or test == of:
                raise DataError(
                    f"{where}: {model} · {language} has answers to {len(of) - len(test)} questions of {name} "
                    f"to learn from and to {len(test)} that are held out; each needs one, and values are "
                    f"never told without both controls; add some"
                )
            before = asked.get((first, language))
            if model != first and before and len(common := test & before[name]) < 2:
                raise DataError(
                    f"{where}: {first} and {model} have answers to {len(common)} held-out questions of "
                    f"{name} in common, in {language}; what moved needs 2; add some"
                )


def counts_of(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Of each class its answers, how many are empty and how many in another language; none is left out.

    An answer too short for the identifier counts as neither. Where the class is not of English, `pivots`
    counts those that are no answer in English: empty though the answer is not, equal to the answer and not
    taken for English, and otherwise in another language.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in answers:
        counts = {"answers": 0, "empty": 0, "other_language": 0}
        pivots = {"empty": 0, "equal": 0, "other_language": 0}
        about = {"model": one.model, "language": one.language}
        row = rows.setdefault(one.label, {**about, **counts, "pivots": pivots})
        row["answers"] += 1
        if not one.answer.strip():
            row["empty"] += 1
            continue
        row["other_language"] += verdict(one.answer, one.language, PIVOT) == "off"
        if one.language != PIVOT and (lack := _lack(one)):
            row["pivots"][lack] += 1
    return list(rows.values())


def _lack(one: Answer) -> str:
    """Why its pivot is no answer in English; "" where nothing is known against it."""
    if not one.pivot.strip():
        return "empty"
    in_english = verdict(one.pivot, PIVOT, one.language)
    if one.pivot.strip() == one.answer.strip():
        return "" if in_english == "on" else "equal"
    return "other_language" if in_english == "off" else ""


def untranslated(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Classes of `counts_of` that have more pivots not in English than mistakes of the identifier are."""
    return [
        f"{row['model']} · {row['language']}"
        for row in classes
        if row["pivots"]["equal"] + row["pivots"]["other_language"] > FALSE_ALARMS * row["answers"]
    ]
