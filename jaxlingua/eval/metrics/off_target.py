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
# Of fewer answers that can be told there is no rate; nor where more of the targets are taken for off-target.
DECIDED = 5
FALSE_ALARMS = 0.05
_SYLLABLES = ("Hans", "Hant", "Jpan", "Hang", "Kore", "Ethi")

Verdict = Literal["on", "off", "undecided"]


def off_target_metrics(
    predictions: Sequence[str],
    targets: Sequence[Sequence[str]],
    language: str,
    source_language: str,
    sources: Sequence[str] = (),
) -> list[Measured]:
    """Share of answers in another language than asked, and share of those where this cannot be told.

    The first is over the answers that can be told. It is not there where these are fewer than `DECIDED`, or
    where the rule takes too many targets for off-target (see `is_reliable`): a rate would mean nothing. Its
    signature says by which rule it is told (see `verdict`) and what the rule makes of the targets. An answer
    that repeats its source is off-target, however short, unless that is its target.

    Models differ in how many of their answers can be told, so that exchanging answers is no test of the first
    one: it has no p-value.

    Args:
        sources: the sentence of each item that is in the source language, where there are such.
    Raises: DataError where predictions and targets differ in number.
    """
    check_counts(predictions, [them or ("",) for them in targets])
    verdicts: list[Verdict] = [verdict(text, language, source_language) for text in predictions]
    if sources and source_language not in ("", language):
        for index, (text, source, them) in enumerate(zip(predictions, sources, targets, strict=True)):
            if text.strip() == source.strip() and text.strip() not in map(str.strip, them):
                verdicts[index] = "off"
    version = identify.identifier_version()
    rules = f"rule:{_rule(language, source_language)}|identifier:{version}|letters:{LETTERS}"
    signature = f"{rules}|source:off|targets:{_rate(_verdicts_of(targets, language, source_language))}"
    is_told = np.array([one != "undecided" for one in verdicts], np.float64)
    is_off = np.array([100.0 * (one == "off") for one in verdicts])
    measured = [
        Measured(
            "undecided",
            np.stack([100.0 * (1 - is_told), np.ones(len(verdicts))], axis=1),
            lambda sums: float(sums[0] / sums[1]),
            f"metric:undecided|{signature}",
            is_share=True,
        )
    ]
    if is_told.sum() >= DECIDED and is_reliable(targets, language, source_language):
        overall = float(is_off.sum() / is_told.sum())
        off_target = Measured(
            "off_target",
            np.stack([is_off, is_told], axis=1),
            # A resample without any that can be told is worth what all are.
            lambda sums: float(sums[0] / sums[1]) if sums[1] else overall,
            f"metric:off_target|{signature}",
            is_share=True,
            is_testable=False,
        )
        measured.insert(0, off_target)
    return measured


def is_reliable(targets: Sequence[Sequence[str]], language: str, source_language: str) -> bool:
    """Whether `verdict` takes at most 5 % of the targets, which are in the right language, for off-target.

    Nothing is known against it where there are no targets, or none that can be told.
    """
    decided = [one for one in _verdicts_of(targets, language, source_language) if one != "undecided"]
    return decided.count("off") <= FALSE_ALARMS * len(decided)


def verdict(text: str, language: str, source_language: str) -> Verdict:
    """Whether an answer is in the language that was asked.

    An empty answer is off-target, and so is one whose letters are mostly in another script. One with few
    letters is undecided. Else it is off-target where the most likely language is another one and that which
    was asked is unlikely, and undecided where it is likely all the same: related languages are often
    confused. Of a language that the identifier does not know, off-target means that the answer is in the
    source language or in English; in English where it does not know the source language either.

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


def _rule(language: str, source_language: str) -> str:
    if identify.known_language(language):
        return "identified"
    return "source_or_english" if identify.known_language(source_language) else "english"


def _verdicts_of(targets: Sequence[Sequence[str]], language: str, source_language: str) -> list[Verdict]:
    return [verdict(them[0], language, source_language) for them in targets if them]


def _rate(verdicts: Sequence[Verdict]) -> str:
    decided = [one for one in verdicts if one != "undecided"]
    return f"{100 * decided.count('off') / len(decided):.1f}off" if decided else "none"
