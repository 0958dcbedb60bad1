"""Labels scored behind one prompt on a CPU: the prompt read once, or for each label; and transformers.

    python benchmarks/shared_prefix_cpu.py [--rounds 5] [--threads 4] [--items 48]

Prompts of 8 exemplars and a query, four labels of 1 to 4 tokens each, float32, the same weights. Ours scores
all labels twice, those of a prompt in one row and each in a row of its own. The peer is what one writes with
transformers: rows of prompt and label, sorted by length, padded on the right. Each framework lives in a
process of its own and works only when told to, in turns. No ratio is printed unless all give the same
log-probabilities. Compile time is told apart: all is run once before it is timed.

Linux only: cores are given out with sched_setaffinity.
"""

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from generate_cpu import TINY, Sizes, jaxlingua_config, torch_model
from train_cpu import cpu_model, start

LABELS = 4
EXEMPLARS = 8
ROWS = 16  # read together
TOLERANCE = 1e-3  # of a label's log-probability in nats, which is a sum of up to 4
WAYS = ("shared", "plain")
OURS, PLAIN, PEER = "ours, prompts read once", "ours, prompts read for each label", "transformers"


def draw(sizes: Sizes, items: int) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Prompts of random tokens, a sentence of 20 to 40 for the query and each exemplar, and their labels."""
    rng = np.random.default_rng(0)
    labels = [rng.integers(3, sizes.vocab, count).astype(np.int32) for count in (1, 2, 3, 4)]
    longest = sizes.longest_prompt // (EXEMPLARS + 1)
    sentences = rng.integers(longest // 2, longest + 1, (items, EXEMPLARS + 1)).sum(1)
    return [(rng.integers(3, sizes.vocab, count).astype(np.int32), labels) for count in sentences]


def ours(sizes: Sizes, items: int, params: Any) -> tuple[Callable, dict[str, int]]:
    """Both ways of scoring on one device."""
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"
    import jax

    from jaxlingua.config import ShardingConfig
    from jaxlingua.generate.likelihood import Continuation, likelihoods
    from jaxlingua.model.llama import Llama
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.sharding.rules import param_shardings

    model, mesh = Llama(jaxlingua_config(sizes)), make_mesh(ShardingConfig())
    params = jax.device_put(params, param_shardings(model, mesh))
    asked = [Continuation(prompt, label) for prompt, labels in draw(sizes, items) for label in labels]
    groups = {"shared": [at // LABELS for at in range(len(asked))], "plain": range(len(asked))}

    def run(way: str, number: int) -> tuple[Any, int]:
        found = likelihoods(
            model, params, asked, vocab_size=sizes.vocab, batch_rows=ROWS, mesh=mesh, groups=groups[way]
        )
        return np.array([one.logprob for one in found]), items

    return run, {}


def theirs(sizes: Sizes, items: int, threads: int) -> tuple[Callable, dict[str, int]]:
    """A row for each label, the longest first; logits of the label's places alone."""
    import torch

    torch.set_num_threads(threads)
    model = torch_model(sizes)
    asked = [(prompt, label) for prompt, labels in draw(sizes, items) for label in labels]
    longest_first = sorted(range(len(asked)), key=lambda at: -sum(map(len, asked[at])))

    @torch.no_grad()
    def run(way: str, number: int) -> tuple[Any, int]:
        found = np.zeros(len(asked))
        for first in range(0, len(asked), ROWS):
            chosen = longest_first[first : first + ROWS]
            documents = [np.concatenate(asked[at]).astype(np.int64) for at in chosen]
            tokens = np.zeros((len(chosen), len(documents[0]) - 1), np.int64)
            for row, document in enumerate(documents):
                tokens[row, : len(document) - 1] = document[:-1]
            # Causal, and padded on the right: without a mask a row gets what it would get alone.
            hidden = model.model(torch.tensor(tokens)).last_hidden_state
            for row, at in enumerate(chosen):
                prompt, label = (len(part) for part in asked[at])
                scores = model.lm_head(hidden[row, prompt - 1 : prompt - 1 + label])
                target = torch.tensor(documents[row][prompt:, None])
                found[at] = torch.log_softmax(scores, -1).gather(1, target).sum()
        return found, items

    return run, {}


def difference(found: dict[str, np.ndarray]) -> float:
    """The largest difference of log-probabilities. Raises: SystemExit if they are not the same scores."""
    largest = float(np.abs(np.array(list(found.values())) - found[OURS]).max())  # NaN if any of them is
    if not largest <= TOLERANCE:
        raise SystemExit(
            f"shared_prefix_cpu: log-probabilities differ by {largest:.1e}; {TOLERANCE:g} is allowed, so no "
            f"ratio is printed"
        )
    return largest


def line(name: str, what: str, ours: np.ndarray, other: np.ndarray) -> str:
    """A line of the table from seconds by round; the ratio is the median over pairs of rounds."""
    ratios = other / ours
    spread = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
    return f"| {name}{what} | {np.median(ours):.2f} s | {np.median(other):.2f} s | {spread} |"


def main() -> None:
    """Start both, run everything once, compare the scores, measure, print the table."""
    parser = argparse.ArgumentParser(description="Labels behind one prompt on one CPU, against PyTorch.")
    parser.add_argument("--rounds", type=int, default=5, help="passes over all items, each in every way")
    parser.add_argument("--threads", type=int, help="cores to use; all of them if not given")
    parser.add_argument("--items", type=int, default=48, help="prompts, each with four labels")
    parser.add_argument(
        "--tiny", action="store_true", help="the smallest sizes: whether it runs, not how fast"
    )
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: given.threads]
    os.sched_setaffinity(0, cores)  # the children inherit it; XLA makes a thread for each core it may use
    sizes = TINY._replace(longest_prompt=90) if given.tiny else Sizes()

    sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout has the map of weights in its tests
    import jax

    from tests.reference.from_torch import from_torch

    params = jax.tree.map(np.asarray, from_torch(torch_model(sizes), jaxlingua_config(sizes)))
    our_run, end_ours, _ = start(ours, sizes, given.items, params)
    their_run, end_theirs, _ = start(theirs, sizes, given.items, len(cores))
    turns = {OURS: (our_run, "shared"), PLAIN: (our_run, "plain"), PEER: (their_run, "")}
    began = time.perf_counter()
    first = {name: run(way, 0)[0] for name, (run, way) in turns.items()}
    compiling = time.perf_counter() - began
    largest = difference(first)
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in turns}  # by the clock, and of all cores
    for number in range(given.rounds):
        for name in list(turns)[:: (-1) ** number]:
            run, way = turns[name]
            seconds[name].append(run(way, number)[1][1:])
            print(f"{number + 1}/{given.rounds}: {name}: {seconds[name][-1][0]:.2f} s", file=sys.stderr)
    end_ours(), end_theirs()
    costs = {name: np.array(each) for name, each in seconds.items()}
    lengths = [len(prompt) for prompt, _ in draw(sizes, given.items)]
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "torch", "transformers")
    )
    lines = [
        f"| {given.items} items (less is better) | {OURS} | the other | ratio other/ours |",
        "|---|---|---|---|",
        *(
            line(f"against {name}", what, costs[OURS][:, at], costs[name][:, at])
            for at, what in enumerate(("", ", in CPU time"))
            for name in (PLAIN, PEER)
        ),
        "",
        f"- Machine: {cpu_model()}, {len(cores)} cores, load at the end {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, {packages}",
        f"- Command: `{' '.join(['python', *sys.argv])}`; {given.rounds} rounds in turns, medians, least to "
        f"greatest",
        f"- Model: width {sizes.embed}, {sizes.layers} layers, {sizes.heads} heads, MLP {sizes.mlp}, "
        f"vocabulary {sizes.vocab:,}, float32, random weights, the same in both",
        f"- Prompts of {min(lengths)} to {max(lengths)} tokens with {LABELS} labels of 1 to 4 tokens each; "
        f"{ROWS} rows read together",
        f"- Log-probabilities of labels differ by {largest:.1e} at most; {TOLERANCE:g} is allowed",
        f"- Compilation, not in the table: the first pass in all ways took {compiling:.1f} s",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
