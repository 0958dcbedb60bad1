"""Seconds that went into making programs, by what these were for: JAX tells of each, also of small ones."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import jax

_KINDS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
PARTS = tuple(_KINDS.values())
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


@dataclass
class Compiled:
    """What programs of one purpose took.

    Args:
        purpose: "step", "held_out", "eval", "checkpoint", "begin"; "starting" before and between these.
        stage: "" before the first one.
        tracing, lowering, compiling: seconds of Python to a program of JAX's, of that to XLA's, of XLA. What
            comes from the persistent cache is read in `compiling` too.
        programs: how many XLA was asked for.
        cached: how many of these came from the persistent cache.
    """

    purpose: str
    stage: str = ""
    tracing: float = 0.0
    lowering: float = 0.0
    compiling: float = 0.0
    programs: int = 0
    cached: int = 0

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {part: round(getattr(self, part), 3) for part in PARTS}


class CompileLog:
    """Adds up what JAX tells. A program that is traced within another one's tracing counts once."""

    def __init__(self):
        self._found: dict[tuple[str, str], Compiled] = {}
        self._at: tuple[str, str] = ("starting", "")
        self._spans = threading.local()  # of this thread, those that no longer one has taken in yet

    @contextmanager
    def during(self, purpose: str, stage: str) -> Iterator[None]:
        """Programs made within, by any thread, are for this."""
        before, self._at = self._at, (purpose, stage)
        try:
            yield
        finally:
            self._at = before

    def entries(self) -> list[Compiled]:
        """One for each purpose and stage, in the order in which they came."""
        return list(self._found.values())

    def take_span(self, event: str, start: float, end: float, **_: Any) -> None:
        """JAX's listener: something took from `start` to `end`, of which inner spans were told before."""
        if event not in _KINDS:
            return
        open_spans = self._spans.__dict__.setdefault("open", [])
        inner = 0.0
        while open_spans and open_spans[-1][0] >= start:
            inner += open_spans.pop()[1]
        open_spans.append((start, end - start))
        del open_spans[:-100]
        entry, kind = self._entry(), _KINDS[event]
        setattr(entry, kind, getattr(entry, kind) + max(end - start - inner, 0.0))
        entry.programs += kind == "compiling"

    def take_event(self, event: str, **_: Any) -> None:
        """JAX's listener: something happened."""
        if event == _CACHE_HIT:
            self._entry().cached += 1

    def _entry(self) -> Compiled:
        return self._found.setdefault(self._at, Compiled(*self._at))


def listen() -> CompileLog:
    """A log that JAX tells from now on."""
    log = CompileLog()
    jax.monitoring.register_event_time_span_listener(log.take_span)
    jax.monitoring.register_event_listener(log.take_event)
    return log


COMPILED = listen()  # of this process, from its first program on
