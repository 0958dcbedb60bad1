"""Sentences to vectors: one for each layer of a model, from mean-pooled states and from the last token's."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int

from jaxlingua.errors import DataError
from jaxlingua.generate.programs import check_batch_rows, on_mesh
from jaxlingua.generate.prompts import padded_length
from jaxlingua.model.llama import Llama
from jaxlingua.model.lora import collections
from jaxlingua.sharding.rules import MeshFunction, batch_sharding, replicated, rows_multiple
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tracking import fetch

POOLINGS = ("mean", "last")


@dataclass(frozen=True)
class Vectors:
    """What a model makes of some texts.

    Attributes:
        mean: float32 [states texts embed], the sum of the states of a text's tokens divided by their number.
        last: float32 [states texts embed], the state of a text's last token.
        tokens: [texts], how many were read, BOS left out.
        cut: [texts], how many more there were.
    """

    mean: Float[np.ndarray, "states texts embed"]
    last: Float[np.ndarray, "states texts embed"]
    tokens: Int[np.ndarray, " texts"]
    cut: Int[np.ndarray, " texts"]

    def of(self, pooling: str) -> Float[np.ndarray, "states texts embed"]:
        return self.mean if pooling == "mean" else self.last


def sentence_vectors(
    model: Llama,
    params: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    batch_rows: int,
    mesh: Mesh,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Vectors:
    """Vectors of texts as they are, without a frame, behind a BOS where the tokenizer has one.

    There are layers + 1 states (`Llama.hidden_states`). The BOS is read, but is no part of the mean: its
    state is the same for every sentence, and in large trained models so long that it would drown the others.
    Padding is no part of it either. The sum is in float32 whatever the compute dtype. Equal texts get equal
    vectors, bit by bit.

    Args:
        params: plain parameters, sharded over `mesh`.
        batch_rows: rows read together over all devices; changes speed and memory only.
        on_progress: called with different texts done, and different texts in all.
    Raises: DataError for a text without tokens, and for states that are not finite; ConfigError or
        ShardingError for rows that do not divide over the mesh.
    Cost: one forward pass and one compilation for each padded length. A device holds the states of its rows,
        (layers + 1) × length × embed numbers for each; the host gets 8 × (layers + 1) × embed bytes a text.
    Paper: the mean of arXiv:2308.04948, whose released code divides by the padded length instead.
    """
    check_batch_rows(batch_rows, mesh)
    different = list(dict.fromkeys(texts))
    rows, cut = _encode(different, tokenizer, model.config.max_positions)
    first = int(tokenizer.bos_id is not None)
    pool = _pooler(model, mesh, first)
    shards = rows_multiple(mesh)
    # No more rows than texts, but few different numbers of rows from call to call.
    batch_rows = min(batch_rows, shards << (-(-len(rows) // shards) - 1).bit_length())
    shape = (2, model.config.layers + 1, len(rows), model.config.embed)
    pooled = np.empty(shape, np.float32)
    longest_first = sorted(range(len(rows)), key=lambda index: (-len(rows[index]), index))
    for start in range(0, len(rows), batch_rows):
        chosen = longest_first[start : start + batch_rows]
        padded = min(padded_length(len(rows[chosen[0]])), model.config.max_positions)
        tokens, lengths = np.zeros((batch_rows, padded), np.int32), np.zeros(batch_rows, np.int32)
        for place, index in enumerate(chosen):
            tokens[place, : len(rows[index])] = rows[index]
            lengths[place] = len(rows[index])
        sharding = batch_sharding(mesh)
        found = fetch(pool(params, on_mesh(tokens, sharding), on_mesh(lengths, sharding)))
        pooled[:, :, chosen] = found[:, :, : len(chosen)]
        _check_finite(found[:, :, : len(chosen)], [different[index] for index in chosen])
        on_progress(start + len(chosen), len(rows))
    places = {text: place for place, text in enumerate(different)}
    of_texts = np.array([places[text] for text in texts])
    read = np.array([len(row) - first for row in rows])
    mean, last = pooled if len(different) == len(texts) else pooled[:, :, of_texts]
    return Vectors(mean, last, read[of_texts], np.array(cut)[of_texts])


def _encode(
    texts: Sequence[str], tokenizer: Tokenizer, most: int
) -> tuple[list[Int[np.ndarray, " tokens"]], list[int]]:
    """The tokens of each text behind its BOS, the first `most` of them, and how many more there were."""
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    rows, cut = [], []
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        if not len(encoding.ids):
            raise DataError(f"states: '{text[:40]}' has no token; a sentence needs one; leave it out")
        row = np.concatenate([np.array(bos, np.int32), encoding.ids])
        rows.append(row[:most])
        cut.append(max(0, len(row) - most))
    return rows, cut


def _check_finite(found: Float[np.ndarray, "2 states texts embed"], texts: Sequence[str]) -> None:
    is_finite = np.isfinite(found).all(axis=(0, 3))  # states texts
    if not is_finite.all():
        layer, text = np.argwhere(~is_finite)[0]
        raise DataError(
            f"states: those of layer {layer} are not finite for '{texts[text][:40]}'; the model's "
            f"weights are damaged, training has diverged or model.compute_dtype is too narrow; take another"
        )


@functools.lru_cache(maxsize=16)
def _pooler(model: Llama, mesh: Mesh, first: int) -> MeshFunction:
    """The compiled function; for equal arguments it is the same one, so that nothing recompiles."""

    def pool(params: Any, tokens: Array, lengths: Array) -> Array:
        return _pool(model, params, tokens, lengths, first)

    return MeshFunction(jax.jit(pool, out_shardings=replicated(mesh)), mesh)


def _pool(
    model: Llama,
    params: Any,
    tokens: Int[Array, "batch length"],
    lengths: Int[Array, " batch"],
    first: int,
) -> Float[Array, "2 states batch embed"]:
    """Mean over the tokens from `first` on, and the last token's state. Rows of length 0 are padding."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    is_read = positions < lengths[:, None]
    states = model.apply(
        collections(params), tokens, positions, is_read.astype(jnp.int32), method=Llama.hidden_states
    )  # s b t d
    chosen = jnp.stack([is_read & (positions >= first), positions == lengths[:, None] - 1])  # p b t
    sums = jnp.einsum(
        "sbtd,pbt->psbd", states, chosen.astype(states.dtype), precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    return sums / jnp.maximum(chosen.sum(axis=2), 1)[:, None, :, None]
