"""The arithmetic of memory against real arrays and against the compiler's own buffers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from jaxlingua.config import OptimizerConfig, ShardingConfig
from jaxlingua.model.llama import has_barriers
from jaxlingua.model.lora import PROJECTIONS, TARGETS, Lora
from jaxlingua.model.presets import PRESETS
from jaxlingua.plan.topology import devices, topology_of
from jaxlingua.sharding.chips import CHIPS
from jaxlingua.sharding.memory import (
    MIB,
    Memory,
    Placing,
    adapter_count,
    bytes_per_device,
    is_ordered,
    planned_memory,
    step_memory,
)
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import batch_sharding, sharding_context
from jaxlingua.tokens.batches import Batch
from jaxlingua.train.compiler_options import compiler_options
from jaxlingua.train.objective import Objective
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import abstract_state, initial_state, shardings_of
from jaxlingua.train.step import make_train_step
from tests.train.world import mesh_of, tiny_model

GIB = 2**30
ESTIMATE = 0.25  # of the compiler's temporary buffers
TPU_ESTIMATE = 0.05  # of all that the TPU compiler holds at the fullest moment


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


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
@pytest.mark.parametrize(
    "optimizer",
    [{}, {"first_moment_dtype": "bfloat16"}, {"kind": "lion"}, {"kind": "adafactor"}],
    ids=["adamw", "bfloat16", "lion", "adafactor"],
)
@pytest.mark.parametrize(
    "sizes",
    [
        {"tie_embeddings": False},
        {"qkv_bias": True, "o_bias": True, "mlp_bias": True, "qk_norm": True},
        {"embed": 256, "mlp": 384, "heads": 4, "kv_heads": 2, "head_dim": 64},  # Adafactor factors these
    ],
)
def test_what_is_planned_is_what_the_abstract_state_holds_to_the_byte(axes, optimizer, sizes):
    mesh, model, config = mesh_of(**axes), tiny_model(**sizes), OptimizerConfig(**optimizer)
    abstract = abstract_state(model, make_optimizer(config, 10)[0], mesh)
    placing = Placing(dict(mesh.shape), "cpu", "cpu", 16, 2, 32, 64)
    planned = planned_memory(model.config, config, placing)
    assert planned.parameters == bytes_per_device(abstract.params)
    assert planned.optimizer == bytes_per_device(abstract.opt_state)
    described = step_memory(
        abstract, model.config, mesh,
        batch_rows=16, micro_batches=2, row_length_tokens=32, loss_chunk_tokens=64,
    )  # fmt: skip
    assert planned == described


@pytest.mark.parametrize("base", ["float32", "bfloat16", "int8", "nf4"])
@pytest.mark.parametrize(
    ("lora", "sizes", "axes"),
    [
        ({"rank": 4, "targets": tuple(PROJECTIONS)}, {"qkv_bias": True, "qk_norm": True}, {"fsdp": 1}),
        ({"rank": 8, "targets": TARGETS, "dora": True}, {"tie_embeddings": False, "embed": 128}, {"fsdp": 2, "tensor": 2}),
    ],
    ids=["LoRA", "DoRA of all"],
)  # fmt: skip
def test_adapters_and_their_base_are_planned_to_the_byte(base, lora, sizes, axes):
    """Two codes of four bits in one byte: so XLA counts the arguments of a program, on CPUs too."""
    mesh, config = mesh_of(**axes), OptimizerConfig()
    model = tiny_model(**sizes, lora=Lora(alpha=8.0, base=base, **lora))
    abstract = abstract_state(model, make_optimizer(config, 10)[0], mesh)
    placing = Placing(dict(mesh.shape), "cpu", "cpu", 16, 2, 32, 64)
    planned = planned_memory(model.config, config, placing)
    assert planned.parameters == bytes_per_device(abstract.params)
    assert planned.optimizer == bytes_per_device(abstract.opt_state)
    assert planned.frozen == bytes_per_device(abstract.frozen)
    assert adapter_count(model.config) == sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    kept = jax.jit(lambda base: base).lower(abstract.frozen).compile().memory_analysis()
    assert kept.argument_size_in_bytes == planned.frozen
    assert planned == step_memory(
        abstract, model.config, mesh,
        batch_rows=16, micro_batches=2, row_length_tokens=32, loss_chunk_tokens=64,
    )  # fmt: skip


# Peak bytes per chip as libtpu 0.0.51 told them (benchmarks/plan_memory.py): preset and what differs from
# it, chip, mesh, rows, their length, remat policy, micro-batches, optimizer.
TINYLLAMA = {"embed": 2048, "layers": 22, "heads": 32, "kv_heads": 4, "head_dim": 64, "mlp": 5632}
COMPILED = [
    ("llama2-7b", {}, "v5e", {"fsdp": 64}, 128, 2048, "minimal", 1, "adamw", 15_278_185_984),
    ("llama2-7b", {}, "v5e", {"fsdp": 64}, 128, 2048, "save_qkv", 1, "adamw", 8_410_013_696),
    ("llama2-7b", {}, "v5e", {"fsdp": 64}, 128, 2048, "full", 1, "adamw", 4_100_497_408),
    ("llama2-7b", {}, "v5e", {"fsdp": 64}, 256, 2048, "save_mlp", 2, "adamw", 10_696_640_000),
    ("llama2-7b", {}, "v5e", {"fsdp": 8}, 64, 2048, "full", 8, "adafactor", 12_975_218_176),
    ("llama2-7b", TINYLLAMA, "v5e", {"fsdp": 8}, 64, 2048, "save_mlp", 1, "adamw", 14_068_009_984),
    ("llama3.2-1b", {}, "v5e", {"fsdp": 1}, 4, 2048, "full", 1, "adafactor", 15_084_783_104),
    ("llama3.2-1b", {}, "v5e", {"fsdp": 4, "tensor": 2}, 16, 2048, "minimal", 1, "adamw", 10_285_985_280),
    ("llama3-8b", {}, "v6e", {"fsdp": 16}, 32, 2048, "save_qkv", 1, "adamw", 14_981_123_296),
    ("llama2-13b", {}, "v4", {"fsdp": 32}, 64, 2048, "save_qkv", 1, "adamw", 17_250_800_128),
    ("llama2-70b", {}, "v5p", {"fsdp": 128}, 128, 4096, "save_attention", 1, "adamw", 28_447_092_960),
]


@pytest.mark.parametrize("case", COMPILED, ids=lambda case: f"{case[0]}-{case[2]}-{case[6]}")
def test_the_arithmetic_is_within_5_percent_of_what_the_tpu_compiler_told(case):
    preset, changes, chip, axes, rows, length, remat, micro_batches, kind, compiled = case
    sizes = replace(PRESETS[preset], compute_dtype="bfloat16", remat=remat, **changes)
    mesh = {"data": 1, "fsdp": 1, "tensor": 1} | axes
    placing = Placing(mesh, "tpu", CHIPS[chip].device_kind, rows, micro_batches, length, 8192)
    total = planned_memory(sizes, OptimizerConfig(kind=kind), placing).total
    assert abs(total / compiled - 1) < TPU_ESTIMATE, (total, compiled)


# The same of `benchmarks/plan_memory.py --adapters`: preset, what differs from seven targets of rank 16 beside a
# base in bfloat16, chip, mesh, rows of a micro-batch, their length, how many of them, remat policy.
SEVEN = Lora(16, 32.0, tuple(PROJECTIONS), base="bfloat16")
ADAPTED = [
    ("llama3.2-1b", {}, "v5e", {}, 8, 512, 4, "minimal", 6_970_671_792),
    ("llama3.2-1b", {"dora": True, "targets": TARGETS}, "v5e", {}, 8, 512, 4, "minimal", 9_802_548_815),
    ("llama2-7b", {"base": "nf4"}, "v5e", {}, 2, 1024, 8, "minimal", 11_526_269_515),
    ("llama2-7b", {"base": "int8"}, "v5e", {}, 2, 1024, 8, "minimal", 14_764_335_553),
    ("llama2-7b", {}, "v5e", {}, 2, 1024, 8, "full", 18_564_996_137),
    ("llama3-8b", {"base": "nf4"}, "v6e", {}, 2, 1024, 8, "minimal", 13_583_202_367),
    ("llama2-7b", {"base": "nf4"}, "v5e", {"fsdp": 8}, 16, 1024, 1, "minimal", 7_848_878_787),
]


@pytest.mark.parametrize("case", ADAPTED, ids=lambda case: f"{case[0]}-{case[2]}-{case[1].get('base', '')}")
def test_the_arithmetic_of_adapters_is_within_5_percent_of_what_the_tpu_compiler_told(case):
    preset, changes, chip, axes, rows, length, micro_batches, remat, compiled = case
    lora = replace(SEVEN, **changes)
    sizes = replace(PRESETS[preset], compute_dtype="bfloat16", remat=remat, lora=lora)
    mesh = {"data": 1, "fsdp": 1, "tensor": 1} | axes
    kind = CHIPS[chip].device_kind
    placing = Placing(mesh, "tpu", kind, rows * micro_batches, micro_batches, length, 1024)
    total = planned_memory(sizes, OptimizerConfig(), placing).total
    assert abs(total / compiled - 1) < TPU_ESTIMATE, (total, compiled)


# GiB of six layers on one v5e chip, rows of 1,024: width, head_dim, rows, remat policy.
NARROW = [
    (256, 64, 42, "none", 5.45),
    (512, 64, 20, "none", 5.28),
    (512, 128, 40, "none", 9.23),
    (1024, 64, 9, "none", 5.76),
    (2048, 64, 3, "none", 8.28),
    (256, 64, 260, "dots", 11.02),
    (512, 64, 122, "dots", 10.34),
    (512, 128, 40, "dots", 3.35),
    (2048, 64, 18, "dots", 11.10),
    (256, 64, 245, "minimal", 13.76),
    (512, 64, 122, "minimal", 13.76),
    (1024, 64, 54, "minimal", 13.07),
    (2048, 64, 17, "minimal", 12.71),
    (256, 64, 858, "full", 13.17),
]


@pytest.mark.parametrize("case", NARROW, ids=lambda case: f"{case[0]}-{case[1]}-{case[3]}")
def test_the_arithmetic_of_narrow_models_and_without_a_policy_is_within_7_percent(case):
    embed, head_dim, rows, remat, compiled = case
    sizes = replace(
        PRESETS["tiny-0.6m"], vocab_size=4096, embed=embed, layers=6, heads=embed // head_dim,
        kv_heads=embed // head_dim, head_dim=head_dim, mlp=embed * 11 // 4, compute_dtype="bfloat16",
        attention="auto", remat=remat,
    )  # fmt: skip
    mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    placing = Placing(mesh, "tpu", CHIPS["v5e"].device_kind, rows, 1, 1024, 8192)
    total = planned_memory(sizes, OptimizerConfig(), placing).total
    assert abs(total / (compiled * GIB) - 1) < 0.07, (total / GIB, compiled)


def test_on_a_gpu_no_scores_are_held_where_its_kernel_is_taken():
    def layer(platform: str, dtype: str) -> int:
        sizes = replace(PRESETS["llama3.2-1b"], compute_dtype=dtype, remat="full")
        mesh = {"data": 1, "fsdp": 1, "tensor": 1}
        return planned_memory(
            sizes, OptimizerConfig(), Placing(mesh, platform, platform, 4, 1, 1024, 8192)
        ).layer

    scores = 2 * 4 * 1024 * (2 * 32 * 1024 * 4)  # as the gradient too; float32, before and after the softmax
    assert layer("cpu", "bfloat16") - layer("gpu", "bfloat16") == scores
    assert layer("gpu", "float32") == layer("cpu", "float32")


SMALL = {"embed": 1024, "layers": 4, "heads": 8, "kv_heads": 8, "head_dim": 128, "mlp": 2816}


@pytest.fixture
def compiler_environment(monkeypatch):
    """As `python -m jaxlingua.plan` sets it: the compiler asks nobody for a TPU."""
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")


@pytest.mark.parametrize(
    ("topology", "remat", "rows", "micro_batches"),
    [
        pytest.param("v5e:2x4", "minimal", 64, 1, marks=pytest.mark.slow),
        pytest.param("v6e:2x4", "save_qkv", 128, 2, marks=pytest.mark.slow),
    ],
)
def test_the_arithmetic_is_within_5_percent_of_the_tpu_compiler(
    topology, remat, rows, micro_batches, compiler_environment
):
    mesh, length = make_mesh(ShardingConfig(), devices(topology_of(topology))), 1024
    sizes = {"vocab_size": 8192, "compute_dtype": "bfloat16", "attention": "auto", "max_positions": length}
    model = tiny_model(**sizes, **SMALL, remat=remat, tie_embeddings=False)
    optimizer, schedule = make_optimizer(OptimizerConfig(), 10)
    state = abstract_state(model, optimizer, mesh)
    options = compiler_options("auto", mesh.devices.flat[0].device_kind)
    step = make_train_step(
        model, optimizer, schedule, Objective(8192, 2, 8192), shardings_of(state), micro_batches, options
    )
    batch = Batch(
        *(
            jax.ShapeDtypeStruct(
                (rows, length), bool if name == "target_mask" else jnp.int32, sharding=batch_sharding(mesh)
            )
            for name in Batch._fields
        )
    )
    compiled = step.lower(state, batch).compile().memory_analysis().peak_memory_in_bytes
    memory = step_memory(
        state, model.config, mesh,
        batch_rows=rows, micro_batches=micro_batches, row_length_tokens=length, loss_chunk_tokens=8192,
    )  # fmt: skip
    assert abs(memory.total / compiled - 1) < TPU_ESTIMATE, (memory, compiled)
    with sharding_context(mesh):
        assert is_ordered(model.config, mesh.devices.flat[0].device_kind) == has_barriers(model.config)
