"""Whether a law follows the scores at all: what it leaves of them beside what seeds differ by."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import fdtrc, stdtrit

from jaxlingua.analysis.scaling.fit import Fit, NotDetermined, Points, fit

DOUBTED = 0.05  # probability, below which chance alone is not believed
MANY = 10  # times the residual sd: the error at the held-out size that is told where seeds tell no noise
ENOUGH_FREEDOM = 3  # degrees of freedom of a residual sd that is compared with it


@dataclass(frozen=True)
class Cells:
    """The scores of each language and size, of which several seeds tell the noise.

    Attributes:
        language, pairs, mean, count: of each cell: [cells].
        squares: of what is within the cells.
        freedom: degrees of freedom of `squares`; 0 where no cell has two scores.
    """

    language: np.ndarray
    pairs: np.ndarray
    mean: np.ndarray
    count: np.ndarray
    squares: float
    freedom: int

    @property
    def sd(self) -> float:
        """Standard deviation of a score about its cell's mean."""
        return math.sqrt(self.squares / self.freedom)


def cells_of(points: Points) -> Cells:
    """Scores of the same language and size together."""
    keys = np.stack([points.language, points.pairs])
    (language, pairs), place, count = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    place = place.ravel()
    mean = np.bincount(place, points.score) / count
    squares = float(((points.score - mean[place]) ** 2).sum())
    return Cells(language.astype(int), pairs, mean, count, squares, len(points.score) - len(count))


@dataclass(frozen=True)
class LackOfFit:
    """An F test of what a law leaves of the means of cells against what is within the cells.

    Attributes:
        statistic: mean square of the one over that of the other; inf where seeds do not differ at all.
        freedom: of the one and of the other.
        p: probability of this or more where the law is right and the noise normal and alike in all cells.
        off_by: standard deviation of a score about the law.
        seeds_differ_by: standard deviation of a score about its cell's mean.
    """

    statistic: float
    freedom: tuple[int, int]
    p: float
    off_by: float
    seeds_differ_by: float

    @property
    def is_doubted(self) -> bool:
        return self.p < DOUBTED

    def told(self) -> dict[str, float | list[int] | None]:
        """For laws.json; a statistic that is infinite is null."""
        return {
            "f": self.statistic if math.isfinite(self.statistic) else None,
            "freedom": list(self.freedom),
            "p": self.p,
            "off_by": self.off_by,
            "seeds_differ_by": self.seeds_differ_by,
        }


def lack_of_fit(fitted: Fit) -> LackOfFit | None:
    """Of a law; None where no cell has two scores, or there are no more cells than unknowns.

    The law is not linear and fitted robustly, so that p is near and not exact.
    Paper: Draper and Smith 1998, Applied Regression Analysis, section 2.1.
    """
    cells = cells_of(fitted.points)
    freedom = (len(cells.count) - len(fitted.unknowns), cells.freedom)
    if min(freedom) <= 0:
        return None
    total = float((fitted.residuals**2).sum())
    left = max(total - cells.squares, 0.0)
    if cells.squares > 1e-20 * float((fitted.points.score**2).sum()):  # else it is rounding
        statistic = left / freedom[0] / (cells.squares / freedom[1])
        p = float(fdtrc(*freedom, statistic))
    else:
        is_exact = fitted.residual_sd <= 1e-6 * fitted.form.scale
        statistic, p = (0.0, 1.0) if is_exact else (math.inf, 0.0)
    return LackOfFit(statistic, freedom, p, fitted.residual_sd, cells.sd)


@dataclass(frozen=True)
class Turn:
    """A language whose mean scores go one way and then the other by more than the noise.

    Attributes:
        pairs: where it begins, where it turns, and where it comes to.
        means: the mean scores there.
    """

    language: str
    pairs: tuple[int, int, int]
    means: tuple[float, float, float]


def turns(points: Points) -> Iterator[Turn]:
    """Of each language the greatest turn, where there is one; none where no cell has two scores.

    Both ways must be longer than what Student's t allows for any two sizes of any language (Bonferroni).
    """
    cells = cells_of(points)
    if not cells.freedom:
        return
    compared = sum(math.comb(int(count), 2) for count in np.bincount(cells.language))
    limit = float(stdtrit(cells.freedom, 1 - DOUBTED / 2 / max(compared, 1))) * cells.sd
    for place, code in enumerate(points.languages):
        own = cells.language == place  # by size
        pairs, mean, count = cells.pairs[own], cells.mean[own], cells.count[own]
        greatest, found = 0.0, None
        for three in combinations(range(len(pairs)), 3):
            first, middle, last = three
            there, back = mean[middle] - mean[first], mean[middle] - mean[last]
            is_far = all(
                abs(way) > limit * math.sqrt(1 / count[middle] + 1 / count[end])
                for way, end in ((there, first), (back, last))
            )
            if is_far and there * back > 0 and min(abs(there), abs(back)) > greatest:
                greatest, found = min(abs(there), abs(back)), three
        if found:
            sizes, means = (tuple(values[list(found)].tolist()) for values in (pairs, mean))
            yield Turn(code, tuple(map(int, sizes)), means)


def missed_by(fitted: Fit, held_out_error: float) -> float:
    """The error at the held-out sizes over what the law leaves of the smaller ones; NaN if unknown.

    Told where no cell has two scores, since nothing else tells the noise then.
    """
    points = fitted.points
    try:
        seen = fit(fitted.form.law, points.only(~points.largest()))
    except NotDetermined:
        return math.nan
    if seen.freedom < ENOUGH_FREEDOM or not math.isfinite(held_out_error):
        return math.nan
    return held_out_error / max(seen.residual_sd, 1e-6 * fitted.form.scale)
