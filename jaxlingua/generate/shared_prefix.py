"""Rows in which documents that begin alike share what they begin with: the choices of one question.

A row holds the shared tokens once and behind them the rest of each document, whose positions go on from the
shared ones. Each rest sees the shared tokens and itself (`SHARED` in model/reference.py), so that it gets
what it would get alone. One row instead of a cache of keys and values: what memory holds is a layer's at a
time, as in any other forward pass, and one program does for both parts.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxlingua.model.reference import SHARED


class Reading(NamedTuple):
    """The documents that one row holds, by index, and how many tokens they share; with none, there is one."""

    shared: int
    members: tuple[int, ...]


class Filled(NamedTuple):
    """What a model reads of some rows; 0 where a row has ended."""

    tokens: Int[np.ndarray, "batch length"]
    targets: Int[np.ndarray, "batch length"]  # the token after each
    positions: Int[np.ndarray, "batch length"]
    segments: Int[np.ndarray, "batch length"]


def readings(
    documents: Sequence[np.ndarray], groups: Sequence[Hashable], longest: int, window: int | None = None
) -> list[Reading]:
    """A row for every document, or for several of one group that begin alike.

    Args:
        documents: ids, 2 or more; the last one is not read.
        groups: of each document; those of equal ones may share a row.
        longest: the most tokens that a shared row may have; 0: none is shared.
        window: of attention; documents of a group in which one is longer have rows of their own.

    What follows the shared tokens is never longer than these: so at most two thirds of the tokens are read,
    and the longer the prompt, the fewer.

    Example:
        >>> readings([np.array([1, 5, 6, 7]), np.array([1, 5, 6, 8]), np.array([1, 9])], "aab", longest=8)
        [Reading(shared=2, members=(0, 1)), Reading(shared=0, members=(2,))]
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    found: list[Reading] = []
    for of_group in members.values():
        reaches = window is None or all(len(documents[index]) <= window for index in of_group)
        found += _rows_of(documents, of_group, longest if reaches else 0)
    return found


def _rows_of(documents: Sequence[np.ndarray], group: Sequence[int], longest: int) -> Iterator[Reading]:
    # The last token that is common to all is read by each: what follows it differs.
    shared = max(0, _common([documents[index] for index in group]) - 1)
    row: list[int] = []
    room = left = min(shared, longest - shared)
    for index in group:
        rest = len(documents[index]) - 1 - shared
        if row and rest > left:
            yield _reading(shared, row)
            row, left = [], room
        row.append(index)
        left -= rest
    yield _reading(shared, row)


def _reading(shared: int, row: Sequence[int]) -> Reading:
    return Reading(shared if len(row) > 1 else 0, tuple(row))


def _common(documents: Sequence[np.ndarray]) -> int:
    """With how many tokens all begin alike, so that each has one more."""
    count = min(len(document) for document in documents) - 1
    for document in documents[1:]:
        differs = document[:count] != documents[0][:count]
        count = int(np.argmax(differs)) if differs.any() else count
    return count


def places(row: Reading, documents: Sequence[np.ndarray]) -> list[Int[np.ndarray, " read"]]:
    """Where in the row each of its documents is read, token by token."""
    found, start = [], row.shared
    for index in row.members:
        end = start + len(documents[index]) - 1 - row.shared
        found.append(np.r_[0 : row.shared, start:end])
        start = end
    return found


def length(row: Reading, documents: Sequence[np.ndarray]) -> int:
    """Tokens of the row."""
    return row.shared + sum(len(documents[index]) - 1 - row.shared for index in row.members)


def filled(rows: Sequence[Reading], documents: Sequence[np.ndarray], batch: int, padded: int) -> Filled:
    """The rows, padded on the right; further ones are padding."""
    made = Filled(*(np.zeros((batch, padded), np.int32) for _ in Filled._fields))
    for row, reading in enumerate(rows):
        for number, (index, at) in enumerate(
            zip(reading.members, places(reading, documents), strict=True), 1
        ):
            document = documents[index]
            made.tokens[row, at], made.targets[row, at] = document[:-1], document[1:]
            made.positions[row, at], made.segments[row, at] = np.arange(len(document) - 1), number
        made.segments[row, : reading.shared] = SHARED
    return made
