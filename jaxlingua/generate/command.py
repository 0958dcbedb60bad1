"""The command line of `python -m jaxlingua.generate`, understood before any device is touched."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jaxlingua.command_line import Flag, apply_override, check_config, flags_from_command_line, load_config
from jaxlingua.config import Config
from jaxlingua.errors import CheckpointError, ConfigError, DataError
from jaxlingua.generate.framing import Framing, Question, framing_of_model, framing_of_run, is_run
from jaxlingua.generate.lines import Lines, read_lines_of
from jaxlingua.generate.output import check_output
from jaxlingua.languages import check_language

PROGRAM = "jaxlingua.generate"
PURPOSE = """\
Asks a model. RUN is the folder of a run, whose newest step answers, MODEL a Hugging Face folder or hub name.
With PROMPT it answers once, on standard output; "-" reads the prompt from standard input, "--" stands before
one that begins with a dash. With --file it answers each line of a file. With neither it is a session: each
line that is typed is a question of its own.
PROMPT is an instruction, and is framed as the model learned it; --from and --to make it a text to translate.
Of the options these have a meaning here too: run.seed, run.platform, model.compute_dtype, model.attention,
data.template, data.frames, data.wording_folder."""
FLAGS = (
    Flag("--input", "Input that the instruction is about.", "TEXT"),
    Flag("--from", "Language of the text to translate.", "eng_Latn"),
    Flag("--to", "Language to translate into; alone, that of an answer in localized frames.", "jav_Latn"),
    Flag("--raw", "PROMPT goes in as it is, without a frame."),
    Flag("--beside", "A model that answers too: base is what RUN began from.", "base|MODEL"),
    Flag("--file", 'JSON lines: {"instruction", "input"}, {"text", "from", "to"} or {"prompt"}.', "IN.jsonl"),
    Flag("--output", "The same lines with answers; run again, it goes on.", "OUT.jsonl"),
    Flag("--web", "A page in the browser instead, on this machine alone."),
    Flag("--host", "Address that the page is served at; others than 127.0.0.1 let others in.", "127.0.0.1"),
    Flag("--port", "Port of the page; without it the next free one from 7860.", "7860"),
)
SECTIONS = ("generate", "sharding")
_OPTION = re.compile(r"[A-Za-z_]+\.[\w.\[\]+-]*=")
_FLAG = re.compile(r"(-h|--[a-z][a-z-]*(=.*)?)\Z", re.DOTALL)
_ALLOWED = re.compile(
    r"(generate|sharding)\.|(run\.(seed|platform)|model\.(compute_dtype|attention)"
    r"|data\.(template|frames|wording_folder))="
)
# What excludes what: flags that have no meaning beside one, and what that one does.
_ALONE = {
    "--file": ("which answers the lines of a file", ("--input", "--raw", "--beside", "--web")),
    "--web": ("where that is chosen on the page", ("--input", "--raw", "--from", "--to")),
    "--raw": ("which frames nothing", ("--input", "--from", "--to")),
}
_NEEDED = {"--output": "--file", "--file": "--output", "--host": "--web", "--port": "--web"}


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        models: name → RUN or MODEL, "" for what the run began from.
        framings: how each of them is asked.
        question: PROMPT; None where there is none.
        asked: how the session frames its first question, as far as flags say.
        lines: those of --file.
    """

    models: dict[str, str]
    framings: dict[str, Framing]
    config: Config
    question: Question | None
    asked: Question
    lines: Lines | None
    output: Path | None
    is_web: bool
    host: str
    port: int | Literal["auto"]


def wanted_from(arguments: list[str]) -> Wanted:
    """Understand `RUN|MODEL [PROMPT] FLAGS [key=value …]` and read prompt or file.

    Raises: ConfigError, DataError or CheckpointError for what cannot be answered.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    arguments, prompts = arguments[:end], arguments[end + 1 :]
    dashes = _dashes(arguments)
    arguments = [argument for place, argument in enumerate(arguments) if place not in dashes]
    flags, rest = flags_from_command_line(
        PROGRAM, PURPOSE, FLAGS, SECTIONS, arguments, usage="RUN|MODEL [PROMPT]"
    )
    overrides = [one for one in rest if _OPTION.match(one)]
    names = [*(one for one in rest if one not in overrides), *prompts]
    reads_prompt, count = bool(dashes), len(names) + len(dashes)
    has_prompt = count > 1
    if count == len(prompts) + len(dashes) or count > 2:
        raise ConfigError(
            f"{PROGRAM}: {count} names given; RUN or MODEL, and one PROMPT if any; put the prompt in quotes; "
            f"see --help"
        )
    for override in overrides:
        if not _ALLOWED.match(override):
            raise ConfigError(
                f"{override}: has no effect here; options of generate and sharding, and those that --help "
                f"names, are allowed; leave it out, or give a prompt that looks like one behind --"
            )
    _refuse_together(flags, has_prompt=has_prompt)
    model = os.path.expanduser(names[0])
    config = _config_of(model, overrides)
    models, framings = _models(model, flags.get("--beside", ""), config, overrides)
    asked = _asked(flags, config)
    question = lines = output = None
    if "--file" in flags:
        output = Path(flags["--output"]).expanduser()
        check_output(output)
        lines = read_lines_of(flags["--file"], framings[next(iter(models))], asked)
    elif has_prompt:
        question = replace(asked, text=_standard_input() if reads_prompt else names[1])
        for framing in framings.values():
            framing.prompt(question)  # refuses what cannot be framed
    host = flags.get("--host", "127.0.0.1")
    return Wanted(
        models, framings, config, question, asked, lines, output, "--web" in flags, host, _port(flags)
    )


def _dashes(arguments: Sequence[str]) -> set[int]:
    """Where "-" stands for a prompt on standard input.

    Raises: ConfigError for one that is the value of a flag, and for a prompt that looks like a flag.
    """
    found, with_values = set(), {flag.name for flag in FLAGS if flag.value}
    for place, argument in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        if argument == "-" and before in with_values:
            raise ConfigError(f"{before}: '-' given; standard input is read for PROMPT alone; write it out")
        if argument == "-":
            found.add(place)
        elif argument.startswith("-") and not _FLAG.match(argument) and before not in with_values:
            raise ConfigError(
                f"{PROGRAM}: '{argument}' given; a prompt that begins with - stands behind --, or comes on "
                f'standard input; write it last, like -- "{argument}"'
            )
    return found


def _refuse_together(flags: dict[str, str], *, has_prompt: bool) -> None:
    for flag, (why, others) in _ALONE.items():
        if flag in flags:
            found = [*(other for other in others if other in flags), *["PROMPT"] * has_prompt]
            if found and not (flag == "--raw" and found == ["PROMPT"]):
                raise ConfigError(f"{found[0]}: given with {flag}, {why}; leave one of them out")
    for flag, needed in _NEEDED.items():
        if flag in flags and needed not in flags:
            raise ConfigError(f"{flag}: given without {needed}; both are needed; give it too")
    if "--input" in flags and ("--from" in flags or not has_prompt):
        what = "with --from, which translates PROMPT" if "--from" in flags else "without PROMPT"
        raise ConfigError(f"--input: given {what}; it is the input of an instruction; leave it out")
    if "--from" in flags and "--to" not in flags:
        raise ConfigError("--from: given without --to; both are needed; give it too")


def _asked(flags: dict[str, str], config: Config) -> Question:
    """A question without its text, as the flags say."""
    for flag in ("--from", "--to"):
        if flag in flags:
            check_language(flags[flag], flag)
    given, wanted = flags.get("--from", ""), flags.get("--to", "")
    if given and given == wanted:
        raise ConfigError(f"--to: '{wanted}' given, which is the language of the text; give another one")
    if wanted and not given and "--file" not in flags and config.data.frames != "localized":
        raise ConfigError(
            f"--to: '{wanted}' given without --from; a translation needs both, and the frame of an "
            f"instruction is English for every answer; give --from too, or ask for an answer in it in words"
        )
    direction = (given, wanted) if given else None
    language = "" if given else wanted
    return Question(
        "", flags.get("--input", ""), direction=direction, is_raw="--raw" in flags, language=language
    )


def _models(
    model: str, beside: str, config: Config, overrides: Sequence[str]
) -> tuple[dict[str, str], dict[str, Framing]]:
    """The models by name, and how each is asked. Raises: ConfigError or CheckpointError."""
    framing = _framing(model, config, overrides)
    models, framings = {_name(model): model}, {_name(model): framing}
    if beside == "base":
        if not is_run(model):
            raise ConfigError(
                f"--beside: base given with '{model}', which is no run; a run began from a base; give the "
                f"name of another model"
            )
        # It stands first, and is asked as the run is.
        return {"base": "", **models}, {"base": replace(framing, learned=()), **framings}
    if beside:
        other = os.path.expanduser(beside)
        name = _name(other) if _name(other) not in models else f"{_name(other)} (beside)"
        models[name] = other
        found = _framing(other, load_config(other) if is_run(other) else config, overrides)
        framings[name] = found if found.is_framed or is_run(other) else replace(framing, learned=())
    return models, framings


def _framing(model: str, config: Config, overrides: Sequence[str]) -> Framing:
    is_given = any(override.startswith("data.") for override in overrides)
    if is_run(model):
        return framing_of_run(config, load_config(model).data if is_given else None)
    try:
        return framing_of_model(model, config.data, is_given=is_given)
    except CheckpointError:
        if Path(model).is_dir() or model.count("/") == 1:
            raise
        raise ConfigError(
            f"RUN|MODEL: '{model}' given, which is neither the folder of a run nor a Hugging Face folder or "
            f"hub name; give one"
        ) from None


def _config_of(model: str, overrides: Sequence[str]) -> Config:
    """A run's own configuration, or the defaults."""
    if is_run(model):
        return load_config(model, list(overrides))
    given: dict[str, Any] = {}
    for override in overrides:
        apply_override(given, override)
    return check_config(given, PROGRAM)


def _name(model: str) -> str:
    """What a model is called: the last part of its path, of an export that of its run."""
    path = Path(model)
    return path.parent.name if path.name == "export" and path.parent.name else path.name or model


def _standard_input() -> str:
    """The text that is piped in, without its last line break."""
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"PROMPT: byte 0x{error.object[error.start]:02x} at offset {error.start} of standard input is "
            f"not UTF-8; only UTF-8 is read; convert it, for example with iconv"
        ) from None
    return text.removesuffix("\n").removesuffix("\r")


def _port(flags: dict[str, str]) -> int | Literal["auto"]:
    given = flags.get("--port")
    if given is None:
        return "auto"
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise ConfigError(f"--port: '{given}' given; a number from 1 to 65535 is allowed; give one")
    return int(given)
