"""Leaks: training text that is evaluated on. Refused, dropped or allowed, and counted in every case.

Texts are compared after `normalize`, which folds Unicode forms, case, punctuation and white space. A training
record leaks as a whole, in all its languages, since a score in one language is spoilt by the same sentence
learned in another. It leaks if

- one of its texts (either side of a pair, any field of an instruction, any turn, any line of plain text) has
  `SENTENCE_BYTES` or more and equals a sentence of an evaluated pair, in any language of that record;
- both texts of a shorter pair equal those of an evaluated pair in the same two languages;
- it has context and question of an evaluated question, or instruction and input of an evaluated instruction:
  as a question, an instruction, a user's turns, or plain text;
- it is a question whose id is a hash and that of an evaluated one: the same question in another language.

It does not leak by a short text alone ("2 km", "Thank you.": as much in common as a shared word), by a
context with another question, by a part of a longer text, or by a paraphrase.
"""

import functools
import itertools
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.errors import DataError

SENTENCE_BYTES = 24  # of normalized UTF-8: five English words, eight Chinese characters
_HASH = re.compile(r"[0-9a-f-]{16,}")
_SHOWN_CHARACTERS = 60

Key = str | tuple[str, ...]
LeakMode = Literal["refuse", "drop", "allow"]


@dataclass(frozen=True, slots=True)
class Leak:
    """A training record by source and index, the text that leaks, and the evaluated record that has it."""

    source: str
    index: int
    text: str
    evaluation_source: str
    evaluation_index: int


@dataclass(frozen=True, slots=True)
class Leaks:
    """What was found among `checked` training records, and what is done about it."""

    mode: LeakMode
    checked: int
    found: tuple[Leak, ...]

    def dropped(self, source: str) -> frozenset[int]:
        """Indices of a source's records that must not become examples."""
        if self.mode != "drop":
            return frozenset()
        return frozenset(leak.index for leak in self.found if leak.source == source)

    def describe(self) -> str:
        """One sentence for the log and the report."""
        if not self.found:
            return f"leaks: none of {self.checked:,} training records equals evaluation text"
        done = "left out" if self.mode == "drop" else "kept, since data.leaks=allow"
        by_source = Counter(leak.source for leak in self.found)
        return (
            f"leaks: {len(self.found):,} of {self.checked:,} training records equal evaluation text, {done} "
            f"({', '.join(f'{name} {count:,}' for name, count in by_source.items())})"
        )


def refuse_leaks(
    training: Mapping[str, list[Record]], evaluation: Mapping[str, Iterable[Record]], mode: LeakMode
) -> Leaks:
    """Compare the training records of each source with the evaluated records of each source or task.

    With mode "drop" `stage_examples` leaves the records out that are found; with "allow" nothing is done.

    Raises: DataError with the count and the first case, with mode "refuse".
    Cost: a million training sentences take about 5 s; memory goes by the evaluation text only.
    """
    found = find_leaks(training, evaluation)
    checked = sum(len(records) for records in training.values())
    if found and mode == "refuse":
        first = found[0]
        raise DataError(
            f"data.sources.{first.source} (record {first.index}): '{_shown(first.text)}' is also in record "
            f"{first.evaluation_index} of '{first.evaluation_source}', the first of {len(found):,} leaks in "
            f"{checked:,} training records; what is evaluated must not be trained on; set data.leaks=drop to "
            f"leave these records out, or allow to keep them"
        )
    return Leaks(mode, checked, tuple(found))


def find_leaks(
    training: Mapping[str, Iterable[Record]], evaluation: Mapping[str, Iterable[Record]]
) -> list[Leak]:
    """Every training record that leaks, once each, in order.

    Example:
        >>> captions = [Pair(4, {"eng_Latn": "A man rides.", "deu_Latn": "Ein Mann fährt auf dem Fahrrad."})]
        >>> plain = [Text(0, "deu_Latn", "ein Mann fährt auf dem fahrrad")]
        >>> find_leaks({"web": plain}, {"captions": captions})[0].evaluation_index
        4
    """
    evaluated: dict[Key, tuple[str, int]] = {}
    for name, records in evaluation.items():
        for record in records:
            for key in _evaluated_keys(record):
                evaluated.setdefault(key, (name, record.index))
    leaks = []
    for name, records in training.items():
        for record in records:
            for key, text in _training_keys(record):
                if key in evaluated:
                    leaks.append(Leak(name, record.index, text, *evaluated[key]))
                    break
    return leaks


def normalize(text: str) -> str:
    """Text without the differences of form: NFKC, case folded, punctuation and white space one space.

    Invisible characters go; digits, symbols and combining marks stay, for they change what is said.

    Example:
        >>> normalize("“It’s  ＴＨＥＲＥ”, he said.") == normalize("it's there he said")
        True
        >>> normalize("1.5 km") == normalize("15 km"), normalize("कि") == normalize("की")
        (False, False)
    """
    if text.isascii():
        return " ".join(text.lower().translate(_ascii_folding()).split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_folding()).split())


def _evaluated_keys(record: Record) -> Iterator[Key]:
    """What makes an item out of a record: each sentence of a pair or text, but a prompt only as a whole."""
    match record:
        case Question():
            yield _joined(record.context, record.question)
            if _HASH.fullmatch(record.id):
                yield ("id", record.id)
        case Instruction():
            yield _joined(record.instruction, record.input)
        case Conversation():
            yield _joined(*(text for role, text in record.turns if role == "user"))
        case Pair() | Text():
            yield from (key for key, _ in _training_keys(record))


def _training_keys(record: Record) -> Iterator[tuple[Key, str]]:
    """The keys under which a record may be found, each with the text to show for it."""
    match record:
        case Pair():
            short = []
            for language, text in record.texts.items():
                key = normalize(text)
                if _is_sentence(key):
                    yield key, text
                elif key:
                    short.append((language, key, text))
            for (language, key, text), (other, other_key, _) in itertools.combinations(sorted(short), 2):
                yield (language, key, other, other_key), text
        case Question():
            yield _joined(record.context, record.question), record.question
            yield from _sentences((record.context, record.question))
            if _HASH.fullmatch(record.id):
                yield ("id", record.id), record.question
        case Instruction():
            yield _joined(record.instruction, record.input), record.instruction
            yield _joined(record.input, record.instruction), record.instruction
            yield from _sentences((record.instruction, record.input, record.output))
        case Conversation():
            asked = [text for role, text in record.turns if role == "user"]
            yield _joined(*asked), " ".join(asked)
            yield from _sentences(text for _, text in record.turns)
        case Text():
            yield from _sentences((record.text, *(record.text.split("\n") if "\n" in record.text else ())))


def _joined(*texts: str) -> str:
    """The key of texts that were put together, in this order, with whatever between them."""
    return normalize("\n".join(texts))


def _sentences(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        key = normalize(text)
        if _is_sentence(key):
            yield key, text


def _is_sentence(key: str) -> bool:
    return len(key) >= SENTENCE_BYTES or len(key.encode()) >= SENTENCE_BYTES


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


@functools.cache
def _folding() -> dict[int, str | None]:
    """Punctuation, separators and control characters to a space, format characters to nothing."""
    table: dict[int, str | None] = {}
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category[0] in "PZ" or category == "Cc":
            table[code] = " "
        elif category == "Cf":
            table[code] = None
    return table


@functools.cache
def _ascii_folding() -> dict[int, str | None]:
    return {code: to for code, to in _folding().items() if code < 128}
