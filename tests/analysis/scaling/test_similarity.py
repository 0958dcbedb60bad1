"""A measured similarity of two languages."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from jaxlingua.analysis.scaling.similarity import unigram_similarity


def test_it_is_one_minus_scipys_divergence_whatever_the_order():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 40, (30, 7)).tolist(), rng.integers(20, 70, (50, 5)).tolist()
    shares = [np.bincount(np.ravel(side), minlength=70) / np.size(side) for side in (first, second)]
    found = unigram_similarity(first, second)
    assert found == pytest.approx(1 - jensenshannon(*shares, base=2) ** 2)
    assert found == pytest.approx(unigram_similarity(second[::-1], first))


def test_the_same_and_nothing_in_common():
    assert unigram_similarity([[1, 2, 2]], [[2], [1, 2]]) == 1
    assert unigram_similarity([[1, 2]], [[3]]) == 0
    with pytest.raises(ValueError, match="a side without any token"):
        unigram_similarity([[1]], [[]])
