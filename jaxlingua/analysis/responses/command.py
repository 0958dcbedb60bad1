"""The command line of `python -m jaxlingua.analysis responses`; it needs no JAX and no model."""

import sys
from pathlib import Path

from jaxlingua.analysis.responses.read import read_evaluations
from jaxlingua.analysis.responses.report import content_of, items_of, write_report
from jaxlingua.bucket import is_bucket
from jaxlingua.command_line import Flag, flags_from_command_line
from jaxlingua.errors import ConfigError

PROGRAM = "jaxlingua.analysis responses"
FLAGS = (
    Flag("--output", "Folder that is written; without it RUN/analysis/responses.", "FOLDER"),
    Flag("--samples", "Resamples behind each 95 % interval; without it 1,000.", "SAMPLES"),
)
HELP = f"""\
usage: python -m {PROGRAM} RUN {" ".join(flag.usage() for flag in FLAGS)}

Tells what the answers that an evaluation wrote are like, before and after training: which language is
answered to which, how long, how repetitive and how much copied from the prompt answers are, each beside the
targets, and how often questions are answered alike in two languages. No model is loaded.
RUN    an evaluated run, or evals/<stage>-<step> of one

{chr(10).join(f"{flag.name} {flag.value}: {flag.about}" for flag in FLAGS)}"""
SAMPLES, SEED = 1000, 0


def main(arguments: list[str]) -> None:
    """Read the predictions, count, write responses.json and responses.md.

    Raises: ConfigError for a wrong command line, DataError for predictions that are not there or damaged.
    """
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(HELP)
        sys.exit(0 if arguments else 2)
    flags, rest = flags_from_command_line(PROGRAM, HELP, FLAGS, (), arguments, usage="RUN")
    if len(rest) != 1:
        raise ConfigError(f"{PROGRAM}: {' '.join(rest)} given; one RUN is needed; give one")
    if is_bucket(rest[0]) or not Path(rest[0]).expanduser().is_dir():
        raise ConfigError(f"RUN: '{rest[0]}' given; a folder on this machine is needed; give one")
    samples = flags.get("--samples", str(SAMPLES))
    if not samples.isdecimal() or not int(samples):
        raise ConfigError(f"--samples: '{samples}' given; a number above 0 is allowed; give one")
    folder = Path(rest[0]).expanduser()
    output = Path(flags.get("--output", folder / "analysis" / "responses")).expanduser()
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output: '{output}' given, which is no folder; give another name")
    content = content_of(read_evaluations(folder, print), int(samples), SEED)
    write_report(output, content)
    for row in content["languages"]:
        counts = ", ".join(f"{name} {count}" for name, count in row["counts"].items())
        languages = f"{row['question_language']} → {row['asked_language']}"
        print(f"{row['evaluation']}, {languages}: {counts}")
    if content["agreement_note"]:
        print(content["agreement_note"])
    for row in content["agreement"]:
        value = "not defined" if row["value"] is None else f"{row['value']:.3f}"
        tasks = " and ".join(row["tasks"])
        print(f"{row['evaluation']}, {tasks}: {row['measure']} {value} ({items_of(row)})")
    print(output / "responses.md")
