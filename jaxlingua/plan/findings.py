"""What a search found: as a table, as JSON, as a configuration to train with, and as a plot."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxlingua.command_line import extending
from jaxlingua.errors import ConfigError
from jaxlingua.plan.candidates import MOMENT_KEY
from jaxlingua.plan.report import READINGS, columns, short
from jaxlingua.plan.search import ALIKE, Outcome, Search
from jaxlingua.train.fit import OTHER_TRAINING

SHARE = f"{100 * (ALIKE - 1):.0f} %"


# ── table and JSON ─────────────────────────────────────────────────────────────────────────────────────────


def as_table(found: Search) -> str:
    """All candidates that were planned, the best marked, and why it is the best."""
    return "\n".join(_lines(found))


def _lines(found: Search) -> Iterator[str]:
    chip, best = found.topology.chip, found.best
    yield f"{found.config} on {found.topology.describe()}, {chip.hbm_gib:.2f} GiB per chip"
    yield (
        f"{len(found.outcomes)} steps planned; by arithmetic {found.slower:,} more are slower and "
        f"{found.too_large:,} do not fit"
    )
    yield ""
    yield from columns(
        [("  change", "peak GiB", "cal, s", "xla, s", "MFU cal, %", "exposed, s"), *_rows(found)]
    )
    yield from (f"  {each.candidate.name} failed: {each.failure}" for each in found.outcomes if each.failure)
    yield ""
    yield f"best: {best.candidate.name}"
    if others := len(found.alike) - 1:
        yield (
            f"{others} more lie within {SHARE} of the fastest, which the estimate cannot tell apart: of "
            f"these the best has the fewest changes, then the least memory"
        )
    if changes_training(best):
        yield f"{MOMENT_KEY}=bfloat16 {OTHER_TRAINING}"
    yield best.told["trust"]


def _rows(found: Search) -> Iterator[tuple[str, ...]]:
    for each in found.outcomes:
        mark = "* " if each is found.best else "  "
        peak = short(each.peak_gib) if each.told else "failed"
        if not each.fits:
            yield (f"{mark}{each.candidate.name}", peak, *["does not fit" if each.told else "-"], *["-"] * 3)
            continue
        percent = 100 * (each.mfu("cal") or 0.0)
        numbers = (each.seconds("cal"), each.seconds("xla"), percent, each.exposed_seconds)
        yield (f"{mark}{each.candidate.name}", peak, *(short(number or 0.0) for number in numbers))


def as_json(found: Search, config: Path) -> dict[str, Any]:
    """The candidates, the fastest first, and the best of them."""
    return {
        "config": found.config,
        "topology": found.best.told["topology"],
        "hbm_gib": found.topology.chip.hbm_gib,
        "candidates": [_as_json(outcome) for outcome in found.outcomes],
        "best": {
            **_as_json(found.best),
            "config": str(config),
            "plot": str(plot_of(config)),
            "changes_training": changes_training(found.best),
        },
        "not_told_apart": [outcome.candidate.name for outcome in found.alike],
        "left_out_by_arithmetic": {"slower": found.slower, "too_large": found.too_large},
        "trust": found.best.told["trust"],
    }


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "change": outcome.candidate.name,
        "changes": dict(outcome.candidate.changes),
        "fits": outcome.fits,
        "peak_hbm_gib": outcome.peak_gib,
        "step_seconds": {reading: outcome.seconds(reading) for reading in READINGS},
        "estimated_mfu": {reading: outcome.mfu(reading) for reading in READINGS},
        "exposed_seconds": outcome.exposed_seconds,
        "method": outcome.told.get("method"),
        "compile_seconds": outcome.told.get("compile_seconds"),
        "is_stored": outcome.told.get("is_stored"),
        "failure": outcome.failure,
    }


def changes_training(outcome: Outcome) -> bool:
    """Whether it is more than another way to compute the same."""
    return MOMENT_KEY in dict(outcome.candidate.changes)


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────


def plot_of(config: Path) -> Path:
    """The plot lies beside the configuration."""
    return config.with_suffix(".png")


def write(found: Search, config: Path, overrides: Sequence[str]) -> None:
    """The best as a configuration that extends the given one, and the plot beside it.

    Raises: ConfigError where one of the files is there by now.
    """
    content = extending(found.config, [*overrides, *found.best.candidate.overrides], config.parent)
    lines = [f"# {line}" for line in _header(found, config)]
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    try:
        with config.open("x", encoding="utf-8") as file:
            file.write("\n".join([*lines, body]))
        with plot_of(config).open("xb") as file:
            draw(found, file)
    except FileExistsError as error:
        raise ConfigError(
            f"--search: '{error.filename}' was written by something else meanwhile; nothing is overwritten; "
            f"give another name"
        ) from None


def _header(found: Search, config: Path) -> Iterator[str]:
    told, topology, best = found.best.told, found.topology, found.best
    chips = f"{topology.chips} chip{'s' if topology.chips > 1 else ''}"
    slices = f" --slices {topology.slices}" if topology.slices > 1 else ""
    estimated = "roofline" if told["method"] == "roofline" else "estimated"
    least, most = ("at least ", "at most ") if told.get("is_lower_bound") else ("", "")
    yield f"What: {found.config} on TPU {topology.name}, the best of a search: {best.candidate.name}."
    yield f"Command: python -m jaxlingua.train {config.name}"
    yield (
        f"Hardware and wall time: TPU {topology.name}, {chips}; {estimated} {least}"
        f"{figure(best.seconds('cal'))} s a step, "
        f"MFU {most}{best.mfu('cal'):.3f} / {best.mfu('xla'):.3f} (cal / xla), "
        f"{least}{figure(told['chip_hours']['per_1000_steps']['cal'])} chip-hours per 1,000 steps."
    )
    yield (
        f"Memory: {best.peak_gib:.2f} of {topology.chip.hbm_gib:.2f} GiB per chip; planned: "
        f"python -m jaxlingua.plan {config.name} --topology {topology.name}{slices}"
    )
    yield "Expected scores: not yet measured."


def figure(number: float) -> str:
    """Four significant digits, without a comma.

    >>> [figure(number) for number in (1.38712, 0.000123456, 1234.56)]
    ['1.387', '0.0001235', '1235']
    """
    return f"{number:.{max(0, 3 - math.floor(math.log10(number)))}f}" if number else "0"


def draw(found: Search, file: Any) -> None:
    """Peak memory against step time as PNG, with the chip's limit."""
    # Drawn without pyplot, which would choose a window system; matplotlib takes a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chip, planned = found.topology.chip, [outcome for outcome in found.outcomes if outcome.told]
    figure = Figure(figsize=(7.5, 4.2 + 0.19 * len(planned)), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    for number, outcome in enumerate(planned, 1):
        is_best = outcome is found.best
        marker, color = (
            ("*", "#c02020") if is_best else ("o", "#1f5fa8") if outcome.fits else ("x", "#888888")
        )
        label = f"{number}  {outcome.candidate.name}" + ("" if outcome.fits else " (does not fit)")
        place = (outcome.peak_gib, outcome.seconds("cal") if outcome.fits else 0.03)
        where = axes.transData if outcome.fits else axes.get_xaxis_transform()
        axes.plot(*place, marker, transform=where, color=color, label=label, markersize=13 if is_best else 6)
        axes.annotate(
            str(number), place, xycoords=where, xytext=(5, 5), textcoords="offset points", fontsize=8
        )
    axes.axvline(
        chip.hbm_gib, color="#888888", linestyle="--", label=f"{chip.name}: {chip.hbm_gib:.2f} GiB per chip"
    )
    axes.set_title(f"{found.config} on {found.topology.describe()}", fontsize=10, loc="left")
    axes.set_xlabel("peak memory per chip, GiB", fontsize=9)
    axes.set_ylabel(f"seconds per step, estimated (cal; {SHARE} apart is not told apart)", fontsize=8)
    axes.margins(x=0.08, y=0.15)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower left", fontsize=7.5, frameon=False)
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
