"""Sizes of the mesh: "auto" takes what is left, and what does not multiply to the devices is refused."""

import jax
import pytest
from jax.sharding import AxisType

from jaxlingua.config import MeshConfig, ShardingConfig
from jaxlingua.errors import ShardingError
from jaxlingua.sharding.mesh import describe_mesh, make_mesh, mesh_sizes


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


class SliceDevice:
    """A device of one of two slices, as far as the check goes."""

    def __init__(self, slice_index):
        self.slice_index = slice_index


def test_over_several_slices_only_data_may_span_them():
    devices = [SliceDevice(i // 4) for i in range(8)]
    with pytest.raises(ShardingError) as error:
        make_mesh(ShardingConfig(), devices)
    assert str(error.value) == (
        "sharding.mesh: data=1 cannot be spread over 2 slices; use a multiple of 2, "
        "so that fsdp and tensor stay inside a slice"
    )
