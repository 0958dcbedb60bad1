"""Tokenized examples as flat arrays, in memory or as memory-mapped files."""

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jaxlingua.errors import MachineError

Group = tuple[str, str]  # (mixture entry, language of the answer)

FORMAT = 1  # raise it when the same examples would give other files
MAPPED = ("tokens", "target_mask")
ARRAYS = (*MAPPED, "starts", "groups", "indices", "target_tokens", "target_bytes")


@dataclass(frozen=True)
class Counts:
    """What became of the examples of one group."""

    examples: int
    documents: int  # examples that were kept
    tokens: int
    target_tokens: int
    target_bytes: int  # UTF-8 bytes of learned text
    cut_documents: int
    cut_tokens: int
    dropped_too_long: int
    dropped_without_target: int


@dataclass(frozen=True)
class Documents:
    """Documents end to end; `tokens[starts[i]:starts[i + 1]]` is document `i`.

    A document of n tokens takes n - 1 positions of a row: its last token is only a target.
    """

    tokens: np.ndarray  # int32 [tokens]
    target_mask: np.ndarray  # bool [tokens]; false at the first token of a document, which nothing predicts
    starts: np.ndarray  # int64 [documents + 1]
    groups: np.ndarray  # int32 [documents], index into group_names
    indices: np.ndarray  # int64 [documents], Example.index
    target_tokens: np.ndarray  # int32 [documents]
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


def write(folder: Path, documents: Documents) -> None:
    """Write to a folder beside and rename it: an interrupted write is never read.

    Where another process was faster, its files stay; they are the same.

    Raises: MachineError if the disk is full.
    """
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        for name in ARRAYS:
            np.save(partial / f"{name}.npy", getattr(documents, name))
        about = {
            "format": FORMAT,
            "fingerprint": documents.fingerprint,
            "lengths": {name: len(getattr(documents, name)) for name in ARRAYS},
            "groups": [[*group, asdict(documents.counts[group])] for group in documents.group_names],
        }
        (partial / "documents.json").write_text(json.dumps(about, indent=1))
        if read(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            partial.rename(folder)
    except OSError as error:
        if read(folder) is not None:
            return
        if error.errno is None:  # how NumPy tells of a full disk
            raise MachineError(
                f"{folder}: {error}; the disk is probably full; free some space or set tokens.cache_folder"
            ) from None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read(folder: Path) -> Documents | None:
    """What `write` left there, tokens and mask memory-mapped; None if it is absent or damaged."""
    try:
        about = json.loads((folder / "documents.json").read_text())
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r" if name in MAPPED else None)
            for name in ARRAYS
        }
        if about["format"] != FORMAT or about["lengths"] != {name: len(arrays[name]) for name in ARRAYS}:
            return None
        counts = {(entry, language): Counts(**count) for entry, language, count in about["groups"]}
        return Documents(**arrays, group_names=tuple(counts), counts=counts, fingerprint=about["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
