"""Documents of all entries to filled rows. Here, and only here, targets are tokens shifted by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from jaxlingua.tokens.packing import PackingPlan
from jaxlingua.tokens.store import Documents, Group, read_ranges


class Batch(NamedTuple):
    """Rows of one or more documents; numpy here, sharded jax arrays once fed."""

    tokens: Int32[Any, "batch length"]
    targets: Int32[Any, "batch length"]  # the token that follows
    target_mask: Bool[Any, "batch length"]  # whether the target counts
    positions: Int32[Any, "batch length"]  # index inside the document
    segments: Int32[Any, "batch length"]  # document within the row, from 1; 0 is padding
    groups: Int32[Any, "batch length"]  # index into `group_names`; 0 where there is padding


@dataclass(frozen=True)
class Corpus:
    """The documents of all entries under one numbering: entry after entry, each in its own order."""

    entries: tuple[str, ...]
    stores: tuple[Documents, ...]
    bounds: np.ndarray  # int64 [entries + 1], the first number of each entry
    lengths: np.ndarray  # int64 [documents], positions in a row
    groups: np.ndarray  # int32 [documents], index into group_names
    group_names: tuple[Group, ...]

    def fill(self, plan: PackingPlan, row_length_tokens: int) -> Batch:
        """The rows of `plan`, padded at the right."""
        shape = (plan.rows, row_length_tokens)
        batch = Batch(*(np.zeros(shape, bool if n == "target_mask" else np.int32) for n in Batch._fields))
        tokens, targets, target_mask, positions, segments, groups = (array.reshape(-1) for array in batch)
        lengths = self.lengths[plan.documents]
        before = np.concatenate([[0], np.cumsum(lengths)])  # positions taken by earlier documents of all rows
        in_row = np.diff(plan.row_starts)
        row_begin = np.arange(plan.rows) * row_length_tokens - before[plan.row_starts[:-1]]
        place = before[:-1] + np.repeat(row_begin, in_row)  # of each first token in the flat arrays
        segment = np.arange(len(lengths)) - np.repeat(plan.row_starts[:-1] - 1, in_row)

        entry = np.searchsorted(self.bounds, plan.documents, side="right") - 1
        for number in np.unique(entry):
            store, chosen = self.stores[number], np.flatnonzero(entry == number)
            length = lengths[chosen]
            within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
            starts = store.starts[plan.documents[chosen] - self.bounds[number]]
            write = np.repeat(place[chosen], length) + within
            read = read_ranges(store.tokens, starts, length + 1)
            last = np.cumsum(length + 1) - 1  # of each document, which no position holds
            tokens[write] = np.delete(read, last)
            targets[write] = np.delete(read, last - length)
            target_mask[write] = read_ranges(store.target_mask, starts + 1, length)
            positions[write] = within
            segments[write] = np.repeat(segment[chosen], length)
            groups[write] = np.repeat(self.groups[plan.documents[chosen]], length)
        return batch

    def name(self, document: int) -> tuple[str, int]:
        """Entry and index of the example that a document was made of."""
        number = int(np.searchsorted(self.bounds, document, side="right")) - 1
        return self.entries[number], int(self.stores[number].indices[document - self.bounds[number]])


def corpus(documents: Mapping[str, Documents], group_names: Sequence[Group] | None = None) -> Corpus:
    """Number the documents of all entries through; the groups are theirs unless `group_names` has more."""
    stores = tuple(documents.values())
    names = list(group_names or dict.fromkeys(group for store in stores for group in store.group_names))
    lengths = [store.lengths for store in stores]
    numbers = [np.array([names.index(group) for group in store.group_names], np.int32) for store in stores]
    groups = [number[store.groups] for number, store in zip(numbers, stores, strict=True)]
    return Corpus(
        entries=tuple(documents),
        stores=stores,
        bounds=np.cumsum([0, *map(len, stores)]),
        lengths=np.concatenate([np.zeros(0, np.int64), *lengths]),
        groups=np.concatenate([np.zeros(0, np.int32), *groups]),
        group_names=tuple(names),
    )
