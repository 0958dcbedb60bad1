"""Answers of adapters beside their base are those of the merged model, one after another and by beams."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlingua.generate.beams import beam_search
from jaxlingua.generate.decoding import Decoding, Request
from jaxlingua.generate.engine import generate
from jaxlingua.generate.likelihood import Continuation, likelihoods
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import (
    COLLECTION,
    TARGETS,
    Lora,
    joined,
    merge,
    merged_config,
    with_first_magnitudes,
)
from jaxlingua.model.quantized import quantize
from jaxlingua.sharding.rules import param_shardings
from tests.generate.letters import LETTERS
from tests.generate.reversing import CONFIG, EOS, VOCAB, prompts, trained
from tests.generate.test_likelihood import FP32_SUM, mesh_of

NEW = 8
WAYS = {"greedy": generate, "beams": beam_search}
KINDS = {
    "lora": Lora(4, 8.0, TARGETS),
    "dora": Lora(4, 8.0, TARGETS, rank_stabilized=True, dora=True),
    "dora beside nf4": Lora(4, 4.0, TARGETS[:7], dora=True, base="nf4"),
}


@functools.cache
def adapted(kind: str) -> tuple[Llama, dict]:
    """The model that writes backwards, with adapters that change what it writes."""
    config = replace(CONFIG, lora=KINDS[kind])
    model, (_, params) = Llama(config), trained(steps=120)
    rows = jnp.zeros((1, 4), jnp.int32)
    abstract = nn.unbox(joined(jax.eval_shape(model.init, jax.random.key(0), rows, rows, rows)))
    flat, given = flatten_dict(abstract, sep="/"), flatten_dict(params, sep="/")
    rng = np.random.default_rng(0)
    for path, leaf in sorted(flat.items()):
        if path.startswith(COLLECTION):
            # A·B is a tenth of a weight, whose numbers are some 1/8.
            flat[path] = jnp.asarray(0.06 * rng.standard_normal(leaf.shape, np.float32))
        elif f"{path}_scale" in flat:
            axis = 2 if path.endswith("/o") else 1
            codes = jax.jit(quantize, static_argnums=(1, 2))(given[path], config.lora.base, axis)
            flat[path], flat[f"{path}_scale"] = codes
        elif path in given:
            flat[path] = given[path].astype(leaf.dtype)
    weights = jax.jit(with_first_magnitudes, static_argnums=1)(unflatten_dict(flat, sep="/"), config)
    for path, leaf in flatten_dict(weights[COLLECTION], sep="/").items():
        if path.endswith("_magnitude"):
            changed = leaf * (1 + 0.1 * np.sin(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape))
            flat[f"{COLLECTION}/{path}"] = jnp.asarray(changed)
    return model, unflatten_dict(flat, sep="/")


@functools.cache
def merged(kind: str) -> tuple[Llama, dict]:
    model, weights = adapted(kind)
    return Llama(merged_config(model.config)), jax.jit(merge, static_argnums=1)(weights, model.config)


def answers(world: tuple[Llama, dict], way: str, mesh_name: str = "one") -> list[tuple]:
    (model, weights), mesh = world, mesh_of(mesh_name)
    weights = jax.device_put(weights, param_shardings(model, mesh))
    asked = [Request(prompt, NEW) for prompt in prompts(24, seed=1)]
    decoding = Decoding(beams=3, length_penalty=0.5) if way == "beams" else Decoding()
    given = WAYS[way](
        model, weights, asked, decoding=decoding, tokenizer=LETTERS, eos_ids=(EOS,), batch_rows=64, mesh=mesh
    )
    return [(answer.tokens.tolist(), answer.ended_by) for answer in given]


@pytest.mark.parametrize(("kind", "way"), [*((kind, "greedy") for kind in KINDS), ("dora", "beams")])
def test_answers_are_those_of_the_merged_model(kind, way):
    given = answers(adapted(kind), way)
    assert given == answers(merged(kind), way)
    base = answers(trained(steps=120), way)
    assert sum(one != other for one, other in zip(given, base, strict=True)) > 3  # the adapters do something
    assert len({tuple(tokens) for tokens, _ in given}) > 12


@pytest.mark.parametrize(("kind", "way"), [("dora beside nf4", "greedy"), ("dora", "beams")])
def test_answers_do_not_depend_on_the_mesh(kind, way):
    assert answers(adapted(kind), way, "all") == answers(adapted(kind), way)


def test_likelihoods_are_those_of_the_merged_model():
    items = [
        Continuation(prompt, np.array([*prompt[-2:0:-1], EOS], np.int32)) for prompt in prompts(16, seed=2)
    ]

    def scored(world: tuple[Llama, dict], mesh_name: str) -> np.ndarray:
        (model, weights), mesh = world, mesh_of(mesh_name)
        weights = jax.device_put(weights, param_shardings(model, mesh))
        given = likelihoods(model, weights, items, mesh=mesh, vocab_size=VOCAB, batch_rows=64)
        return np.array([(one.logprob, one.prompt_logprob) for one in given])

    wanted = scored(merged("dora"), "one")
    np.testing.assert_allclose(scored(adapted("dora"), "one"), wanted, rtol=0, atol=FP32_SUM)
    np.testing.assert_allclose(scored(adapted("dora"), "all"), wanted, rtol=0, atol=FP32_SUM)
    assert np.abs(wanted - scored(trained(steps=120), "one")).max() > 0.1
