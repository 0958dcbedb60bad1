"""Text to tokens with their targets. Here, and only here, BOS and EOS are put in."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlingua.data.example import Example
from jaxlingua.tokens.interface import Tokenizer

Spans = Sequence[tuple[int, int]]


class Assembled(NamedTuple):
    """Texts as tokens, one after the other, before anything is cut."""

    tokens: np.ndarray  # int32 [tokens]
    target_mask: np.ndarray  # bool [tokens]
    char_ends: np.ndarray  # int64 [tokens], code points of its text up to the end of the token
    sizes: np.ndarray  # int64 [texts], tokens of each


def assemble(
    texts: Sequence[str], answers: Sequence[Spans], tokenizer: Tokenizer, ends: Sequence[bool] | None = None
) -> Assembled:
    """BOS where the tokenizer has one, the text, and an EOS after each answer of texts that end (`ends`).

    A text is encoded in parts that end with an answer, each of them once. A token is a target if it carries
    any character of the answer, even where it begins in the prompt; so is the EOS.
    """
    parts = [
        (number, start, end, answer)
        for number, text in enumerate(texts)
        for start, end, answer in _parts(len(text), answers[number])
    ]
    owner, starts, stops, answer_starts = np.array(parts, np.int64).reshape(-1, 4).T
    first = starts == 0
    pieces = [texts[number][start:end] for number, start, end, _ in parts]
    opening = [piece for piece, is_first in zip(pieces, first, strict=True) if is_first]
    later = [piece for piece, is_first in zip(pieces, first, strict=True) if not is_first]
    opened, continued = iter(tokenizer.encode_batch(opening)), iter(())
    if later:
        continued = iter(tokenizer.encode_batch(later, continuation=True))
    encodings = [next(opened if is_first else continued) for is_first in first]

    counts = np.array([len(encoding.ids) for encoding in encodings], np.int64)
    before = (first & (tokenizer.bos_id is not None)).astype(np.int64)
    after = (answer_starts >= 0).astype(np.int64)
    if ends is not None:
        after &= np.asarray(ends, bool)[owner]
    sizes = before + counts + after
    begin = np.cumsum(sizes) - sizes
    tokens = np.zeros(sizes.sum(), np.int32)
    target_mask = np.zeros(len(tokens), bool)
    char_ends = np.zeros(len(tokens), np.int64)
    if tokenizer.bos_id is not None:
        tokens[begin[first]] = tokenizer.bos_id
    last = (begin + sizes - 1)[after == 1]
    tokens[last], target_mask[last], char_ends[last] = tokenizer.eos_id, True, stops[after == 1]

    place = np.repeat(begin + before - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    offsets = np.concatenate([np.zeros((0, 2), np.int32), *(encoding.offsets for encoding in encodings)])
    piece_starts, piece_ends = (offsets + np.repeat(starts, counts)[:, None]).T
    tokens[place] = np.concatenate([np.zeros(0, np.int32), *(encoding.ids for encoding in encodings)])
    answer_start = np.repeat(answer_starts, counts)
    target_mask[place] = (answer_start >= 0) & (piece_ends > answer_start) & (piece_ends > piece_starts)
    char_ends[place] = piece_ends
    return Assembled(tokens, target_mask, char_ends, np.bincount(owner, sizes, len(texts)).astype(np.int64))


def _parts(length: int, answers: Spans) -> list[tuple[int, int, int]]:
    """(start, end, start of the answer or -1) of the pieces of text that are encoded at once."""
    bounds = [0, *(end for _, end in answers)]
    parts = [(bounds[i], end, start) for i, (start, end) in enumerate(answers)]
    return [*parts, (bounds[-1], length, -1)] if bounds[-1] < length or not answers else parts


def prompt_tokens(prompts: Sequence[Example | str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """What a model reads before it answers, as in training: BOS, text, EOS after earlier answers.

    Of an example that is the text up to its last answer; of a string, all of it.
    """
    texts = [prompt if isinstance(prompt, str) else prompt.prompt for prompt in prompts]
    answers = [() if isinstance(prompt, str) else prompt.answers[:-1] for prompt in prompts]
    assembled = assemble(texts, answers, tokenizer)
    return np.split(assembled.tokens, np.cumsum(assembled.sizes)[:-1]) if prompts else []
