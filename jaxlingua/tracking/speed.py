"""How fast it goes: seconds per step, time left, and the share of the devices' arithmetic put to use."""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

# Dense bf16 TFLOP/s of one JAX device, as the makers publish them, never the figure with sparsity. The first
# name whose words the device kind contains counts. A TPU v2 or v3 chip is two devices. A T4 has fp16 only.
PEAK_TFLOPS = {
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5p": 459.0,
    "TPU v5": 459.0,  # what a v5p calls itself
    "TPU v4 lite": 138.0,
    "TPU v4": 275.0,
    "TPU v3": 61.5,
    "TPU v2": 22.5,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "T4": 65.0,
}


def peak_flops(device_kind: str) -> float | None:
    """Floating-point operations per second of one device in bf16; None if they are not known, as for a CPU.

    >>> peak_flops("NVIDIA H100 80GB HBM3")
    989000000000000.0
    >>> peak_flops("cpu")
    """
    for name, tflops in PEAK_TFLOPS.items():
        if re.search(rf"\b{name}\b", device_kind):
            return tflops * 1e12
    return None


@dataclass(frozen=True)
class ModelSize:
    """What decides how many operations a token costs.

    Args:
        parameters: of the model, without adapters.
        adapters: numbers that are trained beside frozen parameters; 0 where all parameters are trained.
    """

    parameters: int
    layers: int
    heads: int
    head_dim: int
    adapters: int = 0

    def flops_per_token(self) -> float:
        """Two operations per parameter forward and four backward; recomputation is never counted.

        The backward pass takes two for the gradient of the activations and two for the parameter's own, which
        frozen ones have not: they count four in all. Six would tell of work that nobody does, and an MFU that
        is half as much again. Turning codes into numbers is no product, and not counted.

        Example:
            >>> ModelSize(1000, 2, 4, 8).flops_per_token(), ModelSize(1000, 2, 4, 8, 50).flops_per_token()
            (6000.0, 4300.0)
        """
        return 4.0 * self.parameters + 6.0 * self.adapters if self.adapters else 6.0 * self.parameters

    def flops_per_token_with_attention(self, keys: float | int) -> float:
        """The same and, for each of `keys` keys that a query sees on average, two products over the heads.

        Example:
            >>> ModelSize(1000, layers=2, heads=4, head_dim=8).flops_per_token_with_attention(keys=10)
            13680.0
        """
        return self.flops_per_token() + 12.0 * self.layers * self.heads * self.head_dim * keys


def mean_keys(lengths: np.ndarray) -> float:
    """How many keys a query sees on average in documents of these lengths, each seeing only itself.

    >>> mean_keys(np.array([3]))
    2.0
    """
    lengths = lengths.astype(np.float64)
    return float((lengths * (lengths + 1) / 2).sum() / max(lengths.sum(), 1))


RECENT_STEPS = 100


@dataclass
class StepClock:
    """Seconds of steps, apart from compilation and other pauses.

    `tick` is called as the result of a step arrives. What lies between two arrivals, less the pauses told, is
    the step's time, since the device works without a break. `waited_seconds` of it it waited for data.
    """

    now: Callable[[], float] = time.perf_counter
    steps: int = 0
    step_seconds: float = 0.0
    waited_seconds: float = 0.0
    paused_seconds: dict[str, float] = field(default_factory=dict)
    recent_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    _once_seconds: float = 0.0  # of pauses that do not come again: compilation, traces, before the first step
    _since: float | None = None
    _pauses: int = 0

    def tick(self) -> float:
        """Seconds that the step took that has just arrived."""
        now = self.now()
        self.start()
        seconds, self._since = now - self._since, now
        self.steps += 1
        self.step_seconds += seconds
        self.recent_seconds.append(seconds)
        return seconds

    def start(self) -> None:
        """The first step has been dispatched; the end of its compilation starts the clock as well."""
        if self._since is None:
            self._since = self.now()

    def waited(self, since: float) -> None:
        """From `since` until now the device waited for data, in the step that comes; not before the first."""
        if self._since is not None:
            self.waited_seconds += self.now() - since

    @contextmanager
    def paused(self, kind: str) -> Iterator[None]:
        """What happens within is no step: "compile", "held_out", "checkpoint", "eval", "begin", "trace"."""
        start = self.now()
        self._pauses += 1
        try:
            yield
        finally:
            seconds = self.now() - start
            self.paused_seconds[kind] = self.paused_seconds.get(kind, 0.0) + seconds
            if self._since is None or kind in ("compile", "trace"):
                self._once_seconds += seconds
            if self._since is not None:
                self._since += seconds
            elif kind == "compile":  # the first step is dispatched
                self._since = start + seconds
            if kind == "compile":  # the steps of another program tell nothing of those to come
                self.recent_seconds.clear()
            self._pauses -= 1

    def waiting_seconds(self) -> float | None:
        """How long the step that is awaited has taken so far; None in a pause and before the first step.

        May be asked by another thread.
        """
        if self._pauses:  # before `_since`, which the end of a pause moves first
            return None
        since = self._since
        return None if since is None else self.now() - since

    def seconds_left(self, steps: int) -> float | None:
        """For so many more steps, with their share of pauses that come again; None before the first."""
        if not self.steps:
            return None
        pauses = sum(self.paused_seconds.values()) - self._once_seconds
        return steps * (self.step_seconds + pauses) / self.steps
