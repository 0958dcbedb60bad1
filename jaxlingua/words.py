"""Words of text in any script, and the spaces between them, so that the text can be put together again.

A word is one of these:

- Letters, marks and digits of one Unicode script, in scripts that put spaces between words. Digits go with the
  letters they touch ("B2B", "3월"). Joiners and other invisible characters stay inside. So do an apostrophe, a
  hyphen or a middle dot between two letters or digits ("don't", "anak-anak", "col·lega") and a quotation mark
  between two Hebrew letters. Where the script changes, a new word begins.
- A number with what stands between its digits: "1,234.5", "12:30", "24/7".
- In scripts without such spaces (Han, Kana, Thai, Lao, Khmer, Myanmar, Tibetan, Javanese, Balinese, Lontara and
  others) each grapheme cluster, that is a letter with its marks, viramas and what they join.
- Each grapheme cluster of punctuation or of symbols. An emoji sequence is one.

So a web address is several words. Unicode white space and the zero-width spaces are gaps, never words.
"""

import enum
import functools
import re
from dataclasses import dataclass
from itertools import zip_longest

import pycountry
import regex


class Kind(enum.IntEnum):
    """What a word is, as far as the spaces around it go."""

    SPACED = 0  # of a script with spaces between words, or a number
    UNSPACED = 1  # a grapheme cluster of a script without
    MARK = 2  # punctuation or a symbol


@dataclass(frozen=True, slots=True)
class Segmented:
    """A text as its words and what is between them.

    Attributes:
        words: in their order; none is empty.
        gaps: before, between and behind the words, so one more than these; many are empty.
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...]


_WITHOUT_SPACES = (
    "Hani Hira Kana Bopo Yiii Nshu Tang Kits Thai Laoo Khmr Mymr Tibt Tale Talu Lana Tavt Ahom "
    "Java Bali Bugi Maka Batk Rjng Kawi"
).split()
_IN_UNSPACED = "".join(rf"\p{{Script={code}}}" for code in _WITHOUT_SPACES) + "ーｰ〆"
_UNSPACED = rf"[[{_IN_UNSPACED}]&&[\p{{L}}\p{{Nl}}]]"
_SPACE = r"[\p{White_Space}\u200B\u2060\uFEFF]"
_IN_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}՛՜՞]--{_UNSPACED}]"  # the Armenian marks stand on a vowel
_ALONG = rf"[[\p{{L}}\p{{M}}\p{{N}}\p{{Cf}}՛՜՞]--[{_UNSPACED}{_SPACE}]]"
_BETWEEN = (
    rf"(?:['’‘‐‑·-](?={_IN_WORD})|(?<=\p{{Nd}})[.,:/٫٬](?=\p{{Nd}})"
    r'|(?<=\p{Hebrew})["״׳](?=\p{Hebrew}))'
)
_WORD = regex.compile(
    rf"(?V1)({_IN_WORD}{_ALONG}*(?:{_BETWEEN}{_ALONG}+)*|(?!{_SPACE})\X\p{{Cf}}*)".replace(
        r"\p{Cf}*", rf"[\p{{Cf}}--{_SPACE}]*"
    )
)
_ASCII_WORD = re.compile(r"([A-Za-z0-9]+(?:(?:['-]|(?<=[0-9])[.,:/](?=[0-9]))[A-Za-z0-9]+)*|[^ \t-\r])")
_IS_UNSPACED = regex.compile(rf"(?V1){_UNSPACED}")
_IS_SPACED = regex.compile(rf"(?V1){_IN_WORD}")
_CLUSTER = regex.compile(r"\X")


def segment(text: str) -> Segmented:
    """The words of a text and the gaps between them; joined they are the text again, whatever it is.

    Example:
        >>> segment("Don't pay 1,234.5 yuan: 尼罗河!").words
        ("Don't", 'pay', '1,234.5', 'yuan', ':', '尼', '罗', '河', '!')
    """
    if text.isascii():
        parts = _ASCII_WORD.split(text)
    else:
        parts = _WORD.split(text)
        if len({_SCRIPTS[character] for character in set(text)} - {""}) > 1:
            parts = _split_where_scripts_change(parts)
    return Segmented(tuple(parts[1::2]), tuple(parts[::2]))


def join(words: tuple[str, ...] | list[str], gaps: tuple[str, ...] | list[str]) -> str:
    """The text of words and gaps; the inverse of `segment`."""
    return "".join([part for pair in zip_longest(gaps, words, fillvalue="") for part in pair])


def kind(word: str) -> Kind:
    """Whether a word is of a script with spaces, without, or a mark."""
    return _KINDS[word[0]]


class _Kinds(dict[str, Kind]):
    def __missing__(self, character: str) -> Kind:
        if _IS_UNSPACED.match(character):
            found = Kind.UNSPACED
        else:
            found = Kind.SPACED if _IS_SPACED.match(character) else Kind.MARK
        self[character] = found
        return found


class _Scripts(dict[str, str]):
    """ISO 15924 codes of letters, marks and digits in scripts with spaces; of all else the empty text."""

    def __missing__(self, character: str) -> str:
        self[character] = found = "" if kind(character) is not Kind.SPACED else _script(character)
        return found


_KINDS = _Kinds()
_SCRIPTS = _Scripts()


@functools.cache
def _patterns() -> list[tuple[str, regex.Pattern]]:
    """For each script that the regex library knows, what finds its characters."""
    patterns = []
    for code in (script.alpha_4 for script in pycountry.scripts):
        try:
            patterns.append((code, regex.compile(rf"\p{{Script={code}}}")))
        except regex.error:
            continue  # a variant, as Hans is of Hani, or not in Unicode
    return patterns


def _script(character: str) -> str:
    for code, pattern in _patterns():
        if pattern.match(character):
            return "" if code in ("Zyyy", "Zinh", "Zzzz") else code
    return ""


def _split_where_scripts_change(parts: list[str]) -> list[str]:
    """Gaps and words by turns, in which each word of several scripts is cut."""
    split = parts[:1]
    for place in range(1, len(parts), 2):
        word, gap = parts[place], parts[place + 1]
        pieces = [word] if word.isascii() else _pieces(word)
        for piece in pieces[:-1]:
            split += (piece, "")
        split += (pieces[-1], gap)
    return split


def _pieces(word: str) -> list[str]:
    """A word, cut where the script of its clusters changes; an inner mark at a cut is a word of its own."""
    pieces, before = [""], ""
    for cluster in _CLUSTER.findall(word):
        script = _SCRIPTS[cluster[0]]
        if script and before and script != before:
            last = pieces[-1]
            if len(last) > 1 and kind(last[-1]) is Kind.MARK and not _IS_INVISIBLE.match(last[-1]):
                pieces[-1:] = [last[:-1], last[-1]]
            pieces.append("")
        before = script or before
        pieces[-1] += cluster
    return pieces


_IS_INVISIBLE = regex.compile(r"\p{Cf}")
