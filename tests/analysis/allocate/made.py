"""Laws made up for tests, and splits found by trying all."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from jaxlingua.analysis.allocate.problem import Problem
from jaxlingua.analysis.scaling.laws import Fitted, Laws

CODES = ("deu_Latn", "jav_Latn", "sun_Latn", "tha_Thai")


def fitted(code: str, law: str, parameters, *, draws=None, smallest=10, largest=1000) -> Fitted:
    parameters = np.array(parameters, float)
    draws = np.tile(parameters, (20, 1)) if draws is None else np.array(draws, float)
    return Fitted(code, law, parameters, draws, 1.0, smallest, largest, 0.1)


def laws_of(*fitted: Fitted, is_higher_better: bool = True) -> Laws:
    metric = "bleu" if is_higher_better else "loss"
    return Laws(metric, "multi30k", is_higher_better, {one.language: one for one in fitted})


def powers(*parameters, **more) -> Laws:
    return laws_of(*(fitted(code, "power", p, **more) for code, p in zip(CODES, parameters, strict=False)))


def many(count: int, law: str, seed: int = 0) -> Laws:
    """Laws of one family for so many languages, as different as sweeps may find them."""
    rng = np.random.default_rng(seed)
    draw = {
        "power": lambda: (rng.uniform(20, 45), rng.uniform(50, 200), 0.35),
        "log_linear": lambda: (rng.uniform(-10, 5), rng.uniform(1, 5)),
        "sigmoid": lambda: (rng.uniform(0, 3), rng.uniform(10, 30), rng.uniform(1e3, 2e4), rng.uniform(0.2, 0.8)),
    }[law]  # fmt: skip
    return laws_of(*(fitted(f"l{index:02d}_Latn", law, draw()) for index in range(count)))


def all_splits(problem: Problem) -> Iterator[np.ndarray]:
    """Every split within limits and budget, a block at a time: [splits, languages]."""
    ranges = [range(int(low), int(high) + 1) for low, high in zip(problem.least, problem.most, strict=True)]
    splits = np.array(list(product(*ranges)), np.int64).reshape(-1, len(ranges))
    return splits[splits @ problem.cost <= problem.budget]


def best_by_trying(problem: Problem) -> tuple[float, np.ndarray]:
    """The greatest value of all splits, and the gains of the splits that have it, worst language first."""
    splits = all_splits(problem)
    tables = [
        problem.gains(index, np.arange(low, high + 1))
        for index, (low, high) in enumerate(zip(problem.least, problem.most, strict=True))
    ]
    gains = np.stack(
        [table[splits[:, index] - problem.least[index]] for index, table in enumerate(tables)], axis=-1
    )
    values = problem.value(gains)
    return float(values.max()), np.sort(gains[values >= values.max() - 1e-9], axis=-1)
