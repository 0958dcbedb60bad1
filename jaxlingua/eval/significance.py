"""Whether a difference is more than chance, which scores may be compared, what several tell together.

All of it comes from the statistics of single items, which add up: a resample of the items is one row of a
matrix product, whatever the metric does with the sums.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from jaxlingua.errors import DataError
from jaxlingua.eval.metrics.measured import Measured

# Of so many items that differ all exchanges are tried: 2,048, with mirror images left out.
EXACT_ITEMS = 12

_CELLS = 1 << 21  # numbers of a block of resamples: 16 MiB
_TOLERANCE = 1e-9  # of a score up to 100; sums of the same numbers in another order differ by less
_CONFIDENCE = 0.95
# Parts of a signature that tell how sure a score is, not what it is.
_OF_THE_INTERVAL = ("interval",)


@dataclass(frozen=True, slots=True)
class Difference:
    """The score of a model minus that of its base on the same items.

    Attributes:
        low, high: 95 % interval, percentiles over resampled items.
        p_value: how often models that are alike, their answers exchanged at random, differ at least as much
            in either direction. None where exchanges are no test of the metric: see `Measured.is_testable`.
        method: how both were computed, in one word for a signature.
    """

    delta: float
    low: float
    high: float
    p_value: float | None
    method: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation of n scores, and the 95 % interval of the mean by Student's t.

    Of a single score nothing but the mean is defined, the rest is None.
    """

    mean: float
    standard_deviation: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Correlation:
    """How two series of n numbers go together, and Fisher's 95 % interval of Pearson's coefficient.

    The coefficients are None where they are not defined: below three pairs, or where a series is constant.
    The interval needs four pairs.
    """

    pearson: float | None
    spearman: float | None
    n: int
    low: float | None
    high: float | None

    def describe(self) -> str:
        """One sentence for the report."""
        if self.pearson is None or self.spearman is None:
            why = "three or more are needed" if self.n < 3 else "one of the series is constant"
            return f"correlation of {self.n} pairs: not defined, {why}"
        interval = "" if self.low is None else f" (95 % interval {self.low:.2f} to {self.high:.2f})"
        pearson, spearman = f"Pearson {self.pearson:.2f}{interval}", f"Spearman {self.spearman:.2f}"
        return f"correlation of {self.n} pairs: {pearson}, {spearman}"


def difference(model: Measured, base: Measured, *, samples: int, seed: int) -> Difference:
    """How much better a model is than its base, with a paired bootstrap interval and a randomization test.

    Both meet the same resamples, which are also those of `measured.interval`. The p-value is that of paired
    approximate randomization: the two answers to an item change places or not, and the whole metric is
    computed again, so that BLEU and F1 of classes are tested as they are and not as means of items. Where at
    most `EXACT_ITEMS` items differ, all exchanges are tried instead and the p-value is exact.

    Raises: DataError where the two were not measured in the same way or not on the same number of items.
    Cost: 4,000 evaluations of the metric's sums for 1,000 samples; 2,000 items of BLEU take 0.2 s.
    Paper: Koehn 2004 (resamples), Noreen 1989 and Riezler and Maxwell 2005 (exchanges).
    Same as: sacrebleu.significance.PairedTest, which draws other random numbers.
    """
    reason = comparable(model.signature, base.signature)
    if reason or model.statistics.shape != base.statistics.shape:
        reason = reason or f"items and statistics: {model.statistics.shape} and {base.statistics.shape}"
        raise DataError(
            f"eval: '{model.metric}' of a model and of its base were not measured alike ({reason}); "
            "a difference needs the same metric on the same items; evaluate both again"
        )
    delta = model.value - base.value
    low, high = _bootstrap_interval(model, base, samples, seed)
    p_value, test = None, "untested"
    if model.is_testable and base.is_testable:
        p_value, test = _randomization(model, base, delta, samples, seed)
    return Difference(delta, low, high, p_value, f"paired_bootstrap{samples},{test},seed{seed}")


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family of tests, adjusted so that one below 0.05 is false in 5 % of families at most.

    Paper: Holm 1979, step-down Bonferroni.
    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def comparable(signature_a: str, signature_b: str) -> str:
    """Why two scores must not be compared: the first part in which their signatures differ, else "".

    Example:
        >>> comparable("metric:bleu|tok:13a|interval:95%,seed1", "metric:bleu|tok:zh|interval:95%,seed2")
        "tok: '13a' and 'zh'"
        >>> comparable("metric:f1|interval:95%,seed1", "metric:f1|interval:95%,seed2")
        ''
    """
    parts_a, parts_b = _parts(signature_a), _parts(signature_b)
    for key in itertools.chain(parts_a, parts_b):
        if parts_a.get(key) != parts_b.get(key) and key not in _OF_THE_INTERVAL:
            shown = (f"'{parts[key]}'" if key in parts else "none" for parts in (parts_a, parts_b))
            return f"{key}: {' and '.join(shown)}"
    return ""


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of the scores of several prompts or seeds.

    Raises: DataError for no values.
    Example:
        >>> of_prompts = spread([40.0, 44.0, 45.0])
        >>> of_prompts.mean, round(of_prompts.standard_deviation, 3), round(of_prompts.low, 1)
        (43.0, 2.646, 36.4)
    """
    n = len(values)
    if not n:
        raise DataError("eval: the spread of no scores was asked for; one or more are needed; leave it out")
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(mean, None, 1, None, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + _CONFIDENCE) / 2)) * deviation / math.sqrt(n)
    return Spread(mean, deviation, n, mean - half, mean + half)


def correlation(x: Sequence[float], y: Sequence[float]) -> Correlation:
    """How two series go together, such as what was gained in seen and in unseen languages.

    Raises: DataError where they differ in length.
    Same as: scipy.stats.pearsonr with its confidence_interval, and spearmanr.
    """
    if len(x) != len(y):
        raise DataError(
            f"eval: series of {len(x)} and {len(y)} numbers were to be correlated; "
            "each number needs its partner; leave out those that have none"
        )
    n = len(x)
    pearson = _pearson(np.asarray(x, np.float64), np.asarray(y, np.float64))
    spearman = None if pearson is None else _pearson(_ranks(x), _ranks(y))
    if pearson is None or n < 4:
        return Correlation(pearson, spearman, n, None, None)
    if abs(pearson) == 1:
        return Correlation(pearson, spearman, n, pearson, pearson)
    half = float(ndtri((1 + _CONFIDENCE) / 2)) / math.sqrt(n - 3)
    low, high = (math.tanh(math.atanh(pearson) + side * half) for side in (-1, 1))
    return Correlation(pearson, spearman, n, low, high)


def _bootstrap_interval(model: Measured, base: Measured, samples: int, seed: int) -> tuple[float, float]:
    items = len(model.statistics)
    rng = np.random.default_rng([seed, items])
    deltas = []
    for rows in _blocks(samples, items):
        drawn = rng.integers(items, size=(rows, items)) + items * np.arange(rows)[:, None]
        times_drawn = np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items)
        times_drawn = times_drawn.astype(np.float64)
        sums = zip(times_drawn @ model.statistics, times_drawn @ base.statistics, strict=True)
        deltas += [model.of_sums(mine) - base.of_sums(theirs) for mine, theirs in sums]
    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(deltas, [tail, 100 - tail])
    return float(low), float(high)


def _randomization(
    model: Measured, base: Measured, delta: float, samples: int, seed: int
) -> tuple[float, str]:
    """The p-value and how it was come by. Items that do not differ may change places without effect."""
    gain = (base.statistics - model.statistics).astype(np.float64)
    gain = gain[gain.any(axis=1)]
    items = len(gain)
    is_exact = items <= EXACT_ITEMS
    rng = np.random.default_rng([seed, items])
    total = model.statistics.sum(axis=0), base.statistics.sum(axis=0)
    as_large = trials = 0
    for exchanged in _all_exchanges(items) if is_exact else _random_exchanges(samples, items, rng):
        moved = exchanged.astype(np.float64) @ gain
        for mine, theirs in zip(total[0] + moved, total[1] - moved, strict=True):
            as_large += abs(model.of_sums(mine) - base.of_sums(theirs)) >= abs(delta) - _TOLERANCE
        trials += len(exchanged)
    if is_exact:
        return as_large / trials, f"exchanges{trials}"
    return (as_large + 1) / (trials + 1), f"randomization{trials}"


def _all_exchanges(items: int) -> Iterator[np.ndarray]:
    """Every way to exchange items but the last, which stays: the other half only mirrors the difference."""
    yield np.arange(1 << max(items - 1, 0))[:, None] >> np.arange(items) & 1


def _random_exchanges(samples: int, items: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for rows in _blocks(samples, items):
        bits = np.frombuffer(rng.bytes(rows * math.ceil(items / 8)), np.uint8)
        yield np.unpackbits(bits.reshape(rows, -1), axis=1, count=items)


def _blocks(samples: int, items: int) -> Iterator[int]:
    """Numbers of resamples that are drawn at once; together they are `samples`."""
    most = max(1, _CELLS // items)
    for start in range(0, samples, most):
        yield min(most, samples - start)


def _parts(signature: str) -> dict[str, str]:
    """The parts of a signature by key; of a key that is there twice, both."""
    parts: dict[str, str] = {}
    for part in signature.split("|"):
        key, _, value = part.partition(":")
        parts[key] = f"{parts[key]}|{value}" if key in parts else value
    return parts


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    value = (x / np.linalg.norm(x)) @ (y / np.linalg.norm(y))
    return float(np.clip(value, -1, 1))


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
