"""The predictions of evaluations, with the language of each question."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from jaxlingua.config import task_files
from jaxlingua.errors import DataError
from jaxlingua.eval.journal import JOURNAL
from jaxlingua.eval.judge import transcript
from jaxlingua.eval.report.files import SCORES_FILE, read_json, read_lines
from jaxlingua.eval.report.forms import AnyText, Count, Prediction, check
from jaxlingua.eval.tasks.item import FIRST_PROMPT
from jaxlingua.eval.tasks.library import read_task_file


class _Line(Prediction):
    choices: list[AnyText] = Field(default_factory=list)
    new_tokens: Count | None = None
    is_finished: bool = True


class _Told(BaseModel):
    """What scores.json tells of a task. Evaluations of older versions do not tell whether it is parallel."""

    model_config = ConfigDict(strict=True, extra="allow")

    kind: str = ""
    is_parallel: bool | None = None


class _Scores(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    tasks: dict[str, _Told] = Field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        choices: what could be chosen; of a free answer none.
        new_tokens: None where the line does not tell.
    """

    id: str
    prompt: str
    text: str
    targets: tuple[str, ...]
    choices: tuple[str, ...]
    new_tokens: int | None
    is_finished: bool


@dataclass(frozen=True)
class Answers:
    """The answers of one model to one task in one prompt.

    Attributes:
        key: names the file: the entry of eval.tasks, and the prompt unless it is the first.
        family: the key without its languages, the same for all languages of a parallel set.
        kind: qa, translation, choice, number or open; empty where no scores.json tells it.
        asked_in: language of the questions, or of what is translated.
        language: in which the answer is asked.
        is_parallel: whether items of one id ask the same in all languages of the family.
    """

    key: str
    family: str
    kind: str
    asked_in: str
    language: str
    is_parallel: bool
    replies: tuple[Reply, ...]

    @property
    def is_choice(self) -> bool:
        return any(reply.choices for reply in self.replies)


Evaluations = Mapping[str, Mapping[str, Answers]]  # stage and step, key


def read_evaluations(folder: Path, say: Callable[[str], None]) -> Evaluations:
    """The predictions of every evaluation of a run, base first, or of the one evaluation that `folder` is.

    Raises: DataError where there are none, or naming file and line where one is damaged.
    """
    homes = [folder]
    if (folder / "evals").is_dir():
        homes = sorted((home for home in (folder / "evals").iterdir() if home.is_dir()), key=_order)
    found = {home.name: of for home in homes if (of := _read(home, say))}
    if not found:
        raise DataError(
            f"{folder}: no predictions there; the folder of an evaluated run, or evals/<stage>-<step> of "
            f"one, is needed; run python -m jaxlingua.eval first"
        )
    return found


def _order(home: Path) -> tuple[bool, bool, int, str]:
    """Base, models beside the run at step 0, then checkpoints as they were trained."""
    stage, _, step = home.name.rpartition("-")
    number = int(step) if step.isdecimal() else 0
    return stage != "base", number > 0, number, stage


def _read(home: Path, say: Callable[[str], None]) -> dict[str, Answers]:
    scores = _Scores()
    if (home / SCORES_FILE).is_file():
        content = read_json(home / SCORES_FILE)
        check(_Scores, content, home / SCORES_FILE, "an evaluation writes it whole; evaluate again")
        scores = _Scores.model_validate(content)
    found = {}
    for file in sorted(home.glob("*.jsonl")):
        if file.name == transcript.FILE:
            continue
        if file.name == JOURNAL:
            say(f"{file}: an evaluation that has not come to its end; passed over")
            continue
        if lines := read_lines(file):
            found[file.stem] = _answers(file, lines, scores.tasks.get(file.stem, _Told()))
    return found


def _answers(file: Path, lines: list[dict[str, Any]], told: _Told) -> Answers:
    for number, line in enumerate(lines, start=1):
        check(_Line, line, f"{file}:{number}", "an evaluation writes such lines whole; evaluate again")
    name, _, prompt = file.stem.partition("@")
    family, _, codes = name.rpartition(".")
    languages = list(dict.fromkeys(line["language"] for line in lines))
    if len(languages) > 1 or not family:
        raise DataError(
            f"{file}: answers in {', '.join(languages)}; one task in one language, in a file that is called "
            f"TASK.LANGUAGE.jsonl, is allowed; take the file away"
        )
    others = [code for code in codes.split("-") if code != languages[0]]
    return Answers(
        key=file.stem,
        family=f"{family}@{prompt or FIRST_PROMPT}",
        kind=told.kind,
        asked_in=others[0] if others else languages[0],
        language=languages[0],
        is_parallel=_is_parallel(family) if told.is_parallel is None else told.is_parallel,
        replies=tuple(map(_reply, lines)),
    )


def _is_parallel(family: str) -> bool:
    """As the task file says that comes with jaxlingua, where there is one."""
    name = family.partition(".")[0]
    return name in task_files("") and read_task_file(name, "").is_parallel


def _reply(line: Mapping[str, Any]) -> Reply:
    return Reply(
        id=line["id"],
        prompt=line["prompt"],
        text=line["prediction"],
        targets=tuple(line["targets"]),
        choices=tuple(line.get("choices", ())),
        new_tokens=line.get("new_tokens"),
        is_finished=line.get("is_finished", True),
    )
