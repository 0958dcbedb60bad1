"""Answers on disk as soon as they are known, so that work that was cut off repeats none.

A journal is a file of JSON lines: a header naming the model, then a line for each answer. Once all is done
the file is gone. What an answer is made of is its owner's (`eval.journal`, `generate.lines`).
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from jaxlingua.errors import DataError

JOURNAL = "unfinished.jsonl"
LONE_SURROGATES = "backslashreplace"  # which a tokenizer may give; they are written as JSON escapes them

Fields = dict[str, Any]


class Journal:
    """Answers by the name of their question: those found on disk, and those noted since.

    In several processes the first one reads and writes; all of them know the same answers.
    """

    def __init__(self, known: dict[str, Fields], file: TextIO | None):
        self.known = known
        self._file = file

    def note(self, name: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer, whatever becomes of this process."""
        self.known[name] = dict(answer)
        if self._file is not None:
            self._file.write(_line(name, answer))
            self._file.flush()


@contextmanager
def opened_journal(path: Path, model: str, read: Callable[[], dict[str, Fields]]) -> Iterator[Journal]:
    """The journal at a path; removed when the block ends well, kept when it does not.

    Args:
        model: fingerprint of the model that answers.
        read: gives the answers that are known already; called in the first process.
    Raises: in all processes the DataError of `read`.
    """
    is_primary = jax.process_index() == 0
    known: dict[str, Fields] = {}
    problem = ""
    if is_primary:
        try:
            known = read()
        except DataError as error:
            problem = str(error)
    known, problem = _shared([known, problem])
    if problem:
        raise DataError(problem)
    if not is_primary:
        yield Journal(known, None)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    lines = [json.dumps({"model": model}) + "\n", *(_line(name, answer) for name, answer in known.items())]
    partial.write_text("".join(lines), "utf-8", LONE_SURROGATES, "\n")
    os.replace(partial, path)
    with path.open("a", encoding="utf-8", errors=LONE_SURROGATES, newline="\n") as file:
        yield Journal(known, file)
    path.unlink()


def read_answers(
    file: Path, is_whole: Callable[[Fields], bool], *, is_journal: bool, say: Callable[[str], None]
) -> Iterator[Fields]:
    """The objects of a file of lines, each whole. The last one of a journal may be torn by a kill.

    Raises: DataError with file and line where one is damaged.
    """
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            content = json.loads(line)
            if not isinstance(content, dict) or ("asked" in content and not is_whole(content)):
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


def _line(name: str, answer: Mapping[str, Any]) -> str:
    return json.dumps({"asked": name, **answer}, ensure_ascii=False) + "\n"


def _shared(content: Any) -> Any:
    """What the first process read, in all of them."""
    if jax.process_count() == 1:
        return content
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    mine = text if jax.process_index() == 0 else np.zeros(length, np.uint8)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(mine)))
