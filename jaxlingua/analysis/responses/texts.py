"""What one answer is like: its language, its length, whether it repeats itself or its prompt."""

from collections import Counter
from collections.abc import Sequence

from jaxlingua import identify
from jaxlingua.eval.metrics.off_target import LETTERS, LETTERS_OF_SYLLABLES, SURE
from jaxlingua.words import MARK, kind, segment

# What is not a language in the table of languages.
EMPTY, NO_LETTERS, SHORT, UNSURE = "empty", "no letters", "too short", "not sure"
UNTOLD = (EMPTY, NO_LETTERS, SHORT, UNSURE)

GRAM = 4  # words in a row
LOOP_COPIES = 3  # so often in a row a block stands at the end of an answer that loops
LOOP_WORDS = 8  # and so long are these copies together at least

_SYLLABLES = ("Hani", "Hans", "Hant", "Jpan", "Hira", "Kana", "Hang", "Kore", "Ethi")


def language_of(text: str) -> str:
    """The language that a text is in, or one of `UNTOLD`.

    Fewer letters than off-target rates need are too short, and a language that is less probable than these
    ask of the one that a wrong answer is in is not sure (`eval/metrics/off_target.py`).

    Example:
        >>> language_of("Das Wetter wird morgen schön sein."), language_of("ja"), language_of("1848")
        ('deu_Latn', 'too short', 'no letters')
    """
    if not text.strip():
        return EMPTY
    count = identify.letters(text)
    if not count:
        return NO_LETTERS
    if count < (LETTERS_OF_SYLLABLES if identify.main_script(text) in _SYLLABLES else LETTERS):
        return SHORT
    language, probability = identify.identify(text)
    return UNSURE if language is None or probability < SURE else language


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; characters where no spaces part words."""
    return [word.lower() for word in segment(text).words if kind(word) != MARK]


def grams(words: Sequence[str], size: int = GRAM) -> list[tuple[str, ...]]:
    """All runs of `size` words."""
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


def repeated_grams(words: Sequence[str]) -> tuple[int, int]:
    """How many runs of four words have stood in the text before, and how many there are.

    Example:
        >>> repeated_grams("the cat sat on the cat sat on the mat".split())
        (2, 7)
    """
    of = grams(words)
    return len(of) - len(set(of)), len(of)


def ends_in_loop(words: Sequence[str], *, is_finished: bool = True) -> bool:
    """Whether a text ends with a block of words three times or more in a row, eight words or more together.

    The last copy may be cut anywhere; of an answer that did not end by itself, within a word.

    Example:
        >>> ends_in_loop("so on and so on and so on and so".split()), ends_in_loop("no no no".split())
        (True, False)
    """
    if not is_finished and len(words) > 1:
        return ends_in_loop(words) or ends_in_loop(words[:-1])
    for period in range(1, len(words) // LOOP_COPIES + 1):
        length = period
        while length < len(words) and words[-1 - length] == words[-1 - length + period]:
            length += 1
        if length >= max(LOOP_WORDS, LOOP_COPIES * period):
            return True
    return False


def copied_grams(words: Sequence[str], source: Sequence[str]) -> tuple[int, int]:
    """How many runs of four words stand in the source too, and how many there are.

    A text of fewer words is one run. A run counts as often as it stands in the text.

    Example:
        >>> copied_grams("the cat sat on a mat".split(), "look, the cat sat on it".split())
        (1, 3)
        >>> copied_grams(["the", "cat"], ["the", "cat", "sat"]), copied_grams([], ["the"])
        ((1, 1), (0, 0))
    """
    size = min(GRAM, len(words))
    if not size:
        return 0, 0
    known = Counter(grams(source, size))
    of = grams(words, size)
    return sum(gram in known for gram in of), len(of)
