"""Attention that never holds all scores: blocks of queries against blocks of keys, on any platform."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from jaxlingua.model.reference import MASKED, Ids, precision, visible


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def blockwise_attention(
    q: Float[Array, "batch query kv_heads group head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads head_dim"],
    ids: Ids,
    block_tokens: int,
) -> Float[Array, "batch query kv_heads group head_dim"]:
    """A block of queries against a block of keys at a time, forward and backward.

    Cost: block_tokens² scores per head at once. The backward pass keeps q, k, v, the output and one number
    per query, and computes the scores again. Within a row, blocks after the query or before its window are
    skipped.
    """
    return _forward(q, k, v, ids, block_tokens)[0]


class _Blocks(NamedTuple):
    """Arrays cut along tokens; the leading axis counts blocks."""

    q: Float[Array, "blocks batch kv_heads group block head_dim"]
    k: Float[Array, "key_blocks batch kv_heads key_block head_dim"]
    v: Float[Array, "key_blocks batch kv_heads key_block head_dim"]
    query_ids: Int[Array, "blocks 2 batch block"]
    key_ids: Int[Array, "key_blocks 2 batch key_block"]


def _cut(x: Array, axis: int, block: int) -> Array:
    """Cut `axis` into blocks, filled up with zeros, and move their count to the front."""
    count = -(-x.shape[axis] // block)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, count * block - x.shape[axis])
    x = jnp.pad(x, widths)
    return jnp.moveaxis(x.reshape(*x.shape[:axis], count, block, *x.shape[axis + 1 :]), axis, 0)


def _join(blocks: Array, axis: int, length: int) -> Array:
    """The inverse of `_cut`."""
    x = jnp.moveaxis(blocks, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)


def _cut_queries(x: Float[Array, "batch query kv_heads group h"], block: int) -> Array:
    return _cut(x.transpose(0, 2, 3, 1, 4), 3, block)  # i b k g t h


def _cut_all(q: Array, k: Array, v: Array, ids: Ids, block_tokens: int) -> _Blocks:
    block, key_block = min(block_tokens, q.shape[1]), min(block_tokens, k.shape[1])
    return _Blocks(
        q=_cut_queries(q, block),
        k=_cut(k.transpose(0, 2, 1, 3), 2, key_block),
        v=_cut(v.transpose(0, 2, 1, 3), 2, key_block),
        query_ids=_cut(jnp.stack([ids.query_segments, ids.query_positions]), 2, block),
        key_ids=_cut(jnp.stack([ids.key_segments, ids.key_positions]), 2, key_block),
    )


def _blocks_back(blocks: _Blocks, window: Array | int | None) -> Array | int:
    """Within one row: how many blocks before its own the window of a query reaches.

    This counts places, and the window positions. The positions of a document increase from place to place, so
    its tokens are never further apart in the row than in position.
    """
    block, count = blocks.q.shape[4], len(blocks.q)
    return count if window is None else jnp.minimum((window - 2) // block + 1, count)


def _scores(
    q: Array, k: Array, query_ids: Array, key_ids: Array, window: Array | int | None
) -> tuple[Array, Array]:
    """Scores of one block of queries and one of keys, in float32 [b k g t s], and which of them count."""
    mask = visible(Ids(query_ids[0], key_ids[0], query_ids[1], key_ids[1], window))[:, None, None]
    scores = jnp.einsum(
        "bkgth,bksh->bkgts", q, k, precision=precision(q.dtype), preferred_element_type=jnp.float32
    )
    return scores * q.shape[-1] ** -0.5, mask


def _forward(q: Array, k: Array, v: Array, ids: Ids, block_tokens: int) -> tuple[Array, Array]:
    """Output [b t k g h] and log of the softmax's denominator [i b k g t]."""
    blocks = _cut_all(q, k, v, ids, block_tokens)
    one_row, back = q.shape[1] == k.shape[1], _blocks_back(blocks, ids.window)

    def query_block(_, xs):
        i, q_i, query_ids = xs

        def key_block(j, carry):
            out, top, total = carry
            scores, mask = _scores(q_i, blocks.k[j], query_ids, blocks.key_ids[j], ids.window)
            new_top = jnp.maximum(top, jnp.where(mask, scores, MASKED).max(-1))
            weights = jnp.where(mask, jnp.exp(scores - new_top[..., None]), 0)
            shrink = jnp.exp(top - new_top)
            added = jnp.einsum(
                "bkgts,bksh->bkgth", weights.astype(v.dtype), blocks.v[j], precision=precision(v.dtype),
                preferred_element_type=jnp.float32,
            )  # fmt: skip
            return out * shrink[..., None] + added, new_top, total * shrink + weights.sum(-1)

        zero = jnp.zeros(q_i.shape, jnp.float32)
        carry = (zero, jnp.full(q_i.shape[:-1], MASKED), zero[..., 0])
        first, stop = (jnp.maximum(i - back, 0), i + 1) if one_row else (0, len(blocks.k))
        out, top, total = jax.lax.fori_loop(first, stop, key_block, carry)
        some = jnp.where(total > 0, total, 1.0)  # a query that sees nothing: output 0
        return None, ((out / some[..., None]).astype(q.dtype), top + jnp.log(some))

    _, (out, log_total) = jax.lax.scan(
        query_block, None, (jnp.arange(len(blocks.q)), blocks.q, blocks.query_ids)
    )
    out = _join(out, 3, q.shape[1]).transpose(0, 3, 1, 2, 4)  # b t k g h
    # Named here, where the backward pass takes them from, so that a remat policy can keep them.
    return checkpoint_name(out, "attention_out"), checkpoint_name(log_total, "attention_out")


def _forward_and_residuals(q, k, v, ids, block_tokens):
    out, log_total = _forward(q, k, v, ids, block_tokens)
    return out, (q, k, v, ids, out, log_total)


def _backward(block_tokens, residuals, d_out):
    """Gradients of q, k, v; the scores are computed again. Paper: arXiv:2205.14135, algorithm 4."""
    q, k, v, ids, out, log_total = residuals
    blocks = _cut_all(q, k, v, ids, block_tokens)
    one_row, back = q.shape[1] == k.shape[1], _blocks_back(blocks, ids.window)
    block, scale = blocks.q.shape[4], q.shape[-1] ** -0.5
    dot = functools.partial(jnp.einsum, precision=precision(q.dtype), preferred_element_type=jnp.float32)
    d_out_blocks = _cut_queries(d_out, block)
    inner = _cut_queries(jnp.sum(d_out.astype(jnp.float32) * out, -1, keepdims=True), block)  # i b k g t 1

    def key_block(d_q, xs):
        j, k_j, v_j, key_ids = xs

        def query_block(i, carry):
            d_q, d_k, d_v = carry
            q_i, d_out_i = blocks.q[i], d_out_blocks[i]
            scores, mask = _scores(q_i, k_j, blocks.query_ids[i], key_ids, ids.window)
            weights = jnp.where(mask, jnp.exp(scores - log_total[i][..., None]), 0)
            d_v += dot("bkgts,bkgth->bksh", weights.astype(q.dtype), d_out_i)
            d_weights = dot("bkgth,bksh->bkgts", d_out_i, v_j)
            d_scores = (weights * (d_weights - inner[i]) * scale).astype(q.dtype)
            d_k += dot("bkgts,bkgth->bksh", d_scores, q_i)
            d_q = d_q.at[i].add(dot("bkgts,bksh->bkgth", d_scores, k_j))
            return d_q, d_k, d_v

        count = len(blocks.q)
        first, stop = (j, jnp.minimum(j + back + 1, count)) if one_row else (0, count)
        zero = jnp.zeros(k_j.shape, jnp.float32)
        d_q, d_k, d_v = jax.lax.fori_loop(first, stop, query_block, (d_q, zero, zero))
        return d_q, (d_k.astype(k.dtype), d_v.astype(v.dtype))

    zero = jnp.zeros(blocks.q.shape, jnp.float32)
    keys = (jnp.arange(len(blocks.k)), blocks.k, blocks.v, blocks.key_ids)
    d_q, (d_k, d_v) = jax.lax.scan(key_block, zero, keys)
    d_q = _join(d_q, 3, q.shape[1]).transpose(0, 3, 1, 2, 4).astype(q.dtype)  # b t k g h
    d_k, d_v = (_join(x, 2, k.shape[1]).transpose(0, 2, 1, 3) for x in (d_k, d_v))  # b s k h
    return d_q, d_k, d_v, None


blockwise_attention.defvjp(_forward_and_residuals, _backward)
