"""Stage 6, generate: how probable a model finds given continuations of given prompts.

Rows are sorted by length and padded at the right to one of few lengths. What a row gets does not depend on
its neighbors, and logits exist for a chunk of positions at a time. Continuations of one prompt share a row,
in which it is read once.
"""

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from jaxlingua.errors import ConfigError, DataError
from jaxlingua.generate.programs import check_batch_rows, check_finite, on_mesh
from jaxlingua.generate.prompts import padded_length
from jaxlingua.generate.shared_prefix import Reading, filled, length, places, readings
from jaxlingua.model.llama import Llama, head_kernel, logits
from jaxlingua.model.lora import collections
from jaxlingua.sharding.rules import (
    MeshFunction,
    batch_sharding,
    batch_shards,
    replicated,
    rows_multiple,
)
from jaxlingua.tracking import fetch

# Positions whose logits one device holds at one time: 0.5 GiB for a vocabulary of 128 thousand.
_CHUNK_POSITIONS = 1024


@dataclass(frozen=True, eq=False, slots=True)
class Continuation:
    """A prompt and what follows it, both at least one token."""

    prompt: np.ndarray  # int32 ids, BOS included
    tokens: np.ndarray  # int32 ids, EOS included where it shall count


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-probability in nats of a continuation and of the prompt before it.

    Example:
        >>> one = Likelihood(logprob=-3.0, tokens=2, prompt_logprob=-9.0, prompt_tokens=4, is_greedy=False)
        >>> one.per_token, one.whole_sequence, one.per_character("yes.")
        (-1.5, -2.0, -0.75)
    """

    logprob: float  # sum over the tokens of the continuation, given all before each
    tokens: int
    prompt_logprob: float  # sum over the tokens of the prompt but the first
    prompt_tokens: int  # how many these are
    is_greedy: bool  # whether every token of the continuation is the most probable one in its place

    @property
    def per_token(self) -> float:
        return self.logprob / self.tokens

    @property
    def whole_sequence(self) -> float:
        """Mean over all tokens of prompt and continuation that follow another: minus the loss of the text."""
        return (self.prompt_logprob + self.logprob) / (self.prompt_tokens + self.tokens)

    def per_character(self, text: str) -> float:
        """The sum divided by the code points of `text`, which is the continuation and not empty."""
        return self.logprob / len(text)


def likelihoods(
    model: Llama,
    params: Any,
    continuations: Sequence[Continuation],
    *,
    vocab_size: int,
    batch_rows: int,
    mesh: Mesh,
    groups: Sequence[Hashable] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_answer: Callable[[int, Likelihood], None] = lambda index, likelihood: None,
) -> list[Likelihood]:
    """Log-probabilities of each continuation after its prompt, softmax in float32 over `vocab_size` tokens.

    Args:
        params: plain parameters, sharded over `mesh`.
        vocab_size: the tokenizer's; padded ids of the model above it have no share in any softmax.
        batch_rows: rows read together over all devices; changes speed and memory only.
        groups: of each continuation; the tokens that all of one group begin with are read once for them (or
            for as many as share a row). Without it those of equal prompts are a group. Changes speed only.
        on_progress: called with continuations done and continuations in all.
        on_answer: called with an index and what it got as soon as it is known: those with a row
            of their own first, of these the longest first.
    Raises: DataError naming the index of a continuation that is empty, longer than the model reads, or has
        ids that the tokenizer has not, and where the model's logits are not finite; ShardingError for rows
        that do not divide over the mesh.
    Cost: one forward pass, one compilation for each padded length, and for each of rows that are shared.
    Same as: lm-evaluation-harness' loglikelihood, but for the numbers of the prompt.
    """
    check_batch_rows(batch_rows, mesh)
    _check(continuations, model.config.max_positions, vocab_size, model.config.vocab_size)
    documents = [np.concatenate([each.prompt, each.tokens]) for each in continuations]
    groups = [each.prompt.tobytes() for each in continuations] if groups is None else groups
    rows = readings(documents, groups, model.config.max_positions, model.config.sliding_window)
    answers: list[Likelihood | None] = [None] * len(continuations)
    done = 0
    for of_kind, reader in (
        ([row for row in rows if not row.shared], model),
        ([row for row in rows if row.shared], _reader_of_shared(model)),
    ):
        score = _scorer(reader, mesh, vocab_size)
        for chosen, batch in _batches(of_kind, documents, batch_rows, rows_multiple(mesh)):
            padded = min(padded_length(length(chosen[0], documents)), model.config.max_positions)
            given = filled(chosen, documents, batch, padded)
            sharding = batch_sharding(mesh)
            logprobs, is_best = fetch(score(params, *(on_mesh(array, sharding) for array in given)))
            for row, reading in enumerate(chosen):
                for index, at in zip(reading.members, places(reading, documents), strict=True):
                    check_finite(np.isfinite(logprobs[row, at]).all(), f"likelihood: item {index}")
                    answer = _likelihood(continuations[index], logprobs[row, at], is_best[row, at])
                    answers[index] = answer
                    on_answer(index, answer)
                done += len(reading.members)
            on_progress(done, len(continuations))
    return [answer for answer in answers if answer is not None]


@functools.lru_cache(maxsize=16)
def _reader_of_shared(model: Llama) -> Llama:
    """The same model with an attention that knows shared tokens, without windows: these reach over every
    document of a shared row."""
    changed = {"attention": "blockwise", "sliding_window": None, "sliding_layers": None}
    return Llama(replace(model.config, **changed))


def _batches(
    rows: Sequence[Reading], documents: Sequence[np.ndarray], batch_rows: int, shards: int
) -> Iterator[tuple[list[Reading], int]]:
    """The longest rows first, and how many rows to fill up to."""
    # No more rows than there are, but few different numbers of rows from call to call.
    batch_rows = min(batch_rows, shards << (-(-len(rows) // shards) - 1).bit_length())
    longest_first = sorted(rows, key=lambda row: (-length(row, documents), row.members))
    for start in range(0, len(rows), batch_rows):
        yield longest_first[start : start + batch_rows], batch_rows


def _check(
    continuations: Sequence[Continuation], max_positions: int, vocab_size: int, padded_vocab_size: int
) -> None:
    if not 0 < vocab_size <= padded_vocab_size:
        raise ConfigError(
            f"likelihood: vocab_size={vocab_size} given; the model has {padded_vocab_size} rows; "
            f"give the tokenizer's vocab_size, 1 to {padded_vocab_size}"
        )
    for index, each in enumerate(continuations):
        prompt, tokens = len(each.prompt), len(each.tokens)
        for what, count in (("prompt", prompt), ("continuation", tokens)):
            if count == 0:
                raise DataError(
                    f"likelihood: item {index} has a {what} without tokens; 1 or more are needed; "
                    f"put BOS, or EOS where the tokenizer has none, before an empty prompt"
                )
        if prompt + tokens - 1 > max_positions:
            raise DataError(
                f"likelihood: item {index} has {prompt} prompt and {tokens} continuation tokens; at most "
                f"{max_positions + 1} together fit model.max_positions={max_positions}; cut the prompt"
            )
        ids = np.concatenate([each.prompt, each.tokens])
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocab_size:
            raise DataError(
                f"likelihood: item {index} has id {low if low < 0 else high}; 0 to {vocab_size - 1} are "
                f"known; encode it with the tokenizer of this model"
            )


def _likelihood(
    one: Continuation, logprobs: Float[np.ndarray, " length"], is_best: Bool[np.ndarray, " length"]
) -> Likelihood:
    first = len(one.prompt) - 1  # the place from which the continuation's first token is predicted
    places = slice(first, first + len(one.tokens))
    return Likelihood(
        logprob=float(np.sum(logprobs[places], dtype=np.float64)),
        tokens=len(one.tokens),
        prompt_logprob=float(np.sum(logprobs[:first], dtype=np.float64)),
        prompt_tokens=first,
        is_greedy=bool(np.all(is_best[places])),
    )


@functools.lru_cache(maxsize=16)
def _scorer(model: Llama, mesh: Mesh, vocab_size: int) -> MeshFunction:
    """The compiled function; for equal arguments it is the same one, so that nothing recompiles."""

    def score(
        params: Any, tokens: Array, targets: Array, positions: Array, segments: Array
    ) -> tuple[Array, Array]:
        return _score(model, params, tokens, targets, positions, segments, vocab_size)

    return MeshFunction(jax.jit(score, out_shardings=replicated(mesh)), mesh)


def _score(
    model: Llama,
    params: Any,
    tokens: Int[Array, "batch length"],
    targets: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    segments: Int[Array, "batch length"],
    vocab_size: int,
) -> tuple[Float[Array, "batch length"], Bool[Array, "batch length"]]:
    """Log-probability of each target, and whether it is the most probable token, of equal ones the first."""
    config, (rows, length) = model.config, tokens.shape
    hidden, _ = model.apply(collections(params), tokens, positions, segments, method=Llama.hidden)
    kernel = head_kernel(params, config).astype(hidden.dtype)
    kernel = nn.with_logical_constraint(kernel, (None, "activation_vocab"))  # gathered once, not per chunk

    def of_chunk(chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        hidden, targets = chunk
        scores = logits(hidden, kernel, config)  # b c v, float32
        ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2)
        scores = jnp.where(ids < vocab_size, scores, -jnp.inf)
        is_target = ids == targets[..., None]  # a comparison, not a gather: the vocabulary may be split
        of_target = jnp.sum(jnp.where(is_target, scores, 0), axis=2)
        best = jnp.max(scores, axis=2, keepdims=True)
        first_best = jnp.min(jnp.where(scores == best, ids, vocab_size), axis=2)  # argmax, split as well
        return of_target - jax.nn.logsumexp(scores, axis=2), first_best == targets

    chunk = max(1, _CHUNK_POSITIONS * batch_shards() // rows)
    if chunk >= length:
        return of_chunk((hidden, targets))
    cut = functools.partial(_cut, chunk=chunk)
    joined = jax.lax.map(of_chunk, (cut(hidden), cut(targets)))  # n b c
    logprobs, is_best = (jnp.moveaxis(array, 0, 1).reshape(rows, -1)[:, :length] for array in joined)
    return logprobs, is_best


def _cut(array: Array, *, chunk: int) -> Array:
    """[b t ...] to [n b c ...], the last chunk filled with zeros."""
    count = -(-array.shape[1] // chunk)
    fill = [(0, 0)] * array.ndim
    fill[1] = (0, count * chunk - array.shape[1])
    array = jnp.pad(array, fill)
    return jnp.moveaxis(array.reshape(array.shape[0], count, chunk, *array.shape[2:]), 1, 0)
