"""A law fitted to the scores of all languages at once, by robust least squares.

Inside, scores are standardized, sizes are logarithms of g·n about their mean, and the unknowns are a level
for each language, the amplitudes, and the law's shape: nothing, the exponent, or middle and width. Of the
power law the amplitude stands for the slope in the middle of the sizes, so that a small exponent, near the
log-linear law, is no special case.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit

from jaxlingua.analysis.scaling.laws import PARAMETERS, family

EXPONENTS = (0.01, 2.0)
WIDTHS = (0.1, 10.0)  # in e-foldings of pairs
BEND = 2.5  # in standard deviations of the noise: the residual beyond which a score weighs less
FIRST_BEND = 0.05  # where the noise is not known yet, in standard deviations of the scores
FIRST_STEPS = 60  # from each start, after which only the best goes on
STEPS = 500  # at most; few draws need more than 60
PRECISION = 1e-10
EVALUATIONS = 1000  # at most, from there on
AT_ONCE = 2_000_000  # derivatives that are held in memory
UNDETERMINED = 1e-7  # smallest singular value over the largest, columns scaled, at which a law is refused


@dataclass(frozen=True)
class Points:
    """Scores to fit: a score each of `language` (place in `languages`), `pairs` and `score`."""

    languages: tuple[str, ...]
    similarity: np.ndarray  # [languages]
    language: np.ndarray  # [points]
    pairs: np.ndarray  # [points]
    score: np.ndarray  # [points]

    def only(self, kept: np.ndarray) -> "Points":
        """Those points that a mask keeps; of all languages still."""
        return replace(self, language=self.language[kept], pairs=self.pairs[kept], score=self.score[kept])

    @cached_property
    def log_effective(self) -> np.ndarray:
        """log(g·n): [points]."""
        return np.log(self.pairs * self.similarity[self.language])

    def means(self) -> np.ndarray:
        """The mean score of each point's language: [points]."""
        return (np.bincount(self.language, self.score) / np.bincount(self.language))[self.language]

    def largest(self) -> np.ndarray:
        """Which points are of their language's largest size: [points]."""
        most = np.array([self.pairs[self.language == place].max() for place in range(len(self.languages))])
        return self.pairs == most[self.language]


class NotDetermined(Exception):
    """A law that cannot be told from these scores; says why."""


@dataclass(frozen=True)
class Form:
    """A law in the unknowns that are fitted: levels [languages], amplitudes [1 or languages], shape.

    Attributes:
        steps: log(g·n) about its mean: [points].
        center, level, scale: what was taken off sizes and scores, and what scores were divided by.
    """

    law: str
    languages: int
    language: np.ndarray
    steps: np.ndarray
    center: float
    level: float
    scale: float

    @staticmethod
    def of(law: str, points: Points) -> "Form":
        center, level = float(points.log_effective.mean()), float(points.score.mean())
        steps = points.log_effective - center
        scale = math.sqrt(float(np.mean((points.score - points.means()) ** 2)))
        return Form(law, len(points.languages), points.language, steps, center, level, scale)

    @property
    def amplitudes(self) -> int:
        return self.languages if self.law.endswith("_free") else 1

    @property
    def unknowns(self) -> int:
        return self.languages + self.amplitudes + len(PARAMETERS[family(self.law)]) - 2

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Between what each unknown may lie; a sigmoid's middle at most two spans of the sizes below them."""
        low, high = np.full(self.unknowns, -np.inf), np.full(self.unknowns, np.inf)
        if family(self.law) == "power":
            low[-1], high[-1] = EXPONENTS
        if family(self.law) == "sigmoid":
            span = np.ptp(self.steps)
            low[-2:], high[-2:] = (self.steps.min() - 2 * span, WIDTHS[0]), (self.steps.max(), WIDTHS[1])
        return low, high

    def starts(self, target: np.ndarray) -> np.ndarray:
        """Unknowns to begin from, [starts, unknowns]: several shapes, the rest by least squares."""
        low, high = self.limits()
        starts = []
        for shape in self._shapes():
            linear = self.languages + self.amplitudes
            unknowns = np.concatenate([np.zeros(self.languages), np.ones(self.amplitudes), shape])
            columns = self.predict(unknowns)[1][:, :linear]
            unknowns[:linear] = np.linalg.lstsq(columns, target)[0]
            starts.append(np.clip(unknowns, low, high))
        return np.array(starts)

    def _shapes(self) -> list[tuple[float, ...]]:
        if family(self.law) == "power":
            return [(0.05,), (0.3,), (0.8,), (1.6,)]
        if family(self.law) == "sigmoid":
            middles = np.quantile(self.steps, (0.1, 0.5, 0.9))
            return [(float(middle), width) for middle, width in product(middles, (0.4, 2.0))]
        return [()]

    def at_limit(self, unknowns: np.ndarray) -> dict[str, float]:
        """Of the shape, parameters that lie at a limit, and their values there."""
        low, high = self.limits()
        names = PARAMETERS[family(self.law)][2:]
        last = unknowns[len(unknowns) - len(names) :]
        is_at = np.isclose(unknowns, low, 1e-3, 1e-3) | np.isclose(unknowns, high, 1e-3, 1e-3)
        told = self.parameters(unknowns, 0)[2:]
        return {
            name: float(value)
            for name, value, at in zip(names, told, is_at[len(unknowns) - len(last) :], strict=True)
            if at
        }

    def basis(self, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the amplitude multiplies [..., points], and its derivatives [..., shape, points]."""
        steps, shape = self.steps, np.asarray(shape)[..., None]  # ... shape 1
        if family(self.law) == "log_linear":
            lead = shape.shape[:-2]
            return np.broadcast_to(steps, (*lead, len(steps))), np.empty((*lead, 0, len(steps)))
        if family(self.law) == "power":
            b = shape[..., 0, :]
            value = -np.expm1(-b * steps) / b
            return value, ((steps * np.exp(-b * steps) - value) / b)[..., None, :]
        middle, width = shape[..., 0, :], shape[..., 1, :]
        away = (steps - middle) / width
        rise = expit(away) * expit(-away) / width
        return expit(away), np.stack([-rise, -rise * away], axis=-2)

    def predict(self, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Standardized scores [..., points] and their derivatives [..., points, unknowns]."""
        value, by_shape = self.basis(unknowns[..., self.languages + self.amplitudes :])
        whose = self.language if self.amplitudes > 1 else np.zeros_like(self.language)
        amplitude = unknowns[..., self.languages + whose]
        levels = np.broadcast_to(np.eye(self.languages)[self.language], (*value.shape, self.languages))
        sizes = np.eye(self.amplitudes)[whose] * value[..., None]
        shapes = np.moveaxis(by_shape * amplitude[..., None, :], -2, -1)
        derivatives = np.concatenate([levels, sizes, shapes], axis=-1)
        return unknowns[..., self.language] + amplitude * value, derivatives

    def parameters(self, unknowns: np.ndarray, place: int) -> np.ndarray:
        """The law of a language as users know it: [..., parameters] of unknowns [..., unknowns]."""
        amplitude = self.scale * unknowns[..., self.languages + (place if self.amplitudes > 1 else 0)]
        level = self.level + self.scale * unknowns[..., place]
        if family(self.law) == "log_linear":
            return np.stack([level - amplitude * self.center, amplitude], axis=-1)
        if family(self.law) == "power":
            b = unknowns[..., -1]
            return np.stack([level + amplitude / b, amplitude / b * np.exp(b * self.center), b], axis=-1)
        middle, width = unknowns[..., -2], unknowns[..., -1]
        return np.stack([level, amplitude, np.exp(middle + self.center), width], axis=-1)


@dataclass(frozen=True)
class Fit:
    """A law that was fitted to points.

    Attributes:
        unknowns: as `Form` has them.
        residuals: score less law, of each point.
        bend: residual from which on a point weighs less, standardized.
    """

    form: Form
    points: Points
    unknowns: np.ndarray
    residuals: np.ndarray
    bend: float

    @property
    def freedom(self) -> int:
        return len(self.residuals) - len(self.unknowns)

    @property
    def residual_sd(self) -> float:
        return math.sqrt(float((self.residuals**2).sum()) / self.freedom)

    def at(self, points: Points) -> np.ndarray:
        """What the law says of other points of the same languages."""
        form = replace(self.form, language=points.language, steps=points.log_effective - self.form.center)
        return form.level + form.scale * form.predict(self.unknowns)[0]

    @property
    def r_squared(self) -> float:
        """Of the variation about each language's mean, the share that the law explains."""
        total = float(((self.points.score - self.points.means()) ** 2).sum())
        return 1 - float((self.residuals**2).sum()) / total if total else 0.0

    @property
    def aicc(self) -> float:
        """Akaike's criterion, corrected for few points; the noise counts as an unknown. Less is better.

        inf where there are too few points for the correction. Paper: Hurvich and Tsai 1989.
        """
        points, unknowns = len(self.residuals), len(self.unknowns) + 1
        if points - unknowns - 1 <= 0:
            return math.inf
        squares = max(float((self.residuals**2).sum()), np.finfo(float).tiny)
        return points * math.log(squares / points) + 2 * unknowns * points / (points - unknowns - 1)


def fit(law: str, points: Points) -> Fit:
    """The law of least soft-L1 cost, of several starts.

    Raises: NotDetermined where the scores cannot tell its unknowns, or no least cost is come to.
    """
    form = Form.of(law, points)
    if len(points.score) <= form.unknowns:
        raise NotDetermined(f"{len(points.score)} scores for {form.unknowns} unknowns")
    if form.scale == 0:
        raise NotDetermined("the scores of each language are equal")
    target = (points.score - form.level) / form.scale
    low, high = form.limits()

    # First nearly the least absolute error, which no outlier moves far; its residuals tell the noise.
    starts = form.starts(target)
    starts, costs = descend(
        form, starts, np.broadcast_to(target, (len(starts), len(target))), FIRST_BEND, FIRST_STEPS
    )
    start = starts[costs.argmin()]
    enlarged = math.sqrt(len(target) / (len(target) - form.unknowns))
    spread = 1.4826 * float(np.median(np.abs(form.predict(start)[0] - target))) * enlarged
    bend = max(BEND * spread, 1e-6)
    start = descend(form, start[None], target[None], bend)[0][0]
    best = least_squares(
        lambda unknowns: form.predict(unknowns)[0] - target,
        np.clip(start, np.nextafter(low, np.inf), np.nextafter(high, -np.inf)),
        lambda unknowns: form.predict(unknowns)[1],
        bounds=(low, high),
        loss="soft_l1",
        f_scale=bend,
        x_scale="jac",
        xtol=PRECISION,
        ftol=PRECISION,
        gtol=PRECISION,
        max_nfev=EVALUATIONS,
    )
    if best.status == 0 or not np.isfinite(best.x).all():
        worst = int(points.language[np.abs(best.fun).argmax()])
        raise NotDetermined(f"it does not converge; scores of {points.languages[worst]} are farthest off")
    derivatives = form.predict(best.x)[1]
    lengths = np.linalg.norm(derivatives, axis=0)
    singular = np.linalg.svd(derivatives / np.where(lengths > 0, lengths, 1.0), compute_uv=False)
    if lengths.min() <= 0 or singular[-1] < UNDETERMINED * singular[0]:
        raise NotDetermined("several sets of parameters fit these scores alike")
    return Fit(form, points, best.x, -best.fun * form.scale, bend)


def refit(found: Fit, scores: np.ndarray) -> np.ndarray:
    """The same law fitted to other scores of the same points, many at once: unknowns [draws, unknowns].

    Same as: `scipy.optimize.least_squares` for each draw, which takes a hundred times longer.

    Args:
        scores: [draws, points].
    """
    together = max(1, AT_ONCE // (len(found.residuals) * len(found.unknowns)))
    parts = []
    for first in range(0, len(scores), together):
        targets = (scores[first : first + together] - found.form.level) / found.form.scale
        start = np.broadcast_to(found.unknowns, (len(targets), len(found.unknowns)))
        parts.append(descend(found.form, start, targets, found.bend)[0])
    return np.concatenate(parts)


def descend(
    form: Form, start: np.ndarray, targets: np.ndarray, bend: float, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Unknowns of least soft-L1 cost near each start [starts, unknowns], and the costs [starts].

    Levenberg and Marquardt's steps with the weights of soft-L1; an unknown that a step would take out of its
    limits stays there for this step.

    Args:
        targets: standardized scores of each start: [starts, points].
    """
    low, high = form.limits()
    at = start.copy()
    damping = np.full(len(targets), 1e-3)

    def cost(unknowns: np.ndarray, of: np.ndarray) -> np.ndarray:
        away = (form.predict(unknowns)[0] - of) / bend
        return (np.sqrt(1 + away**2) - 1).sum(-1)

    costs = cost(at, targets)
    going = np.arange(len(targets))
    for _ in range(steps):
        here, of = at[going], targets[going]
        predicted, derivatives = form.predict(here)
        away = predicted - of
        weights = 1 / np.sqrt(1 + (away / bend) ** 2)
        gradient = np.einsum("dpu,dp->du", derivatives, weights * away)
        is_held = ((here <= low) & (gradient > 0)) | ((here >= high) & (gradient < 0))
        derivatives = np.where(is_held[:, None], 0.0, derivatives)
        squares = np.einsum("dpu,dp,dpv->duv", derivatives, weights, derivatives, optimize=True)
        diagonal = np.einsum("duu->du", squares)
        diagonal += damping[going, None] * diagonal + 1e-12
        step = np.linalg.solve(squares, np.where(is_held, 0.0, gradient)[..., None])[..., 0]
        there = np.clip(here - step, low, high)
        reached = cost(there, of)
        is_better = reached <= costs[going]
        gain = costs[going] - reached
        at[going[is_better]], costs[going[is_better]] = there[is_better], reached[is_better]
        damping[going] = np.where(is_better, damping[going] / 5, damping[going] * 5)
        is_done = is_better & (gain <= 1e-10 * (costs[going] + 1e-10)) | (damping[going] > 1e12)
        going = going[~is_done]
        if not len(going):
            break
    return at, costs
