"""Answers on disk while an evaluation goes on, so that one that was cut off repeats none.

    RUN/evals/<stage>-<step>/unfinished.jsonl    a header naming the model, then a line per answer

Once all is scored the file is gone: the predictions of each task hold the same answers, and are read as well
when tasks are added later.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from jaxlingua.errors import DataError
from jaxlingua.eval.tasks.item import Item, Task

JOURNAL = "unfinished.jsonl"
LONE_SURROGATES = "backslashreplace"  # which a tokenizer may give; they are written as JSON escapes them
FLUSHED_EVERY = 16  # answers; what a killed process may lose is asked again


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
    """Answers by the name of their question: those found on disk, and those noted since.

    In several processes the first one reads and writes; all of them know the same answers.
    """

    def __init__(self, known: dict[str, Prediction], file: TextIO | None):
        self.known = known
        self._file = file
        self._unflushed = 0

    def note(self, name: str, prediction: Prediction) -> None:
        """Keep an answer."""
        self.known[name] = prediction
        if self._file is not None:
            line = {"asked": name, **_fields(prediction)}
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._unflushed += 1
            if self._unflushed >= FLUSHED_EVERY:
                self._file.flush()
                self._unflushed = 0


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
    is_primary = jax.process_index() == 0
    known: dict[str, Prediction] = {}
    problem = ""
    if is_primary:
        try:
            known = _read(folder, model, is_owner, say)
        except DataError as error:
            problem = str(error)
    known, problem = _shared([known, problem])
    if problem:
        raise DataError(problem)
    if not is_primary:
        yield Journal(known, None)
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JOURNAL
    partial = path.with_name(f".{JOURNAL}.partial")
    header = json.dumps({"model": model}) + "\n"
    kept = [json.dumps({"asked": name, **_fields(one)}, ensure_ascii=False) for name, one in known.items()]
    partial.write_text(header + "".join(f"{line}\n" for line in kept), "utf-8", LONE_SURROGATES, "\n")
    os.replace(partial, path)
    with path.open("a", encoding="utf-8", errors=LONE_SURROGATES, newline="\n") as file:
        yield Journal(known, file)
    path.unlink()


def read_predictions(file: Path) -> list[dict[str, Any]]:
    """The lines of `<task>.jsonl`. Raises: DataError with file and line where one is damaged."""
    return list(_lines(file, is_journal=False, say=print))


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


def _read(folder: Path, model: str, is_owner: bool, say: Any) -> dict[str, Prediction]:
    """Answers of this model in the predictions of tasks that are done, and in the journal."""
    known: dict[str, Prediction] = {}
    whose, tasks = _scored(folder)
    files = [folder / f"{task}.jsonl" for task in tasks]
    for file in [file for file in [*files, folder / JOURNAL] if file.is_file()]:
        is_journal = file.name == JOURNAL
        lines = _lines(file, is_journal=is_journal, say=say)
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
        known |= {line["asked"]: _prediction(line) for line in lines if "asked" in line}
    return known


def _scored(folder: Path) -> tuple[str | None, list[str]]:
    """The model that scores.json is of, and its tasks; none where there is no such file, or an older one."""
    try:
        content = json.loads((folder / "scores.json").read_text("utf-8"))
        return content["model"]["fingerprint"], list(content["tasks"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, []


def _lines(file: Path, *, is_journal: bool, say: Any) -> Iterator[dict[str, Any]]:
    """The objects of a file of lines. The last line of a journal may be torn: its process was killed."""
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            content = json.loads(line)
            if not isinstance(content, dict) or ("asked" in content and not _is_whole(content)):
                raise ValueError("a prediction is an object with prediction, new_tokens, is_finished …")
        except ValueError as error:
            if is_journal and number == len(lines):
                say(f"{file}:{number}: torn line, its item is asked again")
                return
            raise DataError(
                f"{file}:{number}: damaged prediction ({error}); whole lines of JSON are written; remove the "
                f"line, and its item is asked again"
            ) from None
        yield content


def _is_whole(line: dict[str, Any]) -> bool:
    kinds = {"asked": str, "prediction": str, "new_tokens": int, "is_finished": bool}
    kinds["cut_prompt_tokens"] = int
    scores = line.get("scores", {})
    has_scores = isinstance(scores, dict) and all(type(one) in (int, float) for one in scores.values())
    return has_scores and all(type(line.get(name)) is kind for name, kind in kinds.items())


def _shared(content: Any) -> Any:
    """What the first process read, in all of them."""
    if jax.process_count() == 1:
        return content
    from jax.experimental import multihost_utils

    plain = [{name: _fields(one) for name, one in content[0].items()}, content[1]]
    text = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    mine = text if jax.process_index() == 0 else np.zeros(length, np.uint8)
    told = json.loads(bytes(multihost_utils.broadcast_one_to_all(mine)))
    return [{name: _prediction(line) for name, line in told[0].items()}, told[1]]
