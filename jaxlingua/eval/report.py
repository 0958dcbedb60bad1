"""Stage 7, eval: a run folder to report.json, report.md and report.html.

Everything is read from the folder (config.yaml, provenance.json, data.json, metrics.jsonl, evals/), so that a
report can be written again at any time, also of a run that was cut off.
"""

import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from jaxlingua.errors import DataError
from jaxlingua.progress import duration
from jaxlingua.tracking.goodput import read_starts, spent

SAMPLES_PER_TASK = 4
CURVE_POINTS = 400
# Okabe and Ito's colors, which people who see few colors can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def write_report(folder: Path) -> dict[str, Any]:
    """Write report.json, report.md and report.html into a run folder; the content of report.json is returned.

    Raises: DataError where the folder is not a run's, or a file in it cannot be read.
    Cost: about a second, most of it for drawing.
    """
    report = read_run(folder)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxlingua.eval", "pages"),
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": number,
        "mean_of": mean_of,
        "percent": lambda share: f"{100 * share:.1f} %",
    }
    view = {**report, "rows": score_rows(report["scores"]), "models": models_of(report["scores"])}
    view["time_spent"] = time_of(report["time"])
    view["headlines"] = headlines(view["rows"], view["models"])
    curves = [(title, draw(lines, title, unit)) for title, unit, lines in curves_of(report["metrics"])]
    html = environment.get_template("report.html").render(**view, curves=curves)
    markdown = environment.get_template("report.md").render(**view)
    _replace(folder / "report.json", json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False))
    _replace(folder / "report.md", markdown)
    _replace(folder / "report.html", html)
    return report


def read_run(folder: Path) -> dict[str, Any]:
    """What report.json holds: scores, samples, data, throughput, metrics and provenance of a run.

    Raises: DataError naming the file that is missing or damaged.
    """
    provenance = _read_json(folder / "provenance.json")
    metrics = _read_lines(folder / "metrics.jsonl")
    files = sorted((folder / "evals").glob("*/scores.json"))
    evaluations = {file.parent.name: _read_json(file) for file in files}
    scores = [score for evaluation in evaluations.values() for score in evaluation["scores"]]
    scores.sort(key=lambda score: (score["step"], score["task"], score["language"], score["metric"]))
    return {
        "name": folder.resolve().name,
        "scores": scores,
        "answers": {
            name: evaluation["tasks"] for name, evaluation in evaluations.items() if evaluation["tasks"]
        },
        "samples": read_samples(folder, scores),
        "throughput": throughput_of(metrics),
        "time": spent(read_starts(folder)),
        "data": _read_json(folder / "data.json")
        if (folder / "data.json").is_file()
        else {"stages": [], "sources": []},
        "metrics": metrics,
        "provenance": provenance,
    }


# ── scores ────────────────────────────────────────────────────────────────────────────────────────────────


def models_of(scores: list[dict[str, Any]]) -> list[str]:
    """The columns of the table of scores: floor, base, then one model a stage, as they were trained."""
    order = sorted(scores, key=lambda score: (score["step"], score["model"] == "base"))
    return list(dict.fromkeys(model_key(score) for score in order))


def model_key(score: dict[str, Any]) -> str:
    """How a score's model is named in tables: floor, base, or a trained one by stage and step."""
    if score["step"] == 0:
        return "base" if score["model"] == "base" else "floor"
    return f"{score['stage']}, step {score['step']:,}"


def score_rows(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per task, language and metric, with the score of each model beside the others."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for score in sorted(scores, key=lambda score: score["step"]):
        key = (score["task"], score["language"], score["metric"])
        row = rows.setdefault(
            key,
            {
                "task": score["task"],
                "language": score["language"],
                "metric": score["metric"],
                "scores": {},
            },
        )
        row["scores"][model_key(score)] = score
        row |= {"items": score["items"], "signature": score["signature"]}  # of the newest in the end
    return [rows[key] for key in sorted(rows)]


def headlines(rows: list[dict[str, Any]], models: list[str]) -> list[dict[str, Any]]:
    """Mean of each metric over all its tasks, before and after: what a reader wants to know first."""
    trained = [model for model in models if ", step " in model]
    if not trained:
        return []
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if trained[-1] in row["scores"]:
            kind = "translation" if "-" in row["task"].partition(".")[2] else "question answering"
            found.setdefault((kind, row["metric"]), []).append(row)
    lines = []
    for (kind, metric), group in sorted(found.items(), reverse=True):
        after = [row["scores"][trained[-1]]["value"] for row in group]
        before = [row["scores"]["base"]["value"] for row in group if "base" in row["scores"]]
        lines.append(
            {
                "kind": kind,
                "metric": metric,
                "tasks": len(group),
                "items": sum(row["items"] for row in group),
                "before": sum(before) / len(before) if len(before) == len(group) else None,
                "after": sum(after) / len(after),
            }
        )
    return lines


def mean_of(line: dict[str, Any]) -> str:
    """What a headline is the mean of.

    Example:
        >>> mean_of({"tasks": 1, "items": 1014})
        '1 task, 1,014 items'
    """
    tasks = "1 task" if line["tasks"] == 1 else f"mean of {line['tasks']:,} tasks"
    items = "1 item" if line["items"] == 1 else f"{line['items']:,} items"
    return f"{tasks}, {items}"


# ── samples ───────────────────────────────────────────────────────────────────────────────────────────────


def read_samples(folder: Path, scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few items of each task of the newest model: right and wrong ones, with what the base said."""
    steps = {score["stage"]: score["step"] for score in scores if score["step"] > 0}
    base = {item["key"]: item for item in _predictions(folder, "base", 0)}
    samples: list[dict[str, Any]] = []
    if not steps:
        return samples
    stage = max(steps, key=lambda name: steps[name])
    by_file: dict[str, list[dict[str, Any]]] = {}
    for item in _predictions(folder, stage, steps[stage]):
        by_file.setdefault(item["key"][0], []).append(item)
    for items in by_file.values():
        right = [item for item in items if item["exact"]]
        wrong = [item for item in items if not item["exact"]]
        half = SAMPLES_PER_TASK // 2
        for item in (right[: max(half, SAMPLES_PER_TASK - len(wrong))] + wrong)[:SAMPLES_PER_TASK]:
            before = base.get(item["key"])
            samples.append(
                {
                    "task": item["key"][0],
                    "id": item["id"],
                    "language": item["language"],
                    "prompt": item["prompt"],
                    "targets": item["targets"],
                    "prediction": item["prediction"],
                    "base_prediction": before["prediction"] if before else None,
                    "exact": item["exact"],
                }
            )
    return samples


def _predictions(folder: Path, stage: str, step: int) -> Iterable[dict[str, Any]]:
    for file in sorted((folder / "evals" / f"{stage}-{step}").glob("*.jsonl")):
        for line in _read_lines(file):
            yield {**line, "key": (file.stem, line["id"]), "exact": line["exact_match"] == 100}


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────


def throughput_of(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Steps, target tokens and time of a run; the median speed, since the first steps hold compilation."""
    steps = [line for line in metrics if "step_seconds" in line]
    if not steps:
        return {}
    speeds = sorted(
        line["target_tokens_per_second"] for line in steps if line.get("target_tokens_per_second")
    )
    seconds = sorted(line["step_seconds"] for line in steps if line.get("step_seconds") is not None)
    found = {"steps": float(steps[-1]["step"])}
    if speeds:
        found["target_tokens_per_second"] = speeds[len(speeds) // 2]
    if seconds:
        found["step_seconds"] = seconds[len(seconds) // 2]
    mfu = sorted(line["mfu"] for line in steps if line.get("mfu") is not None)
    return found | ({"mfu": mfu[len(mfu) // 2]} if mfu else {})


def time_of(seconds: Mapping[str, float]) -> str:
    """Where the time of a run went, as a sentence; the first share is its goodput.

    >>> time_of({"steps": 81.0, "repeated": 0.0, "compile": 15.0, "held_out": 4.0})
    'Of 1 min 40 s, 81.0 % were steps that count (goodput); compile 15.0 %, held out 4.0 %.'
    """
    total = sum(seconds.values())
    if not total:
        return ""
    names = {"repeated": "steps done again", "held_out": "held out", "eval": "evaluation"}
    rest = sorted(
        ((value, kind) for kind, value in seconds.items() if kind != "steps" and value), reverse=True
    )
    others = ", ".join(f"{names.get(kind, kind)} {100 * value / total:.1f} %" for value, kind in rest)
    counts = f"{100 * seconds['steps'] / total:.1f} % were steps that count (goodput)"
    return f"Of {duration(total)}, {counts}; {others}."


def curves_of(metrics: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, list[tuple[int, float]]]]]:
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
        lines: dict[str, list[tuple[int, float]]] = {}
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


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    stride = math.ceil(len(points) / CURVE_POINTS)
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def draw(lines: dict[str, list[tuple[int, float]]], title: str, unit: str) -> Markup:
    """One picture as SVG for the inside of a page: steps to the right, `unit` upwards."""
    # Drawn without pyplot, which would choose a window system.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    legend_lines = math.ceil(len(lines) / 3) if len(lines) > 1 else 0
    figure = Figure(figsize=(5.2, 3.0 + 0.13 * legend_lines), layout="constrained")
    axes = figure.add_subplot()
    for place, (label, points) in enumerate(lines.items()):
        steps, values = zip(*points, strict=True)
        bold = label == "all"
        color = "#222222" if bold else COLORS[place % len(COLORS)]
        style = ("-", "--", ":")[place // len(COLORS) % 3]
        marker = "o" if len(points) == 1 else None
        weight = {"linewidth": 1.8, "zorder": 3} if bold else {"linewidth": 1.0, "alpha": 0.7}
        axes.plot(steps, values, style, label=label, color=color, marker=marker, **weight)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if legend_lines:
        figure.legend(loc="outside lower left", fontsize=6.5, frameon=False, ncols=3)
    page = io.StringIO()
    FigureCanvasSVG(figure).print_svg(page, metadata={"Date": None, "Creator": None})
    svg = page.getvalue()
    return Markup(svg[svg.index("<svg") :])


def number(value: Any) -> str:
    """A number as people read it: thousands apart, three significant digits where it is small.

    Example:
        >>> [number(x) for x in (1234567, 12.345, 0.00012345, "text")]
        ['1,234,567', '12.3', '0.000123', 'text']
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: missing, so {path.parent} is not the folder of a run; give one") from None
    except ValueError as error:
        raise DataError(
            f"{path}: damaged ({error}); a run writes whole lines of JSON; mend or remove it"
        ) from None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    except ValueError as error:
        raise DataError(
            f"{path}: damaged ({error}); a run writes whole lines of JSON; mend or remove it"
        ) from None


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
