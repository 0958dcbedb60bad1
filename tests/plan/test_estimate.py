"""Seconds of a step: each rule on a schedule written by hand."""

from dataclasses import replace

import pytest

from jaxlingua.plan.estimate import Estimate, estimate, mfu
from jaxlingua.sharding.chips import CHIPS, Chip
from jaxlingua.tracking import ModelSize
from tests.plan.schedules import GROUP_64, cycles, matmul, schedule_text

V5E = CHIPS["v5e"]  # 1.5 GHz; two links of 45 GB/s over 8 x 8 chips
HERTZ = 1.5e9
WEIGHTS = "bf16[4096,4096]{1,0:T(8,128)(2,1)}"
WEIGHTS_BYTES = 2 * 4096**2
GATHER_SECONDS = WEIGHTS_BYTES * 63 / 64 / 90e9
GATHER = (f"%weights = {WEIGHTS} all-gather(%p), channel_id=5, {GROUP_64}",)
REDUCE = f"%sum = {WEIGHTS} all-reduce(%g), channel_id=6, {GROUP_64}"


def of(*entry: str, **computations: tuple[str, ...]) -> Estimate:
    return estimate(schedule_text(*entry, **computations), V5E, (8, 8))


# ── compute ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_matrix_product_takes_what_the_compiler_counted_in_both_readings():
    found = of(matmul("product", 1_500_000), matmul("another", 3_000_000))
    for reading in (found.cal, found.xla):
        assert reading.matmul_seconds == pytest.approx(0.003)
        assert reading.compute_seconds == pytest.approx(0.003)
        assert reading.seconds == pytest.approx(0.003)


def test_elementwise_work_takes_its_bytes_at_85_percent_of_hbm_in_one_reading():
    large = "f32[8192,8192]{1,0:T(8,128)}"
    found = of(f"%x = {large} parameter(0)", f"%half = {large} multiply(%x, %x), {cycles(15_000_000)}")
    moved = 3 * 4 * 8192**2
    assert found.xla.compute_seconds == pytest.approx(0.010)
    assert found.cal.compute_seconds == pytest.approx(moved / (0.85 * 819e9))
    assert found.cal.matmul_seconds == 0


def test_elementwise_work_never_takes_longer_than_the_compiler_counted():
    large = "f32[8192,8192]{1,0:T(8,128)}"
    found = of(f"%x = {large} parameter(0)", f"%half = {large} multiply(%x, %x), {cycles(1_500)}")
    assert found.cal.compute_seconds == pytest.approx(1e-6)


def test_a_loop_takes_its_trips_and_a_loop_within_it_their_product():
    trips = ', backend_config={"known_trip_count":{"n":"%d"}}'
    found = of(
        "%layers = (s32[]) while(%p), condition=%less, body=%layer" + trips % 32,
        layer=(
            matmul("product", 1000),
            "%chunks = (s32[]) while(%p), condition=%less, body=%chunk" + trips % 4,
        ),
        chunk=(matmul("inner", 10), *GATHER),
        less=("%less = pred[] compare(%p, %p), direction=LT",),
    )
    assert found.cal.seconds == pytest.approx(32 * (1000 + 4 * 10) / HERTZ + 32 * 4 * GATHER_SECONDS)
    assert found.collectives[0].calls == 128
    assert found.collectives[0].bytes == 128 * WEIGHTS_BYTES
    assert {(each.name, each.calls) for each in found.operations} == {
        ("product", 32),
        ("inner", 128),
        ("weights", 128),
    }
    assert found.unknown_loops == ()


def test_a_loop_whose_trips_depend_on_data_is_counted_once_and_named():
    found = of(
        "%blocks.7 = (s32[]) while(%p), condition=%less, body=%block",
        block=(matmul("product", 1500),),
        less=("%less = pred[] compare(%p, %p), direction=LT",),
    )
    assert found.unknown_loops == ("blocks.7",)
    assert found.cal.seconds == pytest.approx(1e-6)


@pytest.mark.parametrize(
    "branches",
    ["branch_computations={%short, %long}", "true_computation=%short, false_computation=%long"],
)
def test_of_a_choice_the_longest_branch_counts_with_its_collectives_alone(branches):
    found = of(
        f"%either = f32[] conditional(%p, %p, %p), {branches}",
        short=(matmul("less", 1500), *GATHER),
        long=(matmul("more", 3000), REDUCE),
    )
    assert found.cal.compute_seconds == pytest.approx(2e-6)
    assert [each.kind for each in found.collectives] == ["all-reduce"]


def test_a_call_runs_what_it_calls():
    found = of("%c = f32[] call(%p), to_apply=%called", called=(matmul("product", 1500),))
    assert found.cal.seconds == pytest.approx(1e-6)


# ── collectives ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_collective_on_its_own_is_wholly_exposed():
    found = of(matmul("before", 1_500_000), REDUCE, matmul("after", 1_500_000))
    (collective,) = found.collectives
    assert (collective.kind, collective.how, collective.group, collective.calls) == (
        "all-reduce",
        "sync",
        64,
        1,
    )
    assert collective.exposed_seconds == collective.seconds == pytest.approx(2 * GATHER_SECONDS)
    assert found.cal.seconds == pytest.approx(0.002 + 2 * GATHER_SECONDS)


def fused_gather(cover_cycles: int) -> Estimate:
    """A gather that the compiler fused into a matrix product, as three instructions with one channel."""
    return of(
        "%async-collective-start = f32[] fusion(%p), calls=%begin",
        f"%fusion.3 = {WEIGHTS} fusion(%p), calls=%async_collective_fusion.3, {cycles(cover_cycles)}",
        f"%async-collective-done = {WEIGHTS} fusion(%p), calls=%end",
        begin=GATHER,
        **{"async_collective_fusion.3": (*GATHER, matmul("product", 1))},
        end=GATHER,
    )


def test_a_collective_under_a_matrix_product_is_hidden():
    found = fused_gather(cover_cycles=int(2 * GATHER_SECONDS * HERTZ))
    (collective,) = found.collectives
    assert (collective.how, collective.calls, collective.bytes) == ("async", 1, WEIGHTS_BYTES)
    assert collective.seconds == pytest.approx(GATHER_SECONDS)
    assert collective.exposed_seconds == 0
    assert found.cal.seconds == pytest.approx(2 * GATHER_SECONDS, rel=1e-5)


def test_what_a_matrix_product_does_not_cover_of_a_collective_is_exposed():
    found = fused_gather(cover_cycles=int(GATHER_SECONDS * HERTZ / 4))
    (collective,) = found.collectives
    assert collective.exposed_seconds == pytest.approx(GATHER_SECONDS * 3 / 4, rel=1e-4)
    assert found.cal.seconds == pytest.approx(GATHER_SECONDS, rel=1e-4)
    assert "all-gather exposed" in {each.kind for each in found.operations}


BEGUN = f"%g-start = (bf16[64,4096]{{1,0}}, {WEIGHTS}) all-gather-start(%p), channel_id=5, {GROUP_64}"
ENDED = f"%g-done = {WEIGHTS} all-gather-done(%g-start)"


def test_a_collective_begun_and_ended_apart_is_covered_by_what_lies_between():
    between = int(GATHER_SECONDS * HERTZ / 2)
    found = of(matmul("before", 10**6), BEGUN, matmul("between", between), ENDED, matmul("after", 10**6))
    (collective,) = found.collectives
    assert collective.exposed_seconds == pytest.approx(GATHER_SECONDS / 2, rel=1e-4)


def test_a_collective_that_is_begun_and_ended_by_wrapping_it_is_covered_alike():
    """Updates stand between start and end where the compiler moves it along step by step."""
    between = int(GATHER_SECONDS * HERTZ / 4)
    found = of(
        f"%s = (f32[], {WEIGHTS}) async-start(%p), calls=%wrapped",
        matmul("between", between),
        f"%u = (f32[], {WEIGHTS}) async-update(%s)",
        matmul("more", between),
        f"%d = {WEIGHTS} async-done(%u)",
        wrapped=GATHER,
    )
    (collective,) = found.collectives
    assert (collective.kind, collective.how) == ("all-gather", "async")
    assert collective.exposed_seconds == pytest.approx(GATHER_SECONDS / 2, rel=1e-4)


def test_an_all_reduce_fused_with_the_cut_of_its_result_is_half_the_work_and_exposed():
    fusion = f"%rs = bf16[64,4096]{{1,0}} fusion(%p), calls=%all-reduce-scatter.1, {cycles(1500)}"
    found = of(fusion, **{"all-reduce-scatter.1": (REDUCE,)})
    (collective,) = found.collectives
    assert (collective.kind, collective.how) == ("reduce-scatter", "sync(fused)")
    assert collective.exposed_seconds == collective.seconds == pytest.approx(GATHER_SECONDS)


def test_a_step_takes_no_less_than_its_collectives_one_after_another():
    """Two gathers that both run under one product share the links."""
    second = BEGUN.replace("g-start", "h-start"), ENDED.replace("g-", "h-")
    cover = matmul("cover", int(GATHER_SECONDS * HERTZ * 1.1))
    found = of(BEGUN, second[0], cover, ENDED, second[1])
    assert found.cal.exposed_seconds == 0
    assert found.cal.seconds == found.cal.collective_seconds == pytest.approx(2 * GATHER_SECONDS)


def exchanged(kind: str, *between: str, slices: str = "{1,2}", chip: Chip = V5E) -> Estimate:
    """An array that is handed over to the hosts, and what comes back; written as the compiler writes it."""
    about = (
        'is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",'
        '_xla_host_transfer_rendezvous="all-reduce.5_0",'
        f'_xla_megascale_target="{slices}x{{0:3}}",_xla_megascale_transfer_type="{kind}"}}'
    )
    entry = (
        matmul("before", 1_500_000),
        f"%send.2 = ({WEIGHTS}, u32[], token[]) send(%p, %token), channel_id=6, {about}",
        f"%recv.2 = ({WEIGHTS}, u32[], token[]) recv(%token), channel_id=5, {about}",
        *between,
        "%send-done.2 = token[] send-done(%send.2), channel_id=6",
        f"%recv-done.2 = ({WEIGHTS}, token[]) recv-done(%recv.2), channel_id=5",
        matmul("after", 1_500_000),
    )
    return estimate(schedule_text(*entry), chip, (8, 8))


@pytest.mark.parametrize(
    ("kind", "slices", "count", "times"),
    [
        ("ALL_REDUCE", "{1,2}", 2, 1),  # each slice sends half twice
        ("ALL_REDUCE", "{1,2,3,4}", 4, 2 * 3 / 4),
        ("ALL_REDUCE", "{1:8}", 8, 2 * 7 / 8),
        ("ALL_GATHER", "{1,2,3,4}", 4, 3),  # what one chip hands over goes to three others
        ("REDUCE_SCATTER", "{1,2,3,4}", 4, 3 / 4),
    ],
)
def test_an_exchange_between_slices_takes_the_chips_part_of_the_network(kind, slices, count, times):
    """v5e: 6.4 Tbit/s for the 256 chips of a pod are 3.125 GB/s for each."""
    found = exchanged(kind, slices=slices)
    (collective,) = found.collectives
    seconds = times * WEIGHTS_BYTES / 3.125e9
    assert (collective.how, collective.group, collective.calls) == ("slices", count, 1)
    assert collective.kind == kind.lower().replace("_", "-")
    assert collective.seconds == collective.exposed_seconds == pytest.approx(seconds)
    assert found.cal.seconds == pytest.approx(0.002 + seconds)
    assert found.slice_exchange_bytes == 0


def test_an_exchange_between_slices_runs_under_what_lies_between_and_beside_the_links_of_a_slice():
    seconds = WEIGHTS_BYTES / 3.125e9
    found = exchanged("ALL_REDUCE", matmul("cover", int(seconds * HERTZ / 4)), REDUCE)
    (between,) = (each for each in found.collectives if each.how == "slices")
    assert between.exposed_seconds == pytest.approx(seconds * 3 / 4, rel=1e-4)
    hidden = exchanged("ALL_REDUCE", matmul("cover", int(2 * seconds * HERTZ)))
    assert hidden.cal.exposed_seconds == 0
    assert hidden.cal.seconds == pytest.approx(0.002 + 2 * seconds, rel=1e-4)


def test_between_slices_of_a_chip_whose_network_is_not_published_bytes_are_told_and_no_time():
    found = exchanged("ALL_REDUCE", chip=CHIPS["v4"])
    assert (found.collectives, found.slice_exchange_bytes) == ((), WEIGHTS_BYTES)


def test_what_is_handed_over_for_other_slices_in_an_unknown_way_is_counted_in_bytes_and_takes_no_time():
    sent = (
        f"%send.2 = ({WEIGHTS}, u32[], token[]) send(%p, %token), channel_id=6, is_host_transfer=true, "
        'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}'
    )
    found = of(
        matmul("product", 1500),
        '%layers = (s32[]) while(%p), condition=%less, body=%layer, config={"known_trip_count":{"n":"3"}}',
        layer=(sent,),
        less=("%less = pred[] compare(%p, %p), direction=LT",),
    )
    assert found.slice_exchange_bytes == 3 * WEIGHTS_BYTES
    assert found.cal.seconds == pytest.approx(1e-6)
    assert found.collectives == ()


# ── kernels ──────────────────────────────────────────────────────────────────────────────────────────────────

KERNEL = (
    "%splash_mha_fwd.{n} = bf16[1,4,1024,128]{{3,2,1,0}} custom-call(%p), "
    'custom_call_target="tpu_custom_call", operand_layout_constraints={{bf16[1,4,1024,128]{{3,2,1,0}}}}'
)


def test_a_kernel_counts_on_its_own_and_within_a_fusion_and_covers_collectives():
    """A row of 1,024 in blocks of 512: 3 of 4 are active."""
    call = 4 * (3 * 2 * (2 * 512 * 512 * 128) / 131072 / 0.80 + 4 * 300 + 2 * 610)
    found = of(
        KERNEL.format(n=1),
        "%f = f32[] fusion(%p), calls=%called",
        '%layers = (s32[]) while(%p), condition=%less, body=%layer, config={"known_trip_count":{"n":"8"}}',
        called=(KERNEL.format(n=2),),
        layer=(KERNEL.format(n=3),),
        less=("%less = pred[] compare(%p, %p), direction=LT",),
    )
    (kernel,) = found.kernels
    assert (kernel.name, kernel.calls) == ("splash_mha_fwd", 10)
    assert kernel.seconds == pytest.approx(10 * call / HERTZ)
    assert found.cal.kernel_seconds == found.cal.seconds == pytest.approx(kernel.seconds)
    assert found.cal.compute_seconds == 0

    (collective,) = of(BEGUN, KERNEL.format(n=1), ENDED).collectives
    assert collective.exposed_seconds == pytest.approx(GATHER_SECONDS - call / HERTZ)


def test_a_kernel_of_which_nothing_is_known_is_named_and_not_counted():
    line = '%ragged_dot.4 = bf16[64,64]{1,0} custom-call(%p), custom_call_target="tpu_custom_call"'
    found = of(matmul("product", 1500), line)
    assert found.unknown_kernels == ("ragged_dot",)
    assert found.kernels[0].seconds is None
    assert found.cal.seconds == pytest.approx(1e-6)


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────


def test_operations_come_longest_first_with_the_time_their_products_need_at_least():
    product = "%inner = bf16[64,256]{1,0} convolution(%a, %b), dim_labels=bf_io->bf"
    factors = "%a = bf16[64,128]{1,0} parameter(0)", "%b = bf16[128,256]{1,0} parameter(1)"
    found = of(
        matmul("short", 10),
        f'%long = bf16[64,256]{{1,0}} fusion(%p), calls=%called, metadata={{op_name="layers/mlp"}}, {cycles(64)}',
        called=(*factors, product),
    )
    longest = found.operations[0]
    assert [each.name for each in found.operations] == ["long", "short"]
    assert (longest.kind, longest.op_name, longest.calls) == ("matmul", "layers/mlp", 1)
    assert longest.seconds == pytest.approx(64 / HERTZ)
    assert longest.ideal_seconds == pytest.approx(2 * 64 * 128 * 256 / 131072 / HERTZ)


def test_an_estimate_says_how_it_was_made_and_how_far_to_trust_it():
    found = of(matmul("product", 10))
    assert (found.method, found.chip, found.torus) == ("schedule", "v5e", (8, 8))
    assert found.trust == (
        "against three published v5e throughputs the reading cal was 3 to 25 % too slow; "
        "do not rank two programs by less than 10 %, nor where cal and xla disagree"
    )

    elsewhere = estimate(schedule_text(matmul("product", 10)), CHIPS["v5p"], (2, 2, 4)).trust
    assert "too slow, and for v5p there was nothing to compare with; do not rank" in elsewhere


def test_mfu_is_six_operations_per_parameter_and_token_over_the_peak_and_four_of_frozen_ones():
    llama = ModelSize(6_738_000_000, layers=32, heads=32, head_dim=128)
    assert mfu(1.0, llama, 262_144, 64, V5E) == pytest.approx(0.8406, abs=1e-4)
    assert mfu(2.0, llama, 262_144, 64, V5E) == pytest.approx(0.4203, abs=1e-4)
    with_adapters = replace(llama, adapters=40_000_000)
    assert mfu(1.0, with_adapters, 262_144, 64, V5E) == pytest.approx(
        0.8406 * (4 + 6 * 40 / 6738) / 6, abs=1e-4
    )
