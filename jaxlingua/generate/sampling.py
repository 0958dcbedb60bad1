"""The next token of every row: the most probable one, or one drawn from those that may be drawn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, UInt32


class Sampling(NamedTuple):
    """What a compiled program has to know of `Decoding`; the seed is data."""

    temperature: float
    top_k: int
    top_p: float


def next_tokens(
    scores: Float[Array, "batch vocab"],
    sampling: Sampling,
    seed: UInt32[Array, ""],
    keys: UInt32[Array, " batch"],
    counts: Int[Array, " batch"],
) -> Int[Array, " batch"]:
    """The next token of each row, by its scores; of equal ones the first.

    What is drawn depends on seed, key of the request and number of the new token alone, so it is the same in
    any row of any batch on any mesh.
    """
    if sampling.temperature == 0:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    allowed = filtered(scores, sampling)

    def draw(scores: Array, key: Array, count: Array) -> Array:
        stream = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), key), count)
        return jax.random.categorical(stream, scores)

    return jax.vmap(draw)(allowed, keys, counts).astype(jnp.int32)


def filtered(scores: Float[Array, "batch vocab"], sampling: Sampling) -> Float[Array, "batch vocab"]:
    """Scores over the temperature, -inf where a token may not be drawn; tokens of one score share their fate.

    First top_k, then top_p of what is left: the fewest tokens, most probable first, that together have at
    least this probability.

    Cost: top_p without top_k sorts the vocabulary.
    Same as: TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper of transformers, in this order.
    """
    scores = scores / sampling.temperature
    vocab = scores.shape[-1]
    kept = min(sampling.top_k, vocab) if sampling.top_k else vocab
    if kept < vocab or sampling.top_p < 1:
        best, _ = jax.lax.top_k(scores, kept)
        least = best[:, -1:]
        if sampling.top_p < 1:
            probability = jax.nn.softmax(best, axis=-1)
            before = jnp.cumsum(probability, axis=-1) - probability
            is_kept = (before < sampling.top_p).at[:, 0].set(True)
            least = jnp.min(jnp.where(is_kept, best, jnp.inf), axis=-1, keepdims=True)
        scores = jnp.where(scores >= least, scores, -jnp.inf)
    return scores
