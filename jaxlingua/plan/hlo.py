"""The program that the TPU compiler scheduled, read from its text.

The text is what `executable.schedule_text` gives: computations of instructions in the order in which the
chip runs them, with the compiler's cycle counts in the attributes. Only what an estimate asks for is read.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)

_ARRAY = re.compile(r"\b(pred|(?:bf|[fsuc])\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = ")
_BRACKET = re.compile(r"[()\[\]{}]")


@dataclass(frozen=True)
class Array:
    """One array of an instruction's result."""

    dtype: str
    sizes: tuple[int, ...]
    in_hbm: bool

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """Without the padding of the chip's tiles."""
        bits = 8 if self.dtype == "pred" else int(re.search(r"\d+", self.dtype).group())
        return self.elements * bits // 8


@dataclass(frozen=True, eq=False)
class Instruction:
    """One line of a computation.

    Args:
        shape: of the result, as written; a tuple lists several arrays.
        operands: names of the instructions whose results it takes.
        argument: what stands in its brackets, as written: a constant's value, a parameter's number.
        attributes: what follows the brackets.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    argument: str
    attributes: str
    is_root: bool

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        return arrays(self.shape)

    @cached_property
    def bytes(self) -> int:
        """Of all arrays of the result, wherever they lie."""
        return sum(array.bytes for array in self.arrays)

    @cached_property
    def hbm_bytes(self) -> int:
        """Of the arrays of the result that lie in HBM, not in the chip's own fast memory."""
        return sum(array.bytes for array in self.arrays if array.in_hbm)

    @cached_property
    def cycles(self) -> int:
        """The compiler's count for one execution; 0 where it gave none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found.group(1)) if found else 0

    @cached_property
    def op_name(self) -> str:
        """The path of the operation in the Python program; empty where the compiler made it up."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    def named(self, attribute: str) -> str:
        """The computation or value that an attribute names; empty without it."""
        found = re.search(attribute + r"=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else ""

    @property
    def is_kernel(self) -> bool:
        """Whether it is a Pallas kernel, about whose inside the schedule says nothing."""
        return self.opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in self.attributes


@dataclass(frozen=True, eq=False)
class Computation:
    """Instructions in the order in which they run."""

    instructions: tuple[Instruction, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Instruction]:
        return {each.name: each for each in self.instructions}

    @cached_property
    def root(self) -> Instruction | None:
        return next((each for each in self.instructions if each.is_root), None)

    @cached_property
    def users(self) -> Mapping[str, tuple[Instruction, ...]]:
        """Which instructions take the result of each."""
        users: dict[str, list[Instruction]] = {each.name: [] for each in self.instructions}
        for each in self.instructions:
            for operand in dict.fromkeys(each.operands):
                if operand in users:
                    users[operand].append(each)
        return {name: tuple(found) for name, found in users.items()}

    @cached_property
    def parameters(self) -> Mapping[int, Instruction]:
        return {int(each.argument): each for each in self.instructions if each.opcode == "parameter"}


@dataclass(frozen=True, eq=False)
class Schedule:
    """A scheduled program; every instruction of `computations[entry]` runs once per step."""

    computations: Mapping[str, Computation]
    entry: str

    def instructions(self, computation: str) -> tuple[Instruction, ...]:
        """Of a computation; none where there is no such computation."""
        found = self.computations.get(computation)
        return found.instructions if found else ()

    def holds_matmul(self, instruction: Instruction) -> bool:
        """Whether it is a matrix product, or a fusion or call that holds one, however deep."""
        if instruction.opcode in ("convolution", "dot"):
            return True
        if instruction.opcode not in ("fusion", "call"):
            return False
        called = instruction.named("calls") or instruction.named("to_apply")
        return any(self.holds_matmul(each) for each in self.instructions(called))

    def collective_in(self, computation: str) -> Instruction | None:
        """The first collective in a computation or in the fusions within."""
        for each in self.instructions(computation):
            if each.opcode in COLLECTIVES:
                return each
            found = self.collective_in(each.named("calls")) if each.opcode == "fusion" else None
            if found:
                return found
        return None

    def kernels_in(self, computation: str) -> Iterator[Instruction]:
        """Pallas kernels in a computation and in the fusions within."""
        for each in self.instructions(computation):
            if each.is_kernel:
                yield each
            elif each.opcode == "fusion":
                yield from self.kernels_in(each.named("calls"))

    def trips(self, loop: Instruction) -> int | None:
        """How often a loop runs: as the compiler wrote it, or the largest constant of its condition.

        None where the bound is computed as the program runs.
        """
        if found := re.search(r"known_trip_count[^\d]*(\d+)", loop.attributes):
            return int(found.group(1))
        condition = self.computations[loop.named("condition")]
        looked_at = list(condition.instructions)
        if condition.root and condition.root.opcode == "fusion":
            looked_at += self.instructions(condition.root.named("calls"))
        constants = [each.argument for each in looked_at if each.opcode == "constant"]
        return max((int(each) for each in constants if re.fullmatch(r"-?\d+", each)), default=None)


def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays that are written in a shape or in a list of shapes.

    Memory spaces above 0, written S(1) in the layout, are not HBM.

    >>> [(array.bytes, array.in_hbm) for array in arrays("(bf16[2,3]{1,0:T(8,128)}, f32[4]{0:T(128)S(1)})")]
    [(12, True), (16, False)]
    """
    return tuple(
        Array(
            dtype, tuple(int(size) for size in sizes.split(",") if size), not re.search(r"S\([1-9]", layout)
        )
        for dtype, sizes, layout in _ARRAY.findall(shape)
    )


def parse(text: str) -> Schedule:
    """Read a scheduled schedule."""
    computations: dict[str, list[str]] = {}
    entry = current = ""
    for line in text.splitlines():
        if not current:
            if found := _COMPUTATION.match(line):
                current = found.group(2)
                computations[current] = []
                entry = current if found.group(1) else entry
        elif line.startswith("}") and not line.startswith("}}"):
            current = ""
        elif _INSTRUCTION.match(line):
            computations[current].append(line)
        elif computations[current]:  # a kernel's attributes go on
            computations[current][-1] += line
    read = {name: Computation(tuple(map(_instruction, lines))) for name, lines in computations.items()}
    return Schedule(read, entry)


def _instruction(line: str) -> Instruction:
    found = _INSTRUCTION.match(line)
    rest = line[found.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    end = _closing(rest, start)
    opcode, argument = rest[:start], rest[start + 1 : end]
    operands = () if opcode in ("constant", "parameter") else tuple(re.findall(r"%([\w.\-]+)", argument))
    return Instruction(
        name=found.group(2),
        shape=shape,
        opcode=opcode,
        operands=operands,
        argument=argument,
        attributes=rest[end + 1 :],
        is_root=bool(found.group(1)),
    )


def _closing(text: str, start: int) -> int:
    """Index of the bracket that closes the one at `start`; the last index where none does."""
    depth = 0
    for bracket in _BRACKET.finditer(text, start):
        depth += 1 if bracket.group() in "([{" else -1
        if depth == 0:
            return bracket.start()
    return len(text) - 1
