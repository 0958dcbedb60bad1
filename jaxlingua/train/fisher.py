"""The Fisher information of what earlier stages taught, for EWC."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlingua.model.llama import Llama
from jaxlingua.sharding.feed import place_rows
from jaxlingua.sharding.rules import MeshFunction, batch_sharding
from jaxlingua.tokens.batches import entropy
from jaxlingua.tokens.stages import Stage
from jaxlingua.train.learned import Learned
from jaxlingua.train.objective import Objective, drawn_targets
from jaxlingua.train.state import weights_of
from jaxlingua.train.step import accumulated, summed_loss_and_grads


def fisher_information(
    params: Any,
    frozen: Any,
    learned: Learned,
    shardings: Any,
    stages: Sequence[Stage],
    *,
    model: Llama,
    objective: Objective,
    draws: int,
    seed: int,
    micro_batches: int,
    on_progress: Callable[[int, int], None],
) -> Any:
    """The diagonal of the Fisher information of a target token, summed over the given stages.

    Targets are drawn from the model itself, so that the squared gradient of the summed loss of a batch has
    the expectation T · F, T being its target tokens, whatever rows, packing or mesh: the gradients of single
    tokens have mean zero and are independent, and what is not their squares cancels. `draws` batches of each
    stage are averaged; the deviation of an entry is about √(2 / draws) of it.

    Args:
        params: of the state, at which it is taken; `frozen` is what is fixed beside them.
        learned: what of `params` the stage that begins will train, with `shardings`.
        stages: the earlier ones.
        objective: that of training.
    Returns: a tree as what is trained, float32.
    Paper: arXiv:2305.14342, algorithm 2 (this estimator); arXiv:1612.00796 (its use).
    Cost: a forward pass and a training step's work per draw and stage.
    """
    mesh = jax.tree.leaves(shardings)[0].mesh
    trained, held = learned.parts(params)
    total = jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), out_shardings=shardings)(trained)
    done, all_ = 0, draws * len(stages)
    for stage in stages:
        own = replace(objective, groups=len(stage.batches.group_names), kl_weight=0.0)
        program = make_fisher_draw(model, learned, own, shardings, micro_batches, mesh)
        for draw in range(draws):
            rows = partial(rows_of_draw, stage, seed, draw)
            batch, uniform = place_rows(rows, draw % stage.batches.steps, stage.batches.batch_rows, mesh)
            total = program(total, trained, held, frozen, batch, uniform, jnp.float32(1 / draws))
            done += 1
            on_progress(done, all_)
    return total


def make_fisher_draw(
    model: Llama, learned: Learned, objective: Objective, shardings: Any, micro_batches: int, mesh: Mesh
) -> MeshFunction:
    """The jitted (total, trained, held, frozen, batch, uniform, share) -> total + share · G² / T."""

    def add(total: Any, trained: Any, held: Any, frozen: Any, batch: Any, uniform: Any, share: Any) -> Any:
        def whole(part: Any) -> Any:
            return weights_of(frozen, learned.joined(part, held))

        def of_draw(part: Any, rows: Any) -> Any:
            batch, uniform = rows
            targets = drawn_targets(model, whole(part), batch, uniform, objective)
            drawn = batch._replace(targets=targets)
            return summed_loss_and_grads(model, objective, shardings, whole, None, part, drawn)

        sums, grads = accumulated(of_draw, trained, (batch, uniform), micro_batches)
        count = jnp.maximum(sums.target_tokens, 1).astype(jnp.float32)
        return jax.tree.map(lambda sum_, grad: sum_ + share * jnp.square(grad) / count, total, grads)

    rows = batch_sharding(mesh)
    jitted = jax.jit(
        add, donate_argnums=0, in_shardings=(shardings, shardings, None, None, rows, rows, None),
        out_shardings=shardings,
    )  # fmt: skip
    return MeshFunction(jitted, mesh)


def rows_of_draw(
    stage: Stage, seed: int, draw: int, step: int, start: int, stop: int
) -> tuple[Any, np.ndarray]:
    """Rows of a batch, with a number in [0, 1) for each position: which target is drawn there."""
    batches = stage.batches
    numbers = np.random.default_rng(entropy(seed, stage.config.name, "fisher", draw))
    uniform = numbers.random((batches.batch_rows, batches.row_length_tokens), np.float32)
    return batches.batch(step, start, stop), uniform[start:stop]
