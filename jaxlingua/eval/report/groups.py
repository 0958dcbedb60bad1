"""Groups of languages: what seen ones gained, and whether unseen ones went along; and what was forgotten."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxlingua.eval.report.comparisons import is_better
from jaxlingua.eval.report.heat import HeatMap
from jaxlingua.eval.report.models import better_high, model_key, places_of, primary_metrics, prompt_of
from jaxlingua.eval.report.words import language_name
from jaxlingua.eval.significance import comparable, correlation, spread


def make_groups(
    given: Mapping[str, Sequence[str]], stages: Iterable[Mapping[str, Any]], languages: Iterable[str]
) -> dict[str, list[str]]:
    """eval.groups, or else seen and unseen languages: seen are those whose answers some stage learned.

    Args:
        stages: as in data.json. Languages that only replay brings are seen as well.
        languages: those that were evaluated.
    """
    if given:
        return {name: list(codes) for name, codes in given.items()}
    seen = {row["language"] for stage in stages for row in stage["mixture"] if row.get("documents seen", 1)}
    there = sorted(set(languages) - {"und_Zyyy"}, key=language_name)
    groups = {
        "seen": [code for code in there if code in seen],
        "unseen": [code for code in there if code not in seen],
    }
    return groups if all(groups.values()) else {}


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


def forgetting(
    scores: Iterable[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Each task after each stage, and what became of it since its language was learned.

    Backward transfer is the score after the last stage minus that after the stage which learned the language
    first; forgetting is its negative part. None where fewer than two stages were evaluated.
    """
    scores = list(scores)
    last: dict[str, int] = {}
    for score in scores:
        if score["step"] > 0:
            last[score["stage"]] = max(score["step"], last.get(score["stage"], 0))
    evaluated = [stage["name"] for stage in stages if stage["name"] in last]
    if len(evaluated) < 2:
        return None
    learned: dict[str, str] = {}
    for stage in stages:
        for row in stage["mixture"]:
            if row.get("documents seen", 1):
                learned.setdefault(row["language"], stage["name"])
    places, primary = places_of(scores), primary_metrics(scores)
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for score in scores:
        name = "base" if model_key(score) == "base" else score["stage"]
        if name != "base" and (name not in evaluated or last[name] != score["step"]):
            continue
        if primary.get(score["task"]) != score["metric"]:
            continue
        place = places[score["task"]]
        key = (place.language, place.column, score["metric"])
        row = rows.setdefault(key, {"learned": learned.get(place.language), "scores": {}})
        row["scores"].setdefault(name, {})[prompt_of(score)] = score
    lines = [_line(key, row, evaluated) for key, row in rows.items()]
    order = {name: place for place, name in enumerate(evaluated)}
    lines.sort(
        key=lambda line: (order.get(line["learned"], -1), language_name(line["language"]), line["column"])
    )
    told = [line["backward"] for line in lines if line["backward"] is not None and line["learned"]]
    return {
        "stages": evaluated,
        "rows": lines,
        "backward_transfer": spread(told).mean if told else None,
        "forgetting": spread([max(-value, 0.0) for value in told]).mean if told else None,
    }


def _line(key: tuple[str, ...], row: dict[str, Any], evaluated: list[str]) -> dict[str, Any]:
    language, column, metric = key
    since = row["learned"] if row["learned"] in evaluated else None if row["learned"] else "base"
    values = {
        name: spread([score["value"] for score in them.values()]).mean for name, them in row["scores"].items()
    }
    line = {"language": language, "column": column, "metric": metric, "learned": row["learned"]}
    line |= {"values": values, "backward": None, "reason": ""}
    then, now = row["scores"].get(since or ""), row["scores"].get(evaluated[-1])
    if since == evaluated[-1] or not then or not now:
        return line
    differing = [
        comparable(then[name]["signature"], now[name]["signature"]) if name in then else "prompt: other ones"
        for name in now
    ]
    if any(differing) or then.keys() != now.keys():
        return {**line, "reason": next(filter(None, differing), "prompt: other ones")}
    change = values[evaluated[-1]] - values[since]
    return {**line, "backward": change if better_high(metric) is not False else -change}
