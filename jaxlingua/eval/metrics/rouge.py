"""ROUGE-L: the longest common subsequence of the words of an answer and of a target."""

from collections.abc import Sequence

import regex

from jaxlingua.eval.metrics.answers import UNITS
from jaxlingua.eval.metrics.measured import Measured, check_counts, mean_of
from jaxlingua.languages import script_of

_WORD = r"[\p{L}\p{M}\p{N}]+"


def rouge_metrics(
    predictions: Sequence[str], targets: Sequence[Sequence[str]], language: str
) -> list[Measured]:
    """ROUGE-L, the F of the best target.

    Raises: DataError where predictions and targets differ in number.
    Same as: rouge_score.RougeScorer(["rougeL"]) for text in ASCII; it knows no other letters.
    """
    check_counts(predictions, targets)
    pairs = zip(predictions, targets, strict=True)
    scores = [max(rouge_l(given, target, language) for target in them) for given, them in pairs]
    script = script_of(language)
    return [mean_of("rouge_l", scores, f"case:lc|stem:no|seg:{script if script in UNITS else 'words'}")]


def rouge_l(prediction: str, target: str, language: str) -> float:
    """Harmonic mean of the shares of both texts that their longest common subsequence is, between 0 and 1.

    Example:
        >>> rouge_l("The cat sat quietly.", "the cat quietly sat down", "eng_Latn")
        0.6666666666666666
    """
    given, wanted = words(prediction, language), words(target, language)
    shared = common_subsequence_length(given, wanted)
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0


def words(text: str, language: str) -> list[str]:
    """Words in lower case, with the marks on their letters; in scripts without spaces, characters.

    Example:
        >>> words("Don't panic: नमस्ते!", "hin_Deva"), words("长约6650公里。", "zho_Hans")
        (['don', 't', 'panic', 'नमस्ते'], ['长', '约', '6650', '公', '里'])
    """
    unit = UNITS.get(script_of(language))
    text = text.lower()
    return regex.findall(_WORD, unit.sub(r" \g<0> ", text) if unit else text)


def common_subsequence_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, with the words of `first` as the bits of one integer.

    Paper: M. Crochemore et al. (2001), "A fast and practical bit-vector algorithm for the longest common
    subsequence problem", where a bit that was cleared is a word of `first` that is in the subsequence.
    """
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & everywhere
    return len(first) - row.bit_count()
