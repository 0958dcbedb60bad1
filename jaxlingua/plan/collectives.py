"""What a collective sends between the chips of a slice or between slices, and how long that takes.

Kind, bytes and group are the compiler's; the time is a model: every chip sends at the full speed of its links
along the torus axes that the group spans, and nothing else is on them. Between slices it has its part of the
network of the data center, without latency.
"""

import itertools
import math
import re
from dataclasses import dataclass

from jaxlingua.plan.hlo import Instruction
from jaxlingua.sharding.chips import Chip


@dataclass(frozen=True)
class Transfer:
    """One execution of a collective.

    Args:
        bytes: of the result on one chip.
        group: chips that take part together.
    """

    kind: str
    group: int
    bytes: int
    seconds: float


def transfer(collective: Instruction, chip: Chip, torus: tuple[int, ...], *, scattered: bool) -> Transfer:
    """What one execution of a collective costs.

    Args:
        scattered: an all-reduce of which each chip keeps its part, which is half of the work.
    """
    kind = collective.opcode.removesuffix("-start")
    group = group_size(collective, math.prod(torus))
    size = _result_bytes(collective)
    seconds = link_bytes(kind, size, group) / link_bytes_per_second(kind, group, chip, torus)
    if scattered and kind == "all-reduce":
        return Transfer("reduce-scatter", group, size, seconds / 2)
    return Transfer(kind, group, size, seconds)


def exchange(send: Instruction, chip: Chip) -> Transfer | None:
    """What one exchange between slices costs: the compiler hands an array of each chip over to the hosts.

    Its kind and the slices that take part stand beside it: `_xla_megascale_target="{1,2}x{0:3}"` are slices
    1 and 2 with chips 0 to 3 of each.

    Returns: the kind and the number of slices; None where the kind, or the chip's network, is not known.
    """
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', send.attributes)
    slices = re.search(r'_xla_megascale_target="\{([\d,:]+)\}', send.attributes)
    if not (kind and slices and chip.dcn_gb_per_second):
        return None
    name = kind.group(1).lower().replace("_", "-")
    group = sum(_count(part) for part in slices.group(1).split(","))
    handed = send.arrays[0].bytes
    size = handed * group if name == "all-gather" else handed // group if name == "reduce-scatter" else handed
    return Transfer(name, group, size, link_bytes(name, size, group) / (chip.dcn_gb_per_second * 1e9))


def _count(part: str) -> int:
    """Of one number or of a range with both its ends.

    >>> _count("3"), _count("0:3")
    (1, 4)
    """
    first, _, last = part.partition(":")
    return int(last or first) - int(first) + 1


def group_size(collective: Instruction, chips: int) -> int:
    """How many chips take part together, in the three notations that the compiler has; else all."""
    text = collective.attributes
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([\w.]+)'=(\d+)", found.group(1)))
        axes = re.findall(r"'([\w.]+)'", found.group(2))
        return math.prod(int(sizes.get(axis, 1)) for axis in axes) or chips
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(found.group(2))
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(found.group(1).split(","))
    return chips


def link_bytes(kind: str, size: int, group: int) -> float:
    """Bytes that each chip must send, where the result on each is of `size` bytes.

    >>> link_bytes("all-reduce", 800, group=8), link_bytes("all-gather", 800, group=8)
    (1400.0, 700.0)
    """
    others = (group - 1) / group
    match kind:
        case "all-gather":
            return size * others
        case "all-reduce":
            return 2 * size * others
        case "reduce-scatter":
            return float(size * (group - 1))
        case "all-to-all":  # on a ring half of what is sent crosses the narrowest cut
            return size * others / 2
    return float(size)


def spanned_axes(group: int, torus: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths of the torus axes that a group spans: the fewest whose product it is.

    The text does not tell where the chips of a group stand. A group that is no product of axes counts as one
    axis of its own length, which for a block of rows is too slow.

    >>> spanned_axes(64, (8, 8)), spanned_axes(8, (8, 8)), spanned_axes(4, (8, 8))
    ((8, 8), (8,), (4,))
    """
    if group == math.prod(torus):
        return torus
    for count in range(1, len(torus) + 1):
        for axes in itertools.combinations(torus, count):
            if math.prod(axes) == group:
                return axes
    return (group,)


def link_bytes_per_second(kind: str, group: int, chip: Chip, torus: tuple[int, ...]) -> float:
    """What one chip sends to the others of its group over all links that lead to them."""
    link = chip.ici_gb_per_second * 1e9
    if kind in ("collective-permute", "ragged-all-to-all", "collective-broadcast"):  # to one neighbor
        return link
    axes = [axis for axis in spanned_axes(group, torus) if axis > 1] or [1]
    return sum(link * (2 if axis % chip.wrap_multiple == 0 else 1) for axis in axes)


def _result_bytes(collective: Instruction) -> int:
    """A collective that is begun and ended in two instructions lists its operand and its counters as well."""
    if collective.opcode.endswith("-start"):
        return max((array.bytes for array in collective.arrays), default=0)
    return collective.bytes
