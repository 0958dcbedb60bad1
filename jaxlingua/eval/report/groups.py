"""Groups of languages: what seen ones gained, and whether unseen ones went along."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxlingua.eval.report.comparisons import is_better
from jaxlingua.eval.report.heat import HeatMap
from jaxlingua.eval.report.models import better_high
from jaxlingua.eval.report.words import language_name
from jaxlingua.eval.significance import correlation, spread


def make_groups(
    given: Mapping[str, Sequence[str]], stages: Iterable[Mapping[str, Any]], languages: Iterable[str]
) -> dict[str, list[str]]:
    """eval.groups, or else seen and unseen languages: seen are those that some stage learned to answer in or
    to translate from.

    Args:
        stages: as in data.json. Languages that only replay brings are seen as well.
        languages: those that were evaluated.
    """
    if given:
        return {name: list(codes) for name, codes in given.items()}
    seen = {
        code
        for stage in stages
        for row in stage["mixture"]
        if row.get("documents seen", 1)
        for code in (row["language"], *sources_of(stage, row))
    }
    there = sorted(set(languages) - {"und_Zyyy"}, key=language_name)
    groups = {
        "seen": [code for code in there if code in seen],
        "unseen": [code for code in there if code not in seen],
    }
    return groups if all(groups.values()) else {}


def sources_of(stage: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """The languages from which a row of a stage's mixture translates; older data.json do not tell any."""
    wanted = (row["entry"], row["language"])
    return [one["source"] for one in stage.get("directions", []) if (one["entry"], one["target"]) == wanted]


def group_means(table: HeatMap) -> list[dict[str, Any]]:
    """Mean over the cells of each group, before and after, a line for each metric.

    Where some cells can be compared with the base model, all three means are over these alone.
    """
    found = []
    for metric in dict.fromkeys(metric for _, metric in table.columns):
        for name, languages in table.groups.items():
            cells = [
                cell
                for (code, column), cell in table.cells.items()
                if code in languages and column[1] == metric
            ]
            if not cells:
                continue
            compared = [cell for cell in cells if cell.delta is not None]
            line = {"group": name, "metric": metric, "languages": list(languages)}
            line |= {"cells": len(cells), "compared": len(compared)}
            line["after"] = spread([cell.value for cell in compared or cells]).mean
            line["before"] = spread([cell.base for cell in compared]).mean if compared else None
            line["delta"] = spread([cell.delta for cell in compared]).mean if compared else None
            line["is_better"] = is_better(metric, line["delta"]) if line["delta"] else None
            sides = [is_better(metric, cell.delta) for cell in compared if cell.significant]
            line |= {"gains": sides.count(True), "losses": sides.count(False)}
            found.append(line)
    return found


def transfer(table: HeatMap) -> list[dict[str, Any]]:
    """Whether columns in which the first group is good are those in which another one is.

    A pair is the mean of each of the two groups in one column of one model; the same for what they gained.
    Checkpoints of one run are no pairs of their own: they depend on each other. Columns of metrics that are
    the better the lower they are would stand upside down, and are left out.
    """
    found = []
    names = [name for name in table.groups if name not in ("", "other")]
    for other in names[1:]:
        levels, gains = [], []
        for column in table.columns:
            means = [table.mean(table.groups[name], column) for name in (names[0], other)]
            if None in means or not better_high(column[1]):
                continue
            (first, first_delta), (second, second_delta) = means
            where = {"model": table.model, "column": column[0], "metric": column[1]}
            levels.append({**where, "x": first, "y": second})
            if first_delta is not None and second_delta is not None:
                gains.append({**where, "x": first_delta, "y": second_delta})
        for of, points in (("score", levels), ("delta", gains)):
            if points:
                both = correlation([point["x"] for point in points], [point["y"] for point in points])
                found.append(
                    {
                        "groups": [names[0], other],
                        "of": of,
                        "pearson": both.pearson,
                        "spearman": both.spearman,
                        "low": both.low,
                        "high": both.high,
                        "n": both.n,
                        "sentence": both.describe(),
                        "points": points,
                    }
                )
    return found
