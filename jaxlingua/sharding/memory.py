"""Bytes per device of a training step by arithmetic: what is known before anything is compiled."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlingua.model.presets import LlamaConfig
from jaxlingua.model.remat import POLICIES
from jaxlingua.sharding.rules import rows_multiple

MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes that one device holds at the fullest moment of a step.

    Parameters and optimizer are exact. Gradients are counted once, or twice where micro-batches are added
    up. The rest is an estimate: what the remat policy keeps, the work of the layer that is being done, and
    the logits of a chunk with the gathered head. The last two never meet, so only the larger counts.
    """

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    layer: int
    logits: int

    @property
    def total(self) -> int:
        kept = self.parameters + self.optimizer + self.gradients + self.activations
        return kept + max(self.layer, self.logits)

    def describe(self) -> str:
        """One line for the log, in MiB."""
        parts = ", ".join(f"{name} {size / MIB:,.1f}" for name, size in asdict(self).items())
        return f"{self.total / MIB:,.1f} MiB per device ({parts})"


def bytes_per_device(tree: Any) -> int:
    """What one device holds of a tree of arrays, or of their shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def step_memory(
    state: Any,
    config: LlamaConfig,
    mesh: Mesh,
    *,
    batch_rows: int,
    micro_batches: int,
    row_length_tokens: int,
    loss_chunk_tokens: int,
) -> Memory:
    """Memory of one training step.

    Args:
        state: a train state or its abstract shapes with shardings.
    """
    parameters, tensor = bytes_per_device(state.params), mesh.shape["tensor"]
    tokens = batch_rows // micro_batches // rows_multiple(mesh) * row_length_tokens
    return Memory(
        parameters=parameters,
        optimizer=bytes_per_device(state.opt_state),
        gradients=parameters * (2 if micro_batches > 1 else 1),
        activations=tokens * config.layers * kept_bytes_per_token(config, tensor, row_length_tokens),
        layer=tokens * 2 * layer_bytes_per_token(config, tensor, row_length_tokens),
        logits=_loss_bytes(config, mesh, min(loss_chunk_tokens, tokens)),
    )


def kept_bytes_per_token(config: LlamaConfig, tensor: int, row_length_tokens: int) -> int:
    """What one layer leaves for the backward pass: its input, and what the remat policy names."""
    sizes = named_activations(config, tensor)
    if config.remat == "none":
        elementwise = 4 * config.embed + 3 * config.mlp // tensor
        return layer_bytes_per_token(config, tensor, row_length_tokens) + elementwise * _itemsize(config)
    kept = POLICIES.get(config.remat, tuple(sizes))  # "dots" keeps about what has a name
    return (config.embed + sum(sizes[name] for name in kept)) * _itemsize(config)


def layer_bytes_per_token(config: LlamaConfig, tensor: int, row_length_tokens: int) -> int:
    """The work of one layer: both norms' inputs and outputs, all that has a name, silu and its product.

    Reference attention adds the float32 scores of every head and their softmax. The backward pass holds
    about as much again as gradients.
    """
    scores = 0 if config.attention == "blockwise" else 2 * config.heads // tensor * row_length_tokens
    numbers = 4 * config.embed + sum(named_activations(config, tensor).values()) + 2 * config.mlp // tensor
    return numbers * _itemsize(config) + 4 * scores


def named_activations(config: LlamaConfig, tensor: int) -> Mapping[str, int]:
    """Numbers per token and device of the activations that remat policies know by name."""
    queries, keys = config.heads * config.head_dim // tensor, config.kv_heads * config.head_dim // tensor
    mlp = config.mlp // tensor
    return {
        "q": queries,
        "k": keys,
        "v": keys,
        "attention_out": queries,
        "residual": config.embed,
        "up": mlp,
        "gate": mlp,
    }


def _loss_bytes(config: LlamaConfig, mesh: Mesh, chunk: int) -> int:
    """Logits of a chunk and their gradient, the gathered head, and this device's share of its gradient."""
    vocab = config.vocab_size // mesh.shape["tensor"]
    gathered = vocab * config.embed * _itemsize(config) if mesh.shape["fsdp"] > 1 else 0
    return chunk * vocab * 4 * 2 + gathered + vocab * config.embed * 4


def _itemsize(config: LlamaConfig) -> int:
    return 2 if config.compute_dtype == "bfloat16" else 4
