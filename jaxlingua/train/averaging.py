"""Weights that lie between those before a stage and those after it."""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from jaxlingua.data.replay import is_replay
from jaxlingua.tokens.stages import Stage
from jaxlingua.tracking import fetch
from jaxlingua.train.anchors import PARAMS
from jaxlingua.train.held_out import HeldOut, make_held_out
from jaxlingua.train.method import Method
from jaxlingua.train.state import TrainState

SHARES = tuple(tenth / 10 for tenth in range(1, 11))  # of the later weights, that are tried

Measure = Callable[[Any], float]  # of all weights; the lower the better


def averaged(
    state: TrainState, method: Method, shardings: TrainState, measure: Measure, say: Callable[[str], None]
) -> TrainState:
    """(1 - share) θ₀ + share θ, θ₀ being what the stage began with.

    The share is that of the configuration, or the one of `SHARES` of which `measure` is lowest, of equal ones
    the largest.

    Args:
        say: told which it is, and what was measured.
    Paper: arXiv:2109.01903 (WiSE-FT), with one share for each stage.
    Cost: one more copy of what is trained; a measurement for each share that is tried.
    """
    trained, held = method.learned.parts(state.params)
    given = method.stage.config.average

    def between(before: Any, after: Any, share: Any) -> Any:
        mixed = jax.tree.map(lambda b, a: (1 - share) * b + share * a, before, after)
        return method.learned.where_trained(mixed, after)  # the mean of two equal numbers may be rounded

    mix = jax.jit(between, out_shardings=method.learned.parts(shardings.params)[0])

    def at(share: float) -> Any:
        return method.learned.joined(mix(state.anchor[PARAMS], trained, share), held)

    share, told = given, ""
    if given == "auto":
        measured = {share: measure(state.replace(params=at(share)).weights) for share in SHARES}
        finite = [share for share in SHARES if math.isfinite(measured[share])]
        share = max(finite, key=lambda one: (-measured[one], one), default=1.0)
        told = f"; held-out loss of all stages so far {measured[share]:.4f}, without it {measured[1.0]:.4f}"
    say(
        f"stage {method.stage.config.name}: its weights count {share:g} in the average with those before "
        f"it{told}"
    )
    return state.replace(params=at(share))


def validation_of(method: Method, model: nn.Module, shardings: TrainState) -> Measure:
    """Held-out loss, nats per target token: the mean over this stage and those before it.

    That of a stage is the mean over its own entries and languages; replay does not count again, nor does a
    stage that holds nothing out.
    """
    stages = [stage for stage in (*method.earlier, method.stage) if holds_out(stage)]
    held_outs = [
        make_held_out(stage.held_out, model, method.objective, shardings.weights) for stage in stages
    ]

    def measure(weights: Any) -> float:
        return sum(_own_loss(held_out, weights) for held_out in held_outs) / len(held_outs)

    return measure


def holds_out(stage: Stage) -> bool:
    """Whether it has held-out text of its own."""
    return bool(stage.held_out) and not all(is_replay(entry) for entry, _ in stage.held_out.group_names)


def _own_loss(held_out: HeldOut, weights: Any) -> float:
    told = held_out.tell(fetch(held_out.measure(weights)))
    losses = [loss.loss for (entry, _), loss in told.items() if not is_replay(entry)]
    return sum(losses) / len(losses)
