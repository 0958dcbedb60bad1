"""Attention by the splash kernel on TPUs: blocks in fast memory, those after the query never visited."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Float

from jaxlingua.model.reference import Ids

# The fused backward kernel writes the gradient of the queries once for every block of keys and adds them up
# afterwards: with more blocks than these, that memory is no longer worth the 23 % of attention time it saves.
_FUSED_BLOCKS = 4


def splash_attention(
    q: Float[Array, "batch length kv_heads group head_dim"],
    k: Float[Array, "batch length kv_heads head_dim"],
    v: Float[Array, "batch length kv_heads head_dim"],
    ids: Ids,
    interpret: bool = False,
) -> Float[Array, "batch length kv_heads group head_dim"]:
    """One row's queries against its keys, causal and within segments, by Pallas on each device's own heads.

    Query heads read the keys of their group where they lie. Any head_dim; 64 fills half of a TPU's lanes.
    Positions are taken to be consecutive within a document, as packed rows have them, so that a window
    counts places. Scores and softmax are float32, products bfloat16 on a TPU.

    Cost: a block of queries times a block of keys in VMEM. The backward pass keeps q, k, v, the output and
    one number per query, the latter two named "attention_out" for remat policies, and is one kernel for
    dq, dk and dv in rows of up to 4,096 tokens.

    Args:
        interpret: compute on a CPU what the kernel would, slowly; for tests.
    """
    scaled = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
    by_head = scaled.transpose(0, 2, 3, 1, 4)  # b k g t h
    attend = functools.partial(_on_device, window=ids.window, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:  # a kernel knows nothing of meshes: each device is given its rows and its heads
        specs = [
            nn.logical_to_mesh_axes(("activation_batch", *axes))
            for axes in (("activation_kv_heads",) + (None,) * 3, ("activation_kv_heads", None, None), (None,))
        ]
        queries, keys, segments = specs
        attend = jax.shard_map(
            attend, in_specs=(queries, keys, keys, segments), out_specs=queries, check_vma=False
        )
    out = attend(by_head, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), ids.query_segments)
    out = out.transpose(0, 3, 1, 2, 4)  # b t k g h
    return jnp.where((ids.query_segments != 0)[:, :, None, None, None], out, 0)


def _on_device(
    q: Array, k: Array, v: Array, segments: Array, *, window: int | None, interpret: bool
) -> Array:
    """q [b k g t h], k and v [b k t h], segments [b t]; the output like q."""
    batch, kv_heads, group, length, head_dim = q.shape
    kernel = _kernel(length, kv_heads * group, window, interpret)
    ids = splash.SegmentIds(segments, segments)
    out = jax.vmap(kernel)(q.reshape(batch, kv_heads * group, length, head_dim), k, v, ids)
    return out.reshape(q.shape)


def _kernel(length: int, heads: int, window: int | None, interpret: bool) -> splash.SplashAttentionKernel:
    shape = (length, length)
    mask = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), 0)
    block = block_tokens(length)
    is_fused = length // block <= _FUSED_BLOCKS
    apart = None if is_fused else block
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=apart,
        block_kv_dq=apart, use_fused_bwd_kernel=is_fused,
    )  # fmt: skip
    return splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads), block_sizes=sizes, head_shards=1, q_seq_shards=1,
        residual_checkpoint_name="attention_out", interpret=interpret,
    )  # fmt: skip


def block_tokens(length: int) -> int:
    """Queries, and keys, of one block: the most that divide the row, up to 1,024, or 512 in rows of 1,024.

    Of 1,024 × 1,024 a row of 2,048 visits 3 blocks of 4; of 512 × 512 one of 1,024 visits 3 of 4. Larger
    ones visit more, smaller ones wait more, and 2,048 × 2,048 is more than the fast memory holds.

    Example:
        >>> [block_tokens(length) for length in (128, 640, 1024, 1536, 2048, 4096)]
        [128, 128, 512, 768, 1024, 1024]
    """
    most = 1024 if length > 1024 else 512
    return max(block for block in range(128, most + 1, 128) if length % block == 0)
