"""Log-likelihood against transformers: the same weights, each text alone, log-softmax by PyTorch."""

import jax
import numpy as np
import pytest
import torch

from jaxlingua.config import ShardingConfig
from jaxlingua.generate.likelihood import Continuation, likelihoods
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from tests.reference.from_torch import from_torch, torch_llama
from tests.tiny import tiny_llama_config

VOCAB = 500  # of 512 rows
FP32_TOKEN = 1e-5  # of a log-probability, for each token that is summed


@torch.no_grad()
def of_torch(theirs, one: Continuation) -> tuple[float, float, bool]:
    ids = torch.tensor(np.concatenate([one.prompt, one.tokens]).astype(np.int64))
    scores = theirs(ids[None, :-1]).logits[0, :, :VOCAB]
    logprobs = torch.log_softmax(scores, -1).gather(1, ids[1:, None])[:, 0]
    cut = len(one.prompt) - 1
    greedy = bool((scores.argmax(-1) == ids[1:])[cut:].all())
    return float(logprobs[:cut].sum()), float(logprobs[cut:].sum()), greedy


@pytest.fixture(scope="module")
def world():
    """One thread, since the model is tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = tiny_llama_config(vocab_size=512, max_positions=128)
    theirs = torch_llama(config, {})
    rng = np.random.default_rng(0)
    items = []
    for number in range(20):
        sizes = rng.integers(1, 60, 2)
        prompt, tokens = (rng.integers(0, VOCAB, size).astype(np.int32) for size in sizes)
        if number % 3 == 0:  # what they would write
            with torch.no_grad():
                best = theirs(torch.tensor(prompt[None].astype(np.int64))).logits[0, -1, :VOCAB].argmax()
            tokens = np.array([int(best)], np.int32)
        items.append(Continuation(prompt, tokens))
    wanted = [of_torch(theirs, one) for one in items]
    torch.set_num_threads(threads)
    return Llama(config), from_torch(theirs, config), items, wanted


@pytest.mark.parametrize("devices", [1, 8])
def test_likelihoods_are_those_of_transformers(world, devices):
    model, params, items, wanted = world
    mesh = make_mesh(ShardingConfig(), jax.devices()[:devices])
    params = jax.device_put(params, param_shardings(model, mesh))
    given = likelihoods(model, params, items, vocab_size=VOCAB, batch_rows=8, mesh=mesh)
    assert sum(one.is_greedy for one in given) >= 7
    for one, (prompt, tokens, greedy) in zip(given, wanted, strict=True):
        assert one.is_greedy == greedy
        np.testing.assert_allclose(
            one.prompt_logprob, prompt, rtol=0, atol=FP32_TOKEN * (one.prompt_tokens + 1)
        )
        np.testing.assert_allclose(one.logprob, tokens, rtol=0, atol=FP32_TOKEN * one.tokens)
