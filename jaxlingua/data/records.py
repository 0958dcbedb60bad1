"""What a source yields: one frozen record per entry of a file, still without a template.

`index` is the place of the record in its source: it never changes when other records are skipped or held
out, so it names the record in errors, in predictions and in the keys of random streams. `language` is a code
such as `eng_Latn`. Texts are exactly those of the file. `stratum` is what the source's column `stratum` says,
such as a task or a part of the data; empty where none is named.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxlingua.config import SourceConfig


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction with its answer; `input` is empty where the instruction needs none (Alpaca's fields)."""

    index: int
    language: str
    instruction: str
    input: str
    output: str
    stratum: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """The same sentence in two or more languages; `texts` goes from language to sentence."""

    index: int
    texts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """A question answered by a span of its context (SQuAD).

    All of `answers` are accepted; the first one is `context[answer_start:answer_start + len(answers[0])]`,
    counted in code points. `language` is the language of the context.
    """

    index: int
    id: str
    language: str
    context: str
    question: str
    answers: tuple[str, ...]
    answer_start: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns of (role, text); a role is system, user or assistant."""

    index: int
    language: str
    turns: tuple[tuple[str, str], ...]
    stratum: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, one line or one whole file."""

    index: int
    language: str
    text: str
    stratum: str = ""


Record = Instruction | Pair | Question | Conversation | Text


@runtime_checkable
class RecordSource(Protocol):
    """An opened source, read from files (`sources.Source`) or made from CLDR (`cldr.Cldr`).

    `fingerprint` is a hash of all that decides its records; `skipped` counts by reason what gave none.
    """

    name: str
    config: SourceConfig
    languages: list[str]
    fingerprint: str
    skipped: dict[str, int]

    def records(self, split: Literal["train", "held_out", "all"]) -> list[Record]:
        """The records of a split, in the order of the source."""
