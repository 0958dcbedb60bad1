"""Where an answer is stopped by a text, which need not begin or end with a token."""

from collections.abc import Sequence

import numpy as np

from jaxlingua.tokens.tokenizer import Tokenizer

NOT_A_CHARACTER = "\ufffd"  # what decoding gives for bytes that are no character, or not yet


class StopSearch:
    """The search in one answer, which goes on where it ended at the last look."""

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...]):
        self._tokenizer, self._stops, self._searched = tokenizer, stops, 0

    def find(self, tokens: Sequence[int] | np.ndarray, *, is_whole: bool) -> tuple[int, str] | None:
        """Tokens up to the one that completes a stop string, and the text before it; None if there is none.

        Bytes at the end that are no character may be the beginning of one, so they match nothing unless the
        answer is whole; those that follow a character in one run of bytes hide it in some tokenizers, so
        every number of tokens is looked at.
        """
        whole = self._tokenizer.decode(tokens)
        if NOT_A_CHARACTER not in whole and not any(stop in whole for stop in self._stops):
            self._searched = max(0, len(tokens) - 1)
            return None
        for count in range(self._searched + 1, len(tokens) + 1):
            text = self._tokenizer.decode(tokens[:count])
            if not (is_whole and count == len(tokens)):
                text = text.rstrip(NOT_A_CHARACTER)
            if found := [text.index(stop) for stop in self._stops if stop in text]:
                return count, text[: min(found)]
        self._searched = max(0, len(tokens) - 1)  # the last one again, which may end in half a character
        return None
