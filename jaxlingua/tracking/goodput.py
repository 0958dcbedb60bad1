"""Goodput: the share of a run's time that went into steps that count, over all of its starts.

RUN/goodput.json has an entry per start. Time between two starts is not the program's and is not counted; of a
start that was killed, the last seconds since it was written are not either. A start that ended before its
first checkpoint is one of them: the next begins at step 0 again.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlingua.errors import MachineError, machine_error
from jaxlingua.tracking.compiling import COMPILED, PARTS, CompileLog
from jaxlingua.tracking.speed import StepClock

FILE = "goodput.json"
SECONDS_BETWEEN_WRITES = 10.0
INPUT_BOUND = 0.05  # share of the steps' time that devices wait for data, above which it is told
_NO_PAUSES = ("first_step", "last_step", "seconds", "steps", "compiled")
_LOADED = time.perf_counter()  # close to when the program began


class GoodputLog:
    """Writes how the time of this start has been spent so far, beside that of the starts before it."""

    def __init__(
        self,
        folder: Path,
        restored_step: int | None,
        clock: StepClock,
        now: Callable[[], float] = time.perf_counter,
        began: float = _LOADED,
        compiled: CompileLog = COMPILED,
    ):
        self._path, self._clock, self._now, self._began = folder / FILE, clock, now, began
        self._compiled = compiled
        self._first_step = self._last_step = restored_step or 0
        self._before = read_starts(folder)
        self._written: float | None = None

    def note(self, step: int, *, is_last: bool = False) -> None:
        """Step `step` is done. Written at most every 10 s, and at the end.

        Raises: MachineError if the disk refuses it.
        """
        self._last_step, now = max(step, self._last_step), self._now()
        if not is_last and self._written is not None and now - self._written < SECONDS_BETWEEN_WRITES:
            return
        self._written = now
        waited = self._clock.waited_seconds
        kinds = {"steps": self._clock.step_seconds - waited, **({"data": waited} if waited else {})}
        kinds |= self._clock.paused_seconds
        start = {
            "first_step": self._first_step,
            "last_step": self._last_step,
            "seconds": round(now - self._began, 3),
            **{kind: round(seconds, 3) for kind, seconds in kinds.items()},
            "compiled": [one.told() for one in self._compiled.entries()],
        }
        beside = self._path.with_name(f".{FILE}.partial")
        try:
            beside.write_text(json.dumps({"starts": [*self._before, start]}, indent=1) + "\n", "utf-8")
            os.replace(beside, self._path)
        except OSError as error:
            raise machine_error(self._path, error) from None

    def close(self) -> None:
        """Write what is known at the end, unless the disk refuses it: a run ends with what ended it."""
        with contextlib.suppress(MachineError):
            self.note(self._last_step, is_last=True)


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The starts of a run, first one first; none where the file is absent or damaged."""
    try:
        starts = json.loads((folder / FILE).read_text("utf-8"))["starts"]
        return [start for start in starts if {"first_step", "last_step", "seconds", "steps"} <= set(start)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def programs_made(starts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What programs took by purpose and stage, over all starts; the longest first."""
    totals: dict[tuple[str, str], dict[str, Any]] = {}
    for one in (one for start in starts for one in start.get("compiled", ())):
        total = totals.setdefault((one["purpose"], one["stage"]), dict.fromkeys(one, 0))
        for name, value in one.items():
            total[name] = value if isinstance(value, str) else round(total[name] + value, 3)
    return sorted(totals.values(), key=lambda one: -sum(one[kind] for kind in PARTS))


def spent(starts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by what they went into; they add up to all of them. Nothing where nothing is known.

    `steps` are those that count. Steps after a checkpoint that a later start went on from are `repeated`; of
    their start's step seconds they get their share by number. `data` is what devices waited for batches in
    steps. `compile` is all making of programs: of a stage's first step until that is dispatched, else what
    JAX told within an evaluation or another pause, which is that much shorter. `starting` is what is left:
    imports, data, tokens, the first parameters, restoring.

    >>> spent([{"first_step": 0, "last_step": 10, "seconds": 30.0, "steps": 20.0, "compile": 5.0},
    ...        {"first_step": 8, "last_step": 12, "seconds": 20.0, "steps": 8.0, "compile": 5.0}])
    {'steps': 24.0, 'repeated': 4.0, 'compile': 10.0, 'starting': 12.0}
    """
    if not starts:
        return {}
    totals = {"steps": 0.0, "repeated": 0.0}
    for place, start in enumerate(starts):
        end = min([start["last_step"], *(later["first_step"] for later in starts[place + 1 :])])
        done = start["last_step"] - start["first_step"]
        lost = (start["last_step"] - max(end, start["first_step"])) / done if done else 0.0
        pauses = {kind: seconds for kind, seconds in start.items() if kind not in _NO_PAUSES}
        pauses["starting"] = max(start["seconds"] - start["steps"] - sum(pauses.values()), 0.0)
        for one in start.get("compiled", ()):
            if one["purpose"] in pauses:
                seconds = min(sum(one[kind] for kind in PARTS), pauses[one["purpose"]])
                pauses[one["purpose"]] -= seconds
                pauses["compile"] = pauses.get("compile", 0.0) + seconds
        parts = {"steps": start["steps"] * (1 - lost), "repeated": start["steps"] * lost, **pauses}
        for kind, seconds in parts.items():
            totals[kind] = totals.get(kind, 0.0) + seconds
    return {kind: round(seconds, 3) for kind, seconds in totals.items()}
