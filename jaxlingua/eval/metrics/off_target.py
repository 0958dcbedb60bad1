"""Answers in another language than asked."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxlingua import identify
from jaxlingua.eval.metrics.measured import Measured, check_counts

# What a language needs so that it may be the one: related languages get up to here now and then.
LIKELY = 0.1
# What the source language or English needs where the identifier does not know the language that was asked.
SURE = 0.8
# Fewer letters than this are too short to tell; a letter of the second kind is a syllable or a word.
LETTERS, LETTERS_OF_SYLLABLES = 10, 4
_SYLLABLES = ("Hans", "Hant", "Jpan", "Hang", "Kore", "Ethi")

Verdict = Literal["on", "off", "undecided"]


def off_target_metrics(
    predictions: Sequence[str], targets: Sequence[Sequence[str]], language: str, source_language: str
) -> list[Measured]:
    """Share of answers in another language than asked, and share of those where this cannot be told.

    The first is over the answers that can be told. Its signature says by which rule (see `verdict`), and how
    many of the targets, which are in the right language, the rule takes for off-target: below that a rate
    means nothing.

    Raises: DataError where predictions and targets differ in number.
    """
    check_counts(predictions, [them or ("",) for them in targets])
    verdicts = [verdict(text, language, source_language) for text in predictions]
    of_targets = [verdict(them[0], language, source_language) for them in targets if them]
    rule = "identified" if identify.known_language(language) else "source_or_english"
    version = identify.identifier_version()
    signature = f"rule:{rule}|identifier:{version}|letters:{LETTERS}|targets:{_rate(of_targets)}"
    statistics = np.array([[100.0 * (one == "off"), one != "undecided"] for one in verdicts], np.float64)
    undecided = np.array([[100.0 * (one == "undecided"), 1.0] for one in verdicts])
    return [
        Measured("off_target", statistics, _share, f"metric:off_target|{signature}"),
        Measured("undecided", undecided, _share, f"metric:undecided|{signature}"),
    ]


def verdict(text: str, language: str, source_language: str) -> Verdict:
    """Whether an answer is in the language that was asked.

    An empty answer is off-target, and so is one whose letters are mostly in another script. One with few
    letters is undecided. Else it is off-target where the most likely language is another one and that which
    was asked is unlikely, and undecided where it is likely all the same: related languages are often
    confused. Of a language that the identifier does not know, off-target means that the answer is in the
    source language or in English.

    Example:
        >>> verdict("The weather will be fine tomorrow.", "deu_Latn", "eng_Latn")
        'off'
    """
    if not text.strip():
        return "off"
    count = identify.letters(text)
    if count < (LETTERS_OF_SYLLABLES if language.partition("_")[2] in _SYLLABLES else LETTERS):
        return "undecided"
    if identify.share_in_script(text, language) < 0.5:
        return "off"
    probabilities = identify.probabilities(text)
    best = next(iter(probabilities))
    asked = identify.known_language(language)
    if asked:
        if best == asked:
            return "on"
        return "off" if probabilities[asked] < LIKELY else "undecided"
    others = {identify.known_language(source_language), "eng"}
    if best not in others:
        return "on"
    return "off" if probabilities[best] >= SURE else "undecided"


def _share(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def _rate(verdicts: Sequence[Verdict]) -> str:
    decided = [one for one in verdicts if one != "undecided"]
    return f"{100 * decided.count('off') / len(decided):.1f}off" if decided else "none"
