"""The schedule walked through: compute, kernels and collectives of one step, each written down once."""

import re
from dataclasses import dataclass, field, replace

from jaxlingua.plan.collectives import Transfer, exchange, transfer
from jaxlingua.plan.hlo import COLLECTIVES, Computation, Instruction, Schedule
from jaxlingua.plan.kernels import attention_cycles, attention_shape, has_dq_kernel
from jaxlingua.plan.step_time import Collective, Kernel, Operation
from jaxlingua.plan.traffic import bytes_moved, matmul_flops
from jaxlingua.sharding.chips import Chip

# Of the bandwidth that HBM has on paper.
HBM_SHARE = 0.85


@dataclass(frozen=True)
class Cycles:
    """Of one execution of a computation."""

    xla: float = 0.0
    cal: float = 0.0
    kernel: float = 0.0
    matmul: float = 0.0

    def __add__(self, other: "Cycles") -> "Cycles":
        return Cycles(
            self.xla + other.xla,
            self.cal + other.cal,
            self.kernel + other.kernel,
            self.matmul + other.matmul,
        )

    def __mul__(self, times: int) -> "Cycles":
        return Cycles(self.xla * times, self.cal * times, self.kernel * times, self.matmul * times)


@dataclass(eq=False)
class _Pending:
    """A collective that may run under other work, between its first instruction and its last.

    Args:
        how: as in `Collective`.
        cover_cycles: compute under which it runs.
        begun_at: cycles of the computation when it began, where it is not fused into its cover.
    """

    collective: Instruction
    how: str
    scattered: bool = False
    cover_cycles: float = 0.0
    begun_at: float = 0.0


@dataclass
class Ledger:
    """What is known before the program is walked through, and what is written down on the way."""

    schedule: Schedule
    chip: Chip
    torus: tuple[int, ...]
    fused_backward: bool
    collectives: dict[tuple[str, str, int], Collective] = field(default_factory=dict)
    kernels: dict[tuple[str, str], Kernel] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    unknown_loops: list[str] = field(default_factory=list)
    slice_exchange_bytes: int = 0

    @property
    def hertz(self) -> float:
        return self.chip.clock_ghz * 1e9


def walk(schedule: Schedule, chip: Chip, torus: tuple[int, ...]) -> tuple[Ledger, Cycles]:
    """Everything that one step does, and its cycles without waiting."""
    ledger = Ledger(schedule, chip, torus, fused_backward=not has_dq_kernel(schedule))
    return ledger, _run(ledger, schedule.entry, times=1)


def _run(ledger: Ledger, name: str, times: int) -> Cycles:
    """Cycles of one execution of a computation that is executed `times` times per step."""
    computation = ledger.schedule.computations[name]
    begun: dict[str, _Pending] = {}  # by the instruction that has it in hand
    fused: dict[str, _Pending] = {}  # by channel
    exchanges: dict[str, _Pending] = {}  # between slices, by name
    total = Cycles()
    for instruction in computation.instructions:
        if instruction.opcode in ("while", "conditional", "call"):
            total += _called(ledger, instruction, times)
        elif instruction.is_kernel:
            total += _kernel(ledger, instruction, times)
        elif instruction.opcode in COLLECTIVES:
            moved = transfer(instruction, ledger.chip, ledger.torus, scattered=False)
            _write_collective(ledger, instruction, moved, "sync", moved.seconds, times)
        elif instruction.opcode in ("send", "recv") and "xla_megascale" in instruction.attributes:
            begun[instruction.name] = _exchanged(instruction, exchanges, total)
        elif collective := _begun(ledger.schedule, instruction):
            begun[instruction.name] = _Pending(collective, "async", begun_at=total.cal + total.kernel)
        elif pending := _went_on(instruction, begun):
            pending.cover_cycles = total.cal + total.kernel - pending.begun_at
            begun[instruction.name] = pending
        else:
            cycles = _compute(ledger, instruction, computation, times)
            _cover(ledger.schedule, instruction, cycles, fused)
            total += cycles
            if instruction.opcode == "fusion":
                for kernel in ledger.schedule.kernels_in(instruction.named("calls")):
                    total += _kernel(ledger, kernel, times)
    for each in dict.fromkeys((*begun.values(), *fused.values())):
        _settle(ledger, each, times)
    return total


def _called(ledger: Ledger, instruction: Instruction, times: int) -> Cycles:
    """A loop with all its trips, the longest branch of a choice, or a call."""
    if instruction.opcode == "call":
        return _run(ledger, instruction.named("to_apply"), times)
    if instruction.opcode == "conditional":
        return _run(ledger, _longest_branch(ledger, instruction), times)
    trips = ledger.schedule.trips(instruction)
    if trips is None:
        ledger.unknown_loops.append(instruction.name)
        trips = 1
    return _run(ledger, instruction.named("body"), times * trips) * trips


def _longest_branch(ledger: Ledger, conditional: Instruction) -> str:
    """Which branch takes the most compute; the others are not written down, since one alone runs."""
    found = re.findall(
        r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+))", conditional.attributes
    )
    names = [name.strip().lstrip("%") for several, one in found for name in (several or one).split(",")]

    def compute_cycles(name: str) -> float:
        scratch = replace(ledger, collectives={}, kernels={}, operations=[], unknown_loops=[])
        return _run(scratch, name, times=1).cal

    return max(names, key=compute_cycles)


def _kernel(ledger: Ledger, kernel: Instruction, times: int) -> Cycles:
    """A Pallas kernel; one that is unknown is written down without seconds."""
    shape = attention_shape(kernel, fused_backward=ledger.fused_backward)
    cycles = attention_cycles(shape, ledger.chip) if shape else None
    name, what = re.sub(r"\.\d+$", "", kernel.name), shape.describe() if shape else "unknown kernel"
    written = ledger.kernels.get((name, what), Kernel(name, what, 0, None))
    seconds = None if cycles is None else (written.seconds or 0.0) + times * cycles / ledger.hertz
    ledger.kernels[name, what] = replace(written, calls=written.calls + times, seconds=seconds)
    return Cycles(kernel=cycles or 0.0)


def _compute(ledger: Ledger, instruction: Instruction, within: Computation, times: int) -> Cycles:
    """An instruction for which the compiler counted cycles; nothing for any other."""
    if not instruction.cycles:
        return Cycles()
    chip, schedule, counted = ledger.chip, ledger.schedule, float(instruction.cycles)
    if is_matmul := schedule.holds_matmul(instruction):
        cycles = Cycles(counted, counted, matmul=counted)
    else:
        bytes_per_cycle = HBM_SHARE * chip.hbm_gb_per_second / chip.clock_ghz
        moving = bytes_moved(instruction, within, schedule) / bytes_per_cycle
        cycles = Cycles(counted, cal=min(counted, moving))
    kind = "matmul" if is_matmul else "copy" if instruction.opcode == "copy" else "other"
    ideal = matmul_flops(instruction, within, schedule) / chip.flops_per_cycle
    _write_operation(ledger, kind, instruction, times, cycles.cal / ledger.hertz, ideal / ledger.hertz)
    return cycles


def _begun(schedule: Schedule, instruction: Instruction) -> Instruction | None:
    """The collective that an instruction begins and leaves another to end."""
    if instruction.opcode.removesuffix("-start") in COLLECTIVES:
        return instruction
    return schedule.collective_in(instruction.named("calls")) if instruction.opcode == "async-start" else None


def _exchanged(instruction: Instruction, exchanges: dict[str, _Pending], before: Cycles) -> _Pending:
    """The exchange between slices of which this is one half: what is sent to the hosts, or comes back."""
    found = re.search(r'_xla_host_transfer_rendezvous="([^"]*)"', instruction.attributes)
    name = found.group(1) if found else instruction.name
    pending = exchanges.setdefault(name, _Pending(instruction, "slices", begun_at=before.cal + before.kernel))
    if instruction.opcode == "send":
        pending.collective = instruction
    return pending


def _went_on(instruction: Instruction, begun: dict[str, _Pending]) -> _Pending | None:
    """The collective that an instruction moves along or ends."""
    if not instruction.opcode.endswith(("-update", "-done")) or not instruction.operands:
        return None
    return begun.get(instruction.operands[0])


def _cover(schedule: Schedule, instruction: Instruction, cycles: Cycles, fused: dict[str, _Pending]) -> None:
    """Note the compute of a fusion that holds a collective as what the collective runs under.

    The compiler cuts a collective in parts and fuses each into a matrix product. All parts have its channel.
    """
    called = instruction.named("calls")
    collective = schedule.collective_in(called) if instruction.opcode == "fusion" else None
    if collective is None:
        return
    channel = re.search(r"channel_id=(\d+)", collective.attributes)
    hidden = "async" in instruction.name or "async" in called
    scattered = not hidden and (
        "all-reduce-scatter" in called or "AllReduceScatter" in instruction.attributes
    )
    key = channel.group(1) if channel else collective.name
    how = "async" if hidden else "sync(fused)"
    fused.setdefault(key, _Pending(collective, how, scattered)).cover_cycles += cycles.cal


def _settle(ledger: Ledger, pending: _Pending, times: int) -> None:
    """Write down a collective whose cover is known."""
    if pending.how == "slices":
        moved = exchange(pending.collective, ledger.chip)
    else:
        moved = transfer(pending.collective, ledger.chip, ledger.torus, scattered=pending.scattered)
    if moved is None:
        ledger.slice_exchange_bytes += times * pending.collective.arrays[0].bytes
        return
    covered = pending.cover_cycles / ledger.hertz if pending.how in ("async", "slices") else 0.0
    exposed = max(0.0, moved.seconds - covered)
    _write_collective(ledger, pending.collective, moved, pending.how, exposed, times)


def _write_collective(
    ledger: Ledger, collective: Instruction, moved: Transfer, how: str, exposed: float, times: int
) -> None:
    """Add `times` executions to those of its kind, and what they expose to the operations."""
    key = moved.kind, how, moved.group
    written = ledger.collectives.get(key, Collective(*key, 0, 0, 0.0, 0.0))
    ledger.collectives[key] = replace(
        written,
        calls=written.calls + times,
        bytes=written.bytes + times * moved.bytes,
        seconds=written.seconds + times * moved.seconds,
        exposed_seconds=written.exposed_seconds + times * exposed,
    )
    if exposed:
        _write_operation(ledger, f"{moved.kind} exposed", collective, times, exposed, 0.0)


def _write_operation(
    ledger: Ledger, kind: str, instruction: Instruction, times: int, seconds: float, ideal_seconds: float
) -> None:
    ledger.operations.append(
        Operation(
            kind=kind,
            name=instruction.name,
            op_name=instruction.op_name,
            calls=times,
            seconds=times * seconds,
            ideal_seconds=times * ideal_seconds,
        )
    )
