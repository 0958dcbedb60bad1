"""Stage 6, generate: many prompts to their greedy answers, on the mesh that trains.

Prompts are sorted by length and left-padded to one of few lengths, so that few programs are compiled and all
rows of a batch write their next token in the same place. What a row answers does not depend on its neighbors.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from jaxlingua.errors import ConfigError, DataError
from jaxlingua.model.cache import CACHE_AXES, Cache, empty_cache
from jaxlingua.model.llama import Llama, head_kernel, logits
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.sharding.rules import MeshFunction, batch_sharding, check_rows, replicated
from jaxlingua.tracking import fetch

# Padded lengths of prompts: powers of two and the numbers halfway between, from here.
_SHORTEST = 32


def generate(
    model: Llama,
    params: Any,
    prompts: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    eos_id: int,
    pad_id: int,
    vocab_size: int,
    batch_rows: int,
    mesh: Mesh,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[np.ndarray]:
    """The most probable next token, again and again, until EOS: new ids of each prompt, without the EOS.

    Args:
        params: plain parameters, sharded over `mesh`.
        prompts: ids of each prompt, one or more, BOS included.
        vocab_size: the tokenizer's; padded ids of the model above it are never produced.
        batch_rows: rows decoded together over all devices; changes speed and memory only.
        on_progress: called with prompts done and prompts in all.
    Raises: DataError for a prompt without tokens, or too long for model.max_positions (see `cut_prompts`);
        ShardingError for rows that do not divide over the mesh.
    Cost: one compilation for each padded length, kept for later calls with the same model and mesh. Memory:
        beside the parameters, their matrices once more in the compute dtype, and the cache.
    Same as: transformers' generate(do_sample=False).
    """
    check_rows("generate.batch_rows", batch_rows, mesh)
    room = prompt_room(model.config, max_new_tokens)
    for index, prompt in enumerate(prompts):
        if not 1 <= len(prompt) <= room:
            raise DataError(
                f"generate: prompt {index} has {len(prompt)} tokens; 1 to {room} leave room for "
                f"generate.max_new_tokens={max_new_tokens} in model.max_positions="
                f"{model.config.max_positions}; cut it"
            )
    decode = _decoder(model, mesh, max_new_tokens, eos_id, pad_id, vocab_size)
    answers: list[np.ndarray] = [np.empty(0, np.int32)] * len(prompts)
    longest_first = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    for start in range(0, len(prompts), batch_rows):
        chosen = longest_first[start : start + batch_rows]
        padded = min(padded_length(len(prompts[chosen[0]])), room)
        tokens, lengths = _left_padded([prompts[index] for index in chosen], batch_rows, padded, pad_id)
        new = fetch(decode(params, _on_mesh(tokens, mesh), _on_mesh(lengths, mesh)))
        for index, row in zip(chosen, new, strict=False):
            ends = np.flatnonzero(row == eos_id)
            answers[index] = row[: ends[0]] if ends.size else row
        on_progress(min(start + batch_rows, len(prompts)), len(prompts))
    return answers


def cut_prompts(
    prompts: Sequence[np.ndarray], room: int, bos_id: int | None
) -> tuple[list[np.ndarray], list[int]]:
    """Prompts of at most `room` tokens, and how many tokens each lost.

    Tokens are taken from the left, behind the BOS: the end of a prompt holds the question.

    Example:
        >>> cut_prompts([np.array([1, 5, 6, 7, 8])], room=3, bos_id=1)
        ([array([1, 7, 8])], [2])
    """
    kept = []
    for prompt in prompts:
        head = prompt[: int(bos_id is not None and len(prompt) > 0 and prompt[0] == bos_id)]
        tail = prompt[max(len(head), len(prompt) - room + len(head)) :]
        kept.append(np.concatenate([head, tail]))
    return kept, [len(prompt) - len(rest) for prompt, rest in zip(prompts, kept, strict=True)]


def prompt_room(config: LlamaConfig, max_new_tokens: int) -> int:
    """The most tokens that a prompt may have if `max_new_tokens` are to follow.

    Raises: ConfigError where there is no room for any prompt.
    """
    room = config.max_positions - max_new_tokens
    if room < 1:
        raise ConfigError(
            f"generate.max_new_tokens: {max_new_tokens} given, which leaves no room for a prompt in "
            f"model.max_positions={config.max_positions}; give at most {config.max_positions - 1}"
        )
    return room


def padded_length(tokens: int) -> int:
    """The length that a prompt is padded to: 32, 48, 64, 96, 128, …

    Example:
        >>> [padded_length(tokens) for tokens in (1, 33, 64, 65, 700)]
        [32, 48, 64, 96, 768]
    """
    power = _SHORTEST
    while power < tokens:
        power *= 2
    halfway = power * 3 // 4
    return max(_SHORTEST, halfway if tokens <= halfway else power)


@functools.lru_cache(maxsize=16)
def _decoder(
    model: Llama, mesh: Mesh, max_new_tokens: int, eos_id: int, pad_id: int, vocab_size: int
) -> MeshFunction:
    """The compiled decoding loop; for equal arguments it is the same one, so that nothing recompiles."""

    def decode(params: Any, tokens: Array, lengths: Array) -> Array:
        return _decode(model, params, tokens, lengths, max_new_tokens, eos_id, pad_id, vocab_size)

    return MeshFunction(jax.jit(decode, out_shardings=replicated(mesh)), mesh)


def _decode(
    model: Llama,
    params: Any,
    tokens: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    max_new_tokens: int,
    eos_id: int,
    pad_id: int,
    vocab_size: int,
) -> Int[Array, "batch new"]:
    """Read all prompts at once, then one token of every row at a time until all rows have ended."""
    config = model.config
    params = _in_compute_dtype(params, config)
    kernel = head_kernel(params, config)
    rows, padded = tokens.shape

    def advance(cache: Cache, tokens: Array, positions: Array, segments: Array) -> tuple[Array, Cache]:
        inputs = (tokens, positions, segments, cache)
        hidden, cache = model.apply({"params": params}, *inputs, method=Llama.hidden)
        return _most_probable(logits(hidden[:, -1:], kernel, config)[:, 0], vocab_size), cache

    positions = jnp.arange(padded, dtype=jnp.int32) - (padded - lengths)[:, None]  # negative where padding
    cache = _sharded(empty_cache(config, rows, padded + max_new_tokens))
    token, cache = advance(cache, tokens, jnp.maximum(positions, 0), (positions >= 0).astype(jnp.int32))
    ended = (lengths == 0) | (token == eos_id)
    new = jnp.full((rows, max_new_tokens), pad_id, jnp.int32).at[:, 0].set(token)

    def more(carry: tuple) -> Bool[Array, ""]:
        step, _, ended, _, _ = carry
        return (step < max_new_tokens) & ~jnp.all(ended)

    def one_token(carry: tuple) -> tuple:
        step, token, ended, new, cache = carry
        positions = (lengths + step - 1)[:, None]
        token, cache = advance(cache, token[:, None], positions, jnp.ones_like(positions))
        token = jnp.where(ended, pad_id, token)
        new = jax.lax.dynamic_update_slice(new, token[:, None], (0, step))
        return step + 1, token, ended | (token == eos_id), new, cache

    return jax.lax.while_loop(more, one_token, (jnp.int32(1), token, ended, new, cache))[3]


def _most_probable(scores: Float[Array, "batch vocab"], vocab_size: int) -> Int[Array, " batch"]:
    real = jnp.arange(scores.shape[-1]) < vocab_size
    return jnp.argmax(jnp.where(real, scores, -jnp.inf), axis=-1).astype(jnp.int32)


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
