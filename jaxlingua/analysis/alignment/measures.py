"""How near the vectors of the same sentence in two languages are: retrieval, cosine gap, CKA; and PCA.

All are told for resamples at once: a row of `weights` [draws, sentences] says how often each sentence
counts, and the first row is the sentences as they are (`resamples`). A sentence that was drawn twice is never
compared with itself, so that resamples are not more alike than the sentences are.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxlingua.analysis.intervals import Share, newcombe, wilson

Draws = Float[np.ndarray, " draws"]
Weights = Float[np.ndarray, "draws sentences"]
Rows = Float[np.ndarray, "sentences embed"]
Square = Float[np.ndarray, "sentences sentences"]

CKA_SENTENCES = 4  # below these the debiased estimate is not defined

_TIE = 1e-12  # of a cosine in float64; those of equal vectors differ by less, in any order of summing


def resamples(sentences: int, samples: int, seed: int) -> Weights:
    """How often each sentence counts: once in the first row, in the others as often as it was drawn.

    The same for all models, layers and pairs of languages, so that their differences are paired.
    """
    rng = np.random.default_rng([seed, sentences])
    drawn = rng.integers(sentences, size=(samples, sentences)) + sentences * np.arange(samples)[:, None]
    times_drawn = np.bincount(drawn.ravel(), minlength=samples * sentences).reshape(samples, sentences)
    return np.concatenate([np.ones((1, sentences)), times_drawn])


def cosines(x: Rows, y: Rows) -> Square:
    """Cosine of each row of x with each of y, in float64; 0 where one of them is zero.

    Same as: sklearn.metrics.pairwise.cosine_similarity.
    """
    return _unit(x) @ _unit(y).T


def _unit(x: Rows) -> Rows:
    x = x.astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)


def retrieved(of: Square) -> Float[np.ndarray, " sentences"]:
    """For each row, the chance that the nearest column is its own where equally near ones are drawn by lot.

    Args:
        of: cosines; row n and column n are the same sentence.
    Example:
        >>> retrieved(np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.7, 0.1, 0.6]]))
        array([1. , 0.5, 0. ])
    """
    own = np.diag(of)[:, None]
    is_better = (of > own + _TIE).any(axis=1)
    equal = (np.abs(of - own) <= _TIE).sum(axis=1)
    return np.where(is_better, 0.0, 1.0 / equal)


def mean_of(scores: Float[np.ndarray, " sentences"], weights: Weights) -> Draws:
    """Mean score of each resample."""
    return weights @ scores / weights.sum(axis=1)


def cosine_gap(of: Square, weights: Weights) -> Draws:
    """Mean cosine of the same sentence in both languages minus that of different sentences.

    NaN for a resample that is one sentence alone.
    """
    same = weights @ np.diag(of)
    other = of - np.diag(np.diag(of))
    count = weights.sum(axis=1)
    pairs = count**2 - (weights**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return same / count - ((weights @ other) * weights).sum(axis=1) / pairs


def cka(x: Rows, y: Rows, weights: Weights) -> Draws:
    """Debiased linear CKA of two representations of the same sentences: at most 1, around 0 by chance.

    Rotations, one scale for all and translations of either leave it alone. The estimate that is not debiased
    tends to 1 where there are fewer sentences than dimensions, whatever they are. Here HSIC is a U-statistic:
    a mean over quadruples of different sentences, of resamples too.

    Returns: NaN where it is not defined: below 4 different sentences, or where one side does not vary.
    Cost: some 26 × draws × sentences² operations.
    Paper: arXiv:1905.00414 (CKA); Song et al. 2012, equation 5 (the estimate of HSIC).
    """
    k, l = _products(x), _products(y)  # noqa: E741 — as the papers write them
    of_k, of_l, count = _Sums.of(k, weights), _Sums.of(l, weights), _quadruples(weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = _hsic(k * k, of_k, of_k, weights, count) * _hsic(l * l, of_l, of_l, weights, count)
        return _hsic(k * l, of_k, of_l, weights, count) / np.sqrt(np.where(norm > 0, norm, np.nan))


def _products(x: Rows) -> Square:
    """Inner products of different rows, 0 on the diagonal; centered and scaled, which only rounds better."""
    x = x.astype(np.float64)
    x = x - x.mean(axis=0)
    size = np.linalg.norm(x)
    x = x / (size if size > 1e-12 else np.inf)
    of = x @ x.T
    np.fill_diagonal(of, 0)
    return of


class _Sums(NamedTuple):
    """Of a matrix M and weights w, for each i: the sums over j of w_j M_ij and of w_j² M_ij."""

    first: Weights
    second: Weights

    @classmethod
    def of(cls, matrix: Square, w: Weights) -> "_Sums":
        return cls(w @ matrix, w**2 @ matrix)


def _hsic(both: Square, k: _Sums, l: _Sums, w: Weights, count: Draws) -> Draws:  # noqa: E741
    """Mean of K_ij L_ij − 2 K_ij L_iq + K_ij L_qr over quadruples of different sentences, weighted.

    Of each term the sum over indices that it does not have, and of those that are equal, is worked out.

    Args:
        both: K_ij L_ij.
        count: of such quadruples.
    """
    of_both, cubed = _Sums.of(both, w), w**3 @ both
    total = w.sum(axis=1)
    apart = k.first * l.first - of_both.second  # over different j and q, of w_j w_q K_ij L_iq
    pairs = (
        (total**2 - (w**2).sum(axis=1)) * (w * of_both.first).sum(axis=1)
        - 4 * total * (w**2 * of_both.first).sum(axis=1)
        + 4 * (w**3 * of_both.first).sum(axis=1)
        + 2 * (w**2 * of_both.second).sum(axis=1)
    )
    equal = k.second * l.first + k.first * l.second - 2 * cubed
    triples = (w * ((total[:, None] - w) * apart - equal)).sum(axis=1)
    quadruples = (w * k.first).sum(axis=1) * (w * l.first).sum(axis=1)
    quadruples = quadruples - 4 * (w**2 * apart).sum(axis=1) - 2 * (w**2 * of_both.second).sum(axis=1)
    return np.where(count > 0, (pairs - 2 * triples + quadruples) / count, np.nan)


def _quadruples(w: Weights) -> Draws:
    """How many quadruples of different sentences there are: the last sum above where K and L are 1."""
    rest = w.sum(axis=1, keepdims=True) - w
    second = (w**2).sum(axis=1, keepdims=True) - w**2
    every = (w * rest).sum(axis=1) ** 2
    return every - 4 * (w**2 * (rest**2 - second)).sum(axis=1) - 2 * (w**2 * second).sum(axis=1)


class Interval(NamedTuple):
    """A value with its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


def interval(draws: Draws, items: int | None = None) -> Interval:
    """The first draw, and percentiles of the others; none where fewer than half of these are defined.

    Args:
        items: of a share; where it is 0 or 1, all resamples are so too, and the interval is Wilson's.
    """
    if not np.isfinite(draws[0]):
        return Interval(None, None, None)
    value, others = float(draws[0]), draws[1:][np.isfinite(draws[1:])]
    if not len(others) or 2 * len(others) < len(draws) - 1:
        return Interval(value, None, None)
    if items and value in (0, 1):
        return Interval(value, *wilson(Share(value * items, items)))
    low, high = np.percentile(others, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def change_interval(draws: Draws, first: Draws, items: int | None = None) -> Interval:
    """How much more a measure is than in the first model, on the same resamples.

    Args:
        items: of a share; where both are 0 or 1, all resamples are so too, and the interval is Newcombe's.
    """
    if items and draws[0] in (0, 1) and first[0] in (0, 1):
        shares = (Share(float(each[0]) * items, items) for each in (draws, first))
        return Interval(float(draws[0] - first[0]), *newcombe(*shares))
    return interval(draws - first)


def plane(points: Float[np.ndarray, "points embed"]) -> tuple[Float[np.ndarray, "points 2"], list[float]]:
    """The first two principal components of points, and which share of the variance each has.

    The largest coordinate of each is positive. Of points that are all equal, zeros.

    Same as: sklearn.decomposition.PCA up to signs.
    """
    centered = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centered @ centered.T)
    values, directions = np.maximum(values[::-1], 0), directions[:, ::-1]
    total = float(values.sum())
    if total <= 1e-24:
        return np.zeros((len(points), 2)), [0.0, 0.0]
    found = directions[:, :2] * np.sqrt(values[:2])
    found = found * np.sign(found[np.abs(found).argmax(axis=0), [0, 1]])
    return found, [float(value) / total for value in values[:2]]
