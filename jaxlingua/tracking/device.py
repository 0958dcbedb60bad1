"""The one way from a device to the host, and how much memory is in use."""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import jax

from jaxlingua.errors import machine_error

GIB = 2**30
PEAKS = "memory.json"
_GROWTH = 1.01  # less is no new peak: the moment that is told is when most was there


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


class MemoryPeaks:
    """The most memory that this process has held, on its host and on any of its devices, and when."""

    def __init__(self):
        self.found: dict[str, dict[str, Any]] = {}
        self.note("starting")

    def note(self, at: str) -> None:
        """Look whether there was more than before.

        Args:
            at: what has just been done, in words, such as "step 40 of stage coit".
        """
        for kind, gib in (("host", host_memory_gib()), ("device", device_memory_gib())):
            if gib is None:
                continue
            before = self.found.get(kind)
            is_new = before is None or gib > before["gib"] * _GROWTH
            self.found[kind] = {"gib": gib, "at": at if is_new else before["at"]}


def read_peaks(folder: Path) -> dict[str, dict[str, Any]]:
    """The highest of each kind, as RUN/memory.json tells; none where that is absent or damaged."""
    try:
        highest = json.loads((folder / PEAKS).read_text("utf-8"))["highest"]
        return {kind: one for kind, one in highest.items() if {"gib", "at", "process"} <= set(one)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_peaks(folder: Path, of_processes: list[dict[str, dict[str, Any]]]) -> None:
    """RUN/memory.json: peaks by process, and for each kind the highest.

    Raises: MachineError if the disk refuses it.
    """
    highest = {
        kind: max(
            ({**found[kind], "process": index} for index, found in enumerate(of_processes) if kind in found),
            key=lambda one: one["gib"],
        )
        for kind in dict.fromkeys(kind for found in of_processes for kind in found)
    }
    content = json.dumps({"highest": highest, "processes": of_processes}, indent=1)
    path, beside = folder / PEAKS, folder / f".{PEAKS}.partial"
    try:
        beside.write_text(content + "\n", "utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise machine_error(path, error) from None
