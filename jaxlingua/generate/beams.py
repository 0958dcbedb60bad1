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

from jaxlingua.errors import ConfigError
from jaxlingua.generate.decoding import Answer, Decoding, Request
from jaxlingua.generate.programs import check_batch_rows, check_finite, on_mesh, programs
from jaxlingua.generate.prompts import left_padded, padded_length
from jaxlingua.generate.sampling import Sampling
from jaxlingua.generate.stops import StopSearch
from jaxlingua.model.cache import CACHE_AXES, RING_AXES, Cache, Ring, empty_cache
from jaxlingua.model.llama import Llama, head_kernel, logits
from jaxlingua.model.lora import collections
from jaxlingua.sharding.rules import MeshFunction, batch_sharding, replicated, rows_multiple
from jaxlingua.tokens.tokenizer import Tokenizer
from jaxlingua.tracking import fetch

_NEVER = -1e9  # log-probability of what must not be chosen, added to what it has


@dataclass(frozen=True)
class Search:
    """All that a compiled search depends on beside model and mesh."""

    beams: int
    new_tokens: int  # places for them; how many a request may have is data
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
    is_finite: Bool[Array, " batch"]  # whether all scores of its answers were


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
        requests: as `generate` has checked them.
        batch_rows: running answers over all devices, so `batch_rows / beams` prompts at one time, and no
            fewer than the mesh has places for rows.
        on_progress: called with requests done and requests in all.
        on_answer: called with the index of a request and its answer as soon as it is known.
    Raises: ConfigError for requests with choices; DataError where the model's logits are not finite;
        ShardingError for rows that do not divide over the mesh.
    Cost: one compilation for each padded length of prompts with that of the most new tokens. Memory: the
        parameters once more in the compute dtype, placed as they are (with fsdp see `generate`), and keys
        and values of batch_rows rows.
    Same as: transformers' generate(num_beams=…, do_sample=False, length_penalty=…, early_stopping=False).
    """
    check_batch_rows(batch_rows, mesh)
    if not requests:
        return []
    if chosen := [index for index, request in enumerate(requests) if request.choices]:
        raise ConfigError(
            f"generate.beams: {decoding.beams} given, but request {chosen[0]} may only be answered by one of "
            f"{len(requests[chosen[0]].choices)} choices; set generate.beams=1, or choose by likelihood "
            f"(eval.choice_by=label)"
        )
    shards = rows_multiple(mesh)
    rows = max(1, batch_rows // decoding.beams // shards) * shards
    # No more rows than requests, but few different numbers of rows from call to call.
    rows = min(rows, shards << (-(-len(requests) // shards) - 1).bit_length())
    weights = programs(model, mesh, tokenizer.vocab_size, eos_ids, Sampling(0.0, 0, 1.0)).weights(params)
    answers: list[Answer | None] = [None] * len(requests)
    done = 0
    for (padded, new_tokens), group in _grouped(requests, model.config.max_positions):
        search = Search(decoding.beams, new_tokens, tuple(eos_ids), tokenizer.vocab_size, tokenizer.pad_id)
        run = _searcher(model, mesh, search)
        divisors = _divisors(new_tokens, decoding.length_penalty)
        for start in range(0, len(group), rows):
            chosen = group[start : start + rows]
            prompts = left_padded([requests[index].prompt for index in chosen], rows, padded, search.pad_id)
            limits = np.ones(rows, np.int32)
            limits[: len(chosen)] = [requests[index].max_new_tokens for index in chosen]
            placed = (on_mesh(array, batch_sharding(mesh)) for array in (*prompts, limits))
            found, lengths, is_finite = fetch(run(params, weights, *placed, divisors))
            for row, index in enumerate(chosen):
                check_finite(is_finite[row], f"generate: request {index}")
                answer = _answer(found[row, : lengths[row]], requests[index].stop, eos_ids, tokenizer)
                answers[index] = answer
                on_answer(index, answer)
            done += len(chosen)
            on_progress(done, len(requests))
    return [answer for answer in answers if answer is not None]


def _grouped(requests: Sequence[Request], max_positions: int) -> list[tuple[tuple[int, int], list[int]]]:
    """((padded length, padded new tokens), indices) of requests that one program answers, longest first."""
    groups: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        padded = min(padded_length(len(request.prompt)), max_positions - request.max_new_tokens)
        groups.setdefault(padded, []).append(index)
    found = []
    for padded, group in sorted(groups.items(), reverse=True):
        group.sort(key=lambda index: (-requests[index].max_new_tokens, index))
        new_tokens = padded_length(requests[group[0]].max_new_tokens)
        found.append(((padded, min(new_tokens, max_positions - padded)), group))
    return found


def _answer(
    tokens: Int[np.ndarray, " new"], stop: tuple[str, ...], eos_ids: tuple[int, ...], tokenizer: Tokenizer
) -> Answer:
    """The answer that these tokens, EOS included, are; cut before the first stop string."""
    is_eos = len(tokens) > 0 and int(tokens[-1]) in eos_ids
    tokens = tokens[:-1] if is_eos else tokens
    if stop and (found := StopSearch(tokenizer, stop).find(tokens.tolist(), is_whole=True)):
        count, text = found
        return Answer(tokens[:count], text, "stop")
    return Answer(tokens, tokenizer.decode(tokens), "eos" if is_eos else "length")


@functools.lru_cache(maxsize=64)
def _searcher(model: Llama, mesh: Mesh, search: Search) -> MeshFunction:
    """The compiled search; for equal arguments it is the same one, so that nothing recompiles."""

    def run(
        params: Any, weights: Any, tokens: Array, lengths: Array, limits: Array, divisors: Array
    ) -> tuple[Array, ...]:
        return _search(model, params, weights, tokens, lengths, limits, divisors, search)

    return MeshFunction(jax.jit(run, out_shardings=replicated(mesh)), mesh)


def _search(
    model: Llama,
    params: Any,
    weights: Any,
    tokens: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    limits: Int[Array, " batch"],
    divisors: Float[Array, " new"],
    search: Search,
) -> tuple[Int[Array, "batch new"], Int[Array, " batch"], Bool[Array, " batch"]]:
    """Read all prompts once, then extend all beams by one token at a time until no row is open."""
    config = model.config
    kernel = head_kernel(weights, config)
    rows, padded = tokens.shape

    def logprobs_of(hidden: Float[Array, "rows embed"]) -> Float[Array, "rows vocab"]:
        scores = logits(hidden[:, None], kernel, config)[:, 0]
        return jax.nn.log_softmax(
            jnp.where(jnp.arange(scores.shape[-1]) < search.vocab_size, scores, -jnp.inf)
        )

    positions = jnp.arange(padded, dtype=jnp.int32) - (padded - lengths)[:, None]  # negative where padding
    inputs = (tokens, jnp.maximum(positions, 0), (positions >= 0).astype(jnp.int32))
    cache = _constrained(empty_cache(config, rows, padded), CACHE_AXES)
    hidden, cache = model.apply(collections(params), *inputs, cache, method=Llama.hidden)
    first = logprobs_of(hidden[:, -1])
    first = jnp.broadcast_to(first[:, None], (rows, search.beams, first.shape[-1]))
    beams, _ = _extended(search, _no_beams(search, lengths > 0), first, limits, divisors)

    def more(carry: tuple[Beams, Ring]) -> Bool[Array, ""]:
        return jnp.any(carry[0].is_open)

    def one_token(carry: tuple[Beams, Ring]) -> tuple[Beams, Ring]:
        beams, ring = carry
        last = jax.lax.dynamic_index_in_dim(beams.tokens, beams.step - 1, axis=2, keepdims=False).reshape(-1)
        positions = jnp.repeat(lengths + beams.step - 1, search.beams)
        inputs = (last, positions, jnp.ones_like(last), ring)
        hidden, ring = model.apply(collections(weights), *inputs, method=Llama.next_hidden)
        logprobs = logprobs_of(hidden).reshape(rows, search.beams, -1)
        beams, parents = _extended(search, beams, logprobs, limits, divisors)
        return beams, _reordered(ring, parents, padded)

    ring = _ring(cache, search.new_tokens, search.beams)
    beams, _ = jax.lax.while_loop(more, one_token, (beams, ring))
    return beams.ended_tokens[:, 0], beams.ended_lengths[:, 0], beams.is_finite


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
        is_finite=jnp.ones_like(is_open),
    )


def _extended(
    search: Search,
    beams: Beams,
    logprobs: Float[Array, "batch beams vocab"],
    limits: Int[Array, " batch"],
    divisors: Float[Array, " new"],
) -> tuple[Beams, Int[Array, "batch beams"]]:
    """All beams with one token more, and which beam each of the running ones comes from.

    Of all extensions the best `beams` may end, and the best `beams` that do not end go on. As many are looked
    at as there must be for the second to be found, whatever the first are.
    """
    count, places = search.beams, jnp.arange(max(2, 1 + len(search.eos_ids)) * search.beams)
    looked_at = len(places)
    is_finite = jnp.isfinite(logprobs[..., : search.vocab_size]).all((1, 2))
    sums = logprobs + beams.scores[..., None]  # b k v
    best, ids = jax.lax.top_k(sums, min(looked_at, sums.shape[-1]))  # first of each beam, then of these
    of_each = ids.shape[-1]
    best, chosen = jax.lax.top_k(best.reshape(len(best), -1), looked_at)  # b c
    parents, new = chosen // of_each, _taken(ids.reshape(len(ids), -1), chosen)
    tokens = jax.lax.dynamic_update_slice(_taken(beams.tokens, parents), new[..., None], (0, 0, beams.step))
    step = beams.step + 1
    ends = jnp.isin(new, jnp.array(search.eos_ids, jnp.int32)) | (step >= limits[:, None])

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
        is_open=beams.is_open & may_improve & (step < limits) & is_finite,
        is_finite=beams.is_finite & (is_finite | ~beams.is_open),
    )
    return extended, _taken(parents, going_on)


def _taken(array: Array, places: Int[Array, "batch some"]) -> Array:
    """[b k …] at the given places of axis 1, for each row its own."""
    return jax.vmap(lambda row, at: row[at])(array, places)


def _ring(cache: Cache, new_tokens: int, beams: int) -> Ring:
    """The prompts of a cache, every row `beams` times in a row, with places for new tokens behind them."""

    def repeat(array: Array, axis: int) -> Array:
        widths = [(0, new_tokens if here == axis else 0) for here in range(array.ndim)]
        return jnp.repeat(jnp.pad(array, widths), beams, 0)

    k, v = (tuple(repeat(layer.swapaxes(1, 2), 2) for layer in layers) for layers in (cache.k, cache.v))
    segments, positions = repeat(cache.segments, 1), repeat(cache.positions, 1)
    return _constrained(Ring(k, v, segments, positions, cache.index), RING_AXES)


def _reordered(ring: Ring, parents: Int[Array, "batch beams"], prompt: int) -> Ring:
    """Keys and values of each beam's parent; those of the prompt are the same in all beams and stay."""

    def reorder(layer: Array) -> Array:  # b*k heads s h
        new = layer[:, :, prompt:]
        new = _taken(new.reshape(*parents.shape, *new.shape[1:]), parents)  # b k heads new h
        return layer.at[:, :, prompt:].set(new.reshape(-1, *new.shape[2:]))

    k, v = (tuple(map(reorder, layers)) for layers in (ring.k, ring.v))
    return _constrained(ring._replace(k=k, v=v), RING_AXES)


def _constrained(arrays: Any, axes: Any) -> Any:
    """A cache or ring spread over the mesh: rows over data and fsdp, key/value heads over tensor."""

    def constrain(part: Any, axes: tuple) -> Any:
        return jax.tree.map(lambda array: nn.with_logical_constraint(array, axes), part)

    return type(arrays)(*(constrain(part, of_part) for part, of_part in zip(arrays, axes, strict=True)))
