"""Prompts that fit: how long they may be, which tokens go where they are longer, and the lengths of rows."""

from collections.abc import Sequence

import numpy as np

from jaxlingua.errors import ConfigError
from jaxlingua.model.presets import LlamaConfig

# Padded lengths of prompts: powers of two and the numbers halfway between, from here.
_SHORTEST = 32


def cut_prompts(
    prompts: Sequence[np.ndarray], room: int, bos_id: int | None
) -> tuple[list[np.ndarray], list[int]]:
    """Prompts of at most `room` tokens, and how many tokens each lost.

    Tokens are taken from the left, behind the BOS: the end of a prompt holds the question. Where there is
    no room, nothing is kept.

    Example:
        >>> cut_prompts([np.array([1, 5, 6, 7, 8])], room=3, bos_id=1)
        ([array([1, 7, 8])], [2])
    """
    kept = []
    room = max(0, room)
    for prompt in prompts:
        has_bos = bos_id is not None and len(prompt) > 0 and prompt[0] == bos_id
        head = prompt[: min(room, int(has_bos))]
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


def left_padded(
    prompts: Sequence[np.ndarray], rows: int, padded: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [rows padded] and the length of each prompt, 0 for rows without one."""
    tokens = np.full((rows, padded), pad_id, np.int32)
    lengths = np.zeros(rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, padded - len(prompt) :] = prompt
        lengths[row] = len(prompt)
    return tokens, lengths
