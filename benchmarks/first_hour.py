"""How long the first hour takes: a fresh clone, and every command of docs/first_hour.md as it stands there.

    python benchmarks/first_hour.py [FOLDER]

Needs only Python and git. The commands are typed into one bash, in the clone, one after another; each is
timed, and the first that fails ends it. What the page asks of the reader is done before step 3: my.yaml is
copied from the README, and two languages of 2,000 lines and 500 instructions are put beside it, made of
phrases of Unicode CLDR by the clone itself.
"""

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Where the minutes of each part end, by the command that does.
PARTS = {
    "to the first report": "python -m jaxlingua.train configs/demo.yaml",
    "to a report on one's own text": "python -m jaxlingua.train my.yaml",
    "to a plan for LLaMA-2 7B on v5e:2x4": (
        "python -m jaxlingua.plan coit_llama2-7b_zho_v5e-8.yaml --topology v5e:2x4"
    ),
}
MARK = "@@ "
PAIRS, INSTRUCTIONS = 2_000, 500
OWN_TEXT = f"""
import json
from pathlib import Path
from jaxlingua.config import CldrSource
from jaxlingua.data.cldr import open_cldr
languages = ["eng_Latn", "jav_Latn"]
source = open_cldr("phrases", CldrSource(languages=languages, records={PAIRS}))
pairs = [record.texts for record in source.records("all")]
for code in languages:
    Path("news." + code).write_text("".join(pair[code] + chr(10) for pair in pairs), "utf-8")
sides = [pair["eng_Latn"] for pair in pairs[:{INSTRUCTIONS}]]
asked = [{{"instruction": "Repeat.", "input": side, "output": side}} for side in sides]
Path("alpaca_en.json").write_text(json.dumps(asked), "utf-8")
"""


def commands_of(page: Path) -> list[str]:
    """The lines of all bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def script_of(commands: list[str], clone: Path) -> str:
    """What bash is given: each command with the time at which it ended."""
    config = re.search(
        r"^```yaml\n(# my\.yaml.*?)^```$", (clone / "README.md").read_text("utf-8"), re.DOTALL | re.M
    )
    (clone / "own_text.py").write_text(OWN_TEXT, "utf-8")
    lines, is_written = ["set -eu", f'echo "{MARK}$(date +%s.%N) begin"'], False
    for command in commands:
        if not is_written and "news." in command:
            (clone / "my.yaml").write_text(config[1], "utf-8")
            lines += ["python own_text.py", f'echo "{MARK}$(date +%s.%N) own text"']
            is_written = True
        lines += [command, f'echo "{MARK}$(date +%s.%N) "{shlex.quote(command)}']
    return "\n".join(lines) + "\n"


def main() -> None:
    """Clone, type, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where to clone to (default: a temporary folder)"
    )
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="first-hour-"))
    clone = folder / "jaxlingua"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    commands = commands_of(clone / "docs" / "first_hour.md")
    ignored = ("VIRTUAL_ENV", "PYTHONPATH", "JAX_PLATFORMS", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in ignored}
    process = subprocess.Popen(
        ["bash", "-c", script_of(commands, clone)], cwd=clone, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    moments: list[tuple[float, str]] = []
    for line in process.stdout:
        if line.startswith(MARK):
            moment, _, what = line.removeprefix(MARK).rstrip("\n").partition(" ")
            moments.append((float(moment), what))
        else:
            print(line, end="", flush=True)
    if code := process.wait():
        print(f"error: exit code {code} after: {moments[-1][1]}", file=sys.stderr)
        sys.exit(1)
    told(moments)


def told(moments: list[tuple[float, str]]) -> None:
    """A row for each command, then the parts: minutes and commands from one to the next."""
    print(f"\n{os.cpu_count()} cores, {platform.platform()}\n\n| command | seconds |\n|---|---|")
    for (before, _), (moment, what) in pairwise(moments):
        print(f"| `{what}` | {moment - before:.0f} |")
    start, first = moments[0][0], 1
    for part, last in PARTS.items():
        place = next(place for place, (_, what) in enumerate(moments) if what == last)
        typed = [what for _, what in moments[first : place + 1] if what != "own text"]
        print(f"{part}: {(moments[place][0] - start) / 60:.1f} minutes, {len(typed)} commands")
        start, first = moments[place][0], place + 1


if __name__ == "__main__":
    main()
