"""Drawing ahead: examples that are drawn anew each time, tokenized in other processes while a step runs."""

import contextlib
import multiprocessing
import os
import queue
import signal
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
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
        self._threads: ThreadPoolExecutor | None = None  # one for each worker waits for what it draws
        self._free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._processes: list[SpawnProcess] = []

    def draw(self, wanted: Mapping[str, Wanted]) -> dict[str, Drawn]:
        """Draw now, here."""
        return self._drawing.draw(wanted, self._tokenizer)

    def submit(self, wanted: Mapping[str, Wanted]) -> Future[dict[str, Drawn]]:
        """Begin to draw. The future raises MachineError if the worker died, and what drawing raises."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max(self.workers, 1), "jaxlingua-draw")
            self._start_workers()
        if not self.workers:
            return self._threads.submit(self._drawing.draw, dict(wanted), self._tokenizer)
        return self._threads.submit(self._asked, dict(wanted))

    def close(self) -> None:
        """End the workers; nothing more can be drawn."""
        for process in self._processes:
            process.kill()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _asked(self, wanted: dict[str, Wanted]) -> dict[str, Drawn]:
        worker = self._free.get()
        try:
            worker.send(wanted)
            drawn = worker.recv()
        except (EOFError, OSError):
            self._free.put(worker)  # whoever comes next is told the same
            raise MachineError(
                f"data.workers: one of {self.workers} that draw examples died or could not start; each needs "
                f"memory, and a script that calls jaxlingua needs `if __name__ == '__main__':`; set "
                f"data.workers=0 and run the same command again"
            ) from None
        self._free.put(worker)
        if isinstance(drawn, BaseException):
            raise drawn
        return drawn

    def _start_workers(self) -> None:
        """Processes that know nothing of this one but a pipe; where it is cut, they end."""
        if not self.workers:
            return
        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.save(Path(folder))
            files = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
        context = multiprocessing.get_context("spawn")
        for _ in range(self.workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._drawing, files), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._free.put(ours)


def _work(asked: Connection, drawing: Drawing, tokenizer_files: dict[str, bytes]) -> None:
    """What a worker does: draws what comes through the pipe, until nobody is there any more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the run decides when it stops, and saves first
    with tempfile.TemporaryDirectory() as folder:
        for name, content in tokenizer_files.items():
            (Path(folder) / name).write_bytes(content)
        tokenizer = tokenizer_of_folder(folder)
    with contextlib.suppress(EOFError, OSError):
        while True:
            wanted = asked.recv()
            try:
                drawn = drawing.draw(wanted, tokenizer)
            except Exception as error:  # raised again where it was asked for
                drawn = error
            asked.send(drawn)
