"""Our LLaMA against transformers' with the same weights, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxlingua.model.cache import empty_cache
from jaxlingua.model.llama import Llama, head_kernel, logits
from jaxlingua.model.rope import rope_scaling
from tests.reference.from_torch import from_torch, torch_llama
from tests.tiny import tiny_llama_config

FP32_MODEL = 1e-4
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
CASES = {
    "default rope": ({}, {}),
    "linear rope": ({}, {"rope_type": "linear", "factor": 4.0}),
    "dynamic rope within its length": ({}, {"rope_type": "dynamic", "factor": 4.0}),
    "llama3 rope": ({}, LLAMA3),
    "yarn rope": ({}, YARN),
    "yarn rope with its own attention factor": ({}, YARN | {"attention_factor": 1.3, "truncate": False}),
    "untied head": ({"tie_embeddings": False}, {}),
    "every head its own keys": ({"kv_heads": 4}, {}),
    "all heads share one key": ({"kv_heads": 1}, {}),
    "head_dim 64": ({"head_dim": 64}, {}),
    "heads wider than the model": ({"head_dim": 24, "heads": 8, "kv_heads": 2}, {}),
    "heads narrower than the model": ({"head_dim": 6}, {}),
    "large theta and epsilon": ({"rope_theta": 500_000.0, "norm_eps": 1e-2}, {}),
}


def pair(changes: dict, rope: dict):
    """Our model, its parameters and transformers' model."""
    config = tiny_llama_config(**changes, rope_scaling=rope_scaling(rope))
    torch_model = torch_llama(config, rope)
    return Llama(config), from_torch(torch_model, config), torch_model


def one_row(length: int = 48, start: int = 0, seed: int = 0):
    tokens = np.random.default_rng(seed).integers(0, 512, (2, length))
    positions = np.tile(np.arange(start, start + length), (2, 1))
    return tokens, positions, np.ones_like(tokens)


def torch_outputs(model, tokens, positions):
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(tokens), position_ids=torch.tensor(positions), output_hidden_states=True
        )


def apply(model: Llama, params: dict, *args, **kwargs):
    return jax.jit(lambda p: model.apply({"params": p}, *args, **kwargs))(params)


@pytest.mark.parametrize("kind", ["reference", "blockwise"])
@pytest.mark.parametrize("case", CASES)
def test_logits_and_hidden_states_are_those_of_transformers(case: str, kind: str):
    changes, rope = CASES[case]
    model, params, torch_model = pair({**changes, "attention": kind, "attention_block_tokens": 16}, rope)
    row = one_row()
    expected = torch_outputs(torch_model, *row[:2])
    np.testing.assert_allclose(apply(model, params, *row), expected.logits, atol=FP32_MODEL, rtol=FP32_MODEL)
    if kind == "reference":
        states = apply(model, params, *row, method="hidden_states")
        assert len(states) == model.config.layers + 1
        for ours, theirs in zip(states, expected.hidden_states, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=FP32_MODEL, rtol=FP32_MODEL)


@pytest.mark.parametrize("case", ["default rope", "llama3 rope", "yarn rope"])
@pytest.mark.parametrize("start", [1, 1000])
def test_positions_need_not_start_at_zero(case: str, start: int):
    model, params, torch_model = pair(*CASES[case])
    row = one_row(start=start)
    expected = torch_outputs(torch_model, *row[:2]).logits
    np.testing.assert_allclose(apply(model, params, *row), expected, atol=FP32_MODEL, rtol=FP32_MODEL)


@pytest.mark.parametrize("kind", ["reference", "blockwise"])
@pytest.mark.parametrize("case", ["default rope", "untied head", "heads wider than the model", "yarn rope"])
def test_gradients_of_the_loss_are_those_of_transformers(case: str, kind: str):
    """Every weight's gradient, to 1e-4 of the largest."""
    changes, rope = CASES[case]
    model, params, torch_model = pair({**changes, "attention": kind, "attention_block_tokens": 16}, rope)
    tokens, positions, segments = one_row()
    torch_model(input_ids=torch.tensor(tokens), labels=torch.tensor(tokens)).loss.backward()

    def loss(params):
        log_p = jax.nn.log_softmax(model.apply({"params": params}, tokens, positions, segments)[:, :-1])
        return -jnp.take_along_axis(log_p, jnp.asarray(tokens)[:, 1:, None], axis=-1).mean()

    ours = jax.jit(jax.grad(loss))(params)
    theirs = from_torch(torch_model, model.config, gradients=True)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, mine), other in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(
            mine,
            other,
            atol=FP32_MODEL * float(jnp.abs(other).max()),
            rtol=0,
            err_msg=jax.tree_util.keystr(path),
        )


def greedy_with_cache(model: Llama, params: dict, prompts: list[np.ndarray], new_tokens: int) -> np.ndarray:
    """Prompts padded on the left, one prefill, then one token at a time."""
    width = max(map(len, prompts))
    tokens, positions, segments = (np.zeros((len(prompts), width), np.int32) for _ in range(3))
    for i, prompt in enumerate(prompts):
        tokens[i, width - len(prompt) :] = prompt
        positions[i, width - len(prompt) :] = np.arange(len(prompt))
        segments[i, width - len(prompt) :] = 1
    kernel = head_kernel(params, model.config)

    @jax.jit
    def step(cache, tokens, positions, segments):
        hidden, cache = model.apply({"params": params}, tokens, positions, segments, cache, method="hidden")
        return cache, logits(hidden[:, -1:], kernel, model.config).argmax(-1).astype(jnp.int32)

    cache = empty_cache(model.config, len(prompts), width + new_tokens)
    cache, last = step(cache, tokens, positions, segments)
    out = [last]
    for _ in range(new_tokens - 1):
        positions = positions[:, -1:] + 1
        cache, last = step(cache, last, positions, np.ones_like(positions))
        out.append(last)
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize("kind", ["reference", "blockwise"])
def test_greedy_output_with_a_cache_is_that_of_transformers(kind: str):
    """Prompts of different lengths, padded on the left; each alone through transformers' generate."""
    model, params, torch_model = pair({"attention": kind, "attention_block_tokens": 4}, LLAMA3)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 512, n) for n in (3, 11, 7)]
    ours = greedy_with_cache(model, params, prompts, new_tokens=12)
    for prompt, mine in zip(prompts, ours, strict=True):
        theirs = torch_model.generate(
            torch.tensor(prompt[None]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        np.testing.assert_array_equal(mine, theirs[0, len(prompt) :])


def test_a_packed_document_gets_the_logits_that_transformers_gives_it_alone():
    """Without segment masks and restarted positions the second document reads the first."""
    _, params, torch_model = pair({}, {})
    rng = np.random.default_rng(2)
    documents = [rng.integers(0, 512, n) for n in (9, 17, 5)]
    tokens, positions, segments = (np.zeros((1, 40), np.int32) for _ in range(3))
    start = 0
    for number, document in enumerate(documents, 1):
        places = slice(start, start + len(document))
        tokens[0, places], positions[0, places], segments[0, places] = (
            document,
            np.arange(len(document)),
            number,
        )
        start += len(document)
    for kind in ("reference", "blockwise"):
        config = tiny_llama_config(attention=kind, attention_block_tokens=8)
        packed = apply(Llama(config), params, tokens, positions, segments)
        start = 0
        for document in documents:
            alone = torch_outputs(torch_model, document[None], np.arange(len(document))[None]).logits[0]
            ours = packed[0, start : start + len(document)]
            np.testing.assert_allclose(ours, alone, atol=FP32_MODEL, rtol=FP32_MODEL)
            start += len(document)
        assert np.isfinite(packed).all()


def test_bfloat16_stays_close_to_float32():
    """Kullback-Leibler divergence of the next token's distribution, at weights of realistic size."""
    model, params, _ = pair({}, {})
    params = jax.tree.map(lambda w: w * 0.3 if w.ndim > 2 else w, params)
    params["embed"]["embedding"] *= 0.3
    row = one_row()
    fp32 = jax.nn.log_softmax(apply(model, params, *row))
    for kind in ("reference", "blockwise"):
        bf16_model = Llama(
            tiny_llama_config(compute_dtype="bfloat16", attention=kind, attention_block_tokens=16)
        )
        out = apply(bf16_model, params, *row)
        assert out.dtype == jnp.float32
        divergence = (jnp.exp(fp32) * (fp32 - jax.nn.log_softmax(out))).sum(-1)
        assert 0 < divergence.mean() < 2e-2
