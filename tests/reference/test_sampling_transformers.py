"""What may be drawn, and how often it is: against the warpers of transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from jaxlingua.generate.sampling import Sampling, filtered, next_tokens

VOCAB = 300
SETTINGS = [
    Sampling(temperature, top_k, top_p)
    for temperature in (0.3, 1.0, 2.5)
    for top_k in (0, 1, 7, 1000)
    for top_p in (1.0, 0.9, 0.3, 1e-6)
]


def warped(scores: np.ndarray, sampling: Sampling) -> np.ndarray:
    """As `generate` of transformers does it: in this order, each only where it does anything."""
    out = TemperatureLogitsWarper(sampling.temperature)(None, torch.tensor(scores))
    if sampling.top_k:
        out = TopKLogitsWarper(sampling.top_k)(None, out)
    if sampling.top_p < 1:
        out = TopPLogitsWarper(sampling.top_p)(None, out)
    return out.numpy()


@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_the_same_tokens_may_be_drawn_with_the_same_probabilities(spread):
    scores = np.random.default_rng(0).normal(0, spread, (16, VOCAB)).astype(np.float32)
    sizes = set()
    for sampling in SETTINGS:
        ours, theirs = np.asarray(filtered(jnp.asarray(scores), sampling)), warped(scores, sampling)
        np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs), err_msg=str(sampling))
        np.testing.assert_allclose(
            jax.nn.softmax(ours), torch.softmax(torch.tensor(theirs), -1), atol=1e-6, err_msg=str(sampling)
        )
        sizes |= set(np.isfinite(ours).sum(-1).tolist())
    assert len(sizes) > 30, "sets of many sizes"


def test_equal_scores_share_their_fate():
    scores = jnp.array([[2.0, 1.0, 1.0, 0.0]])
    for sampling, allowed in (
        (Sampling(1.0, 2, 1.0), [True, True, True, False]),
        (Sampling(1.0, 1, 1.0), [True, False, False, False]),
        (Sampling(1.0, 0, 0.7), [True, True, True, False]),
    ):
        assert np.isfinite(filtered(scores, sampling))[0].tolist() == allowed


def test_tokens_are_drawn_as_often_as_their_probability_says():
    """Pearson's statistic over 40,000 draws stays below the 99.99 % point of chi-square."""
    from scipy.stats import chi2

    draws, scores = 40_000, np.random.default_rng(1).normal(0, 1.5, 24).astype(np.float32)
    sampling = Sampling(1.3, 18, 0.95)
    rows = jnp.broadcast_to(scores, (draws, 24))
    keys = jnp.arange(draws, dtype=jnp.uint32) // 4
    numbers = jnp.arange(draws, dtype=jnp.int32) % 4  # four tokens of each request
    drawn = np.asarray(next_tokens(rows, sampling, jnp.uint32(5), keys, numbers))
    probability = torch.softmax(torch.tensor(warped(scores[None], sampling)), -1).numpy()[0]
    seen = np.bincount(drawn, minlength=24)
    allowed = probability > 0
    assert seen[~allowed].sum() == 0
    assert 3 < allowed.sum() < 18
    expected = draws * probability[allowed]
    assert ((seen[allowed] - expected) ** 2 / expected).sum() < chi2.ppf(0.9999, allowed.sum() - 1)


def test_a_draw_goes_by_seed_key_and_number_alone():
    scores = jnp.zeros((6, 1000))
    keys, numbers = jnp.array([1, 1, 2, 1, 2, 1], jnp.uint32), jnp.array([0, 1, 0, 0, 1, 2], jnp.int32)
    sampling = Sampling(1.0, 0, 1.0)
    drawn = next_tokens(scores, sampling, jnp.uint32(0), keys, numbers).tolist()
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 5
    turned = next_tokens(scores, sampling, jnp.uint32(0), keys[::-1], numbers[::-1]).tolist()
    assert turned == drawn[::-1]
    assert next_tokens(scores, sampling, jnp.uint32(1), keys, numbers).tolist() != drawn
