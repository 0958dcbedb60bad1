"""The arithmetic of memory against real arrays and against the compiler's own buffers."""

import jax
import jax.numpy as jnp
import pytest

from jaxlingua.config import OptimizerConfig
from jaxlingua.sharding.memory import MIB, Memory, bytes_per_device, step_memory
from jaxlingua.tokens.batches import Batch
from jaxlingua.train.objective import Objective
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import abstract_state, initial_state, shardings_of
from jaxlingua.train.step import make_train_step
from tests.train.world import mesh_of, tiny_model

ESTIMATE = 0.25  # of the compiler's temporary buffers


def held_by_first_device(tree):
    shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == jax.devices()[0])


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_parameters_and_optimizer_are_what_a_device_really_holds(kind):
    mesh, model = mesh_of(data=2, fsdp=2, tensor=2), tiny_model()
    optimizer, _ = make_optimizer(OptimizerConfig(kind=kind), 10)
    abstract = abstract_state(model, optimizer, mesh)
    memory = step_memory(
        abstract, model.config, mesh,
        batch_rows=8, micro_batches=2, row_length_tokens=32, loss_chunk_tokens=64,
    )  # fmt: skip
    state = initial_state(model, optimizer, mesh, seed=0)
    assert memory.parameters == held_by_first_device(state.params) == bytes_per_device(state.params)
    assert memory.optimizer == held_by_first_device(state.opt_state)
    assert memory.gradients == 2 * memory.parameters


@pytest.mark.parametrize(
    ("remat", "axes", "micro_batches"),
    [("full", {"fsdp": 4, "tensor": 2}, 1), ("minimal", {"fsdp": 8}, 1), ("none", {"fsdp": 8}, 2)],
)
def test_the_estimate_is_near_the_compiler_s_buffers(remat, axes, micro_batches):
    sizes = {
        "vocab_size": 4096,
        "embed": 256,
        "layers": 8,
        "heads": 4,
        "kv_heads": 4,
        "head_dim": 64,
        "mlp": 704,
    }
    mesh, model = mesh_of(**axes), tiny_model(**sizes, remat=remat, attention="reference")
    optimizer, schedule = make_optimizer(OptimizerConfig(), 10)
    state = abstract_state(model, optimizer, mesh)
    step = make_train_step(
        model, optimizer, schedule, Objective(4096, 3, 256), shardings_of(state), micro_batches
    )
    rows, length = 32, 256
    batch = Batch(
        *(
            jax.ShapeDtypeStruct((rows, length), bool if name == "target_mask" else jnp.int32)
            for name in Batch._fields
        )
    )
    compiled = step.lower(state, batch).compile().memory_analysis()
    memory = step_memory(
        state, model.config, mesh,
        batch_rows=rows, micro_batches=micro_batches, row_length_tokens=length, loss_chunk_tokens=256,
    )  # fmt: skip
    estimate = memory.total - memory.parameters - memory.optimizer
    assert abs(estimate / compiled.temp_size_in_bytes - 1) < ESTIMATE, (estimate, compiled.temp_size_in_bytes)
    assert abs(compiled.argument_size_in_bytes - memory.parameters - memory.optimizer) < MIB


def test_what_is_told_adds_up():
    memory = Memory(8 * MIB, 16 * MIB, 8 * MIB, 4 * MIB, layer=2 * MIB, logits=3 * MIB)
    assert memory.describe() == (
        "39.0 MiB per device (parameters 8.0, optimizer 16.0, gradients 8.0, activations 4.0, layer 2.0, logits 3.0)"
    )
