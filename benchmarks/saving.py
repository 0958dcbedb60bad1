"""What saving costs: windows of 50 steps of the demo with a save in them and without, in one run.

    python benchmarks/saving.py [--steps 50] [--rounds 12] [--config configs/demo.yaml]

Three kinds of windows take turns, in another order each round: nothing is saved; the state is saved as
training does, with digests of all files; the state is saved by Orbax alone. A window begins with its save,
which goes on while the steps run. It ends when the last step is done, all files are written and older ones
removed, so that none pays for another. Told is its time over that of the window without a save of its round.
"""

import argparse
import importlib.metadata
import itertools
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from train_cpu import cpu_model

from jaxlingua.checkpoint.store import open_store
from jaxlingua.command_line import load_config
from jaxlingua.config import Config
from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import parameter_count
from jaxlingua.sharding.feed import feed
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import count_micro_batches
from jaxlingua.tokens.stages import learned_texts, make_examples, make_stages, open_sources
from jaxlingua.tokens.tokenizer import load_tokenizer
from jaxlingua.train.objective import Objective
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.origin import open_origin
from jaxlingua.train.state import TrainState, shardings_of
from jaxlingua.train.step import make_train_step

NOTHING, OURS, ORBAX = "nothing is saved", "saved, with digests", "saved by Orbax alone"
KINDS = (NOTHING, OURS, ORBAX)
KEEP = 2

# Saves a state as a step and gives what waits until all of it is written.
Save = Callable[[int, TrainState], Callable[[], None]]


class Training:
    """The first stage of a configuration, as the trainer runs it, some steps at a time."""

    def __init__(self, config: Config, folder: Path):
        sources = open_sources(config)
        examples, _ = make_examples(config, sources, {})
        tokenizer = load_tokenizer(config.tokens, lambda: learned_texts(examples), folder, is_resumed=False)
        stage, *_ = make_stages(
            config, sources, examples, tokenizer, cache=None, on_progress=lambda done, total: None
        )
        origin, mesh = open_origin(config, folder, None), make_mesh(config.sharding)
        self.sizes = origin.sizes(origin.vocab_rows(tokenizer))
        model = Llama(self.sizes)
        optimizer, schedule = make_optimizer(config.train.optimizer, stage.batches.steps)
        groups = len(stage.batches.group_names)
        objective = Objective(tokenizer.vocab_size, groups, config.train.loss_chunk_tokens)
        rows = config.train.batch_rows
        micro_batches = count_micro_batches(rows, config.train.micro_batch_rows, mesh)
        self.state = origin.first_state(model, optimizer, mesh, telling=None)
        self._step = make_train_step(
            model, optimizer, schedule, objective, shardings_of(self.state), micro_batches
        )
        self._feed = partial(feed, stage.batches.batch, batch_rows=rows, mesh=mesh)
        self._steps = itertools.cycle(range(stage.batches.steps))

    def run(self, steps: int) -> None:
        """Metrics are waited for one step behind, as the tracker does."""
        before = None
        for _, batch in self._feed(steps=list(itertools.islice(self._steps, steps))):
            self.state, metrics = self._step(self.state, batch)
            jax.block_until_ready(before)
            before = metrics
        jax.block_until_ready(self.state)

    def state_mib(self) -> float:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.state)) / 2**20


def ours(folder: Path, config: Config) -> Save:
    """The store of the trainer, which keeps the last two."""
    store = open_store(folder, config.checkpoint.model_copy(update={"keep_last": KEEP}))

    def save(step: int, state: TrainState) -> Callable[[], None]:
        store.save(step, state, {"stage": "benchmark", "step": step, "seed": 0})
        return store.wait

    return save


def orbax(folder: Path) -> Save:
    """Orbax's asynchronous checkpointer of the same tree, and the last two kept by hand."""
    checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
    kept: list[Path] = []

    def save(step: int, state: TrainState) -> Callable[[], None]:
        checkpointer.save(folder / str(step), args=ocp.args.StandardSave(state))
        kept.append(folder / str(step))
        return finish

    def finish() -> None:
        checkpointer.wait_until_finished()
        while len(kept) > KEEP:
            shutil.rmtree(kept.pop(0))

    return save


def measure(training: Training, saves: dict[str, Save], steps: int, rounds: int) -> dict[str, np.ndarray]:
    """[rounds, 3] by kind: seconds of each window, its CPU seconds, and those for which the loop stood still.

    Every round has the kinds in another order; one window of each comes before, for what happens only once.
    """
    seconds = {kind: np.zeros((rounds, 3)) for kind in KINDS}
    number = 0
    for round_ in range(-1, rounds):
        turn = round_ % len(KINDS)
        for kind in (*KINDS[turn:], *KINDS[:turn]):
            start, cpu = time.perf_counter(), time.process_time()
            number += 1
            finish = saves[kind](number, training.state)
            stood = time.perf_counter() - start
            training.run(steps)
            finish()
            if round_ >= 0:
                spent = time.perf_counter() - start, time.process_time() - cpu, stood
                seconds[kind][round_] = spent
        windows = ", ".join(f"{kind} {seconds[kind][round_, 0]:.3f} s" for kind in KINDS)
        if round_ >= 0:
            print(f"{round_ + 1}/{rounds}: {windows}", file=sys.stderr, flush=True)
    return seconds


def told(values: np.ndarray) -> str:
    """Median, and its 95 % interval by a bootstrap over rounds."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return f"{np.median(values):.3f} ({low:.3f} to {high:.3f})"


def table(seconds: dict[str, np.ndarray]) -> list[str]:
    """Each kind against the window without a save of the same round; and what digests add to Orbax alone."""
    bare = seconds[NOTHING]
    lines = [
        "| window | time | over nothing saved (95 %) | in CPU time of all cores | the loop stood still |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        elapsed, _, stood = np.median(seconds[kind], axis=0)
        ratios = [told(seconds[kind][:, i] / bare[:, i]) for i in (0, 1)] if kind != NOTHING else ["1", "1"]
        lines.append(f"| {kind} | {elapsed:.3f} s | {' | '.join(ratios)} | {1000 * stood:.1f} ms |")
    ours = [told((seconds[OURS] - seconds[ORBAX])[:, i] / bare[:, i]) for i in (0, 1)]
    return [*lines, f"| what digests and the rest of ours add to Orbax | | {' | '.join(ours)} | |"]


def main() -> None:
    """Compile, measure, print Markdown."""
    parser = argparse.ArgumentParser(description="What saving costs at an interval.")
    parser.add_argument("--steps", type=int, default=50, help="steps between two saves")
    parser.add_argument("--rounds", type=int, default=12, help="windows of each kind")
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--folder", type=Path, help="where checkpoints are written; else a temporary folder")
    given = parser.parse_args()
    config = load_config(given.config)
    with tempfile.TemporaryDirectory(dir=given.folder) as home:
        training = Training(config, Path(home) / "tokenizer")
        training.run(given.steps)  # compiles
        saves = {
            NOTHING: lambda step, state: lambda: None,
            OURS: ours(Path(home) / "ours", config),
            ORBAX: orbax(Path(home) / "orbax"),
        }
        seconds = measure(training, saves, given.steps, given.rounds)
        step_ms = 1000 * np.median(seconds[NOTHING][:, 0]) / given.steps
        versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("jax", "orbax-checkpoint"))
        print("\n".join(table(seconds)))
        print(
            f"\n- {given.config}: {parameter_count(training.sizes):,} parameters, a state of "
            f"{training.state_mib():.1f} MiB, {step_ms:.1f} ms for a step; {given.rounds} rounds of "
            f"windows of {given.steps} steps\n"
            f"- Machine: {cpu_model()}, {len(os.sched_getaffinity(0))} cores; "
            f"Python {platform.python_version()}, {versions}\n- Command: `{' '.join(['python', *sys.argv])}`"
        )


if __name__ == "__main__":
    main()
