"""Seconds of a training step, estimated from the schedule of the compiled program.

Three parts are added up. Compute: every instruction for which the compiler counted cycles, loop bodies times
their trips. Kernels: Pallas kernels, of which attention alone is known. Exposed: what collectives take beyond
the compute under which they run.

There are two readings of compute. `xla` takes the compiler's cycles throughout. `cal` takes them for matrix
products only and for the rest the bytes at 85 % of what HBM can do, since the compiler puts elementwise work
1.25 to 4 times slower than HBM allows. It is the better guess and `xla` the careful one.
"""

import math
from dataclasses import dataclass
from typing import Literal

from jaxlingua.plan.hlo import parse
from jaxlingua.plan.ledger import Collective, Cycles, Kernel, Ledger, Operation, walk
from jaxlingua.sharding.chips import Chip

TRUST = (
    "against three published v5e throughputs the reading cal was 3 to 25 % too slow; "
    "do not rank two programs by less than 10 %, nor where cal and xla disagree"
)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step in one reading.

    Args:
        matmul_seconds: fusions that hold a matrix product; part of `compute_seconds`.
        compute_seconds: everything but Pallas kernels and waiting.
        collective_seconds: all collectives, hidden or not. They share the links: a step takes no less.
        exposed_seconds: what of them no compute hides.
        seconds: of the step.
    """

    matmul_seconds: float
    compute_seconds: float
    kernel_seconds: float
    collective_seconds: float
    exposed_seconds: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a step takes, and how far that can be trusted.

    Args:
        method: "schedule" of the compiler, or "roofline" where there is none.
        torus: chips along each axis of a slice.
        operations: the longest first.
        unknown_loops: loops whose trips depend on data; counted once.
        unknown_kernels: Pallas kernels that are not counted.
        slice_exchange_bytes: what one chip sends to other slices; its time is not counted.
    """

    method: Literal["schedule", "roofline"]
    trust: str
    chip: str
    torus: tuple[int, ...]
    cal: StepTime
    xla: StepTime
    collectives: tuple[Collective, ...]
    kernels: tuple[Kernel, ...]
    operations: tuple[Operation, ...]
    unknown_loops: tuple[str, ...]
    unknown_kernels: tuple[str, ...]
    slice_exchange_bytes: float


def estimate(text: str, chip: Chip, torus: tuple[int, ...]) -> Estimate:
    """Seconds per step of a scheduled program.

    Args:
        text: what `Compiled.as_text` gives for one chip's program.
        torus: chips along each axis of a slice, (8, 8) for v5e:8x8.
    """
    ledger, cycles = walk(parse(text), chip, torus)
    return Estimate(
        method="schedule",
        trust=TRUST,
        chip=chip.name,
        torus=torus,
        cal=_step_time(ledger, cycles, cycles.cal),
        xla=_step_time(ledger, cycles, cycles.xla),
        collectives=tuple(sorted(ledger.collectives.values(), key=lambda each: -each.seconds)),
        kernels=tuple(ledger.kernels.values()),
        operations=tuple(sorted(ledger.operations, key=lambda each: -each.seconds)),
        unknown_loops=tuple(ledger.unknown_loops),
        unknown_kernels=tuple(each.name for each in ledger.kernels.values() if each.seconds is None),
        slice_exchange_bytes=0.0,
    )


def mfu(seconds: float, parameters: int, tokens: int, chips: int, chip: Chip) -> float:
    """The share of the peak that 6 operations per parameter and token make up; recomputation is not counted.

    Args:
        seconds: of one step.
        tokens: of one step, on all chips.
    """
    return 6.0 * parameters * tokens / (chips * chip.peak_tflops * 1e12 * seconds)


def _step_time(ledger: Ledger, cycles: Cycles, compute_cycles: float) -> StepTime:
    compute, kernels = compute_cycles / ledger.hertz, cycles.kernel / ledger.hertz
    collectives = math.fsum(each.seconds for each in ledger.collectives.values())
    exposed = math.fsum(each.exposed_seconds for each in ledger.collectives.values())
    return StepTime(
        matmul_seconds=cycles.matmul / ledger.hertz,
        compute_seconds=compute,
        kernel_seconds=kernels,
        collective_seconds=collectives,
        exposed_seconds=exposed,
        seconds=max(compute + kernels + exposed, collectives),
    )
