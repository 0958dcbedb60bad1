"""Intervals: what a law would have been had the noise fallen otherwise.

Scores are made anew from the law and its own residuals, drawn with replacement, and the law is fitted to
them again. Residuals are enlarged for the unknowns that were fitted, and in each draw by the doubt about
their size (the root of freedom over a chi-square), so that in a linear law the intervals are those of
Student's t. Which of the laws is true, and scores that err together, are not in them.
"""

from typing import Any

import numpy as np
from scipy.special import stdtrit

from jaxlingua.analysis.scaling.fit import Fit, refit
from jaxlingua.analysis.scaling.laws import Fitted

DRAWS = 500
LEVEL = 0.9  # of an interval
NOISES = 41  # at which the noise of a new score is taken, equally likely ones


def with_draws(found: Fit, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Fitted]:
    """The law of each language, with what the bootstrap says of it.

    Cost: some 0.1 seconds for 500 draws of 40 scores and 5 unknowns.
    """
    rng = np.random.default_rng([seed, len(found.residuals)])
    residuals = found.residuals - found.residuals.mean()
    enlarged = residuals * np.sqrt(len(residuals) / found.freedom)
    noise = rng.choice(enlarged, (draws, len(residuals)))
    noise *= np.sqrt(found.freedom / rng.chisquare(found.freedom, (draws, 1)))
    unknowns = refit(found, found.points.score - found.residuals + noise)
    of = {}
    for place, code in enumerate(found.points.languages):
        pairs = found.points.pairs[found.points.language == place]
        of[code] = Fitted(
            language=code,
            law=found.form.law,
            parameters=found.form.parameters(found.unknowns, place),
            draws=found.form.parameters(unknowns, place),
            similarity=float(found.points.similarity[place]),
            smallest_pairs=int(pairs.min()),
            largest_pairs=int(pairs.max()),
            residual_sd=found.residual_sd,
            freedom=found.freedom,
        )
    return of


def interval(draws: np.ndarray) -> tuple[Any, Any]:
    """Between what 90 % of draws [draws, …] lie; each end is one of them, so that it may be infinite."""
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0, method="closest_observation")
    return low, high


def new_score_interval(one: Fitted, pairs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Between what a new score lies with 90 %: the doubt about the law, and the noise of one run."""
    noise = stdtrit(one.freedom, (np.arange(NOISES) + 0.5) / NOISES) * one.residual_sd
    draws = one.draws_at(pairs)
    return interval((draws[None] + noise.reshape(-1, *[1] * draws.ndim)).reshape(-1, *draws.shape[1:]))
