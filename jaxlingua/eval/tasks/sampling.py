"""Which items are asked where not all of them are."""

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeVar

Each = TypeVar("Each")


def sample(records: list[Each], items: int | Literal["auto"], keys: Sequence[str]) -> list[Each]:
    """At most `items` records, in order; "auto" is all of them.

    They are chosen by the hash of their key alone, so that the same items are asked wherever keys are the
    same: in every direction, and in every language of a parallel set.
    """
    if items == "auto" or len(records) <= items:
        return records
    by_hash = sorted(range(len(records)), key=lambda index: hashlib.blake2b(keys[index].encode()).digest())
    return [records[index] for index in sorted(by_hash[:items])]
