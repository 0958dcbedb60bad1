"""What breaks into a run while it goes on: a checkpoint that is due by the clock, and a request to stop."""

import time
from collections.abc import Callable
from typing import Literal, NoReturn

from jaxlingua.errors import Stopped
from jaxlingua.processes.roll_call import Group
from jaxlingua.processes.stop import Stop


class Interruptions:
    """Answers at the boundaries of a run, alike in all of its processes.

    A boundary lies after each step and after each batch of an evaluation. Minutes are counted by a clock that
    never jumps, in the first process; the others are told.
    """

    def __init__(
        self,
        group: Group,
        signals: Stop,
        save_every_minutes: float | Literal["off"],
        now: Callable[[], float] = time.monotonic,
    ):
        self._group, self._signals, self._now = group, signals, now
        self._every_seconds = None if save_every_minutes == "off" else 60 * save_every_minutes
        self._saved_at = now()
        signals.is_at_once = True

    def after_step(self, step: int, *, is_saved: bool) -> tuple[bool, bool]:
        """Whether to save after this step, and whether to stop then.

        Args:
            is_saved: whether it is saved in any case.
        """
        self._signals.is_at_once = False
        is_late = self._every_seconds is not None and self._now() - self._saved_at >= self._every_seconds
        if is_late and self._group.is_primary:
            self._saved_at = self._now()  # asked once: several processes act some steps later
            self._group.ask("save")
        asked = self._group.boundary(f"step {step:,}")
        if asked or is_saved:
            self._saved_at = self._now()
        return bool(asked) or is_saved, "stop" in asked

    def stoppable(
        self, on_progress: Callable[[int, int], None], saved_step: int | None
    ) -> Callable[[int, int], None]:
        """`on_progress` of an evaluation that ends where a stop is asked for.

        Args:
            saved_step: where the run will go on.
        """

        def progress(done: int, total: int) -> None:
            on_progress(done, total)
            if "stop" in self._group.boundary("an evaluation"):
                self.stop(saved_step)

        return progress

    def stop(self, saved_step: int | None) -> NoReturn:
        """Raises: Stopped, with the exit code that belongs to what asked for it."""
        code = self._signals.exit_code
        saved = "nothing was to be saved yet" if saved_step is None else f"step {saved_step:,} is saved"
        raise Stopped(f"{saved}; exit code {code}; run the same command again to go on", code)
