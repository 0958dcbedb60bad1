"""Texts to the words of letters that new pieces are learned from, in the alphabet of a tokenizer.

A byte-level tokenizer writes each byte as one character of its own ("Ġ" is a space), a SentencePiece-style
one writes a space as "▁" and all else as it is.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

import regex
import xxhash

SPACE = "▁"  # of SentencePiece
MOST_CHARACTERS = 5_000_000  # of different words; some 100 bytes of memory for each

_JOINERS = "\u200c\u200d"
_RUN = regex.compile(rf"[ {SPACE}]?[\p{{L}}\p{{M}}](?:[\p{{L}}\p{{M}}{_JOINERS}]*[\p{{L}}\p{{M}}])?")


def _alphabet() -> dict[int, str]:
    """The character of each byte in a byte-level tokenizer: visible ones stand for themselves."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


BYTE_CHARACTERS = _alphabet()
_BYTES = {character: byte for byte, character in BYTE_CHARACTERS.items()}
_CONTINUATION = frozenset(BYTE_CHARACTERS[byte] for byte in range(0x80, 0xC0))


def write_bytes(text: str) -> str:
    """A text in the alphabet of byte-level tokenizers.

    Example:
        >>> write_bytes(" ꦲ")
        'Ġê¦²'
    """
    return "".join(BYTE_CHARACTERS[byte] for byte in text.encode())


def read_bytes(piece: str) -> str:
    """The text of a piece of a byte-level tokenizer; empty where its bytes are no whole characters."""
    try:
        return bytes(_BYTES[character] for character in piece).decode()
    except (KeyError, UnicodeDecodeError):
        return ""


def is_torn(piece: str) -> bool:
    """Whether a byte-level piece holds bytes of one character beside those of another, which it cuts.

    Example:
        >>> [is_torn(write_bytes("é ꦲ")[a:b]) for a, b in ((0, 3), (0, 1), (3, 5), (0, 4), (2, 4))]
        [False, False, False, True, True]
    """
    return not read_bytes(piece) and any(character not in _CONTINUATION for character in piece[1:])


def characters_in(piece: str, is_bytes: bool) -> int:
    """How many characters long a piece is; one that is cut counts where its first byte is."""
    return sum(c not in _CONTINUATION for c in piece) if is_bytes else len(piece)


def count_words(parts: Counter[str], is_bytes: bool) -> Counter[str]:
    """Words and how often each stands there, in the alphabet of the tokenizer.

    A word is a run of letters and marks of one script, with joiners inside and with the space before it. No
    digit, sign or change of script is in one. Han and the kana are one script here.

    Args:
        parts: pieces of text that no token goes across, in the alphabet of the tokenizer, and how often.
    """
    words: Counter[str] = Counter()
    for part, number in parts.items():
        text = read_bytes(part) if is_bytes else part
        for run in _RUN.findall(text):
            for word in _of_one_script(run):
                words[write_bytes(word) if is_bytes else word] += number
    return words


def most_frequent(words: Counter[str]) -> Counter[str]:
    """Of words with more than `MOST_CHARACTERS` together the most frequent ones.

    Which of equally frequent ones are left out is as good as chance: by a hash, not by their letters.
    """
    if sum(map(len, words)) <= MOST_CHARACTERS:
        return words
    taken, characters = Counter(), 0
    for word, number in sorted(
        words.items(), key=lambda item: (-item[1], xxhash.xxh3_64_intdigest(item[0].encode()))
    ):
        characters += len(word)
        if characters > MOST_CHARACTERS:
            break
        taken[word] = number
    return taken


def count_parts(texts: Iterable[str], cut: Callable[[str], list[str]]) -> Counter[str]:
    """The parts of all texts and how often each stands there."""
    parts: Counter[str] = Counter()
    for text in texts:
        parts.update(cut(text))
    return parts


class _Scripts(dict[str, str]):
    """Of characters, by the first word of their name in Unicode; none for signs that go with any script."""

    def __missing__(self, character: str) -> str:
        name = unicodedata.name(character, "").partition(" ")[0]
        if name in ("", "COMBINING", "MODIFIER", "ZERO", "VARIATION") or character == SPACE:
            name = ""
        elif name in ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO"):
            name = "HAN"
        self[character] = name
        return name


_SCRIPTS = _Scripts({" ": ""})


def _of_one_script(run: str) -> list[str]:
    """A run of letters, cut where its script changes."""
    if run.isascii() or len({_SCRIPTS[character] for character in run} - {""}) < 2:
        return [run]
    words, before = [""], ""
    for character in run:
        script = _SCRIPTS[character]
        if script and before and script != before:
            words[-1] = words[-1].rstrip(_JOINERS)
            words.append("")
        before = script or before
        words[-1] += character
    return words
