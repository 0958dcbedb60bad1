"""What is to be divided: laws, budget, costs and limits, checked and in whole units."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from jaxlingua.analysis.scaling.laws import Fitted, Laws, family
from jaxlingua.errors import ConfigError, DataError, nearest

Objective = Literal["mean", "minimum", "weighted"]

_DECIMALS = 6  # of a cost
_MOST_UNITS = 10**17  # of a budget, so that sums stay exact in 64 bits


@dataclass(frozen=True)
class Problem:
    """A budget that is to be divided over languages.

    Costs and budget are whole numbers of a unit, of which `units` make 1 of what was given, so that whether
    a split is within the budget is a question without rounding.

    Attributes:
        laws: of these languages alone, in this order.
        weights: [languages], adding up to 1; equal ones where the mean is asked for.
        cost: [languages], units per pair.
        least, most: [languages], pairs; `most` is at most what the budget buys beside the others' least.
        available: [languages], pairs; inf where nothing was said.
        left_out: languages of which nothing is available.
        is_unlimited: whether the budget is what all that is available costs.
    """

    laws: Laws
    objective: Objective
    weights: np.ndarray
    cost: np.ndarray
    budget: int
    units: int
    least: np.ndarray
    most: np.ndarray
    available: np.ndarray
    left_out: tuple[str, ...] = ()
    is_unlimited: bool = False

    @property
    def languages(self) -> list[str]:
        """Codes, in the order of all arrays."""
        return list(self.laws.of)

    @property
    def fitted(self) -> list[Fitted]:
        """Their laws."""
        return list(self.laws.of.values())

    @property
    def sign(self) -> int:
        """What a score is multiplied with so that more of it is better."""
        return 1 if self.laws.is_higher_better else -1

    def gains(self, index: int, pairs: np.ndarray) -> np.ndarray:
        """Predicted score of one language, higher being better, of the shape of `pairs`.

        Raises: DataError where the law gives no number.
        """
        gains = self.sign * self.fitted[index].at(pairs)
        if not np.isfinite(gains).all():
            raise DataError(
                f"{self.languages[index]}: its law gives no number for {pairs[~np.isfinite(gains)][0]:,.0f} "
                f"pairs; a law with a value from {self.least[index]:,} to {self.most[index]:,} pairs is "
                f"needed; fit it again, or limit the language with --least and --available"
            )
        return gains

    def gains_at(self, pairs: np.ndarray) -> np.ndarray:
        """Predicted scores of a split [languages], higher being better."""
        return np.array([float(self.gains(index, n[None])[0]) for index, n in enumerate(pairs)])

    def value(self, gains: np.ndarray) -> np.ndarray:
        """What is maximized, [...] of gains [..., languages]."""
        return gains.min(axis=-1) if self.objective == "minimum" else gains @ self.weights

    def spent(self, pairs: np.ndarray) -> int:
        """Units that a split costs."""
        return int(self.cost @ pairs)


def make_problem(
    laws: Laws,
    budget: Fraction | float,
    *,
    objective: Objective = "mean",
    weights: Mapping[str, float] = {},
    available: Mapping[str, int] = {},
    cost: Mapping[str, Fraction] = {},
    least: Mapping[str, int] = {},
) -> Problem:
    """The problem that a command line describes.

    A language of which nothing is available is left out. One whose law has no value at 0 pairs gets 1 at
    least. Where nothing is said, a pair costs 1, a weight is 1, and any number of pairs is available.

    Args:
        budget: in pairs, or in what costs are given in; inf takes all that is available.
    Raises: DataError for laws of a metric of which neither a higher nor a lower value is better; ConfigError
        for what no split can meet, or an unlimited budget without limits.
    """
    if laws.is_higher_better is None:
        raise DataError(
            f"{laws.metric} of {laws.task}: neither a higher nor a lower value of it is better, so that no "
            f"split is best; laws of a metric with a better side are needed; fit those of another --metric"
        )
    for flag, given in (("weights", weights), ("available", available), ("cost", cost), ("least", least)):
        for code in given:
            if code not in laws.of:
                raise ConfigError(f"--{flag}: no law of '{code}'; {nearest(code, list(laws.of))}; see LAWS")
    left_out = tuple(code for code in laws.of if available.get(code) == 0)
    of = {code: one for code, one in laws.of.items() if code not in left_out}
    if not of:
        raise ConfigError("--available: 0 given for every language; 1 or more of one is needed; see LAWS")
    for code in left_out:
        if least.get(code):
            raise ConfigError(
                f"--least: {code}={least[code]:,} given, of which 0 are available; leave it out"
            )
    limits = np.array([available.get(code, math.inf) for code in of])
    units = math.lcm(*(Fraction(cost.get(code, 1)).denominator for code in of))
    if units > 10**_DECIMALS:
        raise ConfigError(f"--cost: {_DECIMALS} decimals are allowed at most; round what a pair costs")
    costs = np.array([int(cost.get(code, 1) * units) for code in of])
    lowest = np.array(
        [max(least.get(code, 0), 0 if family(one.law) == "sigmoid" else 1) for code, one in of.items()]
    )
    for code, low, limit in zip(of, lowest, limits, strict=True):
        if low > limit:
            raise ConfigError(
                f"--least: {code}={low:,} given, of which {limit:,.0f} are available; at most that is "
                f"allowed; lower it"
            )
    total = _budget_in_units(budget, units, costs, limits, of)
    if (needed := sum(map(int, costs * lowest))) > total:
        raise ConfigError(
            f"--budget: {_shown(budget)} given; the least of all languages costs {needed / units:,.10g} "
            f"(1 pair of each language whose law has no value at 0); give that or more"
        )
    spare = (total - needed) // costs + lowest
    most = np.minimum(limits, spare).astype(np.int64)
    return Problem(
        laws=Laws(laws.metric, laws.task, laws.is_higher_better, of, laws.warnings),
        objective=objective,
        weights=_shares(weights, list(of), objective),
        cost=costs.astype(np.int64),
        budget=total,
        units=units,
        least=lowest.astype(np.int64),
        most=most,
        available=limits,
        left_out=left_out,
        is_unlimited=budget == math.inf,
    )


def _budget_in_units(
    budget: Fraction | float, units: int, costs: np.ndarray, limits: np.ndarray, of: Mapping[str, Any]
) -> int:
    """Raises: ConfigError for a budget that is no amount, or unlimited without limits."""
    if not budget > 0:  # also NaN
        raise ConfigError(f"--budget: {_shown(budget)} given; more than 0 is needed; give a number, or inf")
    if budget != math.inf:
        total = math.floor(budget * units)
        if total > _MOST_UNITS:
            raise ConfigError(
                f"--budget: {_shown(budget)} given; {_MOST_UNITS // units:,} or less is allowed; lower it"
            )
        return total
    if without := [code for code, limit in zip(of, limits, strict=True) if math.isinf(limit)]:
        unbound = [code for code in without if math.isinf(of[code].bound)]
        why = (
            f"the law of {unbound[0]} ({of[unbound[0]].law}) grows without bound"
            if unbound
            else f"nothing is said of how much there is of {without[0]}"
        )
        raise ConfigError(
            f"--budget: inf given, and {why}; with inf each language needs a limit; give --available "
            f"{','.join(f'{code}=…' for code in without[:3])}, or a finite budget"
        )
    return int(sum(int(each) * int(limit) for each, limit in zip(costs, limits, strict=True)))


def _shares(weights: Mapping[str, float], languages: list[str], objective: Objective) -> np.ndarray:
    """[languages], adding up to 1."""
    if (objective == "weighted") != bool(weights):
        raise ConfigError(
            "--weights: go with --objective weighted, and it with them; give both or neither, such as "
            f"--objective weighted --weights {languages[0]}=2"
        )
    given = np.array([float(weights.get(code, 1.0)) for code in languages])
    if not given.sum() > 0:
        raise ConfigError("--weights: 0 given for every language; one of more than 0 is needed")
    return given / given.sum()


def _shown(budget: Fraction | float) -> str:
    try:
        return f"{float(budget):,.10g}"
    except OverflowError:
        return "a number of more than 308 digits"
