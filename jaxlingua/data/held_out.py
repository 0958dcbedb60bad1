"""Which records of a source are kept from training: chosen by hash, for all languages alike, never half a duplicate."""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, Text
from jaxlingua.errors import ConfigError

LARGEST_AUTO = 256
FEWEST_RECORDS = 20  # a smaller source keeps nothing back by itself


def choose_held_out(name: str, records: Sequence[Record], count: int | Literal["auto"]) -> frozenset[int]:
    """Indices of the `count` records of source `name` that are kept from training.

    Records that share text (see `held_together`) form a group, which is held out whole or not at all. Groups are
    ordered by the hash of the source's name and their first index, and taken while they fit; so the choice depends
    on nothing but name and text, and there are exactly `count` records unless only larger groups are left.

    Args:
        count: "auto" is 1 % of the records, at least one and at most 256, and none of fewer than 20 records.
    Raises: ConfigError if there are fewer records than `count`, or every group is larger than it.
    Cost: 5 s and 0.3 GB, given back, for a million pairs.
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
    groups = groups_of_shared_text(records)
    groups.sort(key=lambda group: hashlib.blake2b(f"{name}:{group[0]}".encode(), digest_size=8).digest())
    chosen: set[int] = set()
    for group in groups:
        if len(chosen) + len(group) <= count:
            chosen.update(group)
    if not chosen and not is_auto:
        raise ConfigError(
            f"data.sources.{name}.held_out_records: {count} given; records with the same text stay together and the "
            f"smallest group has {min(map(len, groups))}; give that many or more, or 0"
        )
    return frozenset(chosen)


def held_together(record: Record) -> list[str]:
    """Texts that may not be in training and held-out records both.

    Each side of a pair, the context of a question, an instruction with its input, a conversation up to its last
    turn, a text.
    """
    match record:
        case Pair():
            return [f"{language} {text}" for language, text in record.texts.items()]
        case Question():
            return [record.context]
        case Instruction():
            return [f"{record.instruction}\n{record.input}"]
        case Conversation():
            return ["\n".join(f"{role} {text}" for role, text in record.turns[:-1] or record.turns)]
        case Text():
            return [record.text]


def normalized(text: str) -> str:
    """`text` without the differences that nobody reads: case, width and composition of characters, white space.

    Example:
        >>> normalized("Ｔwo  men\\u00a0")
        'two men'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def groups_of_shared_text(records: Sequence[Record]) -> list[list[int]]:
    """Indices of records that are connected by equal texts; each group in order, ordered by its first."""
    parent = list(range(len(records)))
    first_with: dict[bytes, int] = {}
    for position, key in _keys(records):
        other = first_with.setdefault(key, position)
        if other != position:
            roots = sorted((_root(parent, other), _root(parent, position)))
            parent[roots[1]] = roots[0]
    groups = defaultdict(list)
    for position, record in enumerate(records):
        groups[_root(parent, position)].append(record.index)
    return list(groups.values())


def _keys(records: Sequence[Record]) -> Iterator[tuple[int, bytes]]:
    for position, record in enumerate(records):
        for text in held_together(record):
            yield position, hashlib.blake2b(normalized(text).encode(), digest_size=10).digest()


def _root(parent: list[int], position: int) -> int:
    while parent[position] != position:
        parent[position] = position = parent[parent[position]]
    return position
