"""Languages × tasks: what the cells, the groups and the picture of a heat map are made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxlingua.eval.report.comparisons import Comparison, Key, is_better, key_of
from jaxlingua.eval.report.models import (
    FLOOR,
    importance,
    model_key,
    places_of,
    primary_metrics,
    prompt_of,
)
from jaxlingua.eval.report.words import language_name, one_digit, p_text, signed
from jaxlingua.eval.significance import spread

Column = tuple[str, str]  # what of a task does not depend on the language, metric


@dataclass(frozen=True, slots=True)
class Cell:
    """One language in one column: the mean over prompts, with the scores that it is made of.

    Attributes:
        sd: standard deviation over prompts; None where there is one.
        reason: why there is no delta although there is a score of the base model.
        significant: how many of the scores differ from the base model's by more than chance, all to one side.
    """

    scores: tuple[Mapping[str, Any], ...]
    comparisons: tuple[Comparison, ...]
    value: float | int
    sd: float | int | None
    base: float | int | None
    delta: float | int | None
    reason: str
    significant: int

    @property
    def mark(self) -> str:
        """A star where all prompts differ significantly, their number where some do."""
        if not self.significant:
            return ""
        return "*" if self.significant == len(self.scores) else f"* {self.significant}/{len(self.scores)}"

    @property
    def title(self) -> str:
        """All that is known of a cell, in some sentences."""
        return "\n".join(
            _sentence(score, one)
            for score, one in zip(self.scores, self.comparisons or [None] * len(self.scores), strict=True)
        )


@dataclass(frozen=True)
class HeatMap:
    """A table of one model.

    Attributes:
        groups: name of a group → its languages, in the order of the rows.
        cells: (language, column) → cell.
        tests: differences that were tested together.
    """

    model: str
    columns: tuple[Column, ...]
    groups: dict[str, tuple[str, ...]]
    cells: dict[tuple[str, Column], Cell]
    tests: int

    @property
    def has_deltas(self) -> bool:
        """Whether any cell has a difference to the base model; else colors show values."""
        return any(cell.delta is not None for cell in self.cells.values())

    def shade(self, cell: Cell) -> tuple[str, float]:
        """Kind of color and strength from 0 to 1: gain, loss or value; differences within chance are pale."""
        if not self.has_deltas:
            return "value", min(max(cell.value, 0.0), 100.0) / 100
        if cell.reason or cell.delta is None:
            return "none", 0.0
        metric = cell.scores[0]["metric"]
        better = is_better(metric, cell.delta)
        if better is None:
            return "none", 0.0
        kind = "gain" if better else "loss"
        largest = max(abs(one.delta) for one in self.cells.values() if one.delta is not None) or 1.0
        strength = 0.12 + 0.88 * (abs(cell.delta) / largest) ** 0.6 if cell.delta else 0.0
        is_tested = any(one.p_value is not None for one in cell.comparisons)
        return kind, strength * (0.35 if is_tested and not cell.significant else 1.0)

    def mean(self, languages: Sequence[str], column: Column) -> tuple[float | int, float | int | None] | None:
        """Mean value and mean delta of a group in a column; the delta where all of its cells have one."""
        cells = [cell for code in languages if (cell := self.cells.get((code, column)))]
        if not cells:
            return None
        deltas = [cell.delta for cell in cells if cell.delta is not None]
        delta = sum(deltas) / len(deltas) if len(deltas) == len(cells) else None
        return sum(cell.value for cell in cells) / len(cells), delta


def heat_map(
    scores: Iterable[Mapping[str, Any]],
    found: Mapping[Key, Comparison],
    model: str,
    groups: Mapping[str, Iterable[str]],
    *,
    is_primary: bool,
) -> HeatMap:
    """The table of a model's scores in the metrics that tasks are shown by, or in all their other metrics."""
    scores = [score for score in scores if model_key(score) != FLOOR]
    places, primary = places_of(scores), primary_metrics(scores)
    members: dict[tuple[str, Column], list[Mapping[str, Any]]] = {}
    for score in scores:
        if model_key(score) == model and (primary.get(score["task"]) == score["metric"]) == is_primary:
            place = places[score["task"]]
            members.setdefault((place.language, (place.column, score["metric"])), []).append(score)
    cells = {where: _cell(sorted(them, key=prompt_of), found) for where, them in members.items()}
    columns = sorted(
        {column for _, column in cells}, key=lambda column: (column[0], importance(column[1]), column[1])
    )
    tests = max((one.tests for cell in cells.values() for one in cell.comparisons), default=0)
    return HeatMap(model, tuple(columns), _rows(groups, {code for code, _ in cells}), cells, tests)


def _rows(groups: Mapping[str, Iterable[str]], there: set[str]) -> dict[str, tuple[str, ...]]:
    rows = {name: tuple(code for code in codes if code in there) for name, codes in groups.items()}
    grouped = {code for codes in rows.values() for code in codes}
    rows["other" if grouped else ""] = tuple(sorted(there - grouped, key=language_name))
    return {name: codes for name, codes in rows.items() if codes}


def _cell(scores: Sequence[Mapping[str, Any]], found: Mapping[Key, Comparison]) -> Cell:
    comparisons = tuple(found[key_of(score)] for score in scores if key_of(score) in found)
    reasons = [one.reason for one in comparisons if one.reason]
    over = spread([score["value"] for score in scores])
    base = delta = None
    significant = 0
    if len(comparisons) == len(scores) and not reasons:
        base = spread([one.base for one in comparisons]).mean
        delta = spread([one.delta for one in comparisons]).mean
        sides = [one.delta > 0 for one in comparisons if one.is_significant]
        significant = len(sides) if len(set(sides)) == 1 else 0
    return Cell(
        scores=tuple(scores),
        comparisons=comparisons if len(comparisons) == len(scores) else (),
        value=over.mean,
        sd=over.standard_deviation,
        base=base,
        delta=delta,
        reason=reasons[0] if reasons else "",
        significant=significant,
    )


def _sentence(score: Mapping[str, Any], one: Comparison | None) -> str:
    told = f"{score['task']}, {prompt_of(score)}, {score['metric']}: {one_digit(score['value'])} "
    told += f"[{one_digit(score['low'])}, {one_digit(score['high'])}], {score['items']:,} items"
    if one is None:
        return told
    if one.reason:
        return f"{told}; not comparable with base: {one.reason}"
    told += f"; base {one_digit(one.base)}, {signed(one.delta)}"
    if one.low is not None and one.high is not None:
        told += f" [{signed(one.low)}, {signed(one.high)}]"
    if one.p_value is not None:
        told += f", p {p_text(one.p_value)}"
    return told + (f", after Holm {p_text(one.p_holm)}" if one.p_holm is not None else "")
