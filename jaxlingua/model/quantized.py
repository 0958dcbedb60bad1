"""Frozen weights in eight or four bits: codes, and one scale for every block of 64 of them.

A block runs along one axis, the last of those that a weight sums over, as the blocks of bitsandbytes do in
its [output, input] matrices. Codes have the shape of the weight and scales the same with that axis divided
by the block. Nothing is packed here, since XLA itself puts two uint4 into one byte.

The arrays of qwix are not used: it finds nf4 codes by an argmin over all sixteen levels and the levels again
by a gather, and for each XLA for TPUs keeps several float32 copies of the weight.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import optimization_barrier
from jax.typing import DTypeLike
from jaxtyping import Float, Float32, Integer

KINDS = ("int8", "nf4")
_BLOCK = 64

# Quantiles of the normal distribution, scaled to end at -1 and 1, with a zero. Paper: arXiv:2305.14314, E.
NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
_MIDPOINTS = (NF4[:-1] + NF4[1:]) / 2


def block_size(numbers: int) -> int:
    """How many numbers share a scale along an axis of so many: 64, or what of it divides the axis.

    Example:
        >>> block_size(4096), block_size(80)
        (64, 16)
    """
    return math.gcd(_BLOCK, numbers)


def quantize(
    weight: Float[Array, "*shape"], kind: str, axis: int
) -> tuple[Integer[Array, "*shape"], Float32[Array, "*scales"]]:
    """Codes of a weight and the scales of its blocks along `axis`.

    int8: the nearest multiple of the block's largest magnitude / 127, halves to even, in int8. nf4: the level
    nearest to weight / largest magnitude, in uint4. A block of zeros has zeros for values, and one that holds
    what is not finite has no finite value.

    Args:
        kind: one of KINDS.
    Cost: elementwise; no more than the weight in float32 beside the weight and its codes.
    Paper: arXiv:2305.14314, section 3 (nf4).
    Same as: bitsandbytes' quantize_4bit with blocks of 64 and no compress_statistics (nf4).
    """
    blocks = _blocks(weight.astype(jnp.float32), axis)
    inner = axis % weight.ndim + 1
    largest = jnp.abs(blocks).max(inner, keepdims=True)
    # The least normal number, for blocks of zeros: their quotients are zeros.
    least = jnp.finfo(jnp.float32).tiny
    if kind == "int8":
        scales = largest * np.float32(1 / 127)  # a division by a constant is now and then compiled to this
        codes = jnp.round(blocks / jnp.maximum(scales, least)).astype(jnp.int8)
    else:
        scales = largest
        relative = blocks * (1 / jnp.maximum(scales, least))
        codes = sum((relative > midpoint).astype(jnp.int8) for midpoint in _MIDPOINTS).astype(jnp.uint4)
    return codes.reshape(weight.shape), scales.squeeze(inner)


def dequantize(
    codes: Integer[Array, "*shape"], scales: Float32[Array, "*scales"], dtype: DTypeLike, axis: int
) -> Float[Array, "*shape"]:
    """The weight that `quantize` made codes and scales of, computed in float32 and rounded to `dtype` once.

    Cost: one fused pass; XLA for TPUs writes the weight in `dtype` before the product that reads it.
    """
    # Without a barrier XLA for TPUs cuts into blocks after the levels, which it first writes out in float32.
    blocks = optimization_barrier(_blocks(codes, axis))
    values = blocks.astype(jnp.float32) if codes.dtype == jnp.int8 else _levels(blocks)
    values = values * jnp.expand_dims(scales, axis % codes.ndim + 1)
    return values.reshape(codes.shape).astype(dtype)


def _blocks(x: Array, axis: int) -> Array:
    """`axis` in two: blocks, and the numbers of each."""
    axis %= x.ndim
    block = block_size(x.shape[axis])
    return x.reshape(*x.shape[:axis], -1, block, *x.shape[axis + 1 :])


def _levels(codes: Array) -> Array:
    """NF4[codes] without a gather: the lowest bit of a code decides between neighbors, and so on up."""
    codes, found = codes.astype(jnp.int32), list(NF4)
    for bit in range(4):
        is_set = codes & (1 << bit) != 0
        found = [jnp.where(is_set, odd, even) for even, odd in zip(found[::2], found[1::2], strict=True)]
    return found[0]
