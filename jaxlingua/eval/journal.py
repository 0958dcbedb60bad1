"""Answers on disk while an evaluation goes on, so that one that was cut off repeats none.

    RUN/evals/<stage>-<step>/unfinished.jsonl    a header naming the model, then a line per answer

Once all is scored the file is gone: the predictions of each task hold the same answers, and are read as well
when tasks are added later.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlingua.errors import DataError
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.generate import journal
from jaxlingua.generate.journal import JOURNAL, read_answers


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered to one item.

    Attributes:
        text: the answer; of a choice, the label.
        is_finished: ended by itself or by a stop string, not by its longest length.
        scores: of a choice by likelihood, label → the score by which it was made.
    """

    text: str
    new_tokens: int
    is_finished: bool
    cut_prompt_tokens: int
    scores: dict[str, float] | None = None


def asked_in(task: Task, item: Item, decoding: str) -> str:
    """Names a question with all that its answer depends on, beside the model."""
    parts = (task.key, item.id, item.prompt, item.choices, task.labels, decoding)
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:20]


class Journal:
    """Predictions by the name of their question: those found on disk, and those noted since."""

    def __init__(self, answers: journal.Journal):
        self.known = {name: _prediction(fields) for name, fields in answers.known.items()}
        self._answers = answers

    def note(self, name: str, prediction: Prediction) -> None:
        """Keep an answer."""
        self.known[name] = prediction
        self._answers.note(name, _fields(prediction))


@contextmanager
def opened_journal(folder: Path, model: str, *, is_owner: bool, say: Any = print) -> Iterator[Journal]:
    """The journal of one evaluation; removed when the block ends well, kept when it does not.

    Args:
        folder: evals/<stage>-<step>.
        model: fingerprint of the model that answers.
        is_owner: whether answers of another model found here may be overwritten, as in the folder of the run
            that trains it.
    Raises: DataError for predictions of another model, or a damaged line that is not the last.
    """
    path = folder / JOURNAL
    with journal.opened_journal(path, model, lambda: _read(folder, model, is_owner, say)) as answers:
        yield Journal(answers)


def read_predictions(file: Path) -> list[dict[str, Any]]:
    """The lines of `<task>.jsonl`. Raises: DataError with file and line where one is damaged."""
    return list(read_answers(file, is_whole, is_journal=False, say=print))


def _fields(prediction: Prediction) -> dict[str, Any]:
    fields = {
        "prediction": prediction.text,
        "new_tokens": prediction.new_tokens,
        "is_finished": prediction.is_finished,
        "cut_prompt_tokens": prediction.cut_prompt_tokens,
    }
    return fields | ({"scores": prediction.scores} if prediction.scores is not None else {})


def _prediction(line: dict[str, Any]) -> Prediction:
    counts = line["new_tokens"], line["is_finished"], line["cut_prompt_tokens"]
    return Prediction(line["prediction"], *counts, line.get("scores"))


def _read(folder: Path, model: str, is_owner: bool, say: Any) -> dict[str, journal.Fields]:
    """Answers of this model in the predictions of tasks that are done, and in the journal."""
    known: dict[str, journal.Fields] = {}
    whose, tasks = _scored(folder)
    files = [folder / f"{task}.jsonl" for task in tasks]
    for file in [file for file in [*files, folder / JOURNAL] if file.is_file()]:
        is_journal = file.name == JOURNAL
        lines = read_answers(file, is_whole, is_journal=is_journal, say=say)
        if is_journal:
            whose = next(lines, {}).get("model")
        if whose != model:
            if is_owner:
                say(f"{file}: answers of another model, made again")
                continue
            raise DataError(
                f"{file}: predictions of another model (fingerprint {str(whose)[:12]} there, {model[:12]} "
                f"now); a folder holds those of one; move {folder} away, or choose another run.folder"
            )
        known |= {line["asked"]: _fields(_prediction(line)) for line in lines if "asked" in line}
    return known


def _scored(folder: Path) -> tuple[str | None, list[str]]:
    """The model that scores.json is of, and its tasks; none where there is no such file, or an older one."""
    try:
        content = json.loads((folder / "scores.json").read_text("utf-8"))
        return content["model"]["fingerprint"], list(content["tasks"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, []


def is_whole(line: dict[str, Any]) -> bool:
    """Whether a line has all that a prediction has, each of its kind."""
    kinds = {"asked": str, "prediction": str, "new_tokens": int, "is_finished": bool}
    kinds["cut_prompt_tokens"] = int
    scores = line.get("scores", {})
    has_scores = isinstance(scores, dict) and all(type(one) in (int, float) for one in scores.values())
    return has_scores and all(type(line.get(name)) is kind for name, kind in kinds.items())
