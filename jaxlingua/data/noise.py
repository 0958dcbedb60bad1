"""Noise for denoising tasks: words blanked, deleted and shuffled, as it was released or with its spacing right.

Where a recipe has several operations, they are applied in this order whatever the recipe's: infilling, then
deletion, then permutation.

The corrected noise cannot be told from clean text by its spaces. A permutation moves words to where words
stood, characters of scripts without spaces to where such characters stood, and marks to where marks stood
that leaned to the same side; so "the space before a comma" or "between two Chinese characters" is as frequent
as it was. A deletion takes a gap with each word, the one whose absence shows least.

Paper: arXiv:2305.13627 (InstructAlign).
"""

from collections.abc import Iterator, Sequence
from random import Random

from jaxlingua.words import Kind, Segmented, join, kind, segment

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

# Classes of marks, behind those of words: what they lean on.
_FREE, _LEFT, _RIGHT, _BOTH = range(len(Kind), len(Kind) + 4)


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
    `RATE`, and one word is kept where all would go; permutation shuffles the words of each class (see above).
    What is before the first word and behind the last stays. Only `random.random` is called.
    """
    words: list[str] = list(text.words)
    gaps = text.gaps
    if not words:
        return gaps[0]
    if "infilling" in recipe:
        words = _infilled(words, random)
    if "deletion" in recipe or "permutation" in recipe:
        classes = _classes(text)
        if "deletion" in recipe:
            kept = _kept(len(words), random)
            gaps = _gaps_between(kept, gaps, classes)
            words = [words[place] for place in kept]
            classes = [classes[place] for place in kept]
        if "permutation" in recipe:
            words = _shuffled_by_class(words, classes, random)
    return join(words, gaps)


def noised_as_released(text: str, recipe: Sequence[str], random: Random) -> str:
    """The text with noise as the released code makes it: words and marks joined by single spaces."""
    words: list[str] = list(segment(text).words)
    if "infilling" in recipe:
        words = _infilled(words, random)
    if "deletion" in recipe and words:
        words = [words[place] for place in _kept(len(words), random)]
    if "permutation" in recipe:
        words = _shuffled(words, random)
    return " ".join(words)


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
    """The words, each class shuffled over the places where it is."""
    places: dict[int, list[int]] = {}
    for place, of_word in enumerate(classes):
        places.setdefault(of_word, []).append(place)
    if len(places) == 1:
        return _shuffled(words, random)
    result = list(words)
    for of_class in places.values():
        for place, word in zip(of_class, _shuffled([words[p] for p in of_class], random), strict=True):
            result[place] = word
    return result


def _classes(text: Segmented) -> list[int]:
    """Of each word its kind; of marks what their run leans on: the left, the right, both or nothing."""
    classes: list[int] = [kind(word) for word in text.words]
    for first, end in _runs_of_marks(classes, text.gaps):
        left = first > 0 and not text.gaps[first]
        right = end < len(classes) and not text.gaps[end]
        classes[first:end] = [_FREE + left + 2 * right] * (end - first)
    return classes


def _runs_of_marks(kinds: Sequence[int], gaps: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where marks with no gap between them start and end."""
    first = None
    for place, of_word in enumerate([*kinds, Kind.SPACED]):
        if first is not None and (of_word != Kind.MARK or gaps[place]):
            yield first, place
            first = None
        if first is None and of_word == Kind.MARK:
            first = place


def _gaps_between(kept: list[int], gaps: Sequence[str], classes: Sequence[int]) -> list[str]:
    """A gap before, between and behind the words that are kept, each one that was there.

    Of the gaps around dropped words the first that is not empty stays, so that neighbors do not run together;
    none where a mark leans on its new neighbor.
    """
    result = [gaps[0]]
    for left, right in zip(kept, kept[1:], strict=False):
        if right == left + 1:
            gap = gaps[right]
        elif classes[right] in (_LEFT, _BOTH) or classes[left] in (_RIGHT, _BOTH):
            gap = ""
        else:
            gap = next((gap for gap in gaps[left + 1 : right + 1] if gap), "")
        result.append(gap)
    result.append(gaps[-1])
    return result
