"""Scores of several retrievers to one order, the same on every machine and in every batch."""

import functools
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlingua.errors import DataError

# What is looked for. Chance draws other numbers for each: else the sentence pairs would be the translations
# of the very exemplars, where pools are the same records.
Role = Literal["exemplars", "pairs", "pivot"]


class Retriever(Protocol):
    """How near the texts of a pool are to a query.

    A query's scores depend on its text, on the pool and on the role, never on the queries beside it.
    """

    name: str

    def scores(
        self, queries: Sequence[str], pool: Sequence[str], role: Role = "exemplars"
    ) -> Float[np.ndarray, "queries pool"]:
        """float64, higher is nearer. What is learned of the last few pools is kept, so that queries may come
        in parts: the scores take 8 × queries × pool bytes."""
        ...


def fused(
    scores: Iterable[Float[np.ndarray, "queries pool"]], is_excluded: Bool[np.ndarray, "queries pool"]
) -> Float[np.ndarray, "queries pool"]:
    """The mean over retrievers of scores that are scaled, for each query, to 0…1 over what is not excluded.

    A retriever that finds all texts equally near says 0 of each. Of one retriever the order stays as it is.

    Args:
        is_excluded: what a query must not be given; its scores mean nothing.
    """
    scaled = [_scaled(of_one, ~is_excluded) for of_one in scores]
    return functools.reduce(np.add, scaled) / len(scaled)


def _scaled(
    scores: Float[np.ndarray, "queries pool"], is_left: Bool[np.ndarray, "queries pool"]
) -> Float[np.ndarray, "queries pool"]:
    low = scores.min(axis=1, keepdims=True, where=is_left, initial=np.inf)
    high = scores.max(axis=1, keepdims=True, where=is_left, initial=-np.inf)
    return (scores - low) / np.where(high > low, high - low, 1)


def nearest(
    scores: Float[np.ndarray, "queries pool"], count: int, is_excluded: Bool[np.ndarray, "queries pool"]
) -> Int[np.ndarray, "queries count"]:
    """The places in the pool of the `count` best of each query, the best first.

    Equal scores stand in the order of the pool.

    Args:
        count: at least 1.
        is_excluded: what a query must not be given, such as itself.
    Raises: DataError where the pool has fewer texts than that for a query.
    """
    left = scores.shape[1] - is_excluded.sum(axis=1)
    if (left < count).any():
        raise DataError(
            f"eval.in_context: {count} records of a pool are asked for, but it has {left.min()} beside the "
            f"query itself; ask for fewer, or name a larger split"
        )
    far = np.where(is_excluded, np.inf, -scores)
    last = np.partition(far, count - 1, axis=1)[:, count - 1]
    found = np.empty((len(far), count), int)
    for row, of_query, farthest in zip(found, far, last, strict=True):
        places = np.flatnonzero(of_query <= farthest)  # by place; all that are as far as the last
        row[:] = places[np.argsort(of_query[places], kind="stable")][:count]
    return found
