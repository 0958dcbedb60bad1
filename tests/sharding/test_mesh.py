"""Sizes of the mesh: "auto" takes what is left, and what does not multiply to the devices is refused."""

import math
from itertools import permutations, product

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxlingua.config import MeshConfig, ShardingConfig
from jaxlingua.errors import ShardingError
from jaxlingua.sharding.mesh import AXES, describe_mesh, make_mesh, mesh_sizes


def sizes(data, fsdp, tensor, devices=8):
    return tuple(mesh_sizes({"data": data, "fsdp": fsdp, "tensor": tensor}, devices).values())


def test_auto_takes_the_devices_that_are_left_fsdp_first():
    assert sizes("auto", "auto", "auto") == (1, 8, 1)
    assert sizes("auto", "auto", 2) == (1, 4, 2)
    assert sizes("auto", 4, 1) == (2, 4, 1)
    assert sizes(2, 2, "auto") == (2, 2, 2)
    assert sizes(4, "auto", 2) == (4, 1, 2)
    assert sizes("auto", "auto", 1, devices=1) == (1, 1, 1)


def test_a_mesh_that_does_not_match_the_devices_is_refused():
    with pytest.raises(ShardingError) as error:
        sizes(2, 3, 1)
    assert str(error.value) == (
        "sharding.mesh: data=2, fsdp=3, tensor=1 gives 6, but there are 8 devices; "
        "choose sizes with a product of 8, or write fsdp=auto"
    )
    with pytest.raises(ShardingError) as error:
        sizes("auto", "auto", 3)
    assert str(error.value) == (
        "sharding.mesh: data=auto, fsdp=auto, tensor=3 gives 3, but there are 8 devices; "
        "choose sizes with a product that divides 8, or write fsdp=auto"
    )
    assert error.value.exit_code == 2


def test_the_mesh_has_automatic_axes_and_tells_what_it_became():
    """Explicit axes, JAX's default, would refuse the embedding's gather."""
    mesh = make_mesh(ShardingConfig(mesh=MeshConfig(data=2, tensor=2)))
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert describe_mesh(mesh) == "8 devices (cpu) in 1 process: data=2 fsdp=2 tensor=2"
    assert describe_mesh(make_mesh(ShardingConfig(), jax.devices()[:1])) == (
        "1 device (cpu) in 1 process: data=1 fsdp=1 tensor=1"
    )


class Chip:
    """A TPU chip that is not here, as far as a layout looks at it."""

    platform = "tpu"
    core_on_chip = 0
    process_index = 0
    client = jax.devices()[0].client

    def __init__(self, kind, coords, slice_index):
        self.device_kind, self.coords, self.slice_index = kind, coords, slice_index


def chips(kind, *sides, slices=1):
    places = [place[::-1] for place in product(*(range(side) for side in reversed((*sides, 1)[:3])))]
    return [Chip(kind, place, index) for index in range(slices) for place in places]


def laid_out(sizes, devices):
    return make_mesh(ShardingConfig(mesh=MeshConfig(**dict(zip(AXES, sizes, strict=True)))), devices)


def all_sizes(count):
    divisors = [size for size in range(1, count + 1) if count % size == 0]
    return [sizes for sizes in product(divisors, repeat=3) if math.prod(sizes) == count]


@pytest.mark.parametrize(("kind", "sides", "count"), [
    ("cpu", (8,), 10),
    ("TPU v5 lite", (2, 4), 10),
    ("TPU v5 lite", (8, 8), 28),
    ("TPU v4", (2, 2, 4), 14),
    ("TPU v4", (4, 4, 4), 10),
    ("TPU v5p", (4, 4, 8), 18),
    ("TPU v6 lite", (4, 8), 9),
])  # fmt: skip
def test_devices_are_where_jax_puts_them_by_itself_if_it_does(kind, sides, count):
    """On v5e it does for every mesh, on others only where axes lie along whole sides."""
    devices, found = jax.devices() if kind == "cpu" else chips(kind, *sides), []
    for sizes in all_sizes(len(devices)):
        try:
            theirs = jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
        except NotImplementedError:
            continue
        found.append((laid_out(sizes, devices).devices == theirs.devices).all())
    assert found == [True] * count


@pytest.mark.parametrize(("kind", "sides", "slices"), [
    ("TPU v4", (2, 2, 4), 1),
    ("TPU v4", (4, 4, 4), 1),
    ("TPU v5p", (4, 4, 12), 1),
    ("TPU v6 lite", (4, 8), 1),
    ("TPU v5 lite", (8, 8), 2),
    ("TPU v5p", (4, 4, 4), 2),
    ("TPU v5 lite", (4, 4), 4),
])  # fmt: skip
def test_every_mesh_is_laid_out_also_where_sides_of_the_torus_are_split(kind, sides, slices):
    devices = chips(kind, *sides, slices=slices)
    for data, fsdp, tensor in all_sizes(len(devices) // slices):
        mesh = laid_out((slices * data, fsdp, tensor), devices)
        assert mesh.devices.shape == (slices * data, fsdp, tensor)
        assert set(mesh.devices.flat) == set(devices)
        by_slice = mesh.devices.reshape(slices, -1)
        assert all(len({device.slice_index for device in row}) == 1 for row in by_slice)


def test_neighbors_along_a_split_side_are_neighbors_in_the_torus():
    """Tensor, of which most is sent, lies along one side of 4 chips that it shares with fsdp."""
    mesh = laid_out((1, 32, 2), chips("TPU v4", 4, 4, 4))
    for one, other in mesh.devices.reshape(32, 2):
        assert np.abs(np.subtract(one.coords, other.coords)).sum() == 1


def test_a_mesh_that_jax_cannot_lay_out_is_refused_in_one_line():
    """It splits sides with different factors, 2 x 2 x 5 here, in the wrong places."""
    devices = chips("TPU v5p", 8, 12, 20)
    with pytest.raises(ShardingError) as error:
        laid_out((8, 24, 10), devices)
    text = str(error.value)
    assert text.startswith(
        "sharding.mesh: data=8, fsdp=24, tensor=10 cannot be laid out on 8x12x20 chips by JAX ("
    )
    assert text.endswith("); choose sizes that are products of whole sides")
    assert "\n" not in text
    for sides in permutations((8, 12, 20)):  # as told
        assert laid_out(sides, devices).devices.shape == sides
        assert laid_out((1, sides[0] * sides[1], sides[2]), devices).devices.shape[2] == sides[2]
    with pytest.raises(ShardingError) as error:
        laid_out((16, 24, 10), [*devices, *chips("TPU v5p", 8, 12, 20, slices=2)[1920:]])
    assert "on 2 slices of 8x12x20 chips by JAX (" in str(error.value)


def test_auto_spans_the_slices_with_data_and_the_chips_of_one_with_fsdp():
    devices = chips("TPU v5 lite", 2, 2, slices=2)
    mesh = make_mesh(ShardingConfig(), devices)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert [{chip.slice_index for chip in row.flat} for row in mesh.devices] == [{0}, {1}]
    assert describe_mesh(mesh) == "8 devices (TPU v5 lite) in 1 process and 2 slices: data=2 fsdp=4 tensor=1"
    assert dict(make_mesh(ShardingConfig(mesh=MeshConfig(fsdp=2)), devices).shape)["data"] == 4


@pytest.mark.parametrize("slices", [1, 2, 4, 8])
def test_slices_that_are_given_are_equal_parts_in_the_order_of_the_processes(slices):
    devices = jax.devices()[::-1]
    mesh = make_mesh(ShardingConfig(slices=slices), devices)
    assert dict(mesh.shape) == {"data": slices, "fsdp": 8 // slices, "tensor": 1}
    found = [{device.id for device in row.flat} for row in mesh.devices]
    each = 8 // slices
    assert found == [set(range(start, start + each)) for start in range(0, 8, each)]


@pytest.mark.parametrize(
    ("slices", "devices", "told"),
    [
        (3, jax.devices(), "3 given, which does not divide 8 devices; use a divisor"),
        (4, chips("TPU v5 lite", 2, 2, slices=2), "4 given, but the TPU chips are in 2; leave it out"),
        (1, chips("TPU v5 lite", 2, 2, slices=2), "1 given, but the TPU chips are in 2; leave it out"),
    ],
)
def test_slices_that_are_not_there_are_refused(slices, devices, told):
    with pytest.raises(ShardingError) as error:
        make_mesh(ShardingConfig(slices=slices), devices)
    assert str(error.value) == f"sharding.slices: {told}"


def test_over_several_slices_only_data_may_span_them():
    with pytest.raises(ShardingError) as error:
        make_mesh(ShardingConfig(mesh=MeshConfig(data=1)), chips("TPU v5 lite", 2, 2, slices=2))
    assert str(error.value) == (
        "sharding.mesh: data=1 cannot be spread over 2 slices; use a multiple of 2, "
        "so that fsdp and tensor stay inside a slice"
    )
