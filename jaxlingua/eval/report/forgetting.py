"""The forgetting matrix: each task before training and after every stage, and what became of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlingua.eval.report.comparisons import SIGNIFICANT
from jaxlingua.eval.report.matrix import Column, Score, columns_of, interval_of, matrix_rows
from jaxlingua.eval.report.models import BASE
from jaxlingua.eval.report.resampled import Answered, drawing_of, exchange_p_values, resampled
from jaxlingua.eval.report.summary import summary
from jaxlingua.eval.significance import holm

MOST_SAMPLES = 2000  # behind an interval of the matrix; an evaluation may have told its own by more
MOST_TRIALS = 20_000  # behind a p-value
TRIALS_PER_TEST = 40  # with which the smallest p-value is below 0.05 after Holm


def forgetting(
    scores: Iterable[Score],
    stages: Sequence[Mapping[str, Any]],
    abilities: Mapping[str, Sequence[str]] | None = None,
    answered: Callable[[Score], Answered | None] = lambda score: None,
) -> dict[str, Any] | None:
    """What report.json tells under "forgetting"; None where fewer than two stages were evaluated.

    All changes are told so that more is better, also of metrics that are the better the lower they are.

    Args:
        stages: as in data.json. What only replay brings into a stage is not learned there.
        abilities: name → tasks that the base model could do.
        answered: the items behind a score; without them there are no intervals of changes.
    Cost: of 8 stages and 20 tasks of 1,000 items some seconds for the resamples, beside that of `answered`.
    """
    scores = list(scores)
    rows = matrix_rows(scores, stages)
    if len(rows) < 3:
        return None
    names = [row["name"] for row in rows]
    columns = columns_of(scores, stages, rows, abilities or {})
    newest = [one for column in columns for one in column.scores.get(names[-1], {}).values()]
    samples, seed = drawing_of(newest[0]["signature"] if newest else "")
    samples = min(samples, MOST_SAMPLES)
    _draw(columns, answered, samples, seed)
    told = [_told(column, names) for column in columns]
    tests = _test(columns, told, samples, seed)
    return {
        "stages": names[1:],
        "rows": rows,
        "columns": told,
        "tests": tests,
        "samples": samples,
        "summary": summary(columns, rows),
    }


def _draw(
    columns: Sequence[Column], answered: Callable[[Score], Answered | None], samples: int, seed: int
) -> None:
    """Put into each column its answers, and its values over resampled items."""
    measured = {}
    for place, column in enumerate(columns):
        for row, of_row in column.scores.items():
            found = {prompt: one for prompt, score in of_row.items() if (one := answered(score))}
            if len(found) == len(of_row) and len({len(one.ids) for one in found.values()}) == 1:
                column.answered[row] = found
                measured |= {(place, row, prompt): one.measured for prompt, one in found.items()}
    values: dict[tuple[int, str], list[np.ndarray]] = {}
    for (place, row, _), drawn in resampled(measured, samples, seed).items():
        values.setdefault((place, row), []).append(drawn)
    for (place, row), of_prompts in values.items():
        columns[place].draws[row] = np.mean(of_prompts, axis=0)


def _told(column: Column, names: Sequence[str]) -> dict[str, Any]:
    """A column as report.json holds it; p-values are put in later."""
    told = {"task": column.task, "language": column.language, "column": column.name}
    told |= {"metric": column.metric, "group": column.group, "learned": column.learned}
    told |= {"abilities": list(column.abilities), "since": column.since, "sign": column.sign}
    told["cells"] = {}
    for row in names:
        if row not in column.scores:
            continue
        of_row = list(column.scores[row].values())
        low, high = (of_row[0]["low"], of_row[0]["high"]) if len(of_row) == 1 else (None, None)
        if len(of_row) > 1 and row in column.draws:
            low, high = interval_of(column.draws[row])
        cell = {"value": column.values[row], "low": low, "high": high, "items": of_row[0]["items"]}
        cell |= {"against": "", "change": None, "change_low": None, "change_high": None}
        cell |= {"p_value": None, "p_holm": None, "reason": ""}
        against = held_against(column, row, names)
        if against:
            cell["against"], cell["reason"] = against, column.reason(row, against)
        if against and not cell["reason"]:
            cell["change"] = column.change(row, against)
            drawn = column.drawn_change(row, against)
            if drawn is not None:
                cell["change_low"], cell["change_high"] = interval_of(drawn)
        told["cells"][row] = cell
    return told


def held_against(column: Column, row: str, names: Sequence[str]) -> str:
    """The row that a cell is compared with: since the stage that learned the language that one, before base.

    Empty for these two themselves. Where that stage was not evaluated, later cells are compared with a row
    that is not there.
    """
    if row in (BASE, column.since):
        return ""
    if column.since in names and names.index(row) < names.index(column.since):
        return BASE
    return column.since


def _test(columns: Sequence[Column], told: Sequence[dict[str, Any]], samples: int, seed: int) -> int:
    """Put p-values into the cells, and those adjusted for all of the matrix; how many there are."""
    pairs = {}
    for place, column in enumerate(columns):
        for row, cell in told[place]["cells"].items():
            if cell["change"] is None or cell["change_low"] is None:
                continue
            now, then = column.answered[row], column.answered[cell["against"]]
            both = [(now[prompt], then[prompt]) for prompt in now]
            if all(
                one.ids == other.ids == both[0][0].ids and one.measured.is_testable for one, other in both
            ):
                pairs[place, row] = [(one.measured, other.measured) for one, other in both]
    trials = min(max(samples, TRIALS_PER_TEST * len(pairs)), MOST_TRIALS)
    found = exchange_p_values(pairs, trials, seed)
    for (place, row), p_value, p_holm in zip(found, found.values(), holm(list(found.values())), strict=True):
        cell = told[place]["cells"][row]
        cell["p_value"], cell["p_holm"] = p_value, p_holm
    return len(found)


def is_significant(cell: Mapping[str, Any]) -> bool:
    """Whether models that are alike would rarely differ so much, in the whole matrix."""
    return cell["p_holm"] is not None and cell["p_holm"] < SIGNIFICANT
