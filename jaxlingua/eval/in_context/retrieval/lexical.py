"""Retrievers that compare words, and one that draws at random; they need no model.

A text is compared by its words (`jaxlingua.words`) after NFKC and case folding, on both sides. Punctuation
and symbols are left out, unless a text has nothing else. In scripts without spaces a word is a character with
its marks, so that an n-gram is n characters.
"""

import functools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

import numpy as np
import xxhash
from jaxtyping import Float
from scipy.sparse import csr_array

from jaxlingua.eval.in_context.retrieval.rank import Retriever, Role
from jaxlingua.words import MARK, kind, segment

LONGEST_GRAM = 3  # words; of count and tfidf
BM25_K1, BM25_B = 1.5, 0.75
BM25_FLOOR = 0.25  # times the mean weight of a word: what a word in more than half of the pool weighs

# What is equal but for the order in which it was summed up is a tie.
_DECIMALS = 12

_ROLES = get_args(Role)  # their places are in the seeds

Scores = Callable[[Sequence[str]], Float[np.ndarray, "queries pool"]]


def lexical(name: str, seed: int) -> Retriever:
    """The retriever of one of these names.

    - random: numbers drawn from the seed, the role and a hash of the query's text; the pool has no part in
      them, so that pools of equal size are drawn from alike.
    - overlap: words in both texts ÷ words in either, each counted once (Jaccard).
    - count: cosine of the counts of n-grams of one to three words.
    - tfidf: the same, weighted by ln((1 + texts) ÷ (1 + texts with the n-gram)) + 1.
    - bm25: Okapi BM25, k1 1.5, b 0.75, without negative weights.

    N-grams and weights are those of the pool; what only a query has is not compared, except by overlap.

    Cost: 1.5 to 2.6 seconds for a pool of 10,000 sentences of 28 words, 0.4 for 500 queries; random 0.1.
    Paper: count and TF-IDF as in scikit-learn, BM25 as BM25Okapi of rank_bm25. X-ICL (arXiv:2403.16512) has
        random, overlap, count and TF-IDF.
    """
    return _Random(seed) if name == "random" else _Lexical(name, _INDEXES[name])


class _Random:
    name = "random"

    def __init__(self, seed: int):
        self._seed = seed

    def scores(
        self, queries: Sequence[str], pool: Sequence[str], role: Role = "exemplars"
    ) -> Float[np.ndarray, "queries pool"]:
        drawn = np.empty((len(queries), len(pool)))
        for row, query in zip(drawn, queries, strict=True):
            seeds = [self._seed, xxhash.xxh3_64_intdigest(query.encode()), _ROLES.index(role)]
            np.random.default_rng(seeds).random(out=row)
        return drawn


class _Lexical:
    def __init__(self, name: str, index: Callable[[tuple[str, ...]], Scores]):
        self.name = name
        self._index = functools.lru_cache(maxsize=2)(index)  # exemplars and parallel text

    def scores(
        self, queries: Sequence[str], pool: Sequence[str], role: Role = "exemplars"
    ) -> Float[np.ndarray, "queries pool"]:
        return self._index(tuple(pool))(queries).round(_DECIMALS)


def words_of(text: str) -> list[str]:
    """What of a text is compared, in its order."""
    words = segment(unicodedata.normalize("NFKC", text).casefold()).words
    return [word for word in words if kind(word) != MARK] or list(words)


def grams_of(text: str) -> list[str]:
    """The n-grams of its words, each of one to three, with spaces between."""
    words = words_of(text)
    return [
        " ".join(words[start : start + length])
        for length in range(1, LONGEST_GRAM + 1)
        for start in range(len(words) - length + 1)
    ]


# ── indexes of a pool: each is a function of queries ─────────────────────────
def _overlap(pool: tuple[str, ...]) -> Scores:
    columns: dict[str, int] = {}
    of_pool = _counts([set(words_of(text)) for text in pool], columns, learn=True)

    def scores(queries: Sequence[str]) -> Float[np.ndarray, "queries pool"]:
        asked = [set(words_of(query)) for query in queries]
        shared = (_counts(asked, columns) @ of_pool.T).toarray()
        lengths = np.array([len(words) for words in asked], float)
        either = lengths[:, None] + of_pool.sum(axis=1)[None] - shared
        return shared / np.maximum(either, 1)

    return scores


def _cosines_of_grams(pool: tuple[str, ...], *, is_weighted: bool) -> Scores:
    columns: dict[str, int] = {}
    counts = _counts(map(grams_of, pool), columns, learn=True)
    texts = np.bincount(counts.indices, minlength=len(columns))  # with each n-gram
    weights = np.log((1 + len(pool)) / (1 + texts)) + 1 if is_weighted else np.ones(len(columns))
    of_pool = _normalized(counts, weights)

    def scores(queries: Sequence[str]) -> Float[np.ndarray, "queries pool"]:
        asked = _normalized(_counts(map(grams_of, queries), columns), weights)
        return (asked @ of_pool.T).toarray()

    return scores


def _bm25(pool: tuple[str, ...]) -> Scores:
    columns: dict[str, int] = {}
    counts = _counts(map(words_of, pool), columns, learn=True)
    texts = np.bincount(counts.indices, minlength=len(columns))  # with each word
    weights = np.log(len(pool) - texts + 0.5) - np.log(texts + 0.5)
    if len(columns):
        # In a pool of a few texts that are alike the mean is below 0, too; rank_bm25 leaves it so.
        weights[weights < 0] = BM25_FLOOR * abs(weights.mean())
    lengths = counts.sum(axis=1)
    relative = lengths[_rows(counts)] / lengths.mean()
    saturated = counts.data * (BM25_K1 + 1) / (counts.data + BM25_K1 * (1 - BM25_B + BM25_B * relative))
    of_pool = csr_array((saturated * weights[counts.indices], counts.indices, counts.indptr), counts.shape)

    def scores(queries: Sequence[str]) -> Float[np.ndarray, "queries pool"]:
        return (_counts(map(words_of, queries), columns) @ of_pool.T).toarray()

    return scores


_INDEXES: dict[str, Callable[[tuple[str, ...]], Scores]] = {
    "overlap": _overlap,
    "count": functools.partial(_cosines_of_grams, is_weighted=False),
    "tfidf": functools.partial(_cosines_of_grams, is_weighted=True),
    "bm25": _bm25,
}


def _counts(bags: Iterable[Iterable[str]], columns: dict[str, int], *, learn: bool = False) -> csr_array:
    """float64 [texts, columns], how often each text has each of them; `learn` adds those that are missing."""
    indices: list[int] = []
    ends = [0]
    for bag in bags:
        if learn:
            indices += [columns.setdefault(gram, len(columns)) for gram in bag]
        else:
            indices += [columns[gram] for gram in bag if gram in columns]
        ends.append(len(indices))
    found = csr_array((np.ones(len(indices)), indices, ends), shape=(len(ends) - 1, len(columns)))
    found.sum_duplicates()
    return found


def _rows(counts: csr_array) -> np.ndarray:
    return np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))


def _normalized(counts: csr_array, weights: Float[np.ndarray, " columns"]) -> csr_array:
    """Rows of length 1, those without anything of length 0."""
    data, rows = counts.data * weights[counts.indices], _rows(counts)
    lengths = np.sqrt(np.bincount(rows, data * data, minlength=counts.shape[0]))
    return csr_array((data / lengths[rows], counts.indices, counts.indptr), counts.shape)
