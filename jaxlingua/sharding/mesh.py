"""The grid of devices: axes data, fsdp and tensor."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from jaxlingua.config import ShardingConfig
from jaxlingua.errors import ShardingError

AXES = ("data", "fsdp", "tensor")

# Which "auto" takes the devices that are left: sharded weights first, since they cost no memory.
_AUTO_ORDER = ("fsdp", "data", "tensor")


def make_mesh(config: ShardingConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Arrange the devices as data x fsdp x tensor; over several slices `data` spans the slow network.

    Sides of a torus of TPU chips are split where the axes cannot lie along whole ones.

    Args:
        devices: those of this run unless given; plans give devices that are not attached.

    Raises: ShardingError if the sizes do not multiply to the number of devices, or JAX cannot lay them out.
    """
    devices = list(jax.devices() if devices is None else devices)
    given = {axis: getattr(config.mesh, axis) for axis in AXES}
    sizes = tuple(mesh_sizes(given, len(devices)).values())
    types = (AxisType.Auto,) * len(AXES)  # Explicit ones would refuse most constraints
    slices = count_slices(devices)
    if sizes[0] % slices:
        raise ShardingError(
            f"sharding.mesh: data={sizes[0]} cannot be spread over {slices} slices; "
            f"use a multiple of {slices}, so that fsdp and tensor stay inside a slice"
        )
    return Mesh(_grid(sizes, slices, devices), AXES, axis_types=types)


def count_slices(devices: Iterable[Any]) -> int:
    """In how many parts that only the slow network connects these devices are."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _grid(sizes: tuple[int, ...], slices: int, devices: list[Any]) -> np.ndarray:
    """The devices in their places: neighbors along an axis are neighbors in the torus as far as possible."""
    try:
        if slices == 1:
            return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        inside = (sizes[0] // slices, *sizes[1:])
        return mesh_utils.create_hybrid_device_mesh(
            inside, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:  # all of these occur
        shown = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        reason = str(error).split("\n")[0][:100]
        raise ShardingError(
            f"sharding.mesh: {shown} cannot be laid out on {_shape(slices, devices)} by JAX ({reason}); "
            f"choose sizes that are products of whole sides"
        ) from None


def _shape(slices: int, devices: list[Any]) -> str:
    """Such as "8x12x20 chips"; a plain number where devices have no coordinates."""
    coordinates = [device.coords for device in devices if getattr(device, "coords", None) is not None]
    sides = [max(along) - min(along) + 1 for along in zip(*coordinates, strict=True)]
    shown = "x".join(str(side) for side in sides) or str(len(devices) // slices)
    return f"{shown} chips" if slices == 1 else f"{slices} slices of {shown} chips"


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
