"""Rows to devices: each process builds only its own rows of a batch, ahead of the step that wants them."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from jaxlingua.sharding.rules import batch_sharding, check_rows

WAIT_SECONDS = 0.005

# (step, start_row, stop_row) -> a tree of NumPy arrays that holds these rows of the batch of this step.
BatchFunction = Callable[[int, int, int], Any]


def feed(
    batch_fn: BatchFunction,
    steps: Iterable[int],
    batch_rows: int,
    mesh: Mesh,
    depth: int = 2,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Any]]:
    """Yield (step, batch on the mesh) for each step, up to `depth` batches ahead of the caller.

    A thread builds and places them, so devices do not wait for Python. What it raises is raised here.

    Args:
        on_wait: called again and again while the caller waits for a batch that is not ready.
    """
    check_rows("train.batch_rows", batch_rows, mesh)
    placed = ((step, place_rows(batch_fn, step, batch_rows, mesh)) for step in steps)
    return ahead(placed, depth, on_wait)


def place_rows(batch_fn: BatchFunction, step: int, batch_rows: int, mesh: Mesh) -> Any:
    """The batch of `step` as global arrays, from only those rows that this process holds."""
    sharding = batch_sharding(mesh)
    slices = sharding.addressable_devices_indices_map((batch_rows,)).values()
    ranges = local_ranges([rows.indices(batch_rows)[:2] for (rows,) in slices])
    pieces = [(start, batch_fn(step, start, stop)) for start, stop in ranges]

    def place(*leaves: Any) -> Any:
        def rows_of(index: tuple[slice, ...]) -> Any:
            start, stop, _ = index[0].indices(batch_rows)
            first, leaf = next(
                (first, leaf)
                for (first, _), leaf in zip(pieces, leaves, strict=True)
                if first <= start < first + len(leaf)
            )
            return leaf[start - first : stop - first]

        shape = (batch_rows, *leaves[0].shape[1:])
        return jax.make_array_from_callback(shape, sharding, rows_of)

    return jax.tree.map(place, *(piece for _, piece in pieces))


def local_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Row ranges, without repetition and with neighbors joined.

    Example:
        >>> local_ranges([(8, 12), (0, 4), (4, 8), (0, 4), (20, 24)])
        [(0, 12), (20, 24)]
    """
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(set(ranges)):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def ahead(items: Iterable[Any], depth: int, on_wait: Callable[[], None] = lambda: None) -> Iterator[Any]:
    """The same items, made by a thread that stays at most `depth` of them ahead."""
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: tuple[str, Any]) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(("item", item))
                if stopped.is_set():
                    return
            put(("end", None))
        except BaseException as error:  # raised again in the caller's thread
            put(("error", error))

    threading.Thread(target=work, name="jaxlingua-feed", daemon=True).start()
    try:
        while True:
            kind, value = _get(ready, on_wait)
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stopped.set()


def _get(ready: queue.Queue, on_wait: Callable[[], None]) -> tuple[str, Any]:
    with jax.profiler.TraceAnnotation("data wait"):
        while True:
            try:
                return ready.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                on_wait()
