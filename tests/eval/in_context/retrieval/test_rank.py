"""Fusing and ranking: scales that do not compare are compared, ties stand in the order of the pool."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxlingua.errors import DataError
from jaxlingua.eval.in_context.retrieval.rank import fused, nearest

SCORES = arrays(float, (3, 7), elements=st.sampled_from([-2.0, 0.0, 0.1, 0.3, 1.0, 250.0]))


def test_scores_are_scaled_for_each_query_before_they_are_fused():
    cosines = np.array([[0.1, 0.2, 0.3], [0.9, 0.5, 0.9]])
    bm25 = np.array([[0.0, 30.0, 15.0], [4.0, 4.0, 4.0]])  # of the second query it says nothing
    wanted = [[0, 0.75, 0.75], [0.5, 0, 0.5]]
    np.testing.assert_allclose(fused([cosines, bm25], np.zeros((2, 3), bool)), wanted, rtol=0, atol=1e-15)


@given(SCORES)
def test_fusing_one_retriever_or_one_twice_leaves_the_order(scores):
    nothing = np.zeros(scores.shape, bool)
    for together in (fused([scores], nothing), fused([scores, scores], nothing)):
        assert (nearest(together, 7, nothing) == nearest(scores, 7, nothing)).all()
        assert together.min() >= 0
        assert together.max() <= 1


@given(SCORES, SCORES, st.sets(st.integers(0, 6), max_size=4))
def test_what_is_excluded_has_no_part_in_the_order(one, other, excluded):
    """As when it was never in the pool: a query that is found in it would set the scale."""
    kept = [place for place in range(7) if place not in excluded]
    is_excluded = np.zeros(one.shape, bool)
    is_excluded[:, list(excluded)] = True
    together = fused([one, other], is_excluded)
    without = fused([one[:, kept], other[:, kept]], np.zeros((3, len(kept)), bool))
    assert (together[:, kept] == without).all()
    order = nearest(without, len(kept), np.zeros(without.shape, bool))
    assert (nearest(together, len(kept), is_excluded) == np.array(kept)[order]).all()


@given(SCORES, st.sets(st.integers(0, 6), max_size=4))
def test_nearest_are_the_best_that_are_not_excluded(scores, excluded):
    is_excluded = np.zeros(scores.shape, bool)
    is_excluded[:, list(excluded)] = True
    for row, found in zip(scores, nearest(scores, 3, is_excluded), strict=True):
        allowed = [place for place in range(7) if place not in excluded]
        assert found.tolist() == sorted(allowed, key=lambda place: (-row[place], place))[:3]


def test_a_pool_that_is_too_small_without_the_query_is_refused():
    is_excluded = np.eye(3, dtype=bool)
    with pytest.raises(
        DataError, match="^eval.in_context: 3 records of a pool are asked for, but it has 2 beside"
    ):
        nearest(np.zeros((3, 3)), 3, is_excluded)
    assert nearest(np.zeros((3, 3)), 2, is_excluded).tolist() == [[1, 2], [0, 2], [0, 1]]
