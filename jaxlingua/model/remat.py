"""Remat policies by name: what a layer keeps for the backward pass, and what it computes again."""

import difflib
from collections.abc import Callable

import flax.linen as nn
import jax

from jaxlingua.errors import ConfigError

# The names that activations carry in llama.py and attention.py (checkpoint_name).
ACTIVATIONS = ("q", "k", "v", "attention_out", "residual", "up", "gate")

# What is kept per layer beside its input, from least to most memory. In brackets: peak HBM and share of
# matmul work repeated, LLaMA-2 7B, two rows of 2,048 per chip, full FSDP on 64 v5e chips.
POLICIES: dict[str, tuple[str, ...]] = {
    "full": (),  # computes the whole layer again
    "save_attention": ("attention_out", "residual"),  # repeats q, k, v, up, gate; not attention
    "save_qkv": ("q", "k", "v", "attention_out"),  # repeats the output projection and the MLP
    "save_mlp": ("up", "gate"),  # repeats attention
    "minimal": ACTIVATIONS,  # repeats no matmul
}
REMAT = ("none", *POLICIES, "dots")


def check_remat(name: str) -> None:
    """Refuse a policy that does not exist, naming the nearest one. Raises: ConfigError."""
    if name not in REMAT:
        nearest = difflib.get_close_matches(name, REMAT, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(REMAT)}"
        raise ConfigError(f"train.remat: unknown policy '{name}'; {hint}")


def with_remat(layer: type[nn.Module], name: str) -> type[nn.Module]:
    """`layer` as a module that keeps for the backward pass only what policy `name` says.

    "none" keeps everything; "dots" keeps every product of weights and activations.
    """
    check_remat(name)
    if name == "none":
        return layer
    policy: Callable[..., bool]
    if name == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    else:
        policy = jax.checkpoint_policies.save_only_these_names(*POLICIES[name])
    # Under scan the loop itself keeps XLA from merging the two computations, so no barrier is needed.
    return nn.remat(layer, policy=policy, prevent_cse=False)
