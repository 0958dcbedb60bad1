"""A trace on demand: what devices and host did in some steps of a run, into RUN/traces/<first>-<last>/."""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import jax
from packaging.requirements import Requirement

from jaxlingua.config.train import MOST_TRACED_STEPS
from jaxlingua.errors import JaxlinguaError, one_line
from jaxlingua.tracking.trace_summary import FOLDER, summarize, told

REQUEST = "trace.request"  # in the run folder: how many steps of a run that is under way are to be traced
DEFAULT_STEPS = 5
MAPS = Path("/proc/self/maps")  # which libraries this process has loaded, on Linux


class Tracer:
    """Traces steps of this process; the first process of a run has one.

    A step's work begins when it is dispatched and ends when its result arrives; whoever calls `start` and
    `stop` waits for the step before and for the last one.
    """

    def __init__(
        self,
        folder: Path,
        steps: Sequence[int] | Literal["off"],
        say: Callable[[str], None],
        *,
        total_steps: int,
        restored_step: int | None,
    ):
        """`folder`: of the run. Of steps that this start does not all do the others are traced, and told."""
        self._folder, self._say, self._total_steps = folder, say, total_steps
        self._steps: tuple[int, int] | None = None
        self._is_open = False
        self._refused = ""  # why a request could not be taken, which is said once
        done = restored_step or 0
        if steps == "off":
            return
        first, last = steps
        traced = max(first, done + 1), min(last, total_steps)
        if traced[0] <= traced[1]:
            self._steps = traced
        if traced != (first, last):
            left = f"steps {done + 1} to {total_steps}" if done < total_steps else "no step"
            what = "nothing is" if self._steps is None else f"steps {traced[0]} to {traced[1]} are"
            say(f"tracking.trace_steps: [{first}, {last}] given; this start does {left}; {what} traced")

    def starts_before(self, step: int) -> bool:
        """Whether the trace is to begin before `step` is dispatched."""
        return self._steps is not None and not self._is_open and step == self._steps[0]

    def ends_after(self, step: int) -> bool:
        """Whether the trace is to end when the result of `step` has arrived."""
        return self._is_open and step == self._steps[1]

    def start(self) -> None:
        """Begin; the steps before have arrived. Where it cannot, that is told, and the run goes on without.

        Cost: on some devices seconds the first time.
        """
        if crash := _would_crash():
            self._steps = None
            self._say(f"no trace: {crash}")
            return
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # each call of a function would be told, and would make steps slow
        home = self._home()
        try:
            home.mkdir(parents=True, exist_ok=True)  # now, since JAX keeps a profile that it could not write
            jax.profiler.start_trace(home, profiler_options=options)
        except (OSError, RuntimeError) as error:
            self._steps = None
            self._say(f"no trace: {one_line(error)}")
            return
        self._is_open = True

    def stop(self) -> None:
        """End, and tell what was found; nothing if no trace is open."""
        if not self._is_open:
            return
        self._is_open = False
        home = self._home()
        self._steps = None
        try:
            jax.profiler.stop_trace()
            lines = told(summarize(home), f"{FOLDER}/{home.name}")
        except (OSError, RuntimeError, JaxlinguaError) as error:  # the run goes on without
            lines = [f"no trace: {one_line(error)}"]
        for line in lines:
            self._say(line)

    def take_request(self, step: int) -> None:
        """Trace the steps that follow `step` and the next one, if a file in the run folder asks for it.

        A file that cannot be read or removed is told once, and the run goes on.

        Cost: one look whether the file is there.
        """
        request = self._folder / REQUEST
        if self._steps is not None:
            return
        try:
            if not request.exists():
                return
            content = request.read_text("utf-8", errors="replace").strip()[:20]
            request.unlink()
        except OSError as error:
            if self._refused != (refused := f"{REQUEST}: {one_line(error)}; nothing is traced"):
                self._say(refused)
            self._refused = refused
            return
        steps = int(content) if content.isdecimal() else 0
        if not steps:
            steps = DEFAULT_STEPS
            if content:
                self._say(f"{REQUEST}: '{content}' given, a number of steps is expected; {steps} steps")
        elif steps > MOST_TRACED_STEPS:
            self._say(f"{REQUEST}: {content} steps given; {MOST_TRACED_STEPS} are the most")
            steps = MOST_TRACED_STEPS
        first = step + 2  # the next one is under way
        if first > self._total_steps:
            self._say(f"{REQUEST}: no step is left that could be traced")
            return
        self._steps = first, min(first + steps - 1, self._total_steps)
        self._say(f"{REQUEST}: steps {self._steps[0]} to {self._steps[1]} are traced")

    def _home(self) -> Path:
        return self._folder / FOLDER / f"{self._steps[0]}-{self._steps[1]}"


def _would_crash() -> str:
    """Why JAX's profiler would end this process, in words; empty where it would not.

    jaxlib 0.10.2 ends by a segmentation fault where a libtpu of another layout is loaded, and JAX loads one
    that is installed, such as the compiler of `jaxlingua.plan`, wherever it looks for TPUs.
    """
    if not (MAPS.is_file() and "libtpu.so" in MAPS.read_text("utf-8", errors="replace")):
        return ""
    try:
        there = version("libtpu")
    except PackageNotFoundError:  # one of the machine's own
        return ""
    for text in requires("jax") or ():
        wanted = Requirement(text)
        if wanted.name == "libtpu" and not wanted.specifier.contains(there, prereleases=True):
            return (
                f"libtpu {there} is loaded, and JAX {jax.__version__} traces with {wanted.specifier} only; "
                f"on a CPU set JAX_PLATFORMS=cpu, on a TPU pip install -U 'jaxlingua[tpu]'"
            )
    return ""
