"""The grid of devices: axes data, fsdp and tensor."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from jaxlingua.config import ShardingConfig
from jaxlingua.errors import ShardingError

AXES = ("data", "fsdp", "tensor")

# Which "auto" takes the devices that are left: sharded weights first, since they cost no memory.
_AUTO_ORDER = ("fsdp", "data", "tensor")


def make_mesh(config: ShardingConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Arrange the devices as data x fsdp x tensor; over several slices `data` spans the slow network.

    Args:
        devices: those of this run unless given; plans give devices that are not attached.

    Raises: ShardingError if the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    given = {axis: getattr(config.mesh, axis) for axis in AXES}
    sizes = tuple(mesh_sizes(given, len(devices)).values())
    types = (AxisType.Auto,) * len(AXES)  # make_mesh would make them Explicit, which refuses most constraints
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
    if sizes[0] % slices:
        raise ShardingError(
            f"sharding.mesh: data={sizes[0]} cannot be spread over {slices} slices; "
            f"use a multiple of {slices}, so that fsdp and tensor stay inside a slice"
        )
    grid = mesh_utils.create_hybrid_device_mesh((sizes[0] // slices, *sizes[1:]), (slices, 1, 1), devices)
    return Mesh(grid, AXES, axis_types=types)


def mesh_sizes(given: dict[str, int | str], devices: int) -> dict[str, int]:
    """Size of each mesh axis, with every "auto" replaced.

    The first "auto" of fsdp, data, tensor takes the devices that are left; the others become 1.

    Raises: ShardingError if the product is not `devices`.
    Example:
        >>> mesh_sizes({"data": 2, "fsdp": "auto", "tensor": "auto"}, devices=8)
        {'data': 2, 'fsdp': 4, 'tensor': 1}
    """
    fixed = math.prod(size for size in given.values() if size != "auto")
    autos = [axis for axis in _AUTO_ORDER if given[axis] == "auto"]
    sizes = {axis: 1 if size == "auto" else int(size) for axis, size in given.items()}
    if autos and devices % fixed == 0:
        sizes[autos[0]] = devices // fixed
    if math.prod(sizes.values()) != devices:
        shown = ", ".join(f"{axis}={size}" for axis, size in given.items())
        wanted = "a product that divides" if autos else "a product of"
        raise ShardingError(
            f"sharding.mesh: {shown} gives {fixed}, but there are {devices} devices; "
            f"choose sizes with {wanted} {devices}, or write fsdp=auto"
        )
    return sizes


def describe_mesh(mesh: Mesh) -> str:
    """One line for the log: what the mesh became and on which devices.

    Example: "8 devices (cpu) in 1 process: data=2 fsdp=4 tensor=1".
    """
    devices = mesh.devices.flat
    processes = len({device.process_index for device in devices})
    sizes = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    kind = mesh.devices.flat[0].device_kind
    plural = "es" if processes > 1 else ""
    return (
        f"{mesh.size} device{'s' if mesh.size > 1 else ''} ({kind}) in {processes} process{plural}: {sizes}"
    )
