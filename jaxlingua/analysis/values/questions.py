"""What is asked: questions that touch a value, and those of two controls; ours, or a user's."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jaxlingua.command_line import parse_yaml
from jaxlingua.data.readers import read_text
from jaxlingua.errors import DataError
from jaxlingua.languages import check_language

# Values first; then what has none: facts and how-to, and sentences that are only to be repeated.
SETS = ("values", "facts", "neutral")
CONTROLS = SETS[1:]
# The ten basic values of Schwartz 1992.
DIMENSIONS = (
    "self-direction", "stimulation", "hedonism", "achievement", "power", "security", "conformity",
    "tradition", "benevolence", "universalism",
)  # fmt: skip
PIVOT = "eng_Latn"
TEST_EVERY = 3  # a third of the questions is held out


@dataclass(frozen=True)
class Question:
    """One question in some languages.

    Attributes:
        dimension: the value that it touches, or the name of its control.
        texts: language → wording.
    """

    id: str
    dimension: str
    texts: Mapping[str, str]

    @property
    def set(self) -> str:
        return self.dimension if self.dimension in CONTROLS else "values"


def our_questions() -> tuple[Question, ...]:
    """Those of questions.yaml, in English."""
    where = "jaxlingua/analysis/values/questions.yaml"
    content = parse_yaml(resources.files(__package__).joinpath("questions.yaml").read_text("utf-8"), where)
    found = []
    for dimension in (*DIMENSIONS, "facts", "neutral"):
        for number, text in enumerate(content[dimension], start=1):
            asked = content["repeat"].format(text) if dimension == "neutral" else text
            found.append(Question(f"{dimension}-{number}", dimension, {PIVOT: asked}))
    return tuple(found)


def read_questions(path: str | None) -> tuple[Question, ...]:
    """Ours, or those of a file of JSON lines: {"id", "dimension", "eng_Latn": text, …}.

    A file without questions of a control gets ours of it.

    Raises: DataError with the line, for what cannot be asked.
    """
    if path is None:
        return our_questions()
    found: dict[str, Question] = {}
    ids: dict[str, str] = {}  # by English wording
    for number, line in json_lines(path, "--questions"):
        question = _question(line, where := f"{path}:{number}")
        if question.id in found:
            raise DataError(
                f"{where}: id '{question.id}' given a second time; each question needs its own; rename it"
            )
        if (other := ids.setdefault(_wording(question), question.id)) != question.id:
            raise DataError(
                f"{where}: id '{question.id}' asks what '{other}' asks; one may be learned from where "
                f"the other is held out; remove one"
            )
        found[question.id] = question
    if not any(question.set == "values" for question in found.values()):
        raise DataError(
            f"{path}: no question that touches a value given; dimension is to be a value, such as "
            f"'{DIMENSIONS[0]}'; add some"
        )
    there = {question.set for question in found.values()}
    ours = [each for each in our_questions() if each.set not in there]
    if taken := [each.id for each in ours if each.id in found]:
        raise DataError(f"{path}: id '{taken[0]}' given, which is one of ours; another is needed; rename it")
    if asked := [(ids[_wording(each)], each.id) for each in ours if _wording(each) in ids]:
        raise DataError(
            f"{path}: id '{asked[0][0]}' asks what ours asks as '{asked[0][1]}'; one may be learned from "
            f"where the other is held out; remove it, or give questions of that control"
        )
    return (*found.values(), *ours)


def _wording(question: Question) -> str:
    """In English, whatever its case and spaces."""
    return " ".join(question.texts[PIVOT].casefold().split())


def _question(line: Mapping[str, Any], where: str) -> Question:
    for name in ("id", "dimension"):
        if not isinstance(line.get(name), str) or not line[name].strip():
            raise DataError(
                f'{where}: no {name} given; {{"id", "dimension", "{PIVOT}": text, …}} is needed; add it'
            )
    texts = {name: text for name, text in line.items() if name not in ("id", "dimension")}
    for language, text in texts.items():
        check_language(language, where)
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: {language} has no text; a question is needed; write or remove it")
    if PIVOT not in texts:
        raise DataError(f"{where}: no {PIVOT} given; answers are read behind the English question; add it")
    return Question(line["id"], line["dimension"], texts)


def json_lines(path: str, where: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file by their line.

    Raises: DataError for what is none, such as a line cut short, and for text that UTF-8 cannot write.
    """
    found = []
    for number, text in enumerate(read_text(Path(path).expanduser(), where).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            json.dumps(line, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{path}:{number}: half of a surrogate pair, U+{ord(error.object[error.start]):04X}, given; "
                f"text that UTF-8 can write is needed; mend the line"
            ) from None
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: no JSON ({error}); one whole object a line is needed; was it cut short?"
            ) from None
        if not isinstance(line, dict):
            raise DataError(f"{path}:{number}: no object given; one a line is needed; mend the line")
        found.append((number, line))
    if not found:
        raise DataError(f"{path}: empty; JSON lines are needed; give another file")
    return found


def held_out(questions: Sequence[Question], seed: int) -> frozenset[str]:
    """Ids that nothing is learned from: of each set every third, spread over its dimensions.

    The same for all classes. Where each class drew its own, as in the paper's code, a question would be
    learned from in one class and asked in another.
    """
    found: list[str] = []
    for name in SETS:
        of_set = sorted(
            (question for question in questions if question.set == name),
            key=lambda one: (one.dimension, hashlib.sha256(f"{seed} {one.id}".encode()).digest()),
        )
        found += [question.id for question in of_set[TEST_EVERY - 1 :: TEST_EVERY]]
    return frozenset(found)
