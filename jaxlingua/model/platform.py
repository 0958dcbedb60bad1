"""What kind of device a program is traced for, which may not be the one that traces it."""

import jax


def platform() -> str:
    """Of the mesh that the program is traced for: "tpu", "gpu" or "cpu", which is also "no mesh"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    found = "cpu" if device is None else device.platform
    return "gpu" if found in ("cuda", "rocm") else found


def device_kind() -> str:
    """JAX's name of the devices of that mesh, such as "TPU v5 lite"; "" outside of any."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return "" if device is None else device.device_kind
