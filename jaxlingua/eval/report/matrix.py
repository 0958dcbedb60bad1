"""The forgetting matrix as it was measured: rows, columns and cells, before any is compared.

Row 0 is the base model, row i the model after stage i. A column is a task in the metric that it is shown by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxlingua.eval.report.groups import sources_of
from jaxlingua.eval.report.models import (
    BASE,
    better_high,
    direction_of,
    is_own,
    model_key,
    places_of,
    primary_metrics,
    prompt_of,
)
from jaxlingua.eval.report.resampled import Answered
from jaxlingua.eval.report.words import language_name
from jaxlingua.eval.significance import comparable, spread

Score = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Column:
    """One task in the metric that it is shown by, over the rows of the matrix.

    Attributes:
        learned: the stage that learned it first, see `_learned`; None where none did.
        abilities: the old abilities that it belongs to.
        since: the row that later rows are held against: that of the stage which learned the language; the
            base model's for old abilities and for languages that no stage learned.
        sign: −1 where lower scores are the better ones, else 1.
        scores: row → prompt → score.
        values: row → mean over prompts.
        answered: row → prompt → items behind the score, where the predictions are there.
        draws: row → the mean over prompts over resampled items, of the same rows.
    """

    task: str
    language: str
    name: str
    metric: str
    learned: str | None
    abilities: tuple[str, ...]
    since: str
    sign: int
    scores: Mapping[str, Mapping[str, Score]]
    values: Mapping[str, float | int]
    answered: dict[str, dict[str, Answered]] = field(default_factory=dict)
    draws: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """What columns stand together in pages."""
        if self.abilities:
            return f"old ability: {self.abilities[0]}"
        return f"learned in {self.learned}" if self.learned else "learned in no stage"

    def change(self, row: str, against: str) -> float | int:
        """How much better a row is than another one."""
        return self.sign * (self.values[row] - self.values[against])

    def drawn_change(self, row: str, against: str) -> np.ndarray | None:
        """The same over resampled items."""
        if row not in self.draws or against not in self.draws:
            return None
        now, then = self.answered[row], self.answered[against]
        if any(prompt not in then or one.ids != then[prompt].ids for prompt, one in now.items()):
            return None
        return self.sign * (self.draws[row] - self.draws[against])

    def reason(self, row: str, against: str) -> str:
        """Why a row cannot be compared with another one; empty where it can."""
        for name in (row, against):
            if name not in self.scores:
                return "not evaluated " + ("before training" if name == BASE else f"after stage {name}")
        now, then = self.scores[row], self.scores[against]
        if now.keys() != then.keys():
            return "prompt: other ones"
        told = (comparable(then[prompt]["signature"], one["signature"]) for prompt, one in now.items())
        return next(filter(None, told), "")


def matrix_rows(scores: Sequence[Score], stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The base model, then the newest evaluated step of each stage, with the stage's steps and those left."""
    names = [stage["name"] for stage in stages]
    last: dict[str, int] = {}
    for score in scores:
        if is_own(score, names):
            last[score["stage"]] = max(score["step"], last.get(score["stage"], 0))
    rows = [{"name": BASE, "step": 0, "steps": 0, "steps_left": 0}]
    end = 0
    for stage in stages:
        end += stage["steps"]
        if stage["name"] in last:
            step = last[stage["name"]]
            row = {"name": stage["name"], "step": step, "steps": stage["steps"]}
            rows.append(row | {"steps_left": max(end - step, 0)})
    return rows


def when(row: Mapping[str, Any]) -> str:
    """When a row was measured, as words.

    Example:
        >>> when({"name": "thai", "steps": 600, "steps_left": 400})
        'after 200 of 600 steps of stage thai'
    """
    if row["name"] == BASE:
        return "before training"
    if not row["steps_left"]:
        return f"after stage {row['name']}"
    return f"after {row['steps'] - row['steps_left']:,} of {row['steps']:,} steps of stage {row['name']}"


def columns_of(
    scores: Sequence[Score],
    stages: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    abilities: Mapping[str, Sequence[str]],
) -> list[Column]:
    """The columns of the matrix as they stand: in the order in which languages were learned, then languages
    that no stage learned, then old abilities."""
    targets, sides, directions = _learned(stages)
    own = [score for score in scores if _row_of(score, rows)]
    places, primary = places_of(own), primary_metrics(own)
    by_task: dict[str, dict[str, dict[str, Score]]] = {}
    for score in own:
        if primary.get(score["task"]) == score["metric"]:
            of_row = by_task.setdefault(score["task"], {}).setdefault(_row_of(score, rows), {})
            of_row[prompt_of(score)] = score
    columns = []
    for task, of_rows in by_task.items():
        abled = tuple(name for name, tasks in abilities.items() if task in tasks)
        language, metric = places[task].language, primary[task]
        direction = direction_of(next(iter(next(iter(of_rows.values())).values())))
        stage = targets.get(language)
        if direction:
            stage = directions.get(direction, sides.get(language))
        columns.append(
            Column(
                task=task,
                language=language,
                name=places[task].column,
                metric=metric,
                learned=stage,
                abilities=abled,
                since=BASE if abled or stage is None else stage,
                sign=-1 if better_high(metric) is False else 1,
                scores=of_rows,
                values={
                    row: spread([score["value"] for score in them.values()]).mean
                    for row, them in of_rows.items()
                },
            )
        )
    order = {stage["name"]: place for place, stage in enumerate(stages)} | {None: len(stages)}
    named = list(abilities)
    return sorted(
        columns,
        key=lambda one: (
            named.index(one.abilities[0]) if one.abilities else -1,
            order[one.learned] if not one.abilities else 0,
            language_name(one.language),
            one.name,
        ),
    )


def _row_of(score: Score, rows: Sequence[Mapping[str, Any]]) -> str:
    """The row that a score stands in; empty where in none, as those of checkpoints within a stage."""
    if model_key(score) == BASE:
        return BASE
    there = any((row["name"], row["step"]) == (score["stage"], score["step"]) for row in rows[1:])
    return score["stage"] if there else ""


def _learned(
    stages: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, str], dict[str, str], dict[tuple[str, str], str]]:
    """The first stage that learned something: to answer in a language, to translate from or into it, and each
    direction.

    A translation is learned with its direction; where no stage has that, with its language on either side.
    Any other task is learned with answers in its language. Older data.json tell no directions.
    """
    targets: dict[str, str] = {}
    sides: dict[str, str] = {}
    directions: dict[tuple[str, str], str] = {}
    for place, stage in enumerate(stages):
        replays = tuple(f"replay.{earlier['name']}." for earlier in stages[:place])
        for row in stage["mixture"]:
            if not row.get("documents seen", 1) or (replays and row["entry"].startswith(replays)):
                continue
            targets.setdefault(row["language"], stage["name"])
            sides.setdefault(row["language"], stage["name"])
            for source in sources_of(stage, row):
                sides.setdefault(source, stage["name"])
                directions.setdefault((source, row["language"]), stage["name"])
    return targets, sides, directions


def interval_of(drawn: np.ndarray) -> tuple[float, float]:
    """The 95 % interval: percentiles of a number over resampled items."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
