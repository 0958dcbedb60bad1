"""The command line of `python -m jaxlingua.tokens extend`, understood before any text is read."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from jaxlingua.bucket import is_bucket
from jaxlingua.command_line import Flag, apply_override, check_config, flags_from_command_line
from jaxlingua.config import Config
from jaxlingua.data.fields import text_field
from jaxlingua.data.readers import PARQUET, find_file, opened, read_lines, read_rows
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.identify import identify, scripts_of

Rows = Literal["mean", "pieces", "distilled"]
PROGRAM = "jaxlingua.tokens extend"
PURPOSE = """\
Learns pieces for the languages of TEXT, puts them into the tokenizer of MODEL behind all that it has, and
writes FOLDER: tokenizer and weights with a row for each new piece, which transformers and model.path read.
MODEL is a Hugging Face folder or hub name; of a folder with a tokenizer alone, that is extended. TEXT has a
text per line, or is JSON lines, a JSON array or Parquet with the field text; it may be gzipped. Every 20th
text is held out: on it the tokens per word are told, before and after. FOLDER/extension.json has all of it.
Options have a meaning with --rows distilled only: sharding.mesh, sharding.slices, run.seed, run.platform,
model.compute_dtype, model.attention."""
_OLD = (
    "Text of languages that the model knows: how many of its tokens change is told. Without it that is told "
    "of jaxlingua's own instructions and phrases, in all languages that no TEXT seems to be in."
)
_ROWS = (
    "How a new row begins: as the mean of all old rows, as the mean of those of the old pieces that it "
    "replaces (if not given), or learned so that hidden states stay the same (arXiv:2505.20133)."
)
FLAGS = (
    Flag("--pieces", "How many new pieces, at most.", "8000", is_needed=True),
    Flag("--output", "Folder to write.", "FOLDER", is_needed=True),
    Flag("--old", _OLD, "TEXT"),
    Flag("--keep-old", "Take no piece that would change a token of the old text."),
    Flag("--rows", _ROWS, "mean|pieces|distilled"),
    Flag("--row-multiple", "Rows of embedding and head become a multiple of it; 64 if not given.", "64"),
)
SECTIONS = ("sharding",)
HELD_OUT_EVERY = 20
_ALLOWED = re.compile(r"sharding\.(mesh\.|slices=)|run\.(seed|platform)=|model\.(compute_dtype|attention)=")
_RECORDS = (".jsonl", ".ndjson", ".json", ".parquet")
_SAMPLE_TEXTS, _SAMPLE_CHARACTERS = 2000, 2000  # of a file, for its scripts


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        texts: files to learn from.
        old: file of text that the model knows; None stands for our own.
        rows: None where it is not given.
        config: defaults and options.
    """

    model: str
    texts: list[Path]
    pieces: int
    output: Path
    old: Path | None
    keeps_old: bool
    rows: Rows | None
    row_multiple: int
    config: Config


@dataclass(frozen=True)
class TextFile:
    """A file of texts, those without a character left out."""

    path: Path
    texts: list[str]
    empty: int

    @property
    def learned(self) -> list[str]:
        """Texts to learn from."""
        return [text for i, text in enumerate(self.texts, 1) if i % HELD_OUT_EVERY]

    @property
    def held_out(self) -> list[str]:
        """Every 20th text; none where the file has fewer."""
        return self.texts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]

    def facts(self) -> dict[str, Any]:
        """What was read. Language and scripts are those of 2,000 texts at most."""
        every = -(-len(self.texts) // _SAMPLE_TEXTS)
        sample = "\n".join(text[:_SAMPLE_CHARACTERS] for text in self.texts[::every])
        return {
            "file": str(self.path),
            "texts": len(self.texts),
            "empty texts": self.empty,
            "held out": len(self.held_out),
            "characters": sum(map(len, self.texts)),
            "language": identify(sample)[0],
            "scripts": {script: round(share, 3) for script, share in scripts_of(sample).items()},
        }


def wanted_from(arguments: list[str]) -> Wanted:
    """Understand `MODEL TEXT … --pieces … --output …`, before anything is read.

    Raises: ConfigError or DataError for what cannot be done.
    """
    flags, rest = flags_from_command_line(
        PROGRAM, PURPOSE, FLAGS, SECTIONS, arguments, usage="MODEL TEXT [TEXT …]"
    )
    overrides = [one for one in rest if re.match(r"[\w.\[\]]+=", one) and not Path(one).exists()]
    names = [os.path.expanduser(one) for one in rest if one not in overrides]
    if len(names) < 2:
        raise ConfigError(f"{PROGRAM}: MODEL and one TEXT or more are needed; {_given(names)}; see --help")
    rows = flags.get("--rows")
    if rows not in (None, *get_args(Rows)):
        raise ConfigError(
            f"--rows: '{rows}' given; {', '.join(get_args(Rows))} are allowed; choose one of them"
        )
    given: dict[str, Any] = {}
    for override in overrides:
        if not _ALLOWED.match(override):
            raise ConfigError(
                f"{override}: has no effect here; those options that --help names are allowed; leave it out"
            )
        if rows != "distilled":
            raise ConfigError(
                f"{override}: has no effect without --rows distilled, which alone computes with the model; "
                f"leave it out"
            )
        apply_override(given, override)
    model = names[0]
    _refuse_other_models(model)
    return Wanted(
        model=model,
        texts=_text_files(names[1:]),
        pieces=_whole(flags, "--pieces", None),
        output=Path(flags["--output"]).expanduser().absolute(),
        old=_text_file(os.path.expanduser(flags["--old"]), "--old") if "--old" in flags else None,
        keeps_old="--keep-old" in flags,
        rows=rows,
        row_multiple=_whole(flags, "--row-multiple", 64),
        config=check_config(given, PROGRAM),
    )


def _given(names: list[str]) -> str:
    return f"'{names[0]}' alone given" if names else "neither given"


def _whole(flags: dict[str, str], name: str, default: int | None) -> int:
    """The whole number of a flag, above 0 and at most a million."""
    if name not in flags and default is not None:
        return default
    if not re.fullmatch(r"[0-9]{1,7}", flags[name]) or not 0 < int(flags[name]) <= 1_000_000:
        raise ConfigError(
            f"{name}: '{flags[name]}' given; a whole number from 1 to 1000000 is allowed; give one"
        )
    return int(flags[name])


def _refuse_other_models(model: str) -> None:
    """Raises: ConfigError for what is no model, but what one can be made of."""
    if is_bucket(model) or (Path(model) / "config.yaml").is_file():
        where = " checkpoint.export.folder=FOLDER" if is_bucket(model) else ""
        made = "FOLDER" if is_bucket(model) else f"{model.rstrip('/')}/export"
        raise ConfigError(
            f"MODEL: '{model}' given, the folder of a run; a Hugging Face folder is needed; run 'python -m "
            f"jaxlingua.checkpoint export {model}{where}' and give {made}"
        )
    if (Path(model) / "adapter_config.json").is_file():
        raise ConfigError(
            f"MODEL: '{model}' given, the folder of an adapter; a whole model is needed; run 'python -m "
            f"jaxlingua.checkpoint merge {model} checkpoint.export.folder=FOLDER' and give FOLDER"
        )


def _text_files(names: list[str]) -> list[Path]:
    files: list[Path] = []
    for name in names:
        file = _text_file(name, "TEXT")
        if any(file.samefile(other) for other in files):
            raise ConfigError(f"TEXT: '{name}' given twice; give each file once")
        files.append(file)
    return files


def _text_file(name: str, where: str) -> Path:
    if not Path(name).exists():
        raise ConfigError(f"{where}: '{name}' given, which is no file; give a file of texts")
    return find_file(name, "", where)


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────


def read_texts(file: Path, where: str) -> TextFile:
    """All texts of a file.

    Raises: DataError naming the line that is no UTF-8, or the record without a text; and where none is there.
    """
    texts, empty = [], 0
    for text in _texts_in(file, where):
        if text.strip():
            texts.append(text)
        else:
            empty += 1
    if not texts:
        raise DataError(
            f"{where} ({file}): {empty} texts, all of them empty; one with a character is needed; give "
            f"another file"
        )
    return TextFile(file, texts, empty)


def _texts_in(file: Path, where: str) -> Iterator[str]:
    ending = Path(file.name.lower().removesuffix(".gz")).suffix
    with opened(file, where) as content:
        is_parquet = content.peek(len(PARQUET)).startswith(PARQUET)
    if is_parquet or ending in _RECORDS:
        return (text_field(row, "text", {}) for row in read_rows(file, where))
    return read_lines(file, where)
