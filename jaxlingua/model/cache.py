"""The key/value cache of generation: what it holds, an empty one, and writing into it."""

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
