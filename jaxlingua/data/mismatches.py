"""Sentences of other records that do not mean what a given sentence means: what similarity is judged against.

A mismatch of a record never equals, after `leaks.normalize`, a translation of its source sentence that any
record has, nor the source sentence itself.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt16

from jaxlingua.data.leaks import normalize

CANDIDATES = 64  # drawn for one hard mismatch
_COMPARED_CHARACTERS = 1000
_CACHED_SENTENCES = 1 << 15  # some 15 MB of trigrams
_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint32)  # large and odd, as hashes want them

Direction = tuple[str, str]

_normalized = functools.lru_cache(_CACHED_SENTENCES)(normalize)


@dataclass(frozen=True, eq=False)
class Mismatches:
    """The sentences of all records by language, and which of them are translations of which.

    `pools` has by target language the records that have a sentence in it, `translations` by direction the
    normalized translations of source sentences that more than one record has. The `lonely` have no mismatch.
    """

    texts: Sequence[Mapping[str, str]]
    pools: Mapping[str, Sequence[int]]
    translations: Mapping[Direction, Mapping[str, frozenset[str]]]
    lonely: frozenset[tuple[int, Direction]]

    def draw(self, kind: Literal["random", "hard"], record: int, direction: Direction, random: Random) -> str:
        """A sentence in the target language that is no translation of the record's source sentence.

        Args:
            kind: "random" is any; "hard" is the one of 64 drawn ones that shares most character trigrams
                with the right translation.
        Cost: 5 microseconds for random and 0.1 milliseconds for hard, of sentences that are cached.
        """
        target = direction[1]
        drawn = (self.texts[other][target] for other in self._drawn(target, random))
        if kind == "hard":
            found = list(drawn)
            shared = overlaps(self.texts[record][target], found)
            drawn = (found[number] for number in np.argsort(-shared, kind="stable").tolist())
        others = chain(drawn, self._all_others(target, random))
        return next(text for text in others if not self.means_the_same(record, direction, text))

    def means_the_same(self, record: int, direction: Direction, text: str) -> bool:
        """Whether a text is the record's source sentence or, in any record, a translation of it."""
        texts, key = self.texts[record], _normalized(text)
        source = _normalized(texts[direction[0]])
        if key in (source, _normalized(texts[direction[1]])):
            return True
        return key in self.translations[direction].get(source, ())

    def _drawn(self, language: str, random: Random) -> Iterator[int]:
        pool = self.pools[language]
        return (pool[int(random.random() * len(pool))] for _ in range(CANDIDATES))

    def _all_others(self, language: str, random: Random) -> Iterator[str]:
        """Every sentence once, from a drawn one on: where nearly all sentences are the same."""
        pool = self.pools[language]
        first = int(random.random() * len(pool))
        for number in range(len(pool)):
            yield self.texts[pool[(first + number) % len(pool)]][language]


def mismatches_of(texts: Sequence[Mapping[str, str]], directions: Sequence[Direction]) -> Mismatches:
    """The mismatches of records.

    Args:
        texts: by record from language to sentence, as in `Pair`; an empty sentence counts as none.
    Cost: 10 s for a million pairs, since every sentence is normalized.
    """
    languages = sorted({language for direction in directions for language in direction})
    has = {language: _has(texts, language) for language in languages}
    # Equal hashes only mean that texts are looked at; hash() differs from process to process, the result not.
    hashes = {
        language: np.array([hash(normalize(text.get(language, ""))) for text in texts], np.int64)
        for language in languages
    }
    translations, lonely = {}, set()
    for direction in directions:
        source, target = direction
        both = np.flatnonzero(has[source] & has[target])
        repeated = translations[direction] = _repeated(texts, both, hashes[source][both], direction)
        different = len(np.unique(hashes[target][has[target]]))
        most_true = max(map(len, repeated.values()), default=1)
        if different <= most_true + 1:  # else there is always one that is neither true nor the source itself
            pool = {normalize(texts[record][target]) for record in np.flatnonzero(has[target]).tolist()}
            for record in both.tolist():
                own, true = (normalize(texts[record][language]) for language in direction)
                if not pool - {own, true} - repeated.get(own, frozenset()):
                    lonely.add((record, direction))
    pools = {target: _pool(has[target]) for _, target in directions}
    return Mismatches(texts, pools, translations, frozenset(lonely))


def overlaps(text: str, others: Sequence[str]) -> Float64[np.ndarray, "others"]:
    """Character trigrams that `text` shares with each other text, of all that either has (Jaccard index).

    Texts are compared by their first 1,000 characters, with a space at either end. Trigrams are hashed to 16
    bits, which changes the overlap of two sentences by some 0.01 where they share few.

    Example:
        >>> overlaps("night", ["nights", "light", "day"]).round(2).tolist()
        [0.57, 0.43, 0.0]
    """
    own, theirs = _trigrams(text), [_trigrams(other) for other in others]
    sizes = np.array([len(found) for found in theirs])
    is_own = np.zeros(1 << 16, bool)
    is_own[own] = True
    shared = np.add.reduceat(is_own[np.concatenate(theirs)], np.cumsum(sizes) - sizes, dtype=np.int64)
    return shared / (len(own) + sizes - shared)


@functools.lru_cache(_CACHED_SENTENCES)
def _trigrams(text: str) -> UInt16[np.ndarray, "trigrams"]:
    """The different trigrams, hashed to 16 bits."""
    framed = f" {text[:_COMPARED_CHARACTERS]} ".encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(framed, "<u4")
    hashed = (codes[:-2] * _FACTORS[0] + codes[1:-1] * _FACTORS[1] + codes[2:]) * _FACTORS[2] >> np.uint32(16)
    found = np.sort(hashed.astype(np.uint16))
    is_first = np.ones(len(found), bool)
    np.not_equal(found[1:], found[:-1], out=is_first[1:])
    return found[is_first]


def _has(texts: Sequence[Mapping[str, str]], language: str) -> np.ndarray:
    return np.array([bool(text.get(language, "").strip()) for text in texts], bool)


def _pool(has: np.ndarray) -> Sequence[int]:
    return range(len(has)) if has.all() else np.flatnonzero(has).tolist()


def _repeated(
    texts: Sequence[Mapping[str, str]], records: np.ndarray, hashes: np.ndarray, direction: Direction
) -> dict[str, frozenset[str]]:
    """All translations of each source sentence that several records have; `hashes` are of the sources."""
    values, counts = np.unique(hashes, return_counts=True)
    found: dict[str, set[str]] = {}
    for record in records[np.isin(hashes, values[counts > 1])].tolist():
        source, target = (normalize(texts[record][language]) for language in direction)
        found.setdefault(source, set()).add(target)
    return {source: frozenset(targets) for source, targets in found.items()}
