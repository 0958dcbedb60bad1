"""Token Distillation: rows of new pieces, so that the model goes on as it would after their old tokens.

The model reads snippets of text twice: as the old tokenizer writes them, which is what it knows, and with the
new pieces. Only the new rows of the embedding learn, until its last hidden states are the same where both
ways of reading have come to the same place in the text.

Paper: arXiv:2505.20133. As there: hidden states after the final norm, mean squared error, snippets of 50 old
tokens, 25 for each piece, 16 in a step, Adam whose rate rises over the first half and falls over the other.
Not as there: all new pieces of a snippet learn from it, so that fewer snippets do; positions before the first
new piece, where both are the same anyway, are no part of the mean; few snippets are read more than once
(`LEAST_STEPS`); and the rate goes by the size of the rows (`RATE`).

Rows of a head of its own are not learned. With a tied head the row of the embedding is both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from jaxlingua.errors import TrainingError
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.feed import feed
from jaxlingua.sharding.rules import (
    MeshFunction,
    abstract_sharded_params,
    batch_sharding,
    replicated,
    rows_multiple,
)
from jaxlingua.tokens.interface import Encoding, Tokenizer
from jaxlingua.tracking import fetch

SNIPPET_TOKENS = 50  # of the old tokenizer; BOS comes before them
SNIPPETS_PER_PIECE = 25  # at most; a snippet counts for all of its new pieces
BATCH_ROWS = 16  # or as many more as the devices need
LEAST_STEPS = 300  # snippets are read again until there are so many
RATE = 0.02  # of Adam, in root mean squares of the old rows
_TEXTS_AT_ONCE = 1000
_STEPS_BETWEEN_FETCHES = 16
_NONE = -1  # padding, and in `place` no place


class Snippets(NamedTuple):
    """Snippets as both tokenizers write them, each [snippets length] int32, padded with -1.

    `place` is, for tokens of `new`, where in `old` the token stands that ends where this one does; -1 for
    those before the first new piece.
    """

    old: np.ndarray
    new: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class Distilled:
    """What was learned, float32, by ascending ids, and how."""

    rows: Float[np.ndarray, "pieces embed"]
    steps: int
    learning_rate: float  # at its peak
    first_loss: float  # mean squared error: of the first tenth of the steps, and of the last
    last_loss: float


# ── snippets ──────────────────────────────────────────────────────────────────────────────────────────────


def cut_snippets(
    texts: Sequence[str],
    old: Tokenizer,
    new: Tokenizer,
    old_ids: Mapping[int, Sequence[int]],
    *,
    seed: int,
    most_per_piece: int = SNIPPETS_PER_PIECE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Snippets:
    """Snippets of texts in random order, until every new piece has stood in `most_per_piece` of them.

    Args:
        old_ids: of every new piece, by its id.
    Cost: texts are encoded twice, about 1 s for a million characters.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    seen = dict.fromkeys(old_ids, 0)
    rows: list[Snippets] = []
    begin = [] if old.bos_id is None else [old.bos_id]
    for start in range(0, len(order), _TEXTS_AT_ONCE):
        chosen = [texts[index] for index in order[start : start + _TEXTS_AT_ONCE]]
        for both in zip(old.encode_batch(chosen), new.encode_batch(chosen), strict=True):
            for snippet in _snippets_of(*both, old_ids, begin):
                pieces = set(snippet.new.tolist()) & seen.keys()
                if any(seen[piece] < most_per_piece for piece in pieces):
                    rows.append(snippet)
                    for piece in pieces:
                        seen[piece] += 1
        on_progress(min(start + _TEXTS_AT_ONCE, len(order)), len(order))
        if all(count >= most_per_piece for count in seen.values()):
            break
    length = len(begin) + SNIPPET_TOKENS
    return Snippets(*(_padded(each, length) for each in zip(*rows, strict=True))) if rows else _no_snippets()


def _no_snippets() -> Snippets:
    return Snippets(*(np.zeros((0, SNIPPET_TOKENS), np.int32) for _ in Snippets._fields))


def _padded(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    table = np.full((len(rows), length), _NONE, np.int32)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    return table


def _snippets_of(
    old: Encoding, new: Encoding, old_ids: Mapping[int, Sequence[int]], begin: list[int]
) -> Iterable[Snippets]:
    """Parts of a text that both tokenizers end at the same places, and that have a new piece."""
    ends = _same_ends(old, new, old_ids)
    start, begun = np.zeros(2, int), 0  # the next token of each, and the next of `ends`
    while begun < len(ends):
        fit = int((ends[begun:] - start < SNIPPET_TOKENS).all(1).sum())
        if not fit:  # one piece of more old tokens than a snippet has
            start, begun = ends[begun] + 1, begun + 1
            continue
        stop = ends[begun + fit - 1] + 1
        ids = new.ids[start[1] : stop[1]]
        is_new = np.array([number in old_ids for number in ids.tolist()])
        if is_new.any():
            pairs = ends[begun : begun + fit] - start
            pairs = pairs[pairs[:, 1] >= is_new.argmax()] + len(begin)
            place = np.full(len(begin) + len(ids), _NONE, np.int32)
            place[pairs[:, 1]] = pairs[:, 0]
            before = np.asarray(begin, np.int32)
            yield Snippets(
                np.concatenate([before, old.ids[start[0] : stop[0]]]), np.concatenate([before, ids]), place
            )
        start, begun = stop, begun + fit


def _same_ends(
    old: Encoding, new: Encoding, old_ids: Mapping[int, Sequence[int]]
) -> Int[np.ndarray, "ends 2"]:
    """Places in `old` and in `new` of the tokens at which both have come to the same place in the text.

    A byte-level tokenizer puts a new piece wherever the same old ones stand, maybe in the middle of a
    character: then these are counted. Other tokenizers go by characters.
    """
    written = [old_ids.get(number, (number,)) for number in new.ids.tolist()]
    if [number for ids in written for number in ids] == old.ids.tolist():
        ends = np.cumsum([len(ids) for ids in written], dtype=int) - 1
        return np.stack([ends, np.arange(len(ends))], 1)
    last = [_last_at(encoding.offsets[:, 1]) for encoding in (old, new)]
    shared = sorted(last[0].keys() & last[1].keys())
    return np.array([(last[0][end], last[1][end]) for end in shared], int).reshape(-1, 2)


def _last_at(ends: np.ndarray) -> dict[int, int]:
    """The last token of those that end at a character: the bytes of one all do."""
    return {end: place for place, end in enumerate(ends.tolist())}


# ── learning ──────────────────────────────────────────────────────────────────────────────────────────────


def distill(
    model: Llama,
    params: Any,
    rows: Mapping[int, Float[np.ndarray, " embed"]],
    snippets: Snippets,
    *,
    mesh: Mesh,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Distilled:
    """Rows of new pieces, learned from snippets.

    Args:
        params: sharded over `mesh`; they stay as they are.
        rows: that learning begins with, by the ids of the new pieces.
        on_progress: called with steps done and steps in all.
    Raises: TrainingError where hidden states are not finite.
    Cost: a step reads 16 snippets three times forward, counting the way back through the student as one; in
        memory it has two more copies of the embedding, sharded like it.
    """
    first, table = _table(rows)
    batch_rows = -(-BATCH_ROWS // rows_multiple(mesh)) * rows_multiple(mesh)
    of_epoch = -(-len(snippets.new) // batch_rows)
    steps = of_epoch * -(-LEAST_STEPS // of_epoch)
    peak = RATE * _root_mean_square(params["embed"]["embedding"], first)
    rise = steps // 2
    schedule = optax.join_schedules(
        [optax.linear_schedule(0.0, peak, rise), optax.linear_schedule(peak, 0.0, steps - rise)], [rise]
    )
    optimizer = optax.adam(lambda count: schedule(count + 1))
    sharding = _row_sharding(model, mesh)
    table = jax.device_put(table, sharding)
    state = optimizer.init(table)
    placed = jax.tree.map(lambda leaf: sharding if leaf.ndim == 2 else replicated(mesh), state)
    state = jax.device_put(state, placed)
    step = MeshFunction(
        jax.jit(
            partial(_step, model, optimizer, first),
            donate_argnums=(1, 2),
            in_shardings=(None, sharding, placed, batch_sharding(mesh)),
            out_shardings=(sharding, placed, replicated(mesh)),
        ),
        mesh,
        (params,),
    )
    losses: list[Any] = []
    for number, batch in feed(_batches(snippets, batch_rows, seed), range(steps), batch_rows, mesh):
        table, state, loss = step(table, state, batch)
        losses.append(loss)
        if len(losses) % _STEPS_BETWEEN_FETCHES == 0:
            losses[-_STEPS_BETWEEN_FETCHES:] = fetch(losses[-_STEPS_BETWEEN_FETCHES:])
            on_progress(number + 1, steps)
    losses, table = fetch(losses), fetch(jax.device_put(table, replicated(mesh)))
    if not np.isfinite(losses).all():
        raise TrainingError(
            f"distilled: hidden states are not finite at step {int(np.argmin(np.isfinite(losses)))}; nothing "
            f"was learned; try model.compute_dtype=float32, or --rows pieces"
        )
    tenth = max(1, steps // 10)
    return Distilled(
        table[[number - first for number in sorted(rows)]], steps, peak,
        float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:])),
    )  # fmt: skip


def distance(
    model: Llama, params: Any, rows: Mapping[int, Float[np.ndarray, " embed"]], snippets: Snippets, mesh: Mesh
) -> float:
    """Mean squared error of hidden states after new pieces that have these rows.

    Cost: one forward pass for each way of reading, and a compilation.
    """
    first, table = _table(rows)
    batch_rows = -(-BATCH_ROWS // rows_multiple(mesh)) * rows_multiple(mesh)
    table = jax.device_put(table, _row_sharding(model, mesh))
    errors = _measure(model, first, mesh)
    batches = feed(
        _batches(snippets, batch_rows, 0), range(-(-len(snippets.new) // batch_rows)), batch_rows, mesh
    )
    sums = np.sum(fetch([errors(params, table, batch) for _, batch in batches]), 0)
    return float(sums[0] / max(sums[1], 1))


@lru_cache(maxsize=4)
def _measure(model: Llama, first: int, mesh: Mesh) -> MeshFunction:
    """Compiled once for several tables of rows."""
    return MeshFunction(jax.jit(partial(_errors, model, first)), mesh)


def _table(rows: Mapping[int, np.ndarray]) -> tuple[int, Float[np.ndarray, "span embed"]]:
    """The first id, and a row for each id from it on; ids between that are no new piece are never read."""
    first, width = min(rows), len(next(iter(rows.values())))
    table = np.zeros((max(rows) - first + 1, width), np.float32)
    for number, row in rows.items():
        table[number - first] = row
    return first, table


def _row_sharding(model: Llama, mesh: Mesh) -> NamedSharding:
    """As the embedding along its rows; whole across them, whose number divides by nothing."""
    spec = abstract_sharded_params(model, mesh)["embed"]["embedding"].sharding.spec
    return NamedSharding(mesh, PartitionSpec(None, spec[1]))


def _root_mean_square(embedding: Array, rows: int) -> float:
    return float(fetch(jnp.sqrt(jnp.mean(jnp.square(embedding[:rows].astype(jnp.float32))))))


def _batches(snippets: Snippets, batch_rows: int, seed: int) -> Callable[[int, int, int], Snippets]:
    """Every epoch in a random order of its own; its last batch is filled with rows of padding."""
    of_epoch = -(-len(snippets.new) // batch_rows)

    def batch(step: int, start: int, stop: int) -> Snippets:
        epoch, place = divmod(step, of_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(snippets.new))
        chosen = order[place * batch_rows + start : place * batch_rows + stop]
        fill = [(0, stop - start - len(chosen)), (0, 0)]
        return Snippets(*(np.pad(each[chosen], fill, constant_values=_NONE) for each in snippets))

    return batch


def _step(
    model: Llama, optimizer: Any, first: int, params: Any, rows: Array, state: Any, batch: Snippets
) -> tuple[Array, Any, Array]:
    def mean(rows: Array) -> Array:
        total, count = _errors(model, first, params, rows, batch)
        return total / jnp.maximum(count, 1)

    loss, grads = jax.value_and_grad(mean)(rows)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(rows, updates), state, loss


def _errors(
    model: Llama, first: int, params: Any, rows: Float[Array, "span embed"], batch: Snippets
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over places of the mean squared error of their hidden states, and the number of places."""
    embedding = params["embed"]["embedding"]
    grown = jax.lax.dynamic_update_slice(embedding, rows.astype(embedding.dtype), (first, 0))
    old = jax.lax.stop_gradient(_hidden(model, params, batch.old))
    new = _hidden(model, {**params, "embed": {"embedding": grown}}, batch.new)
    there = jnp.take_along_axis(old, jnp.maximum(batch.place, 0)[..., None], axis=1)  # b t d
    error = jnp.mean(jnp.square(new.astype(jnp.float32) - there.astype(jnp.float32)), axis=2)
    counts = batch.place >= 0
    return jnp.sum(jnp.where(counts, error, 0)), jnp.sum(counts).astype(jnp.float32)


def _hidden(model: Llama, params: Any, ids: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32), ids.shape)
    segments = (ids >= 0).astype(jnp.int32)
    hidden, _ = model.apply({"params": params}, jnp.maximum(ids, 0), positions, segments, method=Llama.hidden)
    return hidden
