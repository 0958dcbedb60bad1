"""The fastest step that fits: candidates planned in processes of their own, and one of them chosen."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlingua.command_line import load_config
from jaxlingua.config import Config, OptimizerConfig
from jaxlingua.errors import ConfigError, MachineError
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.plan.candidates import MOMENT_KEY, MOST, Candidate, candidates, narrowed, possible_meshes
from jaxlingua.plan.program import planned_origin, planned_vocab_size
from jaxlingua.plan.topology import Topology
from jaxlingua.progress import duration
from jaxlingua.sharding.mesh import AXES
from jaxlingua.tokens.stages import refuse_no_stage
from jaxlingua.train.fit import OTHER_TRAINING, available_ram_bytes, remedies

GIB = 2**30
ALIKE = 1.1  # the estimate does not tell two steps apart whose times differ by less than this factor
PROCESS_BYTES = 2 * GIB
SECONDS_BETWEEN_LINES = 20.0
SECONDS_BETWEEN_LOOKS = 0.1
Say = Callable[[str], None]


class NothingFitsError(ConfigError):
    """No step fits, however it is run; ends like the plan of a step that does not fit."""

    exit_code = 1


@dataclass(frozen=True)
class Outcome:
    """What planning one candidate said.

    Args:
        told: what `--json` prints; empty where it failed.
        failure: why there is no plan.
    """

    candidate: Candidate
    told: dict[str, Any]
    failure: str = ""

    @property
    def fits(self) -> bool:
        return bool(self.told.get("fits"))

    @property
    def peak_gib(self) -> float | None:
        return self.told.get("peak_hbm_gib")

    def seconds(self, reading: str) -> float | None:
        """Of one step; None where it does not fit."""
        return self.told.get("step_seconds", {}).get(reading)

    def mfu(self, reading: str) -> float | None:
        return self.told.get("estimated_mfu", {}).get(reading)

    @property
    def exposed_seconds(self) -> float | None:
        """Of collectives, in the reading `cal`."""
        return ((self.told.get("time") or {}).get("cal") or {}).get("exposed_seconds")


@dataclass(frozen=True)
class Search:
    """All that a search found.

    Args:
        outcomes: the fastest first; then those that do not fit or failed.
        alike: outcomes that the estimate cannot tell from the fastest; `best` is one of them.
        slower, too_large: how many candidates arithmetic left out, and why.
    """

    config: str
    topology: Topology
    outcomes: tuple[Outcome, ...]
    best: Outcome
    alike: tuple[Outcome, ...]
    slower: int
    too_large: int


def search(config: Config, name: str, overrides: Sequence[str], topology: Topology, say: Say) -> Search:
    """Narrow down by arithmetic, plan the most promising, choose.

    What the compiler said of each candidate is stored like that of any plan, so a search that was interrupted
    goes on where it was.

    Raises: NothingFitsError; ConfigError where no mesh is possible; MachineError where every plan failed.
    Cost: up to twelve compilations, several at a time.
    """
    refuse_no_stage(config)
    origin = planned_origin(config)
    sizes = origin.sizes(planned_vocab_size(config, origin))
    meshes = possible_meshes(config, sizes, topology)
    if not meshes:
        raise ConfigError(_no_mesh(config, sizes, topology))
    outcomes: list[Outcome] = []
    slower = too_large = 0
    smallest: list[Candidate] = []
    for dtype in _moment_dtypes(config.train.optimizer):
        if smallest:
            say(
                f"nothing fits with a float32 first moment; trying {MOMENT_KEY}={dtype}, which "
                f"{OTHER_TRAINING}"
            )
        found = candidates(config, sizes, topology, meshes, dtype)
        field = narrowed(found, topology.chip.hbm_bytes, MOST - len(outcomes))
        smallest.append(field.smallest)
        slower, too_large = slower + field.slower, too_large + field.too_large
        say(
            f"search: {len(field.chosen)} steps to plan; by arithmetic {field.slower:,} more are slower and "
            f"{field.too_large:,} do not fit"
        )
        outcomes += planned(field.chosen, name, overrides, topology, say)
        if any(outcome.fits for outcome in outcomes):
            break
    if outcomes and not any(outcome.told for outcome in outcomes):
        raise MachineError(f"--search: every plan failed, the first so: {outcomes[0].failure}")
    if not any(outcome.fits for outcome in outcomes):
        raise NothingFitsError(_nothing_fits(smallest[-1], outcomes, name, overrides, topology, meshes))
    best, alike = choose(outcomes)
    return Search(name, topology, tuple(sorted(outcomes, key=_order)), best, alike, slower, too_large)


def choose(outcomes: Sequence[Outcome]) -> tuple[Outcome, tuple[Outcome, ...]]:
    """The best of those that fit, and all that are as fast as far as the estimate can tell.

    Of these the one with the fewest changes is the best, then the one with the least memory.
    """
    fitting = sorted((outcome for outcome in outcomes if outcome.fits), key=_order)
    limit = ALIKE * fitting[0].seconds("cal")
    alike = tuple(outcome for outcome in fitting if outcome.seconds("cal") <= limit)
    return min(alike, key=lambda each: (each.candidate.count, each.peak_gib, _order(each))), alike


def _order(outcome: Outcome) -> tuple[Any, ...]:
    fitting = (outcome.seconds("cal"), outcome.peak_gib) if outcome.fits else (0.0, outcome.peak_gib or 0.0)
    return (not outcome.fits, bool(outcome.failure), *fitting, outcome.candidate.order)


def _moment_dtypes(optimizer: OptimizerConfig) -> tuple[str, ...]:
    """The type of the first moment; bfloat16 as well, where that is a choice."""
    given = optimizer.first_moment_dtype
    return (given, "bfloat16") if optimizer.kind == "adamw" and given == "float32" else (given,)


# ── plans in processes of their own ────────────────────────────────────────────────────────────────────────


def planned(
    chosen: Sequence[Candidate], config: str, overrides: Sequence[str], topology: Topology, say: Say
) -> list[Outcome]:
    """The plan of every candidate by `python -m jaxlingua.plan`, as many at a time as there is room for."""
    command = [sys.executable, "-m", "jaxlingua.plan", config, "--topology", topology.name, "--json"]
    command += ["--slices", str(topology.slices), *overrides]
    commands = [[*command, *candidate.overrides] for candidate in chosen]
    outcomes: dict[int, Outcome] = {}
    start = time.perf_counter()
    with closing(_finished(commands, processes(), say)) as finished:  # no process outlives an interruption
        for place, code, out, err in finished:
            outcome = outcomes[place] = _outcome(chosen[place], code, out, err)
            passed = time.perf_counter() - start
            left = passed / len(outcomes) * (len(chosen) - len(outcomes))
            more = f"; {duration(left)} left" if left else f"; {duration(passed)} in all"
            name = outcome.candidate.name
            say(f"search: {len(outcomes)} of {len(chosen)}: {name}: {_told(outcome)}{more}")
    return [outcomes[place] for place in range(len(chosen))]


def processes() -> int:
    """How many plans at a time: half the cores, and 2 GiB of memory for each."""
    cores = len(os.sched_getaffinity(0))
    room = available_ram_bytes()
    return max(1, cores // 2 if room is None else min(cores // 2, room // PROCESS_BYTES))


def _finished(
    commands: Sequence[list[str]], workers: int, say: Say
) -> Generator[tuple[int, int, str, str], None, None]:
    """Run commands, some at a time; gives number, exit code, stdout and stderr of each as it ends.

    Those that still run are killed where this one is stopped.
    """
    waiting, running = deque(enumerate(commands)), {}
    start = last = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="jaxlingua-search-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    place, command = waiting.popleft()
                    files = [Path(folder, f"{place}.{stream}") for stream in ("out", "err")]
                    with files[0].open("wb") as out, files[1].open("wb") as err:
                        running[place] = subprocess.Popen(command, stdout=out, stderr=err), files
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for place, (process, files) in list(running.items()):
                    if (code := process.poll()) is not None:
                        del running[place]
                        last = time.perf_counter()
                        yield place, code, *(file.read_text("utf-8", "replace") for file in files)
                if running and time.perf_counter() - last > SECONDS_BETWEEN_LINES:
                    last = time.perf_counter()
                    say(
                        f"search: {len(running)} at work, {len(waiting)} waiting, "
                        f"{duration(last - start)} so far"
                    )
        finally:
            for process, _ in running.values():
                process.kill()
                process.wait()


def _outcome(candidate: Candidate, code: int, out: str, err: str) -> Outcome:
    """A plan ends with 0 or 1 and prints one object; all else is a failure."""
    try:
        told = json.loads(out) if code in (0, 1) else {}
    except ValueError:
        told = {}
    if told:
        return Outcome(candidate, told)
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    reason = lines[-1].removeprefix("error: ") if lines else "it said nothing"
    killed = f"ended by signal {-code}; " if code < 0 else ""
    return Outcome(candidate, {}, f"{killed}{reason}")


def _told(outcome: Outcome) -> str:
    if outcome.failure:
        return f"failed: {outcome.failure}"
    if not outcome.fits:
        return f"{outcome.peak_gib:.2f} GiB, does not fit"
    return f"{outcome.peak_gib:.2f} GiB, {outcome.seconds('cal'):.4g} s"


# ── where there is nothing to choose ───────────────────────────────────────────────────────────────────────


def _no_mesh(config: Config, sizes: LlamaConfig, topology: Topology) -> str:
    slices = f" and data a multiple of {topology.slices} slices" if topology.slices > 1 else ""
    return (
        f"--search: no mesh of {topology.chips:,} chips is possible; tensor must divide heads={sizes.heads}, "
        f"kv_heads={sizes.kv_heads} and mlp={sizes.mlp}, fsdp embed={sizes.embed}, and data x fsdp "
        f"train.batch_rows={config.train.batch_rows} and "
        f"generate.batch_rows={config.generate.batch_rows}{slices}; change the rows, or take another slice"
    )


def _nothing_fits(
    smallest: Candidate,
    outcomes: Sequence[Outcome],
    name: str,
    overrides: Sequence[str],
    topology: Topology,
    meshes: Sequence[Any],
) -> str:
    """The smallest total, and what changes beyond those of a search would do."""
    room = topology.chip.hbm_bytes
    compiled = [outcome for outcome in outcomes if outcome.told]
    least = f"{smallest.total_bytes / GIB:.2f} GiB by arithmetic"
    if compiled:
        first = min(compiled, key=lambda outcome: (outcome.peak_gib, outcome.candidate.order))
        smallest, least = first.candidate, f"{first.peak_gib:.2f} GiB by the compiler"
        room = int(room * smallest.total_bytes / (first.peak_gib * GIB))  # arithmetic was off by so much
    config = load_config(name, [*overrides, *smallest.overrides])
    origin = planned_origin(config)
    sizes = origin.sizes(planned_vocab_size(config, origin))
    (mesh,) = [mesh for mesh in meshes if tuple(mesh.shape[axis] for axis in AXES) == smallest.mesh]
    found = [
        f"{remedy.change} ({remedy.total_bytes / GIB:.2f} GiB)"
        for remedy in remedies(config, sizes, mesh, room)
    ]
    what = f"from there on: {', '.join(found)}" if found else "take more chips, or chips with more memory"
    return (
        f"--search: nothing fits {topology.name}, which has {topology.chip.hbm_gib:.2f} GiB per chip; the "
        f"least is {least}, with {' '.join(smallest.overrides) or 'no change'}; {what}"
    )
