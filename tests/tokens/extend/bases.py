"""Small tokenizers of each kind that can be extended, learned on English and CLDR's phrases, and new text."""

import datetime
import json
from functools import cache
from pathlib import Path

import sentencepiece
from babel import Locale
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as RustTokenizer

from jaxlingua.data.cldr import Day, Quantity
from jaxlingua.tokens.extend.base import splits
from tests.tiny import tiny_parallel

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}


@cache
def phrases(locale: str) -> tuple[str, ...]:
    """Dates and lengths in a language."""
    days = [Day(datetime.date(2023, 1, 1) + datetime.timedelta(days=n)) for n in range(0, 365, 4)]
    lengths = [Quantity(n, "length-kilometer") for n in range(1, 20)]
    return tuple(phrase.text(Locale.parse(locale)) for phrase in (*days, *lengths))


@cache
def old_texts() -> tuple[str, ...]:
    return (*tiny_parallel()["eng_Latn"], *phrases("en"), *phrases("fr"), "0 1 2 3 4 5 6 7 8 9 , . ! ?")


@cache
def new_texts() -> tuple[str, ...]:
    """Of four scripts that the old tokenizers do not have; Javanese in Latin letters is the fifth."""
    return (
        *tiny_parallel()["tha_Thai"],
        *tiny_parallel()["ell_Grek"],
        *phrases("hi"),
        *phrases("am"),
        *phrases("jv"),
    )


def save(folder: Path, rust: RustTokenizer, names: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rust.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(names or NAMES))
    return folder


def byte_level(folder: Path, *, ignore_merges: bool = False, alphabet: bool = True) -> Path:
    """In the manner of Llama 3: added tokens beyond the vocabulary, its pattern."""
    rust = RustTokenizer(models.BPE(ignore_merges=ignore_merges))
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    all_bytes = sorted(pre_tokenizers.ByteLevel.alphabet()) if alphabet else []
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=all_bytes, show_progress=False)
    rust.train_from_iterator(old_texts(), trainer)
    rust.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<s>", "</s>")])
    rust.add_tokens(["<think>"])
    number = rust.token_to_id("<s>")
    rust.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    return save(folder, rust)


def sentencepiece_model(folder: Path, *, byte_fallback: bool = True, **options: object) -> Path:
    """A tokenizer.model in the manner of Llama 2."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(old_texts()),
        model_prefix=str(folder / "tokenizer"),
        minloglevel=2,
        **{
            "vocab_size": 480 if byte_fallback else 220,
            "model_type": "bpe",
            "byte_fallback": byte_fallback,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "split_digits": True,
        }
        | options,
    )
    (folder / "tokenizer.vocab").unlink()
    names = NAMES | {"unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def with_json(folder: Path, *, layout: str = "prepend") -> Path:
    """The same pieces as a tokenizer.json, with two added tokens that tokenizer.model does not have."""
    proto = read_proto(folder)
    ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    normal = sorted((-piece.score, i) for i, piece in enumerate(proto.pieces) if piece.type == 1)
    pieces = [proto.pieces[i].piece for _, i in normal]
    byte_fallback = proto.trainer_spec.byte_fallback
    model = models.BPE(
        ids, splits(pieces, ids, ids), unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback
    )
    rust = RustTokenizer(model)
    if layout == "prepend":
        rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        rust.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    rust.decoder = decoders.Sequence(steps)
    rust.add_special_tokens(["<unk>", "<s>", "</s>", AddedToken("<|end|>", special=True, normalized=False)])
    rust.add_tokens([AddedToken("<think>", normalized=False)])
    rust.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return save(folder, rust, NAMES | {"unk_token": "<unk>"})


def read_proto(folder: Path):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((folder / "tokenizer.model").read_bytes())
    return proto


BASES = {
    "byte-level": byte_level,
    "byte-level, whole parts first": lambda folder: byte_level(folder, ignore_merges=True),
    "json": lambda folder: without_model(with_json(sentencepiece_model(folder))),
    "json, Metaspace": lambda folder: without_model(
        with_json(sentencepiece_model(folder), layout="metaspace")
    ),
    "json and model": lambda folder: with_json(sentencepiece_model(folder)),
    "model": sentencepiece_model,
    "json and model, no bytes": lambda folder: with_json(sentencepiece_model(folder, byte_fallback=False)),
}


def without_model(folder: Path) -> Path:
    (folder / "tokenizer.model").unlink()
    return folder
