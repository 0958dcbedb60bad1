"""Names of TPU topologies, such as v5e:8x8, and the devices that they stand for."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from jaxlingua.errors import ConfigError
from jaxlingua.sharding.chips import CHIPS, Chip

# The shapes that exist are fewer than those that the compiler takes: it takes 12x12 and 2x2x3 as well, which
# nobody rents out, and refuses only odd sides (3x3). Flat ones: both pods of 16x16 side by side are the most.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16", "16x32")
# Cubes of 4 x 4 x 4 chips stand in any box, shortest side first, up to the pod; below a cube there are these.
_LESS_THAN_A_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_CUBE = 4
_PODS = {"v4": (16, 16, 16), "v5p": (16, 20, 28)}

# Other names of the same chips, as in accelerator types; there v4 and v5p count cores, two to a chip.
_ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "v6lite": "v6e", "trillium": "v6e", "v5": "v5p"}
_CORES_PER_CHIP = {"v4": 2, "v5p": 2}
_SHOWN = 3
_LONGEST_SHOWN = 40  # characters of a name that does not exist


@dataclass(frozen=True)
class Topology:
    """Chips of one kind in a grid, once per slice."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        """Over all slices."""
        return math.prod(self.shape) * self.slices

    def describe(self) -> str:
        """As it is written on the command line, with the number of chips."""
        slices = f" x {self.slices} slices" if self.slices > 1 else ""
        return f"{self.name}{slices} ({self.chips:,} chip{'s' if self.chips > 1 else ''})"


def topology_of(name: str, slices: str = "1") -> Topology:
    """What `--topology` and `--slices` say.

    Raises: ConfigError with the nearest names for one that does not exist, and for slices that are none.
    Example:
        >>> topology_of("v5e:8x8", "2").chips
        128
    """
    if not re.fullmatch(r"[1-9]\d{0,3}", slices):
        raise ConfigError(
            f"--slices: '{slices}' given; a whole number from 1 on is allowed; write --slices 2"
        )
    chip, _, size = name.partition(":")
    if chip not in CHIPS or size not in shapes(chip):
        shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
        raise ConfigError(
            f"--topology: '{shown}' given, which does not exist; nearest: {', '.join(_nearest(name))}; give "
            f"a slice that exists as CHIP:SHAPE, and with --slices how many of it"
        )
    return Topology(name, CHIPS[chip], _sides(size), int(slices))


def shapes(chip: str) -> Iterator[str]:
    """All shapes of a chip, such as "8x8", the smallest slices first."""
    if chip not in _PODS:
        yield from _FLAT
        return
    yield from _LESS_THAN_A_CUBE
    boxes = product(*(range(_CUBE, side + 1, _CUBE) for side in _PODS[chip]))
    yield from ("x".join(map(str, box)) for box in sorted(boxes, key=math.prod) if list(box) == sorted(box))


def devices(topology: Topology) -> list[Any]:
    """The devices of a topology, described by libtpu; none of them is there.

    Raises: ConfigError in libtpu's words where it does not know them.
    """
    from jax.experimental import topologies  # this module is read before the command line is checked

    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # one device per chip, as training sees them
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"--topology: '{topology.name}' given; libtpu does not describe it ({reason[:200]}); install the "
            f"libtpu that belongs to this JAX: pip install -U 'jaxlingua[plan]'"
        ) from None
    return list(found)


def _nearest(name: str) -> list[str]:
    """The names that are most like one that does not exist: its chip, and about its number of chips."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    chip = _ALIASES.get(words[0], words[0])
    sides = _sides(words[1]) if len(words) > 1 and re.fullmatch(r"\d{1,6}(x\d{1,6}){0,3}", words[1]) else ()
    count = math.prod(sides) or 1
    if len(sides) == 1:
        count = max(count // _CORES_PER_CHIP.get(chip, 1), 1)
    chips = [chip] if chip in CHIPS else [known for known in CHIPS if CHIPS[known].torus_dims == len(sides)]
    known = [(chip, shape) for chip in chips or CHIPS for shape in shapes(chip)]

    def distance(candidate: tuple[str, str]) -> float:
        return abs(math.log(math.prod(_sides(candidate[1])) / count))

    return [":".join(candidate) for candidate in sorted(known, key=distance)[:_SHOWN]]


def _sides(size: str) -> tuple[int, ...]:
    return tuple(int(side) for side in size.split("x"))
