"""A tokenizer and texts to an extended tokenizer."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from jaxlingua.errors import TokenizerError
from jaxlingua.tokens import fast
from jaxlingua.tokens.extend.base import Base, read_base, readers
from jaxlingua.tokens.extend.learning import Key, key_of, learn
from jaxlingua.tokens.extend.merging import merge
from jaxlingua.tokens.extend.words import (
    SPACE,
    characters_in,
    count_parts,
    count_words,
    is_torn,
    most_frequent,
    read_bytes,
)

LONGEST = 16  # characters of a new piece, with the space before it
COVERED = 0.9995  # of the text's characters, by pieces rather than by the bytes of SentencePiece


@dataclass(frozen=True)
class NewPiece:
    """A piece that the old tokenizer did not have."""

    id: int  # in the extended tokenizer
    piece: str  # as the vocabulary has it, such as "▁omah" or "Ġomah"
    text: str  # of whole characters, such as " omah"; "" where its bytes are none
    old_ids: tuple[int, ...]  # what the old tokenizer writes for it; empty for bytes that it could not write


@dataclass(frozen=True)
class Extension:
    """An extended tokenizer.

    Attributes:
        files: of its folder, by name.
        pieces: the new ones, by ascending ids.
        first_id: of the new pieces, the old tokenizer's vocab_size.
        vocab_size: greatest id + 1.
        words_left_out: different words of the texts that were too many to learn from.
    """

    files: dict[str, bytes]
    pieces: list[NewPiece]
    first_id: int
    vocab_size: int
    words_left_out: int


def extend(
    folder: Path,
    texts: Sequence[str],
    count: int,
    *,
    kept: Sequence[str] = (),
    on_progress: Callable[[int], object] = lambda pieces: None,
) -> Extension:
    """The tokenizer of a folder with new pieces for the words of texts.

    First come single characters that it has no piece for: all that the texts need where it could not write
    them at all, else the most frequent ones, so that `COVERED` of the characters are pieces. Then pairs of
    neighbors are joined as in `learn`, in words of letters alone; no new piece is longer than `LONGEST`. What
    is learned from are the most frequent words, as far as `most_frequent` takes them.

    Args:
        count: how many new pieces at most; fewer are made where the texts give no more.
        kept: texts none of whose tokens may change. No pair of neighbors of theirs becomes a piece.
        on_progress: called with the number of pieces so far, from time to time.
    Raises: TokenizerError where the tokenizer is none that can be extended, where the texts give no piece, or
        have characters that could not be written even then.
    Cost: that of `learn`, and 1 s for each MB of text. Kept text is encoded twice and held as pieces: 6 s and
        100 MB for each MB of it.
    """
    if count < 1:
        raise TokenizerError(f"{folder}: {count} new pieces asked for; give at least 1")
    base = read_base(folder)
    parts = count_parts(texts, base.cut)
    every = count_words(parts, base.is_bytes)
    words = most_frequent(every)
    if not words:
        raise TokenizerError(
            f"{folder}: no words of letters in {len(texts)} texts, so no piece can be learned; pieces are "
            f"made of letters alone; give text of the new language"
        )
    kept_characters = set().union(*count_parts(kept, base.cut))
    characters = _new_characters(base, parts, kept_characters, count)
    cut_words: Counter[tuple[str, ...]] = Counter()
    for word, number in words.items():
        for pieces in _cut(base, word, characters):
            cut_words[pieces] += number
    joined = learn(
        cut_words,
        count - len(characters),
        is_bytes=base.is_bytes,
        places=base.places,
        may_join=_may_join(base, kept),
        on_progress=lambda found: on_progress(len(characters) + found),
    )
    if not (characters or joined):
        raise TokenizerError(
            f"{folder}: every word of {len(texts)} texts is one piece already, or none stands there twice, "
            f"or none may change; there is nothing to learn; give more text of the new language"
        )
    files = merge(base, characters, joined)
    _check(base, files, kept)
    names = [*characters, *(key if isinstance(key, str) else "".join(key) for key in joined)]
    return Extension(
        files=files,
        pieces=[_new_piece(base, base.first_id + i, name) for i, name in enumerate(names)],
        first_id=base.first_id,
        vocab_size=base.first_id + len(names),
        words_left_out=len(every) - len(words),
    )


def _new_piece(base: Base, number: int, piece: str) -> NewPiece:
    text = read_bytes(piece) if base.is_bytes else piece.replace(SPACE, " ")
    return NewPiece(number, piece, text, tuple(token.id for token in base.model.tokenize(piece)))


def _new_characters(base: Base, parts: Counter[str], kept: set[str], count: int) -> list[str]:
    """Characters of the texts, or bytes, that become pieces, the most frequent ones first.

    Raises: TokenizerError where some that cannot be written are more than `count`, or stand in kept texts.
    """
    numbers: Counter[str] = Counter()
    for part, number in parts.items():
        for character in part:
            numbers[character] += number
    missing = {character: number for character, number in numbers.items() if character not in base.ids}
    ordered = sorted(missing, key=lambda character: (-missing[character], character))
    if base.is_bytes or not base.has_bytes:
        barred = [character for character in ordered if character in kept]
        if barred:
            raise TokenizerError(
                f"{base.where}: has no piece and no bytes for {_listed(barred, base.is_bytes)}, which stand "
                f"in text that is to keep its tokens too; take them out of the texts, or let tokens change"
            )
        if len(ordered) > count:
            raise TokenizerError(
                f"{base.where}: has no piece and no bytes for {len(ordered)} characters of the texts, such "
                f"as {_listed(ordered, base.is_bytes)}; {count} new pieces cannot write them; ask for more "
                f"than {len(ordered)}"
            )
        return ordered
    covered, wanted = sum(numbers.values()) - sum(missing.values()), []
    for character in ordered:
        if covered >= COVERED * sum(numbers.values()) or len(wanted) == count:
            break
        covered += missing[character]
        if character not in kept and unicodedata.category(character)[0] not in "CZ":
            wanted.append(character)
    return wanted


def _listed(characters: Sequence[str], is_bytes: bool) -> str:
    listed = ", ".join(f"'{c}'" if not is_bytes else f"byte '{c}'" for c in characters[:5])
    return listed + (f" and {len(characters) - 5} more" if len(characters) > 5 else "")


def _cut(base: Base, word: str, characters: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """A word as the old tokenizer cuts it, new characters as pieces; cut in two at what cannot be written."""
    known = [c if c in base.ids else "" for c in word]
    if all(known):
        yield tuple(token.value for token in base.model.tokenize(word))
        return
    pieces: list[str] = []
    begun = ""
    for character in [*word, ""]:
        if character and character in base.ids:
            begun += character
            continue
        pieces += [token.value for token in base.model.tokenize(begun)] if begun else []
        begun = ""
        if character and character in characters:
            pieces.append(character)
        elif pieces:
            yield tuple(pieces)
            pieces = []


def _may_join(base: Base, kept: Sequence[str]) -> Callable[[str, str], bool]:
    """Whether two pieces may become one: short enough, not there yet, and nowhere neighbors in kept texts.

    The first pair that a new piece joins are two neighbors of the old tokens, so a kept text in which no such
    two are joined has no new piece in it, also where whole words come before pairs (ignore_merges).

    Characters are made whole first: of pieces that are not torn no torn one is made. Where the old tokenizer
    has torn ones, more of them may be needed.
    """
    neighbors: set[Key] = set()
    for read in readers(base.files, base.where) if kept else ():
        for pieces in read(kept):
            neighbors.update(key_of(left, right, base.is_bytes) for left, right in pairwise(pieces))

    def may_join(left: str, right: str) -> bool:
        piece = left + right
        if base.is_bytes and is_torn(piece) and not (is_torn(left) or is_torn(right)):
            return False
        return (
            piece not in base.ids
            and characters_in(piece, base.is_bytes) <= LONGEST
            and key_of(left, right, base.is_bytes) not in neighbors
        )

    return may_join


def _check(base: Base, files: dict[str, bytes], kept: Sequence[str]) -> None:
    """That old pieces have their ids and kept texts their tokens; all else is a bug of ours."""
    if "tokenizer.json" in files:
        tokenizer = fast.from_files(files, base.where)
        for piece, number in base.ids.items():
            assert tokenizer.name_piece(number) == piece, f"old piece '{piece}' lost its id {number}"
    pairs = zip(readers(base.files, base.where), readers(files, base.where), strict=True)
    for before, after in pairs if kept else ():
        for text, old, new in zip(kept, before(kept), after(kept), strict=True):
            assert old == new, f"a kept text changed its tokens: '{text[:80]}'"
