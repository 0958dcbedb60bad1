"""How sure a change of a share is, for shares of which resamples of the items say nothing."""

import math
from typing import NamedTuple

_Z = 1.959963984540054  # of 97.5 %


class Share(NamedTuple):
    """So many of so many items, one at least."""

    found: float
    items: int

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self.found / self.items


def wilson(share: Share) -> tuple[float, float]:
    """95 % interval of a share.

    Paper: Wilson 1927. Same as: scipy.stats.binomtest(...).proportion_ci(method="wilson").
    """
    found, items = share
    center = (found + _Z**2 / 2) / (items + _Z**2)
    half = _Z / (items + _Z**2) * math.sqrt(found * (items - found) / items + _Z**2 / 4)
    return (0.0 if found == 0 else center - half), (1.0 if found == items else center + half)


def newcombe(share: Share, base: Share, correlation: float = 0.0) -> tuple[float, float]:
    """95 % interval of a share minus that of the base, from Wilson's interval of each.

    Its width is above 0 where resamples are all alike, as they are where both shares are 0 or 1.

    Args:
        correlation: of both shares; 0 of different items, and of the same items where a share is 0 or 1.
    Paper: Newcombe 1998, Statistics in Medicine 17:873, method 10.
    Same as: statsmodels' confint_proportions_2indep(..., method="newcomb"), without correlation.
    Example:
        >>> [round(bound, 4) for bound in newcombe(Share(10, 10), Share(0, 20))]
        [0.6791, 1.0]
    """
    (low, high), (base_low, base_high) = wilson(share), wilson(base)
    change = share.value - base.value
    return (
        change - _added(share.value - low, base_high - base.value, correlation),
        change + _added(high - share.value, base.value - base_low, correlation),
    )


def newcombe_paired(both: int, alone: int, base_alone: int, neither: int) -> tuple[float, float]:
    """95 % interval of a share minus that of the base on the same items, of which each has it or not.

    Args:
        both: items that have it in both.
        alone: that have it here and not in the base.
        base_alone: that have it in the base alone.
    Paper: Newcombe 1998, Statistics in Medicine 17:2635, method 10.
    Example:
        >>> [round(bound, 3) for bound in newcombe_paired(14, 5, 0, 22)]
        [0.011, 0.226]
    """
    items = both + alone + base_alone + neither
    here, there = both + alone, both + base_alone
    product = here * (items - here) * there * (items - there)
    above = float(both * neither - alone * base_alone)
    if above > 0:
        above = max(above - items / 2, 0.0)  # the correction for continuity
    correlation = above / math.sqrt(product) if product else 0.0
    return newcombe(Share(here, items), Share(there, items), correlation)


def _added(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))
