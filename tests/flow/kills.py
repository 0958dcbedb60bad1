"""Kills a run of two stages again and again, each time starts it again, and compares its end with an undisturbed one.

    python -m tests.flow.kills [--kills 20] [--seed 0] [--processes 1] [--devices 1] [--folder FOLDER]

Every kill is SIGKILL to all processes of the run. When it comes is seen from outside, by what the run says and
by what lies in its folder; what it hit is told by what the dead run has left. Exit code 1 if the two runs differ
in one bit of the last checkpoint, a loss, a prediction or a score.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from tests.compiling import xla_flags
from tests.flow.small import write_config
from tests.processes.members import free_port

ROOT = Path(__file__).parents[2]
FIRST, LAST = 14, 30  # the steps with which the two stages end
SAVE_EVERY = 4
PATIENCE = 300.0  # seconds for one start of the run
CLOCKS = {"target_tokens_per_second", "step_seconds", "host_memory_gib"}  # of a line, what no two runs share

# Moments in the order in which a run comes to them, and how many seconds each may last.
KINDS = {
    "start-up": 3.0,
    "evaluation of the base": 2.0,
    "compilation": 2.0,
    "step": 0.0,
    "save": 0.0,
    "between digests and commit": 0.0,
    "evaluation": 0.2,
    "stage end": 2.0,
    "report": 0.8,
}


@dataclass(frozen=True)
class Kill:
    """One planned death: the first moment of this kind at or after this step, `delay` of its seconds later."""

    kind: str
    step: int = 0
    delay: float = 0.0


@dataclass
class Run:
    """A run folder, the command that works in it, and what the living processes have said."""

    config: Path
    folder: Path
    processes: int = 1
    devices: int = 1
    ends: tuple[int, ...] = (FIRST, LAST)
    options: tuple[str, ...] = ()
    living: list[subprocess.Popen] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """What the processes say."""
        return self.folder.with_suffix(".log")

    def errors(self, index: int = 0) -> Path:
        """What a process says on stderr."""
        return self.folder.with_suffix(f".{index}.err")

    def start(
        self, overrides: list[list[str]] | None = None, variables: list[dict[str, str]] | None = None
    ) -> None:
        """The command, in all its processes.

        Args:
            overrides: what each process is given; None: its place among the others.
            variables: of each process's environment.
        """
        command = [sys.executable, "-m", "jaxlingua.train", self.config, f"run.folder={self.folder}"]
        command += self.options
        flags = xla_flags(self.devices)
        environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
        self.living = []
        variables = variables or [{}] * self.processes
        for index, given in enumerate(overrides or places(self.processes)):
            with self.log.open("a" if index else "w") as log, self.errors(index).open("w") as errors:
                process = subprocess.Popen(
                    [*command, *given],
                    cwd=ROOT,
                    stdout=log,
                    stderr=errors,
                    start_new_session=True,
                    env=environment | variables[index],
                )
            self.living.append(process)

    def kill(self) -> None:
        for process in self.living:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def has_ended(self) -> bool:
        """Raises: RuntimeError if a process ended with an error."""
        codes = [process.poll() for process in self.living]
        if any(codes):
            self.kill()
            told = "".join(self.errors(index).read_text()[-3000:] for index in range(self.processes))
            raise RuntimeError(f"exit codes {codes}: {told}")
        return None not in codes

    def finish(self) -> None:
        """Start it and let it come to its end."""
        self.start()
        self.await_end()

    def await_end(self) -> None:
        """Raises: RuntimeError if a process ends with an error."""
        for _ in patiently(0.05):
            if self.has_ended():
                return

    def is_scored(self, step: int) -> bool:
        """Whether the model after `step` is; for 0 the one before training."""
        stage = "*" if step else "base"
        return any((self.folder / "evals").glob(f"{stage}-{step}/scores.json"))

    def steps(self) -> tuple[int, bool]:
        """The newest step that the living processes know of, and whether they took one themselves."""
        told = self.log.read_text()
        taken = [int(step) for step in re.findall(r"^\w+: step (\d+) of", told, re.MULTILINE)]
        begun = re.search(r"^going on from step (\d+)", told, re.MULTILINE)
        return max(taken, default=int(begun[1]) if begun else 0), bool(taken)

    def moment(self) -> str:
        """The kind of the moment that the run is in; of a dead one, that it was in."""
        told, (newest, has_stepped) = self.log.read_text(), self.steps()
        is_restored = "going on from step" in told
        if has_stepped:
            for writing in (self.folder / "checkpoints").glob("*orbax-checkpoint-tmp*"):
                is_told = (writing / "files.json").exists()  # written last, before the folder gets its name
                return "between digests and commit" if is_told else "save"
        if newest in self.ends and (has_stepped or is_restored):
            if not (self.folder / "checkpoints" / str(newest)).exists():
                return "save"  # about to begin
            after = "report" if newest == self.ends[-1] else "stage end"
            return after if self.is_scored(newest) else "evaluation"
        if has_stepped:
            return "step"
        if is_restored or "evaluating the model before training" in told:
            return "compilation"
        return "evaluation of the base" if "memory by arithmetic" in told else "start-up"


def places(processes: int) -> list[list[str]]:
    """What each process is told of the others; nothing if there are none."""
    if processes == 1:
        return [[]]
    host = f"127.0.0.1:{free_port()}"
    return [
        [f"sharding.processes={{coordinator: '{host}', count: {processes}, index: {index}}}"]
        for index in range(processes)
    ]


def lasting(seconds: float, pause: float = 0.001) -> Iterator[None]:
    """Go round until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(pause)


def patiently(pause: float) -> Iterator[None]:
    """Go round until the loop is left. Raises: TimeoutError after PATIENCE."""
    yield from lasting(PATIENCE, pause)
    raise TimeoutError(f"not within {PATIENCE:.0f} s")


def small_config(folder: Path, **changes) -> Path:
    """Thirty steps in two stages, each of them told, with held-out loss, and an evaluation after each stage."""
    both = {"phrases": {}, "diary": {}}
    return write_config(
        folder / "small.yaml",
        **{
            "stages": [
                {"name": "first", "mixture": {"phrases": {}}, "steps": FIRST},
                {"name": "second", "mixture": both, "steps": LAST - FIRST},
            ],
            "checkpoint": {"save_every_steps": SAVE_EVERY},
            "tracking": {"log_every_steps": 1, "tensorboard": False},
        }
        | changes,
    )


def plan(kills: int, rng: random.Random) -> list[Kill]:
    """Every kind as far as the number goes, more of those within training, in an order that a run can follow."""
    kinds = list(KINDS)
    while len(kinds) < kills:
        kinds.append(rng.choice(["compilation", "step", "save", "between digests and commit", "any time"]))
    steps = {"evaluation of the base": 0, "evaluation": rng.choice([FIRST, LAST]), "stage end": FIRST}
    planned = [
        Kill(
            kind,
            steps.get(kind, LAST if kind == "report" else rng.randrange(1, LAST - 2 * SAVE_EVERY)),
            rng.uniform(0, 12.0 if kind == "any time" else KINDS[kind]),
        )
        for kind in rng.sample(kinds, len(kinds))[:kills]
    ]
    return sorted(planned, key=lambda kill: (kill.step, kill.kind == "report"))


def is_come(run: Run, kill: Kill) -> bool:
    """Whether a living run is in the moment that was planned, or beyond all hope of it."""
    if kill.kind in ("start-up", "any time"):
        return True
    moment, (newest, _) = run.moment(), run.steps()
    if kill.kind == "compilation":  # wherever it begins again; a kill of it takes the run no further
        return moment in ("compilation", "stage end", "step", "save")
    if moment == kill.kind and newest >= kill.step:
        return True
    return newest > min(LAST - 1, kill.step + SAVE_EVERY + 1) and moment in ("step", "stage end", "report")


def kill_and_start_again(run: Run, kills: list[Kill], say: Callable[[str], None] = print) -> list[str]:
    """Run, killed as planned, to its end. Gives the kinds of moments that were hit.

    Raises: RuntimeError if a process ends with an error, or the run comes to its end before all kills.
    """
    hit = []
    for number, kill in enumerate(kills, 1):
        run.start()
        try:
            for _ in patiently(0.001):
                if run.has_ended():
                    raise RuntimeError(f"the run came to its end before kill {number}, {kill}")
                if is_come(run, kill):
                    break
            for _ in lasting(kill.delay):
                if kill.kind != "report" and run.moment() == "report":
                    break  # before there is nothing left to kill
        finally:
            run.kill()
        hit.append(run.moment())
        say(f"kill {number} of {len(kills)}: {hit[-1]} (planned: {kill.kind}), at step {run.steps()[0]}")
    run.finish()
    begun = re.search(r"^going on from step (\d+)", run.log.read_text(), re.MULTILINE)
    say(f"went on from step {begun[1] if begun else 0} to the end")
    return hit


def arrays(run: Path, step: int = LAST) -> dict[str, np.ndarray]:
    """Parameters, slots of the optimizer and counters of a checkpoint, read by Orbax alone."""
    reader, path = ocp.PyTreeCheckpointer(), run / "checkpoints" / str(step) / "state"
    tree = reader.metadata(path).item_metadata.tree
    as_numpy = ocp.tree.to_flat_dict(tree, sep="/")
    args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in as_numpy}
    restored = reader.restore(path, restore_args=ocp.tree.from_flat_dict(args, target=tree, sep="/"))
    leaves = ocp.tree.to_flat_dict(restored, sep="/")
    return {name: np.asarray(leaf) for name, leaf in leaves.items() if leaf is not None}


def lines(run: Path) -> list[dict]:
    """metrics.jsonl without its clocks."""
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").split("\n") if line]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in told]


def differences(undisturbed: Path, run: Path, step: int = LAST) -> list[str]:
    """In what two runs differ, a line for each thing; clocks do not count."""
    there, here = arrays(undisturbed, step), arrays(run, step)
    found = [f"array {name} is in one only" for name in there.keys() ^ here.keys()]
    found += [
        f"array {name} differs"
        for name in there.keys() & here.keys()
        if (there[name].dtype, there[name].shape, there[name].tobytes())
        != (here[name].dtype, here[name].shape, here[name].tobytes())
    ]
    before, after = lines(undisturbed), lines(run)
    if [line["step"] for line in before] != [line["step"] for line in after]:
        found.append(f"metrics.jsonl has the steps {[line['step'] for line in after]}")
    found += [
        f"metrics.jsonl: step {one['step']} differs in {sorted(k for k in one | other if one.get(k) != other.get(k))}"
        for one, other in zip(before, after, strict=False)
        if one != other
    ]
    names = [{path.relative_to(f) for path in (f / "evals").rglob("*.json*")} for f in (undisturbed, run)]
    found += [f"{name} is in one only" for name in names[0] ^ names[1]]
    found += [
        f"{name} differs"
        for name in sorted(names[0] & names[1])
        if (undisturbed / name).read_bytes() != (run / name).read_bytes()
    ]
    scores = [
        json.loads((folder / "report.json").read_text("utf-8"))["scores"] for folder in (undisturbed, run)
    ]
    return found + (["the scores of report.json differ"] if scores[0] != scores[1] else [])


def main() -> None:
    """Both runs, a line for each kill, the table of moments, the verdict."""
    parser = argparse.ArgumentParser(description="Kill a run again and again; it must end as if nobody had.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the plan; what is hit depends on the clock too"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1, help="virtual devices of each process")
    parser.add_argument("--folder", type=Path, help="a new folder that is kept; else a temporary one")
    given = parser.parse_args()
    home = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    home.mkdir(parents=True, exist_ok=True)
    config = small_config(home)
    shape = {"processes": given.processes, "devices": given.devices}
    undisturbed, killed = (Run(config, home / name, **shape) for name in ("undisturbed", "killed"))
    undisturbed.finish()
    print("the undisturbed run is done", flush=True)
    kills = plan(given.kills, random.Random(given.seed))
    hit = Counter(kill_and_start_again(killed, kills, lambda sentence: print(sentence, flush=True)))
    for kind in KINDS:
        print(f"{hit[kind]:4}  {kind}")
    found = differences(undisturbed.folder, killed.folder)
    print("\n".join(found) or f"after {given.kills} kills the run ends bit-identical")
    if not given.folder:
        shutil.rmtree(home)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
