"""Attention by cuDNN on GPUs, through jax.nn."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxlingua.model.reference import Ids


def cudnn_attention(
    q: Float[Array, "batch length kv_heads group head_dim"],
    k: Float[Array, "batch length kv_heads head_dim"],
    v: Float[Array, "batch length kv_heads head_dim"],
    ids: Ids,
    implementation: str = "cudnn",
) -> Float[Array, "batch length kv_heads group head_dim"]:
    """One row's queries against its keys, causal and within segments.

    Causality and the window are the kernel's own and counted in places, so positions are taken to be
    consecutive within a document, as packed rows have them. Segments are a bias in bfloat16 for every query
    and key, 2 × length² bytes a row that all heads share, and its gradient, which is thrown away; scores are
    never held.

    Args:
        implementation: "xla" computes the same on any platform, for tests.
    Raises: RuntimeError from JAX where cuDNN is older than 8.9.4 or the head is wider than it can.
    """
    batch, length, kv_heads, group, head_dim = q.shape
    segments = ids.query_segments
    own = segments[:, :, None] == segments[:, None, :]  # padding sees padding, so that no softmax is empty
    out = jax.nn.dot_product_attention(
        q.reshape(batch, length, kv_heads * group, head_dim), k, v,
        mask=own[:, None], is_causal=True, implementation=implementation,
        local_window_size=None if ids.window is None else (ids.window - 1, 0),
    )  # fmt: skip
    return jnp.where((segments != 0)[:, :, None, None, None], out.reshape(q.shape), 0)
