"""A byte-level BPE learned on the training text, for models that start from nothing."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as RustTokenizer

from jaxlingua.errors import DataError, TokenizerError
from jaxlingua.tokens import fast
from jaxlingua.tokens.interface import Tokenizer

PAD, BOS, EOS = "<pad>", "<s>", "</s>"  # ids 0, 1, 2

# Words with their vowel signs (GPT-2's pattern takes marks for punctuation and cuts Hindi words at each
# vowel), single digits (numbers of any length are spelled alike), runs of other signs, white space.
WORDS = r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"


def load_or_learn(
    vocab_size: int,
    training_texts: Callable[[], Iterable[str]],
    folder: Path | None,
    *,
    is_resumed: bool = True,
) -> Tokenizer:
    """The tokenizer kept in `folder` if a run is resumed, or else one learned now and kept there.

    Raises: TokenizerError if the one in the folder was learned with another `tokens.vocab_size`.
    """
    if folder is None:
        return fast.from_files(learn(training_texts(), vocab_size), "learned tokenizer")
    if not is_resumed or not (folder / "tokenizer.json").is_file():
        files = learn(training_texts(), vocab_size)
        folder.mkdir(parents=True, exist_ok=True)
        for name in reversed(files):  # tokenizer.json last: where it is, all is there
            partial = folder / f".{name}.{os.getpid()}"
            partial.write_bytes(files[name])
            partial.replace(folder / name)
    tokenizer = fast.load(str(folder))
    asked = json.loads((folder / "tokenizer_config.json").read_bytes()).get("asked_vocab_size")
    if asked != vocab_size:
        raise TokenizerError(
            f"{folder}: the tokenizer there was learned with tokens.vocab_size={asked}, the configuration "
            f"has {vocab_size}; a run keeps its tokenizer; choose another run.folder"
        )
    return tokenizer


def learn(texts: Iterable[str], vocab_size: int) -> dict[str, bytes]:
    """The files of a byte-level BPE; the same texts give the same files, whatever the number of threads.

    Every string can be written with it, since all 256 bytes are pieces.

    Cost: about 2 s for 5 MB of English and Chinese with 8,000 pieces, on 4 cores.
    Raises: DataError if there is no text.
    """
    texts = [text for text in texts if text]
    if not texts:
        raise DataError("tokens: no training text to learn a tokenizer from; every stage's sources are empty")
    tokenizer = RustTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in (PAD, BOS, EOS)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 1)]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "asked_vocab_size": vocab_size,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(config, indent=2).encode(),
    }
