"""Stage 6, generate: beam search, the most probable answers kept side by side.

Of every prompt `beams` unfinished answers are extended at a time, on the device until the last prompt of a
batch is done. Prompts are grouped by length, so few programs are compiled; what a prompt is answered does not
depend on its neighbors.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from jaxlingua.errors import ConfigError, DataError
from jaxlingua.generate.decoding import Answer, Decoding, Request
from jaxlingua.generate.prompts import padded_length
from jaxlingua.model.cache import CACHE_AXES, Cache, empty_cache
from jaxlingua.model.llama import Llama, head_kernel, logits
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.sharding.rules import MeshFunction, batch_sharding, check_rows, replicated, rows_multiple
from jaxlingua.tokens.tokenizer import Tokenizer
from jaxlingua.tracking import fetch

_NEVER = -1e9  # log-probability of what must not be chosen, added to what it has


@dataclass(frozen=True)
class Search:
    """All that a compiled search depends on beside model and mesh."""

    beams: int
    new_tokens: int
    eos_ids: tuple[int, ...]
    vocab_size: int
    pad_id: int


class Beams(NamedTuple):
    """Answers of a batch so far: those that go on, and the best of those that have ended."""

    step: Int[Array, ""]  # tokens of each running answer
    tokens: Int[Array, "batch beams new"]
    scores: Float[Array, "batch beams"]  # summed log-probability
    ended_tokens: Int[Array, "batch beams new"]
    ended_lengths: Int[Array, "batch beams"]  # EOS included
    ended_scores: Float[Array, "batch beams"]  # divided by length ** length_penalty
    has_ended: Bool[Array, "batch beams"]  # whether there is an answer in this place
    is_open: Bool[Array, " batch"]  # whether a running answer may become better than those that have ended


def beam_search(
    model: Llama,
    params: Any,
    requests: Sequence[Request],
    *,
    decoding: Decoding,
    tokenizer: Tokenizer,
    eos_ids: tuple[int, ...],
    batch_rows: int,
    mesh: Mesh,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_answer: Callable[[int, Answer], None] = lambda index, answer: None,
) -> list[Answer]:
    """The best ended answer of a beam search for each request.

    An answer's score is its summed log-probability divided by length ** decoding.length_penalty, EOS
    counted. A search ends when the best running answer, scored at its present length, is no better than the
    worst of `beams` ended ones, or at max_new_tokens, where all answers end. A stop string ends no answer in
    the search: the best answer is cut before it.

    Args:
        params: plain parameters, sharded over `mesh`.
        batch_rows: running answers over all devices, so `batch_rows / beams` prompts at one time, and no
            fewer than the mesh has places for rows.
        on_progress: called with requests done and requests in all.
        on_answer: called with the index of a request and its answer as soon as it is known.
    Raises: ConfigError for requests with choices; DataError for a prompt without tokens or without room for
        its answer; ShardingError for rows that do not divide over the mesh.
    Cost: one compilation for each padded length and max_new_tokens. Memory: a cache of batch_rows rows.
    Same as: transformers' generate(num_beams=…, do_sample=False, length_penalty=…, early_stopping=False).
    """
    check_rows("generate.batch_rows", batch_rows, mesh)
    _check(requests, decoding, model.config.max_positions)
    rows = max(1, batch_rows // decoding.beams // rows_multiple(mesh)) * rows_multiple(mesh)
    answers: list[Answer | None] = [None] * len(requests)
    done = 0
    for (new_tokens, padded), group in _grouped(requests, model.config.max_positions):
        search = Search(decoding.beams, new_tokens, tuple(eos_ids), tokenizer.vocab_size, tokenizer.pad_id)
        run = _searcher(model, mesh, search)
        divisors = _divisors(new_tokens, decoding.length_penalty)
        for start in range(0, len(group), rows):
            chosen = group[start : start + rows]
            prompts = _left_padded([requests[index].prompt for index in chosen], rows, padded, search.pad_id)
            found, lengths = fetch(run(params, *(_on_mesh(array, mesh) for array in prompts), divisors))
            for row, index in enumerate(chosen):
                answer = _answer(found[row, : lengths[row]], requests[index].stop, eos_ids, tokenizer)
                answers[index] = answer
                on_answer(index, answer)
            done += len(chosen)
            on_progress(done, len(requests))
    return [answer for answer in answers if answer is not None]


def _check(requests: Sequence[Request], decoding: Decoding, max_positions: int) -> None:
    for index, request in enumerate(requests):
        if request.choices:
            raise ConfigError(
                f"generate.beams: {decoding.beams} given, but request {index} may only be answered by one of "
                f"{len(request.choices)} choices; set generate.beams=1, or choose by likelihood "
                f"(eval.choice_by=label)"
            )
        room = max_positions - request.max_new_tokens
        if request.max_new_tokens < 1 or not 1 <= len(request.prompt) <= room:
            raise DataError(
                f"generate: prompt {index} has {len(request.prompt)} tokens and asks for "
                f"{request.max_new_tokens} new ones; 1 or more of each, together at most "
                f"model.max_positions={max_positions}; cut it"
            )


def _grouped(requests: Sequence[Request], max_positions: int) -> list[tuple[tuple[int, int], list[int]]]:
    """((new tokens, padded length), indices) of requests that one program answers, longest first."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, request in enumerate(requests):
        padded = min(padded_length(len(request.prompt)), max_positions - request.max_new_tokens)
        groups.setdefault((request.max_new_tokens, padded), []).append(index)
    return sorted(groups.items(), key=lambda group: (-sum(group[0]), group[0]))


def _answer(
    tokens: Int[np.ndarray, " new"], stop: tuple[str, ...], eos_ids: tuple[int, ...], tokenizer: Tokenizer
) -> Answer:
    """The answer that these tokens, EOS included, are; cut before the first stop string."""
    is_eos = len(tokens) > 0 and int(tokens[-1]) in eos_ids
    tokens = tokens[:-1] if is_eos else tokens
    text = tokenizer.decode(tokens)
    if not any(each in text for each in stop):
        return Answer(tokens, text, "eos" if is_eos else "length")
    for count in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:count])
        starts = [text.index(each) for each in stop if each in text]
        if starts:
            tokens, text = tokens[:count], text[: min(starts)]
            break
    return Answer(tokens, text, "stop")


@functools.lru_cache(maxsize=64)
def _searcher(model: Llama, mesh: Mesh, search: Search) -> MeshFunction:
    """The compiled search; for equal arguments it is the same one, so that nothing recompiles."""

    def run(params: Any, tokens: Array, lengths: Array, divisors: Array) -> tuple[Array, Array]:
        return _search(model, params, tokens, lengths, divisors, search)

    return MeshFunction(jax.jit(run, out_shardings=replicated(mesh)), mesh)


def _search(
    model: Llama,
    params: Any,
    tokens: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    divisors: Float[Array, " new"],
    search: Search,
) -> tuple[Int[Array, "batch new"], Int[Array, " batch"]]:
    """Read all prompts once, then extend all beams by one token at a time until no row is open."""
    config = model.config
    params = _in_compute_dtype(params, config)
    kernel = head_kernel(params, config)
    rows, padded = tokens.shape

    def advance(cache: Cache, tokens: Array, positions: Array, segments: Array) -> tuple[Array, Cache]:
        inputs = (tokens, positions, segments, cache)
        hidden, cache = model.apply({"params": params}, *inputs, method=Llama.hidden)
        scores = logits(hidden[:, -1:], kernel, config)[:, 0]
        is_known = jnp.arange(scores.shape[-1]) < search.vocab_size
        return jax.nn.log_softmax(jnp.where(is_known, scores, -jnp.inf)), cache

    positions = jnp.arange(padded, dtype=jnp.int32) - (padded - lengths)[:, None]  # negative where padding
    cache = _sharded(empty_cache(config, rows, padded + search.new_tokens))
    inputs = (tokens, jnp.maximum(positions, 0), (positions >= 0).astype(jnp.int32))
    logprobs, cache = advance(cache, *inputs)
    logprobs = jnp.broadcast_to(logprobs[:, None], (rows, search.beams, logprobs.shape[-1]))
    beams, _ = _extended(search, _no_beams(search, lengths > 0), logprobs, divisors)
    cache = _sharded(_repeated(cache, search.beams))

    def more(carry: tuple[Beams, Cache]) -> Bool[Array, ""]:
        return jnp.any(carry[0].is_open)

    def one_token(carry: tuple[Beams, Cache]) -> tuple[Beams, Cache]:
        beams, cache = carry
        last = jax.lax.dynamic_index_in_dim(beams.tokens, beams.step - 1, axis=2, keepdims=False)
        positions = jnp.repeat(lengths + beams.step - 1, search.beams)[:, None]
        logprobs, cache = advance(cache, last.reshape(-1, 1), positions, jnp.ones_like(positions))
        beams, parents = _extended(search, beams, logprobs.reshape(rows, search.beams, -1), divisors)
        return beams, _reordered(cache, parents, padded)

    beams, _ = jax.lax.while_loop(more, one_token, (beams, cache))
    return beams.ended_tokens[:, 0], beams.ended_lengths[:, 0]


def _divisors(new_tokens: int, length_penalty: float) -> Float[np.ndarray, " new"]:
    """What the score of an answer of 1, 2, … tokens is divided by."""
    return (np.arange(1, new_tokens + 1, dtype=np.float64) ** length_penalty).astype(np.float32)


def _no_beams(search: Search, is_open: Bool[Array, " batch"]) -> Beams:
    """Before the first token all beams are the same, so only the first one of them counts."""
    shape = (is_open.shape[0], search.beams)
    first_alone = jnp.where(jnp.arange(search.beams) == 0, 0.0, _NEVER)
    return Beams(
        step=jnp.int32(0),
        tokens=jnp.full((*shape, search.new_tokens), search.pad_id, jnp.int32),
        scores=jnp.broadcast_to(first_alone, shape).astype(jnp.float32),
        ended_tokens=jnp.full((*shape, search.new_tokens), search.pad_id, jnp.int32),
        ended_lengths=jnp.zeros(shape, jnp.int32),
        ended_scores=jnp.full(shape, _NEVER, jnp.float32),
        has_ended=jnp.zeros(shape, bool),
        is_open=is_open,
    )


def _extended(
    search: Search,
    beams: Beams,
    logprobs: Float[Array, "batch beams vocab"],
    divisors: Float[Array, " new"],
) -> tuple[Beams, Int[Array, "batch beams"]]:
    """All beams with one token more, and which beam each of the running ones comes from.

    Of all extensions the best `beams` may end, and the best `beams` that do not end go on. As many are looked
    at as there must be for the second to be found, whatever the first are.
    """
    count, places = search.beams, jnp.arange(max(2, 1 + len(search.eos_ids)) * search.beams)
    looked_at = len(places)
    sums = logprobs + beams.scores[..., None]  # b k v
    best, ids = jax.lax.top_k(sums, min(looked_at, sums.shape[-1]))  # first of each beam, then of these
    of_each = ids.shape[-1]
    best, chosen = jax.lax.top_k(best.reshape(len(best), -1), looked_at)  # b c
    parents, new = chosen // of_each, _taken(ids.reshape(len(ids), -1), chosen)
    tokens = jax.lax.dynamic_update_slice(_taken(beams.tokens, parents), new[..., None], (0, 0, beams.step))
    step = beams.step + 1
    ends = jnp.isin(new, jnp.array(search.eos_ids, jnp.int32)) | (step == search.new_tokens)

    scores, going_on = jax.lax.top_k(best + ends * _NEVER, count)
    divisor = divisors[beams.step]
    final = best / divisor + ~beams.is_open[:, None] * _NEVER + ~(ends & (places < count)) * _NEVER
    ended_scores, kept = jax.lax.top_k(jnp.concatenate([beams.ended_scores, final], axis=1), count)

    def merged(old: Array, extensions: Array) -> Array:
        return _taken(jnp.concatenate([old, extensions], axis=1), kept)

    has_ended = merged(beams.has_ended, ends & (places < count))
    worst = jnp.where(has_ended, jnp.min(ended_scores, axis=1, keepdims=True), _NEVER)
    may_improve = jnp.any(scores[:, :1] / divisor > worst, axis=1)
    extended = Beams(
        step=step,
        tokens=_taken(tokens, going_on),
        scores=scores,
        ended_tokens=merged(beams.ended_tokens, tokens),
        ended_lengths=merged(beams.ended_lengths, jnp.broadcast_to(step, ends.shape)),
        ended_scores=ended_scores,
        has_ended=has_ended,
        is_open=beams.is_open & may_improve & (step < search.new_tokens),
    )
    return extended, _taken(parents, going_on)


def _taken(array: Array, places: Int[Array, "batch some"]) -> Array:
    """[b k ...] at the given places of axis 1, for each row its own."""
    return jax.vmap(lambda row, at: row[at])(array, places)


def _repeated(cache: Cache, beams: int) -> Cache:
    """Every row `beams` times in a row."""

    def repeat(array: Array, axes: tuple[str | None, ...]) -> Array:
        return (
            jnp.repeat(array, beams, axes.index("activation_batch")) if "activation_batch" in axes else array
        )

    return Cache(*(repeat(array, axes) for array, axes in zip(cache, CACHE_AXES, strict=True)))


def _reordered(cache: Cache, parents: Int[Array, "batch beams"], prompt: int) -> Cache:
    """Keys and values of each beam's parent; those of the prompt are the same in all beams and stay."""

    def reorder(array: Array) -> Array:  # l b*k s ...
        new = array[:, :, prompt:]
        new = new.reshape(len(new), *parents.shape, *new.shape[2:])
        new = jax.vmap(lambda row, at: row[:, at], in_axes=(1, 0), out_axes=1)(new, parents)
        return array.at[:, :, prompt:].set(new.reshape(len(new), -1, *new.shape[3:]))

    return _sharded(cache._replace(k=reorder(cache.k), v=reorder(cache.v)))


def _sharded(cache: Cache) -> Cache:
    """The cache spread over the mesh: rows over data and fsdp, key/value heads over tensor."""
    return Cache(
        *(nn.with_logical_constraint(array, axes) for array, axes in zip(cache, CACHE_AXES, strict=True))
    )


def _in_compute_dtype(params: Any, config: LlamaConfig) -> Any:
    """Matrices as they are multiplied, cast once instead of at every token; norms are applied in float32."""

    def cast(path: Any, leaf: Array) -> Array:
        return leaf if path[-1].key == "scale" else leaf.astype(config.compute_dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


def _left_padded(
    prompts: Sequence[np.ndarray], rows: int, padded: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [rows padded] and the length of each prompt, 0 for rows without one."""
    tokens = np.full((rows, padded), pad_id, np.int32)
    lengths = np.zeros(rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, padded - len(prompt) :] = prompt
        lengths[row] = len(prompt)
    return tokens, lengths


def _on_mesh(array: np.ndarray, mesh: Mesh) -> Array:
    """A global array of which every process places its own rows."""
    return jax.make_array_from_callback(array.shape, batch_sharding(mesh), lambda index: array[index])
