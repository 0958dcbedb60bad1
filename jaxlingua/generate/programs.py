"""What runs on the devices: prompts into free rows, a token of every row at a time, a shorter ring.

A program is compiled for the shapes of a `State` and of the prompts, once for a model and a mesh.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int, UInt32

from jaxlingua.errors import ConfigError, DataError
from jaxlingua.generate.choices import Choices, next_of_choices
from jaxlingua.generate.sampling import Sampling, next_tokens
from jaxlingua.model.cache import CACHE_AXES, RING_AXES, Cache, Ring, empty_cache, empty_ring, turned
from jaxlingua.model.llama import Llama, head_kernel, layers_apart, logits
from jaxlingua.model.lora import collections, joined
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.sharding.rules import (
    RULES,
    MeshFunction,
    batch_sharding,
    check_rows,
    param_shardings,
    replicated,
    rows_multiple,
)


class Rows(NamedTuple):
    """What is known of every row beside its keys and values."""

    written: Int[Array, "batch length"]  # each new token, at the place in the ring of the token before it
    token: Int[Array, " batch"]  # the newest one, not yet in the ring
    position: Int[Array, " batch"]  # of `token`
    count: Int[Array, " batch"]  # new tokens so far, EOS not included
    limit: Int[Array, " batch"]
    key: UInt32[Array, " batch"]  # of the request's random stream
    choices: Choices
    has_eos: Bool[Array, " batch"]  # ended by EOS
    has_ended: Bool[Array, " batch"]  # or never begun
    is_finite: Bool[Array, " batch"]  # whether all scores of its answer were


class State(NamedTuple):
    """All that decoding goes on with."""

    ring: Ring
    rows: Rows


class Prompts(NamedTuple):
    """Prompts for free rows; those of length 0 fill up, and their row is beyond the last."""

    tokens: Int[Array | np.ndarray, "prompts padded"]  # padded on the left
    length: Int[Array | np.ndarray, " prompts"]
    row: Int[Array | np.ndarray, " prompts"]
    limit: Int[Array | np.ndarray, " prompts"]
    key: UInt32[Array | np.ndarray, " prompts"]
    choices: Choices


class Told(NamedTuple):
    """What the host gets to know after each call."""

    written: Int[Array | np.ndarray, "batch length"]
    count: Int[Array | np.ndarray, " batch"]
    alive: Bool[Array | np.ndarray, "batch choices"]
    has_eos: Bool[Array | np.ndarray, " batch"]
    has_ended: Bool[Array | np.ndarray, " batch"]
    is_finite: Bool[Array | np.ndarray, " batch"]
    index: Int[Array | np.ndarray, ""]


class RowTold(NamedTuple):
    """The same of one row."""

    written: np.ndarray
    count: np.integer
    alive: np.ndarray
    has_eos: np.bool_
    has_ended: np.bool_
    is_finite: np.bool_


class Programs(NamedTuple):
    """The jitted functions for one model, mesh and way to choose tokens. A state that goes in is gone."""

    weights: MeshFunction  # params → as they are multiplied, the arrays of each layer apart
    start: MeshFunction  # batch, length, sizes of choices → State without a request
    fill: MeshFunction  # params, State, Prompts, seed → State
    decode: MeshFunction  # weights, State, seed, stopped [b], ended rows to pause at, steps → State, Told
    shorten: MeshFunction  # State, length → State


@functools.lru_cache(maxsize=16)
def programs(
    model: Llama, mesh: Mesh, vocab_size: int, eos_ids: tuple[int, ...], sampling: Sampling
) -> Programs:
    """The programs; for equal arguments the same ones, so that nothing recompiles."""
    config = model.config
    state, told = state_shardings(config, mesh), replicated(mesh)

    def choose(scores: Array, rows: Rows, seed: Array) -> Rows:
        return _with_next(scores, rows, seed, vocab_size, eos_ids, sampling)

    def fill(params: Any, state: State, prompts: Prompts, seed: Array) -> State:
        return _fill(model, params, state, prompts, lambda scores, rows: choose(scores, rows, seed))

    def decode(
        weights: Any, state: State, seed: Array, stopped: Array, pause_at: Array, steps: Array
    ) -> tuple[State, Told]:
        rows = state.rows._replace(has_ended=state.rows.has_ended | stopped)
        state = _decode(
            model, weights, State(state.ring, rows), pause_at, steps, lambda s, rows: choose(s, rows, seed)
        )
        ring, rows = state
        told = Told(
            rows.written,
            rows.count,
            rows.choices.alive,
            rows.has_eos,
            rows.has_ended,
            rows.is_finite,
            ring.index,
        )
        return state, told

    start = functools.partial(_start, config)
    return Programs(
        weights=MeshFunction(
            jax.jit(functools.partial(_weights, config), out_shardings=weight_shardings(model, mesh)), mesh
        ),
        start=MeshFunction(jax.jit(start, static_argnums=(0, 1, 2), out_shardings=state), mesh),
        fill=MeshFunction(jax.jit(fill, donate_argnums=1, out_shardings=state), mesh),
        decode=MeshFunction(jax.jit(decode, donate_argnums=1, out_shardings=(state, told)), mesh),
        shorten=MeshFunction(jax.jit(_shorten, static_argnums=1, out_shardings=state), mesh),
    )


def state_shardings(config: LlamaConfig, mesh: Mesh) -> State:
    """Rows over data and fsdp, key/value heads over tensor."""

    def of_axes(axes: tuple) -> NamedSharding:
        return NamedSharding(mesh, nn.logical_to_mesh_axes(axes, RULES))

    k, v = ((of_axes(axes),) * config.layers for axes in (RING_AXES.k, RING_AXES.v))
    ring = Ring(k, v, *(of_axes(axes) for axes in RING_AXES[2:]))
    rows = batch_sharding(mesh)
    return State(ring, jax.tree.map(lambda _: rows, Rows(*range(6), Choices(0, 0), 0, 0, 0)))


def _start(config: LlamaConfig, batch: int, length: int, choices: tuple[int, int]) -> State:
    zeros = jnp.zeros(batch, jnp.int32)
    table = Choices(jnp.zeros((batch, *choices), jnp.int32), jnp.zeros((batch, choices[0]), bool))
    rows = Rows(
        written=jnp.zeros((batch, length), jnp.int32), token=zeros, position=zeros, count=zeros, limit=zeros,
        key=zeros.astype(jnp.uint32), choices=table, has_eos=zeros > 0, has_ended=zeros == 0,
        is_finite=zeros == 0,
    )  # fmt: skip
    return State(empty_ring(config, batch, length), rows)


def _with_next(
    scores: Float[Array, "batch vocab"],
    rows: Rows,
    seed: Array,
    vocab_size: int,
    eos_ids: tuple[int, ...],
    sampling: Sampling,
) -> Rows:
    """`rows` with the next token of those that have not ended; padded ids of the model are never one."""
    is_token = jnp.arange(scores.shape[-1]) < vocab_size
    is_finite = rows.has_ended | (jnp.isfinite(scores) | ~is_token).all(-1)
    scores = jnp.where(is_token, scores, -jnp.inf)
    token = next_tokens(scores, sampling, seed, rows.key, rows.count)
    is_eos = jnp.isin(token, jnp.array(eos_ids, jnp.int32))
    choices, is_choice, is_decided = rows.choices, False, False
    if choices.alive.shape[1]:
        chosen, after = next_of_choices(scores, choices, rows.count, eos_ids)
        is_choice = choices.alive.any(-1)
        token, is_eos = jnp.where(is_choice, chosen, token), is_eos & ~is_choice
        choices = choices._replace(alive=jnp.where(rows.has_ended[:, None], choices.alive, after.alive))
        is_decided = after.alive.sum(-1) == 1
    is_new = ~rows.has_ended & ~is_eos
    count = rows.count + is_new
    is_last = is_eos | jnp.where(is_choice, is_decided, count >= rows.limit)
    return rows._replace(
        token=token, position=rows.position + 1, count=count, choices=choices,
        has_eos=rows.has_eos | (is_eos & ~rows.has_ended), has_ended=rows.has_ended | is_last | ~is_finite,
        is_finite=rows.is_finite & is_finite,
    )  # fmt: skip


def _fill(model: Llama, params: Any, state: State, prompts: Prompts, choose: Any) -> State:
    """Read prompts in a cache of their own, choose the token after each, and move both into free rows."""
    config, (ring, rows) = model.config, state
    count, padded = prompts.tokens.shape
    length = ring.segments.shape[1]
    positions = jnp.arange(padded, dtype=jnp.int32) - (padded - prompts.length)[:, None]  # < 0: padding
    segments = (positions >= 0).astype(jnp.int32)
    positions = jnp.maximum(positions, 0)
    cache = Cache(
        *(
            nn.with_logical_constraint(array, axes)
            for array, axes in zip(empty_cache(config, count, padded), CACHE_AXES, strict=True)
        )
    )
    hidden, cache = model.apply(
        collections(params), prompts.tokens, positions, segments, cache, method=Llama.hidden
    )
    scores = logits(hidden[:, -1:], head_kernel(params, config), config)[:, 0]
    zeros = jnp.zeros(count, jnp.int32)
    new = choose(
        scores,
        Rows(
            written=jnp.zeros((count, length), jnp.int32), token=zeros, position=prompts.length - 1,
            count=zeros, limit=prompts.limit, key=prompts.key, choices=prompts.choices,
            has_eos=prompts.length < 0, has_ended=prompts.length < 1,
            is_finite=prompts.length >= 0,
        ),
    )  # fmt: skip
    new = new._replace(written=new.written.at[:, (ring.index - 1) % length].set(new.token))

    def in_ring(array: Array, axis: int) -> Array:
        """The places of the prompts, the last one just before the ring's index."""
        widths = [(0, length - padded if here == axis else 0) for here in range(array.ndim)]
        return jnp.roll(jnp.pad(array, widths), ring.index - padded, axis)

    def put(old: Array, array: Array) -> Array:
        return old.at[prompts.row].set(array, mode="drop")

    k, v = (
        tuple(put(old, in_ring(layer.swapaxes(1, 2), 2)) for old, layer in zip(layers, stacked, strict=True))
        for layers, stacked in ((ring.k, cache.k), (ring.v, cache.v))
    )
    segments, positions = (
        put(old, in_ring(array, 1)) for old, array in ((ring.segments, segments), (ring.positions, positions))
    )
    return State(Ring(k, v, segments, positions, ring.index), jax.tree.map(put, rows, new))


def _decode(model: Llama, weights: Any, state: State, pause_at: Array, steps: Array, choose: Any) -> State:
    """A token of every row at a time, until so many rows have ended or so many steps are done."""
    config = model.config
    kernel = head_kernel(weights, config)

    def more(carry: tuple[Array, State]) -> Array:
        step, (_, rows) = carry
        return (step < steps) & (rows.has_ended.sum() < pause_at)

    def one_token(carry: tuple[Array, State]) -> tuple[Array, State]:
        step, (ring, rows) = carry
        place = ring.index
        inputs = (rows.token, rows.position, (~rows.has_ended).astype(jnp.int32), ring)
        hidden, ring = model.apply(collections(weights), *inputs, method=Llama.next_hidden)
        scores = logits(hidden[:, None], kernel, config)[:, 0]
        after = choose(scores, rows)
        here = (0, place)
        before = jax.lax.dynamic_slice(rows.written, here, (rows.written.shape[0], 1))
        token = jnp.where(rows.has_ended[:, None], before, after.token[:, None])
        after = after._replace(written=jax.lax.dynamic_update_slice(rows.written, token, here))
        return step + 1, State(ring, after)

    return jax.lax.while_loop(more, one_token, (jnp.int32(0), state))[1]


def _shorten(state: State, length: int) -> State:
    """The same rows, of which none needs more than `length` places, in a ring of that length.

    Memory: the old ring and the new one at one time, and a turned copy of one layer's keys or values.
    """
    ring, rows = state
    written = jnp.roll(rows.written, -ring.index, 1)[:, -length:]
    return State(turned(ring, ring.index, length), rows._replace(written=written))


def weight_shardings(model: Llama, mesh: Mesh) -> Any:
    """Of `Programs.weights`: as of the parameters, but for the axis of layers."""

    def apart(shardings: dict) -> dict:
        of_layer = jax.tree.map(
            lambda one: NamedSharding(mesh, PartitionSpec(*one.spec[1:])), shardings.get("layers", {})
        )
        return {**shardings, "layers": (of_layer,) * model.config.layers}

    shardings = collections(param_shardings(model, mesh))
    return joined({name: apart(tree) for name, tree in shardings.items()})


def _weights(config: LlamaConfig, params: Any) -> Any:
    """Matrices as they are multiplied, cast and parted once instead of at every token.

    Norms stay float32, codes stay codes with their scales.
    """

    def cast(path: Any, leaf: Array) -> Array:
        is_kept = path[-1].key.endswith(("scale", "magnitude")) or not jnp.issubdtype(
            leaf.dtype, jnp.floating
        )
        return leaf if is_kept else leaf.astype(config.compute_dtype)

    return layers_apart(jax.tree_util.tree_map_with_path(cast, params), config)


def on_mesh(array: np.ndarray, sharding: NamedSharding) -> Array:
    """A global array of which every process places its own part."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def check_finite(is_finite: bool | np.bool_, what: str) -> None:
    """Refuse what a broken model answers. Raises: DataError."""
    if not is_finite:
        raise DataError(
            f"{what}: the model's logits are not finite; its weights are damaged or training has diverged; "
            f"evaluate another step"
        )


def check_batch_rows(rows: int, mesh: Mesh) -> None:
    """Refuse a number of rows that cannot be spread evenly over the mesh, or is none.

    Raises: ConfigError, ShardingError.
    """
    if rows < 1:
        raise ConfigError(
            f"generate.batch_rows: {rows} given; it must be a multiple of {rows_multiple(mesh)} above 0; "
            f"change it"
        )
    check_rows("generate.batch_rows", rows, mesh)
