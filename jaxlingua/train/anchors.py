"""Anchors: what holds a stage to the parameters and answers that it begins with.

The gradient of a step is that of the mean loss, with the pull of each anchor added:
L2-SP α (θ - θ₀) (arXiv:1802.01483, equation 2), EWC λ F (θ - θ₀) (arXiv:1612.00796, equation 3), and the
divergence from the earlier model's answers, which `objective.py` takes along with the loss (learning without
forgetting, arXiv:1606.09282, at temperature 1). θ₀ and F are state: a checkpoint holds them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlingua.config import AnchorConfig, StageConfig

PARAMS, FISHER = "params", "fisher"  # in `TrainState.anchor`


def pulled(
    anchor: AnchorConfig, params: Any, remembered: Mapping[str, Any], grads: Any
) -> tuple[Any, Float[Array, ""]]:
    """`grads` with what L2-SP and EWC add, and the sum of both penalties.

    Args:
        params: what is trained; `remembered` holds the same tree at the stage's beginning.
    Cost: reads two more arrays per parameter.
    """
    penalty = jnp.float32(0)
    if anchor.l2_sp == anchor.ewc == "off":
        return grads, penalty

    def pull(value: Array, first: Array, fisher: Array | None) -> tuple[Array, Array]:
        moved, stiffness = value - first, 0.0 if anchor.l2_sp == "off" else anchor.l2_sp
        if fisher is not None:
            stiffness = stiffness + anchor.ewc * fisher
        force = stiffness * moved
        return force, 0.5 * jnp.sum(force * moved)

    leaves, structure = jax.tree.flatten(params)
    firsts = jax.tree.leaves(remembered[PARAMS])
    fishers = [None] * len(leaves) if anchor.ewc == "off" else jax.tree.leaves(remembered[FISHER])
    found = [pull(*each) for each in zip(leaves, firsts, fishers, strict=True)]
    for _, part in found:
        penalty = penalty + part
    forces = jax.tree.unflatten(structure, [force for force, _ in found])
    return jax.tree.map(jnp.add, grads, forces), penalty


def is_taught(stage: StageConfig) -> bool:
    """Whether it is held to the answers of the model that it begins with."""
    return stage.anchored is not None and stage.anchored.kl != "off"


def remembered_by(stage: StageConfig) -> tuple[str, ...]:
    """What a stage keeps of its beginning: copies as large as what it trains."""
    if stage.anchor == stage.average == "off":
        return ()
    is_ewc = stage.anchored is not None and stage.anchored.ewc != "off"
    return (PARAMS, FISHER) if is_ewc else (PARAMS,)
