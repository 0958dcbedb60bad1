"""The scores and their law as a picture: a point a score, a line a language, a band for the doubt."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxlingua.analysis.scaling.intervals import LEVEL, interval
from jaxlingua.analysis.scaling.laws import FORMULAS, Fitted, family
from jaxlingua.analysis.scaling.table import Scores
from jaxlingua.languages import display_name

# Those of the report's pictures; then dashes tell lines apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#b5578f", "#b98500", "#3d9bd1", "#6b4fb3", "#808080")
DASHES = ("-", "--", ":")
BEYOND = 4  # times the largest size is shown at least
PLACES = 120  # of a line


def draw(path: Path, scores: Scores, of: Mapping[str, Fitted], sizes: Sequence[int]) -> None:
    """A PNG or SVG file, whole or not at all; the axis of pairs is logarithmic.

    Args:
        sizes: that are to be within the picture.
    """
    # Drawn without pyplot, which would choose a window system; matplotlib takes a second to import.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = scores.points
    first = points.pairs.min()
    last = max(BEYOND * points.pairs.max(), *sizes)
    at_none = first / 2.5  # where scores without any pair stand
    figure = Figure(figsize=(6.4, 4.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    for place, (code, one) in enumerate(of.items()):
        color, dash = COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]
        pairs = np.geomspace(first / 1.2, last, PLACES)
        low, high = interval(one.draws_at(pairs))
        is_measured = pairs <= one.largest_pairs * (last / first) ** (1 / PLACES)
        axes.fill_between(pairs, low, high, color=color, alpha=0.14, linewidth=0)
        axes.plot(pairs[is_measured], one.at(pairs[is_measured]), dash, color=color, label=display_name(code))
        axes.plot(pairs[~is_measured], one.at(pairs[~is_measured]), ":", color=color, alpha=0.8)
        own = points.language == points.languages.index(code)
        axes.plot(points.pairs[own], points.score[own], "o", color=color, markersize=3.5, alpha=0.8)
        base = [value for language, value in scores.base if language == code]
        axes.plot([at_none] * len(base), base, "o", color=color, markersize=4, fillstyle="none")
    axes.set_xscale("log")
    if scores.base:
        axes.annotate(
            "0 pairs", (at_none, 0), (0, 4), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            ha="center", fontsize=7.5, color="#666666",
        )  # fmt: skip
    law = next(iter(of.values())).law
    axes.set_title(f"{scores.task}: {law}, {FORMULAS[family(law)]}", fontsize=9, loc="left")
    axes.set_xlabel(f"pairs; bands: {LEVEL:.0%}, dotted: beyond what was measured", fontsize=8.5)
    axes.set_ylabel(scores.metric, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    temporary = path.with_name(f".{path.name}.tmp")
    kind = path.suffix.removeprefix(".").lower()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "jaxlingua"}):  # the same picture again is the same file
        FigureCanvasAgg(figure).print_figure(temporary, format=kind, metadata=metadata)
    temporary.replace(path)
