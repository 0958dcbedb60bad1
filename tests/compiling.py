"""How tests have XLA compile: as quickly as it can, for so many virtual CPU devices."""

from importlib.metadata import version

# The emitters of fused loops that older programs had: a gradient of the tiny model took 1.4 s of a CPU to compile
# in place of 4.9 s. XLA ends a process that gives it a flag it does not know, so other versions go without.
_QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def xla_flags(devices: int = 1) -> str:
    """What XLA_FLAGS is to be for a process with so many devices."""
    known = _QUICK if version("jaxlib").startswith("0.10.") else ""
    return f"{known} --xla_force_host_platform_device_count={devices}".strip()
