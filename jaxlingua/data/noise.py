"""Noise for denoising tasks: words blanked, deleted, shuffled; with the spaces of clean text or as released.

Where a recipe has several operations, they are applied in this order whatever the recipe's: infilling, then
deletion, then permutation.

The corrected noise cannot be told from clean text by its spaces. A permutation leaves the gaps where they are
and moves words to where words stood, characters of scripts without spaces to where such characters stood, and
marks, or several in a row as one, to where marks stood that had spaces on the same sides. So spaces before a
comma or between two Chinese characters are as frequent as they were. A deletion takes a gap with each word,
the one whose absence shows least.

Paper: arXiv:2305.13627 (InstructAlign).
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from jaxlingua.words import KINDS, MARK, UNSPACED, Segmented, join

OPERATIONS = ("infilling", "deletion", "permutation")
BLANK = "___"
RATE = 0.2
RECIPES: tuple[tuple[tuple[str, ...], float], ...] = (
    (("infilling",), 0.24),
    (("deletion",), 0.24),
    (("permutation",), 0.24),
    (("infilling", "deletion"), 0.08),
    (("infilling", "permutation"), 0.08),
    (("deletion", "permutation"), 0.08),
    (("infilling", "deletion", "permutation"), 0.04),
)

_RELEASED_MARK = (
    r"\.{2,}|--|`+|''|[;@#$%&?!*–—\[\](){}<>«»“”‘’„\"]"
    r"|[:,](?!\d)|(?<!\.)\.(?=[\]\)}>\"'»”’\s]*$)"
    r"|(?<=\w\w\w)\.(?=\s+[\"“‘(]*[A-ZÀ-Þ])"  # between sentences; shorter words may be abbreviations
    r"|(?<=\w)[nN]'[tT](?![\w-])|'(?:[sSmMdD]|ll|LL|re|RE|ve|VE)?(?![\w-])|(?<!\S)'(?=\w)"
)
_RELEASED_TOKEN = re.compile(rf"{_RELEASED_MARK}|(?:(?!{_RELEASED_MARK})\S)+")
_OPENING_QUOTE = re.compile(r'(?:^|(?<=[ (\[{<]))"')

# Classes of marks, behind those of words: what they lean on.
_FREE, _LEFT, _RIGHT, _BOTH = range(MARK + 1, MARK + 5)


def draw_recipe(random: Random) -> tuple[str, ...]:
    """The operations of one of the seven recipes, drawn with the probabilities of the paper."""
    drawn = random.random()
    for recipe, probability in RECIPES:
        drawn -= probability
        if drawn < 0:
            return recipe
    return RECIPES[-1][0]


def noised(text: Segmented, recipe: Sequence[str], random: Random) -> str:
    """The text with noise, spaced as the text is.

    Infilling replaces each word by `BLANK` with probability `RATE`; deletion drops each with probability
    `RATE`, and one word is kept where all would go; permutation shuffles the words of each kind (see above),
    every order as likely. What is before the first word and behind the last stays. Only `random.random` is
    called.
    """
    words, gaps = list(text.words), list(text.gaps)
    if not words:
        return gaps[0]
    if "infilling" in recipe:
        words = _infilled(words, random)
    kinds = [KINDS[word[0]] for word in text.words]
    if "deletion" in recipe:
        kept = _kept(len(words), random)
        gaps = _gaps_between(kept, gaps, _classes(kinds, gaps))
        words = [words[place] for place in kept]
        kinds = [kinds[place] for place in kept]
    if "permutation" in recipe:
        words, gaps, classes = _units(words, gaps, kinds)
        words = _shuffled_by_class(words, classes, random)
    return join(words, gaps)


def noised_as_released(text: str, recipe: Sequence[str], random: Random) -> str:
    """The text with noise as the released code makes it: tokens of English rules, joined by single spaces."""
    words = released_tokens(text)
    if "infilling" in recipe:
        words = _infilled(words, random)
    if "deletion" in recipe and words:
        words = [words[place] for place in _kept(len(words), random)]
    if "permutation" in recipe:
        words = _shuffled(words, random)
    return " ".join(words)


def released_tokens(text: str) -> list[str]:
    """Tokens as the released code has them: of white space and of rules for English, whatever the language.

    Marks stand alone, double quotation marks become `` and '', and "don't" is "do" and "n't". A text without
    spaces is few tokens. Same as: NLTK's word tokenizer
    on each sentence, but for rare contractions such as "gonna".
    """
    tokens = _RELEASED_TOKEN.findall(_OPENING_QUOTE.sub("``", text))
    return ["''" if token == '"' else token for token in tokens]


def _infilled(words: Sequence[str], random: Random) -> list[str]:
    draw = random.random
    return [BLANK if draw() < RATE else word for word in words]


def _kept(words: int, random: Random) -> list[int]:
    """Places of the words that are not deleted; one of all, evenly drawn, where none would be left."""
    draw = random.random
    return [place for place in range(words) if draw() >= RATE] or [int(draw() * words)]


def _shuffled(words: Sequence[str], random: Random) -> list[str]:
    """The words in an order of which each is as likely (Fisher and Yates)."""
    shuffled, draw = list(words), random.random
    for last in range(len(shuffled) - 1, 0, -1):
        other = int(draw() * (last + 1))
        shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
    return shuffled


def _shuffled_by_class(words: list[str], classes: list[int], random: Random) -> list[str]:
    """The words, those of each class shuffled over the places where it is."""
    places: dict[int, list[int]] = {}
    for place, of_word in enumerate(classes):
        places.setdefault(of_word, []).append(place)
    for of_class in places.values():
        if len(of_class) > 1:
            for place, word in zip(of_class, _shuffled([words[p] for p in of_class], random), strict=True):
                words[place] = word
    return words


def _runs_of_marks(kinds: Sequence[int], gaps: Sequence[str]) -> list[tuple[int, int]]:
    """Where marks that have no gap between them start and end."""
    runs, end = [], 0
    for _ in range(kinds.count(MARK)):
        if MARK not in kinds[end:]:
            break
        first = kinds.index(MARK, end)
        end = first + 1
        while end < len(kinds) and kinds[end] == MARK and not gaps[end]:
            end += 1
        runs.append((first, end))
    return runs


def _classes(kinds: Sequence[int], gaps: Sequence[str]) -> list[int]:
    """Of each word its kind; of marks what their run leans on: the left, the right, both or nothing.

    So the marks of `."` lean on the left and those of `("` on the right.
    """
    classes = list(kinds)
    for first, end in _runs_of_marks(kinds, gaps):
        left = first > 0 and not gaps[first]
        right = end < len(kinds) and not gaps[end]
        classes[first:end] = [_FREE + left + 2 * right] * (end - first)
    return classes


def _units(
    words: Sequence[str], gaps: Sequence[str], kinds: Sequence[int]
) -> tuple[list[str], list[str], list[int]]:
    """What changes places in a permutation: words and runs of marks; the gaps between, and their classes."""
    units, between, classes = list(words), list(gaps), _classes(kinds, gaps)
    for first, end in reversed(_runs_of_marks(kinds, gaps)):
        if end - first > 1:
            units[first:end] = ["".join(units[first:end])]
            del between[first + 1 : end], classes[first + 1 : end]
    return units, between, classes


def _gaps_between(kept: list[int], gaps: Sequence[str], classes: Sequence[int]) -> list[str]:
    """A gap before, between and behind the words that are kept. All but empty ones were there, in this order.

    Where words were dropped, no gap is left on a side to which a mark leans. Between clusters of scripts
    without spaces one is left only if it was between such; elsewhere the first of those that are not empty,
    so that neighbors do not run together.
    """
    result = [gaps[0]]
    for left, right in pairwise(kept):
        around = gaps[left + 1 : right + 1]
        if len(around) > 1:
            before, behind = classes[left], classes[right]
            if behind in (_LEFT, _BOTH) or before in (_RIGHT, _BOTH):
                around = ()
            elif before == behind == UNSPACED:
                dropped = pairwise(classes[left : right + 1])
                around = [gap for gap, of in zip(around, dropped, strict=True) if of == (UNSPACED, UNSPACED)]
        result.append(next(filter(None, around), ""))
    result.append(gaps[-1])
    return result
