"""Text in, and rows of integers out: sources and tokenizer."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from jaxlingua.config.fields import (
    STRICT,
    Auto,
    LanguageCode,
    NotNegative,
    Off,
    Positive,
    Text,
    free,
    identity,
)
from jaxlingua.config.model import ModelConfig
from jaxlingua.errors import ConfigError
from jaxlingua.languages import check_language

HELD_OUT = "Records kept from training for evaluation; auto is 1 %, at most 256."


class InstructionsSource(BaseModel):
    """Instruction, input and output: JSON, JSONL or Parquet with Alpaca's fields."""

    model_config = STRICT
    kind: Literal["instructions"] = identity("instructions", "Alpaca-style instructions.")
    path: Text = identity(..., "File, relative to data.folder; .gz is read as it is.")
    language: LanguageCode = identity(..., "Language of the answers.")
    columns: dict[str, Text] = identity(
        {},
        "Names in the file of instruction, input, output and stratum (see replay), where they differ.",
    )
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class ChatSource(BaseModel):
    """Conversations: OpenAI `messages` or ShareGPT `conversations`, JSON, JSONL or Parquet."""

    model_config = STRICT
    kind: Literal["chat"] = identity("chat", "Conversations; only assistant turns are learned.")
    path: Text = identity(..., "File, relative to data.folder.")
    language: LanguageCode = identity(..., "Language of the assistant.")
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class FiltersConfig(BaseModel):
    """What parallel text must be like; each filter counts what it drops and shows examples of it."""

    model_config = STRICT
    identical: bool = identity(False, "Whether pairs are dropped whose sides are the same, apart from case.")
    duplicates: bool = identity(
        False, "Whether a pair is dropped that was there before, apart from case and punctuation."
    )
    length_ratio: Annotated[float, Field(gt=1)] | Off = identity(
        "off",
        "Longest that a side may be beside the other, as a multiple of what is usual for the two languages "
        "in this source (the median ratio of their characters); 3 is a good start.",
    )
    longest_characters: Positive | Off = identity("off", "Characters that neither side may exceed.")
    script: Annotated[float, Field(gt=0, le=1)] | Off = identity(
        "off",
        "Least share of a side's letters that are of its language's script; 0.5 is a good start. Sides "
        "without letters are kept.",
    )
    language: Annotated[float, Field(gt=0, lt=1)] | Off = identity(
        "off",
        "Probability of another language from which on a side is dropped; 0.9 is a good start. Sides in a "
        "language that the identifier does not know are kept.",
    )
    numbers: bool = identity(False, "Whether pairs whose sides hold different numbers are dropped.")
    urls: bool = identity(False, "Whether pairs whose sides hold different URLs or HTML tags are dropped.")


class ParallelSource(BaseModel):
    """Sentences with their translations: one file per language, or one file with a column per language."""

    model_config = STRICT
    kind: Literal["parallel"] = identity("parallel", "Parallel text.")
    path: Text = identity(..., "File; with {language} in it one file per language, line n beside line n.")
    languages: list[LanguageCode] = identity(..., "Languages to read, two or more.", min_length=2)
    format: Literal["auto", "lines", "tsv", "csv", "jsonl"] = identity(
        "auto", "Format; auto goes by {language} and the file's name. Quotes are text in tsv, not in csv."
    )
    columns: dict[LanguageCode, Text] = identity(
        {}, "Column of each language: a header, a JSON key, a number from 1, or what stands for {language}."
    )
    filters: FiltersConfig = identity(FiltersConfig(), "What pairs are dropped for.")
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class QASource(BaseModel):
    """Extractive questions in SQuAD's JSON format."""

    model_config = STRICT
    kind: Literal["qa"] = identity("qa", "SQuAD-format questions; answers are spans of the context.")
    path: Text = identity(..., "JSON file, relative to data.folder.")
    language: LanguageCode = identity(..., "Language of context and answers.")
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class HuggingFaceSource(BaseModel):
    """A dataset of the Hugging Face hub, or a local folder of one, with a map of its columns."""

    model_config = STRICT
    kind: Literal["huggingface"] = identity("huggingface", "A dataset read by the datasets library.")
    path: Text = identity(..., "Hub name or local folder.")
    name: Text = identity("", "Configuration of the dataset, where it has several.")
    split: str = identity("train", "Split to read.")
    yields: Literal["instruction", "translation", "qa", "text", "chat"] = identity(
        ..., "What its records are."
    )
    columns: dict[str, Text] = identity(
        {},
        "Column of each field (instruction, input, text, stratum, a language code); dots go into structs.",
    )
    language: LanguageCode | Literal[""] = identity("", "Language of the records; not for translation.")
    languages: list[LanguageCode] = identity([], "Languages of a translation dataset.")
    filters: FiltersConfig = identity(FiltersConfig(), "What pairs of a translation dataset are dropped for.")
    stream_records: Positive | Auto = identity(
        "auto",
        "Records to take from a stream that is shuffled in a buffer of 1,000, for datasets too large to read "
        "whole; auto reads all of it.",
    )
    stream_seed: int = identity(0, "Seed of that shuffle.", ge=0)
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class TextSource(BaseModel):
    """Plain text, for continued pre-training."""

    model_config = STRICT
    kind: Literal["text"] = identity("text", "Plain text; all of it is learned.")
    path: Text = identity(..., "File, relative to data.folder.")
    language: LanguageCode = identity(..., "Its language.")
    unit: Literal["line", "file"] = identity("line", "Whether a line or the whole file is one record.")
    held_out_records: NotNegative | Auto = identity("auto", HELD_OUT)


class CldrSource(BaseModel):
    """Dates, quantities and relative times of Unicode CLDR, which ships with Babel: no download."""

    model_config = STRICT
    kind: Literal["cldr"] = identity("cldr", "Text made from Unicode CLDR.")
    languages: list[LanguageCode] = identity(..., "Languages to write it in.", min_length=1)
    yields: Literal["translation", "qa", "instruction"] = identity("translation", "What its records are.")
    records: int = identity(10_000, "Records to make, training and held-out together.", gt=0)
    held_out_records: NotNegative | Auto = identity("auto", "Records whose meanings are kept from training.")


SourceConfig = Annotated[
    InstructionsSource | ChatSource | ParallelSource | QASource | HuggingFaceSource | TextSource | CldrSource,
    Field(discriminator="kind"),
]


def source_languages(source: SourceConfig) -> list[str]:
    """The languages that a source declares."""
    declared = list(getattr(source, "languages", [])) or [getattr(source, "language", "")]
    return [language for language in declared if language]


class DataConfig(BaseModel):
    """Text in."""

    model_config = STRICT
    folder: Text = free(".", "Folder that relative paths of sources start from.")
    sources: dict[str, SourceConfig] = identity({}, "Sources by name.")
    template: Literal["alpaca", "short", "raw"] = identity(
        "alpaca", "Frame around instruction and answer, in training and evaluation alike."
    )
    frames: Literal["english", "localized"] = identity(
        "english",
        "Language of frames and translation instructions: English, or that of the answer, which must have "
        "them in wording/localized.yaml.",
    )
    wording_folder: Text = identity(
        "", "Folder of wording files of your own; each takes the place of ours of the same name."
    )
    workers: NotNegative | Auto = free(
        "auto",
        "Processes that draw noise and templates ahead of training; 0 does it in the run's own. Changes "
        "speed only.",
    )
    leaks: Literal["refuse", "drop", "allow"] = free(
        "refuse",
        "What to do where training text equals evaluation text; what a run has learned must stay as it was.",
    )


class TokensConfig(BaseModel):
    """Text to rows of integers."""

    model_config = STRICT
    kind: Literal["auto", "learned", "huggingface", "sentencepiece"] = identity(
        "auto",
        "Byte-level BPE learned on the training text, a Hugging Face one, a tokenizer.model; auto goes by "
        "the files of path, and learns one where there is none.",
    )
    path: Text = identity(
        "", "Folder, hub name or file of the tokenizer; empty is the checkpoint's, or none with kind=learned."
    )
    vocab_size: int = identity(768, "Pieces to learn with kind=learned, special tokens included.", ge=260)
    row_length_tokens: int = identity(512, "Tokens in a row.", ge=8)
    packing: bool = identity(True, "Whether a row holds several documents, each seeing only itself.")
    too_long: Literal["cut", "drop"] = identity(
        "cut", "What happens to documents longer than a row; both are counted."
    )
    cache_folder: Text = free("auto", "Where tokenized documents are kept; auto is the run folder.")


def check_sources(data: DataConfig) -> None:
    """Names of sources are plain; languages are known, differ and are enough."""
    for name, source in data.sources.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ConfigError(
                f"data.sources: name '{name}' given; letters, digits, _ and - are allowed; rename it"
            )
        where = f"data.sources.{name}"
        languages = source_languages(source)
        for language in languages:
            check_language(language, where)
        if len(set(languages)) < len(languages):
            raise ConfigError(f"{where}.languages: {', '.join(languages)} given; each may appear once")
        if isinstance(source, HuggingFaceSource):
            if source.yields == "translation" and len(languages) < 2:
                raise ConfigError(f"{where}.languages: {len(languages)} given; translation needs two or more")
            if source.yields != "translation" and not source.language:
                raise ConfigError(f"{where}.language: not given; say which language the records are in")


def check_tokens(tokens: TokensConfig, model: ModelConfig) -> None:
    """A tokenizer has a path where it needs one; a public checkpoint keeps the pieces that it knows."""
    if tokens.kind == "learned" and model.init != "scratch":
        raise ConfigError(
            "tokens.kind: 'learned' given; a checkpoint knows only its own pieces; leave tokens.kind out"
        )
    if model.init != "scratch" and tokens.vocab_size != TokensConfig().vocab_size:
        raise ConfigError(
            f"tokens.vocab_size: {tokens.vocab_size} given; only a tokenizer that is learned has a size to "
            f"choose; leave it out"
        )
    if tokens.kind == "learned" and tokens.path:
        raise ConfigError(
            f"tokens.path: '{tokens.path}' given; tokens.kind=learned needs no path; leave it out"
        )
    if tokens.kind in ("huggingface", "sentencepiece") and not tokens.path and model.init == "scratch":
        raise ConfigError(
            f"tokens.path: nothing given; tokens.kind={tokens.kind} needs the path of a tokenizer; give it"
        )
