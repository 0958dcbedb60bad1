"""What a trace says, in a few lines: how busy the devices were, with what, and what they waited for."""

import json
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from jaxlingua.errors import DataError, machine_error
from jaxlingua.tracking.trace_file import Operation, Trace, read_trace

FOLDER, FILE = "traces", "summary.json"
PAUSES = frozenset({"compile", "held_out", "checkpoint", "eval", "begin", "trace"})
ANNOTATIONS = PAUSES | {"step", "arrive", "data wait"}
KINDS = ("matmul", "attention", "other", "copies", "collectives")  # of two at a time the first counts
OPERATIONS_KEPT, OPERATIONS_TOLD, WHERE_CHARACTERS = 20, 3, 70

_COLLECTIVE = re.compile(
    r"all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast|nccl", re.I
)
_COPY = re.compile(r"^(copy|infeed|outfeed|send|recv|transpose|memcpy|memset|slice-start|slice-done)", re.I)
_PRODUCT = re.compile(r"\b(dot|convolution)\b|gemm|cublas|cutlass", re.I)
_KERNEL = re.compile(r"splash|flash|fmha|cudnn\$fmha|dot_product_attention", re.I)
_ATTENTION = ("attention.py", "blockwise.py", "cudnn.py", "reference.py", "splash.py")  # of jaxlingua/model
_MOVES = frozenset({"parameter", "constant", "copy", "transpose", "bitcast", "reshape", "tuple", "broadcast"})
_NOISE = re.compile(r"^(jit|jvp|transpose|vmap|shard_map|while|body|cond|closed_call|checkpoint)\b")

Intervals = list[tuple[float, float]]  # sorted, apart from each other


def summarize(folder: Path) -> dict[str, Any]:
    """The newest trace in `folder` in numbers, also written there.

    Raises: DataError where none is there or it holds no step, MachineError if the disk refuses the summary.
    """
    traces = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not traces:
        raise DataError(f"{folder}: holds no trace; a trace is in plugins/profile; trace the steps again")
    summary = summary_of(read_trace(traces[-1], ANNOTATIONS), str(folder))
    try:
        (folder / FILE).write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise machine_error(folder / FILE, error) from None
    return summary


def read_summaries(run: Path) -> list[dict[str, Any]]:
    """Those of all traces of a run, by their first step; one that is damaged is left out."""
    found = []
    for path in run.glob(f"{FOLDER}/*/{FILE}"):
        try:
            summary = json.loads(path.read_text("utf-8"))
            told(summary, "")
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue
        found.append({**summary, "folder": f"{FOLDER}/{path.parent.name}"})
    return sorted(found, key=lambda summary: summary["steps"])


def summary_of(trace: Trace, where: str) -> dict[str, Any]:
    """Seconds and shares of the steps that a trace holds.

    A step lasts from the arrival of the one before (the first: from its dispatch) to its own; pauses are no
    part of it. Of each instant of a device one kind counts: computing hides copies, both hide collectives.

    Returns: steps, step_seconds; devices; shares of the steps' time by `KINDS` and "data wait" and "host",
        which add up to 1, as means over devices; busy, the sum of the first; hidden_collectives, the share in
        which collectives ran while something else did; operations, the longest first.
    Raises: DataError if it holds no whole step.
    """
    arrivals = sorted((number, end) for _, end, number in trace.host.get("arrive", []) if number is not None)
    begun = {number: start for start, _, number in trace.host.get("step", [])}
    if not arrivals or arrivals[0][0] not in begun:
        raise DataError(f"{where}: the trace holds no whole step; trace more steps")
    pauses = merged((start, end) for name in PAUSES for start, end, _ in trace.host.get(name, []))
    marks = [begun[arrivals[0][0]], *(end for _, end in arrivals)]
    steps = [subtract([span], pauses) for span in pairwise(marks)]
    window = subtract([(marks[0], marks[-1])], pauses)
    seconds = length(window)
    waits = intersect(merged((start, end) for start, end, _ in trace.host.get("data wait", [])), window)

    shares = dict.fromkeys((*KINDS, "data wait", "host"), 0.0)
    hidden = 0.0
    for found in trace.operations.values():
        busy: Intervals = []
        for kind in KINDS:
            of_kind = intersect(merged(span for one, *span in found if kind_of(one) == kind), window)
            exposed = subtract(of_kind, busy)
            shares[kind] += length(exposed)
            if kind == "collectives":
                hidden += length(of_kind) - length(exposed)
            busy = merged([*busy, *exposed])
        idle = subtract(window, busy)
        shares["data wait"] += length(intersect(idle, waits))
        shares["host"] += length(subtract(idle, waits))
    whole = seconds * max(len(trace.operations), 1)
    return {
        "steps": [arrivals[0][0], arrivals[-1][0]],
        "step_seconds": [round(length(step), 6) for step in steps],
        "devices": len(trace.operations),
        "busy": round(sum(shares[kind] for kind in KINDS) / whole, 4),
        "shares": {kind: round(value / whole, 4) for kind, value in shares.items()},
        "hidden_collectives": round(hidden / whole, 4),
        "operations": _longest(trace, window, whole),
    }


@cache
def kind_of(one: Operation) -> str:
    """Which of `KINDS` an operation is; of a fusion what weighs most."""
    names = f"{one.name} {one.opcode}"
    if _COLLECTIVE.search(names) or any(_COLLECTIVE.search(inner) for inner in one.inner):
        return "collectives"
    if one.source.split(":")[0] in _ATTENTION or _KERNEL.search(f"{names} {one.path}"):
        return "attention"
    if _PRODUCT.search(" ".join([names, one.category, *one.inner])):
        return "matmul"
    if _COPY.match(one.opcode or one.name) or (one.inner and one.inner <= _MOVES):
        return "copies"
    return "other"


def _longest(trace: Trace, window: Intervals, whole: float) -> list[dict[str, Any]]:
    """Operations by their path in the model, with what they took in all steps and on all devices."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for operations in trace.operations.values():
        for one, start, end in operations:
            inside = sum(max(0.0, min(end, stop) - max(start, begin)) for begin, stop in window)
            if inside:
                key = (place(one), one.source, kind_of(one))
                found.setdefault(key, []).append(inside)
    ranked = sorted(found.items(), key=lambda item: sum(item[1]), reverse=True)[:OPERATIONS_KEPT]
    return [
        {
            "where": where,
            "source": source,
            "kind": kind,
            "share": round(sum(times) / whole, 4),
            "seconds": round(sum(times), 6),
            "count": len(times),
        }
        for (where, source, kind), times in ranked
    ]


def place(one: Operation) -> str:
    """Where in the model an operation belongs, without what JAX adds; its name where nothing is known.

    Example:
        >>> place(Operation("dot.1", path="jit(train_step)/jvp(Llama.hidden)/while/body/layers/mlp/exp"))
        'layers/mlp/exp'
        >>> place(Operation("dot.2", path="jit(f)/transpose(jvp(Llama.hidden))/while/body/layers/mlp/mul"))
        'backward layers/mlp/mul'
    """
    if not one.path:
        return one.name.rstrip("0123456789").rstrip(".")
    parts = [part for part in one.path.split("/") if not _NOISE.match(part)]
    is_again = "rematted_computation" in parts
    told = "/".join(part for part in parts if part != "rematted_computation") or one.name
    if is_again:
        return f"again {told}"
    return f"backward {told}" if "transpose(jvp" in one.path else told


def told(summary: dict[str, Any], folder: str) -> list[str]:
    """The summary in at most ten lines."""
    first, last = summary["steps"]
    seconds, shares = summary["step_seconds"], summary["shares"]
    count, idle = summary["devices"], 100 * (shares["data wait"] + shares["host"])
    if not count:
        busy = "the trace holds no operation of a device"
    else:
        names = {"collectives": "collectives that nothing hides", "other": "other work"}
        busy = f"devices busy {100 * summary['busy']:.1f} %: " + ", ".join(
            f"{names.get(kind, kind)} {100 * shares[kind]:.1f}" for kind in KINDS if shares[kind]
        )
    middle = statistics.median(seconds)
    lines = [
        f"trace of steps {first} to {last}: {middle:.4g} s a step in the middle, {min(seconds):.4g} to "
        f"{max(seconds):.4g}; {count} device{'' if count == 1 else 's'}",
        f"  {busy}",
        f"  devices idle {idle:.1f} %: {100 * shares['data wait']:.1f} waiting for data, "
        f"{100 * shares['host']:.1f} for the host otherwise",
    ]
    for one in summary["operations"][:OPERATIONS_TOLD]:
        where = one["where"]
        if len(where) > WHERE_CHARACTERS:  # collectives that XLA joined
            where = f"{where[:WHERE_CHARACTERS]}…"
        source = f" ({one['source']})" if one["source"] else ""
        lines.append(f"  {100 * one['share']:.1f} % {one['kind']}: {where}{source}")
    return [*lines, f"  all of it: {folder}"]


# ── intervals ────────────────────────────────────────────────────────────────


def merged(spans: Iterable[tuple[float, float]]) -> Intervals:
    """Their union.

    >>> merged([(3, 4), (0, 2), (1, 3)])
    [(0, 4)]
    """
    found: Intervals = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > start:
            found.append((start, end))
    return found


def subtract(spans: Intervals, others: Intervals) -> Intervals:
    """What of `spans` lies outside `others`.

    >>> subtract([(0, 10)], [(2, 3), (9, 12)])
    [(0, 2), (3, 9)]
    """
    found, first = [], 0  # `first` of the others may still end within a span
    for start, end in spans:
        while first < len(others) and others[first][1] <= start:
            first += 1
        place = first
        while place < len(others) and others[place][0] < end:
            begin, stop = others[place]
            if begin > start:
                found.append((start, begin))
            start, place = max(start, stop), place + 1
        if start < end:
            found.append((start, end))
    return found


def intersect(spans: Intervals, others: Intervals) -> Intervals:
    """What lies in both.

    >>> intersect([(0, 4), (6, 8)], [(3, 7)])
    [(3, 4), (6, 7)]
    """
    return subtract(spans, subtract(spans, others))


def length(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds in all."""
    return math.fsum(end - start for start, end in spans)
