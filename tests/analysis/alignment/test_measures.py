"""Retrieval, cosine gap and CKA: against other implementations, and against sums over all tuples."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from jaxlingua.analysis.alignment.measures import (
    change_interval,
    cka,
    cosine_gap,
    cosines,
    interval,
    mean_of,
    plane,
    resamples,
    retrieved,
)

EXACT = 1e-10


def related(sentences: int = 40, embed: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two representations of the same sentences: a rotation, noise, and what all of a language share."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(sentences, embed)) + 2
    rotation = np.linalg.qr(rng.normal(size=(embed, embed)))[0]
    return x, x @ rotation + 0.6 * rng.normal(size=(sentences, embed)) + rng.normal(size=embed)


def once(x: np.ndarray) -> np.ndarray:
    return np.ones((1, len(x)))


# ── retrieval ────────────────────────────────────────────────────────────────────────────────────────────
def test_cosines_are_those_of_scikit_learn():
    x, y = related()
    x[3] = 0  # a text of which nothing is left
    np.testing.assert_allclose(cosines(x, y), cosine_similarity(x, y), rtol=0, atol=EXACT)


def test_the_nearest_is_that_of_scikit_learn():
    x, y = related()
    y = y + x  # so that some are found and some are not
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(y).kneighbors(x, return_distance=False)
    wanted = nearest[:, 0] == np.arange(len(x))
    assert 0 < wanted.sum() < len(x)
    np.testing.assert_array_equal(retrieved(cosines(x, y)), wanted)


def test_equally_near_ones_share_the_point():
    """Three equal sentences: each is found in a third of the draws, whatever the order in memory."""
    x, _ = related(6)
    x[[1, 4]] = x[2]
    np.testing.assert_array_equal(retrieved(cosines(x, x)), [1, 1 / 3, 1 / 3, 1, 1 / 3, 1])
    np.testing.assert_array_equal(retrieved(np.full((5, 5), 0.7)), np.full(5, 0.2))


def test_identical_sentences_are_found_and_shuffled_ones_by_chance():
    x, _ = related(200, seed=3)
    assert mean_of(retrieved(cosines(x, x)), once(x)) == [1]
    found = 0
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(x))
        found += retrieved(cosines(x, x[order])).sum()
    low, high = binom.interval(0.999, 20 * 200, 1 / 200)
    assert low <= found <= high


# ── gap ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_gap_compares_different_sentences_only_also_where_one_was_drawn_twice():
    x, y = related(9)
    of, weights = cosines(x, y), resamples(9, 5, seed=1)
    assert weights[1:].max() > 1
    for counts, told in zip(weights, cosine_gap(of, weights), strict=True):
        drawn = np.repeat(np.arange(9), counts.astype(int))
        same = np.mean([of[i, i] for i in drawn])
        other = np.mean([of[i, j] for i, j in itertools.product(drawn, drawn) if i != j])
        assert told == pytest.approx(same - other, abs=EXACT)


# ── CKA ──────────────────────────────────────────────────────────────────────────────────────────────────
def plain_hsic(k: np.ndarray, l: np.ndarray, drawn: np.ndarray) -> float:  # noqa: E741
    """The U-statistic as it is defined: a mean over quadruples of different sentences."""
    quadruples = [some for some in itertools.product(drawn, repeat=4) if len(set(some)) == 4]
    return np.mean([k[i, j] * (l[i, j] - 2 * l[i, n] + l[n, m]) for i, j, n, m in quadruples])


def published_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Song et al. 2012, equation 5, in matrices."""
    n, one = len(k), np.ones(len(k))
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    total = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def test_cka_is_that_of_plain_sums_for_the_sentences_and_for_resamples():
    x, y = related(6, embed=4)
    weights = np.concatenate(
        [resamples(6, 0, 0), [[2, 1, 1, 0, 1, 1], [1, 0, 3, 1, 0, 1], [2, 0, 0, 3, 1, 0]]]
    )
    told = cka(x, y, weights)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    for counts, one in zip(weights[:3], told, strict=False):
        drawn = np.repeat(np.arange(6), counts.astype(int))
        norm = plain_hsic(k, k, drawn) * plain_hsic(l, l, drawn)
        assert one == pytest.approx(plain_hsic(k, l, drawn) / np.sqrt(norm), abs=1e-8)
    assert np.isnan(told[3])  # three different sentences


def test_cka_is_that_of_the_published_formula():
    x, y = related()
    k, l = x @ x.T, y @ y.T  # noqa: E741
    wanted = published_hsic(k, l) / np.sqrt(published_hsic(k, k) * published_hsic(l, l))
    assert 0.1 < wanted < 0.95
    assert cka(x, y, once(x)) == pytest.approx(wanted, abs=EXACT)


def test_cka_knows_neither_rotation_nor_scale_nor_place():
    x, y = related()
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(16, 16)))[0]
    weights = resamples(len(x), 3, 0)
    moved = 1e3 * (y @ rotation) + 7
    np.testing.assert_allclose(cka(x, moved, weights), cka(x, y, weights), rtol=0, atol=EXACT)
    assert cka(x, 5 * x @ rotation, once(x)) == pytest.approx(1, abs=EXACT)


def test_cka_of_what_has_nothing_in_common_is_about_zero_also_in_many_dimensions():
    """The estimate that is not debiased tells 0.9 here."""
    rng = np.random.default_rng(2)
    told = [
        cka(rng.normal(size=(30, 500)), rng.normal(size=(30, 500)), np.ones((1, 30)))[0] for _ in range(40)
    ]
    assert abs(np.mean(told)) < 4 * np.std(told) / np.sqrt(40)
    assert np.std(told) < 0.1


def test_cka_of_equal_vectors_is_not_defined():
    x, y = related()
    assert np.isnan(cka(np.ones_like(x), y, once(x)))[0]


# ── intervals and planes ─────────────────────────────────────────────────────────────────────────────────
def test_resamples_begin_with_the_sentences_and_keep_their_number():
    weights = resamples(7, 50, seed=3)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(weights, resamples(7, 50, seed=3))
    assert (weights[1:] != resamples(7, 50, seed=4)[1:]).any()


def test_an_interval_of_a_mean_is_as_wide_as_theory_says():
    scores = np.random.default_rng(0).normal(size=400)
    told = interval(mean_of(scores, resamples(400, 4000, 0)))
    assert told.value == pytest.approx(scores.mean())
    assert told.high - told.low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.05)


def test_an_interval_that_most_resamples_do_not_have_is_not_told():
    nan = np.nan
    assert interval(np.array([0.5, 0.4, 0.6, nan])).low == pytest.approx(0.405)
    assert interval(np.array([0.5, 0.4, nan, nan])) == (0.5, None, None)
    assert interval(np.array([nan, 0.4, 0.4, 0.4])) == (None, None, None)


def test_a_share_of_all_or_none_has_the_interval_of_wilson():
    """Resamples of sentences that were all found are all found."""
    for found in (0, 30):
        wanted = binomtest(found, 30).proportion_ci(method="wilson")
        told = interval(np.full(9, found / 30), items=30)
        assert (told.low, told.high) == pytest.approx((wanted.low, wanted.high), abs=EXACT)


@pytest.mark.parametrize(("before", "now"), [(1, 1), (0, 0), (0, 1), (1, 0)])
def test_a_change_between_all_and_none_has_the_interval_of_newcombe(before, now):
    """Resamples all change alike there, as if thirty sentences had told everything."""
    first, draws = np.full(9, float(before)), np.full(9, float(now))
    x, y = (binomtest(30 * share, 30).proportion_ci(method="wilson") for share in (now, before))
    low = now - before - np.hypot(now - x.low, y.high - before)
    high = now - before + np.hypot(x.high - now, before - y.low)
    told = change_interval(draws, first, items=30)
    assert told == pytest.approx((now - before, low, high), abs=EXACT)
    assert told.high - told.low > 0.1
    assert change_interval(draws, first) == (now - before,) * 3  # of what is no share


def test_a_change_elsewhere_is_that_of_the_resamples():
    first, draws = np.array([0.5, 0.4, 0.6]), np.array([1.0, 1.0, 1.0])
    assert change_interval(draws, first, items=30) == interval(draws - first)


def test_the_plane_is_that_of_scikit_learn():
    x, _ = related(30, embed=50)
    points, shares = plane(x.astype(np.float32))
    reference = PCA(2).fit(x)
    wanted = reference.transform(x)
    wanted *= np.sign((wanted * points).sum(axis=0))
    np.testing.assert_allclose(points, wanted, rtol=0, atol=1e-4)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, rtol=1e-5)
    assert (points[np.abs(points).argmax(axis=0), [0, 1]] > 0).all()
    assert plane(np.ones((4, 3)))[1] == [0, 0]
