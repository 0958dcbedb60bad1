"""Keys and values of the tokens so far: the cache of a prompt, and the ring that decoding goes round in."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxlingua.model.presets import LlamaConfig


class Cache(NamedTuple):
    """Keys and values of all layers so far. Rows share one write position, `index`.

    A place is empty, or padding, where its segment is 0; nothing attends to it.
    """

    k: Float[Array, "layers batch length kv_heads head_dim"]
    v: Float[Array, "layers batch length kv_heads head_dim"]
    segments: Int[Array, "batch length"]
    positions: Int[Array, "batch length"]
    index: Int[Array, ""]


# Logical axes of each field, for those who place a cache on a mesh.
CACHE_AXES = Cache(
    k=(None, "activation_batch", None, "activation_kv_heads", None),
    v=(None, "activation_batch", None, "activation_kv_heads", None),
    segments=("activation_batch", None),
    positions=("activation_batch", None),
    index=(),
)


def empty_cache(config: LlamaConfig, batch: int, length: int, dtype: jnp.dtype | str | None = None) -> Cache:
    """A cache for `length` tokens per row, prompt and padding included; `dtype` None is the compute dtype.

    Writing beyond `length` overwrites the last places: the caller sees to it that all steps fit.
    """
    shape = (config.layers, batch, length, config.kv_heads, config.head_dim)
    dtype = jnp.dtype(dtype or config.compute_dtype)
    return Cache(
        k=jnp.zeros(shape, dtype),
        v=jnp.zeros(shape, dtype),
        segments=jnp.zeros((batch, length), jnp.int32),
        positions=jnp.zeros((batch, length), jnp.int32),
        index=jnp.zeros((), jnp.int32),
    )


def note_tokens(cache: Cache, positions: Int[Array, "batch new"], segments: Int[Array, "batch new"]) -> Cache:
    """`cache` with positions and segments of new tokens written at its index; the rest unchanged."""
    start = (0, cache.index)
    return cache._replace(
        positions=jax.lax.dynamic_update_slice(cache.positions, positions.astype(jnp.int32), start),
        segments=jax.lax.dynamic_update_slice(cache.segments, segments.astype(jnp.int32), start),
    )


def write_layer(
    stacked: Float[Array, "layers batch length kv_heads head_dim"],
    new: Float[Array, "batch new kv_heads head_dim"],
    layer: Int[Array, ""],
    index: Int[Array, ""],
) -> tuple[
    Float[Array, "layers batch length kv_heads head_dim"], Float[Array, "batch length kv_heads head_dim"]
]:
    """All layers' keys (or values) with `new` written into one layer, and that layer alone.

    Only the new places are written, so that a decoding loop updates the cache in place.
    """
    stacked = jax.lax.dynamic_update_slice(stacked, new[None].astype(stacked.dtype), (layer, 0, index, 0, 0))
    return stacked, jax.lax.dynamic_index_in_dim(stacked, layer, axis=0, keepdims=False)


class Ring(NamedTuple):
    """Keys and values per layer, one token of every row at a time, written round and round.

    All rows write at one place, `index`, over what was written a whole round ago. Who sees what follows from
    segments and positions alone, never from the place: a row is emptied by segments of 0, and a document may
    begin anywhere. Every layer has arrays of its own, with the heads before the places: each product of
    attention then reads memory as it lies, and nothing is copied. With 64 rows of 320 places, 6 layers of 4
    heads of 64, a token took 31 ms so on 4 CPU cores in a trial of this layout, and 48 ms with `Cache`.
    """

    k: tuple[Float[Array, "batch kv_heads length head_dim"], ...]
    v: tuple[Float[Array, "batch kv_heads length head_dim"], ...]
    segments: Int[Array, "batch length"]
    positions: Int[Array, "batch length"]
    index: Int[Array, ""]


# Logical axes of a ring; `k` and `v` stand for each layer's.
RING_AXES = Ring(
    k=("activation_batch", "activation_kv_heads", None, None),
    v=("activation_batch", "activation_kv_heads", None, None),
    segments=("activation_batch", None),
    positions=("activation_batch", None),
    index=(),
)


def empty_ring(config: LlamaConfig, batch: int, length: int) -> Ring:
    """A ring in the compute dtype for documents of at most `length` tokens, the new ones included."""
    shape = (batch, config.kv_heads, length, config.head_dim)
    k, v = (tuple(jnp.zeros(shape, config.compute_dtype) for _ in range(config.layers)) for _ in "kv")
    places = jnp.zeros((batch, length), jnp.int32)
    return Ring(k, v, places, places, jnp.zeros((), jnp.int32))


def note_token(ring: Ring, positions: Int[Array, "batch 1"], segments: Int[Array, "batch 1"]) -> Ring:
    """`ring` with position and segment of each row's new token written at its index; the rest unchanged."""
    return ring._replace(
        positions=jax.lax.dynamic_update_slice(ring.positions, positions, (0, ring.index)),
        segments=jax.lax.dynamic_update_slice(ring.segments, segments, (0, ring.index)),
    )


def write_token(
    ring: Float[Array, "batch kv_heads length head_dim"],
    new: Float[Array, "batch 1 kv_heads head_dim"],
    index: Int[Array, ""],
) -> Float[Array, "batch kv_heads length head_dim"]:
    """One layer's keys (or values) with those of each row's new token at place `index`."""
    return jax.lax.dynamic_update_slice(ring, new.swapaxes(1, 2).astype(ring.dtype), (0, 0, index, 0))


def turned(ring: Ring, index: Int[Array, ""], length: int) -> Ring:
    """The last `length` places before the index of a longer ring, as a ring of that length with index 0."""

    def turn(array: Array, axis: int) -> Array:
        rolled = jnp.roll(array, -index, axis)
        return jax.lax.slice_in_dim(rolled, array.shape[axis] - length, array.shape[axis], axis=axis)

    k, v = (tuple(turn(layer, 2) for layer in layers) for layers in (ring.k, ring.v))
    return Ring(k, v, turn(ring.segments, 1), turn(ring.positions, 1), jnp.zeros_like(index))
