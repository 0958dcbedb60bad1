"""One metric over the items of a task, and its 95 % interval.

Every metric is kept as sufficient statistics per item, so that a score, its 95 % interval and the scores of
single items come from one pass. All values lie between 0 and 100, but for a length.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxlingua.errors import DataError


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric over the items of a task: statistics that add up, and what their sum is worth.

    An item of which all statistics are 0 has no weight: it cannot be told what it is worth.

    Attributes:
        score_of_one: whether the metric means something for a single item (corpus BLEU does not).
        is_share: of two statistics, the first adds up what items are worth, from 0 to 100 for each, and the
            second counts them: the value is a mean that lies between 0 and 100.
        is_testable: whether models that are alike have the same chances after their answers to an item are
            exchanged. Not so where items with weight are chosen by the answers: two models with equal rates
            among those would be called different for being chosen from more or less often.
    """

    metric: str
    statistics: np.ndarray  # items, statistics
    of_sums: Callable[[np.ndarray], float]
    signature: str
    score_of_one: bool = True
    is_share: bool = False
    is_testable: bool = True

    @property
    def value(self) -> float:
        """The score of all items."""
        return self.of_sums(self.statistics.sum(axis=0))

    @property
    def values(self) -> list[float]:
        """The score of each item; 0 of one without weight."""
        return [self.of_sums(row) if row.any() else 0.0 for row in self.statistics]

    @property
    def items(self) -> int:
        """How many items have weight: what the value is a value of."""
        return int(np.count_nonzero(self.statistics.any(axis=1)))


def interval(measured: Measured, samples: int, seed: int) -> tuple[float, float]:
    """95 % interval of a score: percentiles of its value over resampled items, or Wilson's.

    Wilson's is that of a share of items that are right or wrong. Resamples of items that are all wrong are
    all wrong too, and tell an interval of no width however few there were. `interval_method` says which.

    Two models scored on the same items with the same seed meet the same resamples.
    """
    if _has_two_values(measured):
        right, items = measured.statistics.sum(axis=0).tolist()
        return _wilson(right / 100.0, items)
    statistics = measured.statistics.astype(np.float64)
    items = len(statistics)
    rng = np.random.default_rng([seed, items])
    values = []
    for _ in range(samples):
        times_drawn = np.bincount(rng.integers(items, size=items), minlength=items)
        values.append(measured.of_sums(times_drawn @ statistics))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def interval_method(measured: Measured, samples: int, seed: int) -> str:
    """How `interval` comes about, for signatures, and the samples that differences are told by.

    Example:
        >>> interval_method(mean_of("f1", [0.5, 1.0], ""), 1000, 7)
        'bootstrap1000,seed7'
        >>> interval_method(mean_of("f1", [0.0, 1.0], ""), 1000, 7)
        'wilson,bootstrap1000,seed7'
    """
    return ("wilson," if _has_two_values(measured) else "") + f"bootstrap{samples},seed{seed}"


def _has_two_values(measured: Measured) -> bool:
    """Whether each item is right or wrong, or without weight."""
    if not measured.is_share or measured.statistics.shape[1] != 2 or not measured.items:
        return False
    worth, weight = measured.statistics.T
    return bool(np.isin(weight, (0, 1)).all() and ((worth == 0) | ((worth == 100) & (weight == 1))).all())


def _wilson(right: float, items: float) -> tuple[float, float]:
    """In percent. Paper: Wilson 1927. Same as: scipy.stats.binomtest(...).proportion_ci(method="wilson")."""
    z = 1.959963984540054  # of 97.5 %
    center = (right + z * z / 2) / (items + z * z)
    half = z / (items + z * z) * math.sqrt(right * (items - right) / items + z * z / 4)
    low, high = 100 * max(center - half, 0.0), 100 * min(center + half, 1.0)
    return (0.0 if right == 0 else low), (100.0 if right == items else high)


def mean_of(metric: str, scores: Sequence[float], rules: str) -> Measured:
    """A metric that is the mean of the items' scores, given between 0 and 1, and told in percent."""
    statistics = np.array([[100.0 * score, 1.0] for score in scores])
    return Measured(
        metric,
        statistics,
        lambda sums: float(sums[0] / sums[1]),
        f"metric:{metric}|{rules}",
        is_share=True,
    )


def length_metric(predictions: Sequence[str]) -> Measured:
    """Mean length of answers in characters."""
    statistics = np.array([[len(text), 1.0] for text in predictions])
    return Measured(
        "length", statistics, lambda sums: float(sums[0] / sums[1]), "metric:length|unit:characters"
    )


def check_counts(predictions: Sequence[str], targets: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(targets) or not targets:
        raise DataError(
            f"eval: {len(predictions)} predictions for {len(targets)} items; each item needs one prediction; "
            "make the predictions again"
        )
    for index, them in enumerate(targets):
        if not them:
            raise DataError(f"eval: item {index} has no target; each needs one or more; take it out")
