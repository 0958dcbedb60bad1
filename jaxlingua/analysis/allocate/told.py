"""What is told of a split: in a sentence, a line per language, and against others; text, Markdown or JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from jaxlingua.analysis.allocate.problem import Problem
from jaxlingua.analysis.allocate.split import Split
from jaxlingua.analysis.allocate.sure import LEVELS, SURE, Comparison, Regret, gains_of_draws

FAR = 2  # times the largest measured size; beyond, a prediction is marked

_NEGLIGIBLE = 1e-6  # of a score, relative where it is above 1
_NAMED = 5  # languages in a note

Rows = list[tuple[str, ...]]


def describe(
    problem: Problem, split: Split, comparisons: Sequence[Comparison], regret: Regret
) -> dict[str, Any]:
    """All that is told, as it goes into JSON; scores are in the metric's own direction.

    Intervals are of 90 %, over draws of the laws, without the noise of a single run.
    """
    pairs, sign = split.pairs, problem.sign
    scores = sign * gains_of_draws(problem, pairs[None])[:, 0]  # draws languages
    whole = sign * problem.value(sign * scores)
    languages = []
    for index, (code, one) in enumerate(problem.laws.of.items()):
        n = int(pairs[index])
        slope = float(one.slope(np.array([n]))[0])
        languages.append(
            {
                "language": code,
                "pairs": n,
                "share": n / max(1, int(pairs.sum())),
                "cost": n * int(problem.cost[index]) / problem.units,
                "weight": float(problem.weights[index]),
                **_with_interval("score", float(one.at(pairs[index])), scores[:, index]),
                "per_1000_pairs": 1000 * slope if math.isfinite(slope) else None,
                "bound_by": _bound_by(problem, index, n),
                "measured": [one.smallest_pairs, one.largest_pairs],
            }
        )
    scores_now = sign * problem.gains_at(pairs)
    value = sign * float(problem.value(sign * scores_now))
    facts: dict[str, Any] = {
        "metric": problem.laws.metric,
        "task": problem.laws.task,
        "is_higher_better": problem.laws.is_higher_better,
        "objective": problem.objective,
        "budget": None if problem.is_unlimited else problem.budget / problem.units,
        "spent": problem.spent(pairs) / problem.units,
        **_with_interval("score", value, whole),
        "noise": _noise(problem, scores_now),
        "gap": split.gap,
        "languages": languages,
        "baselines": [
            {
                "name": other.name,
                "score": other.value,
                "better_by": other.better_by,
                "low": other.low,
                "high": other.high,
                "better_in": other.better_in,
                "is_same": other.is_same,
                "pairs": dict(zip(problem.languages, map(int, other.pairs), strict=True)),
            }
            for other in comparisons
        ],
        "regret": {"median": regret.median, "high": regret.high, "draws": regret.draws},
        "left_out": list(problem.left_out),
        "warnings": list(problem.laws.warnings),
    }
    summary = _summary(problem, split, comparisons, facts)
    return {"summary": summary, **facts, "notes": _notes(problem, split, facts)}


def show(console: Console, facts: dict[str, Any]) -> None:
    """As tables on a console."""
    console.print(facts["summary"], markup=False, soft_wrap=True)
    for head, rows in _tables(facts):
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for place, name in enumerate(head):
            table.add_column(name, justify="right" if place else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for note in facts["notes"]:
        console.print(f"! {note}", markup=False, soft_wrap=True)


def markdown(facts: dict[str, Any]) -> str:
    """The same as Markdown."""
    parts = [facts["summary"]]
    for head, rows in _tables(facts):
        ruler = ["---", *["---:"] * (len(head) - 1)]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in (head, ruler, *rows)))
    if facts["notes"]:
        parts.append("\n".join(f"- {note}" for note in facts["notes"]))
    return "\n\n".join(parts) + "\n"


def _tables(facts: dict[str, Any]) -> list[tuple[tuple[str, ...], Rows]]:
    """Heads and rows of both tables. What a language costs is left out where every pair costs 1."""
    has_cost = any(one["cost"] != one["pairs"] for one in facts["languages"])
    head = ("language", "pairs", "share", *["cost"] * has_cost)
    head += (facts["metric"], "90 % interval", "per 1,000 pairs", "bound by", "beyond measured")
    rows = [
        (
            one["language"],
            f"{one['pairs']:,}",
            f"{100 * one['share']:.1f} %",
            *[f"{one['cost']:,.10g}"] * has_cost,
            _number(one["score"]),
            _interval(one),
            "-" if one["per_1000_pairs"] is None else f"{one['per_1000_pairs']:+.3g}",
            one["bound_by"],
            _beyond(one),
        )
        for one in facts["languages"]
    ]
    others = [
        (
            one["name"],
            _number(one["score"]),
            "the same split" if one["is_same"] else _number(one["better_by"]),
            "" if one["is_same"] else _interval(one),
            "" if one["is_same"] else f"{100 * one['better_in']:.0f} % of the draws",
        )
        for one in facts["baselines"]
    ]
    against = ("against", f"{_objective(facts)}", "ours is better by", "90 % interval", "better in")
    return [(head, rows), (against, others)]


def _summary(problem: Problem, split: Split, comparisons: Sequence[Comparison], facts: dict[str, Any]) -> str:
    what = "All" if problem.is_unlimited else f"{problem.budget / problem.units:,.10g}"
    what += " pairs" if (problem.cost == problem.units).all() else " to spend"
    told = f"{what} over {len(problem.cost)} languages: {_objective(facts)} {_number(facts['score'])}"
    told += f" {_interval(facts)} predicted"
    if split.is_flat:
        return f"{told}; no language gains from more pairs, so every split is as good, and this is uniform"
    others = [other for other in comparisons if not other.is_same]
    if not others:
        return f"{told}; no other split that is compared here differs from it"
    unsure = [other for other in others if other.better_in < SURE]
    if not unsure:
        names = ", ".join(
            f"{other.name} by {_number(other.better_by)} [{_number(other.low)}, {_number(other.high)}]"
            for other in others
        )
        small = [other.name for other in others if other.better_by < facts["noise"]]
        told += f"; better than {names}"
        if small:
            told += f"; but less than a single run strays from the laws ({_number(facts['noise'])}): "
            told += " and ".join(small)
        return told
    names = " and ".join(f"{other.name} (better in {100 * other.better_in:.0f} %)" for other in unsure)
    return (
        f"Not surely better than {names}: {100 * SURE:.0f} % of the draws of the laws are asked for. {told}"
    )


def _notes(problem: Problem, split: Split, facts: dict[str, Any]) -> list[str]:
    notes = [f"of the laws: {warning}" for warning in problem.laws.warnings]
    lost = facts["regret"]
    notes.append(
        f"if one draw of the laws were the truth, its own best split would be better than this one by "
        f"{_number(lost['median'])} (median of {lost['draws']} draws) or {_number(lost['high'])} "
        f"({LEVELS[1]} %)"
    )
    if split.gap > _NEGLIGIBLE * max(1.0, abs(facts["score"])):
        notes.append(f"no split of whole pairs is better than this one by more than {split.gap:.3g}")
    if problem.left_out:
        notes.append(f"left out, nothing available: {_named(problem.left_out)}")
    left = problem.budget - problem.spent(split.pairs)
    if left >= problem.cost.min():
        notes.append(f"{left / problem.units:,.10g} of the budget left over: nothing gains from it")
    far = [one["language"] for one in facts["languages"] if one["pairs"] > FAR * one["measured"][1]]
    if far:
        notes.append(f"beyond {FAR} times the largest measured size, which is extrapolation: {_named(far)}")
    near = [one["language"] for one in facts["languages"] if one["pairs"] < one["measured"][0]]
    if near:
        notes.append(f"below the smallest measured size, where the law was not tried: {_named(near)}")
    below = [
        f"{name} ({_named(few)})"
        for name, few in (
            (
                other["name"],
                [one["language"] for one in facts["languages"]
                 if other["pairs"][one["language"]] < one["measured"][0] and one["language"] not in near],
            )
            for other in facts["baselines"]
        )
        if few
    ]  # fmt: skip
    if below:
        notes.append(f"other splits go below it too, and may be better than told: {'; '.join(below)}")
    if len(facts["baselines"]) == 1:
        notes.append(
            "proportional and temperature splits are left out: --available says nothing of some languages"
        )
    return notes


def _noise(problem: Problem, scores: np.ndarray) -> float:
    """Standard deviation of a single run around what the laws predict of the objective."""
    spreads = np.array([one.residual_sd for one in problem.fitted])
    if problem.objective == "minimum":
        return float(spreads[(problem.sign * scores).argmin()])
    return float(np.sqrt(np.square(problem.weights * spreads).sum()))


def _bound_by(problem: Problem, index: int, pairs: int) -> str:
    if pairs == problem.available[index]:
        return "availability"
    return "least" if pairs == problem.least[index] else ""


def _beyond(one: dict[str, Any]) -> str:
    smallest, largest = one["measured"]
    if one["pairs"] < smallest:
        return f"below {smallest:,}"
    return f"{one['pairs'] / largest:.3g} × {largest:,}" if one["pairs"] > FAR * largest else ""


def _objective(facts: dict[str, Any]) -> str:
    word = "worst" if facts["objective"] == "minimum" else facts["objective"]
    return f"{word} {facts['metric']}"


def _with_interval(name: str, value: float, draws: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(draws, LEVELS)
    return {name: value, "low": float(low), "high": float(high)}


def _interval(one: dict[str, Any]) -> str:
    return f"[{_number(one['low'])}, {_number(one['high'])}]"


def _number(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _named(codes: Sequence[str]) -> str:
    return ", ".join(codes[:_NAMED]) + (f" and {len(codes) - _NAMED} more" if len(codes) > _NAMED else "")
