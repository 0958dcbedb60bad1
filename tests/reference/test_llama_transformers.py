"""Our LLaMA, Mistral and Qwen against transformers' with the same weights, in float32."""

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
    "head_dim 128": ({"head_dim": 128}, {}),
    "heads wider than the model": ({"head_dim": 24, "heads": 8, "kv_heads": 2}, {}),
    "heads narrower than the model": ({"head_dim": 6}, {}),
    "large theta and epsilon": ({"rope_theta": 500_000.0, "norm_eps": 1e-2}, {}),
}
# Windows are shorter than rows and prompts, and no multiple of a block.
LAST_TWO = {"layers": 4, "sliding_window": 5, "sliding_layers": (False, False, True, True)}
FAMILIES = {
    "llama with every bias": ({"qkv_bias": True, "o_bias": True, "mlp_bias": True}, {}),
    "llama with biases of the mlp alone": ({"mlp_bias": True}, {}),
    "mistral": ({"sliding_window": 5, "tie_embeddings": False}, {}),
    "mistral with head_dim 128": ({"sliding_window": 5, "head_dim": 128}, {}),
    "qwen2": ({"qkv_bias": True}, {}),
    "qwen2 with a window": ({"qkv_bias": True, "sliding_window": 5}, YARN),
    "qwen2 with a window in its last layers": ({"qkv_bias": True, **LAST_TWO}, {}),
    "qwen3": ({"qk_norm": True, "head_dim": 128, "norm_eps": 0.1}, {}),
    "qwen3 with biases": ({"qk_norm": True, "qkv_bias": True, "o_bias": True, "head_dim": 64}, LLAMA3),
    "qwen3 with a window in its last layers": ({"qk_norm": True, "tie_embeddings": False, **LAST_TWO}, {}),
}
CASES |= FAMILIES
# Everything that sets a family apart, for the tests that take longer.
DISTINCT_FAMILIES = (
    "llama with every bias",
    "mistral",
    "qwen2 with a window in its last layers",
    "qwen3 with a window in its last layers",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The models are tiny: with a thread per core these tests take twice as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    """With a mask, or transformers would take a gap between positions for the start of another document."""
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(tokens), position_ids=torch.tensor(positions), output_hidden_states=True,
            attention_mask=torch.ones(tokens.shape, dtype=torch.long),
        )  # fmt: skip


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


@pytest.mark.parametrize("case", ["default rope", "yarn rope", "llama with every bias", "qwen2", "qwen3"])
def test_positions_may_have_gaps(case: str):
    """Tokens left out of the middle: what follows stays where it was. Without windows, since transformers
    counts those in tokens and not in positions."""
    model, params, torch_model = pair(*CASES[case])
    tokens, _, segments = one_row()
    gaps = np.sort(np.random.default_rng(3).permutation(90)[: tokens.shape[1]])
    positions = np.tile(gaps, (2, 1))
    expected = torch_outputs(torch_model, tokens, positions).logits
    ours = apply(model, params, tokens, positions, segments)
    np.testing.assert_allclose(ours, expected, atol=FP32_MODEL, rtol=FP32_MODEL)


@pytest.mark.parametrize("kind", ["reference", "blockwise"])
@pytest.mark.parametrize(
    "case", ["default rope", "untied head", "heads wider than the model", "yarn rope", *DISTINCT_FAMILIES]
)
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
@pytest.mark.parametrize("case", ["llama3 rope", *DISTINCT_FAMILIES])
def test_greedy_output_with_a_cache_is_that_of_transformers(case: str, kind: str):
    """Prompts of different lengths, padded on the left; each alone through transformers' generate."""
    changes, rope = CASES[case]
    model, params, torch_model = pair({**changes, "attention": kind, "attention_block_tokens": 4}, rope)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 512, n) for n in (3, 11, 7)]
    ours = greedy_with_cache(model, params, prompts, new_tokens=12)
    for prompt, mine in zip(prompts, ours, strict=True):
        theirs = torch_model.generate(
            torch.tensor(prompt[None]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        np.testing.assert_array_equal(mine, theirs[0, len(prompt) :])


@pytest.mark.parametrize("kind", ["reference", "blockwise"])
@pytest.mark.parametrize("case", ["default rope", *DISTINCT_FAMILIES])
def test_a_packed_document_gets_the_logits_that_transformers_gives_it_alone(case: str, kind: str):
    """Without segment masks and restarted positions the second document reads the first."""
    changes, rope = CASES[case]
    model, params, torch_model = pair({**changes, "attention": kind, "attention_block_tokens": 8}, rope)
    rng = np.random.default_rng(2)
    documents = [rng.integers(0, 512, n) for n in (9, 17, 5)]
    ends = np.cumsum([len(document) for document in documents])
    tokens, positions, segments = (np.zeros((1, 40), np.int32) for _ in range(3))
    for number, (document, end) in enumerate(zip(documents, ends, strict=True), 1):
        places = slice(end - len(document), end)
        tokens[0, places], segments[0, places] = document, number
        positions[0, places] = np.arange(len(document))
    packed = apply(model, params, tokens, positions, segments)
    for document, end in zip(documents, ends, strict=True):
        alone = torch_outputs(torch_model, document[None], np.arange(len(document))[None]).logits[0]
        ours = packed[0, end - len(document) : end]
        np.testing.assert_allclose(ours, alone, atol=FP32_MODEL, rtol=FP32_MODEL)
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
