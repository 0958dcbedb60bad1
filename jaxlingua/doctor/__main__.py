"""What is here, what would fail, and what to do: `python -m jaxlingua.doctor [CONFIG [key=value …]]`.

One line per finding. Without a configuration it looks at the machine, with one also at whether this would run
here, by what training itself would refuse; nothing is downloaded, and no data is read. JAX is asked in a
process of its own, so that a backend that hangs or crashes is a finding like any other. Exit code 0 if a run
could start, 1 if the machine is in the way, 2 if the configuration or the data is wrong.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlingua.bucket import is_bucket
from jaxlingua.doctor import conflicts, devices, machine, notebook
from jaxlingua.doctor.finding import Finding, refused
from jaxlingua.errors import JaxlinguaError, exit_with_one_line

if TYPE_CHECKING:
    from jaxlingua.config import Config


def main(arguments: list[str] | None = None) -> int:
    """Print the findings; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxlingua.doctor",
        usage="%(prog)s [CONFIG [key=value …]] [--json] [--folder FOLDER]",
        description="Backend, devices, versions, memory, and what would fail; with CONFIG also whether it "
        "would run here, and what to change.",
        epilog="Exit code 0 if a run could start, 1 if the machine is in the way, 2 if the configuration or "
        "the data is wrong.",
    )
    parser.add_argument(
        "config", nargs="*", metavar="CONFIG", help="file, recipe or run folder, and key=value overrides"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument(
        "--folder", help="where runs would be written (default: run.folder of CONFIG, else runs)"
    )
    given = parser.parse_intermixed_args(arguments)
    if given.config and given.folder:
        parser.error("--folder: given with a CONFIG, whose run.folder counts; write run.folder=… instead")
    findings = list(examine(given.config, given.folder or "runs"))
    problems = [finding for finding in findings if finding.level == "problem"]
    if given.json:
        listed = [asdict(finding) for finding in findings]
        print(json.dumps({"could_start": not problems, "findings": listed}, indent=1, ensure_ascii=False))
    else:
        print("\n".join(finding.line() for finding in findings))
        this = "This run" if given.config else "A run"
        ends = [finding.what for finding in problems if finding.is_end] if given.config else []
        unseen = f"; what a run does after '{ends[0]}' was not looked at" if ends else ""
        mend = f"could not start: {len(problems)} to mend{unseen}." if problems else "could start."
        print(f"{this} {mend}")
    if given.config and any(finding.is_config for finding in problems):
        return 2
    return 1 if problems else 0


def examine(arguments: Sequence[str], folder: str) -> Iterator[Finding]:
    """All findings, the machine first.

    Args:
        arguments: a configuration and its overrides, or nothing.
        folder: of runs, where there is no configuration.
    """
    config, problem = None, None
    if arguments:
        # Imported only now: without a configuration the machine is looked at without its classes.
        from jaxlingua.command_line import load_config

        try:
            config = load_config(arguments[0], list(arguments[1:]))
            folder = config.run.folder
        except JaxlinguaError as error:
            problem = replace(refused("config", error), is_end=True)
    hardware = devices.hardware()
    yield machine.python_version()
    yield from machine.packages(hardware)
    yield from conflicts.packages_in_conflict(hardware)
    yield from conflicts.loaded_modules()
    yield machine.tensorflow_text()
    yield from conflicts.variables(hardware)
    yield from notebook.notebook(hardware, folder)
    yield from on_this_machine(config, list(arguments), hardware, folder)
    if problem is not None:
        yield problem


def on_this_machine(
    config: "Config | None", arguments: list[str], hardware: str, folder: str
) -> Iterator[Finding]:
    """The devices, memory and disk, and what a configuration needs of them."""
    if config is None:
        yield from devices.backend(hardware)[0]
        yield from rest_of_machine(folder)
        return
    from jaxlingua.doctor import configured
    from jaxlingua.processes.environment import find_processes

    place = None
    with suppress(JaxlinguaError):  # which is told with all else that training would refuse
        place = find_processes(config.sharding.processes)
    is_apart = hardware == "tpu" and place is not None and place.count > 1
    found, answer = devices.apart(arguments) if is_apart else devices.backend(hardware, arguments)
    yield from found
    yield from rest_of_machine(folder)
    yield configured.described(config, arguments[0])
    yield from configured.processes(place)
    yield from configured.sources(config)
    yield from configured.tasks(config)
    yield from (Finding(**finding) for finding in answer.get("findings", []))
    yield from configured.downloads(answer.get("absent", {}))
    on_host = answer.get("seen", {}).get("backend") == "cpu"
    yield from configured.room(config, answer.get("sizes", {}), on_host=on_host)


def rest_of_machine(folder: str) -> Iterator[Finding]:
    """Memory, disk and cores."""
    yield machine.host_memory()
    yield machine.disk(Path.home() if is_bucket(folder) else Path(folder))
    yield machine.cores()


if __name__ == "__main__":
    exit_with_one_line(lambda: sys.exit(main()))
