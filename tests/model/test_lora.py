"""Adapters: gradients against autodiff through W + s·A·B, merged against unmerged, shardings, first values."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlingua.errors import ConfigError
from jaxlingua.model.cache import Ring, empty_ring
from jaxlingua.model.llama import Llama, head_kernel, layers_apart, learns_head
from jaxlingua.model.lora import (
    COLLECTION,
    PATHS,
    PROJECTIONS,
    TARGETS,
    Lora,
    collections,
    joined,
    merge,
    merged_config,
    norms,
    unmerge,
    with_first_magnitudes,
)
from jaxlingua.model.quantized import quantize
from jaxlingua.sharding.rules import param_shardings
from jaxlingua.train.objective import summed_loss
from jaxlingua.train.optimizer import decayed
from jaxlingua.train.state import first_adapters
from tests.tiny import tiny_llama_config
from tests.train.world import OBJECTIVE, VOCAB, batch_of, documents, mesh_of

TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12) * 7 % 96
POSITIONS = np.broadcast_to(np.arange(12, dtype=np.int32), (2, 12))
SEGMENTS = np.ones_like(TOKENS)


def lora_config(*, tied: bool = False, **changes: object):
    lora = Lora(**{"rank": 3, "alpha": 1.5, "targets": TARGETS} | changes)
    return replace(tiny_llama_config(tie_embeddings=tied), lora=lora)


quantized = jax.jit(quantize, static_argnums=(1, 2))


def drawn_weights(config, seed: int = 0) -> dict:
    """A base in the types of `config`, and adapters of which none is zero; drawn without compiling anything."""
    rng = np.random.default_rng(seed)
    shapes = (TOKENS, POSITIONS, SEGMENTS)
    of = {
        name: flatten_dict(
            nn.unbox(joined(jax.eval_shape(Llama(c).init, jax.random.key(0), *shapes))), sep="/"
        )
        for name, c in (("base", replace(config, lora=None)), ("all", config))
    }
    given = {path: drawn(path, leaf.shape, rng) for path, leaf in of["base"].items()}
    flat = {}
    for path, leaf in of["all"].items():
        if path.startswith("lora/"):
            noise = 0.1 * rng.standard_normal(leaf.shape)
            flat[path] = jnp.float32(1 + noise if path.endswith("_magnitude") else noise)
        elif f"{path}_scale" in of["all"] and path in given:
            axis = 2 if path.endswith("/o") else 1  # stacked
            flat[path], flat[f"{path}_scale"] = quantized(given[path], config.lora.base, axis)
        elif path in given:
            flat[path] = jnp.asarray(given[path]).astype(leaf.dtype)
    return unflatten_dict(flat, sep="/")


def drawn(path: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Scales of one, and matrices as large as the first ones of a model."""
    if path.endswith("scale"):
        return np.ones(shape, np.float32)
    return np.float32(0.125 * rng.standard_normal(shape))


def logits_of(config, weights: dict) -> jax.Array:
    return jax.jit(Llama(config).apply)(collections(weights), TOKENS, POSITIONS, SEGMENTS)


def cross_entropy(logits: jax.Array) -> jax.Array:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), TOKENS[..., None], axis=-1))


@pytest.mark.parametrize(("is_dora", "is_stabilized"), [(False, True), (True, False)], ids=["lora", "dora"])
def test_gradients_equal_autodiff_through_the_merged_matrices(is_dora: bool, is_stabilized: bool):
    # The norm of DoRA has no gradient: the reference has it as a constant.
    config = lora_config(dora=is_dora, rank_stabilized=is_stabilized)
    weights = drawn_weights(config)
    base = {name: tree for name, tree in weights.items() if name != COLLECTION}
    constant = norms(weights, config)
    scaling = 1.5 / math.sqrt(3) if is_stabilized else 0.5

    def ours(adapters: dict, base: dict) -> jax.Array:
        return cross_entropy(logits_of(config, {**base, COLLECTION: adapters}))

    def reference(adapters: dict, base: dict) -> jax.Array:
        flat, of = flatten_dict(base, sep="/"), flatten_dict({COLLECTION: adapters}, sep="/")
        for path, where, inputs, out in PATHS.values():
            stacked = "l" if path.startswith("layers/") else ""
            spec = f"{stacked}{inputs}r,{stacked}r{out}->{stacked}{inputs}{out}"
            whole = flat[path] + scaling * jnp.einsum(spec, of[f"{where}_a"], of[f"{where}_b"])
            if is_dora:
                gain = of[f"{where}_magnitude"] / constant[path]
                first = len(stacked)
                whole = whole * jnp.expand_dims(gain, tuple(range(first, first + len(inputs))))
            flat[path] = whole
        plain = replace(config, lora=None)
        return cross_entropy(logits_of(plain, unflatten_dict(flat, sep="/")))

    (loss, found), (other, wanted) = (
        jax.jit(jax.value_and_grad(f))(weights[COLLECTION], base) for f in (ours, reference)
    )
    np.testing.assert_allclose(loss, other, rtol=1e-6)
    for (path, leaf), right in zip(
        flatten_dict(found, sep="/").items(), flatten_dict(wanted, sep="/").values(), strict=True
    ):
        assert np.abs(right).max() > 1e-5, path
        np.testing.assert_allclose(leaf, right, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("changes", "tied"),
    [
        ({"dora": True}, True),
        ({"base": "nf4", "dora": True}, False),
        ({"base": "int8"}, True),
        ({"targets": ("q", "embed")}, True),
    ],
    ids=str,
)
def test_merged_logits_are_those_of_the_adapters(changes: dict, tied: bool):
    config = lora_config(tied=tied, **changes)
    weights = drawn_weights(config)
    without = {**weights, COLLECTION: jax.tree.map(jnp.zeros_like, weights[COLLECTION])}
    if config.lora.dora:
        without = with_first_magnitudes(without, config)
    ours, merged = (
        logits_of(config, weights),
        logits_of(merged_config(config), jax.jit(merge, static_argnums=1)(weights, config)),
    )
    np.testing.assert_allclose(ours, merged, atol=1e-5)
    assert np.abs(ours - logits_of(config, without)).max() > 0.1  # the adapters do something


@pytest.mark.parametrize("is_dora", [False, True], ids=["lora", "dora"])
def test_unmerge_gives_the_base_back(is_dora: bool):
    config = lora_config(dora=is_dora)
    weights = drawn_weights(config)
    base = jax.jit(lambda w: unmerge(merge(w, config), w[COLLECTION], config, norms(w, config)))(weights)
    flat, found = flatten_dict(weights, sep="/"), flatten_dict(base, sep="/")
    assert set(found) == {path for path in flat if not path.startswith("lora/")}
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, flat[path], atol=1e-5, err_msg=path)
    if is_dora:
        with pytest.raises(ConfigError, match="no norms given"):
            unmerge(merge(weights, config), weights[COLLECTION], config)


@pytest.mark.parametrize("changes", [{}, {"dora": True, "base": "nf4"}], ids=str)
def test_first_adapters_change_nothing(changes: dict):
    config = lora_config(**changes)
    drawn = drawn_weights(config)
    first = nn.unbox(joined(jax.jit(Llama(config).init)(jax.random.key(1), TOKENS, POSITIONS, SEGMENTS)))[
        COLLECTION
    ]
    weights = with_first_magnitudes({**drawn, COLLECTION: first}, config)
    bare = replace(config, lora=replace(config.lora, targets=("q",), dora=False))
    zeros = {
        "layers": {
            "attention": {name: jnp.zeros_like(first["layers"]["attention"][name]) for name in ("q_a", "q_b")}
        }
    }
    np.testing.assert_allclose(
        logits_of(config, weights), logits_of(bare, {**drawn, COLLECTION: zeros}), atol=1e-5
    )


def test_first_values_are_those_of_peft():
    config = lora_config()
    first = nn.unbox(joined(jax.jit(Llama(config).init)(jax.random.key(1), TOKENS, POSITIONS, SEGMENTS)))[
        COLLECTION
    ]
    a = np.asarray(first["layers"]["mlp"]["down_a"])
    assert np.abs(a).max() <= config.mlp**-0.5
    assert np.abs(a).max() > 0.9 * config.mlp**-0.5
    assert not np.array_equal(a[0], a[1])  # each layer draws its own
    assert not np.any(first["layers"]["mlp"]["down_b"])
    assert not np.any(first["embed"]["embedding_a"])
    assert 0.5 < np.std(first["embed"]["embedding_b"]) < 1.5


def test_without_remat_a_quantized_base_leaves_no_numbers_for_the_backward_pass():
    config = replace(lora_config(base="nf4", targets=tuple(PROJECTIONS)), compute_dtype="bfloat16")
    weights = drawn_weights(config)
    base = {name: tree for name, tree in weights.items() if name != COLLECTION}
    _, backward = jax.vjp(
        lambda adapters: logits_of(config, {**base, COLLECTION: adapters}), weights[COLLECTION]
    )
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.shape[-2:] == (config.mlp, config.embed)]
    assert all(leaf.dtype == jnp.uint4 for leaf in kept)


@pytest.mark.parametrize("base", ["float32", "nf4"])
def test_adapters_are_sharded_like_their_base(base: str):
    config = lora_config(base=base, dora=True)
    shardings = flatten_dict(param_shardings(Llama(config), mesh_of(fsdp=2, tensor=2)), sep="/")
    q, a, b = (
        shardings[name].spec
        for name in ("layers/attention/q", "lora/layers/attention/q_a", "lora/layers/attention/q_b")
    )
    assert tuple(q) == (None, "fsdp", "tensor", None)
    assert tuple(a) == (None, "fsdp", None)
    assert tuple(b) == (None, None, "tensor", None)
    assert tuple(shardings["lora/layers/mlp/down_a"].spec) == (None, "tensor", None)
    assert tuple(shardings["lora/layers/attention/k_magnitude"].spec) == (None, "tensor", None)
    assert tuple(shardings["lora/embed/embedding_a"].spec) == ("tensor", None)


def test_next_token_by_layers_apart_is_that_of_the_scanned_ones():
    config = lora_config(dora=True)
    weights = drawn_weights(config)
    apart = layers_apart(weights, config)
    ring = empty_ring(config, 2, 12)
    step = jax.jit(
        lambda token, place, ring: Llama(config).apply(
            collections(apart), token, place, jnp.ones(2, jnp.int32), ring, method=Llama.next_hidden
        )
    )
    for place in range(3):
        hidden, ring = step(jnp.asarray(TOKENS[:, place]), jnp.full(2, place, jnp.int32), ring)
    scores = hidden @ head_kernel(weights, config)
    np.testing.assert_allclose(scores, logits_of(config, weights)[:, 2], atol=1e-4)


def test_the_head_is_learned_only_where_it_is_a_target():
    assert learns_head(tiny_llama_config())
    assert learns_head(lora_config(targets=("head",)))
    assert not learns_head(lora_config(targets=("q", "embed")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 65}, "model.lora.rank: 65 given; the matrix of target"),
        ({"targets": ()}, "model.lora.targets: none given; q, k, v"),
        ({"targets": ("q", "router")}, "model.lora.targets: 'router' given; q, k, v"),
    ],
)
def test_what_no_matrix_can_have_is_refused(changes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        lora_config(**changes)


def test_a_loop_over_tokens_carries_codes_and_no_numbers():
    config = replace(lora_config(base="nf4", targets=("q",)), embed=128, mlp=512, head_dim=32, vocab_size=128)
    apart = layers_apart(drawn_weights(config), config)
    one, token = jnp.ones(2, jnp.int32), jnp.zeros(2, jnp.int32)

    def loop(weights: dict, ring: Ring) -> Ring:
        def body(place: int, ring: Ring) -> Ring:
            return Llama(config).apply(
                collections(weights), token, one * place, one, ring, method=Llama.next_hidden
            )[1]

        return jax.lax.fori_loop(0, 8, body, ring)

    text = jax.jit(loop).lower(apart, empty_ring(config, 2, 8)).compile().as_text()
    carried = [line for line in text.splitlines() if " while(" in line]
    assert any("u4[128,512]" in line for line in carried)
    assert not any("f32[128,512]" in line for line in carried)


def test_a_norm_of_zero_is_no_nan():
    # As of the padding of a vocabulary whose rows are zero in a tied model.
    config = lora_config(tied=True, dora=True, targets=("embed", "head"))
    weights = drawn_weights(config)
    weights["embed"]["embedding"] = weights["embed"]["embedding"].at[500:].set(0)
    weights[COLLECTION]["embed"]["embedding_a"] = weights[COLLECTION]["embed"]["embedding_a"].at[500:].set(0)
    for name in ("kernel_b", "kernel_magnitude"):
        weights[COLLECTION]["head"][name] = weights[COLLECTION]["head"][name].at[..., 500:].set(0)
    base = {name: tree for name, tree in weights.items() if name != COLLECTION}
    gradient = jax.jit(jax.grad(lambda a: cross_entropy(logits_of(config, {**base, COLLECTION: a}))))(
        weights[COLLECTION]
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("targets", [("head",), ("embed",), ("q", "head")], ids=str)
def test_the_loss_in_chunks_has_the_gradients_of_the_logits(targets: tuple[str, ...]):
    config = lora_config(targets=targets, dora=True)
    weights = drawn_weights(config)
    batch = batch_of([documents(1, seed) for seed in range(2)], 16)
    base = {name: tree for name, tree in weights.items() if name != COLLECTION}

    def in_chunks(adapters: dict) -> jax.Array:
        return summed_loss(Llama(config), {**base, COLLECTION: adapters}, batch, OBJECTIVE)[0]

    def whole(adapters: dict) -> jax.Array:
        tokens = (batch.tokens, batch.positions, batch.segments)
        logits = Llama(config).apply(collections({**base, COLLECTION: adapters}), *tokens)
        nll = -jax.nn.log_softmax(logits[..., :VOCAB])
        nll = jnp.take_along_axis(nll, batch.targets[..., None], axis=-1)[..., 0]
        return jnp.sum(jnp.where(batch.target_mask, nll, 0))

    found, wanted = (jax.jit(jax.grad(f))(weights[COLLECTION]) for f in (in_chunks, whole))
    for leaf, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.abs(right).max() > 1e-4
        np.testing.assert_allclose(leaf, right, atol=1e-5 * np.abs(right).max())


def test_new_adapters_of_a_run_begin_with_the_answers_of_the_base():
    config = lora_config(dora=True, targets=("q", "down"))
    weights = drawn_weights(config)
    base = {name: tree for name, tree in weights.items() if name != COLLECTION}
    first = first_adapters(base, Llama(config), mesh_of(), seed=3)
    plain = replace(config, lora=None)
    np.testing.assert_allclose(
        logits_of(config, {**base, COLLECTION: first}), logits_of(plain, base), atol=1e-5
    )
    assert np.abs(first["layers"]["attention"]["q_a"]).max() > 0
    assert not decayed(first)["layers"]["attention"]["q_magnitude"]
    assert decayed(first)["layers"]["attention"]["q_a"]
