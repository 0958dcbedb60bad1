"""Tokenized examples as flat arrays, and what was counted while they were made."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Group = tuple[str, str]  # (mixture entry, language of the answer)


@dataclass(frozen=True)
class Counts:
    """What became of the examples of one group."""

    examples: int = 0
    documents: int = 0  # kept examples
    tokens: int = 0
    target_tokens: int = 0
    target_bytes: int = 0  # UTF-8 bytes of learned text
    cut_documents: int = 0
    cut_tokens: int = 0
    dropped_too_long: int = 0
    dropped_without_target: int = 0


@dataclass(frozen=True)
class Documents:
    """Documents of one mixture entry, end to end; `tokens[starts[i]:starts[i + 1]]` is document `i`.

    A document of n tokens takes n - 1 positions of a row: its last token is only a target.
    The arrays may be memory-mapped files.
    """

    tokens: np.ndarray  # int32 [tokens]
    target_mask: np.ndarray  # bool [tokens]; false at the first token of a document, which nothing predicts
    starts: np.ndarray  # int64 [documents + 1]
    groups: np.ndarray  # int32 [documents], an index into group_names
    indices: np.ndarray  # int64 [documents], Example.index
    target_tokens: np.ndarray  # int32 [documents], tokens that count
    target_bytes: np.ndarray  # int32 [documents], UTF-8 bytes of learned text
    group_names: tuple[Group, ...]
    counts: Mapping[Group, Counts]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Positions that each document takes in a row, int64 [documents]."""
        return np.diff(self.starts) - 1
