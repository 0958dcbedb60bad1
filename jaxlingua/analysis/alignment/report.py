"""What alignment tells: alignment.json, .md and .html, and the pictures in them."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jaxlingua.analysis.alignment.compare import MEASURES, Compared, best_layer, numbers_of
from jaxlingua.analysis.alignment.pictures import draw_curves, draw_planes
from jaxlingua.analysis.alignment.sentences import Sentences
from jaxlingua.eval.report.escape import markdown
from jaxlingua.eval.report.files import replace
from jaxlingua.generate.states import POOLINGS

TITLES = {
    "retrieval": "retrieval",
    "retrieval_forth": "forth",
    "retrieval_back": "back",
    "cosine_gap": "cosine gap",
    "cka": "CKA",
}
INTERVALS = "bootstrap over sentences, Wilson's for a share of 0 or 1"
NOTES = (
    "Layer 0 is the embeddings, layer n the output of layer n, the last one after the final norm.",
    "Vectors are of the bare sentences behind a BOS where the tokenizer has one. mean: the sum of the states "
    "of the sentence's tokens divided by their number, BOS and padding left out. last: its last token's.",
    "retrieval: share of sentences whose translation is the nearest by cosine, mean of forth (first language "
    "to second) and back; equally near ones share the point. cosine gap: mean cosine of translations minus "
    "that of different sentences. CKA: linear, debiased.",
    f"Intervals: 95 %, {INTERVALS}, the same resamples for all models, so that changes are paired; of a "
    "change where both shares are 0 or 1, Newcombe's (1998, method 10).",
    "The best layer is chosen on the same sentences, so that its retrieval is a little too high.",
)
_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Alignment</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-size: 13px; }}
th, td {{ padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
svg {{ max-width: 100%; height: auto; background: #fff; }}
div {{ overflow-x: auto; }}
</style>
{body}
</html>
"""

Table = tuple[str, list[str], list[list[str]]]  # title, head, rows


def content_of(
    models: Sequence[Compared], sentences: Sentences, layer: int | None, samples: int, seed: int
) -> dict[str, Any]:
    """All that is told, as alignment.json has it.

    Args:
        layer: that is told in short and drawn in a plane; None for the best one of each model.
    """
    chosen = [best_layer(models, model.states) if layer is None else layer for model in models]
    return {
        "sentences": {
            "source": sentences.source,
            "split": sentences.split,
            "count": len(sentences.ids),
            "available": sentences.available,
            "left_out": dict(sentences.left_out),
            "languages": list(sentences.texts),
            "same_text": sentences.untranslated,
        },
        "chance": 1 / len(sentences.ids),
        "poolings": list(POOLINGS),
        "interval": {"method": INTERVALS, "samples": samples, "seed": seed},
        "models": [
            {
                "name": model.name,
                "path": model.path,
                "layers": model.states - 1,
                "layer": of_model,
                "layer_chosen_by": "best retrieval" if layer is None else "--layer",
                "cut_sentences": model.cut_sentences,
                "cut_tokens": model.cut_tokens,
                "mean_tokens": dict(model.mean_tokens),
                "plane": {
                    "shares_of_variance": model.planes[of_model][1],
                    "points": {
                        language: points.round(5).tolist()
                        for language, points in zip(sentences.texts, model.planes[of_model][0], strict=True)
                    },
                },
            }
            for model, of_model in zip(models, chosen, strict=True)
        ],
        "numbers": numbers_of(models, len(sentences.ids)),
    }


def write_report(
    folder: Path, models: Sequence[Compared], sentences: Sentences, content: Mapping[str, Any]
) -> None:
    """alignment.json, alignment.md, alignment.html, curves.svg and planes.svg, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    curves = draw_curves(models, sentences)
    planes = draw_planes(models, [model["layer"] for model in content["models"]], sentences)
    replace(folder / "curves.svg", curves)
    replace(folder / "planes.svg", planes)
    replace(
        folder / "alignment.json", json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    )
    replace(folder / "alignment.md", _markdown(content))
    replace(folder / "alignment.html", _html(content, curves, planes))


def summary_lines(content: Mapping[str, Any]) -> list[str]:
    """A line for each model and pair, and one for its change, for the console."""
    lines = []
    for model in content["models"]:
        for pair in _pairs(content):
            told = [f"{TITLES[one]} {_cell(_number(content, model, pair, 'mean', one))}" for one in MEASURES]
            lines.append(f"{model['name']}, {'-'.join(pair)}, layer {model['layer']}: {', '.join(told)}")
            if _has_change(content, model):
                told = [
                    f"{TITLES[one]} {_change(_number(content, model, pair, 'mean', one))}" for one in MEASURES
                ]
                lines.append(f"  change against {content['models'][0]['name']}: {', '.join(told)}")
    return lines


def _facts(content: Mapping[str, Any]) -> list[str]:
    of = content["sentences"]
    lost = ", ".join(f"{reason} {count}" for reason, count in of["left_out"].items() if count)
    same = ", ".join(f"{pair} {count}" for pair, count in of["same_text"].items() if count)
    split = of["split"].replace("_", " ")
    facts = [
        f"{of['count']:,} of {of['available']:,} sentences of {of['source']} ({split}) "
        f"in {', '.join(of['languages'])}{f'; left out: {lost}' if lost else ''}. Chance retrieves "
        f"{content['chance']:.4f}."
    ]
    if same:
        facts.append(f"The same text in both languages: {same}; such sentences are always alike.")
    facts += [
        f"{model['name']}: {model['cut_sentences']} too long sentences lost {model['cut_tokens']} tokens."
        for model in content["models"]
        if model["cut_sentences"]
    ]
    return facts


def _tables(content: Mapping[str, Any]) -> list[Table]:
    """For each pair the chosen layer of each model and its changes, then retrieval at all layers."""
    tables = []
    for pair in _pairs(content):
        rows = [
            [model["name"], str(model["layer"]), pooling]
            + [_cell(_number(content, model, pair, pooling, one)) for one in MEASURES]
            for model in content["models"]
            for pooling in POOLINGS
        ]
        changes = [
            [model["name"], str(model["layer"]), pooling]
            + [_change(_number(content, model, pair, pooling, one)) for one in MEASURES]
            for model in content["models"]
            if _has_change(content, model)
            for pooling in POOLINGS
        ]
        head = ["model", "layer", "pooling", *(TITLES[one] for one in MEASURES)]
        tables.append((f"{pair[0]} and {pair[1]}", head, rows))
        if changes:
            title = f"Change against {content['models'][0]['name']}: {pair[0]} and {pair[1]}"
            tables.append((title, head, changes))
    for pair in _pairs(content):
        deepest = max(model["layers"] for model in content["models"])
        rows = [
            [str(layer)]
            + [
                _cell(_number(content, model, pair, pooling, "retrieval", layer))
                if layer <= model["layers"]
                else ""
                for model in content["models"]
                for pooling in POOLINGS
            ]
            for layer in range(deepest + 1)
        ]
        head = [
            "layer",
            *(f"{model['name']}, {pooling}" for model in content["models"] for pooling in POOLINGS),
        ]
        tables.append((f"Retrieval by layer: {pair[0]} and {pair[1]}", head, rows))
    return tables


def _has_change(content: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether a model can be set against the first one, layer by layer."""
    first = content["models"][0]
    return model is not first and model["layers"] == first["layers"]


def _pairs(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(tuple(row["languages"]) for row in content["numbers"]))


def _number(
    content: Mapping[str, Any],
    model: Mapping[str, Any],
    pair: tuple[str, str],
    pooling: str,
    measure: str,
    layer: int | None = None,
) -> Mapping[str, Any]:
    wanted = (model["name"], model["layer"] if layer is None else layer, pooling, list(pair), measure)
    names = ("model", "layer", "pooling", "languages", "measure")
    return next(row for row in content["numbers"] if tuple(row[name] for name in names) == wanted)


def _cell(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    inside = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['value']:.3f}{inside}".replace("-", "−")


def _change(row: Mapping[str, Any]) -> str:
    if row["change"] is None:
        return "–"
    inside = "" if row["change_low"] is None else f" ({row['change_low']:+.3f} to {row['change_high']:+.3f})"
    return f"{row['change']:+.3f}{inside}".replace("-", "−")


def _markdown(content: Mapping[str, Any]) -> str:
    lines = ["# Alignment", "", *(f"{markdown(fact)}\n" for fact in _facts(content))]
    lines += ["![Curves over layers](curves.svg)", "", "![Sentences in a plane](planes.svg)", ""]
    for title, head, rows in _tables(content):
        lines += [f"## {title}", "", f"| {' | '.join(map(markdown, head))} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(map(markdown, row))} |" for row in rows] + [""]
    lines += [f"- {note}" for note in NOTES]
    return "\n".join(lines) + "\n"


def _html(content: Mapping[str, Any], curves: str, planes: str) -> str:
    parts = ["<h1>Alignment</h1>", *(f"<p>{escape(fact)}</p>" for fact in _facts(content))]
    parts += [f"<div>{curves}</div>", f"<div>{planes}</div>"]
    for title, head, rows in _tables(content):
        parts.append(f"<h2>{escape(title)}</h2><div><table>{_row('th', head)}")
        parts += [_row("td", row) for row in rows]
        parts.append("</table></div>")
    parts.append(f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in NOTES)}</ul>")
    return _PAGE.format(body="\n".join(parts))


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
