"""The commands of a page, and bash with stand-ins that tell which programs a command calls instead of running them."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
    "tpu/README.md",
]

# A page of the site whose commands are not run: test_commands.py holds them against the scripts.
RESULTS = "benchmarks/RESULTS.md"

# What is recorded. Everything else that bash finds (cat, head, cp, echo, …) runs.
STAND_INS = (
    "python", "python3", "python3.11", "pip", "pytest", "sphinx-build", "git", "gcloud", "kubectl", "docker", "xpk",
    "vllm", "ollama", "llama-quantize", "tensorboard", "hf", "ssh",
)  # fmt: skip

# Appends its name and arguments to $CALLS (git only downloads, else it is itself); `-m venv FOLDER` makes an environment whose programs do the same.
STAND_IN = """#!/bin/bash
if [[ "${0##*/}" == git && "$1" != clone ]]; then exec /usr/bin/git "$@"; fi
printf '%s\\0' "${0##*/}" "$@" '' >> "$CALLS"
if [[ "$1 $2" == "-m venv" ]]; then
  mkdir -p "$3/bin"; for one in python pip pytest; do cp "$0" "$3/bin/$one"; done; : > "$3/bin/activate"
fi
"""


class Command(NamedTuple):
    """A command of a page, as it stands there, and where; `told` is an error or a warning that is shown below it."""

    page: str
    line: int
    text: str
    told: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a page that are in a language, each with the number of its first line."""
    text = (ROOT / page).read_text("utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: block.start(2)].count("\n") + 1, block[2]) for block in found if block[1] == language]


def commands_of(page: str) -> list[Command]:
    """The lines of all bash blocks; one that ends in a backslash goes on."""
    found = []
    shown = dict(blocks_of(page, ""))
    for start, block in blocks_of(page, "bash"):
        text, first = "", start
        for number, line in enumerate(block.splitlines(), start):
            text, first = (f"{text}\n{line}", first) if text else (line, number)
            if not line.endswith("\\"):
                if text.strip() and not text.lstrip().startswith("#"):
                    found.append(Command(page, first, text))
                text = ""
        told = shown.get(start + len(block.splitlines()) + 2, "")
        if told.startswith(("error:", "!")):
            found[-1] = found[-1]._replace(told=told.strip())
    return found


def install(folder: Path) -> None:
    """Make the stand-ins in `folder`."""
    folder.mkdir(parents=True)
    for name in STAND_INS:
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)


def calls_of(command: str, stand_ins: Path, cwd: Path, **variables: str) -> list[list[str]]:
    """What bash calls of the stand-ins for a command, in order, each as name and arguments.

    Raises: AssertionError where the command ends with another code than 0, as one that bash does not know does.
    """
    calls = stand_ins.with_suffix(".calls")
    calls.write_bytes(b"")
    found = {"PATH": f"{stand_ins}:/usr/bin:/bin", "HOME": str(cwd), "CALLS": str(calls), **variables}
    ended = subprocess.run(
        ["bash", "-euc", command], cwd=cwd, env={**os.environ, **found}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    recorded = calls.read_text("utf-8").split("\0\0")[:-1]
    return [call.split("\0") for call in recorded]


def shown(call: list[str]) -> str:
    """A call as one would type it."""
    return shlex.join(call)
