"""Leaks by n-grams: which items share thirteen words in a row with what a run was trained on.

`data.leaks` refuses training records that are an evaluated one before anything is trained; this finds what
passes it, parts of longer texts above all, and tells a score's reader how many items it concerns.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxlingua.data.leaks import SENTENCE_BYTES
from jaxlingua.eval.grams import Seen, TrainingGrams
from jaxlingua.eval.tasks.item import Item

_EXAMPLES = 5
SOURCE_BYTES = 8  # of a source that is compared whole: two English words, three Chinese characters


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which items of a task share an n-gram with the training data.

    Attributes:
        words: length of the n-grams.
        items: how many there are.
        leaked: ids of items that share something in any of their texts.
        source: ids of those whose sentence or context was seen.
        asked: ids of those whose question, other field or target was seen.
        short: how many items have no text of n words, so that they could only be compared whole.
        whole: ids of leaked items that share no n-gram, but have a shorter text that is a whole text or
            line of the training data, or all that follows a colon; or several lines that are.
        examples: id and shared text of the first few leaked items.
    """

    words: int
    items: int
    leaked: tuple[str, ...]
    source: tuple[str, ...]
    asked: tuple[str, ...]
    short: int
    whole: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]

    @property
    def share(self) -> float:
        """Leaked items of all, between 0 and 1."""
        return len(self.leaked) / self.items if self.items else 0.0

    def describe(self) -> str:
        """One sentence for the log and the report."""
        shared = f"{self.words} words in a row with training text"
        short = f"; {self.short:,} have no text so long and were compared whole" if self.short else ""
        if not self.leaked:
            return f"none of {self.items:,} items shares {shared}{short}"
        return (
            f"{len(self.leaked):,} of {self.items:,} items ({100 * self.share:.1f} %) share {shared} "
            f"(source or context {len(self.source):,}, question or answer {len(self.asked):,}; "
            f"{len(self.whole):,} by a shorter text as a whole){short}"
        )


def overlap(items: Sequence[Item], grams: TrainingGrams) -> Overlap:
    """Which items share an n-gram with training texts, in their source, a field or a target.

    The prompt is not looked at: its frame is in every example. Nor is a field or target that every item has,
    or a field that repeats the source.

    A text shorter than an n-gram is compared whole: it is found where it is a training text, a line of one,
    or all that follows the first colon of a line, and one of several lines where each of its lines is such.
    It is not found inside a line, as in a sentence that quotes it. Sources of less than `SOURCE_BYTES` are
    never found, nor fields and targets of less than `SENTENCE_BYTES`, since a word, a short answer or a label
    proves nothing; nor is any text that was translated, or changed so that no n-gram is left.

    Different n-grams have the same hash once in 2^63 comparisons: with a billion training words and a million
    words of items, in one of 10,000 evaluations.
    """
    common = _in_every_item(items)
    texts: dict[str, int] = {}
    sources, asked = [], []
    for item in items:
        others = {*item.targets, *(text for _, text in item.fields)} - common - {item.source_text}
        sources.append(texts.setdefault(item.source_text, len(texts)))
        asked.append([texts.setdefault(text, len(texts)) for text in sorted(others)])
    seen = Seen(list(texts), grams)

    def is_seen(text: int, least_bytes: int = SENTENCE_BYTES) -> bool:
        return seen.gram(text) or seen.whole(text, least_bytes=least_bytes)

    def example(index: int) -> tuple[str, str]:
        text = sources[index] if by_source[index] else next(filter(is_seen, asked[index]))
        return items[index].id, seen.shown(text)

    of_items = [[one, *them] for one, them in zip(sources, asked, strict=True)]
    by_source = [is_seen(one, SOURCE_BYTES) for one in sources]
    by_asked = [any(map(is_seen, them)) for them in asked]
    leaked = [one or other for one, other in zip(by_source, by_asked, strict=True)]
    by_gram = [any(map(seen.gram, them)) for them in of_items]
    return Overlap(
        words=grams.words,
        items=len(items),
        leaked=_ids(items, leaked),
        source=_ids(items, by_source),
        asked=_ids(items, by_asked),
        short=sum(not any(map(seen.is_long, them)) for them in of_items),
        whole=_ids(items, np.array(leaked, bool) & ~np.array(by_gram, bool)),
        examples=tuple(example(index) for index in np.flatnonzero(leaked)[:_EXAMPLES].tolist()),
    )


def _in_every_item(items: Sequence[Item]) -> set[str]:
    """Fields and targets that all of several items have: wording of the task, not of an item."""
    if len(items) < 2:
        return set()
    times = Counter(text for item in items for text in {*item.targets, *(text for _, text in item.fields)})
    return {text for text, count in times.items() if count == len(items)}


def _ids(items: Sequence[Item], chosen: Iterable[object]) -> tuple[str, ...]:
    return tuple(item.id for item, is_chosen in zip(items, chosen, strict=True) if is_chosen)
