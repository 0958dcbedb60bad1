"""Whether a model answers the same question alike in two languages."""

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxlingua.analysis.responses.measures import Share
from jaxlingua.analysis.responses.read import Answers, Reply
from jaxlingua.eval.metrics.answers import normalize_answer
from jaxlingua.eval.metrics.numbers import last_number
from jaxlingua.eval.tasks.item import FIRST_PROMPT

_NOT_PARALLEL = (
    "not compared across languages, since an id is not known to name the same question in all of them; "
    "is_parallel of a task file says that it does."
)
_NO_ITEMS = "no item is in both"


@dataclass(frozen=True, eq=False)
class Agreement:
    """Items that were asked in two languages.

    Attributes:
        keys: of both answers.
        ids: of the items that are compared.
        is_same: 1 where both answers are the same.
        labels: of a choice, the place of each answer among all labels; else None.
        left_out: items in both languages that are not compared, since their targets differ.
    """

    family: str
    keys: tuple[str, str]
    ids: tuple[str, ...]
    is_same: Float[np.ndarray, " items"]
    labels: Int[np.ndarray, "2 items"] | None
    left_out: int

    @property
    def share(self) -> Share:
        """Items that are answered alike, of all."""
        return self.is_same, np.ones(len(self.ids))

    def draws(self, weights: Float[np.ndarray, "draws items"]) -> Float[np.ndarray, " draws"]:
        """Share of items that are answered alike, for each row of `weights`."""
        return weights @ self.is_same / weights.sum(axis=1)

    def kappa_draws(self, weights: Float[np.ndarray, "draws items"]) -> Float[np.ndarray, " draws"]:
        """Cohen's kappa of choices: agreement beyond what the frequencies of the labels give by chance.

        NaN where both choose one and the same label throughout.

        Same as: sklearn.metrics.cohen_kappa_score.
        """
        assert self.labels is not None
        names = np.arange(self.labels.max() + 1)
        first, second = (
            weights @ (of[:, None] == names) / weights.sum(axis=1, keepdims=True) for of in self.labels
        )
        chance = (first * second).sum(axis=1)
        is_defined = chance < 1 - 1e-12
        return np.where(
            is_defined, (self.draws(weights) - chance) / np.where(is_defined, 1 - chance, 1), np.nan
        )


def agreements_of(evaluation: Mapping[str, Answers]) -> tuple[list[Agreement], list[str]]:
    """Every two languages of each task whose answers can be compared, and why others are not.

    Translations and open answers cannot be compared. Items are joined by their id, in tasks alone of which it
    is known that it names the same question in every language: row numbers of most sets do not.

    Labels are compared as they are, numbers by what they are worth (where none is there, nothing agrees).
    Other answers are compared, normalized as for exact match and with the digits 0 to 9, where the targets of
    both languages are the same so, such as years and names: else right answers would differ.
    """
    families: dict[str, list[Answers]] = {}
    for answers in evaluation.values():
        if kind_of(answers) in ("choice", "number", "qa"):
            families.setdefault(answers.family, []).append(answers)
    agreements, reasons = [], []
    for family, members in families.items():
        parallel = [answers for answers in members if answers.is_parallel]
        if len(members) > 1 and len(parallel) < 2:
            reasons.append(f"{family.removesuffix(f'@{FIRST_PROMPT}')}: {_NOT_PARALLEL}")
        for one, other in itertools.combinations(parallel, 2):
            pairs = _shared(one, other)
            found = _choices if one.is_choice and other.is_choice else _numbers
            if kind_of(one) == "qa":
                found = _spans
            if pairs and (made := found(family, one, other, pairs)):
                agreements.append(made)
            else:
                why = f"none of {len(pairs):,} items has the same target in both" if pairs else _NO_ITEMS
                reasons.append(f"{one.key} and {other.key}: agreement is not defined, since {why}.")
    return agreements, reasons


def kind_of(answers: Answers) -> str:
    """As scores.json tells it; without one, what the predictions show."""
    if answers.kind or answers.is_choice:
        return answers.kind or "choice"
    return "translation" if answers.asked_in != answers.language else "qa"


def _shared(one: Answers, other: Answers) -> list[tuple[Reply, Reply]]:
    there = {reply.id: reply for reply in other.replies}
    return [(reply, there[reply.id]) for reply in one.replies if reply.id in there]


def _choices(family: str, one: Answers, other: Answers, pairs: Sequence[tuple[Reply, Reply]]) -> Agreement:
    names = sorted({reply.text for pair in pairs for reply in pair})
    labels = np.array([[names.index(pair[side].text) for pair in pairs] for side in (0, 1)])
    return _made(family, one, other, pairs, [a.text == b.text for a, b in pairs], labels=labels)


def _numbers(family: str, one: Answers, other: Answers, pairs: Sequence[tuple[Reply, Reply]]) -> Agreement:
    is_same = [bool(last_number(a.text) & last_number(b.text)) for a, b in pairs]
    return _made(family, one, other, pairs, is_same)


def _spans(
    family: str, one: Answers, other: Answers, pairs: Sequence[tuple[Reply, Reply]]
) -> Agreement | None:
    def plain(texts: Sequence[str], answers: Answers) -> set[str]:
        return {_plain(text, answers.language) for text in texts} - {""}

    kept = [(a, b) for a, b in pairs if plain(a.targets, one) & plain(b.targets, other)]
    if not kept:
        return None
    is_same = [bool(plain([a.text], one) & plain([b.text], other)) for a, b in kept]
    return _made(family, one, other, kept, is_same, left_out=len(pairs) - len(kept))


def _plain(text: str, language: str) -> str:
    """An answer as it can be compared across languages.

    >>> _plain("In १८४८.", "hin_Deva"), _plain("the Nile", "eng_Latn")
    ('in 1848', 'nile')
    """
    digits = (str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    return normalize_answer("".join(digits), language)


def _made(
    family: str,
    one: Answers,
    other: Answers,
    pairs: Sequence[tuple[Reply, Reply]],
    is_same: Sequence[bool],
    *,
    labels: Int[np.ndarray, "2 items"] | None = None,
    left_out: int = 0,
) -> Agreement:
    ids = tuple(reply.id for reply, _ in pairs)
    return Agreement(family, (one.key, other.key), ids, np.array(is_same, np.float64), labels, left_out)
