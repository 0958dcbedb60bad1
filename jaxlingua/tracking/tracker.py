"""Metrics from the device to the reader, one step behind, so that the device never waits for the host."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlingua.config import TrackingConfig
from jaxlingua.errors import MachineError
from jaxlingua.progress import duration
from jaxlingua.tracking.compiling import COMPILED
from jaxlingua.tracking.console import Console
from jaxlingua.tracking.device import MemoryPeaks, device_memory_gib, fetch, host_memory_gib, write_peaks
from jaxlingua.tracking.goodput import INPUT_BOUND, GoodputLog
from jaxlingua.tracking.speed import ModelSize, StepClock, peak_flops
from jaxlingua.tracking.trace import Tracer
from jaxlingua.tracking.writer import MetricWriter


@dataclass(frozen=True)
class StageFacts:
    """What a line needs to know of its stage.

    `group_names` are (mixture entry, language) in the order of the metrics' groups, `tokens_per_step` the
    positions that documents fill in one batch, `keys` how many keys each sees on average (`mean_keys`),
    `is_anchored` whether anything is added to its loss.
    """

    name: str
    group_names: Sequence[tuple[str, str]]
    tokens_per_step: float | int
    keys: float | int
    is_anchored: bool = False


class Tracker:
    """Takes each step's metrics as they are dispatched, and tells them once they have arrived.

    A line holds the loss, gradient norm and learning rate of its own step; seconds and tokens per second are
    means over the steps since the line before. Call `flush` before a checkpoint is saved, for its line to be
    written.
    """

    def __init__(
        self,
        writer: MetricWriter | None,
        console: Console,
        size: ModelSize,
        *,
        total_steps: int,
        log_every_steps: int,
        clock: StepClock | None = None,
        goodput: GoodputLog | None = None,
        tracer: Tracer | None = None,
        folder: Path | None = None,
    ):
        """`writer`, `goodput`, `tracer`, `folder` of the run: None in all processes but the first."""
        self.console = console
        self.clock = clock or StepClock()
        self._goodput, self._tracer, self._folder = goodput, tracer, folder
        self._peaks = MemoryPeaks()
        self._writer, self._size = writer, size
        self._total_steps, self._log_every_steps = total_steps, log_every_steps
        device = jax.devices()[0]
        peak = peak_flops(device.device_kind)
        self._peak = None if peak is None else peak * jax.device_count()
        if self._peak is None:
            console.say(f"MFU is not told: the peak of '{device.device_kind}' is not known.")
        self._stage: StageFacts | None = None
        self._dispatched: tuple[int, Any] | None = None
        self._arrived: tuple[int, Any] | None = None
        self._added: dict[str, float | int | None] = {}
        self._window_steps, self._window_seconds, self._window_target_tokens = 0, 0.0, 0
        self._starved_since: float | None = None

    def start_stage(self, facts: StageFacts) -> None:
        """The steps that follow belong to this stage."""
        self.flush()
        self._stage = facts

    def starved(self) -> None:
        """No batch is ready; asked again and again until one is.

        Once the device is done with the last step that was dispatched, it waits for data, which is counted.
        Cost: none while batches are ready; a look whether a step has arrived every 5 ms while none is.
        """
        if self._starved_since is None and (self._dispatched is None or self._dispatched[1].loss.is_ready()):
            self._arrive()
            self._starved_since = self.clock.now()

    @contextmanager
    def dispatching(self, step: int, *, is_compiled: bool) -> Iterator[None]:
        """Within, `step` is dispatched.

        Args:
            is_compiled: whether its program is compiled first, which is no training.
        """
        if self._starved_since is not None:
            self.clock.waited(self._starved_since)
            self._starved_since = None
        if self._tracer is not None and self._tracer.starts_before(step):
            with self.paused("trace"):
                self._tracer.start()
        with (
            self.paused("compile") if is_compiled else nullcontext(),
            COMPILED.during("step", self._name()),
            jax.profiler.StepTraceAnnotation("step", step_num=step),
        ):
            yield

    def step(self, step: int, metrics: Any) -> tuple[int, Any] | None:
        """Take the metrics of a step just dispatched; hand back those of the step before, now on the host.

        Args:
            metrics: named tuple of arrays with `loss`, `target_tokens`, `group_loss`, `group_target_tokens`,
                `grad_norm`, `learning_rate`, `skipped`, `skipped_steps`, and of an anchored stage
                `anchor_loss`.
        Cost: waits for the step before, while the device works on this one.
        """
        self.clock.start()
        before = self.flush()
        self._dispatched = (step, metrics)
        if self._tracer is not None and self._tracer.ends_after(step):
            with self.paused("trace"):
                self._tracer.stop()
        return before

    def flush(self) -> tuple[int, Any] | None:
        """Wait for the last step that was dispatched, tell it, hand it back; None if all are told."""
        self._arrive()
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            self._tell(*arrived)
        return arrived

    @contextmanager
    def paused(self, kind: str) -> Iterator[None]:
        """What happens within is no training: "compile", "held_out", "checkpoint", "eval", "begin", "trace".

        Cost: waits for the last step that was dispatched.
        """
        self._arrive()
        with self.clock.paused(kind), COMPILED.during(kind, self._name()), jax.profiler.TraceAnnotation(kind):
            yield
        self._peaks.note(f"{kind} of stage {self._name()}" if self._stage is not None else kind)

    def end_stage(self, gather: Callable[[Any], list]) -> None:
        """The stage is trained and evaluated: all processes tell how much memory they have held.

        Args:
            gather: the values of all processes, in all of them.
        """
        waited, stepped = self.clock.waited_seconds, self.clock.step_seconds
        if waited > INPUT_BOUND * stepped:
            self.console.say(
                f"devices waited for data in {100 * waited / stepped:.0f} % of the time of steps so far; "
                f"docs/profiling.md tells what to do"
            )
        of_processes = gather(self._peaks.found)
        if self._folder is not None:
            write_peaks(self._folder, of_processes)

    def add(self, values: Mapping[str, float | int | None]) -> None:
        """Numbers for the line of the last step, which is then written in any case: held-out losses."""
        if self._dispatched is None and self._arrived is None:
            raise ValueError("there is no step whose line is still to be written")
        self._added.update(values)

    def close(self) -> None:
        """Tell what has not been told, and close every file.

        Raises: MachineError if the disk refuses it, unless the run ends with another error anyway.
        """
        ended_by = sys.exception()
        try:
            self.flush()
            if self._tracer is not None:
                self._tracer.stop()
        except MachineError:
            if ended_by is None:
                raise
        finally:
            self.console.close()
            if self._goodput is not None:
                self._goodput.close()
            if self._writer is not None:
                self._writer.close()

    def _name(self) -> str:
        return self._stage.name if self._stage is not None else ""

    def _arrive(self) -> None:
        if self._dispatched is None:
            return
        step, metrics = self._dispatched
        self._dispatched = None
        with jax.profiler.TraceAnnotation("arrive", step_num=step):
            metrics = fetch(metrics)
        self._arrived = (step, metrics)
        self._window_seconds += self.clock.tick()
        self._window_steps += 1
        self._window_target_tokens += int(metrics.target_tokens)

    def _tell(self, step: int, metrics: Any) -> None:
        is_logged = bool(self._added) or step % self._log_every_steps == 0 or step == self._total_steps
        if metrics.skipped:
            self.console.say(
                f"step {step}: loss or gradient is not finite, the step changed nothing "
                f"({int(metrics.skipped_steps)} such steps so far)"
            )
        seconds = self._window_seconds / self._window_steps
        tokens_per_second = _ratio(self._window_target_tokens, self._window_seconds)
        left = duration(self.clock.seconds_left(self._total_steps - step))
        rate = "?" if tokens_per_second is None else f"{tokens_per_second:,.0f}"
        told = (
            f"{self._stage.name}: step {step} of {self._total_steps}, loss {metrics.loss:.4f}, "
            f"{rate} target tokens/s, {left} left"
        )
        self.console.progress(step, self._total_steps, told, is_logged=is_logged)
        if self._goodput is not None:
            self._goodput.note(step)
        if not is_logged:
            return
        self._peaks.note(f"step {step:,} of stage {self._stage.name}")
        if self._tracer is not None:
            self._tracer.take_request(step)
        if self._writer is not None:
            line = self._line(metrics, seconds, tokens_per_second) | self._added
            self._writer.write(step, self._stage.name, line)
        self._added = {}
        self._window_steps, self._window_seconds, self._window_target_tokens = 0, 0.0, 0

    def _line(
        self,
        metrics: Any,
        seconds: float,
        tokens_per_second: float | None,
    ) -> dict[str, float | int | None]:
        line = {
            "loss": float(metrics.loss),
            "target_tokens": int(metrics.target_tokens),
            "target_tokens_per_second": tokens_per_second,
            "step_seconds": seconds,
            "learning_rate": float(metrics.learning_rate),
            "grad_norm": float(metrics.grad_norm),
            "skipped_steps": int(metrics.skipped_steps),
            "host_memory_gib": host_memory_gib(),
        }
        if self._stage.is_anchored:
            line["anchor_loss"] = float(metrics.anchor_loss)
        device_memory = device_memory_gib()
        if device_memory is not None:
            line["device_memory_gib"] = device_memory
        if self._peak is not None and seconds > 0:
            line["mfu"], line["mfu_with_attention"] = self._mfu(seconds)
        names = self._stage.group_names
        return line | group_means("loss", names, metrics.group_loss, metrics.group_target_tokens)

    def _mfu(self, seconds: float) -> tuple[float, float]:
        """Useful operations over what the devices could do at their bf16 peak, without and with attention."""
        tokens_per_peak = self._stage.tokens_per_step / (seconds * self._peak)
        return (
            tokens_per_peak * self._size.flops_per_token(),
            tokens_per_peak * self._size.flops_per_token_with_attention(self._stage.keys),
        )


def open_tracker(
    folder: Path,
    config: TrackingConfig,
    size: ModelSize,
    console: Console,
    *,
    total_steps: int,
    restored_step: int | None,
    run_config: Mapping[str, Any],
) -> Tracker:
    """The tracker of a run in `folder` that goes on from `restored_step` (None: from its beginning)."""
    clock, goodput, writer, tracer = StepClock(), None, None, None
    is_primary = jax.process_index() == 0
    if is_primary:
        writer = MetricWriter(folder, config, restored_step, run_config)
        goodput = GoodputLog(folder, restored_step, clock)
        tracer = Tracer(
            folder, config.trace_steps, console.say, total_steps=total_steps, restored_step=restored_step
        )
    if writer is not None and writer.dropped_lines:
        console.say(
            f"metrics.jsonl: {writer.dropped_lines} lines after step {restored_step or 0} dropped; "
            f"their steps are run again"
        )
    return Tracker(
        writer,
        console,
        size,
        total_steps=total_steps,
        log_every_steps=config.log_every_steps,
        clock=clock,
        goodput=goodput,
        tracer=tracer,
        folder=folder if is_primary else None,
    )


def _ratio(amount: float | int, over: float | int) -> float | None:
    return amount / over if over else None


def group_means(
    prefix: str,
    names: Sequence[tuple[str, str]],
    sums: np.ndarray,
    counts: np.ndarray,
) -> dict[str, float]:
    """`prefix/<entry>/<language>`: sum over count of every group that has a count.

    >>> names = [("news", "tha_Thai"), ("qa", "eng_Latn")]
    >>> group_means("loss", names, np.array([6.0, 0.0]), np.array([4, 0]))
    {'loss/news/tha_Thai': 1.5}
    """
    return {
        f"{prefix}/{entry}/{language}": float(total / count)
        for (entry, language), total, count in zip(names, sums, counts, strict=True)
        if count
    }
