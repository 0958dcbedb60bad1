"""Drawing ahead: examples that are drawn anew each time, tokenized in other processes while a step runs."""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from jaxlingua.data.example import Redrawn
from jaxlingua.errors import MachineError
from jaxlingua.tokens.documents import encode
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.store import Documents, Group
from jaxlingua.tokens.tokenizer import tokenizer_of_folder

MOST_WORKERS = 4  # by themselves; each draws some hundred thousand tokens a second


class Wanted(NamedTuple):
    """Which examples of an entry: slots, and for the how-manieth time each is gone through."""

    slots: Int64[np.ndarray, "examples"]
    passes: Int64[np.ndarray, "examples"]


class Drawn(NamedTuple):
    """Documents of drawn examples, and which of the examples have one."""

    documents: Documents
    kept: Bool[np.ndarray, "examples"]


@dataclass(frozen=True)
class Drawing:
    """How examples are drawn and encoded: all that a worker needs to know beside the tokenizer."""

    entries: Mapping[str, Redrawn]
    group_names: Mapping[str, tuple[Group, ...]]  # of each entry
    row_length_tokens: int
    too_long: Literal["cut", "drop"]

    def draw(self, wanted: Mapping[str, Wanted], tokenizer: Tokenizer) -> dict[str, Drawn]:
        """The documents of each entry, in the order in which they are wanted."""
        drawn = {}
        for entry, (slots, passes) in wanted.items():
            redrawn = self.entries[entry]
            examples = [
                redrawn.draw(slot, number)
                for slot, number in zip(slots.tolist(), passes.tolist(), strict=True)
            ]
            drawn[entry] = Drawn(
                *encode(
                    examples,
                    tokenizer,
                    self.group_names[entry],
                    row_length_tokens=self.row_length_tokens,
                    too_long=self.too_long,
                )
            )
        return drawn


class Drawer:
    """Draws in worker processes, or in a thread of this one where there is none.

    What is drawn does not depend on their number. Workers never import JAX. They are started with the first
    draw, take no signal that is meant for the run, and end when this process does.
    """

    def __init__(self, drawing: Drawing, tokenizer: Tokenizer, workers: int | Literal["auto"]):
        """Args: workers: processes; "auto" is a quarter of the cores, at most 4."""
        self._drawing, self._tokenizer = drawing, tokenizer
        self.workers = min(MOST_WORKERS, (os.cpu_count() or 1) // 4) if workers == "auto" else workers
        self._executor: Executor | None = None

    def submit(self, wanted: Mapping[str, Wanted]) -> Future[dict[str, Drawn]]:
        """Begin to draw.

        Raises: MachineError if a worker died.
        """
        if self._executor is None:
            self._executor = self._started()
        if not self.workers:
            return self._executor.submit(self._drawing.draw, dict(wanted), self._tokenizer)
        with self._told_if_one_died():
            return self._executor.submit(_draw, dict(wanted))

    def result(self, future: Future[dict[str, Drawn]]) -> dict[str, Drawn]:
        """What was drawn.

        Raises: MachineError if a worker died; what went wrong while drawing, as it is.
        """
        with self._told_if_one_died():
            return future.result()

    @contextmanager
    def _told_if_one_died(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool:
            raise MachineError(
                f"data.workers: one of {self.workers} that draw examples died, most often since memory ran "
                f"out; fewer need less; set data.workers=0 and run the same command again"
            ) from None

    def close(self) -> None:
        """End the workers; nothing more can be drawn."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> Executor:
        if not self.workers:
            return ThreadPoolExecutor(1, "jaxlingua-draw")
        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.save(Path(folder))
            files = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
        executor = ProcessPoolExecutor(
            self.workers, multiprocessing.get_context("spawn"), _start_worker, (self._drawing, files)
        )
        try:
            executor.submit(os.getpid).result()
        except BrokenProcessPool:
            raise MachineError(
                f"data.workers: {self.workers} processes could not be started; a script that calls "
                f'jaxlingua needs `if __name__ == "__main__":` around it; or set data.workers=0'
            ) from None
        return executor


# ── in a worker ───────────────────────────────────────────────────────────────────────────────────────────

_worker: tuple[Drawing, Tokenizer] | None = None


def _start_worker(drawing: Drawing, tokenizer_files: dict[str, bytes]) -> None:
    global _worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the run decides when it stops, and saves first
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in tokenizer_files.items():
            (Path(folder) / name).write_bytes(content)
        _worker = drawing, tokenizer_of_folder(folder)


def _end_with_parent() -> None:
    """A run that is killed leaves nobody behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw(wanted: dict[str, Wanted]) -> dict[str, Drawn]:
    drawing, tokenizer = _worker
    return drawing.draw(wanted, tokenizer)
