"""Seconds of a training step by arithmetic, for where the compiler does not show its schedule."""

import math

from jax.sharding import AbstractMesh, Mesh

from jaxlingua.config import Config
from jaxlingua.model.presets import LlamaConfig, parameter_count
from jaxlingua.model.remat import POLICIES
from jaxlingua.plan.collectives import link_bytes, link_bytes_per_second
from jaxlingua.plan.kernels import AttentionShape, attention_cycles
from jaxlingua.plan.step_time import Collective, Estimate, StepTime
from jaxlingua.sharding.chips import Chip
from jaxlingua.sharding.memory import adapter_count

# Of the peak, what matrix products reach by the compiler's own count of cycles in LLaMA-2-7B steps (full
# FSDP; 64 chips, and 16 of v6e; libtpu 0.0.51).
MATMUL_SHARE = {"v4": 0.82, "v5e": 0.80, "v5p": 0.79, "v6e": 0.56}
HBM_SHARE = 0.85

# Numbers that one layer moves per token beside its matrix products, as multiples of 5 embed + 2 mlp. In the
# same schedules it is 2.5 (v4) to 6.2 (v5p).
_ELEMENTWISE_PASSES = 5
_OPTIMIZER_PASSES = 7  # fp32 weights, two moments: read and written; the gradient: read
_ATTENTION_BLOCK = 1024
_DECODINGS, _DECODED_BYTES = 2, 4  # in each micro-batch forward and backward; written in bf16 and read

TRUST = (
    "arithmetic without a schedule: matrix products at {share:.0%} of the peak, as in LLaMA-2-7B schedules; "
    "cal hides all collectives under compute, xla none; schedules took 1.1 to 1.3 times as long as cal says"
)


def roofline(
    config: Config, sizes: LlamaConfig, mesh: Mesh | AbstractMesh, chip: Chip, torus: tuple[int, ...]
) -> Estimate:
    """Seconds per training step from sizes, tokens and mesh alone.

    `cal` is what a step takes where every collective runs under compute, `xla` where none does. A collective
    of its own says no more than that it may be exposed.

    Args:
        torus: chips along each axis of a slice.
    """
    matmul = matmul_flops(config, sizes) / mesh.size / (chip.peak_tflops * 1e12 * MATMUL_SHARE[chip.name])
    compute = matmul + elementwise_bytes(config, sizes, mesh) / (chip.hbm_gb_per_second * 1e9 * HBM_SHARE)
    kernels = _attention_seconds(config, sizes, mesh, chip)
    collectives = _collectives(config, sizes, mesh, chip, torus)
    slices = mesh.size // math.prod(torus)
    micro_batches = _micro_batches(config)  # each sends its gradients
    sharded = mesh.shape["fsdp"] * mesh.shape["tensor"]
    gradients = micro_batches * (2 * _trained_count(sizes) // sharded) if slices > 1 else 0
    within = math.fsum(each.seconds for each in collectives)
    if slices > 1 and chip.dcn_gb_per_second:
        between = link_bytes("all-reduce", gradients, slices) / (chip.dcn_gb_per_second * 1e9)
        collectives += (
            Collective("all-reduce", "slices", slices, micro_batches, gradients, between, between),
        )
        gradients = 0
    waiting = math.fsum(each.seconds for each in collectives)
    beyond = max(0.0, max(within, waiting - within) - compute - kernels)
    return Estimate(
        method="roofline",
        trust=TRUST.format(share=MATMUL_SHARE[chip.name]),
        chip=chip.name,
        torus=torus,
        cal=StepTime(matmul, compute, kernels, waiting, beyond, compute + kernels + beyond),
        xla=StepTime(matmul, compute, kernels, waiting, waiting, compute + kernels + waiting),
        collectives=collectives,
        kernels=(),
        operations=(),
        unknown_loops=(),
        unknown_kernels=(),
        slice_exchange_bytes=gradients,
    )


def matmul_flops(config: Config, sizes: LlamaConfig) -> float:
    """Of all matrix products of weights in one step, on all chips, with those that remat repeats.

    The rows that are looked up in the embedding are no product. Attention is counted apart.
    """
    tokens = config.train.batch_rows * config.tokens.row_length_tokens
    layers = sizes.layers * sum(_layer_weights(sizes).values())
    again = sizes.layers * sum(_layer_weights(sizes)[name] for name in _repeated(sizes.remat))
    each = 6.0 if sizes.lora is None else 4.0  # frozen weights have no gradient
    needed = each * (layers + sizes.vocab_size * sizes.embed) + 6.0 * adapter_count(sizes)
    return tokens * (needed + 2.0 * again)


def elementwise_bytes(config: Config, sizes: LlamaConfig, mesh: Mesh | AbstractMesh) -> float:
    """HBM bytes per chip of the optimizer, of what layers do beside products, and of decoded codes."""
    sharded = mesh.shape["fsdp"] * mesh.shape["tensor"]
    tokens = config.train.batch_rows * config.tokens.row_length_tokens / mesh.size
    layer = _ELEMENTWISE_PASSES * (5 * sizes.embed + 2 * sizes.mlp)
    moved = 4.0 * _OPTIMIZER_PASSES * _trained_count(sizes) / sharded + 2.0 * tokens * sizes.layers * layer
    if sizes.lora is None or not sizes.lora.is_quantized:
        return moved
    decoded = sizes.layers * sum(_layer_weights(sizes).values()) / mesh.shape["tensor"]
    return moved + _DECODINGS * _micro_batches(config) * decoded * _DECODED_BYTES


def _trained_count(sizes: LlamaConfig) -> int:
    return parameter_count(sizes) if sizes.lora is None else adapter_count(sizes)


def _micro_batches(config: Config) -> int:
    batch_rows, micro_batch_rows = config.train.batch_rows, config.train.micro_batch_rows
    return 1 if micro_batch_rows == "auto" else batch_rows // micro_batch_rows


def _layer_weights(sizes: LlamaConfig) -> dict[str, int]:
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    widths = {"q": queries, "k": keys, "v": keys, "residual": queries}
    return {name: sizes.embed * width for name, width in widths.items()} | {
        name: sizes.embed * sizes.mlp for name in ("gate", "up", "down")
    }


def _repeated(remat: str) -> list[str]:
    """Products that the backward pass forms again; the last of a layer it never needs."""
    kept = POLICIES.get(remat)
    if kept is None:  # "none" and "dots" keep all of them
        return []
    return [name for name in ("q", "k", "v", "residual", "gate", "up") if name not in kept]


def _attention_seconds(config: Config, sizes: LlamaConfig, mesh: Mesh | AbstractMesh, chip: Chip) -> float:
    """Two products forward, once more where its output is not kept, and five backward."""
    length = config.tokens.row_length_tokens
    block = min(length, _ATTENTION_BLOCK)
    heads = max(config.train.batch_rows * sizes.heads // mesh.size, 1)
    forward, backward = (
        attention_cycles(AttentionShape(heads, length, sizes.head_dim, block, block, products), chip)
        for products in (2, 5)
    )
    is_kept = sizes.remat == "none" or "attention_out" in POLICIES.get(sizes.remat, ())  # "dots": no product
    times = 1 if is_kept else 2
    return sizes.layers * (times * forward + backward) / (chip.clock_ghz * 1e9)


def _collectives(
    config: Config, sizes: LlamaConfig, mesh: Mesh | AbstractMesh, chip: Chip, torus: tuple[int, ...]
) -> tuple[Collective, ...]:
    """Weights gathered in bf16, forward and backward; gradients summed; activations under `tensor`."""
    micro_batches = _micro_batches(config)
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    data = max(mesh.shape["data"] * math.prod(torus) // mesh.size, 1)  # of one slice
    weights, gradients = (2 * count // tensor for count in (parameter_count(sizes), _trained_count(sizes)))
    rows = config.train.batch_rows // micro_batches // (mesh.shape["data"] * fsdp)
    activations = 2 * rows * config.tokens.row_length_tokens * sizes.embed
    sums = 4 + sum(name in _repeated(sizes.remat) for name in ("residual",))
    planned = (
        ("all-gather", fsdp, 2 * micro_batches, weights),
        ("all-reduce", fsdp, micro_batches, gradients),
        ("all-reduce", data, micro_batches, gradients // fsdp),
        ("all-reduce", tensor, micro_batches * sizes.layers * sums, activations),
    )
    return tuple(
        _collective(kind, group, calls, size, chip, torus)
        for kind, group, calls, size in planned
        if group > 1
    )


def _collective(
    kind: str, group: int, calls: int, size: int, chip: Chip, torus: tuple[int, ...]
) -> Collective:
    seconds = link_bytes(kind, size, group) / link_bytes_per_second(kind, group, chip, torus)
    return Collective(kind, "unknown", group, calls, calls * size, calls * seconds, calls * seconds)
