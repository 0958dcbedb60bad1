"""Training on one CPU: jaxlingua against a PyTorch loop over transformers' LLaMA, in one run.

    python benchmarks/train_cpu.py [--steps 40] [--rounds 5] [--threads 4]

The peer is what one writes without us: LlamaForCausalLM with sdpa attention, fused AdamW, clipping, float32.
Both begin with the same weights, and no ratio is printed unless their first losses agree. Each lives in a
process of its own and takes a step only when told to, in turns, so that two pools of threads never compete.

1. Seconds per step on one padded batch: no packing, the same tokens, the same mask.
2. Target tokens per second on documents of mixed lengths: rows packed by `tokens`, against batches padded to
   their longest document, shuffled (what a collator does) or grouped by length (what Trainer calls
   group_by_length). All learn the same documents, about as many per step, the making of batches included.

Environment variables reach both processes alike. Linux only: cores are given out with sched_setaffinity.
"""

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cpu_trainers import (
    TINY,
    Run,
    Sizes,
    draw,
    jaxlingua_config,
    jaxlingua_trainer,
    torch_model,
    torch_trainer,
)

LOSS_TOLERANCE = 1e-4
PAUSE_SECONDS = 0.02  # between turns: threads of the one before stop spinning
# What changes the speed of either; told with the result.
VARIABLES = (
    "XLA_FLAGS",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
)


def serve(pipe, build: Callable[..., tuple[Run, dict[str, int]]], *arguments: Any) -> None:
    """In the child: build the trainer, then answer each request with a step's result and its cost."""
    run, steps = build(*arguments)
    pipe.send(steps)
    while (request := pipe.recv()) is not None:
        job, step = request
        wall, cpu = time.perf_counter(), time.process_time()
        loss, target_tokens = run(job, step)
        pipe.send((loss, np.array([target_tokens, time.perf_counter() - wall, time.process_time() - cpu])))


def start(build: Callable[..., Any], *arguments: Any) -> tuple[Callable, Callable[[], None], dict[str, int]]:
    """A trainer in a process of its own: have it take a step; end it; and its steps per pass by job."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    context.Process(target=serve, args=(theirs, build, *arguments), daemon=True).start()
    theirs.close()  # so that `recv` raises where the child dies

    def step(job: str, number: int) -> tuple[float, np.ndarray]:
        pipe.send((job, number))
        answer = pipe.recv()
        time.sleep(PAUSE_SECONDS)
        return answer

    return step, lambda: pipe.send(None), pipe.recv()


def agreement(losses: list[list[float]]) -> float:
    """The largest difference of the first losses. Raises: SystemExit if it is not the same training."""
    difference = float(np.abs(np.diff(losses)).max())  # NaN if any of them is
    if not difference <= LOSS_TOLERANCE:
        raise SystemExit(
            f"train_cpu: the first losses (ours, theirs) {losses} differ by {difference:.1e}; "
            f"{LOSS_TOLERANCE:g} is allowed, so no ratio is printed"
        )
    return difference


def measure(jobs: dict[str, tuple[Callable, str, int]], rounds: int) -> dict[str, np.ndarray]:
    """[rounds, 3] by name: target tokens, seconds and CPU seconds of each round's steps.

    Args:
        jobs: of each name the trainer, its job, and steps per round. Those of a job are spread evenly among
            the others', and every second round goes through them backwards.
    """
    turns = sorted(((i + 0.5) / n, name, i) for name, (_, _, n) in jobs.items() for i in range(n))
    costs = {name: np.zeros((rounds, 3)) for name in jobs}
    for number in range(rounds):
        for _, name, i in turns[:: (-1) ** number]:
            step, job, per_round = jobs[name]
            costs[name][number] += step(job, number * per_round + i)[1]
        told = ", ".join(
            f"{name} {c[number, 1]:.2f} s {c[number, 0] / c[number, 1]:,.0f} tokens/s"
            for name, c in costs.items()
        )
        print(f"{number + 1}/{rounds}: {told}", file=sys.stderr, flush=True)
    return costs


def interval(ratios: np.ndarray) -> str:
    """Their median, and its 95 % interval by a bootstrap over pairs of rounds."""
    medians = np.median(np.random.default_rng(0).choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return f"{np.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def line(what: str, unit: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """A line of the table."""
    a, b = (f"{np.median(x):{',.0f' if x.min() > 10 else '.3f'}} {unit}" for x in (ours, theirs))
    return f"| {what} | {a} | {b} | {interval(ours / theirs)} |"


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = cpuinfo.is_file() and re.search(r"model name\s*: (.*)", cpuinfo.read_text())
    return found[1] if found else platform.processor() or platform.machine()


def table(sizes: Sizes, step: dict[str, np.ndarray], mixed: dict[str, np.ndarray]) -> list[str]:
    """Both figures in Markdown."""
    shape = f"{sizes.padded_rows} rows of {sizes.padded_length}"
    rate = {job: cost[:, 0] / cost[:, 1] for job, cost in mixed.items()}
    speed, unit = "target tokens per second, mixed lengths, packed against", "tokens/s"
    return [
        "| figure | jaxlingua | PyTorch | ratio ours/theirs (95 %) |",
        "|---|---|---|---|",
        line(f"time of a step, {shape} (less is better)", "s", step["ours"][:, 1], step["theirs"][:, 1]),
        line("the same in CPU time, all cores together", "s", step["ours"][:, 2], step["theirs"][:, 2]),
        line(f"{speed} shuffled and padded (more is better)", unit, rate["packed"], rate["shuffled"]),
        line(f"{speed} grouped by length and padded", unit, rate["packed"], rate["grouped"]),
    ]


def notes(
    sizes: Sizes, parameters: int, cores: int, difference: float, mixed: dict[str, np.ndarray]
) -> list[str]:
    """All that one needs to judge the table or to measure it again."""
    import jaxlingua

    packages = ("jax", "torch", "transformers", "numpy")
    versions = f"jaxlingua {jaxlingua.__version__}, " + ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in packages
    )
    set_here = " ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
    lengths = [len(text) - 1 for text in draw(sizes)[1]]
    tokens = ", ".join(f"{job} {cost[0, 0]:,.0f}" for job, cost in mixed.items())
    return [
        f"- Machine: {cpu_model()}, {cores} cores; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, {versions}; environment: {set_here or 'nothing set'}",
        f"- Command: `{' '.join(['python', *sys.argv])}`",
        f"- Model: {parameters:,} parameters in both (width {sizes.embed}, {sizes.layers} layers, "
        f"{sizes.heads} heads, MLP {sizes.mlp}, vocabulary {sizes.vocab:,}, untied head), "
        f"float32, AdamW, gradients clipped at 1; ours with remat minimal and attention in blocks of 128",
        f"- The first 3 losses differ by {difference:.1e} at most; {LOSS_TOLERANCE:g} is allowed",
        f"- Mixed lengths: {len(lengths)} documents of random tokens, log-normal lengths, {min(lengths)} to "
        f"{max(lengths)}, {np.mean(lengths):.0f} on average; a step takes {sizes.packed_rows} rows of "
        f"{sizes.longest} (ours) or {sizes.documents_per_batch} documents (theirs); target tokens of the "
        f"first round: {tokens}",
    ]


def main() -> None:
    """Start both, compare the first losses, measure, print the table."""
    parser = argparse.ArgumentParser(description="Training on one CPU, against PyTorch.")
    parser.add_argument("--steps", type=int, default=40, help="pairs of steps on the padded batch")
    parser.add_argument("--rounds", type=int, default=5, help="passes over the documents of mixed lengths")
    parser.add_argument("--threads", type=int, help="cores to use; all of them if not given")
    parser.add_argument(
        "--tiny", action="store_true", help="the smallest sizes: whether it runs, not how fast"
    )
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: given.threads]
    os.sched_setaffinity(0, cores)  # the children inherit it; XLA makes a thread for each core it may use
    sizes = TINY if given.tiny else Sizes()

    sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout has the map of weights in its tests
    import jax

    from jaxlingua.model.presets import parameter_count
    from tests.reference.from_torch import from_torch

    config, peer = jaxlingua_config(sizes), torch_model(sizes)
    params = jax.tree.map(np.asarray, from_torch(peer, config))
    parameters = sum(p.numel() for p in peer.parameters())
    if parameters != parameter_count(config):
        raise SystemExit(
            f"train_cpu: {parameter_count(config)} parameters against {parameters}; no comparison"
        )
    ours, end_ours, our_steps = start(jaxlingua_trainer, sizes, params)
    theirs, end_theirs, their_steps = start(torch_trainer, sizes, len(cores))

    print("compiling, then comparing the first losses", file=sys.stderr, flush=True)
    losses = [[step("padded", i)[0] for step in (ours, theirs)] for i in range(3)]  # ours compiles here
    difference = agreement(losses)
    step = measure({"ours": (ours, "padded", 1), "theirs": (theirs, "padded", 1)}, given.steps)
    jobs = {job: (ours, job, n) for job, n in our_steps.items()} | {
        job: (theirs, job, n) for job, n in their_steps.items()
    }
    for trainer, job, _ in jobs.values():
        trainer(job, 0)  # ours compiles here
    mixed = measure(jobs, given.rounds)
    end_ours(), end_theirs()
    lines = [*table(sizes, step, mixed), "", *notes(sizes, parameters, len(cores), difference, mixed)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
