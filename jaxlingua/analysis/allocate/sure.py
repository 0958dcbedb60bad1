"""How sure a split is the better one: the same question asked of every draw of the laws."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxlingua.analysis.allocate.problem import Problem
from jaxlingua.analysis.allocate.sums import sizes_between

SURE = 0.9  # of the draws; below, a difference may be chance
LEVELS = (5, 95)  # percentiles of a 90 % interval

_ALIKE = 1e-12  # relative; what is this close differs by rounding
_REGRET_DRAWS = 64
_REGRET_SIZES = 40
_NEAR = 4  # times more or fewer pairs than ours, between which a table has as many sizes again


@dataclass(frozen=True)
class Comparison:
    """The best split against another one.

    Attributes:
        pairs: [languages], of the other one.
        value: of the other one, in the metric's own direction.
        better_by: of the objective, positive where the best split is better; `low` and `high` are its 90 %
            interval over draws of the laws.
        better_in: share of the draws in which the best split is better.
        is_same: whether both splits are the same.
    """

    name: str
    pairs: np.ndarray
    value: float
    better_by: float
    low: float
    high: float
    better_in: float
    is_same: bool


@dataclass(frozen=True)
class Regret:
    """By how much the best split of a draw of the laws is better than ours, if that draw were the truth."""

    median: float
    high: float
    draws: int


def compare(problem: Problem, pairs: np.ndarray, others: Mapping[str, np.ndarray]) -> list[Comparison]:
    """The split `pairs` against others, in all draws of the laws."""
    splits = np.array([pairs, *others.values()])  # splits languages
    in_draws = problem.value(gains_of_draws(problem, splits))  # draws splits
    told = [float(problem.value(problem.gains_at(split))) for split in splits]
    comparisons = []
    for place, (name, other) in enumerate(others.items(), start=1):
        differences = in_draws[:, 0] - in_draws[:, place]
        low, high = np.percentile(differences, LEVELS)
        comparisons.append(
            Comparison(
                name=name,
                pairs=other,
                value=problem.sign * told[place],
                better_by=told[0] - told[place],
                low=float(low),
                high=float(high),
                better_in=float((differences > _ALIKE * max(1.0, abs(told[0]))).mean()),
                is_same=bool((other == pairs).all()),
            )
        )
    return comparisons


def gains_of_draws(problem: Problem, splits: np.ndarray) -> np.ndarray:
    """Predicted scores of splits [splits, languages] in each draw: [draws, splits, languages]."""
    gains = [one.draws_at(splits[:, index]) for index, one in enumerate(problem.fitted)]
    return problem.sign * np.stack(gains, axis=-1)


def regret(problem: Problem, pairs: np.ndarray) -> Regret:
    """What the split `pairs` would lose if a draw of the laws were the truth.

    The best split of a draw is that of concave envelopes of a table of up to 81 sizes per language, a line
    between each two, which for laws that bend up at first promises more than there may be.

    Cost: 0.2 s for 100 languages.
    """
    count = len(problem.fitted[0].draws)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _REGRET_DRAWS)).astype(int))
    sizes, gains = [], []
    for index, one in enumerate(problem.fitted):
        least, most, ours = int(problem.least[index]), int(problem.most[index]), int(pairs[index])
        near = sizes_between(max(least, ours // _NEAR), min(most, ours * _NEAR), _REGRET_SIZES)
        table = np.unique(np.concatenate([sizes_between(least, most, _REGRET_SIZES), near, [ours]]))
        table = np.pad(table, (0, 2 * _REGRET_SIZES + 1 - len(table)), mode="edge")
        sizes.append(table)
        gains.append(problem.sign * one.draws_at(table)[chosen])
    table, of_draws = np.array(sizes), np.stack(gains, axis=1)  # languages sizes; draws languages sizes
    best = _best_minima(problem, table, of_draws) if problem.objective == "minimum" else None
    best = _best_sums(problem, table, of_draws) if best is None else best
    ours = problem.value(gains_of_draws(problem, pairs[None])[chosen, 0])
    lost = np.maximum(best - ours, 0.0)
    return Regret(float(np.median(lost)), float(np.percentile(lost, LEVELS[1])), len(chosen))


def _best_sums(problem: Problem, table: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The relaxed problem's value for each draw, by bisection on the price of a unit: [draws]."""
    worth, cost = problem.weights[:, None] * gains, problem.cost[:, None] * table.astype(float)
    steepest = np.maximum(np.diff(worth) / np.maximum(np.diff(cost), 1e-300) * (np.diff(cost) > 0), 0.0)
    low, high = np.zeros(len(gains)), steepest.max(axis=(1, 2)) + 1e-300
    best = np.full(len(gains), np.inf)
    for _ in range(30):
        price = np.where(low > high * 1e-9, np.sqrt(low * high), high * 1e-3)
        net = worth - price[:, None, None] * cost
        places = net.argmax(axis=-1)  # draws languages
        value = np.take_along_axis(net, places[..., None], -1)[..., 0].sum(-1) + price * problem.budget
        best = np.minimum(best, value)
        spent = np.take_along_axis(np.broadcast_to(cost, net.shape), places[..., None], -1)[..., 0].sum(-1)
        is_over = spent > problem.budget
        low, high = np.where(is_over, price, low), np.where(is_over, high, price)
    return np.minimum(best, worth.max(axis=-1).sum(axis=-1))


def _best_minima(problem: Problem, table: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The greatest level that the budget allows in each draw, by bisection: [draws]."""
    rising = np.maximum.accumulate(gains, axis=-1)
    sizes = np.broadcast_to(table.astype(float), gains.shape)
    reached = rising[..., -1]
    low, high = rising[..., 0].min(axis=-1), reached.min(axis=-1)
    for _ in range(40):
        level = (low + high) / 2
        after = (rising < level[:, None, None]).sum(axis=-1)  # draws languages
        after = np.minimum(after, gains.shape[-1] - 1)[..., None]
        before = np.maximum(after - 1, 0)
        y0, y1, x0, x1 = (
            np.take_along_axis(of, at, -1)[..., 0] for of in (rising, sizes) for at in (before, after)
        )
        share = np.clip((level[:, None] - y0) / np.where(y1 > y0, y1 - y0, 1.0), 0.0, 1.0)
        is_within = (x0 + share * (x1 - x0)) @ problem.cost <= problem.budget
        low, high = np.where(is_within, level, low), np.where(is_within, high, level)
    return low
