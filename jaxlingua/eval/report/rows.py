"""The table of all scores: a row per task, language, metric and prompt, a column per model."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlingua.eval.report.models import (
    BASE,
    FLOOR,
    importance,
    kind_of,
    model_key,
    prompt_of,
)
from jaxlingua.eval.significance import comparable, spread

KINDS = {
    "qa": "question answering",
    "translation": "translation",
    "choice": "choice",
    "number": "arithmetic",
    "open": "open questions",
    "harness": "lm-evaluation-harness",
}


def score_rows(scores: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per task, language, metric and prompt, with the score of each model beside the others.

    `scores` of a row has the best floor, `floors` all of them.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for score in sorted(scores, key=lambda score: (model_key(score) != FLOOR, score["step"])):
        names = ("task", "language", "metric")
        key = (*(score[name] for name in names), prompt_of(score))
        row = rows.setdefault(
            key,
            {name: score[name] for name in names}
            | {"prompt": prompt_of(score), "kind": kind_of(score), "scores": {}, "floors": []},
        )
        model = model_key(score)
        if model == FLOOR:
            row["floors"].append(score)
            best = row["scores"].get(FLOOR)
            if best is not None and best["value"] >= score["value"]:
                continue
        row["scores"][model] = score
        row |= {"items": score["items"], "signature": score["signature"]}  # of the newest in the end
    return [rows[key] for key in sorted(rows, key=lambda key: (*key[:2], importance(key[2]), key[3]))]


def headlines(rows: list[dict[str, Any]], models: list[str]) -> list[dict[str, Any]]:
    """Mean of each metric over all its tasks, before and after: what a reader wants to know first.

    Before is told where the base model has a comparable score in every one of them.
    """
    trained = [model for model in models if model not in (FLOOR, BASE)]
    if not trained:
        return []
    newest = next((model for model in reversed(trained) if ", step " in model), trained[0])
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if newest in row["scores"]:
            found.setdefault((KINDS.get(row["kind"], row["kind"]), row["metric"]), []).append(row)
    lines = []
    for (kind, metric), group in sorted(found.items(), key=lambda one: (importance(one[0][1]), one[0])):
        pairs = [(row["scores"].get(BASE), row["scores"][newest]) for row in group]
        before = [
            first["value"]
            for first, last in pairs
            if first and not comparable(first["signature"], last["signature"])
        ]
        lines.append(
            {
                "kind": kind,
                "metric": metric,
                "tasks": len({row["task"] for row in group}),
                "prompts": max(Counter(row["task"] for row in group).values()),
                "items": sum({row["task"]: row["items"] for row in group}.values()),
                "before": sum(before) / len(before) if len(before) == len(group) else None,
                "differs": 0 < sum(first is not None for first, _ in pairs) != len(before),
                "after": sum(last["value"] for _, last in pairs) / len(group),
            }
        )
    return lines


def mean_of(line: dict[str, Any]) -> str:
    """What a headline is the mean of.

    Example:
        >>> mean_of({"tasks": 1, "items": 1014, "prompts": 1})
        '1 task, 1,014 items'
        >>> mean_of({"tasks": 2, "items": 9, "prompts": 3})
        'mean of 2 tasks, 9 items in 3 prompts'
    """
    tasks = "1 task" if line["tasks"] == 1 else f"mean of {line['tasks']:,} tasks"
    items = "1 item" if line["items"] == 1 else f"{line['items']:,} items"
    return f"{tasks}, {items}" + (f" in {line['prompts']} prompts" if line["prompts"] > 1 else "")


def prompt_rows(scores: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over prompts of each score that was asked for in several.

    `values` is prompt → value. Floors do not depend on a prompt and are left out.
    """
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for score in scores:
        if model_key(score) != FLOOR:
            key = (score["task"], score["language"], score["metric"], model_key(score))
            found.setdefault(key, {})[prompt_of(score)] = score["value"]
    rows = []
    for key, values in found.items():
        if len(values) > 1:
            over = spread(list(values.values()))
            named = dict(zip(("task", "language", "metric", "model"), key, strict=True))
            rows.append(
                {**named, "mean": over.mean, "sd": over.standard_deviation, "n": over.n, "values": values}
            )
    return rows
