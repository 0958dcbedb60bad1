"""Curves over layers, and sentences in a plane by language and by meaning, as SVG."""

import io
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from jaxlingua.analysis.alignment.compare import Compared, interval_of
from jaxlingua.analysis.alignment.sentences import Sentences
from jaxlingua.generate.states import POOLINGS

COLORS = ("#1f6fb4", "#d8602b", "#2d9a57", "#8a5bb5", "#c9a227", "#c2417c", "#3fa7b8", "#6b6b6b")
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Of sentences that are told apart; none is that of a language.
MEANINGS = ("#e41a1c", "#377eb8", "#00a86b", "#b8860b", "#984ea3", "#17becf", "#8c564b", "#1a1a1a")
CURVES = (("retrieval", "retrieval accuracy"), ("cosine_gap", "cosine gap"), ("cka", "CKA"))


def draw_curves(models: Sequence[Compared], sentences: Sentences) -> str:
    """A column for each pooling and a row for each measure; a color per model, a dash per pair of languages.

    Bands are 95 % intervals; the gray line is what chance retrieves.
    """
    columns = min(len(models), 3)  # of the legend: a column a model where there is room
    lines = -(-len(models) * len(sentences.pairs) // columns)
    figure = _figure(9.0, 2.5 * len(CURVES) + 0.2 * lines)
    band = 0.15 if len(sentences.pairs) == 1 else 0.09  # they lie above one another
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
                    one.fill_between(layers, low, high, color=color, alpha=band, linewidth=0)
            if measure == "retrieval":
                one.axhline(1 / len(sentences.ids), color="#888888", linewidth=1)
                one.annotate(
                    "chance", (1, 1 / len(sentences.ids)), xycoords=one.get_yaxis_transform(), xytext=(0, 2),
                    textcoords="offset points", ha="right", va="bottom", fontsize=7, color="#666666",
                )  # fmt: skip
                one.set_title({"mean": "mean-pooled", "last": "last token"}[pooling], fontsize=10, loc="left")
            one.grid(alpha=0.25)
            one.tick_params(labelsize=8)
            one.spines[["top", "right"]].set_visible(False)
            one.xaxis.get_major_locator().set_params(integer=True)
        row[0].set_ylabel(title, fontsize=9)
    for one in axes[-1]:
        one.set_xlabel("layer (0: embeddings)", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.align_ylabels()
    figure.legend(
        handles, labels, loc="outside lower left", fontsize=8, frameon=False, ncols=columns, handlelength=3.2
    )
    return _svg(figure)


def draw_planes(models: Sequence[Compared], layers: Sequence[int], sentences: Sentences) -> str:
    """A row for each model at its layer: sentences by language, and some of them by meaning.

    On the right a line joins what a sentence is in each language, in a color of its own; the shape is that of
    the language.
    """
    figure = _figure(9.0, 3.6 * len(models) + 0.3)
    axes = figure.subplots(len(models), 2, squeeze=False)
    figure.get_layout_engine().set(h_pad=0.1)
    colors, markers = _cycle(COLORS, sentences.texts), _cycle(MARKERS, sentences.texts)
    for row, model, layer in zip(axes, models, layers, strict=True):
        points, shares = model.planes[layer]  # languages sentences 2
        chosen = np.linspace(0, points.shape[1] - 1, min(len(MEANINGS), points.shape[1])).astype(int)
        for language, color, marker, of in zip(sentences.texts, colors, markers, points, strict=True):
            look: dict[str, Any] = {"marker": marker, "linewidths": 0}
            row[0].scatter(*of.T, s=16, color=color, alpha=0.6, label=language, **look)
            row[1].scatter(*of.T, s=10, color="#cccccc", alpha=0.5, **look)
            row[1].scatter(*of[chosen].T, s=40, color=MEANINGS[: len(chosen)], zorder=3, **look)
        for color, sentence in zip(MEANINGS, chosen, strict=False):
            row[1].plot(*points[:, sentence].T, color=color, linewidth=0.9, alpha=0.7)
        row[0].set_title(f"{model.name}, layer {layer}: by language", fontsize=10, loc="left")
        row[1].set_title(f"by meaning: {len(chosen)} sentences, each joined", fontsize=10, loc="left")
        for one in row:
            one.set_xlabel(f"first component ({100 * shares[0]:.0f} % of variance)", fontsize=8)
            one.set_ylabel(f"second component ({100 * shares[1]:.0f} %)", fontsize=8)
            one.tick_params(labelsize=7)
            one.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    columns = min(len(labels), 6)
    figure.legend(handles, labels, loc="outside lower left", fontsize=8, frameon=False, ncols=columns)
    return _svg(figure)


def _cycle(looks: Sequence[str], things: Collection[Any]) -> list[str]:
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
