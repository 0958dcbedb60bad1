"""What names a model by its weights: the same on every mesh, another for every other set of weights."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import UInt

from jaxlingua.tracking import fetch


def fingerprint_of(params: Any) -> str:
    """A hash of all parameters, their names, shapes and types.

    Each weight's bits are hashed with its place, and the hashes added modulo 2^32, which is exact in any
    order: devices add their parts, and only two numbers of each parameter leave them.

    Cost: one pass over the parameters on the devices.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    sums = fetch([_sums(leaf) for _, leaf in leaves])
    digest = hashlib.sha256()
    for (path, leaf), pair in zip(leaves, sums, strict=True):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape} {pair.tolist()}".encode())
    return digest.hexdigest()


def name_of(weights: str, tokenizer: str, eos_ids: Sequence[int]) -> str:
    """What names all that answers: weights and tokenizer by their fingerprints, and what ends an answer."""
    return hashlib.sha256(json.dumps([weights, tokenizer, list(eos_ids)]).encode()).hexdigest()


@jax.jit
def _sums(leaf: Array) -> UInt[Array, "2"]:
    if jnp.issubdtype(leaf.dtype, jnp.integer):  # codes, some of four bits
        bits = leaf.astype(jnp.uint32)
    else:
        unsigned = {2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):
        place = place * jnp.uint32(leaf.shape[axis] % 2**32) + jax.lax.broadcasted_iota(
            jnp.uint32, leaf.shape, axis
        )
    return jnp.stack([jnp.sum(_mixed(bits ^ _mixed(place + jnp.uint32(start)))) for start in (1, 0x9E3779B9)])


def _mixed(number: Array) -> Array:
    """Numbers that look random, one for each. Constants: lowbias32 of Chris Wellons's hash prospector."""
    number = (number ^ (number >> 16)) * jnp.uint32(0x7FEB352D)
    number = (number ^ (number >> 15)) * jnp.uint32(0x846CA68B)
    return number ^ (number >> 16)
