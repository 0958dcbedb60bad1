"""The best split of a budget, and the splits that it is set against."""

from dataclasses import dataclass

import numpy as np

from jaxlingua.analysis.allocate.levels import best_minimum
from jaxlingua.analysis.allocate.problem import Problem
from jaxlingua.analysis.allocate.sums import best_sum

TEMPERATURE = 3.3  # that of stages[i].balance_temperature

_FLAT = 1e-9  # of a score, relative where it is above 1


@dataclass(frozen=True)
class Split:
    """Whole pairs of each language.

    Attributes:
        pairs: [languages].
        gap: the best split of all is better by no more than this, in units of the objective.
        is_flat: whether no language gains from more pairs, so that any split is as good and this one is the
            uniform one.
    """

    pairs: np.ndarray
    gap: float = 0.0
    is_flat: bool = False


def best_split(problem: Problem) -> Split:
    """The split with the best mean, weighted sum or minimum of predicted scores."""
    first, last = problem.gains_at(problem.least), problem.gains_at(problem.most)
    counted = (problem.most > problem.least) & ((problem.weights > 0) | (problem.objective == "minimum"))
    if not ((last - first)[counted] > _FLAT * np.maximum(1.0, np.abs(last[counted]))).any():
        falls = ((first - last)[counted] > _FLAT * np.maximum(1.0, np.abs(first[counted]))).any()
        if not falls:
            return Split(by_shares(problem, np.ones(len(problem.cost))), is_flat=True)
    if problem.objective == "minimum":
        return Split(best_minimum(problem))
    best = best_sum(problem)
    return Split(best.pairs, best.gap)


def baselines(problem: Problem) -> dict[str, np.ndarray]:
    """Splits that need no law, by name: [languages] each.

    All spend the budget as far as availability allows and meet the same limits; what a language lacks goes
    to the others in their proportions, as `jaxlingua.tokens.balance` does it for the rows of a stage. The
    proportional split and that by temperature need to know what is available of every language.
    """
    splits = {"uniform": by_shares(problem, np.ones(len(problem.cost)))}
    if np.isfinite(problem.available).all():
        splits["proportional"] = by_shares(problem, problem.available)
        splits[f"temperature {TEMPERATURE}"] = by_shares(problem, problem.available ** (1 / TEMPERATURE))
    return splits


def by_shares(problem: Problem, shares: np.ndarray) -> np.ndarray:
    """Whole pairs in proportion to `shares`, within limits and budget: [languages].

    Same as: jaxlingua.tokens.balance.unimax_shares for equal shares, temperature_shares where no limit binds.
    """
    low, high = 0.0, float((problem.most / shares).max()) + 1.0

    def at(scale: float) -> np.ndarray:
        return np.clip(scale * shares, problem.least, problem.most)

    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if problem.cost @ at(middle) <= problem.budget else (low, middle)
    exact = at(high)  # beyond the budget by less than a pair, so that whole numbers are not rounded away
    pairs = np.floor(exact).astype(np.int64)
    while problem.spent(pairs) > problem.budget:
        pairs[(exact - pairs + (pairs <= problem.least) * 2.0).argmin()] -= 1
    order = np.argsort(pairs - exact, kind="stable")  # the largest remainder first
    while True:
        left = problem.budget - problem.spent(pairs)
        can = order[(pairs[order] < problem.most[order]) & (problem.cost[order] <= left)]
        if not len(can):
            return pairs
        pairs[can[0]] += 1
        order = np.append(order[order != can[0]], can[0])
