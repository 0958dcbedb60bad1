"""The one way from a device to the host, and how much memory is in use."""

import resource
import sys
from typing import Any

import jax

GIB = 2**30


def fetch(tree: Any) -> Any:
    """`tree` with NumPy arrays where there were JAX arrays; waits until they are computed.

    Every transfer goes through here, so that a test can count them: `fetch.calls` grows by one per call,
    however many arrays the tree holds. In several processes the arrays must be replicated.
    """
    fetch.calls += 1
    return jax.device_get(tree)


fetch.calls = 0


def host_memory_gib() -> float:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / GIB


def device_memory_gib() -> float | None:
    """The most that any device of this process has held so far; None where none counts, as on a CPU."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if each and "peak_bytes_in_use" in each]
    return max(peaks) / GIB if peaks else None
