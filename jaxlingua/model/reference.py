"""Reference attention: all scores at once; and who sees whom, for every kind."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

MASKED = -1e30  # finite, so that a query that sees nothing has no NaN in value or gradient
SHARED = -1  # segment of tokens that every document of their row begins with


class Ids(NamedTuple):
    """Segment and position of every query and every key, and how far back a query sees."""

    query_segments: Int[Array, "batch query"]
    key_segments: Int[Array, "batch key"]
    query_positions: Int[Array, "batch query"]
    key_positions: Int[Array, "batch key"]
    window: Int[Array, ""] | int | None = None


def visible(ids: Ids) -> Bool[Array, "batch query key"]:
    """Which keys a query sees: those of its own segment and shared ones, no padding, none that are later or
    before the window."""
    own = ids.query_segments[:, :, None] == ids.key_segments[:, None, :]
    own |= (ids.key_segments == SHARED)[:, None, :]
    distance = ids.query_positions[:, :, None] - ids.key_positions[:, None, :]
    near = distance >= 0 if ids.window is None else (distance >= 0) & (distance < ids.window)
    return own & near & (ids.query_segments != 0)[:, :, None]


def precision(dtype: jnp.dtype) -> str | None:
    """Of products inside attention: float32 means float32, as everywhere in the model."""
    return "highest" if dtype == jnp.float32 else None


def reference_attention(
    q: Float[Array, "batch query kv_heads group head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads head_dim"],
    ids: Ids,
) -> Float[Array, "batch query kv_heads group head_dim"]:
    """All scores at once: memory grows with query × key.

    The queries of a group stand one after another as rows of one matrix (r), so that each product is a plain
    batched matrix product: forward and backward in 14 ms, where five-dimensional ones take 23 ms, for 16 rows
    of 128 tokens, 6 heads of 32, on one CPU core.
    """
    batch, length, kv_heads, group, head_dim = q.shape
    mask = visible(ids)
    q = q.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, group * length, head_dim)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    dot = functools.partial(jnp.einsum, precision=precision(q.dtype))
    scores = dot("bkrh,bksh->bkrs", q, k, preferred_element_type=jnp.float32) * head_dim**-0.5
    weights = jax.nn.softmax(jnp.where(jnp.tile(mask, (1, group, 1))[:, None], scores, MASKED))
    out = dot("bkrs,bksh->bkrh", weights.astype(v.dtype), v)
    out = out.reshape(batch, kv_heads, group, length, head_dim).transpose(0, 3, 1, 2, 4)
    return jnp.where(mask.any(-1)[:, :, None, None, None], out, 0)
