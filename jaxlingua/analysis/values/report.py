"""What values tells: values.json, values.md, values.html, and the map in them."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlingua.analysis.values.identification import TOP
from jaxlingua.analysis.values.measure import Table
from jaxlingua.analysis.values.pictures import draw_map, svg_and_png
from jaxlingua.analysis.values.questions import CONTROLS, SETS
from jaxlingua.eval.report.escape import markdown
from jaxlingua.eval.report.files import replace

NOTES = (
    "A class is a model and a language, which stands for values as a proxy alone: style, quality and traces "
    "of the language that an answer was translated from tell classes apart as well. Both controls bound "
    "that: facts (questions without values) and neutral (sentences that are only to be repeated). What "
    "values are told by beyond the higher of them may be values; what controls are told by too is not.",
    "Questions that are held out are held out for all classes, and all numbers are of these. Encoders "
    "learned from the other questions about values alone.",
    "frozen: vectors of the model that encodes, each dimension scaled. λ = n: what an encoder made of them "
    "that learned from views of up to n pairs. Each set is centered by its own mean.",
    "All sets are told from as many questions. neighbors: the nearest 50 answers by cosine, or as many as "
    "the smallest class of any set has. probe: logistic regression. accuracy@n: the class is among the first "
    "n. chance: of accuracy what the most frequent classes get, of F1 what guessing in proportion to their "
    "shares gets. Intervals: 95 %, bootstrap over held-out questions; of a share of 0 or 1 Wilson's, of as "
    "many items.",
    "Shift: squared distance of the mean vectors of two models' answers in a language, estimated so that it "
    "is 0 where nothing but chance tells them apart, and so sometimes a little below. noise: what 5 % of "
    "drawings are above in which lot says which of both models gave an answer. An encoder was trained to "
    "tell these models apart on values, so that it may see less in controls; frozen vectors were trained on "
    "neither.",
)
_UNTRANSLATED = (
    "such answers are told apart by their language, whatever they say. Compare models within a language, or "
    "have them translated."
)
_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Values</title>
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

Lines = tuple[str, list[str], list[list[str]]]  # title, head, rows


def write_report(
    folder: Path,
    content: Mapping[str, Any],
    vectors: Mapping[str, Float[np.ndarray, "answers size"]],
    of: Table,
) -> None:
    """values.json, values.md, values.html, map.svg and map.png. The map is of the last encoder."""
    shown = list(vectors)[-1]
    svg, png = svg_and_png(draw_map(vectors[shown], of, shown))
    replace(folder / "map.svg", svg)
    (folder / "map.png").write_bytes(png)
    replace(folder / "values.json", json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    tables = _tables(content)
    replace(folder / "values.md", _markdown(content, tables))
    replace(folder / "values.html", _html(content, tables, svg))


def summary_lines(content: Mapping[str, Any]) -> list[str]:
    """For the console: what is found of values and of both controls, and what moved."""
    lines = [*_facts(content)]
    for title, head, rows in _tables(content):
        if title.startswith(("Identification", "Shift")):
            widths = [max(len(line[place]) for line in [head, *rows]) for place in range(len(head))]
            lines += ["", title]
            lines += [
                "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                for line in [head, *rows]
            ]
    return lines


def _facts(content: Mapping[str, Any]) -> list[str]:
    asked = ", ".join(
        f"{name} {of['asked']} ({of['held_out']} held out)" for name, of in content["questions"].items()
    )
    by = content["encoded_by"]
    facts = [f"Questions: {asked}. Vectors: {by['model']}, layer {by['layer']}."]
    if by["cut"]:
        of_all = sum(one["answers"] for one in content["classes"])
        facts.append(f"Longer than {by['model']} reads, and cut: {by['cut']} of {of_all} answers.")
    lost = [
        f"{one['model']} · {one['language']}: {one['empty']} empty and {one['other_language']} in another "
        f"language of {one['answers']}"
        for one in content["classes"]
        if one["empty"] or one["other_language"]
    ]
    if lost:
        facts.append(f"Answers that are kept all the same: {'; '.join(lost)}.")
    if problems := content["translation_problems"]:
        facts.append(f"Translations: {', '.join(f'{name} {count}' for name, count in problems.items())}.")
    lacking = [
        f"{one['model']} · {one['language']}: {one['pivots']['equal']} equal to the answer, "
        f"{one['pivots']['other_language']} in another language and {one['pivots']['empty']} empty of "
        f"{one['answers']}"
        for one in content["classes"]
        if any(one["pivots"].values())
    ]
    if lacking:
        facts.append(f"Pivots that are no answer in English: {'; '.join(lacking)}.")
    if (classes := content["pivot"]["untranslated"]) and len(
        {one["language"] for one in content["classes"]}
    ) > 1:
        facts.append(f"Not translated into English are answers of {', '.join(classes)}: {_UNTRANSLATED}")
    return facts


def _tables(content: Mapping[str, Any]) -> list[Lines]:
    return [*_identification(content), *_shifts(content), *_distances(content)]


def _identification(content: Mapping[str, Any]) -> list[Lines]:
    """Of each target a table with a line for each set, values above both controls."""
    tables = []
    rows = content["identification"]
    for told in dict.fromkeys(row["told"] for row in rows):
        of = [row for row in rows if row["told"] == told]
        measures = [each for each in _MEASURES if any(row["measure"] == each for row in of)]
        body = []
        for vectors, method in dict.fromkeys((row["vectors"], row["method"]) for row in of):
            for name in SETS:
                cells = {
                    row["measure"]: row
                    for row in of
                    if (row["vectors"], row["method"], row["set"]) == (vectors, method, name)
                }
                body.append([name, vectors, method, *(_share(cells.get(each)) for each in measures)])
        for name in SETS:
            cells = {row["measure"]: row for row in of if row["set"] == name}
            body.append([name, "–", "chance", *(_percent(cells[each]["chance"]) for each in measures)])
        classes = max(row["classes"] for row in of)
        title = f"Identification of {told}, {classes} classes, %"
        tables.append((title, ["questions", "vectors", "method", *measures], body))
    return tables


_MEASURES = (*(f"accuracy@{top}" for top in TOP), "weighted F1")


def _shifts(content: Mapping[str, Any]) -> list[Lines]:
    rows = content["shifts"]
    tables = []
    for before, after in dict.fromkeys((row["before"], row["after"]) for row in rows):
        of = [row for row in rows if (row["before"], row["after"]) == (before, after)]
        body = [
            [row["set"], row["language"], row["vectors"], _shift(row), _decimal(row["noise"]), _more(row)]
            for vectors in dict.fromkeys(row["vectors"] for row in of)
            for row in of
            if row["vectors"] == vectors
        ]
        head = ["questions", "language", "vectors", "shift", "noise", "values moved more by"]
        tables.append((f"Shift from {before} to {after}", head, body))
    return tables


def _distances(content: Mapping[str, Any]) -> list[Lines]:
    """Cosines of class means, of the last encoder, for values and both controls."""
    names = [f"{one['model']} · {one['language']}" for one in content["classes"]]
    shown = content["distances"][-1]["vectors"]
    of = {row["set"]: row["cosines"] for row in content["distances"] if row["vectors"] == shown}
    return [
        (
            f"Cosine of class means, {shown}: {name}",
            ["class", *(str(place) for place in range(1, len(names) + 1))],
            [
                [f"{place} {label}", *(_decimal(one, 2) for one in row)]
                for place, (label, row) in enumerate(zip(names, of[name], strict=True), start=1)
            ],
        )
        for name in ("values", *CONTROLS)
    ]


def _share(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    inside = "" if row["low"] is None else f" ({_percent(row['low'])} to {_percent(row['high'])})"
    return f"{_percent(row['value'])}{inside}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _shift(row: Mapping[str, Any], sign: str = "") -> str:
    if row["value"] is None:
        return "–"
    inside = "" if row["low"] is None else f" ({row['low']:{sign}.3f} to {row['high']:{sign}.3f})"
    return f"{row['value']:{sign}.3f}{inside}".replace("-", "−")


def _more(row: Mapping[str, Any]) -> str:
    return _shift(row["values_more_by"], "+") if row["values_more_by"] else ""


def _decimal(value: float | None, places: int = 3) -> str:
    return "–" if value is None else f"{value:.{places}f}".replace("-", "−")


def _markdown(content: Mapping[str, Any], tables: Sequence[Lines]) -> str:
    lines = ["# Values", "", *(f"{markdown(fact)}\n" for fact in _facts(content))]
    lines += ["![Answers in a plane](map.svg)", ""]
    for title, head, rows in tables:
        lines += [f"## {title}", "", f"| {' | '.join(map(markdown, head))} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(map(markdown, row))} |" for row in rows] + [""]
    lines += [f"- {note}" for note in NOTES]
    return "\n".join(lines) + "\n"


def _html(content: Mapping[str, Any], tables: Sequence[Lines], svg: str) -> str:
    parts = ["<h1>Values</h1>", *(f"<p>{escape(fact)}</p>" for fact in _facts(content)), f"<div>{svg}</div>"]
    for title, head, rows in tables:
        parts.append(f"<h2>{escape(title)}</h2><div><table>{_row('th', head)}")
        parts += [_row("td", row) for row in rows]
        parts.append("</table></div>")
    parts.append(f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in NOTES)}</ul>")
    return _PAGE.format(body="\n".join(parts))


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
