"""The golden data of tests/golden are still what the installed transformers computes."""

import numpy as np

from tests.golden import ARRAYS
from tests.golden.make import golden_data

FP32_LAYER = 1e-5


def test_the_golden_data_are_made_again():
    stored, made = np.load(ARRAYS), golden_data()
    assert set(stored) == set(made)
    for name, values in made.items():
        np.testing.assert_allclose(stored[name], values, atol=FP32_LAYER, rtol=FP32_LAYER, err_msg=name)
