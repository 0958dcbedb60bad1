"""Seconds of a training step, estimated from the schedule of the compiled program.

Three parts are added up. Compute: every instruction for which the compiler counted cycles, loop bodies times
their trips. Kernels: Pallas kernels, of which attention alone is known. Exposed: what collectives take beyond
the compute under which they run.

There are two readings of compute. `xla` takes the compiler's cycles throughout. `cal` takes them for matrix
products only and for the rest the bytes at 85 % of what HBM can do, since the compiler puts elementwise work
1.25 to 4 times slower than HBM allows. It is the better guess and `xla` the careful one.

What a SparseCore does beside (on v5p and v6e it may look up the rows of the embedding) is not counted.
"""

import math

from jaxlingua.plan.hlo import parse
from jaxlingua.plan.ledger import Cycles, Ledger, walk
from jaxlingua.plan.roofline import roofline
from jaxlingua.plan.step_time import Collective, Estimate, Kernel, Operation, StepTime, mfu
from jaxlingua.sharding.chips import Chip

__all__ = ["Collective", "Estimate", "Kernel", "Operation", "StepTime", "estimate", "mfu", "roofline"]

_TRUST = (
    "against three published v5e throughputs the reading cal was 3 to 25 % too slow{elsewhere}; "
    "do not rank two programs by less than 10 %, nor where cal and xla disagree"
)
_ELSEWHERE = ", and for {chip} there was nothing to compare with"


def estimate(text: str, chip: Chip, torus: tuple[int, ...]) -> Estimate:
    """Seconds per step of a scheduled program.

    Args:
        text: what `executable.schedule_text` gives: the program of one chip.
        torus: chips along each axis of a slice, (8, 8) for v5e:8x8.
    """
    ledger, cycles = walk(parse(text), chip, torus)
    return Estimate(
        method="schedule",
        trust=_TRUST.format(elsewhere="" if chip.name == "v5e" else _ELSEWHERE.format(chip=chip.name)),
        chip=chip.name,
        torus=torus,
        cal=_step_time(ledger, cycles, cycles.cal),
        xla=_step_time(ledger, cycles, cycles.xla),
        collectives=tuple(sorted(ledger.collectives.values(), key=lambda each: -each.seconds)),
        kernels=tuple(ledger.kernels.values()),
        operations=tuple(sorted(ledger.operations, key=lambda each: -each.seconds)),
        unknown_loops=tuple(ledger.unknown_loops),
        unknown_kernels=tuple(each.name for each in ledger.kernels.values() if each.seconds is None),
        slice_exchange_bytes=ledger.slice_exchange_bytes,
    )


def _step_time(ledger: Ledger, cycles: Cycles, compute_cycles: float) -> StepTime:
    compute, kernels = compute_cycles / ledger.hertz, cycles.kernel / ledger.hertz
    between = math.fsum(each.seconds for each in ledger.collectives.values() if each.how == "slices")
    within = math.fsum(each.seconds for each in ledger.collectives.values() if each.how != "slices")
    exposed = math.fsum(each.exposed_seconds for each in ledger.collectives.values())
    return StepTime(
        matmul_seconds=cycles.matmul / ledger.hertz,
        compute_seconds=compute,
        kernel_seconds=kernels,
        collective_seconds=within + between,
        exposed_seconds=exposed,
        seconds=max(compute + kernels + exposed, within, between),
    )
