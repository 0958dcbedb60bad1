"""What can be shown of an answer that is still being written, so that nothing of it has to be taken back."""

from collections.abc import Sequence

import numpy as np

from jaxlingua.generate.stops import NOT_A_CHARACTER
from jaxlingua.tokens.tokenizer import Tokenizer

# Of private use, so that no vocabulary has it: where a tokenizer falls back to bytes, this becomes four.
_UNKNOWN = "\U0010fffd"


class Unfinished:
    """The text of an answer as far as it is certain, whatever follows."""

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...]):
        self._tokenizer, self._stops = tokenizer, stops
        self._half = tokenizer.encode_batch([_UNKNOWN], continuation=True)[0].ids[-1:]

    def text(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The beginning of the whole answer's text that these first tokens decide.

        Held back are bytes at the end that are no character yet, and the beginning of a stop string. Where a
        tokenizer decodes a run of bytes as one (the byte fallback of LLaMA's), a byte that is no character
        spoils the run, so it is held back until a piece of another kind follows.
        """
        tokens = np.asarray(tokens, np.int32)
        now, spoiled = (self._tokenizer.decode(ids) for ids in (tokens, np.concatenate([tokens, self._half])))
        pairs = enumerate(zip(now, spoiled, strict=False))
        same = next((at for at, (one, other) in pairs if one != other), min(len(now), len(spoiled)))
        text = now[:same].rstrip(NOT_A_CHARACTER)
        return text[: len(text) - max((_begun(text, stop) for stop in self._stops), default=0)]


def _begun(text: str, stop: str) -> int:
    """How many characters of `stop`, but not all, the text ends with.

    Example:
        >>> _begun("one\\n", "\\n\\n"), _begun("one", "\\n\\n")
        (1, 0)
    """
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
