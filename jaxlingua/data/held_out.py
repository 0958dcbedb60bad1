"""Which records of a source are kept from training: by hash, in all languages alike, duplicates together."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from jaxlingua.data.leaks import normalize
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.errors import ConfigError

LARGEST_AUTO = 256
FEWEST_RECORDS = 20  # a smaller source keeps nothing back by itself


def choose_held_out(name: str, records: Sequence[Record], count: int | Literal["auto"]) -> frozenset[int]:
    """Indices of the `count` records of source `name` that are kept from training.

    Records that share a text (see `held_together`), compared as `leaks.normalize` does, form a group, which
    is held out whole or not at all: what is held out does not leak from the same source's training records.
    Groups are ordered by the hash of the source's name and their first index, and taken while they fit. So
    the choice depends on name and text alone, and gives `count` records unless only larger groups are left.

    Args:
        count: "auto" is 1 % of the records, at least one and at most 256, and none of fewer than 20 records.
    Raises: ConfigError if there are fewer records than `count`, or every group is larger than it.
    Cost: 10 s and 0.3 GB, given back, for a million pairs; nearly all of it normalizes text.
    """
    is_auto = count == "auto"
    if is_auto:
        count = min(LARGEST_AUTO, max(1, len(records) // 100)) if len(records) >= FEWEST_RECORDS else 0
    elif count > len(records):
        raise ConfigError(
            f"data.sources.{name}.held_out_records: {count} given; the source has {len(records)} records; "
            f"give {len(records)} or fewer"
        )
    if count == 0:
        return frozenset()
    group_of = groups_of_shared_text(records)
    sizes = np.bincount(group_of)
    groups = np.flatnonzero(sizes).tolist()
    groups.sort(
        key=lambda group: hashlib.blake2b(f"{name}:{records[group].index}".encode(), digest_size=8).digest()
    )
    chosen: set[int] = set()
    room = count
    for group in groups:
        if sizes[group] <= room:
            chosen.add(group)
            room -= sizes[group]
            if room == 0:
                break
    if not chosen and not is_auto:
        raise ConfigError(
            f"data.sources.{name}.held_out_records: {count} given; records that share a text stay together, "
            f"{sizes[groups].min()} in the smallest group; give that many or more, or 0"
        )
    return frozenset(record.index for record, group in zip(records, group_of, strict=True) if group in chosen)


def held_together(record: Record) -> list[str]:
    """Texts that may not be in both training and held-out records.

    Each side of a pair, the context of a question, an instruction with its input, a conversation up to its
    last turn, a text.
    """
    match record:
        case Pair():
            return list(record.texts.values())
        case Question():
            return [record.context]
        case Instruction():
            return [f"{record.instruction}\n{record.input}"]
        case Conversation():
            return ["\n".join(f"{role} {text}" for role, text in record.turns[:-1] or record.turns)]
        case Text():
            return [record.text]


def groups_of_shared_text(records: Sequence[Record]) -> list[int]:
    """For each record the position of the first one that it is connected with by equal texts.

    Example:
        >>> lines = ["Good morning.", "Thank you!", "good morning"]
        >>> groups_of_shared_text([Text(i, "eng_Latn", line) for i, line in enumerate(lines)])
        [0, 1, 0]
    """
    parent = list(range(len(records)))
    first_with: dict[bytes, int] = {}
    for position, key in _keys(records):
        other = first_with.setdefault(key, position)
        if other != position:
            first, second = sorted((_root(parent, other), _root(parent, position)))
            parent[second] = first
    return [_root(parent, position) for position in range(len(records))]


def _keys(records: Sequence[Record]) -> Iterator[tuple[int, bytes]]:
    """Positions of records with a digest of each text, since the texts themselves would fill the memory."""
    for position, record in enumerate(records):
        for text in held_together(record):
            key = normalize(text)
            if key:
                yield position, hashlib.blake2b(key.encode(), digest_size=10).digest()


def _root(parent: list[int], position: int) -> int:
    while parent[position] != position:
        parent[position] = position = parent[parent[position]]
    return position
