"""Answers that can only be one of a few: greedy through the tree of their tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxlingua.generate.decoding import Request

END = -1  # in the place of a token: the choice is complete, EOS would follow


class Choices(NamedTuple):
    """The choices of each row, and which agree with what was written; none alive: all may be written."""

    tokens: Int[Array | np.ndarray, "batch choices length"]  # at least one END after each
    alive: Bool[Array | np.ndarray, "batch choices"]


def next_of_choices(
    scores: Float[Array, "batch vocab"],
    choices: Choices,
    counts: Int[Array, " batch"],
    eos_ids: tuple[int, ...],
) -> tuple[Int[Array, " batch"], Choices]:
    """The best scored token among the next ones of the choices alive, and which are alive after it.

    A choice that is complete while others go on competes with the score of EOS (of several, the best).
    """
    at = jnp.minimum(counts, choices.tokens.shape[2] - 1)
    following = jnp.take_along_axis(choices.tokens, at[:, None, None], axis=2)[:, :, 0]  # b choices
    eos = scores[:, jnp.array(eos_ids)].max(axis=-1, keepdims=True)
    of_tokens = jnp.take_along_axis(scores, jnp.maximum(following, 0), axis=1)
    candidates = jnp.where(choices.alive, jnp.where(following == END, eos, of_tokens), -jnp.inf)
    best = jnp.argmax(candidates, axis=1)
    token = jnp.take_along_axis(following, best[:, None], axis=1)
    return jnp.maximum(token[:, 0], 0), choices._replace(alive=choices.alive & (following == token))


def sizes(requests: Sequence[Request]) -> tuple[int, int]:
    """Most choices of any request and their greatest length with its END, as powers of two; 0, 0 for none."""
    most = max((len(request.choices) for request in requests), default=0)
    if most == 0:
        return 0, 0
    longest = max(len(choice) for request in requests for choice in request.choices)
    return 1 << (most - 1).bit_length(), 1 << longest.bit_length()


def table(requests: Sequence[Request], rows: int, size: tuple[int, int]) -> Choices:
    """The choices of a few requests as arrays; of equal ones only the first is alive."""
    tokens, alive = np.full((rows, *size), END, np.int32), np.zeros((rows, size[0]), bool)
    for row, request in enumerate(requests):
        seen = set()
        for number, choice in enumerate(np.asarray(choice, np.int32) for choice in request.choices):
            tokens[row, number, : len(choice)] = choice
            alive[row, number] = choice.tobytes() not in seen
            seen.add(choice.tobytes())
    return Choices(tokens, alive)
