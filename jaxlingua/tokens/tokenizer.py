"""The tokenizer that a configuration names."""

from collections.abc import Callable, Iterable
from pathlib import Path

from jaxlingua.config import TokensConfig
from jaxlingua.errors import ConfigError
from jaxlingua.tokens import fast, learned, sentencepiece
from jaxlingua.tokens.interface import Encoding, Tokenizer, find_files

__all__ = ["Encoding", "Tokenizer", "is_learned", "load_tokenizer", "tokenizer_of_folder"]


def load_tokenizer(
    config: TokensConfig,
    training_texts: Callable[[], Iterable[str]],
    folder: Path | None,
    *,
    model_path: str = "",
    is_resumed: bool = True,
) -> Tokenizer:
    """The tokenizer that the configuration names.

    Args:
        training_texts: called only if a tokenizer is learned.
        folder: where the run keeps its tokenizer.
        model_path: the public checkpoint that the model begins from, whose tokenizer is taken where the
            configuration names none.
        is_resumed: whether the run goes on with the one in `folder`.
    Raises: TokenizerError or ConfigError, in one line, if it cannot be loaded exactly as it was trained.
    """
    if is_learned(config, model_path):
        return learned.load_or_learn(config.vocab_size, training_texts, folder, is_resumed=is_resumed)
    if folder is not None and is_resumed and folder.is_dir():
        return tokenizer_of_folder(str(folder))
    path = config.path or model_path
    if not path:
        raise ConfigError(
            f"tokens.path: empty, with tokens.kind={config.kind}; give a folder, a file or a hub name"
        )
    load = {"huggingface": fast.load, "sentencepiece": sentencepiece.load, "auto": tokenizer_of_folder}[
        config.kind
    ]
    tokenizer = load(path)
    if folder is not None:
        tokenizer.save(folder)
    return tokenizer


def is_learned(config: TokensConfig, model_path: str) -> bool:
    """Whether the tokenizer is learned on the training text."""
    return config.kind == "learned" or (config.kind == "auto" and not config.path and not model_path)


def tokenizer_of_folder(path: str) -> Tokenizer:
    """The tokenizer of a folder, a file or a hub name: a tokenizer.json where there is one, else a
    tokenizer.model."""
    if Path(path).expanduser().is_file():
        return sentencepiece.load(path)
    folder = find_files(path, [*fast.FILES, *fast.KEPT])
    has_model_only = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    return (sentencepiece if has_model_only else fast).load(path)
