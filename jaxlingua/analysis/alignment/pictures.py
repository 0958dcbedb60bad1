"""Curves over layers, and sentences in a plane by language and by meaning, as SVG."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlingua.analysis.alignment.compare import Compared, interval_of
from jaxlingua.analysis.alignment.sentences import Sentences
from jaxlingua.analysis.alignment.vectors import POOLINGS

COLORS = ("#1f6fb4", "#d8602b", "#2d9a57", "#8a5bb5", "#c9a227", "#c2417c", "#3fa7b8", "#6b6b6b")
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MEANINGS = 8  # sentences that are told apart by color
CURVES = (("retrieval", "retrieval accuracy"), ("cosine_gap", "cosine gap"), ("cka", "CKA"))


def draw_curves(models: Sequence[Compared], sentences: Sentences) -> str:
    """A column for each pooling and a row for each measure; a color per model, a dash per pair of languages.

    Bands are 95 % intervals; the gray line is what chance retrieves.
    """
    figure = _figure(9.0, 2.5 * len(CURVES) + 0.25 * len(models) * len(sentences.pairs))
    axes = figure.subplots(len(CURVES), len(POOLINGS), sharex=True, sharey="row", squeeze=False)
    for row, (measure, title) in zip(axes, CURVES, strict=True):
        for one, pooling in zip(row, POOLINGS, strict=True):
            for color, model in zip(_cycle(COLORS, models), models, strict=True):
                for style, pair in zip(_cycle(STYLES, sentences.pairs), sentences.pairs, strict=True):
                    draws = model.draws[pooling, pair, measure]
                    told = [interval_of(measure, of, len(sentences.ids)) for of in draws]
                    value, low, high = (np.array(column, np.float64) for column in zip(*told, strict=True))
                    label = f"{model.name}, {'-'.join(pair)}"
                    layers = np.arange(model.states)
                    one.plot(layers, value, style, color=color, label=label, marker=".", linewidth=1.4)
                    one.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
            if measure == "retrieval":
                one.axhline(1 / len(sentences.ids), color="#888888", linewidth=1, label="chance")
                one.set_title({"mean": "mean-pooled", "last": "last token"}[pooling], fontsize=10, loc="left")
            one.grid(alpha=0.25)
            one.tick_params(labelsize=8)
            one.spines[["top", "right"]].set_visible(False)
            one.xaxis.get_major_locator().set_params(integer=True)
        row[0].set_ylabel(title, fontsize=9)
    for one in axes[-1]:
        one.set_xlabel("layer (0: embeddings)", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", fontsize=8, frameon=False, ncols=2)
    return _svg(figure)


def draw_planes(models: Sequence[Compared], layers: Sequence[int], sentences: Sentences) -> str:
    """A row for each model at its layer: the same points by language, and some of them by meaning."""
    figure = _figure(9.0, 3.6 * len(models) + 0.4)
    axes = figure.subplots(len(models), 2, squeeze=False)
    for row, model, layer in zip(axes, models, layers, strict=True):
        points, shares = model.planes[layer]
        chosen = np.linspace(0, points.shape[1] - 1, min(MEANINGS, points.shape[1])).astype(int)
        for place, language in enumerate(sentences.texts):
            look: dict[str, Any] = {"marker": MARKERS[place % len(MARKERS)], "linewidths": 0}
            x, y = points[place].T
            color = COLORS[place % len(COLORS)]
            row[0].scatter(x, y, s=16, color=color, alpha=0.6, label=language, **look)
            row[1].scatter(x, y, s=10, color="#cccccc", alpha=0.5, **look)
            row[1].scatter(x[chosen], y[chosen], s=46, color=COLORS[: len(chosen)], **look)
        row[0].legend(fontsize=8, frameon=False)
        row[0].set_title(f"{model.name}, layer {layer}: by language", fontsize=10, loc="left")
        row[1].set_title(f"{len(chosen)} sentences by color", fontsize=10, loc="left")
        for one in row:
            one.set_xlabel(f"first component ({100 * shares[0]:.0f} % of variance)", fontsize=8)
            one.set_ylabel(f"second component ({100 * shares[1]:.0f} %)", fontsize=8)
            one.tick_params(labelsize=7)
            one.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _cycle(looks: Sequence[str], things: Sequence[Any]) -> list[str]:
    return [looks[place % len(looks)] for place in range(len(things))]


def _figure(width: float, height: float) -> Any:
    """Without pyplot, which would choose a window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    """The same text for the same numbers, letters as letters."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxlingua", "font.size": 9}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
