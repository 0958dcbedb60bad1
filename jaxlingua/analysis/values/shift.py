"""How far classes lie apart, and whether training moved a language's values more than it moved the rest."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxlingua.analysis.alignment.measures import Interval, interval, resamples


class Shift(NamedTuple):
    """Of one language and set of questions.

    Attributes:
        told: squared distance of the two class means, with its interval.
        noise: 95th percentile of the same where which model gave an answer is drawn by lot.
        draws: of resamples, the first the questions as they are.
        questions: that both models answered.
    """

    told: Interval
    noise: float
    draws: Float[np.ndarray, " draws"]
    questions: int


def question_means(
    vectors: Float[np.ndarray, "answers embed"], questions: Int[np.ndarray, " answers"], asked: list[int]
) -> Float[np.ndarray, "questions embed"]:
    """Mean vector of the answers to each question of `asked`, all of which have one."""
    return np.stack([vectors[questions == each].mean(axis=0, dtype=np.float64) for each in asked])


def shift_of(
    before: Float[np.ndarray, "questions embed"],
    after: Float[np.ndarray, "questions embed"],
    *,
    samples: int,
    seed: int,
) -> Shift:
    """Squared distance between the means of both, around 0 where nothing but chance tells them apart.

    The plain distance of two means is above 0 whatever they are, and more so of fewer questions. Here it is
    the mean inner product of the differences at two different questions, whose expectation is the squared
    distance itself; it may be a little below 0. A question that is drawn twice is not set against itself.

    Args:
        before, after: mean vectors of the answers to the same questions; of unit vectors it is at most 4.
    Cost: samples × questions × embed multiplications.
    """
    change = after.astype(np.float64) - before
    draws = _squared(change, resamples(len(change), samples, seed))
    signs = np.random.default_rng([seed, len(change), 1]).choice([-1.0, 1.0], size=(samples, len(change)))
    noise = float(np.percentile(_squared(change, signs), 95)) if len(change) > 1 else np.nan
    return Shift(interval(draws), noise, draws, len(change))


def _squared(
    change: Float[np.ndarray, "questions embed"], weights: Float[np.ndarray, "draws questions"]
) -> Float[np.ndarray, " draws"]:
    """Weighted mean of the inner products of changes at different questions; NaN of one question alone."""
    own = (change**2).sum(axis=1)
    total = ((weights @ change) ** 2).sum(axis=1) - weights**2 @ own
    size = np.abs(weights)
    pairs = size.sum(axis=1) ** 2 - (size**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, total / pairs, np.nan)


def more_than(one: Shift, control: Shift) -> Interval:
    """How much more one moved than a control; their questions are different ones, and so are resamples."""
    return interval(one.draws - control.draws[np.r_[0, len(control.draws) - 1 : 0 : -1]])


def class_cosines(
    vectors: Float[np.ndarray, "answers embed"], labels: Int[np.ndarray, " answers"], classes: int
) -> Float[np.ndarray, "classes classes"]:
    """Cosine of the class means; NaN of a class without answers."""
    means = np.stack(
        [
            vectors[labels == one].mean(axis=0, dtype=np.float64)
            if (labels == one).any()
            else np.full(vectors.shape[1], np.nan)
            for one in range(classes)
        ]
    )
    norms = np.linalg.norm(means, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return means @ means.T / np.outer(norms, norms)


def plane_of(
    vectors: Float[np.ndarray, "answers embed"],
) -> tuple[Float[np.ndarray, " embed"], Float[np.ndarray, "embed 2"], list[float]]:
    """Mean, first two principal directions, and which share of the variance each has.

    The largest coordinate of a direction is positive.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    centered = vectors - mean
    values, directions = np.linalg.eigh(centered.T @ centered)
    values, directions = np.maximum(values[::-1], 0), directions[:, ::-1][:, :2]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), [0, 1]])
    total = float(values.sum())
    shares = [float(value) / total if total > 0 else 0.0 for value in values[:2]]
    return mean, directions * np.where(signs, signs, 1), shares
