"""What a plan says of a step's time: two readings, and what they are made of."""

from dataclasses import dataclass
from typing import Literal

from jaxlingua.sharding.chips import Chip
from jaxlingua.tracking import ModelSize


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step in one reading.

    Args:
        matmul_seconds: fusions that hold a matrix product; part of `compute_seconds`.
        compute_seconds: everything but Pallas kernels and waiting.
        collective_seconds: all collectives, hidden or not. Those of one network share it: a step takes no
            less than those within a slice, nor than those between slices.
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
class Collective:
    """All collectives of one kind in one step.

    Args:
        how: "async" runs under compute; "sync" does not; "sync(fused)" neither, with other work fused in;
            "slices" goes between slices, through the hosts, under what compute lies between.
        group: chips that take part together; slices, for "slices".
        bytes: of the results on one chip.
    """

    kind: str
    how: str
    group: int
    calls: int
    bytes: int
    seconds: float
    exposed_seconds: float


@dataclass(frozen=True)
class Kernel:
    """All calls of one Pallas kernel in one step; no seconds where it is unknown."""

    name: str
    what: str
    calls: int
    seconds: float | None


@dataclass(frozen=True)
class Operation:
    """One line of the schedule, with all its executions in one step.

    Args:
        kind: "matmul", "copy", "other", or a collective that waits.
        op_name: its path in the Python program.
        ideal_seconds: of its matrix products at the chip's peak; 0 without any.
    """

    kind: str
    name: str
    op_name: str
    calls: int
    seconds: float
    ideal_seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a step takes, and how far that can be trusted.

    Args:
        method: "schedule" of the compiler, or "roofline" where there is none.
        torus: chips along each axis of a slice.
        operations: the longest first.
        unknown_loops: loops whose trips depend on data; counted once.
        unknown_kernels: Pallas kernels that are not counted.
        slice_exchange_bytes: what one chip hands over for other slices where its time is not counted, since
            their network is not known.
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
    slice_exchange_bytes: int

    @property
    def is_lower_bound(self) -> bool:
        """Whether work of the chip itself is not counted, so that a step takes longer than is told."""
        return bool(self.unknown_loops or self.unknown_kernels)


def mfu(seconds: float, size: ModelSize, tokens: int, chips: int, chip: Chip) -> float:
    """The share of the peak that the operations of a step make up, as `ModelSize` counts them.

    Args:
        seconds: of one step.
        tokens: of one step, on all chips.
    """
    return size.flops_per_token() * tokens / (chips * chip.peak_tflops * 1e12 * seconds)
