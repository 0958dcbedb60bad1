"""N-grams of words as 64-bit hashes: what is in the training data, and what of some other texts is too.

What is compared is letters, marks and digits after NFKC and case folding; punctuation, symbols, white space
and invisible characters only divide. The unit is a word. Where a script has no spaces between words it is a
character with its marks, and two characters make up for one word: parallel text has 1.6 characters for an
English word in Chinese (FLORES, XQuAD) and 2.2 in Japanese (MGSM), so 26 of them are as long as 12 to 16
words; in Thai, Lao, Khmer, Burmese and Javanese script they are fewer words, so that rather more is found. In
mixed text both count for what they are: an n-gram begins at each unit and ends where it is n words long.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import regex
import xxhash

from jaxlingua.errors import DataError

WORDS = 13  # as for GPT-3, arXiv:2005.14165, appendix C
CHARACTERS_OF_A_WORD = 2

_PASS_UNITS = 1 << 16
_KNOWN_UNITS = 1 << 18
_SEED = 13

_NO_SPACES = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Javanese}]"
_CHARACTER = rf"[{_NO_SPACES}&&[\p{{L}}\p{{N}}]]"
_BEYOND_ALPHABETS = re.compile("[\u0e00-\u1fff\u2e80-\U0010ffff]")  # where such scripts are; quick to tell
_WITHOUT_SPACES = regex.compile(rf"(?V1){_CHARACTER}")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_UNIT = regex.compile(rf"(?V1){_CHARACTER}\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--{_CHARACTER}]+")
_COLON = re.compile("[:：]")
_INVISIBLE = regex.compile(r"\p{Cf}+")


@dataclass(frozen=True, eq=False)
class TrainingGrams:
    """What was trained on, as far as items can be compared with it: 64-bit hashes, sorted, each once.

    Attributes:
        words: length of the n-grams.
        grams: of all n-grams of the texts.
        wholes: of texts, lines and ends of lines behind a colon that are shorter than that.
        training_words: how many words the texts have; two characters of scripts without spaces are one.
    """

    words: int
    grams: np.ndarray
    wholes: np.ndarray
    training_words: int

    @classmethod
    def of(cls, texts: Iterable[str], words: int = WORDS) -> "TrainingGrams":
        """The n-grams of training texts, read once and in passes.

        They may be examples with their frame: a short text is found where it is a text or a line of its own,
        or all that follows the first colon of a line, as in "### Response:" or "Question:".

        Raises: DataError if `words` is not positive.
        Cost: about a second for a million words; 8 MB per million words that differ from all before, at
        most 17 MB while two parts are joined, and 60 MB for what is known of words and for a pass.
        """
        if words < 1:
            raise DataError(f"eval: n-grams of {words} words given; 1 or more are allowed; {WORDS} is usual")
        grams, wholes, weight = _Sorted(), _Sorted(), 0
        known = _Known()
        for read in _passes(texts, known, _PASS_UNITS):
            grams.add(_grams(read, words)[0])
            wholes.add(_wholes(read, np.concatenate([read.lines, read.texts]), words)[0])
            weight += read.weight
        return cls(words, grams.joined(), wholes.joined(), weight // CHARACTERS_OF_A_WORD)


class Seen:
    """What of some texts is in the training data."""

    def __init__(self, texts: list[str], grams: TrainingGrams):
        self.texts = texts
        read = _read_all(texts)
        hashes, starts, lengths = _grams(read, grams.words)
        text_of_gram = np.searchsorted(read.texts[:, 1], starts, side="right")
        self.long = frozenset(text_of_gram.tolist())
        seen = _is_in(hashes, grams.grams)
        first, where = np.unique(text_of_gram[seen], return_index=True)
        places = zip(first.tolist(), starts[seen][where], lengths[seen][where], strict=True)
        self.first = {
            text: (int(start) - int(read.texts[text, 0]), int(length)) for text, start, length in places
        }
        hashes, short = _wholes(read, read.texts, grams.words)
        wholes = set(short[_is_in(hashes, grams.wholes)].tolist())
        # A short text of several lines may stand in a frame, where only its lines are known.
        left = [text for text in short.tolist() if text not in wholes and "\n" in texts[text]]
        of_lines = {text: texts[text].split("\n") for text in left}
        read = _read_all([line for lines in of_lines.values() for line in lines])
        hashes, short = _wholes(read, read.texts, grams.words)
        unseen = np.diff(read.texts, axis=1)[:, 0] > 0  # lines without a word are no lines
        unseen[short[_is_in(hashes, grams.wholes)]] = False
        ends = np.cumsum([len(lines) for lines in of_lines.values()], dtype=np.int64).tolist()
        for (text, lines), end in zip(of_lines.items(), ends, strict=True):
            if not unseen[end - len(lines) : end].any():
                wholes.add(text)
        self.wholes = frozenset(wholes)

    def is_long(self, text: int) -> bool:
        return text in self.long

    def gram(self, text: int) -> bool:
        """Whether an n-gram of a text was seen."""
        return text in self.first

    def whole(self, text: int, *, least_bytes: int) -> bool:
        """Whether a text that is too short for an n-gram, but has so many bytes, was seen as a whole."""
        return text in self.wholes and len(" ".join(units(self.texts[text])).encode()) >= least_bytes

    def shown(self, text: int) -> str:
        """What was seen of a text: its first n-gram, or all of a shorter one."""
        start, length = self.first.get(text, (0, None))
        return " ".join(units(self.texts[text])[start:][:length])


def units(text: str) -> list[str]:
    """The words of a text, and the characters of what is written without spaces.

    Example:
        >>> units("The ＮＩＬＥ’s 6,650 km: 尼罗河!")
        ['the', 'nile', 's', '6', '650', 'km', '尼', '罗', '河']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if _INVISIBLE.search(folded):
        folded = _INVISIBLE.sub("", folded)
    has_characters = _BEYOND_ALPHABETS.search(folded) and _WITHOUT_SPACES.search(folded)
    return (_UNIT if has_characters else _WORD).findall(folded)


class _Known(dict[str, int]):
    """Hashes of units, kept while they are few. The last bit tells that a unit is a character, not a word."""

    def __missing__(self, unit: str) -> int:
        if len(self) >= _KNOWN_UNITS:
            self.clear()
        is_character = _WITHOUT_SPACES.match(unit) is not None
        self[unit] = hashed = xxhash.xxh3_64_intdigest(unit.encode()) & ~1 | is_character
        return hashed


@dataclass(frozen=True, eq=False)
class _Read:
    """Some texts as hashes of their units, one after the other, and where texts and lines start and end."""

    hashes: np.ndarray  # units
    texts: np.ndarray  # texts, 2
    lines: np.ndarray  # lines of texts that have several, and what follows a colon, 2

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Of each unit, in characters."""
        return np.where(self.hashes & 1, 1, CHARACTERS_OF_A_WORD)

    @property
    def weight(self) -> int:
        return int(self.weights.sum())


def _passes(texts: Iterable[str], known: _Known, most: int) -> Iterator[_Read]:
    """The texts, read until there are `most` units or more at a time."""
    read: list[str] = []
    text_bounds: list[tuple[int, int]] = []
    line_bounds: list[tuple[int, int]] = []
    for text in texts:
        start = len(read)
        lines = text.split("\n") if "\n" in text else [text]
        for line in lines:
            line_start = len(read)
            label, *rest = _COLON.split(line, maxsplit=1)
            read += units(label)
            if rest:
                after_colon = len(read)
                read += units(rest[0])
                line_bounds.append((after_colon, len(read)))
            if len(lines) > 1:
                line_bounds.append((line_start, len(read)))
        text_bounds.append((start, len(read)))
        if len(read) >= most:
            yield _read(read, text_bounds, line_bounds, known)
            read, text_bounds, line_bounds = [], [], []
    if text_bounds:
        yield _read(read, text_bounds, line_bounds, known)


def _read(
    read: list[str], texts: list[tuple[int, int]], lines: list[tuple[int, int]], known: _Known
) -> _Read:
    hashes = np.fromiter(map(known.__getitem__, read), np.uint64, len(read))
    return _Read(hashes, np.array(texts, np.int64).reshape(-1, 2), np.array(lines, np.int64).reshape(-1, 2))


def _grams(read: _Read, words: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of all n-grams, none across the end of a text; where they start, how many units they have."""
    before = np.concatenate([[0], np.cumsum(read.weights)])  # weight before each unit, and of all
    ends = np.searchsorted(before, before[:-1] + words * CHARACTERS_OF_A_WORD)
    ends_of_texts = np.repeat(read.texts[:, 1], np.diff(read.texts, axis=1)[:, 0])
    starts = np.flatnonzero(ends <= ends_of_texts)
    lengths = ends[starts] - starts
    return _sums(read.hashes, starts, lengths), starts, lengths


def _wholes(read: _Read, bounds: np.ndarray, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the texts or lines between bounds that are shorter than an n-gram, and which these are."""
    before = np.concatenate([[0], np.cumsum(read.weights)])
    weight = before[bounds[:, 1]] - before[bounds[:, 0]]
    short = np.flatnonzero((weight > 0) & (weight < words * CHARACTERS_OF_A_WORD))
    starts = bounds[short, 0]
    return _sums(read.hashes, starts, bounds[short, 1] - starts), short


def _sums(hashes: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A hash of each run of units: their own hashes, each times an odd number of its place, added up."""
    longest = int(lengths.max(initial=0))
    shortest = int(lengths.min(initial=longest))
    odd = np.random.default_rng(_SEED).integers(1 << 63, size=longest, dtype=np.uint64) << 1 | 1
    sums = np.zeros(len(starts), np.uint64)
    for place in range(longest):
        if place < shortest:
            sums += hashes[starts + place] * odd[place]
        else:
            reached = np.flatnonzero(lengths > place)
            sums[reached] += hashes[starts[reached] + place] * odd[place]
    return sums


class _Sorted:
    """Hashes as they come, kept sorted and each once, in parts of which each is twice as long as the next."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []

    def add(self, hashes: np.ndarray) -> None:
        self.parts.append(np.unique(hashes))
        while len(self.parts) > 1 and len(self.parts[-2]) < 2 * len(self.parts[-1]):
            self._join(2)

    def joined(self) -> np.ndarray:
        self._join(len(self.parts))
        return self.parts[0] if self.parts else np.zeros(0, np.uint64)

    def _join(self, last: int) -> None:
        if last > 1:
            together = np.concatenate(self.parts[-last:])
            del self.parts[-last:]
            together.sort()
            is_new = np.concatenate([[True], together[1:] != together[:-1]])[: len(together)]
            self.parts.append(together[is_new])


def _read_all(texts: list[str]) -> _Read:
    known = _Known()
    every = list(_passes(texts, known, 1 << 62))
    return every[0] if every else _read([], [], [], known)


def _is_in(hashes: np.ndarray, among: np.ndarray) -> np.ndarray:
    if not len(among):
        return np.zeros(len(hashes), bool)
    places = np.minimum(np.searchsorted(among, hashes), len(among) - 1)
    return among[places] == hashes
