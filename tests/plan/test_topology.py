"""Names of topologies: those that exist, what is said of the others, and what libtpu makes of them."""

import math

import pytest

from jaxlingua.errors import ConfigError
from jaxlingua.plan import topology as module
from jaxlingua.plan.topology import devices, shapes, topology_of
from jaxlingua.sharding.chips import CHIPS


def test_a_name_is_a_chip_and_its_grid_and_slices_multiply_it():
    pod = topology_of("v5e:16x16", "8")
    assert (pod.chip, pod.shape, pod.slices, pod.chips) == (CHIPS["v5e"], (16, 16), 8, 2048)
    assert pod.describe() == "v5e:16x16 x 8 slices (2,048 chips)"
    assert topology_of("v5e:1x1").describe() == "v5e:1x1 (1 chip)"


@pytest.mark.parametrize(
    "name",
    ["v4:8x8x16", "v4:16x16x16", "v5e:1x1", "v5e:16x32", "v6e:4x4", "v6e:16x16", "v5p:2x2x1", "v5p:16x16x24"],
)
def test_slices_from_one_host_to_whole_pods_have_names(name: str):
    assert topology_of(name).chips == math.prod(int(side) for side in name.split(":")[1].split("x"))


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("v5e:8x9", "v5e:8x8, v5e:8x16, v5e:4x8"),
        ("v5e:4x2", "v5e:2x4, v5e:2x2, v5e:4x4"),
        ("v5e-64", "v5e:8x8, v5e:4x8, v5e:8x16"),  # the number of chips, as in an accelerator type
        ("v5litepod-16", "v5e:4x4, v5e:2x4, v5e:4x8"),
        ("v5p-128", "v5p:4x4x4, v5p:2x4x4, v5p:4x4x8"),  # there v5p counts cores, two to a chip
        ("v4:2x2", "v4:2x2x1, v4:2x2x2, v4:2x2x4"),
        ("v5p:8x4x4", "v5p:4x4x8, v5p:4x4x12, v5p:4x4x4"),  # the longest side comes last
        ("v7x:4x4", "v5e:4x4, v6e:4x4, v5e:2x4"),
        ("V5E:8X8", "v5e:8x8, v5e:4x8, v5e:8x16"),
        ("v6e:0x4", "v6e:1x1, v6e:2x2, v6e:2x4"),
        ("nonsense", "v5e:1x1, v6e:1x1, v4:2x2x1"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest_that_do(given: str, nearest: str):
    with pytest.raises(ConfigError) as error:
        topology_of(given)
    assert str(error.value) == (
        f"--topology: '{given}' given, which does not exist; nearest: {nearest}; give a slice that exists as "
        f"CHIP:SHAPE, and with --slices how many of it"
    )


@pytest.mark.parametrize("name", ["v5e:" + "9" * 5000, "v5e:" + "1x" * 5000 + "1", "v5" * 5000])
def test_a_name_without_end_is_told_in_a_short_line(name: str):
    """More than 4,300 digits are no number that Python reads."""
    with pytest.raises(ConfigError) as error:
        topology_of(name)
    assert str(error.value).startswith(f"--topology: '{name[:40]}…' given, which does not exist; nearest: ")
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("slices", ["0", "-1", "two", "1.5", "20000"])
def test_slices_are_counted_from_one(slices: str):
    with pytest.raises(ConfigError) as error:
        topology_of("v5e:8x8", slices)
    assert str(error.value) == (
        f"--slices: '{slices}' given; a whole number from 1 on is allowed; write --slices 2"
    )


@pytest.mark.parametrize("name", ["v5e:2x4", "v4:2x2x2", "v6e:4x4", "v5p:2x2x2"])
def test_a_device_is_a_chip_of_that_kind(name: str):
    """Without "megacore" a v4 chip would be two devices, which training does not see."""
    topology = topology_of(name)
    found = devices(topology)
    assert len(found) == topology.chips
    assert {device.device_kind for device in found} == {topology.chip.device_kind}


def test_several_slices_are_told_apart():
    found = devices(topology_of("v5e:2x4", "3"))
    assert sorted(device.slice_index for device in found) == sorted([*range(3)] * 8)


@pytest.mark.parametrize("chip", sorted(CHIPS))
def test_the_compiler_knows_every_shape_that_we_name(chip: str):
    """Both ends of the list and what lies between; 66 shapes of v5p take 6 s."""
    named = list(shapes(chip))
    for size in {*named[:: max(1, len(named) // 8)], named[-1]}:
        topology = topology_of(f"{chip}:{size}")
        assert len(devices(topology)) == topology.chips


def test_what_libtpu_does_not_know_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_FLAT", ("3x3",))
    with pytest.raises(ConfigError) as error:
        devices(topology_of("v5e:3x3"))
    assert str(error.value) == (
        "--topology: 'v5e:3x3' given; libtpu does not describe it (INVALID_ARGUMENT: Topology layout \"v5e:3x3\" "
        'is not divisible by the given (or default) chips_per_host_bounds "2x2x1"); install the libtpu that '
        "belongs to this JAX: pip install -U 'jaxlingua[plan]'"
    )
