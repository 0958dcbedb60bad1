"""The command line of `python -m jaxlingua.data translate`, understood before any device is touched."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlingua.bucket import is_bucket
from jaxlingua.command_line import Flag, apply_override, check_config, flags_from_command_line, load_config
from jaxlingua.config import Config
from jaxlingua.data.instruction_file import InstructionFile, check_ending, read_instruction_file
from jaxlingua.data.records import Pair
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import Wording, load_wording
from jaxlingua.errors import ConfigError
from jaxlingua.generate.output import check_output
from jaxlingua.languages import check_language

PURPOSE = """\
Translates instruction, input and output of each record of FILE (Alpaca's form: a JSON array, JSON lines or
Parquet) with any model that can be run here. OUT has the same records in the same order and all other fields.
Code, placeholders and addresses are kept. OUT.report.json lists the records that need a look.
Run the same command again, and it goes on where it was.
Of the options these have a meaning here too: run.seed, run.platform, model.compute_dtype, model.attention,
data.template, data.frames, data.wording_folder."""
FLAGS = (
    Flag("--model", "Folder of a run, or Hugging Face folder or hub name.", "MODEL", is_needed=True),
    Flag("--from", "Language of FILE.", "eng_Latn", is_needed=True),
    Flag("--to", "Language to translate into.", "jav_Latn", is_needed=True),
    Flag("--output", "File to write.", "OUT", is_needed=True),
)
SECTIONS = ("generate", "sharding")
_ALLOWED = re.compile(
    r"(generate|sharding)\.|(run\.(seed|platform)|model\.(compute_dtype|attention)"
    r"|data\.(template|frames|wording_folder))="
)


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for, with the file that it names."""

    file: InstructionFile
    texts: list[dict[str, str]]
    model: str
    direction: tuple[str, str]
    output: Path
    config: Config
    wording: Wording

    def prompt(self, text: str) -> str:
        """What the model is asked."""
        return translation_prompt(text, self.wording, self.direction)


def translation_prompt(text: str, wording: Wording, direction: tuple[str, str]) -> str:
    """What a model is asked that is to translate: as in evaluation, in the frame that training has."""
    pair = Pair(0, {direction[0]: text, direction[1]: "a"})  # the answer is no part of it
    return render(pair, wording, source="translate", training=False, direction=direction).prompt


def wanted_from(arguments: list[str]) -> Wanted:
    """Understand `FILE --model … [key=value …]` and read the file, before any device is touched.

    Raises: ConfigError or DataError for what cannot be translated.
    """
    program = "jaxlingua.data translate"
    flags, rest = flags_from_command_line(program, PURPOSE, FLAGS, SECTIONS, arguments, usage="FILE")
    overrides = [one for one in rest if re.match(r"[\w.\[\]]+=", one) and not Path(one).exists()]
    names = [one for one in rest if one not in overrides]
    if len(names) != 1:
        raise ConfigError(f"{program}: {len(names)} files given; one FILE is needed; give one; see --help")
    for override in overrides:
        if not _ALLOWED.match(override):
            raise ConfigError(
                f"{override}: has no effect here; options of generate and sharding, and those that --help "
                f"names, are allowed; leave it out"
            )
    direction = (flags["--from"], flags["--to"])
    for flag, language in zip(("--from", "--to"), direction, strict=True):
        check_language(language, flag)
    if direction[0] == direction[1]:
        raise ConfigError(f"--to: '{direction[1]}' given, which is the language of FILE; give another one")
    model = os.path.expanduser(flags["--model"])
    config = _config_of(model, overrides)
    if not Path(names[0]).exists():
        raise ConfigError(f"FILE: '{names[0]}' given, which is no file; give one of Alpaca's form")
    file = read_instruction_file(names[0], "FILE")
    output = Path(flags["--output"]).expanduser()
    check_output(output)
    check_ending(output, file.form, "--output")
    wording = load_wording(config.data)
    wanted = Wanted(file, file.texts(), model, direction, output, config, wording)
    wanted.prompt("a")  # refuses a language without a name or without frames
    return wanted


def _config_of(model: str, overrides: Sequence[str]) -> Config:
    """A run's own configuration, as far as it matters here, or the defaults."""
    if is_bucket(model) or (Path(model) / "config.yaml").is_file():
        return load_config(model, list(overrides))
    given: dict[str, Any] = {}
    for override in overrides:
        apply_override(given, override)
    return check_config(given, "jaxlingua.data translate")
