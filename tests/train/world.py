"""Documents, rows and meshes for tests of training, built without the code under test."""

import jax
import numpy as np
from flax import linen as nn

from jaxlingua.config import MeshConfig, ShardingConfig
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import init_params
from jaxlingua.tokens.batches import Batch
from jaxlingua.train.objective import Objective
from tests.tiny import tiny_llama_config

VOCAB = 500  # of 512 in the model: twelve rows of padding
GROUPS = 3
OBJECTIVE = Objective(vocab_size=VOCAB, groups=GROUPS, loss_chunk_tokens=64)

# Tolerances, written once.
FP32_STEPS = 1e-5  # of the loss, over twenty steps on different meshes
FP32_GRADIENT = 1e-5  # of the norm of the gradient


def tiny_model(**changes) -> Llama:
    return Llama(tiny_llama_config(**changes))


def mesh_of(data: int = 1, fsdp: int = 1, tensor: int = 1):
    config = ShardingConfig(mesh=MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
    return make_mesh(config, jax.devices()[: data * fsdp * tensor])


def documents(count: int, seed: int, longest: int = 14) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(tokens, target_mask, group) of random documents; the number of targets differs widely."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens = rng.integers(3, VOCAB, rng.integers(4, longest + 1)).astype(np.int32)
        mask = np.arange(len(tokens)) >= rng.integers(1, len(tokens))
        made.append((tokens, mask, int(rng.integers(GROUPS))))
    return made


def batch_of(rows: list[list[tuple[np.ndarray, np.ndarray, int]]], length: int) -> Batch:
    """Rows of documents, one position at a time."""
    shape = (len(rows), length)
    batch = Batch(*(np.zeros(shape, bool if name == "target_mask" else np.int32) for name in Batch._fields))
    for r, row in enumerate(rows):
        column = 0
        for segment, (tokens, mask, group) in enumerate(row, start=1):
            for position in range(len(tokens) - 1):
                batch.tokens[r, column] = tokens[position]
                batch.targets[r, column] = tokens[position + 1]
                batch.target_mask[r, column] = mask[position + 1]
                batch.positions[r, column] = position
                batch.segments[r, column] = segment
                batch.groups[r, column] = group
                column += 1
    return batch


def random_batch(rows: int = 8, length: int = 32, seed: int = 0) -> Batch:
    """Two documents and some padding in every row."""
    made = documents(2 * rows, seed, longest=length // 2)
    return batch_of([made[2 * r : 2 * r + 2] for r in range(rows)], length)


def parameters(model: Llama):
    """First parameters, on one device."""
    return nn.unbox(init_params(model, jax.random.key(0), mesh_of()))


def flat(tree) -> np.ndarray:
    """All leaves end to end."""
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])
