"""What the columns of the forgetting matrix tell together: average, backward and forward transfer, abilities.

Different metrics are not averaged: each has lines of its own. All changes are told so that more is better.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlingua.eval.report.matrix import Column, interval_of, when
from jaxlingua.eval.report.models import BASE, importance
from jaxlingua.eval.report.words import one_digit, signed

# Measure → how it is called, and what it is.
MEASURES = {
    "average": (
        "average score",
        "mean of the scores after the last stage, over what was learned",
    ),
    "backward_transfer": (
        "backward transfer",
        "score after the last stage minus that after the stage which learned the language; of languages "
        "learned before the last stage (Lopez-Paz and Ranzato 2017, arXiv:1706.08840)",
    ),
    "forgetting": (
        "forgetting",
        "the negative part of backward transfer, cell by cell: what was lost, not set off against gains",
    ),
    "drop_from_best": (
        "drop from the best",
        "the best score of an earlier stage since the language was learned minus that after the last stage; "
        "called forgetting by Chaudhry et al. 2018 (arXiv:1801.10112)",
    ),
    "cost_of_last_stage": (
        "cost of the last stage",
        "score after the last stage minus that after the stage before it; of languages learned before the "
        "last stage. Negative: what that stage alone took from them",
    ),
    "forward_transfer": (
        "forward transfer",
        "score after the stage before a language is learned minus that of the base model; of languages "
        "learned in the second stage or later",
    ),
    "unseen_transfer": (
        "transfer to unseen languages",
        "score after the last stage minus that of the base model; of languages that no stage learned",
    ),
    "ability": (
        "old ability",
        "score after the last stage minus that of the base model; of what the base model could do",
    ),
}
# What was lost: the larger, the worse. Forgetting is never below 0 in a cell, and the drop from the best is
# one from the largest of several scores, so that chance alone lifts both, and their resamples.
LIFTED = ("forgetting", "drop_from_best")

LEVELS = ("average", *LIFTED)  # that are shown without a sign

# A column, the row that is told and the row that it is held against.
Cell = tuple[Column, str, str]
# A number of a cell, from its column's rows: as they were measured, or as resampled.
Reading = Callable[[Cell, Callable[[str], Any]], Any]


def summary(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of the summary: a measure in a metric, with its 95 % interval and what it is a mean of.

    An interval resamples the items of every cell, in all rows alike. It is there where the predictions of all
    cells are.

    Args:
        rows: those of `matrix_rows`.
    """
    names = [row["name"] for row in rows]
    last, place = names[-1], {name: index for index, name in enumerate(names)}
    lines = []
    for metric in sorted({column.metric for column in columns}, key=importance):
        own = [column for column in columns if column.metric == metric]
        learned = [one for one in own if one.learned and not one.abilities]
        lines.append(_line("average", metric, [(one, last, last) for one in learned], _level))

        since = [(one, last, one.since) for one in learned if one.learned != last]
        lines.append(_line("backward_transfer", metric, since, _change))
        lines.append(_line("forgetting", metric, since, _lost))
        if len(names) > 3:  # of two stages there is only one score to be the best, and only one later stage
            lines.append(_line("drop_from_best", metric, since, functools.partial(_drop, names)))
            before = [(one, last, names[-2]) for one, *_ in since]
            lines.append(_line("cost_of_last_stage", metric, before, _change))

        ahead = [(one, place.get(one.since, 0) - 1) for one in learned]
        ahead = [(one, names[row], BASE) for one, row in ahead if row > 0]
        lines.append(_line("forward_transfer", metric, ahead, _change))
        unseen = [(one, last, BASE) for one in own if not one.learned and not one.abilities]
        lines.append(_line("unseen_transfer", metric, unseen, _change))

        for ability in dict.fromkeys(name for one in own for name in one.abilities):
            able = [(one, last, BASE) for one in own if ability in one.abilities]
            lines.append(_line("ability", metric, able, _change, ability))
    return [{**line, "sentence": sentence_of(line, rows[-1])} for line in lines if line]


def _level(cell: Cell, of: Callable[[str], Any]) -> Any:
    return of(cell[1])


def _change(cell: Cell, of: Callable[[str], Any]) -> Any:
    column, now, then = cell
    return column.sign * (of(now) - of(then))


def _lost(cell: Cell, of: Callable[[str], Any]) -> Any:
    return np.maximum(-_change(cell, of), 0.0)


def _drop(names: Sequence[str], cell: Cell, of: Callable[[str], Any]) -> Any:
    """Of rows that were not evaluated, or not alike, there is nothing to be the best."""
    column, now, since = cell
    rows = names[names.index(since) : names.index(now)]
    alike = [column.sign * of(row) for row in rows if not column.reason(now, row)]
    return functools.reduce(np.maximum, alike) - column.sign * of(now)


def _line(
    measure: str, metric: str, cells: Sequence[Cell], read: Reading, ability: str = ""
) -> dict[str, Any] | None:
    """The mean of a number over cells, and its interval; None where there is no cell."""
    if not cells:
        return None
    reasons = [reason for column, now, then in cells if (reason := column.reason(now, then))]
    told = [cell for cell in cells if not cell[0].reason(*cell[1:])]
    line: dict[str, Any] = {"measure": measure, "metric": metric, "ability": ability, "value": None}
    line |= {"low": None, "high": None, "before": None, "after": None, "cells": len(told), "lost": 0}
    line |= {"languages": len({column.language for column, *_ in told}), "items": 0}
    line |= {"tasks": [column.task for column, *_ in told], "left_out": len(reasons)}
    line |= {"reasons": list(dict.fromkeys(reasons))}
    if not told:
        return line
    of_cells = [float(read(cell, cell[0].values.__getitem__)) for cell in told]
    line["value"] = float(np.mean(of_cells))
    line["lost"] = sum(value > 0 if measure in LIFTED else value < 0 for value in of_cells)
    line["items"] = sum(next(iter(column.scores[now].values()))["items"] for column, now, _ in told)
    line["after"] = float(np.mean([column.values[now] for column, now, _ in told]))
    line["before"] = float(np.mean([column.values[then] for column, _, then in told]))
    if all(column.drawn_change(now, then) is not None for column, now, then in told):
        drawn = np.mean([read(cell, functools.partial(_drawn, cell[0])) for cell in told], axis=0)
        low, high = interval_of(drawn)
        if measure in LIFTED:
            low, high = min(low, line["value"]), max(high, line["value"])
        line["low"], line["high"] = low, high
    return line


def _drawn(column: Column, row: str) -> Any:
    """A row over resampled items; as it was told where its predictions are not there any more."""
    return column.draws.get(row, column.values[row])


def summary_scores(told: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The summary as scores of the model after the last stage, for tables of several runs.

    Those of the same tasks can be compared and averaged. They are of no language.

    Args:
        told: as report.json has it under "forgetting".
    """
    if told is None:
        return []
    scores = []
    for line in told["summary"]:
        if line["value"] is None:
            continue
        title, about = MEASURES[line["measure"]]
        tasks = " ".join(sorted(line["tasks"]))
        digest = hashlib.sha256(tasks.encode()).hexdigest()[:8]
        scores.append(
            {
                "stage": told["rows"][-1]["name"],
                "step": told["rows"][-1]["step"],
                "model": "tuned",
                "task": f"{title}: {line['ability']}" if line["ability"] else title,
                "language": "",
                "metric": line["metric"],
                "value": line["value"],
                "low": line["low"],
                "high": line["high"],
                "items": line["items"],
                "signature": f"{title}: {about}|task:mean of {line['cells']}, {digest}",
            }
        )
    return scores


def sentence_of(line: dict[str, Any], last: Mapping[str, Any]) -> str:
    """What a line means, in one plain sentence; `last` is the last row."""
    metric, value = line["metric"], line["value"]
    if value is None:
        return f"Nothing can be told: {'; '.join(line['reasons'])}."
    number, size = signed(value), one_digit(abs(value))
    cells = "1 task" if line["cells"] == 1 else f"{line['cells']} tasks"
    change = f"{one_digit(line['before'])} → {one_digit(line['after'])}"
    moved = "gained" if value > 0 else "lost"
    told = {
        "average": f"A{when(last)[1:]} the learned languages have {one_digit(value)} {metric}, the mean "
        f"of {cells}.",
        "backward_transfer": f"Since they were learned, languages of earlier stages {moved} {size} on "
        f"average ({change}); {line['lost']} of {cells} lost.",
        "forgetting": f"Losses alone, gains counted as 0, come to {size} per task; {line['lost']} of {cells} "
        f"lost.",
        "drop_from_best": f"The last scores lie {size} {'below' if value > 0 else 'above'} the best earlier "
        f"ones since the languages were learned.",
        "cost_of_last_stage": f"The last stage alone: languages of earlier stages {moved} {size} on average "
        f"({change}); {line['lost']} of {cells} lost.",
        "forward_transfer": f"Before they were learned, languages had {moved} {size} ({change}) from the "
        f"stages in front of theirs.",
        "unseen_transfer": f"Languages that no stage learned {moved} {size} ({change}) against the base "
        f"model.",
        "ability": f"“{line['ability']}” {moved} {size} ({change}) against the base model.",
    }[line["measure"]]
    if number == "±0.0" and line["measure"] not in ("average", *LIFTED):
        told = f"Nothing moved on average ({change})."
    return told + _sure(line)


def _sure(line: dict[str, Any]) -> str:
    if line["low"] is None:
        return " No interval: the predictions behind some scores are not there or cannot be resampled."
    if line["measure"] == "average":
        return ""
    if line["measure"] in LIFTED:
        return " Chance alone lifts this number: read it beside backward transfer."
    if line["low"] <= 0 <= line["high"]:
        return " The interval holds 0."
    return " The interval leaves out 0."
