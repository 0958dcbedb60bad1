"""report.tex and report.csv: the scores for papers and for spreadsheets."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlingua.eval.report.comparisons import Comparison, Key, key_of
from jaxlingua.eval.report.escape import csv_text, document, latex, table
from jaxlingua.eval.report.forgetting import is_significant
from jaxlingua.eval.report.heat import Cell, HeatMap
from jaxlingua.eval.report.models import BASE, FLOOR
from jaxlingua.eval.report.summary import LEVELS, MEASURES
from jaxlingua.eval.report.words import language_name, one_digit, signed

COLUMNS_PER_TABLE = 7
FIELDS = (
    *("stage", "step", "model", "task", "language", "metric", "value", "low", "high", "items", "signature"),
    *("prompt", "kind", "source_language", "delta", "delta_low", "delta_high", "p_value"),
)

MATRIX_FIELDS = (
    *("row", "step", "task", "language", "metric", "group", "learned", "value", "low", "high", "items"),
    *("against", "change", "change_low", "change_high", "p_value", "p_holm", "reason"),
)


def scores_csv(scores: Sequence[Mapping[str, Any]], found: Mapping[Key, Comparison]) -> str:
    """A line per score with all of its fields, then p_value after Holm and why it is not compared."""
    further = [name for score in scores for name in score if name not in FIELDS]
    rows = []
    for score in scores:
        one = found.get(key_of(score))
        rows.append(
            {
                **score,
                "p_holm": one.p_holm if one else None,
                "not_comparable": one.reason if one else None,
            }
        )
    return csv_text(rows, [*FIELDS, *dict.fromkeys(further), "p_holm", "not_comparable"])


def scores_latex(
    name: str,
    tables: Sequence[HeatMap],
    means: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    models: Sequence[str],
    forgetting: Mapping[str, Any] | None = None,
) -> str:
    """The heat maps as tables, the groups, the forgetting matrix, and all scores, as a document that compiles
    by itself."""
    parts = [part for heat in tables for part in _heat_tables(heat)]
    if means:
        body = [
            [
                latex(line["group"]),
                latex(line["metric"]),
                str(len(line["languages"])),
                str(line["cells"]),
                one_digit(line["before"]) if line["before"] is not None else "",
                one_digit(line["after"]),
                latex(signed(line["delta"])) if line["delta"] is not None else "",
            ]
            for line in means
        ]
        head = ["group", "metric", "languages", "cells", "before", "after", r"$\Delta$"]
        parts.append(table("Means over groups of languages.", "tab:groups", head, body, align="llrrrrr"))
    if forgetting:
        parts += _matrix_tables(forgetting)
    if rows:
        parts.append(_all_scores(rows, models))
    return document(parts, f"Scores of {' '.join(name.split())}; written by jaxlingua, which overwrites it.")


def forgetting_csv(forgetting: Mapping[str, Any]) -> str:
    """A line per cell of the forgetting matrix, numbers in full; changes are told so that more is better."""
    lines = [
        {"row": row["name"], "step": row["step"], **column, **column["cells"][row["name"]]}
        for column in forgetting["columns"]
        for row in forgetting["rows"]
        if row["name"] in column["cells"]
    ]
    return csv_text(lines, MATRIX_FIELDS)


def _matrix_tables(forgetting: Mapping[str, Any]) -> list[str]:
    """The matrix, some columns at a time, then what it tells in one table."""
    parts = []
    for start in range(0, len(forgetting["columns"]), COLUMNS_PER_TABLE):
        columns = forgetting["columns"][start : start + COLUMNS_PER_TABLE]
        head = ["after"]
        for one in columns:
            names = (language_name(one["language"]), one["column"], one["metric"])
            stacked = r"\\".join(map(latex, names))
            head.append(rf"\shortstack{{{stacked}}}")
        body = [
            [latex(_row_name(row)), *(_matrix_cell(one, row["name"]) for one in columns)]
            for row in forgetting["rows"]
        ]
        title = (
            "Forgetting matrix; bold where the language was learned, before that the difference to the base "
            f"model, behind it to that stage; * p $<$ 0.05 after Holm over {forgetting['tests']} differences."
        )
        place = f"tab:forgetting-{start // COLUMNS_PER_TABLE + 1}"
        parts.append(table(title, place, head, body, align="l" + "r" * len(columns)))
    body = []
    for line in forgetting["summary"]:
        name = line["ability"] or MEASURES[line["measure"]][0]
        told = "" if line["value"] is None else latex(_summary_number(line, line["value"]))
        if line["low"] is not None:
            low, high = (latex(_summary_number(line, line[side])) for side in ("low", "high"))
            told += rf" {{\tiny [{low}, {high}]}}"
        body.append([latex(name), latex(line["metric"]), told, str(line["cells"]), f"{line['items']:,}"])
    head = ["measure", "metric", "value", "tasks", "items"]
    title = r"What the forgetting matrix tells, with 95\,\% bootstrap intervals."
    return [*parts, table(title, "tab:forgetting", head, body, align="llrrr")]


def _row_name(row: Mapping[str, Any]) -> str:
    if not row["steps_left"]:
        return row["name"]
    return f"{row['name']}: {row['steps'] - row['steps_left']:,} of {row['steps']:,} steps"


def _summary_number(line: Mapping[str, Any], value: float | int) -> str:
    return one_digit(value) if line["measure"] in LEVELS else signed(value)


def _matrix_cell(column: Mapping[str, Any], row: str) -> str:
    cell = column["cells"].get(row)
    if cell is None:
        return ""
    value = one_digit(cell["value"])
    if row == column["learned"] and not column["abilities"]:
        return rf"\textbf{{{value}}}"
    if cell["reason"]:
        return rf"{value} $\neq$"
    star = r"\textsuperscript{*}" if is_significant(cell) else ""
    return value + (rf" {{\scriptsize {latex(signed(cell['change']))}}}{star}" if cell["against"] else "")


def _heat_tables(heat: HeatMap) -> list[str]:
    parts = []
    for start in range(0, len(heat.columns), COLUMNS_PER_TABLE):
        columns = heat.columns[start : start + COLUMNS_PER_TABLE]
        body: list[Sequence[str] | str] = []
        for group, languages in heat.groups.items():
            if group:
                body.append(latex(group))
            body += [
                [latex(language_name(code)), *(_cell(heat.cells.get((code, column))) for column in columns)]
                for code in languages
            ]
        head = ["", *(rf"\shortstack{{{latex(column)}\\{latex(metric)}}}" for column, metric in columns)]
        title = f"Scores of {latex(heat.model)}"
        title += ", and the difference to the base model; * p $<$ 0.05 after Holm" if heat.has_deltas else ""
        title += f" over {heat.tests} differences." if heat.tests else "."
        place = f"tab:{'-'.join(filter(str.isalnum, heat.model.split()))}-{start // COLUMNS_PER_TABLE + 1}"
        parts.append(table(title, place, head, body, align="l" + "r" * len(columns)))
    return parts


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    sd = f" $\\pm$ {one_digit(cell.sd)}" if cell.sd is not None else ""
    if cell.reason:
        return f"{one_digit(cell.value)}{sd} $\\neq$"
    delta = f" {{\\scriptsize {latex(signed(cell.delta))}}}" if cell.delta is not None else ""
    star = rf"\textsuperscript{{{latex(cell.mark)}}}" if cell.mark else ""
    return f"{one_digit(cell.value)}{sd}{delta}{star}"


def _with_interval(score: Mapping[str, Any]) -> str:
    value, low, high = (latex(one_digit(score[name])) for name in ("value", "low", "high"))
    return rf"{value} {{\tiny [{low}, {high}]}}"


def _all_scores(rows: Sequence[Mapping[str, Any]], models: Sequence[str]) -> str:
    shown = [model for model in models if model in (FLOOR, BASE)] + [
        model for model in models if model not in (FLOOR, BASE)
    ][-3:]
    has_prompts = len({row["prompt"] for row in rows}) > 1
    body = []
    for row in rows:
        values = []
        for model in shown:
            score = row["scores"].get(model)
            values.append(_with_interval(score) if score else "")
        name = f"{row['task']} {row['prompt']}" if has_prompts else row["task"]
        body.append([latex(name), latex(row["metric"]), f"{row['items']:,}", *values])
    return table(
        r"All scores, with 95\,\% bootstrap intervals.",
        "tab:scores",
        ["task", "metric", "items", *(latex(model) for model in shown)],
        body,
        align="llr" + "r" * len(shown),
        is_long=True,
    )
