"""Seconds of a step by arithmetic: each part by hand."""

from dataclasses import replace

import pytest
from jax.sharding import AbstractMesh

from jaxlingua.config import Config
from jaxlingua.model.lora import PROJECTIONS, Lora
from jaxlingua.model.presets import PRESETS, LlamaConfig, parameter_count
from jaxlingua.plan.estimate import Estimate, mfu, roofline
from jaxlingua.plan.roofline import HBM_SHARE, MATMUL_SHARE, elementwise_bytes, matmul_flops
from jaxlingua.sharding.chips import CHIPS
from jaxlingua.sharding.memory import adapter_count
from jaxlingua.train.run import model_size

V5E = CHIPS["v5e"]
SIZES = replace(PRESETS["llama2-7b"], compute_dtype="bfloat16", remat="minimal")
WEIGHTS_BYTES = 2 * parameter_count(SIZES)
LAYER_WEIGHTS = 4 * 4096 * 4096 + 3 * 4096 * 11008
TOKENS = 128 * 2048


def config(row_length_tokens: int = 2048, **train: int) -> Config:
    return Config.model_validate(
        {
            "data": {"sources": {"cldr": {"kind": "cldr", "languages": ["eng_Latn", "deu_Latn"]}}},
            "tokens": {"row_length_tokens": row_length_tokens},
            "stages": [{"name": "one", "mixture": {"cldr": {}}, "steps": 10}],
            "train": {"batch_rows": 128} | train,
        }
    )


def of(
    data: int = 1, fsdp: int = 64, tensor: int = 1, *, sizes: LlamaConfig = SIZES, **train: int
) -> Estimate:
    mesh = AbstractMesh((data, fsdp, tensor), ("data", "fsdp", "tensor"))
    return roofline(config(**train), sizes, mesh, V5E, (8, 8))


def test_products_are_two_operations_forward_and_four_backward_per_weight_and_token():
    """A little less than 6N: rows of the embedding are looked up, not multiplied."""
    weights = 32 * LAYER_WEIGHTS + 32000 * 4096
    assert matmul_flops(config(), SIZES) == 6 * weights * TOKENS
    assert weights == pytest.approx(parameter_count(SIZES), rel=0.03)
    assert of().cal.matmul_seconds == pytest.approx(
        6 * weights * TOKENS / 64 / (197e12 * MATMUL_SHARE["v5e"])
    )


def test_frozen_weights_have_no_gradient_and_codes_are_decoded_in_every_pass():
    lora = Lora(16, 32.0, tuple(PROJECTIONS), base="bfloat16")
    sizes = replace(SIZES, lora=lora)
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert adapter_count(sizes) == model_size(sizes).adapters == adapters
    weights = 32 * LAYER_WEIGHTS + 32000 * 4096
    assert matmul_flops(config(), sizes) == (4 * weights + 6 * adapters) * TOKENS
    mesh = AbstractMesh((1, 64, 1), ("data", "fsdp", "tensor"))
    of_all, numbers = elementwise_bytes(config(), SIZES, mesh), elementwise_bytes(config(), sizes, mesh)
    assert of_all - numbers == pytest.approx(7 * 4 * (parameter_count(SIZES) - adapters) / 64)
    codes = replace(sizes, lora=replace(lora, base="nf4"))
    for rows, passes in ((128, 1), (64, 2)):
        decoded = elementwise_bytes(config(micro_batch_rows=rows), codes, mesh) - numbers
        assert decoded == pytest.approx(passes * 2 * 4 * 32 * LAYER_WEIGHTS)


@pytest.mark.parametrize(
    ("remat", "again"),
    [
        ("none", 0),
        ("minimal", 0),
        ("dots", 0),
        ("save_mlp", 4 * 4096 * 4096),  # q, k, v and the output projection
        ("save_qkv", 4096 * 4096 + 2 * 4096 * 11008),
        ("full", 4 * 4096 * 4096 + 2 * 4096 * 11008),  # all but the last product, which nothing needs
    ],
)
def test_remat_repeats_the_forward_products_of_what_it_does_not_keep(remat, again):
    kept = matmul_flops(config(), SIZES)
    repeated = matmul_flops(config(), replace(SIZES, remat=remat))
    assert repeated - kept == 2 * 32 * again * TOKENS


def test_attention_is_repeated_where_its_output_is_not_kept():
    kept, repeated = (of(sizes=replace(SIZES, remat=name)).cal.kernel_seconds for name in ("minimal", "full"))
    assert kept < repeated < 1.5 * kept
    assert of(sizes=replace(SIZES, remat="save_attention")).cal.kernel_seconds == kept
    assert of(sizes=replace(SIZES, remat="save_mlp")).cal.kernel_seconds == repeated


def test_the_optimizer_passes_over_its_share_of_weights_and_moments():
    no_layers = replace(SIZES, layers=1)
    mesh = AbstractMesh((1, 64, 1), ("data", "fsdp", "tensor"))
    moved = elementwise_bytes(config(), no_layers, mesh)
    activations = 2 * (TOKENS / 64) * 5 * (5 * 4096 + 2 * 11008)
    assert moved == pytest.approx(7 * 4 * parameter_count(no_layers) / 64 + activations)
    compute = of(sizes=no_layers).cal
    assert compute.compute_seconds - compute.matmul_seconds == pytest.approx(moved / (819e9 * HBM_SHARE))


def test_weights_are_gathered_twice_and_their_gradients_summed_once():
    gather, reduce = of().collectives
    assert (gather.kind, gather.group, gather.calls, gather.bytes) == ("all-gather", 64, 2, 2 * WEIGHTS_BYTES)
    assert gather.seconds == pytest.approx(2 * WEIGHTS_BYTES * 63 / 64 / 90e9)
    assert (reduce.kind, reduce.group, reduce.bytes) == ("all-reduce", 64, WEIGHTS_BYTES)
    assert reduce.seconds == pytest.approx(2 * WEIGHTS_BYTES * 63 / 64 / 90e9)


def test_micro_batches_gather_and_sum_each_for_itself():
    once, twice = of(), of(micro_batch_rows=64)
    assert twice.cal.collective_seconds == pytest.approx(2 * once.cal.collective_seconds)


def test_gradients_of_copies_are_summed_in_shards():
    shared = of(data=8, fsdp=8).collectives[2]
    assert (shared.kind, shared.group, shared.bytes) == ("all-reduce", 8, WEIGHTS_BYTES // 8)


def test_tensor_parallel_layers_sum_activations_four_times_and_once_more_for_remat():
    summed = of(fsdp=16, tensor=4).collectives[-1]
    assert (summed.kind, summed.group, summed.calls) == ("all-reduce", 4, 4 * 32)
    assert summed.bytes == 4 * 32 * (2 * 8 * 2048 * 4096)
    full = of(fsdp=16, tensor=4, sizes=replace(SIZES, remat="full")).collectives[-1]
    assert full.calls == 5 * 32


def test_one_reading_hides_every_collective_and_the_other_none():
    found = of()
    busy = found.cal.compute_seconds + found.cal.kernel_seconds
    assert found.cal.seconds == pytest.approx(busy)
    assert found.cal.exposed_seconds == 0
    assert found.xla.seconds == pytest.approx(busy + found.xla.collective_seconds)
    slow = of(micro_batch_rows=64, row_length_tokens=1024)
    assert slow.cal.seconds == pytest.approx(slow.cal.collective_seconds), "no shorter than its collectives"


def test_what_goes_between_slices_is_the_shard_of_the_gradients():
    assert of().slice_exchange_bytes == 0
    mesh = AbstractMesh((2, 64, 1), ("data", "fsdp", "tensor"))
    found = roofline(config(), SIZES, mesh, V5E, (8, 8))
    assert {each.group for each in found.collectives if each.how != "slices"} == {64}
    (between,) = (each for each in found.collectives if each.how == "slices")
    assert (between.group, between.bytes) == (2, WEIGHTS_BYTES // 64)
    assert between.seconds == pytest.approx(WEIGHTS_BYTES / 64 / 3.125e9)
    halves = roofline(config(micro_batch_rows=64), SIZES, mesh, V5E, (8, 8)).collectives[-1]
    assert (halves.how, halves.calls, halves.seconds) == ("slices", 2, pytest.approx(2 * between.seconds))
    unknown = roofline(config(), SIZES, mesh, replace(V5E, dcn_gb_per_second=None), (8, 8))
    assert unknown.slice_exchange_bytes == WEIGHTS_BYTES // 64
    assert {each.how for each in unknown.collectives} == {"unknown"}


def test_a_roofline_says_that_it_is_one():
    found = of()
    assert (found.method, found.chip, found.torus) == ("roofline", "v5e", (8, 8))
    assert found.trust == (
        "arithmetic without a schedule: matrix products at 80% of the peak, as in LLaMA-2-7B schedules; "
        "cal hides all collectives under compute, xla none; schedules took 1.1 to 1.3 times as long as cal says"
    )
    assert {each.how for each in found.collectives} == {"unknown"}


def test_llama_2_7b_comes_near_to_what_its_schedules_take():
    """v5e:8x8, everything kept: the schedule says 1.39 s, 60 % of the peak."""
    seconds = of().cal.seconds
    assert 1.39 / 1.3 < seconds < 1.39
    assert mfu(seconds, model_size(SIZES), TOKENS, 64, V5E) == pytest.approx(0.8406 / seconds, abs=1e-3)
