"""The command line of `python -m jaxlingua.analysis sweep`, and the sweep as it goes on."""

import re
from collections.abc import Sequence
from pathlib import Path

from jaxlingua.analysis.sweep.cells import cells_of
from jaxlingua.analysis.sweep.checks import refuse_missing_pairs, refuse_other_base
from jaxlingua.analysis.sweep.runs import run_all
from jaxlingua.command_line import Flag, flags_from_command_line, load_config
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError
from jaxlingua.languages import check_language

PURPOSE = """\
Trains CONFIG once for every language, number of pairs and seed, each in FOLDER/runs with the last stage's
translation entries cut to that language and that many pairs, and writes the scores of all into
FOLDER/table.csv, a line each. Every run begins with the same model. Run it again, and it goes on.
What is left out of a run's mixture and tasks is what is of other swept languages."""
FLAGS = (
    Flag("--languages", "Languages, with commas.", "jav_Latn,sun_Latn", is_needed=True),
    Flag("--pairs", "Numbers of pairs, with commas.", "500,1000,2000", is_needed=True),
    Flag("--output", "Folder of the runs and the table.", "FOLDER", is_needed=True),
    Flag("--seeds", "Seeds, with commas; 0 alone without it.", "0,1,2"),
)


def main(arguments: list[str]) -> None:
    """Understand the command line, then run what is not done yet."""
    program = "jaxlingua.analysis sweep"
    flags, (name, *overrides) = flags_from_command_line(
        program, PURPOSE, FLAGS, tuple(Config.model_fields), arguments
    )
    folder = Path(flags["--output"]).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output: '{folder}' given, which is a file; a folder is allowed; give one")
    languages = _several("--languages", flags["--languages"])
    for language in languages:
        check_language(language, "--languages")
    sizes = [_whole("--pairs", each, 1) for each in _several("--pairs", flags["--pairs"])]
    seeds = [_whole("--seeds", each, 0) for each in _several("--seeds", flags.get("--seeds", "0"))]
    config = load_config(name, overrides)
    cells = cells_of(config, languages, sizes, seeds, folder / "runs")
    refuse_missing_pairs(cells)
    refuse_other_base(cells)
    run_all(cells, folder)


def _several(flag: str, given: str) -> Sequence[str]:
    """What stands between commas. Raises: ConfigError for nothing, or the same twice."""
    values = [value.strip() for value in given.split(",")]
    for value in values:
        if not value or values.count(value) > 1:
            what = f"'{value}' twice" if value else "nothing between two commas"
            raise ConfigError(f"{flag}: {what} in '{given}'; each value once is allowed; mend it")
    return values


def _whole(flag: str, given: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,9}", given) or int(given) < least:
        raise ConfigError(f"{flag}: '{given}' given; whole numbers from {least} on are allowed; give these")
    return int(given)
