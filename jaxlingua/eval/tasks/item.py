"""What is evaluated: items, each a prompt with the answers that are right, and the task that they make up."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxlingua.data.records import Record

# Raised whenever the same configuration would give other prompts, items or answers.
TASK_VERSION = 1

# The prompt that is asked unless eval.prompts says otherwise.
FIRST_PROMPT = "english.0"

Kind = Literal["qa", "translation", "choice", "number", "open"]


@dataclass(frozen=True, slots=True)
class Item:
    """One evaluated question.

    Attributes:
        language: of the answer.
        prompt: all that the model reads, frame included.
        targets: the answers that are right; of a choice, the one label that is; empty where none is known.
        source_text: what a copier would answer: the sentence, or the context.
        choices: of a choice, what may follow the prompt, one text for each of the task's labels and in their
            order; else none.
        fields: further texts of the item by name, such as the question; for judges and reports.
    """

    id: str
    language: str
    prompt: str
    targets: tuple[str, ...]
    source_text: str
    choices: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Task:
    """The items of one entry of `eval.tasks` in one prompt, with what its scores have to tell.

    Attributes:
        name: the entry itself: NAME[.SPLIT].LANGUAGE or NAME[.SPLIT].LANGUAGE-LANGUAGE, where NAME is a
            source of the configuration or a task file.
        kind: how it is answered: qa, translation, number and open by generating, choice by likelihood.
        language: of the answers.
        source_language: of the questions, or of what is translated.
        prompt: name of the prompt, such as english.0 or native.1.
        records: what the items were made of, for `data.leaks`.
        available: records that could be asked, of which `items` are a sample.
        left_out: records of the source that could not be asked, by reason.
        why_left_out: of translations from files, the reason of each id that was left out.
        metrics: names of what is measured, see metrics/registry.py.
        labels: of a choice, the names of its classes.
        max_new_tokens: longest answer; None is generate.max_new_tokens, which also bounds it.
        stop: texts that end an answer and are not part of it.
        likelihood: how a choice is made unless eval.choice_by says otherwise.
        version: the task file's; what is asked has changed where it has.
        checked_on: "real files" or "made-up files" that its reader was tested on.
        prompt_text: the prompt with its slots unfilled, for reports; empty for a source.
        fingerprint: sha256 of the files that were read; empty for a source.
        files: names of these files, in eval.data_folder where they lie there.
        note: what else is to be told of it.
        is_parallel: whether an item's id is known to be that of the same question in every language of the
            task file; never of translations, nor of sources, whose questions are in one language.
        arm: how eval.in_context makes the prompts; empty where it does not.
        context: an `eval.in_context.context.Context`, of which prompts are made; None without an arm.
    """

    name: str
    kind: Kind
    source: str
    language: str
    split: str
    template: str
    items: tuple[Item, ...]
    records: tuple[Record, ...]
    available: int
    left_out: Mapping[str, int]
    source_language: str = ""
    prompt: str = FIRST_PROMPT
    metrics: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    likelihood: str = "label"
    version: int = TASK_VERSION
    checked_on: str = "real files"
    prompt_text: str = ""
    fingerprint: str = ""
    files: tuple[str, ...] = ()
    note: str = ""
    is_parallel: bool = False
    why_left_out: Mapping[str, str] = field(default_factory=dict, repr=False)
    arm: str = ""
    context: Any = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        """Names the file of its predictions: the entry, and the prompt unless it is the first."""
        return self.name if self.prompt == FIRST_PROMPT else f"{self.name}@{self.prompt}"

    @property
    def signature(self) -> str:
        """Task version, prompt, split, number of items, hashes of items and of files read, the arm."""
        digest = hashlib.sha256(repr(self.items).encode()).hexdigest()[:8]
        return (
            f"task:{self.kind}{self.version}|prompt:{self.template}.{self.prompt}|split:{self.split}"
            f"|items:{len(self.items)}of{self.available}|data:{digest}"
            + (f"|files:{self.fingerprint[:8]}" if self.fingerprint else "")
            + (f"|icl:{self.arm}" if self.arm else "")
        )

    def describe(self) -> str:
        """One line for the log."""
        left_out = ", ".join(f"{reason} {count}" for reason, count in sorted(self.left_out.items()))
        return (
            f"{self.key}: {len(self.items)} of {self.available} items ({self.split.replace('_', ' ')})"
            + (f"; from {', '.join(self.files)}" if self.files else "")
            + (f"; left out: {left_out}" if left_out else "")
            + (f"; in context: {self.arm}" if self.arm else "")
            + (f"; {self.note}" if self.note else "")
        )
