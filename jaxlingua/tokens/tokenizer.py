"""The tokenizer that a configuration names."""

from collections.abc import Callable, Iterable
from pathlib import Path

from jaxlingua.config import TokensConfig
from jaxlingua.errors import ConfigError
from jaxlingua.tokens import fast, learned, sentencepiece
from jaxlingua.tokens.interface import Encoding, Tokenizer

__all__ = ["Encoding", "Tokenizer", "load_tokenizer"]


def load_tokenizer(
    config: TokensConfig,
    training_texts: Callable[[], Iterable[str]],
    folder: Path | None,
    *,
    is_resumed: bool = True,
) -> Tokenizer:
    """The tokenizer that the configuration names.

    Args:
        training_texts: called only with kind=learned, and only if one is learned.
        folder: where a learned tokenizer is kept.
        is_resumed: whether the run goes on with the one in `folder`, or learns its own.
    Raises: TokenizerError or ConfigError, in one line, if it cannot be loaded exactly as it was trained.
    """
    if config.kind == "learned":
        return learned.load_or_learn(config.vocab_size, training_texts, folder, is_resumed=is_resumed)
    if not config.path:
        raise ConfigError(
            f"tokens.path: empty, with tokens.kind={config.kind}; give a folder, a file or a hub name"
        )
    return {"huggingface": fast.load, "sentencepiece": sentencepiece.load}[config.kind](config.path)
