"""Text to integers and back: one interface for the three kinds of tokenizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlingua.errors import TokenizerError
from jaxlingua.hub import find_folder


class Encoding(NamedTuple):
    """The pieces of one text."""

    ids: np.ndarray  # int32 [pieces]
    offsets: np.ndarray  # int32 [pieces, 2], the code points [start, end) of the text that a piece carries


@dataclass(frozen=True)
class Tokenizer:
    """What the rest of the code knows of a tokenizer, whichever library does the work.

    No encoding holds a control token: a `</s>` that stands in a text is four characters of that text. Begin
    and end of a document are put there by `masks.py` alone.
    """

    vocab_size: int  # greatest id + 1
    bos_id: int | None
    eos_id: int
    pad_id: int  # eos_id where the tokenizer has none of its own
    control_ids: frozenset[int]
    fingerprint: str
    encode_pieces: Callable[[list[str], bool], list[Encoding]]
    decode_pieces: Callable[[list[int]], str]
    write_files: Callable[[Path], None]
    name_piece: Callable[[int], str] = str  # as the vocabulary has it, such as "▁the" or "<0x0A>"

    def encode_batch(self, texts: Sequence[str], *, continuation: bool = False) -> list[Encoding]:
        """The pieces of each text, without special tokens.

        Args:
            continuation: the texts go on where a document has already begun, so they get no dummy prefix (the
                space that LLaMA's tokenizers put before the first word).
        """
        return self.encode_pieces(list(texts), continuation)

    def decode(self, ids: Sequence[int | np.integer] | np.ndarray) -> str:
        """The text of ids, without control tokens and without ids past the end, which padded models give."""
        known = [int(i) for i in ids if 0 <= i < self.vocab_size and i not in self.control_ids]
        return self.decode_pieces(known)

    def save(self, folder: Path) -> None:
        """Write the files from which this library and transformers load it again."""
        folder.mkdir(parents=True, exist_ok=True)
        self.write_files(folder)


def find_files(path: str, names: Sequence[str]) -> Path:
    """The folder that holds a tokenizer: a local one, or a snapshot of those files from the hub."""
    return find_folder(path, names, "tokens.path", TokenizerError)


def cover(offsets: np.ndarray) -> np.ndarray:
    """Give pieces that carry no character of their own the range of the next one that does.

    The bytes of one character, and the space that begins a sentence, lead up to a character: a model that is
    to write it must write them first.
    """
    empty = offsets[:, 0] >= offsets[:, 1]
    if not empty.any() or empty.all():
        return offsets
    index = np.where(empty, len(offsets), np.arange(len(offsets)))
    index = np.minimum.accumulate(index[::-1])[::-1]  # of the next piece with a range
    return offsets[np.where(index == len(offsets), np.flatnonzero(~empty)[-1], index)]
