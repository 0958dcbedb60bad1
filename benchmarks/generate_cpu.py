"""Generation on one CPU: jaxlingua against `generate` of transformers with PyTorch, in one run.

    python benchmarks/generate_cpu.py [--rounds 3] [--threads 4] [--devices 1]

256 prompts of mixed lengths, greedy, float32, the same weights. Two jobs: answers that all have one length,
and answers of different lengths, which each request's limit sets (neither has an EOS, so both write just as
many tokens). Theirs runs in batches of the same rows, padded on the left: as the prompts come, and sorted by
length, which is its best; a batch goes on until its longest answer is done. Each lives in a process of its
own and works only when told to, in turns, so that two pools of threads never compete. No ratio is printed
unless nearly all answers are the same. Compile time is told apart: all is run once before it is timed.

Linux only: cores are given out with sched_setaffinity.
"""

import argparse
import functools
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from train_cpu import cpu_model, start

JOBS = ("one length", "different lengths")
ORDERS = ("as they come", "sorted by length")
LEAST_EQUAL = 0.98  # share of answers; a near-tie of two logits may go either way in float32


class Sizes(NamedTuple):
    """The model, the prompts, and the answers."""

    vocab: int = 4096
    embed: int = 256
    layers: int = 6
    heads: int = 4
    mlp: int = 688
    prompts: int = 256
    longest_prompt: int = 384
    new_tokens: int = 64  # of answers of one length; of different ones the longest has twice as many
    rows: int = 64


TINY = Sizes(
    vocab=64, embed=16, layers=2, heads=2, mlp=32, prompts=16, longest_prompt=40, new_tokens=6, rows=4
)


def draw(sizes: Sizes) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Prompts of random tokens and log-normal lengths, and the length of every answer by job."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(0.25 * sizes.longest_prompt), 0.7, sizes.prompts)
    lengths = np.clip(lengths, 8, sizes.longest_prompt).astype(int)
    prompts = [rng.integers(3, sizes.vocab, length).astype(np.int32) for length in lengths]
    different = rng.lognormal(np.log(0.4 * sizes.new_tokens), 0.7, sizes.prompts)
    different = np.clip(different, 2, 2 * sizes.new_tokens).astype(int)
    return prompts, {JOBS[0]: np.full(sizes.prompts, sizes.new_tokens), JOBS[1]: different}


def torch_model(sizes: Sizes):
    """The peer's model with its own random weights, which ours gets too."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=sizes.vocab, hidden_size=sizes.embed, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, intermediate_size=sizes.mlp, max_position_embeddings=1024,
        rms_norm_eps=1e-5, tie_word_embeddings=False, initializer_range=0.08,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def jaxlingua_config(sizes: Sizes):
    from jaxlingua.model.presets import LlamaConfig

    vocab, d, layers, n, mlp, *_ = sizes
    return LlamaConfig(vocab, d, layers, n, n, d // n, mlp, norm_eps=1e-5, max_positions=1024)


def ours(sizes: Sizes, params: Any, devices: int) -> tuple[Callable, dict[str, int]]:
    """Every job in the engine, on a mesh of so many virtual devices."""
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}"
    )
    import jax

    from jaxlingua.config import ShardingConfig
    from jaxlingua.generate.decoding import Decoding, Request
    from jaxlingua.generate.engine import generate
    from jaxlingua.model.llama import Llama
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.sharding.rules import param_shardings
    from jaxlingua.tokens.tokenizer import Tokenizer

    prompts, limits = draw(sizes)
    model = Llama(jaxlingua_config(sizes))
    mesh = make_mesh(ShardingConfig.model_validate({"mesh": {"data": devices, "fsdp": 1, "tensor": 1}}))
    params = jax.device_put(params, param_shardings(model, mesh))
    nothing = functools.partial(sorted, ())
    tokenizer = Tokenizer(
        sizes.vocab, None, 2, 0, frozenset(), "", nothing, lambda ids: "", nothing
    )  # nothing is decoded in theirs either
    options = {"decoding": Decoding(), "tokenizer": tokenizer, "batch_rows": sizes.rows, "mesh": mesh}

    def run(job: str, order: int) -> tuple[Any, int]:
        requests = [Request(p, int(limit)) for p, limit in zip(prompts, limits[job], strict=True)]
        answers = generate(model, params, requests, eos_ids=(sizes.vocab,), **options)
        return [answer.tokens for answer in answers], int(limits[job].sum())

    return run, {}


def theirs(sizes: Sizes, threads: int) -> tuple[Callable, dict[str, int]]:
    """Every job in batches through `generate`, in the order of ORDERS that is told."""
    import torch

    torch.set_num_threads(threads)
    model = torch_model(sizes)
    prompts, limits = draw(sizes)
    by_length = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))

    @torch.no_grad()
    def run(job: str, order: int) -> tuple[Any, int]:
        turn = by_length if order else list(range(len(prompts)))
        answers: list[Any] = [None] * len(prompts)
        for at in range(0, len(turn), sizes.rows):
            chosen = turn[at : at + sizes.rows]
            width = max(len(prompts[index]) for index in chosen)
            tokens, mask = np.zeros((2, len(chosen), width), np.int64)
            for row, index in enumerate(chosen):
                tokens[row, width - len(prompts[index]) :] = prompts[index]
                mask[row, width - len(prompts[index]) :] = 1
            longest = int(max(limits[job][index] for index in chosen))
            out = model.generate(
                torch.tensor(tokens), attention_mask=torch.tensor(mask), max_new_tokens=longest,
                do_sample=False, pad_token_id=0, bos_token_id=None, eos_token_id=None,
            ).numpy()  # fmt: skip
            for row, index in enumerate(chosen):
                answers[index] = out[row, width : width + limits[job][index]].astype(np.int32)
        return answers, int(limits[job].sum())

    return run, {}


def share_of_equal(given: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Of the answers, those that are the same token by token. Raises: SystemExit if these are too few."""
    equal = float(np.mean([np.array_equal(a, b) for a, b in zip(given, wanted, strict=True)]))
    if equal < LEAST_EQUAL:
        raise SystemExit(
            f"generate_cpu: {equal:.0%} of the answers are the same; {LEAST_EQUAL:.0%} are asked for, so no "
            f"ratio is printed"
        )
    return equal


def rates(costs: list[np.ndarray], at: int) -> np.ndarray:
    """Tokens per second of each round, or per second of CPU time, all cores together."""
    return np.array([cost[0] / cost[at] for cost in costs])


def line(job: str, order: str, what: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """A line of the table from tokens per second by round; the ratio is the median over pairs of rounds."""
    ratios = ours / theirs
    spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
    rates = f"{np.median(ours):,.0f} | {np.median(theirs):,.0f} | {np.median(ratios):.2f} ({spread})"
    return f"| answers of {job}, against prompts {order}{what} | {rates} |"


def notes(sizes: Sizes, cores: int, devices: int, rounds: int, equal: list[float], first: float) -> list[str]:
    """All that one needs to judge the table or to measure it again."""
    prompts, limits = draw(sizes)
    lengths = [len(prompt) for prompt in prompts]
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "torch", "transformers")
    )
    answers = ", ".join(f"{job} {n.min()} to {n.max()}, {n.sum():,} in all" for job, n in limits.items())
    return [
        f"- Machine: {cpu_model()}, {cores} cores, load at the end {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, {packages}",
        f"- Command: `{' '.join(['python', *sys.argv])}`; {rounds} rounds, medians, least to greatest",
        f"- Model: width {sizes.embed}, {sizes.layers} layers, {sizes.heads} heads, MLP {sizes.mlp}, "
        f"vocabulary {sizes.vocab:,}, float32, random weights, the same in both; ours on {devices} device(s)",
        f"- {len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.0f} on "
        f"average; {sizes.rows} rows; new tokens: {answers}",
        f"- At least {min(equal):.1%} of the answers are the same; {LEAST_EQUAL:.0%} are asked for",
        f"- Compilation, not in the table: the first pass of both jobs took {first:.1f} s",
    ]


def main() -> None:
    """Start both, run everything once, compare the answers, measure, print the table."""
    parser = argparse.ArgumentParser(description="Generation on one CPU, against PyTorch.")
    parser.add_argument("--rounds", type=int, default=3, help="passes over all prompts")
    parser.add_argument("--threads", type=int, help="cores to use; all of them if not given")
    parser.add_argument("--devices", type=int, default=1, help="virtual CPU devices that ours is spread over")
    parser.add_argument(
        "--tiny", action="store_true", help="the smallest sizes: whether it runs, not how fast"
    )
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: given.threads]
    os.sched_setaffinity(0, cores)  # the children inherit it; XLA makes a thread for each core it may use
    sizes = TINY if given.tiny else Sizes()

    sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout has the map of weights in its tests
    import jax

    from tests.reference.from_torch import from_torch

    params = jax.tree.map(np.asarray, from_torch(torch_model(sizes), jaxlingua_config(sizes)))
    our_run, end_ours, _ = start(ours, sizes, params, given.devices)
    their_run, end_theirs, _ = start(theirs, sizes, len(cores))
    began, equal = time.perf_counter(), []
    first = {job: our_run(job, 0)[0] for job in JOBS}
    compiling = time.perf_counter() - began
    for job in JOBS:
        equal.append(share_of_equal(first[job], their_run(job, 1)[0]))
    costs: dict[tuple[str, str], list[np.ndarray]] = {}  # tokens, seconds, CPU seconds of every round
    for number in range(given.rounds):
        for job in JOBS:
            turns = [("ours", our_run, 0), *((order, their_run, at) for at, order in enumerate(ORDERS))]
            for name, run, at in turns[:: (-1) ** number]:
                cost = run(job, at)[1]
                costs.setdefault((job, name), []).append(cost)
                told = f"{job}, {name}: {cost[0] / cost[1]:,.0f} tokens/s, CPU {cost[2]:.0f} s"
                print(f"{number + 1}/{given.rounds}: {told}", file=sys.stderr, flush=True)
    end_ours(), end_theirs()
    table = [
        line(job, order, what, *(rates(costs[job, name], at) for name in ("ours", order)))
        for what, at in (("", 1), (", by CPU time", 2))
        for job in JOBS
        for order in ORDERS
    ]
    head = [
        "| new tokens per second (more is better) | jaxlingua | transformers | ratio ours/theirs |",
        "|---|---|---|---|",
    ]
    lines = [*head, *table, "", *notes(sizes, len(cores), given.devices, given.rounds, equal, compiling)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
