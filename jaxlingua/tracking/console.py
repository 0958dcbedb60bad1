"""Plain sentences on the console; on a terminal a live line with step, loss, speed and time left."""

import atexit
import io
import sys

import rich.console
import rich.progress


class Console:
    """Where sentences go. Nothing but text and line breaks is written unless `stream` is a terminal."""

    def __init__(self, *, is_primary: bool = True, stream: io.TextIOBase | None = None):
        """`is_primary`: whether this process speaks; in a run of several processes only the first does."""
        self._stream = sys.stdout if stream is None else stream
        self._is_primary = is_primary
        self._rich = rich.console.Console(file=self._stream, highlight=False)
        self._is_live = self._rich.is_terminal and not self._rich.is_dumb_terminal
        self._progress: rich.progress.Progress | None = None

    def say(self, sentence: str) -> None:
        """One line, above the live line if there is one."""
        if not self._is_primary:
            return
        if self._progress is not None:
            self._progress.console.print(sentence, markup=False, soft_wrap=True)
        else:
            print(sentence, file=self._stream, flush=True)

    def progress(self, step: int, total_steps: int, told: str, *, is_logged: bool) -> None:
        """`told` behind a bar that moves with every step; elsewhere a line for each logged step."""
        if not self._is_primary:
            return
        if not self._is_live:
            if is_logged:
                self.say(told)
            return
        if self._progress is None:
            self._progress = rich.progress.Progress(
                rich.progress.BarColumn(bar_width=24),
                rich.progress.TextColumn("{task.description}", markup=False),
                console=self._rich,
            )
            self._progress.add_task("")
            self._progress.start()
            atexit.register(self.close)  # an error must not leave the terminal without its cursor
        self._progress.update(self._progress.task_ids[0], completed=step, total=total_steps, description=told)

    def close(self) -> None:
        """End the live line, which stays on the screen as it was last."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
