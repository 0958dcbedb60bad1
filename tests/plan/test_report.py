"""What a plan tells: sums of a plan whose figures are round, as a table and as JSON."""

import json
from dataclasses import replace

import pytest

from jaxlingua.config import StageConfig
from jaxlingua.plan.estimate import Collective, Estimate, StepTime
from jaxlingua.plan.report import Plan, as_json, as_table
from jaxlingua.plan.store import Compiled
from jaxlingua.plan.topology import topology_of
from jaxlingua.sharding.memory import Memory
from jaxlingua.tracking import ModelSize
from jaxlingua.train.fit import Remedy

GIB = 2**30
TIME = StepTime(
    matmul_seconds=1.5,
    compute_seconds=1.75,
    kernel_seconds=0.125,
    collective_seconds=0.5,
    exposed_seconds=0.125,
    seconds=2.0,
)
ESTIMATE = Estimate(
    method="schedule",
    trust="so far and no further",
    chip="v5e",
    torus=(8, 8),
    cal=TIME,
    xla=replace(TIME, compute_seconds=2.25, seconds=2.5),
    collectives=(
        Collective("all-reduce", "sync", 64, 128, 12 * GIB, 0.25, 0.125),
        Collective("all-gather", "async", 64, 1384, 22 * GIB, 0.25, 0.0),
    ),
    kernels=(),
    operations=(),
    unknown_loops=("while.7",),
    unknown_kernels=("mine",),
    slice_exchange_bytes=0,
)
COMPILED = Compiled(
    fits=True,
    peak=4 * GIB,
    arguments=GIB,
    temporaries=3 * GIB,
    outputs=GIB,
    aliased=GIB,
    code=0,
    seconds=61.0,
    text="HloModule",
    no_text="",
)
MEMORY = Memory(
    parameters=GIB // 2, optimizer=GIB, gradients=GIB // 2, activations=GIB, layer=GIB // 4, logits=GIB // 8
)


def stage(name: str, **length: object) -> StageConfig:
    return StageConfig(name=name, mixture={"phrases": {}}, **length)


PLAN = Plan(
    config="seven.yaml",
    topology=topology_of("v5e:8x8"),
    mesh={"data": 1, "fsdp": 64, "tensor": 1},
    batch_rows=128,
    micro_batches=1,
    row_length_tokens=2000,
    size=ModelSize(7_000_000_000, 32, 32, 128),
    memory=MEMORY,
    compiled=COMPILED,
    is_stored=False,
    estimate=ESTIMATE,
    remedies=(),
    stages=(stage("first", steps=600), stage("second", steps=300)),
    versions={"jax": "0.10.2", "libtpu": "0.0.51"},
)
COUNTED = replace(PLAN, estimate=replace(ESTIMATE, unknown_loops=(), unknown_kernels=()))
TOO_LARGE = replace(
    PLAN,
    compiled=replace(COMPILED, fits=False, peak=20 * GIB, text="", no_text="it does not fit"),
    estimate=None,
    remedies=(
        Remedy(change="train.micro_batch_rows=64", total_bytes=12 * GIB, extra_compute=0.0, note=""),
        Remedy(change="train.remat=full", total_bytes=10 * GIB, extra_compute=0.33, note="slower"),
    ),
)


def test_the_sums_of_a_plan():
    """256,000 tokens in 2 s on 64 chips of 197 TFLOP/s; 900 steps."""
    told = as_json(PLAN)
    assert told["fits"] is True
    assert told["peak_hbm_gib"] == 4.0
    assert told["hbm_gib"] == 15.75
    assert told["step_seconds"] == {"cal": 2.0, "xla": 2.5}
    operations = 6 * 7e9 * 256_000
    assert told["estimated_mfu"]["cal"] == round(operations / (64 * 197e12 * 2), 4)
    assert told["estimated_mfu"]["xla"] == round(operations / (64 * 197e12 * 2.5), 4)
    assert told["tokens_per_second_per_chip"] == {"cal": 2000.0, "xla": 1600.0}
    hours = told["chip_hours"]
    assert hours["steps"] == 900
    assert hours["run"] == {"cal": 900 * 2 * 64 / 3600, "xla": 900 * 2.5 * 64 / 3600}
    assert hours["per_1000_steps"]["cal"] == round(1000 * 2 * 64 / 3600, 2)
    assert hours["per_billion_tokens"]["cal"] == round(1e9 / 2000 / 3600, 2)
    assert told["memory"]["by_arithmetic_gib"]["optimizer"] == 1.0
    assert told["memory"]["arithmetic_total_gib"] == 3.25
    assert told["not_counted"] == ["all but one trip of loop while.7", "kernel mine"]
    assert told["collectives"][0]["exposed_seconds"] == 0.125


def test_a_plan_that_fits_has_these_keys_and_one_that_does_not_has_the_same():
    for plan in (PLAN, TOO_LARGE):
        told = json.loads(json.dumps(as_json(plan)))
        assert list(told) == [
            *("fits", "peak_hbm_gib", "hbm_gib", "step_seconds", "estimated_mfu"),
            *("is_lower_bound", "method", "trust"),
            *("tokens_per_second_per_chip", "chip_hours", "config", "topology", "mesh", "batch_rows"),
            *("micro_batches", "row_length_tokens", "parameters", "adapters", "memory", "time"),
            *("collectives", "kernels"),
            *("longest_operations", "not_counted", "remedies", "no_schedule", "compile_seconds", "is_stored"),
            "versions",
        ]
        for readings in ("step_seconds", "estimated_mfu", "tokens_per_second_per_chip"):
            assert list(told[readings]) == ["cal", "xla"]


def test_a_step_that_does_not_fit_has_no_time_but_remedies():
    told = as_json(TOO_LARGE)
    assert told["fits"] is False
    assert told["peak_hbm_gib"] == 20.0
    assert told["step_seconds"] == told["estimated_mfu"] == {"cal": None, "xla": None}
    assert told["chip_hours"]["run"] == {"cal": None, "xla": None}
    assert told["remedies"] == [
        {"change": "train.micro_batch_rows=64", "total_gib": 12.0, "extra_compute": 0.0, "note": ""},
        {"change": "train.remat=full", "total_gib": 10.0, "extra_compute": 0.33, "note": "slower"},
    ]


def test_a_program_that_compiles_but_is_larger_than_the_chip_does_not_fit():
    sentence = "no two changes are enough, the least is 15.90 GiB with train.remat=full; take more chips"
    large = replace(PLAN, compiled=replace(COMPILED, peak=16 * GIB), no_remedy=sentence)
    assert as_json(large)["fits"] is False
    assert "DOES NOT FIT: 0.25 GiB too many" in as_table(large)
    assert f"by arithmetic {sentence}" in as_table(large).splitlines()


def test_the_hours_of_a_run_are_not_guessed_where_a_stage_is_given_in_epochs():
    open_ended = replace(PLAN, stages=(stage("first", steps=600), stage("second", epochs=3.0)))
    hours = as_json(open_ended)["chip_hours"]
    assert (hours["steps"], hours["run"]) == (None, {"cal": None, "xla": None})
    assert hours["per_1000_steps"]["cal"] == 35.56
    assert "chip-hours of the run" not in as_table(open_ended)
    assert "how many steps the run takes is known with its data only: a stage is given in epochs" in as_table(
        open_ended
    )


def test_the_table_of_a_plan_that_fits():
    assert as_table(COUNTED).splitlines() == [
        "seven.yaml on v5e:8x8 (64 chips): data=1 fsdp=64 tensor=1",
        "7,000,000,000 parameters; steps of 128 rows of 2,000 tokens",
        "",
        "memory per chip, GiB",
        "  parameters          0.500",
        "  optimizer            1.00",
        "  gradients           0.500",
        "  activations          1.00",
        "  layer               0.250",
        "  logits              0.125",
        "by arithmetic          3.25",
        "by the compiler, exactly: arguments 1.00, temporaries 3.00, peak 4.00 of 15.75",
        "FITS, 11.75 GiB to spare",
        "",
        "one step                             cal    xla",
        "  compute, s                        1.75   2.25",
        "  kernels, s                       0.125  0.125",
        "  exposed collectives, s           0.125  0.125",
        "seconds                             2.00   2.50",
        "MFU (6N), %                         42.6   34.1",
        "tokens per second per chip         2,000  1,600",
        "chip-hours per 1,000 steps          35.6   44.4",
        "chip-hours per billion tokens        139    174",
        "chip-hours of the run's 900 steps   32.0   40.0",
        "(cal: the compiler's cycles for matmuls, bytes at 85 % of HBM bandwidth for the rest; xla: its cycles for everything)",
        "",
        "collectives    how  chips  calls   GiB  seconds  exposed",
        "all-reduce    sync     64    128  12.0    0.250    0.125",
        "all-gather   async     64  1,384  22.0    0.250        0",
        "",
        "memory is exact, the compiler's own; time: so far and no further",
        "compiled in 1 min 01 s with jax 0.10.2, libtpu 0.0.51",
    ]


@pytest.mark.parametrize("missing", [{"unknown_loops": ("while.7",)}, {"unknown_kernels": ("mine",)}])
def test_where_work_is_not_counted_the_figures_say_that_they_are_bounds(missing: dict):
    plan = replace(PLAN, estimate=replace(COUNTED.estimate, **missing))
    start = as_table(plan).splitlines().index("seconds, at least                             2.00   2.50")
    assert as_table(plan).splitlines()[start + 1 : start + 6] == [
        "MFU (6N), %, at most                          42.6   34.1",
        "tokens per second per chip, at most          2,000  1,600",
        "chip-hours per 1,000 steps, at least          35.6   44.4",
        "chip-hours per billion tokens, at least        139    174",
        "chip-hours of the run's 900 steps, at least   32.0   40.0",
    ]
    told = (
        "so far and no further; work is not counted, so seconds and chip-hours are at least, MFU and tokens "
        "per second at most"
    )
    assert as_json(plan)["trust"].endswith(told)
    assert as_json(plan)["is_lower_bound"] is True
    assert as_json(COUNTED)["is_lower_bound"] is False
    assert as_json(TOO_LARGE)["is_lower_bound"] is False


def test_what_is_not_counted_is_named():
    assert "\nnot counted: all but one trip of loop while.7, kernel mine\n" in as_table(PLAN)


def test_the_table_of_a_plan_that_does_not_fit():
    lines = as_table(TOO_LARGE).splitlines()
    assert lines[11:] == [
        "by the compiler: 20.0 wanted of 15.75",
        "DOES NOT FIT: 4.25 GiB too many",
        "cheapest changes, by arithmetic:",
        "  change                     GiB per chip  more arithmetic",
        "  train.micro_batch_rows=64          12.0             none",
        "  train.remat=full                   10.0             33 %  slower",
        "",
        "memory is exact, the compiler's own",
        "compiled in 1 min 01 s with jax 0.10.2, libtpu 0.0.51",
    ]


def test_a_roofline_is_marked_as_one():
    rough = replace(
        PLAN,
        compiled=replace(COMPILED, text="", no_text="INTERNAL: RET_CHECK failure"),
        estimate=replace(ESTIMATE, method="roofline", trust="a bound"),
    )
    assert "one step (ROOFLINE, no schedule)" in as_table(rough)
    assert "bytes at 85 %" not in as_table(rough)
    told = as_json(rough)
    assert (told["method"], told["no_schedule"]) == ("roofline", "INTERNAL: RET_CHECK failure")


@pytest.mark.parametrize(("slices", "unknown_bytes"), [("1", 0), ("2", 0), ("2", GIB // 4)])
def test_whether_what_goes_between_slices_is_in_the_time_is_told(slices: str, unknown_bytes: int):
    sent = replace(ESTIMATE, slice_exchange_bytes=unknown_bytes)
    told = as_table(replace(PLAN, topology=topology_of("v5e:8x8", slices), estimate=sent))
    is_left_out = unknown_bytes > 0
    assert ("kernel mine, 0.250 GiB per chip between slices" in told) == is_left_out
    assert ("what goes between slices is not in the estimate of time" in told) == is_left_out
    assert ("between slices: the published bandwidth" in told) == (slices == "2" and not is_left_out)


def test_a_plan_that_was_stored_and_micro_batches_are_told():
    plan = replace(PLAN, is_stored=True, micro_batches=4)
    assert "as stored; compiled then in 1 min 01 s with jax 0.10.2, libtpu 0.0.51" in as_table(plan)
    assert "steps of 128 rows of 2,000 tokens in 4 micro-batches" in as_table(plan)
    assert as_json(plan)["is_stored"] is True
