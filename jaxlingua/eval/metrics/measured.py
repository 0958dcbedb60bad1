"""One metric over the items of a task, and its 95 % interval.

Every metric is kept as sufficient statistics per item, so that a score, its 95 % interval and the scores of
single items come from one pass. All values lie between 0 and 100, but for a length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxlingua.errors import DataError


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric over the items of a task: statistics that add up, and what their sum is worth.

    `score_of_one` says whether the metric means something for a single item (corpus BLEU does not).
    """

    metric: str
    statistics: np.ndarray  # items, statistics
    of_sums: Callable[[np.ndarray], float]
    signature: str
    score_of_one: bool = True

    @property
    def value(self) -> float:
        """The score of all items."""
        return self.of_sums(self.statistics.sum(axis=0))

    @property
    def values(self) -> list[float]:
        """The score of each item."""
        return [self.of_sums(row) for row in self.statistics]


def interval(measured: Measured, samples: int, seed: int) -> tuple[float, float]:
    """95 % interval of a score: percentiles of its value over resampled items.

    Two models scored on the same items with the same seed meet the same resamples.
    """
    statistics = measured.statistics.astype(np.float64)
    items = len(statistics)
    rng = np.random.default_rng([seed, items])
    values = []
    for _ in range(samples):
        times_drawn = np.bincount(rng.integers(items, size=items), minlength=items)
        values.append(measured.of_sums(times_drawn @ statistics))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_of(metric: str, scores: Sequence[float], rules: str) -> Measured:
    """A metric that is the mean of the items' scores, given between 0 and 1, and told in percent."""
    statistics = np.array([[100.0 * score, 1.0] for score in scores])
    return Measured(metric, statistics, lambda sums: float(sums[0] / sums[1]), f"metric:{metric}|{rules}")


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
