"""Adapters of several stages, stacked and merged: one function, of which the newest part is trained."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlingua.config import OptimizerConfig, StageConfig
from jaxlingua.errors import ConfigError
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import COLLECTION, PATHS, TARGETS, Lora, collections, side_by_side, with_merged
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.sharding.memory import bytes_per_device, step_memory
from jaxlingua.sharding.rules import init_params
from jaxlingua.train.earlier import Earlier, earlier_adapters, refuse_adapters
from jaxlingua.train.objective import summed_loss
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import (
    MERGED,
    STACKED,
    TrainState,
    abstract_state,
    shardings_of,
    state_around,
    weights_of,
    with_new_adapters,
)
from jaxlingua.train.step import make_train_step
from tests.tiny import tiny_llama_config
from tests.train.world import OBJECTIVE, flat, mesh_of, random_batch

EXACT = 1e-5  # of logits, absolute, in float32
GRADIENT = 1e-5  # of the largest number of a gradient
RANK = 2


@cache
def sizes(*, rank_stabilized: bool = False, base: str = "float32", rank: int = RANK) -> LlamaConfig:
    lora = Lora(rank, 3.0 * rank, TARGETS, rank_stabilized=rank_stabilized, base=base)
    return tiny_llama_config(layers=2, tie_embeddings=False, lora=lora)


def stacked_sizes(one: LlamaConfig, count: int) -> LlamaConfig:
    return Earlier(stacked=count - 1).sizes(one)


def adapters(one: LlamaConfig, seed: int) -> dict:
    """Far from the zeros that they begin with."""
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    shapes = jax.eval_shape(lambda: nn.unbox(init_params(Llama(one), jax.random.key(0), mesh_of())))
    drawn = jax.tree.map(lambda leaf: 0.05 * jax.random.normal(next(keys), leaf.shape), shapes[COLLECTION])
    return {COLLECTION: drawn}


@cache
def base(dtype: str = "float32") -> dict:
    """Weights without adapters; `with_merged` writes over what it is given, so it gets a copy."""
    plain = replace(sizes(), lora=None)
    weights = nn.unbox(init_params(Llama(plain), jax.random.key(0), mesh_of()))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), weights)


def copied(tree: dict) -> dict:
    return jax.tree.map(jnp.copy, tree)


def logits(config: LlamaConfig, weights: dict) -> np.ndarray:
    batch = random_batch(2, 16)
    rows = batch.tokens, batch.positions, batch.segments
    return np.asarray(jax.jit(Llama(config).apply)(collections(weights), *rows))


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_stacked_and_merged_adapters_answer_as_the_sum_of_all_products(rank_stabilized):
    """W + s·Σ AᵢBᵢ, by NumPy in float64."""
    one = sizes(rank_stabilized=rank_stabilized)
    first, second, third = (adapters(one, seed) for seed in (1, 2, 3))
    whole = flatten_dict(base(), sep="/")
    scale = 3.0 * RANK / (RANK**0.5 if rank_stabilized else RANK)
    for target in TARGETS:
        path, where, inputs, out = PATHS[target]
        stack = "l" * path.startswith("layers/")
        for each in (first, second, third):
            parts = flatten_dict(each, sep="/")
            a, b = (np.float64(parts[f"{where}_{ending}"]) for ending in "ab")
            added = scale * np.einsum(f"{stack}{inputs}r,{stack}r{out}->{stack}{inputs}{out}", a, b)
            whole[path] = whole[path] + added
    whole = jax.tree.map(jnp.float32, unflatten_dict(whole, sep="/"))
    wanted = logits(replace(one, lora=None), whole)

    earlier = side_by_side([first, second])
    side = logits(stacked_sizes(one, 3), weights_of(base() | earlier, third))
    merged = logits(one, with_merged(copied(base()), earlier, one) | third)
    assert np.abs(wanted - logits(replace(one, lora=None), base())).max() > 0.1
    np.testing.assert_allclose(side, wanted, atol=EXACT, rtol=0)
    np.testing.assert_allclose(merged, wanted, atol=EXACT, rtol=0)


def test_adapters_are_merged_alike_at_once_and_one_by_one():
    """A run that goes on merges at once what stages have merged one by one, also where numbers are rounded."""
    one = sizes(base="bfloat16")
    first, second = adapters(one, 1), adapters(one, 2)
    at_once = with_merged(copied(base("bfloat16")), side_by_side([first, second]), one)
    in_turn = with_merged(with_merged(copied(base("bfloat16")), first, one), second, one)
    for path, leaf in flatten_dict(at_once, sep="/").items():
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(leaf, flatten_dict(in_turn, sep="/")[path], err_msg=path)
    assert np.abs(flat(at_once) - flat(base("bfloat16"))).max() > 0.1


def test_gradients_of_the_new_part_are_those_beside_a_merged_base():
    one, batch = sizes(), random_batch(2, 16)
    first, second, new = (adapters(one, seed) for seed in (1, 2, 3))
    earlier = side_by_side([first, second])

    def gradient(config: LlamaConfig, fixed: dict) -> dict:
        def loss(params: dict) -> jax.Array:
            return summed_loss(Llama(config), weights_of(fixed, params), batch, OBJECTIVE)[0]

        return jax.jit(jax.grad(loss))(new)

    stacked = gradient(stacked_sizes(one, 3), base() | earlier)
    merged = gradient(one, with_merged(copied(base()), earlier, one))
    for path, leaf in flatten_dict(merged, sep="/").items():
        assert np.abs(leaf).max() > 1e-3
        found = flatten_dict(stacked, sep="/")[path]
        np.testing.assert_allclose(found, leaf, atol=GRADIENT * np.abs(leaf).max(), rtol=0, err_msg=path)


def first_state(one: LlamaConfig, mesh, optimizer: optax.GradientTransformation) -> TrainState:
    weights = base() | adapters(one, 1)
    shardings = shardings_of(abstract_state(Llama(one), optimizer, mesh))
    return state_around(jax.device_put(copied(weights), shardings.weights), Llama(one), optimizer, mesh)


@pytest.mark.parametrize("is_merged", [False, True], ids=["stack", "merge"])
def test_a_stage_begins_with_the_answers_of_the_one_before_and_trains_new_adapters_alone(is_merged):
    one, mesh, batch = sizes(), mesh_of(fsdp=2, tensor=2), random_batch(4, 16)
    optimizer, schedule = make_optimizer(OptimizerConfig(peak_lr=0.01), 10)
    model, state = Llama(one), first_state(one, mesh, optimizer)
    before, learned = logits(one, jax.device_get(state.weights)), jax.device_get(state.params)
    state = with_new_adapters(state, model, mesh, 0, 1, is_merged=is_merged)
    earlier = Earlier(merged=1) if is_merged else Earlier(stacked=1)
    abstract = abstract_state(model, optimizer, mesh, earlier=earlier)
    config = earlier.sizes(one)
    assert shardings_of(state.replace(opt_state=())) == shardings_of(abstract.replace(opt_state=()))
    assert shardings_of(state.weights) == shardings_of(abstract).weights
    np.testing.assert_allclose(logits(config, jax.device_get(state.weights)), before, atol=EXACT, rtol=0)

    kept, frozen = jax.device_get((state.earlier, state.frozen))
    name = MERGED if is_merged else STACKED
    assert list(kept) == [name]
    np.testing.assert_array_equal(flat(kept[name]), flat(learned))
    a, b = (state.params[COLLECTION]["layers"]["attention"][f"q_{ending}"] for ending in "ab")
    assert not np.any(b)
    assert np.abs(a - learned[COLLECTION]["layers"]["attention"]["q_a"]).max() > 0

    memory = step_memory(
        abstract, config, mesh,
        batch_rows=4, micro_batches=2, row_length_tokens=16, loss_chunk_tokens=64,
    )  # fmt: skip
    assert memory.frozen == bytes_per_device(state.frozen) + bytes_per_device(state.earlier)
    state = state.replace(
        opt_state=jax.device_put(optimizer.init(state.params), shardings_of(abstract.opt_state))
    )
    first = jax.device_get(state.params)
    step = make_train_step(Llama(config), optimizer, schedule, OBJECTIVE, shardings_of(abstract), 2)
    for _ in range(3):  # in the first only what stands beside zeros has a gradient
        state, _ = step(state, batch)
    np.testing.assert_array_equal(flat(state.earlier), flat(kept))
    np.testing.assert_array_equal(flat(state.frozen), flat(frozen))
    for path, leaf in flatten_dict(state.params, sep="/").items():
        assert np.any(leaf != flatten_dict(first, sep="/")[path]), path


def test_each_stage_draws_its_own_adapters():
    one, mesh = sizes(rank=1), mesh_of()
    state, drawn = first_state(one, mesh, optax.identity()), []
    for place in (1, 2, 2):
        begun = with_new_adapters(state, Llama(one), mesh, 0, place, is_merged=False)
        drawn.append(flat(begun.params))
    assert np.any(drawn[0] != drawn[1])
    np.testing.assert_array_equal(drawn[1], drawn[2])


def stages(*how: str) -> list[StageConfig]:
    return [
        StageConfig(name=f"s{place}", mixture={"one": {}}, steps=1, adapters=each)
        for place, each in enumerate(how)
    ]


def test_adapters_of_earlier_stages_are_counted_where_they_are():
    sequence = stages("continue", "stack", "continue", "stack", "merge", "continue", "stack", "merge")
    counted = [(each.merged, each.stacked) for each in earlier_adapters(sequence)]
    assert counted == [(0, 0), (0, 1), (0, 1), (0, 2), (3, 0), (3, 0), (3, 1), (5, 0)]


@pytest.mark.parametrize(
    ("how", "changes", "lora", "said"),
    [
        ("stack", {}, {"dora": True}, "stage 's1', adapters: stack given with the DoRA of model.lora.adapter"),
        ("merge", {"tie_embeddings": True}, {}, "stage 's1', adapters: merge given with an adapter of embed or"),
        ("stack", {}, {"rank": 12}, "stage 's2', adapters: stack given, 3 adapters side by side, whose ranks add "),
    ],
)  # fmt: skip
def test_what_cannot_stand_side_by_side_is_refused_in_one_line(how, changes, lora, said):
    one = replace(sizes(), **changes, lora=replace(sizes().lora, **lora))
    with pytest.raises(ConfigError) as refused:
        refuse_adapters(stages("continue", how, how), one)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)
    refuse_adapters(stages("continue", "continue"), one)
