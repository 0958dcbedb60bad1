"""Analyses of scores, models and answers: each is a command with a --help of its own."""

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec

from jaxlingua.errors import ConfigError, exit_with_one_line, nearest

# What is told of each command, in the order of the help.
COMMANDS = {
    "scaling": "laws fitted to scores at several numbers of pairs; the score at n, n for a score",
    "allocate": "the best split of a budget of pairs over languages",
    "alignment": "how alike a model represents the same sentence in two languages, per layer",
    "responses": "language, length, repetition and agreement of the answers of a run",
    "values": "how far answers tell models and languages apart; whether tuning moved values",
    "sweep": "runs over languages, sizes and seeds, and their scores in one table",
}


def main() -> None:
    """Hand the rest of the command line to the command that it names."""
    there = {name: about for name, about in COMMANDS.items() if _is_there(name)}
    name, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in ("-h", "--help"):
        print("python -m jaxlingua.analysis COMMAND …; each command has a --help of its own\n")
        for command, about in there.items():
            print(f"  {command:<10} {about}")
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if name not in there:
        raise ConfigError(f"jaxlingua.analysis: '{name}' given; {nearest(name, list(there))}; see --help")
    run: Callable[[list[str]], None] = importlib.import_module(f"jaxlingua.analysis.{name}.command").main
    run(arguments)


def _is_there(name: str) -> bool:
    try:
        return find_spec(f"jaxlingua.analysis.{name}.command") is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    exit_with_one_line(main)
