"""Answers in a plane: a panel for values and one for each control, in the same plane."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlingua.analysis.values.measure import Table
from jaxlingua.analysis.values.questions import SETS
from jaxlingua.analysis.values.shift import plane_of

COLORS = ("#1f6fb4", "#d8602b", "#2d9a57", "#8a5bb5", "#c9a227", "#c2417c", "#3fa7b8", "#6b6b6b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
POINTS = 6  # of the first star behind MARKERS; each further model has one more
TITLES = {"values": "values", "facts": "control: facts", "neutral": "control: repeated sentences"}


def draw_map(of: Float[np.ndarray, "answers size"], table: Table, name: str) -> Any:
    """Answers to held-out questions (small) and class means (large): a color a language, a shape a model.

    The plane is that of the answers about values. A line joins a language's means of the first model and each
    other.

    Args:
        of: unit vectors.
        name: of the vectors, such as λ = 5.
    """
    from matplotlib.figure import Figure  # without pyplot, which would choose a window system

    mean, directions, shares = plane_of(of[(table.set == "values") & table.is_test])
    points = (of - mean) @ directions
    models = list(dict.fromkeys(model for model, _ in table.classes))
    colors, markers = colors_of(table.languages), markers_of(models)
    looks = {
        (model, language): {"color": colors[language], "marker": markers[model]}
        for model, language in table.classes
    }
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    axes = figure.subplots(1, len(SETS), sharex=True, sharey=True)
    for one, set_name in zip(axes, SETS, strict=True):
        here = (table.set == set_name) & table.is_test
        means = {}
        for label, of_class in enumerate(table.classes):
            own = points[here & (table.label == label)]
            one.scatter(*own.T, s=12, alpha=0.35, linewidths=0, **looks[of_class])
            means[of_class] = own.mean(axis=0)
        for (model, language), middle in means.items():
            first = means.get((models[0], language))
            if model != models[0] and first is not None:
                one.plot(*zip(first, middle, strict=True), color="#333333", linewidth=1.0, zorder=3)
        for of_class, middle in means.items():
            one.scatter(
                *middle, s=80, edgecolors="white", linewidths=1.2, alpha=0.9, zorder=4, **looks[of_class]
            )
        one.set_title(TITLES[set_name], fontsize=10, loc="left")
        one.set_xlabel("first component", fontsize=8)
        one.tick_params(labelsize=7)
        one.grid(alpha=0.2)
        one.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("second component", fontsize=8)
    told = f"the plane has {100 * sum(shares):.0f} % of the variance of those about values"
    figure.suptitle(f"Answers to held-out questions, {name}; {told}", fontsize=10, x=0.01, ha="left")
    figure.legend(
        handles=_handles(colors, markers),
        loc="outside lower left",
        fontsize=8,
        frameon=False,
        ncols=6,
    )
    return figure


def colors_of(languages: Sequence[str]) -> dict[str, str]:
    """Its color by language, no two alike: ours, and of more languages a color map in as many steps."""
    if len(languages) <= len(COLORS):
        return dict(zip(languages, COLORS, strict=False))
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    # The ends of the map are black and nearly white.
    colors = colormaps["nipy_spectral"](np.linspace(0.04, 0.96, len(languages)))
    return dict(zip(languages, map(to_hex, colors), strict=True))


def markers_of(models: Sequence[str]) -> dict[str, Any]:
    """Its shape by model, no two alike: ours, then stars of more and more points."""
    stars = [(POINTS + place, 1, 0) for place in range(max(0, len(models) - len(MARKERS)))]
    return dict(zip(models, (*MARKERS, *stars), strict=False))


def _handles(colors: Mapping[str, str], markers: Mapping[str, Any]) -> list[Any]:
    """Of the legend: a color for each language, a shape for each model."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "", "markersize": 7}
    return [
        *(
            Line2D([], [], marker="o", color=color, label=language, **look)
            for language, color in colors.items()
        ),
        *(
            Line2D([], [], marker=marker, color="#777777", label=model, **look)
            for model, marker in markers.items()
        ),
    ]


def svg_and_png(figure: Any) -> tuple[str, bytes]:
    """The same bytes for the same numbers; letters of the SVG as letters."""
    import matplotlib

    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxlingua", "font.size": 9}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=130, metadata={"Software": None})
    text = svg.getvalue()
    return text[text.index("<svg") :], png.getvalue()
