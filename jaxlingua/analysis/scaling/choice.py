"""Which law: each is fitted, and judged by what it says of the largest size when it has not seen it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlingua.analysis.scaling.doubts import lack_of_fit
from jaxlingua.analysis.scaling.fit import Fit, NotDetermined, Points, fit
from jaxlingua.analysis.scaling.laws import LAWS, family
from jaxlingua.errors import DataError

ALIKE = 2.0  # difference in AICc that tells nothing
SIZES_TO_HOLD_OUT = 3  # that a language must have for its largest one to be held out


@dataclass(frozen=True)
class Candidate:
    """A law and how it fits.

    Attributes:
        fitted: to all scores; None where these cannot tell its unknowns.
        held_out_error: root mean square, over languages, of its error at the largest size when fitted to the
            smaller ones; NaN where that was not possible.
        held_out_noise: by how much noise alone moves that error.
        why_not: why it was not fitted.
    """

    law: str
    fitted: Fit | None
    held_out_error: float = math.nan
    held_out_noise: float = math.nan
    why_not: str = ""

    def told(self) -> dict[str, Any]:
        """For laws.json; what is not known is null."""
        if self.fitted is None:
            return {"law": self.law, "why_not": self.why_not}
        numbers = {
            "unknowns": len(self.fitted.unknowns),
            "r_squared": self.fitted.r_squared,
            "residual_sd": self.fitted.residual_sd,
            "held_out_error": self.held_out_error,
            "aicc": self.fitted.aicc,
            "lack_of_fit_p": math.nan if (tested := lack_of_fit(self.fitted)) is None else tested.p,
        }
        return {
            "law": self.law,
            **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
        }


def candidates(points: Points) -> list[Candidate]:
    """Every law. Raises: DataError where none can be fitted."""
    held_out = np.isin(points.language, _languages_with(points, SIZES_TO_HOLD_OUT)) & points.largest()
    found = []
    for law in LAWS:
        try:
            fitted = fit(law, points)
        except NotDetermined as error:
            found.append(Candidate(law, None, why_not=str(error)))
            continue
        try:
            error = held_out_error(law, points, held_out) if held_out.any() else math.nan
        except NotDetermined:
            error = math.nan
        noise = fitted.residual_sd / math.sqrt(max(int(held_out.sum()), 1))
        found.append(Candidate(law, fitted, error, noise))
    if all(one.fitted is None for one in found):
        raise DataError(
            f"{', '.join(points.languages)}: no law can be fitted; "
            f"{'; '.join(f'{one.law}: {one.why_not}' for one in found)}; add scores at other sizes"
        )
    return found


def held_out_error(law: str, points: Points, held_out: np.ndarray) -> float:
    """How far the law, fitted to the other points, is from the mean of each language's held-out ones."""
    found = fit(law, points.only(~held_out))
    hidden = points.only(held_out)
    counts = np.bincount(hidden.language, minlength=len(points.languages))
    said = found.at(hidden)
    sums = np.bincount(hidden.language, hidden.score - said, minlength=len(counts))
    return math.sqrt(float(np.mean((sums[counts > 0] / counts[counts > 0]) ** 2)))


def choose(found: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The law to use and why.

    With and without an amplitude for each language are told apart by AICc. Of these laws those stay that are
    nearest to the largest size without having seen it, to within the noise of its scores, and of them AICc
    chooses. It alone does where its law could not be fitted without the largest size: of three sizes two are
    left, which are enough for the log-linear law and for no other with an amplitude for each language. Laws
    whose AICc differs by less than 2 are alike, and the one with fewer unknowns is taken.
    """
    fitted = [one for one in found if one.fitted is not None]
    best = _by_aicc(fitted)
    finalists = [
        _by_aicc([one for one in fitted if family(one.law) == name])
        for name in dict.fromkeys(family(one.law) for one in fitted)
    ]
    finalists = [one for one in finalists if math.isfinite(one.held_out_error)]
    if not finalists and not math.isfinite(_aicc(best)):
        return best, "it has the fewest unknowns; no size could be held out, and AICc needs more scores"
    if not finalists:
        return best, "by AICc alone, since no size could be held out"
    if math.isfinite(_aicc(best)) and not math.isfinite(best.held_out_error):
        return best, "by AICc alone, since it cannot be fitted without the largest size"
    nearest = min(finalists, key=lambda one: one.held_out_error)
    reach = nearest.held_out_error + nearest.held_out_noise
    chosen = _by_aicc([one for one in finalists if one.held_out_error <= reach])
    if chosen is not nearest:
        beside = f"is that of {nearest.law} to within the noise"
    elif any(one.held_out_error < chosen.held_out_error for one in fitted):  # one that AICc took out
        beside = f"is smallest of {', '.join(one.law for one in finalists)}"
    else:
        beside = "is smallest"
    return chosen, f"its error at the held-out size {beside}{_beside_aicc(chosen, best)}"


def _beside_aicc(chosen: Candidate, best: Candidate) -> str:
    """What AICc says of the law that was chosen."""
    behind = _aicc(chosen) - _aicc(best)
    if not math.isfinite(_aicc(chosen)):
        return "; AICc needs more scores"
    if chosen is best:
        return ", and AICc takes it too"
    if behind <= ALIKE:
        return f"; AICc finds it and {best.law} alike"
    return f"; AICc would take {best.law}, by {behind:.1f}: the two disagree, so see --law {best.law} too"


def _by_aicc(fitted: Sequence[Candidate]) -> Candidate:
    """Of those alike in AICc, the law with the fewest unknowns."""
    least = min(map(_aicc, fitted))
    alike = [one for one in fitted if _aicc(one) <= least + ALIKE]
    return min(alike, key=lambda one: (len(one.fitted.unknowns), _aicc(one)))


def _aicc(one: Candidate) -> float:
    return one.fitted.aicc if one.fitted is not None else math.inf


def _languages_with(points: Points, sizes: int) -> list[int]:
    counts = [
        len(np.unique(points.pairs[points.language == place])) for place in range(len(points.languages))
    ]
    return [place for place, count in enumerate(counts) if count >= sizes]
