"""Curves and points as SVG for the inside of a page: no script, no font, colors that follow the page's."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from jaxlingua.eval.report.models import BASE, is_own, model_key, places_of, primary_metrics
from jaxlingua.eval.report.words import language_name, number
from jaxlingua.eval.significance import spread

CURVE_POINTS = 300
COLORS = 8  # that the page has a name for, --c0 …; then dashes begin
WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 22, 30, 34

Curves = tuple[str, str, dict[str, list[tuple[int, float | int]]]]
Lines = Mapping[str, Sequence[tuple[float | int, float | int]]]


def curves_of(
    metrics: list[dict[str, Any]],
) -> list[Curves]:
    """Title, unit and lines (label → step and value) of each picture that there is something to draw in."""
    wanted = [
        ("Training loss", "nats per target token", ("loss", "loss/")),
        ("Held-out loss", "bits per byte of answer", ("bits_per_byte", "bits_per_byte/")),
        ("Speed", "target tokens per second", ("target_tokens_per_second",)),
        ("Learning rate", "", ("learning_rate",)),
        ("Gradient norm", "", ("grad_norm",)),
    ]
    pictures = []
    for title, unit, names in wanted:
        lines: dict[str, list[tuple[int, float | int]]] = {}
        for line in metrics:
            for key, value in line.items():
                chosen = key in names or any(name.endswith("/") and key.startswith(name) for name in names)
                if chosen and isinstance(value, (int, float)) and math.isfinite(value):
                    label = key.partition("/")[2] or "all"
                    lines.setdefault(label, []).append((line["step"], float(value)))
        if lines:
            pictures.append(
                (title, unit, {label: _thinned(points) for label, points in sorted(lines.items())})
            )
    return pictures


def score_curves(scores: Sequence[Mapping[str, Any]], stages: Sequence[str]) -> list[Curves]:
    """Scores over the checkpoints of a run, a picture per column of the heat map; the base is step 0.

    None where fewer than two checkpoints were evaluated.
    """
    own = [score for score in scores if model_key(score) == BASE or is_own(score, stages)]
    if len({score["step"] for score in own if score["step"]}) < 2:
        return []
    places, primary = places_of(own), primary_metrics(own)
    found: dict[tuple[str, str], dict[str, dict[int, list[float]]]] = {}
    for score in own:
        if primary.get(score["task"]) == score["metric"]:
            place = places[score["task"]]
            lines = found.setdefault((place.column, score["metric"]), {})
            at = lines.setdefault(language_name(place.language), {}).setdefault(score["step"], [])
            at.append(score["value"])
    return [
        (
            column,
            metric,
            {
                label: [(step, spread(values).mean) for step, values in sorted(points.items())]
                for label, points in sorted(lines.items())
            },
        )
        for (column, metric), lines in sorted(found.items())
    ]


def _thinned(points: list[tuple[int, float | int]]) -> list[tuple[int, float | int]]:
    stride = math.ceil(len(points) / CURVE_POINTS)
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def draw(
    lines: Lines,
    title: str,
    unit: str,
    order: Sequence[str] = (),
    names: Sequence[str] = (),
    rings: Mapping[str, int] | None = None,
) -> Markup:
    """Curves over steps, or over things that have names: these to the right, `unit` upwards.

    Args:
        order: labels of several pictures; each has one color in all of them.
        names: of 0, 1, 2 … to the right; none for steps.
        rings: label → where its line has a ring.
    """
    plane = _Plane([point for points in lines.values() for point in points], names)
    parts = []
    places = {label: place for place, label in enumerate(dict.fromkeys([*order, *lines]))}
    for label, points in lines.items():
        place = places[label]
        bold = " b" if label == "all" else ""
        dash = ("", ' stroke-dasharray="5 3"', ' stroke-dasharray="1.5 2.5"')[place // COLORS % 3]
        name = f"<title>{escape(label)}</title>"
        style = f'class="l c{place % COLORS}{bold}"'
        if len(points) > 1:
            path = " ".join(f"{plane.x(x):.1f},{plane.y(y):.1f}" for x, y in points)
            parts.append(f'<polyline {style}{dash} points="{path}">{name}</polyline>')
        if len(points) <= 12 or names:
            parts += [
                f'<circle {style.replace("l c", "d c")} cx="{plane.x(x):.1f}" cy="{plane.y(y):.1f}" r="2.6">'
                f"<title>{escape(label)}: {number(y)} at {escape(names[x]) if names else f'step {x:,}'}"
                f"</title></circle>"
                for x, y in points
            ]
        parts += [
            f'<circle {style} cx="{plane.x(x):.1f}" cy="{plane.y(y):.1f}" r="6"/>'
            for x, y in points
            if rings and rings.get(label) == x
        ]
    legend = ""
    if list(lines) != ["all"]:
        keys = "".join(
            f'<span><i class="c{places[label] % COLORS} k{places[label] // COLORS % 3}'
            f'{" b" if label == "all" else ""}"></i>{escape(label)}</span>'
            for label in lines
        )
        legend = f'<figcaption class="legend">{keys}</figcaption>'
    return _picture(plane, parts, title, unit, "" if names else "step", legend)


def draw_points(points: Sequence[Mapping[str, Any]], title: str, x_name: str, y_name: str) -> Markup:
    """Points with `x`, `y` and what they stand for."""
    plane = _Plane([(point["x"], point["y"]) for point in points])
    models = list(dict.fromkeys(point["model"] for point in points))
    parts = [
        f'<circle class="d c{models.index(point["model"]) % COLORS}" cx="{plane.x(point["x"]):.1f}" '
        f'cy="{plane.y(point["y"]):.1f}" r="4"><title>'
        f"{escape(point['column'])}, {escape(point['metric'])}, {escape(point['model'])}: "
        f"{number(round(point['x'], 2))}, {number(round(point['y'], 2))}</title></circle>"
        for point in points
    ]
    keys = "".join(
        f'<span><i class="c{place % COLORS}"></i>{escape(model)}</span>' for place, model in enumerate(models)
    )
    return _picture(plane, parts, title, y_name, x_name, f'<figcaption class="legend">{keys}</figcaption>')


class _Plane:
    """Where numbers lie in a picture; its edges are round numbers, or the first and the last name."""

    def __init__(self, points: Sequence[tuple[float | int, float | int]], names: Sequence[str] = ()):
        self.names = names
        self.x_ticks = [float(place) for place in range(len(names))]
        if not names:
            self.x_ticks = _ticks(min(x for x, _ in points), max(x for x, _ in points), 6)
        self.y_ticks = _ticks(min(y for _, y in points), max(y for _, y in points), 5)

    def x(self, value: float | int) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float | int) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _ticks(low: float | int, high: float | int, most: int) -> list[float]:
    """Round numbers from below `low` to above `high`, some `most` of them.

    >>> _ticks(3, 97, 5), _ticks(0.2, 0.2, 5)[0]
    ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], 0.1)
    """
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-9):
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [float(f"{place * size:.12g}") for place in range(first, last + 1)]


def _picture(plane: _Plane, parts: Sequence[str], title: str, unit: str, x_name: str, legend: str) -> Markup:
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    grid = [
        f'<line class="g" x1="{left}" x2="{right}" y1="{plane.y(tick):.1f}" y2="{plane.y(tick):.1f}"/>'
        f'<text class="t e" x="{left - 6}" y="{plane.y(tick) + 3.5:.1f}">{_tick_text(tick)}</text>'
        for tick in plane.y_ticks
    ]
    most = int(
        (right - left) / max(len(plane.x_ticks) - 1, 1) / 7
    )  # characters that fit below a name's place
    for place, tick in enumerate(plane.x_ticks):
        text = _tick_text(tick)
        if plane.names:
            text = plane.names[place]
            text = escape(text if len(text) <= most else f"{text[: max(most - 1, 1)]}…")
        grid.append(f'<text class="t m" x="{plane.x(tick):.1f}" y="{bottom + 15}">{text}</text>')
    names = (
        f'<text class="h" x="4" y="14">{escape(title)}</text>'
        f'<text class="t e" x="{right}" y="14">{escape(unit)}</text>'
        f'<text class="t e" x="{right}" y="{HEIGHT - 4}">{escape(x_name)}</text>'
    )
    axis = f'<line class="a" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    label = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(f"{label}{''.join(grid)}{axis}{''.join(parts)}{names}</svg>{legend}")


def _tick_text(value: float | int) -> str:
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.3g}"
    return f"{value:,.6g}".replace("-", "−")
