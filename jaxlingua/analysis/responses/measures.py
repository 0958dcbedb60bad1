"""Answers of one model to one task in numbers, each with what the targets have."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxlingua.analysis.responses.read import Answers
from jaxlingua.analysis.responses.texts import (
    UNTOLD,
    copied_grams,
    ends_in_loop,
    language_of,
    repeated_grams,
    words_of,
)
from jaxlingua.identify import known_language

# What a measure is, for reports, in the order in which they are told.
MEASURES = {
    "asked_language": "share in the language that was asked, of the answers whose language is told",
    "words": "words of an answer",
    "length_ratio": "words of all answers divided by those of all first targets",
    "new_tokens": "tokens of an answer",
    "unfinished": "share of answers that did not end by themselves",
    "repeated_4grams": "share of runs of four words that have stood in the answer before",
    "loops": "share of answers that end in a loop",
    "copied": "share of runs of four words that stand in the prompt too; a shorter answer is one run",
}

SHARES = ("asked_language", "unfinished", "repeated_4grams", "loops", "copied")

Share = tuple[Float[np.ndarray, " items"], Float[np.ndarray, " items"]]  # what counts, of how much


@dataclass(frozen=True, eq=False)
class Ratio:
    """A sum over items divided by another, for the items as they are and for resamples.

    Attributes:
        ids: of the items.
        of_targets: the same of the first targets; None where it says nothing.
    """

    measure: str
    ids: tuple[str, ...]
    above: Float[np.ndarray, " items"]
    below: Float[np.ndarray, " items"]
    of_targets: float | None = None

    @property
    def share(self) -> Share | None:
        """Its sums, where it is a share."""
        return (self.above, self.below) if self.measure in SHARES else None

    def draws(self, weights: Float[np.ndarray, "draws items"]) -> Float[np.ndarray, " draws"]:
        """Its value for each row of `weights`, how often each item counts; NaN where nothing is below."""
        below = weights @ self.below
        return np.where(below > 0, weights @ self.above / np.where(below > 0, below, 1), np.nan)


def is_same_language(one: str, other: str) -> bool:
    """Whether two codes are one language in one script to the identifier, which has one name for some.

    Example:
        >>> is_same_language("tgl_Latn", "fil_Latn"), is_same_language("zho_Hans", "zho_Hant")
        (True, False)
    """
    known = known_language(one)
    is_known = known is not None and known == known_language(other)
    return one == other or (is_known and one.partition("_")[2] == other.partition("_")[2])


def languages_of(answers: Answers) -> tuple[Counter[str], Counter[str]]:
    """How many answers, and how many first targets, are in each language, or why it is not told.

    Of a choice, whose answers are labels, none. The language asked is called as the task calls it.
    """
    if answers.is_choice:
        return Counter(), Counter()
    targets = (reply.targets[0] for reply in answers.replies if reply.targets)
    return (
        Counter(_told((reply.text for reply in answers.replies), answers)),
        Counter(_told(targets, answers)),
    )


def _told(texts: Iterable[str], answers: Answers) -> list[str]:
    languages = map(language_of, texts)
    return [answers.language if is_same_language(one, answers.language) else one for one in languages]


def ratios_of(answers: Answers) -> Iterator[Ratio]:
    """The measures of free answers; of choices, which are labels, none.

    Which share is in the language asked is told where the identifier knows that language.
    """
    if answers.is_choice:
        return
    replies = answers.replies
    ids = tuple(reply.id for reply in replies)
    ones = np.ones(len(replies))
    texts = [words_of(reply.text) for reply in replies]
    targets = [words_of(reply.targets[0]) if reply.targets else [] for reply in replies]
    if known_language(answers.language):
        told = _told((reply.text for reply in replies), answers)
        is_told = np.array([float(one not in UNTOLD) for one in told])
        is_asked = np.array([float(one == answers.language) for one in told])
        of_targets = _told((reply.targets[0] for reply in replies if reply.targets), answers)
        known = [one == answers.language for one in of_targets if one not in UNTOLD]
        yield Ratio("asked_language", ids, is_asked, is_told, sum(known) / len(known) if known else None)
    lengths, wanted = (np.array([float(len(words)) for words in of]) for of in (texts, targets))
    has_targets = all(reply.targets for reply in replies)
    yield Ratio("words", ids, lengths, ones, float(wanted.mean()) if has_targets else None)
    if has_targets:
        yield Ratio("length_ratio", ids, lengths, wanted)
    if all(reply.new_tokens is not None for reply in replies):
        yield Ratio("new_tokens", ids, np.array([float(reply.new_tokens or 0) for reply in replies]), ones)
    yield Ratio("unfinished", ids, np.array([float(not reply.is_finished) for reply in replies]), ones)
    yield _of_runs(
        "repeated_4grams", ids, list(map(repeated_grams, texts)), list(map(repeated_grams, targets))
    )
    loops = [ends_in_loop(of, is_finished=one.is_finished) for of, one in zip(texts, replies, strict=True)]
    of_targets = [ends_in_loop(of) for of, one in zip(targets, replies, strict=True) if one.targets]
    share = sum(of_targets) / len(of_targets) if of_targets else None
    yield Ratio("loops", ids, np.array(loops, np.float64), ones, share)
    prompts = [words_of(reply.prompt) for reply in replies]
    copied = list(map(copied_grams, texts, prompts))
    yield _of_runs("copied", ids, copied, list(map(copied_grams, targets, prompts)))


def _of_runs(
    measure: str, ids: tuple[str, ...], of: Sequence[tuple[int, int]], targets: Sequence[tuple[int, int]]
) -> Ratio:
    above, below = np.array(of, np.float64).T
    some, every = np.array(targets).sum(axis=0).tolist()
    return Ratio(measure, ids, above, below, some / every if every else None)
