"""The forgetting matrix as pages show it: tables that fit a page, the color of a cell, curves over stages."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from jaxlingua.eval.report.forgetting import is_significant
from jaxlingua.eval.report.matrix import when
from jaxlingua.eval.report.pictures import draw
from jaxlingua.eval.report.summary import MEASURES
from jaxlingua.eval.report.words import language_name, one_digit, p_text, signed

COLUMNS = 10  # of one table, as many as a page is wide


def matrix_view(told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Tables, curves and definitions, made of what report.json tells under "forgetting"."""
    if told is None:
        return {}
    largest: dict[str, float | int] = {}
    for column in told["columns"]:
        for cell in column["cells"].values():
            size = abs(cell["change"] or 0)
            largest[column["metric"]] = max(largest.get(column["metric"], 0), size)
    tables = []
    for columns in _parted(told["columns"]):
        names = [column["group"] for column in columns]
        tables.append(
            {
                "groups": [(name, names.count(name)) for name in dict.fromkeys(names)],
                "columns": columns,
                "rows": [
                    {**row, "cells": [_shown(column, row, largest) for column in columns]}
                    for row in told["rows"]
                ],
            }
        )
    measures = dict.fromkeys(line["measure"] for line in told["summary"])
    return {
        "tables": tables,
        "curves": _curves(told),
        "titles": {measure: title for measure, (title, _) in MEASURES.items()},
        "definitions": [MEASURES[measure] for measure in measures],
        "reasons": _reasons(told["columns"]),
        "is_mirrored": any(column["sign"] < 0 for column in told["columns"]),
    }


def _parted(columns: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Columns by table; a group stays together where it fits into one."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for column in columns:
        groups.setdefault(column["group"], []).append(column)
    tables: list[list[Mapping[str, Any]]] = []
    for of_group in groups.values():
        for start in range(0, len(of_group), COLUMNS):
            part = of_group[start : start + COLUMNS]
            if tables and len(tables[-1]) + len(part) <= COLUMNS:
                tables[-1] += part
            else:
                tables.append(part)
    return tables


def _shown(
    column: Mapping[str, Any], row: Mapping[str, Any], largest: Mapping[str, float | int]
) -> dict[str, Any] | None:
    """A cell with its color, its mark and all that is known of it; None where it was not evaluated."""
    cell = column["cells"].get(row["name"])
    if cell is None:
        return None
    kind, strength = "none", 0.0
    if cell["reason"]:
        kind = "differs"
    elif cell["change"]:
        kind = "gain" if cell["change"] > 0 else "loss"
        strength = 0.12 + 0.88 * (abs(cell["change"]) / largest[column["metric"]]) ** 0.6
        if cell["p_holm"] is not None and not is_significant(cell):
            strength *= 0.35
    is_learned = row["name"] == column["learned"] and not column["abilities"]
    shown = {**cell, "kind": kind, "strength": strength, "title": _title(column, row, cell)}
    return shown | {"is_learned": is_learned, "is_significant": is_significant(cell)}


def _title(column: Mapping[str, Any], row: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    told = f"{column['task']}, {column['metric']}, {when(row)}: {one_digit(cell['value'])}"
    if cell["low"] is not None:
        told += f" [{one_digit(cell['low'])}, {one_digit(cell['high'])}]"
    told += f", {cell['items']:,} items"
    against = "the base model" if cell["against"] == "base" else f"stage {cell['against']}"
    if cell["reason"]:
        return f"{told}; not comparable with {against}: {cell['reason']}"
    if cell["change"] is None:
        return told
    told += f"; {signed(cell['change'])} against {against}"
    if cell["change_low"] is not None:
        told += f" [{signed(cell['change_low'])}, {signed(cell['change_high'])}]"
    if cell["p_holm"] is not None:
        told += f", p {p_text(cell['p_value'])}, after Holm {p_text(cell['p_holm'])}"
    return told


def _curves(told: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """A picture per kind of task and metric, a line per language; a ring where the language was learned."""
    names = [row["name"] for row in told["rows"]]
    pictures: dict[tuple[str, str], dict[str, list[tuple[int, float | int]]]] = {}
    learned: dict[tuple[str, str], dict[str, int]] = {}
    for column in told["columns"]:
        picture = (column["column"], column["metric"])
        label = language_name(column["language"])
        points = [
            (place, column["cells"][name]["value"])
            for place, name in enumerate(names)
            if name in column["cells"]
        ]
        pictures.setdefault(picture, {})[label] = points
        if column["learned"] in names and not column["abilities"]:
            learned.setdefault(picture, {})[label] = names.index(column["learned"])
    labels = list(dict.fromkeys(label for lines in pictures.values() for label in lines))
    return [
        (name, draw(lines, name, metric, labels, names, learned.get((name, metric), {})))
        for (name, metric), lines in pictures.items()
    ]


def _reasons(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Reason → the tasks whose cells it keeps from being compared."""
    found: dict[str, list[str]] = {}
    for column in columns:
        for cell in column["cells"].values():
            if cell["reason"]:
                found.setdefault(cell["reason"], []).append(column["task"])
    return [(reason, list(dict.fromkeys(tasks))) for reason, tasks in found.items()]
