"""How tests have XLA compile: as quickly as it can, for so many virtual CPU devices."""

import os
from importlib.metadata import version

from jaxlib import _profiler, xla_client

# The emitters of fused loops that XLA had before: a gradient of the tiny model took 1.4 s of a CPU to compile in
# place of 4.9 s. XLA ends a process that gives it a flag it does not know, so other versions go without.
_QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def xla_flags(devices: int = 1) -> str:
    """What XLA_FLAGS is to be for a program with so many devices that never compiles for TPUs."""
    known = _QUICK if version("jaxlib").startswith("0.10.") else ""
    return f"{known} --xla_force_host_platform_device_count={devices}".strip()


def read_flags(devices: int) -> None:
    """Have this process compile like that, and leave out of its environment what the TPU compiler does not know.

    XLA reads XLA_FLAGS once, when it is first asked for an option.
    """
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{given} {xla_flags(devices)}"
    _ = xla_client.CompileOptions().executable_build_options.debug_options
    os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count={devices}"


def keep_libtpu_from_profiler() -> None:
    """No TPU is traced in tests; that of another version than JAX's own would end the process by a crash."""
    _profiler.register_plugin_profiler = lambda c_api: None
