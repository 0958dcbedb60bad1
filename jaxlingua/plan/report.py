"""What a plan tells, as a table for people and as JSON for programs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxlingua.config import StageConfig
from jaxlingua.plan.estimate import Estimate, mfu
from jaxlingua.plan.store import Compiled
from jaxlingua.plan.topology import Topology
from jaxlingua.progress import duration
from jaxlingua.sharding.memory import Memory
from jaxlingua.tracking import ModelSize
from jaxlingua.train.fit import Remedy

GIB = 2**30
READINGS = ("cal", "xla")
OPERATIONS_SHOWN = 12
ABOUT_READINGS = (
    "cal: the compiler's cycles for matmuls, bytes at 85 % of HBM bandwidth for the rest; "
    "xla: its cycles for everything"
)
MEMORY_IS_EXACT = "memory is exact, the compiler's own"
ACROSS_SLICES = (
    "between slices: the published bandwidth of the network with nothing else on it and no latency"
)
NOT_ACROSS_SLICES = "what goes between slices is not in the estimate of time"
BOUND = "work is not counted, so seconds and chip-hours are at least, MFU and tokens per second at most"


@dataclass(frozen=True)
class Plan:
    """All that is known of a step on a topology."""

    config: str
    topology: Topology
    mesh: Mapping[str, int]
    batch_rows: int
    micro_batches: int
    row_length_tokens: int
    size: ModelSize
    memory: Memory
    compiled: Compiled
    is_stored: bool
    estimate: Estimate | None  # None where the step does not fit
    remedies: Sequence[Remedy]
    stages: Sequence[StageConfig]
    versions: Mapping[str, str]
    no_remedy: str = ""  # what is said where it does not fit and nothing helps

    @property
    def fits(self) -> bool:
        return self.compiled.fits and self.compiled.peak <= self.topology.chip.hbm_bytes

    @property
    def is_lower_bound(self) -> bool:
        """Whether the step takes longer than the estimate says."""
        return self.estimate is not None and self.estimate.is_lower_bound

    @property
    def step_tokens(self) -> int:
        """Positions of a batch, padding included."""
        return self.batch_rows * self.row_length_tokens

    @property
    def steps(self) -> int | None:
        """Of the whole run, where every stage is given in steps; epochs are counted on the data only."""
        lengths = [stage.steps for stage in self.stages]
        return None if "auto" in lengths else sum(lengths)

    def seconds(self, reading: str) -> float | None:
        """Of one step."""
        return getattr(self.estimate, reading).seconds if self.estimate else None

    def mfu(self, reading: str) -> float | None:
        """Over the bf16 peak of all chips: 6N per token, or 4N and 6 for each number of the adapters."""
        if not (seconds := self.seconds(reading)):
            return None
        return mfu(seconds, self.size, self.step_tokens, self.topology.chips, self.topology.chip)

    def tokens_per_second_per_chip(self, reading: str) -> float | None:
        seconds = self.seconds(reading)
        return self.step_tokens / seconds / self.topology.chips if seconds else None

    def chip_hours(self, reading: str, steps: float | int | None) -> float | None:
        """Of so many training steps; saving and evaluation come on top."""
        seconds = self.seconds(reading)
        return steps * seconds * self.topology.chips / 3600 if seconds and steps else None

    @property
    def steps_per_billion_tokens(self) -> float:
        return 1e9 / self.step_tokens


# ── JSON ───────────────────────────────────────────────────────────────────────────────────────────────────


def as_json(plan: Plan) -> dict[str, Any]:
    """One object; None stands for what is not known. `cal` and `xla` are two readings of one schedule."""
    chip, compiled = plan.topology.chip, plan.compiled

    def readings(value: Any, digits: int) -> dict[str, float | None]:
        found = {reading: value(reading) for reading in READINGS}
        return {name: None if number is None else round(number, digits) for name, number in found.items()}

    is_priced = plan.estimate is not None
    return {
        "fits": plan.fits,
        "peak_hbm_gib": _gib(compiled.peak),
        "hbm_gib": chip.hbm_gib,
        "step_seconds": readings(plan.seconds, 6),
        "estimated_mfu": readings(plan.mfu, 4),
        "is_lower_bound": plan.is_lower_bound,
        "method": plan.estimate.method if is_priced else None,
        "trust": _trust(plan),
        "tokens_per_second_per_chip": readings(plan.tokens_per_second_per_chip, 1),
        "chip_hours": {
            "steps": plan.steps,
            "run": readings(lambda reading: plan.chip_hours(reading, plan.steps), 2),
            "per_1000_steps": readings(lambda reading: plan.chip_hours(reading, 1000), 2),
            "per_billion_tokens": readings(
                lambda reading: plan.chip_hours(reading, plan.steps_per_billion_tokens), 2
            ),
        },
        "config": plan.config,
        "topology": {
            "name": plan.topology.name,
            "chip": chip.name,
            "shape": list(plan.topology.shape),
            "slices": plan.topology.slices,
            "chips": plan.topology.chips,
        },
        "mesh": dict(plan.mesh),
        "batch_rows": plan.batch_rows,
        "micro_batches": plan.micro_batches,
        "row_length_tokens": plan.row_length_tokens,
        "parameters": plan.size.parameters,
        "adapters": plan.size.adapters,
        "memory": {
            "by_arithmetic_gib": {name: _gib(size) for name, size in plan.memory.parts().items()},
            "arithmetic_total_gib": _gib(plan.memory.total),
            "arguments_gib": _gib(compiled.arguments) if compiled.fits else None,
            "temporaries_gib": _gib(compiled.temporaries) if compiled.fits else None,
            "peak_gib": _gib(compiled.peak),
        },
        **_estimated(plan.estimate),
        "remedies": [
            {
                "change": remedy.change,
                "total_gib": _gib(remedy.total_bytes),
                "extra_compute": round(remedy.extra_compute, 3),
                "note": remedy.note,
            }
            for remedy in plan.remedies
        ],
        "no_schedule": compiled.no_text,
        "compile_seconds": round(compiled.seconds, 1),
        "is_stored": plan.is_stored,
        "versions": dict(plan.versions),
    }


def _estimated(estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"time": None, "collectives": [], "kernels": [], "longest_operations": [], "not_counted": []}
    return {
        "time": {reading: asdict(getattr(estimate, reading)) for reading in READINGS},
        "collectives": [asdict(collective) for collective in estimate.collectives],
        "kernels": [asdict(kernel) for kernel in estimate.kernels],
        "longest_operations": [asdict(operation) for operation in estimate.operations[:OPERATIONS_SHOWN]],
        "not_counted": _not_counted(estimate),
    }


# ── table ──────────────────────────────────────────────────────────────────────────────────────────────────


def as_table(plan: Plan) -> str:
    """The same as lines of text."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    mesh = " ".join(f"{axis}={size}" for axis, size in plan.mesh.items())
    passes = f" in {plan.micro_batches} micro-batches" if plan.micro_batches > 1 else ""
    yield f"{plan.config} on {plan.topology.describe()}: {mesh}"
    frozen = f" frozen, {plan.size.adapters:,} in adapters" if plan.size.adapters else ""
    yield (
        f"{plan.size.parameters:,} parameters{frozen}; steps of {plan.batch_rows} rows of "
        f"{plan.row_length_tokens:,} tokens{passes}"
    )
    yield from ("", *_memory_lines(plan))
    if plan.estimate is not None:
        yield from ("", *_time_lines(plan), "", *_collective_lines(plan))
    yield from ("", _trust(plan))
    told = "as stored; compiled then" if plan.is_stored else "compiled"
    packages = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    yield f"{told} in {duration(plan.compiled.seconds)} with {packages}"


def _memory_lines(plan: Plan) -> Iterator[str]:
    hbm, compiled = plan.topology.chip.hbm_gib, plan.compiled
    parts = [(f"  {name}", short(_gib(size))) for name, size in plan.memory.parts().items()]
    yield from columns(
        [("memory per chip, GiB", ""), *parts, ("by arithmetic", short(_gib(plan.memory.total)))]
    )
    peak = _gib(compiled.peak)
    if compiled.fits:
        sizes = (
            f"arguments {short(_gib(compiled.arguments))}, temporaries {short(_gib(compiled.temporaries))}"
        )
        yield f"by the compiler, exactly: {sizes}, peak {short(peak)} of {hbm:.2f}"
    else:
        yield f"by the compiler: {short(peak)} wanted of {hbm:.2f}"
    if plan.fits:
        yield f"FITS, {hbm - peak:.2f} GiB to spare"
        return
    yield f"DOES NOT FIT: {peak - hbm:.2f} GiB too many"
    if not plan.remedies:
        yield f"by arithmetic {plan.no_remedy}"
        return
    yield "cheapest changes, by arithmetic:"
    rows = [("  change", "GiB per chip", "more arithmetic")]
    for remedy in plan.remedies:
        more = f"{100 * remedy.extra_compute:.0f} %" if remedy.extra_compute else "none"
        rows.append((f"  {remedy.change}", short(_gib(remedy.total_bytes)), more))
    notes = ["", *(remedy.note for remedy in plan.remedies)]
    for line, note in zip(columns(rows), notes, strict=True):
        yield f"{line}  {note}".rstrip()


def _time_lines(plan: Plan) -> Iterator[str]:
    def row(name: str, value: Any) -> tuple[str, ...]:
        return (name, *(short(value(reading) or 0.0) for reading in READINGS))

    def part(name: str) -> Any:
        return lambda reading: getattr(getattr(plan.estimate, reading), name)

    counted = "4N and adapters" if plan.size.adapters else "6N"
    title = "one step (ROOFLINE, no schedule)" if plan.estimate.method == "roofline" else "one step"
    least, most = (", at least", ", at most") if plan.is_lower_bound else ("", "")
    rows = [
        (title, *READINGS),
        row("  compute, s", part("compute_seconds")),
        row("  kernels, s", part("kernel_seconds")),
        row("  exposed collectives, s", part("exposed_seconds")),
        row(f"seconds{least}", plan.seconds),
        row(f"MFU ({counted}), %{most}", lambda reading: 100 * (plan.mfu(reading) or 0.0)),
        row(f"tokens per second per chip{most}", plan.tokens_per_second_per_chip),
        row(f"chip-hours per 1,000 steps{least}", lambda r: plan.chip_hours(r, 1000)),
        row(
            f"chip-hours per billion tokens{least}",
            lambda reading: plan.chip_hours(reading, plan.steps_per_billion_tokens),
        ),
    ]
    if plan.steps is not None:
        name = f"chip-hours of the run's {plan.steps:,} steps{least}"
        rows.append(row(name, lambda reading: plan.chip_hours(reading, plan.steps)))
    yield from columns(rows)
    if plan.estimate.method != "roofline":
        yield f"({ABOUT_READINGS})"
    if plan.steps is None:
        yield "how many steps the run takes is known with its data only: a stage is given in epochs"


def _collective_lines(plan: Plan) -> Iterator[str]:
    rows = [("collectives", "how", "chips", "calls", "GiB", "seconds", "exposed")]
    for found in plan.estimate.collectives:
        rows.append(
            (
                found.kind,
                found.how,
                str(found.group),
                f"{found.calls:,}",
                short(_gib(found.bytes)),
                short(found.seconds),
                short(found.exposed_seconds),
            )
        )
    yield from columns(rows) if len(rows) > 1 else ["collectives: none are known of"]
    if missing := _not_counted(plan.estimate):
        yield f"not counted: {', '.join(missing)}"


def short(number: float | int) -> str:
    """Three significant digits, and no digit before the point left out.

    >>> [short(number) for number in (0.0, 0.0000512, 0.123456, 15.75, 1234.5)]
    ['0', '0.0000512', '0.123', '15.8', '1,234']
    """
    if number == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:,.{digits}f}"


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Words at the left, all else at the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _not_counted(estimate: Estimate) -> list[str]:
    loops = [f"all but one trip of loop {name}" for name in estimate.unknown_loops]
    kernels = [f"kernel {name}" for name in estimate.unknown_kernels]
    between = f"{short(_gib(estimate.slice_exchange_bytes))} GiB per chip between slices"
    return [*loops, *kernels, *[between] * (estimate.slice_exchange_bytes > 0)]


def _trust(plan: Plan) -> str:
    told = [MEMORY_IS_EXACT] + ([f"time: {plan.estimate.trust}"] if plan.estimate else [])
    if plan.topology.slices > 1 and plan.estimate:
        told.append(NOT_ACROSS_SLICES if plan.estimate.slice_exchange_bytes else ACROSS_SLICES)
    return "; ".join(told + [BOUND] * plan.is_lower_bound)


def _gib(size: float | int) -> float:
    return round(size / GIB, 6)
