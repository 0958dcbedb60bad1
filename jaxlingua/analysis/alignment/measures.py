"""How near the vectors of the same sentence in two languages are: retrieval, cosine gap, CKA; and PCA.

All are told for resamples at once: a row of `weights` [draws, sentences] says how often each sentence
counts, and the first row is the sentences as they are (`resamples`). A sentence that was drawn twice is never
compared with itself, so that resamples are not more alike than the sentences are.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Draws = Float[np.ndarray, " draws"]
Weights = Float[np.ndarray, "draws sentences"]
Rows = Float[np.ndarray, "sentences embed"]
Square = Float[np.ndarray, "sentences sentences"]

CKA_SENTENCES = 4  # below these the debiased estimate is not defined

_TIE = (
    1e-12  # of a cosine in float64; those of equal vectors differ by less, in whichever order they are summed
)


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
    terms in which a sentence stands twice are left out, of resamples too.

    Returns: NaN where it is not defined: below 4 different sentences, or where one side does not vary.
    Cost: some 16 × draws × sentences² operations; 1,000 sentences and draws take 1 s on two cores.
    Paper: arXiv:1905.00414 (CKA); Song et al. 2012, equation 5 (the estimate of HSIC).
    """
    k, l = _products(x), _products(y)  # noqa: E741 — as the papers write them
    of_k, of_l, ones = weights @ k, weights @ l, _counts(weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = _hsic(k * k, of_k, of_k, weights, ones) * _hsic(l * l, of_l, of_l, weights, ones)
        return _hsic(k * l, of_k, of_l, weights, ones) / np.sqrt(np.where(norm > 0, norm, np.nan))


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
    """Sums over pairs, triples and quadruples of different sentences, weighted by how often each counts."""

    pairs: Draws  # of K_ij L_ij
    triples: Draws  # of K_ij L_ik
    quadruples: Draws  # of K_ij L_kl


def _hsic(both: Square, of_k: Weights, of_l: Weights, w: Weights, ones: _Sums) -> Draws:
    """From the products K_ij L_ij, and the sums over j of w_j K_ij and of w_j L_ij."""
    sums = _sums(w, of_k, of_l, w @ both, w**2 @ both)
    found = sums.pairs / ones.pairs - 2 * sums.triples / ones.triples + sums.quadruples / ones.quadruples
    return np.where(ones.quadruples > 0, found, np.nan)


def _counts(w: Weights) -> _Sums:
    """The sums where K and L are 1 for all pairs of different sentences."""
    rest = w.sum(axis=1, keepdims=True) - w
    return _sums(w, rest, rest, rest, (w**2).sum(axis=1, keepdims=True) - w**2)


def _sums(w: Weights, of_k: Weights, of_l: Weights, of_both: Weights, of_both_squared: Weights) -> _Sums:
    """From sums over j for each i: of w_j K_ij, w_j L_ij, w_j K_ij L_ij and w_j² K_ij L_ij."""
    apart = of_k * of_l - of_both_squared  # of w_j w_k K_ij L_ik where j and k differ
    one_shared = (w**2 * apart).sum(axis=1)
    two_shared = (w**2 * of_both_squared).sum(axis=1)
    every = (w * of_k).sum(axis=1) * (w * of_l).sum(axis=1)
    return _Sums((w * of_both).sum(axis=1), (w * apart).sum(axis=1), every - 4 * one_shared - 2 * two_shared)


class Interval(NamedTuple):
    """A value with its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


def interval(draws: Draws) -> Interval:
    """The first draw, and percentiles of the others; none where fewer than half of these are defined."""
    if not np.isfinite(draws[0]):
        return Interval(None, None, None)
    value, others = float(draws[0]), draws[1:][np.isfinite(draws[1:])]
    if not len(others) or 2 * len(others) < len(draws) - 1:
        return Interval(value, None, None)
    low, high = np.percentile(others, [2.5, 97.5])
    return Interval(value, float(low), float(high))


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
