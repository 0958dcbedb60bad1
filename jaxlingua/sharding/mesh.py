"""The grid of devices: axes data, fsdp and tensor."""

import math
from collections.abc import Sequence
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

    Sides of a torus of TPU chips are split where the axes cannot lie along whole ones. What is summed over
    `data` alone, the gradients of each micro-batch, is all that goes between slices.

    Args:
        devices: those of this run unless given; plans give devices that are not attached.

    Raises: ShardingError if the sizes do not multiply to the number of devices, or JAX cannot lay them out.
    """
    slices = split_slices(config.slices, list(jax.devices() if devices is None else devices))
    given = {axis: getattr(config.mesh, axis) for axis in AXES}
    sizes = tuple(mesh_sizes(given, sum(map(len, slices)), len(slices)).values())
    types = (AxisType.Auto,) * len(AXES)  # Explicit ones would refuse most constraints
    return Mesh(_grid(sizes, slices), AXES, axis_types=types)


def split_slices(given: int | str, devices: list[Any]) -> list[list[Any]]:
    """The devices of each slice: parts that only the slow network connects.

    Args:
        given: `sharding.slices`. The parts are what the devices say for "auto"; else so many equal ones, in
            the order of their processes.

    Raises: ShardingError for TPU chips that are in another number of slices, and for devices that cannot be
        split into so many.
    """
    found: dict[int, list[Any]] = {}
    for device in devices:
        found.setdefault(getattr(device, "slice_index", 0), []).append(device)
    if given in ("auto", len(found)):
        return [found[index] for index in sorted(found)]
    count = int(given)
    if devices[0].platform == "tpu":
        raise ShardingError(
            f"sharding.slices: {count} given, but the TPU chips are in {len(found)}; leave it out"
        )
    if len(devices) % count:
        raise ShardingError(
            f"sharding.slices: {count} given, which does not divide {len(devices)} devices; use a divisor"
        )
    ordered, each = sorted(devices, key=lambda one: (one.process_index, one.id)), len(devices) // count
    return [ordered[start : start + each] for start in range(0, len(ordered), each)]


def _grid(sizes: tuple[int, ...], slices: list[list[Any]]) -> np.ndarray:
    """The devices in their places: neighbors along an axis are neighbors in the torus as far as possible."""
    inside = (sizes[0] // len(slices), *sizes[1:])
    try:
        grids = [
            mesh_utils.create_device_mesh(inside, each, allow_split_physical_axes=True) for each in slices
        ]
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:  # all of these occur
        shown = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        reason = str(error).split("\n")[0][:100]
        raise ShardingError(
            f"sharding.mesh: {shown} cannot be laid out on {_shape(slices)} by JAX ({reason}); "
            f"choose sizes that are products of whole sides"
        ) from None
    return np.concatenate(grids, axis=AXES.index("data"))


def _shape(slices: list[list[Any]]) -> str:
    """Such as "8x12x20 chips"; a plain number where devices have no coordinates."""
    coordinates = [device.coords for device in slices[0] if getattr(device, "coords", None) is not None]
    sides = [max(along) - min(along) + 1 for along in zip(*coordinates, strict=True)]
    shown = "x".join(str(side) for side in sides) or str(len(slices[0]))
    return f"{shown} chips" if len(slices) == 1 else f"{len(slices)} slices of {shown} chips"


def mesh_sizes(given: dict[str, int | str], devices: int, slices: int = 1) -> dict[str, int]:
    """Size of each mesh axis, with every "auto" replaced.

    An "auto" for data is the number of slices. The first "auto" of fsdp, data, tensor takes the devices that
    are left; the others become 1.

    Raises: ShardingError if the product is not `devices`, or data no multiple of the slices.
    Example:
        >>> mesh_sizes({"data": 2, "fsdp": "auto", "tensor": "auto"}, devices=8)
        {'data': 2, 'fsdp': 4, 'tensor': 1}
        >>> mesh_sizes({"data": "auto", "fsdp": "auto", "tensor": 1}, devices=512, slices=2)
        {'data': 2, 'fsdp': 256, 'tensor': 1}
    """
    fixed = math.prod(size for size in given.values() if size != "auto")
    autos = [axis for axis in _AUTO_ORDER if given[axis] == "auto"]
    sizes = {axis: 1 if size == "auto" else int(size) for axis, size in given.items()}
    if autos and devices % fixed == 0:
        if "data" in autos and devices // fixed % slices == 0:
            sizes["data"] = slices
            fixed *= slices
        sizes[autos[0]] *= devices // fixed
    if math.prod(sizes.values()) != devices:
        shown = ", ".join(f"{axis}={size}" for axis, size in given.items())
        wanted = "a product that divides" if autos else "a product of"
        raise ShardingError(
            f"sharding.mesh: {shown} gives {fixed}, but there are {devices} devices; "
            f"choose sizes with {wanted} {devices}, or write fsdp=auto"
        )
    if sizes["data"] % slices:
        raise ShardingError(
            f"sharding.mesh: data={sizes['data']} cannot be spread over {slices} slices; "
            f"use a multiple of {slices}, so that fsdp and tensor stay inside a slice"
        )
    return sizes


def describe_mesh(mesh: Mesh, slices: int | str = "auto") -> str:
    """One line for the log: what the mesh became and on which devices.

    Args:
        slices: `sharding.slices`.

    Example: "8 devices (cpu) in 2 processes and 2 slices: data=2 fsdp=4 tensor=1".
    """
    count = len(split_slices(slices, list(mesh.devices.flat)))
    within = f" and {count} slices" if count > 1 else ""
    devices = mesh.devices.flat
    processes = len({device.process_index for device in devices})
    sizes = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    kind = mesh.devices.flat[0].device_kind
    plural = "es" if processes > 1 else ""
    number = f"{mesh.size} device{'s' if mesh.size > 1 else ''}"
    return f"{number} ({kind}) in {processes} process{plural}{within}: {sizes}"
