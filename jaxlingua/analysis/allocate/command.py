"""The command line of `python -m jaxlingua.analysis allocate`."""

import json
import math
import shlex
import sys
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from jaxlingua.analysis.allocate.mixture import write_configuration
from jaxlingua.analysis.allocate.problem import Problem, make_problem
from jaxlingua.analysis.allocate.split import baselines, best_split
from jaxlingua.analysis.allocate.sure import compare, regret
from jaxlingua.analysis.allocate.told import describe, markdown, show
from jaxlingua.analysis.scaling.laws import read_laws
from jaxlingua.command_line import Flag, flags_from_command_line
from jaxlingua.data.readers import cut
from jaxlingua.errors import ConfigError, DataError, nearest

Value = TypeVar("Value")

PURPOSE = """\
The best split of a budget of pairs over languages, after the laws that jaxlingua.analysis scaling has
written: where each further pair gains the same, as far as availability allows. It is set against a uniform
split, one proportional to what is available, and one by temperature, in every draw of the laws.
With --config and --output the split becomes a training configuration."""
FLAGS = (
    Flag("--budget", "Pairs to divide, or what they may cost; inf is all there is.", "N", is_needed=True),
    Flag("--objective", "What is made best: mean (default), minimum or weighted.", "NAME"),
    Flag("--weights", "Of languages, for --objective weighted; 1 where nothing is said.", "jav_Latn=2,…"),
    Flag("--available", "Pairs that there are of a language; 0 leaves it out.", "jav_Latn=12000,…"),
    Flag("--cost", "Of a pair; 1 where nothing is said.", "jav_Latn=1.5,…"),
    Flag("--least", "Pairs that a language gets at least.", "jav_Latn=1000,…"),
    Flag("--config", "Training configuration, whose mixture the split is written into.", "TRAIN.yaml"),
    Flag("--output", "File for it; it extends the other.", "OUT.yaml"),
    Flag("--format", "md or json, instead of tables.", "md|json"),
)  # fmt: skip
OBJECTIVES = ("mean", "minimum", "weighted")
FORMATS = ("md", "json")
DIGITS = 15  # of a budget, cost or number of pairs, above and below 1
COLUMNS = 120  # where the output is no terminal


def main(arguments: list[str]) -> None:
    """Read the laws, split the budget, tell it, write the configuration.

    Raises: ConfigError or DataError, one line, for what cannot be divided.
    """
    program = "jaxlingua.analysis allocate"
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(f"usage: python -m {program} LAWS {' '.join(flag.usage() for flag in FLAGS)}\n\n{PURPOSE}\n")
        print("\n".join(f"  {flag.name} {flag.value}: {flag.about}" for flag in FLAGS))
        sys.exit(0 if arguments else 2)
    flags, rest = flags_from_command_line(program, PURPOSE, FLAGS, (), arguments, usage="LAWS")
    if len(rest) != 1:
        raise ConfigError(f"{program}: {len(rest)} files given ({', '.join(rest[:5])}); one LAWS is allowed")
    for flag, allowed in (("--objective", OBJECTIVES), ("--format", FORMATS)):
        if flag in flags and flags[flag] not in allowed:
            raise ConfigError(f"{flag}: '{flags[flag]}' given; {nearest(flags[flag], list(allowed))}")
    output = _output(flags)
    problem = _problem(flags, rest[0])
    split = best_split(problem)
    facts = describe(
        problem, split, compare(problem, split.pairs, baselines(problem)), regret(problem, split.pairs)
    )
    if output:
        header = f"{facts['summary']}\nCommand: python -m {program} {shlex.join(arguments)}"
        pairs = dict(zip(problem.languages, map(int, split.pairs), strict=True))
        pairs |= dict.fromkeys(problem.left_out, 0)
        facts["written"] = {
            "path": str(output),
            "changes": write_configuration(flags["--config"], output, pairs, header),
        }
    _tell(facts, flags.get("--format"))


def _problem(flags: dict[str, str], path: str) -> Problem:
    given: dict[str, Any] = {
        "objective": flags.get("--objective", "mean"),
        "weights": _by_language(flags, "--weights", _weight, "a number from 0 on"),
        "available": _by_language(flags, "--available", _count, "a whole number from 0 on"),
        "cost": _by_language(flags, "--cost", _cost, "a number above 0"),
        "least": _by_language(flags, "--least", _count, "a whole number from 0 on"),
    }
    text = flags["--budget"]
    try:
        budget = math.inf if text == "inf" else _exact(text)
    except (InvalidOperation, ValueError, OverflowError):
        raise ConfigError(
            f"--budget: '{cut(text)}' given; a number above 0 up to 10^15, or inf, is allowed"
        ) from None
    laws = read_laws(path)
    draws = {len(one.draws) for one in laws.of.values()}
    if len(draws) > 1:
        raise DataError(
            f"{path}: from {min(draws)} to {max(draws)} draws of a language; as many of each are allowed; "
            f"write the file anew with jaxlingua.analysis scaling"
        )
    return make_problem(laws, budget, **given)


def _by_language(
    flags: dict[str, str], flag: str, read: Callable[[str], Value], allowed: str
) -> dict[str, Value]:
    """Values by language code of "jav_Latn=2,sun_Latn=1"."""
    values: dict[str, Value] = {}
    for part in flags[flag].split(",") if flag in flags else []:
        code, equals, text = part.strip().partition("=")
        try:
            if not equals or not code:
                raise ValueError
            value = read(text)
        except (ValueError, ArithmeticError):
            raise ConfigError(
                f"{flag}: '{cut(part)}' given; CODE={allowed} is allowed; as in {flag} jav_Latn=2,sun_Latn=1"
            ) from None
        if code in values:
            raise ConfigError(f"{flag}: {code} given twice; give it once")
        values[code] = value
    return values


def _exact(text: str) -> Fraction:
    """Raises: ValueError or ArithmeticError for no number, one above 10^15, or nearer to 0 than 10^-15."""
    value = Decimal(text)
    if abs(value.adjusted()) > DIGITS or value > 10**DIGITS:  # before a fraction writes out every digit
        raise ValueError
    return Fraction(value)


def _weight(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10**DIGITS:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 10**DIGITS:
        raise ValueError
    return value


def _cost(text: str) -> Fraction:
    value = _exact(text)
    if not 0 < value <= 10**6:
        raise ValueError
    return value


def _output(flags: dict[str, str]) -> Path | None:
    """Raises: ConfigError, before any work, if no configuration can be written there."""
    if ("--config" in flags) != ("--output" in flags):
        there, lacks = ("--config", "--output") if "--config" in flags else ("--output", "--config")
        raise ConfigError(f"{there}: given without {lacks}; both are needed; give {lacks} too, or neither")
    if "--output" not in flags:
        return None
    path = Path(flags["--output"]).expanduser()
    if path.suffix != ".yaml" or not path.parent.is_dir() or path.is_dir():
        raise ConfigError(
            f"--output: '{path}' given; a name that ends in .yaml, in a folder that is there, is allowed"
        )
    config = Path(flags["--config"]).expanduser()
    if path.exists() and config.exists() and path.samefile(config):
        raise ConfigError(f"--output: '{path}' given, which is --config; give another name")
    return path


def _tell(facts: dict[str, Any], form: str | None) -> None:
    if form == "json":
        print(json.dumps(facts, ensure_ascii=False, indent=1, allow_nan=False))
        return
    written = facts.get("written", {"path": "", "changes": []})
    lines = [*written["changes"], *[f"written: {written['path']}"] * bool(written["path"])]
    if form == "md":
        print(markdown(facts), end="")
        print("".join(f"\n- {line}" for line in lines).removeprefix("\n"))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    show(console, facts)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
