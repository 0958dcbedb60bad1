"""Fertility: how many tokens the learned text of each language takes, and how many of them are only bytes."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.words import segment

FERTILITY_TEXTS = 2000
FERTILITY_CHARACTERS = 2000  # of each text, so that one book does not take minutes
_BYTE_PIECE = re.compile("<0x[0-9A-Fa-f]{2}>")
_UNKNOWN = frozenset({"<unk>", "[UNK]", "<UNK>"})


def describe_fertility(texts_of: Mapping[str, Sequence[str]], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Tokens per word, per character and per UTF-8 byte of the learned text of each language.

    A word is one of `words.segment`: punctuation counts as a word, and in a script without spaces each
    grapheme cluster does. A character is a code point. `byte fallback` is the share of tokens that are no
    whole characters (`byte_pieces`), `unknown` of those that stand for what the tokenizer cannot write.

    Args:
        texts_of: those of each language. Of more than `FERTILITY_TEXTS` so many are taken at equal distances,
            and of each of these the first `FERTILITY_CHARACTERS` characters.
    Cost: about 0.5 s for 2,000 sentences of a language.
    """
    is_byte_piece = byte_pieces(tokenizer)
    rows = []
    for language, texts in sorted(texts_of.items()):
        taken = [text[:FERTILITY_CHARACTERS] for text in _spread(texts)]
        ids = [
            number
            for encoding in tokenizer.encode_batch(taken, continuation=True)
            for number in encoding.ids.tolist()
        ]
        words = sum(len(segment(text).words) for text in taken)
        characters, size = sum(map(len, taken)), sum(len(text.encode()) for text in taken)
        unknown = sum(tokenizer.name_piece(number) in _UNKNOWN for number in ids)
        rows.append(
            {
                "language": language,
                "texts": len(taken),
                "words": words,
                "characters": characters,
                "bytes": size,
                "tokens": len(ids),
                "tokens per word": _ratio(len(ids), words),
                "tokens per character": _ratio(len(ids), characters),
                "tokens per byte": _ratio(len(ids), size),
                "byte fallback": _ratio(sum(map(is_byte_piece, ids)), len(ids)),
                "unknown": _ratio(unknown, len(ids)),
            }
        )
    return rows


def byte_pieces(tokenizer: Tokenizer) -> Callable[[int], bool]:
    """Whether a piece is no whole character: <0xNN>, or in a byte-level BPE some bytes of a character.

    In a byte-level BPE a piece that holds whole characters and some bytes of another one counts too.
    """
    known: dict[int, bool] = {}

    def is_byte_piece(number: int) -> bool:
        if number not in known:
            name, text = tokenizer.name_piece(number), tokenizer.decode([number])
            is_byte = _BYTE_PIECE.fullmatch(name) is not None and text != name
            known[number] = is_byte or ("\ufffd" in text and "\ufffd" not in name)
        return known[number]

    return is_byte_piece


def _spread(texts: Sequence[str]) -> Iterable[str]:
    return islice(texts, 0, None, max(1, -(-len(texts) // FERTILITY_TEXTS)))


def _ratio(count: int, of: int) -> float:
    return count / of if of else 0.0
