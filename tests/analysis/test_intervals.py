"""Intervals of changes of shares, against figures of others."""

import numpy as np
import pytest
from scipy.stats import binomtest

from jaxlingua.analysis.intervals import Share, newcombe, newcombe_paired, wilson


@pytest.mark.parametrize("found", range(8))
def test_the_interval_of_one_share_is_scipys(found):
    theirs = binomtest(found, 7).proportion_ci(method="wilson")
    assert wilson(Share(found, 7)) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(
    ("share", "base", "low", "high"),
    [  # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
        ((0, 10), (0, 10), -0.2775, 0.2775),
    ],
)
def test_the_interval_of_a_change_is_the_published_one(share, base, low, high):
    assert newcombe(Share(*share), Share(*base)) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman and others 2000, Statistics with confidence, table 6.2
        ((59, 6, 16, 80), -0.1186, -0.0046),  # what the R package contingencytables tells of Cavo 2012
    ],
)
def test_the_interval_of_a_change_on_the_same_items_is_the_published_one(counts, low, high):
    digits = 3 if low == 0.011 else 4
    assert [round(bound, digits) for bound in newcombe_paired(*counts)] == [low, high]


def test_a_change_on_the_same_items_is_told_with_some_width_and_within_bounds():
    rng = np.random.default_rng(0)
    for counts in [(20, 0, 0, 20), (9, 0, 0, 0), (0, 9, 0, 0), *rng.integers(6, size=(200, 4)).tolist()]:
        if not sum(counts):
            continue
        both, alone, base_alone, neither = counts
        change = (alone - base_alone) / sum(counts)
        low, high = newcombe_paired(*counts)
        assert -1 <= low <= change <= high <= 1
        assert high - low > 0.05
        mirrored = newcombe_paired(both, base_alone, alone, neither)
        assert mirrored == pytest.approx((-high, -low), abs=1e-12)
