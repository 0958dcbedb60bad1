"""Where every thread is when a step takes far longer than those before it: what a hanging run leaves."""

import faulthandler
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxlingua.progress import duration
from jaxlingua.tracking.speed import StepClock

FLOOR_SECONDS = 5.0
TIMES_MEDIAN = 10
# With so many steps known, two that were slow for a reason of their own do not become the median.
KNOWN_STEPS = 5
# Until then: a process whose program is in its cache waits in its first step for those that compile it,
# which takes some four minutes for 70B, and up to ten where nothing is scanned.
FIRST_SECONDS = 600.0


@contextmanager
def watching(
    clock: StepClock,
    folder: Path,
    say: Callable[[str], None],
    process: int,
    *,
    steps_before: int = 0,
    floor_seconds: float = FLOOR_SECONDS,
    first_seconds: float = FIRST_SECONDS,
) -> Iterator[None]:
    """Within, a step that hangs leaves the stacks of all threads in `folder`, once, and a line that says so.

    A step hangs when it takes ten times the median of the last 100 steps, at least `floor_seconds`; the first
    five after a compilation, `first_seconds`. What the clock counts as a pause is never a step. The run goes
    on: a step may only be slow. Code that holds the interpreter's lock while it hangs is not seen.

    Args:
        process: goes into the file's name, as all processes may write into the same folder.
        steps_before: steps of the run that `clock` has not counted, as after a resume.
        floor_seconds: no wait shorter than this is told.
        first_seconds: the same while there are too few steps to compare with.
    """
    ended = threading.Event()

    def watch() -> None:
        told = -1
        while not ended.wait(min(1.0, floor_seconds / 5)):
            steps, limit = clock.steps, limit_seconds(clock, floor_seconds, first_seconds)
            waiting = clock.waiting_seconds()
            # A step that arrived meanwhile is not the one that was measured.
            if waiting is None or waiting <= limit or steps in (told, clock.steps - 1):
                continue
            told = steps
            step = steps_before + steps + 1
            say(_leave_stacks(folder / f"step-{step}.process-{process}.txt", step, waiting, limit))

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def limit_seconds(clock: StepClock, floor_seconds: float, first_seconds: float) -> float:
    """How long the step that is awaited may take."""
    recent = list(clock.recent_seconds)
    if len(recent) < KNOWN_STEPS:
        return max(floor_seconds, first_seconds)
    return max(floor_seconds, TIMES_MEDIAN * statistics.median(recent))


def _leave_stacks(path: Path, step: int, waiting: float, limit: float) -> str:
    """Write the stacks, and give the line to say."""
    late = f"step {step} takes {duration(waiting)} so far, more than the {duration(limit)} to expect"
    threads = [thread for thread in threading.enumerate() if thread.ident]  # without those about to start
    names = "".join(f"0x{thread.ident:016x} {thread.name}\n" for thread in threads)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write(f"{late}\n\n{names}\n")
            faulthandler.dump_traceback(file, all_threads=True)
    except OSError as error:
        return f"watchdog: {late}; its stacks could not be written: {path}: {error.strerror}"
    return f"watchdog: {late}; the stacks of all threads are in {path}"
