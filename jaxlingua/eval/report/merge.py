"""Scores of several runs as one table: seeds and prompts are averaged, unlike measurements are kept apart."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from jaxlingua.config import Config
from jaxlingua.eval.report.models import importance, prompt_of
from jaxlingua.eval.report.summary import MEASURES
from jaxlingua.eval.significance import comparable, spread

FLOORS = "floors"


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        group: runs with the same one are the same but for the seed.
        base: what its base model is; runs with the same one share that column.
        scores: with `fingerprint` of the model that they are of, empty where it is not known.
    """

    name: str
    folder: str
    seed: int
    group: str
    base: str
    scores: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Merged:
    """One cell: the mean over runs that differ in the seed, and over prompts.

    Attributes:
        sd_seeds: standard deviation over runs of their means over prompts; None of one run.
        sd_prompts: standard deviation over prompts of their means over runs; None of one prompt.
        low, high: 95 % interval of the only score; None of several.
    """

    value: float | int
    seeds: int
    sd_seeds: float | int | None
    prompts: int
    sd_prompts: float | int | None
    low: float | int | None
    high: float | int | None


@dataclass(frozen=True)
class Row:
    """One task, language and metric, measured in one way.

    Attributes:
        prompts: that the cells are means over.
        signature: of the first model; of several prompts that of the first one.
        differs: what sets this row apart from the one above of the same task and metric.
    """

    task: str
    language: str
    metric: str
    prompts: tuple[str, ...]
    items: int
    signature: str
    differs: str
    cells: Mapping[str, Merged]


@dataclass(frozen=True)
class Table:
    """What `table` writes: models are columns, `runs` tells what each of them is made of."""

    models: tuple[str, ...]
    rows: tuple[Row, ...]
    runs: Mapping[str, Sequence[str]] = field(default_factory=dict)


def identity_of(config: Config) -> str:
    """All that decides what a run learns, but its seed, as text that can be compared."""
    plain = _identity(config)
    plain.get("run", {}).pop("seed", None)
    return json.dumps(plain, sort_keys=True)


def group_of(config: Config, sources: Mapping[str, str], tokenizer: str) -> str:
    """What runs share that are the same but for the seed: configuration, training data and tokenizer.

    Args:
        sources: name → fingerprint of what the run read.
        tokenizer: its fingerprint; empty where it is learned, and so follows from the data.
    """
    return json.dumps([identity_of(config), dict(sources), tokenizer], sort_keys=True)


def base_of(config: Config) -> str:
    """What the model before training is."""
    return json.dumps(_identity(config.model), sort_keys=True)


def _identity(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {
            name: _identity(getattr(value, name))
            for name, of in type(value).model_fields.items()
            if (of.json_schema_extra or {}).get("on_resume") == "identity"
            or isinstance(getattr(value, name), BaseModel)
        }
    if isinstance(value, Mapping):
        return {str(key): _identity(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(one) for one in value]
    return value


# ── columns ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Found:
    """A score with the column that it stands in and the run that it is of."""

    model: str
    is_floor: bool
    run: str
    seed: int
    score: Mapping[str, Any]


def merge(runs: Sequence[Run], metrics: Iterable[str] = ()) -> Table:
    """One table of all runs.

    Of each stage the last evaluated step is shown. Scores are averaged over runs whose configurations differ
    in nothing but the seed, and over prompts where all models were asked in the same ones.

    Args:
        metrics: that are shown; all where none is named.
    """
    labels, wanted = _group_labels(runs), set(metrics)
    found: list[tuple[Run, str, Mapping[str, Any]]] = []
    for run in runs:
        found += [(run, _model_of(run, score), score) for score in _newest(run)]
    columns: dict[str, tuple[Any, ...]] = {}
    for run, model, score in found:
        columns.setdefault(model, _order(score, labels[run.group], run, runs))
    names = _column_names(columns)
    ordered = sorted(columns, key=lambda model: columns[model][:2])
    by_row: dict[tuple[str, str, str], list[_Found]] = {}
    for run, model, score in found:
        if not wanted or score["metric"] in wanted:
            key = (score["task"], score["language"], score["metric"])
            one = _Found(names[model], score["stage"] == FLOORS, run.folder, run.seed, score)
            by_row.setdefault(key, []).append(one)
    rows = []
    for key in sorted(by_row, key=_row_order):
        rows += _rows(key, by_row[key])
    shown = {name for row in rows for name in row.cells}
    told = {
        labels[group]: [f"{run.folder} (seed {run.seed})" for run in runs if run.group == group]
        for group in labels
    }
    return Table(tuple(names[model] for model in ordered if names[model] in shown), tuple(rows), told)


def _row_order(key: tuple[str, str, str]) -> tuple[Any, ...]:
    """Tasks by name, then what several of them tell together, which is of no language, in the order told."""
    task, language, metric = key
    if language:
        return (0, task, language, importance(metric))
    titles = [title for title, _ in MEASURES.values()]
    return (1, importance(metric), titles.index(task.partition(":")[0]), task)


def _newest(run: Run) -> list[Mapping[str, Any]]:
    """The scores of a run but those of earlier steps of a stage."""
    last: dict[str, int] = {}
    for score in run.scores:
        last[score["stage"]] = max(score["step"], last.get(score["stage"], 0))
    return [score for score in run.scores if score["step"] == last[score["stage"]]]


def _model_of(run: Run, score: Mapping[str, Any]) -> str:
    """Names a column: scores with the same name are averaged."""
    if score["stage"] == FLOORS:
        return json.dumps(["floor", _floor_name(score)])
    if score["step"] == 0:
        is_base = "base" in (score["model"], score["stage"])
        return json.dumps(
            ["base", run.base] if is_base else ["model", score["stage"], score.get("fingerprint", "")]
        )
    return json.dumps(["run", run.group, score["stage"], score["step"]])


def _floor_name(score: Mapping[str, Any]) -> str:
    """What needs no model in one word: copy, majority, random."""
    return score["model"].removesuffix("_answer").removesuffix("_source")


def _order(score: Mapping[str, Any], label: str, run: Run, runs: Sequence[Run]) -> tuple[Any, ...]:
    """Place of a column, then its label, short and long."""
    if score["stage"] == FLOORS:
        name = _floor_name(score)
        return (0, name), 0, name, name
    if score["step"] == 0 and "base" in (score["model"], score["stage"]):
        return (1, runs.index(run)), 0, "base", f"base of {label}"
    if score["step"] == 0:
        return (3, runs.index(run)), 0, score["stage"], f"{score['stage']} in {label}"
    first = next(place for place, one in enumerate(runs) if one.group == run.group)
    return (2, first), score["step"], label, f"{label} {score['stage']}, step {score['step']:,}"


def _column_names(columns: Mapping[str, tuple[Any, ...]]) -> dict[str, str]:
    """Column → its label: the short one where it is the only such, else the long one, numbered if need be."""
    short = [one[2] for one in columns.values()]
    names: dict[str, str] = {}
    for model, (_, _, label, longer) in columns.items():
        name = label if short.count(label) == 1 else longer
        number = 1 + sum(taken == name or taken.startswith(f"{name} #") for taken in names.values())
        names[model] = name if number == 1 else f"{name} #{number}"
    return names


def _group_labels(runs: Sequence[Run]) -> dict[str, str]:
    """Group → what its runs are called: what their names begin with, without the number of a seed."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(run.group, []).append(run)
    labels = {}
    for group, them in members.items():
        names = [run.name for run in them]
        start = next(
            (
                names[0][:length]
                for length in range(len(names[0]), 0, -1)
                if all(name.startswith(names[0][:length]) for name in names)
            ),
            "",
        )
        if len(them) > 1:
            start = re.sub(r"[-_.]*(seed)?[-_.]*$", "", start)
        labels[group] = start or f"{names[0]} and {len(names) - 1} more"
    double = {label for label in labels.values() if list(labels.values()).count(label) > 1}
    return {group: members[group][0].folder if label in double else label for group, label in labels.items()}


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(key: tuple[str, str, str], found: Sequence[_Found]) -> list[Row]:
    """The rows of one task, language and metric: one, or one per way in which it was measured."""
    prompts = list(dict.fromkeys(sorted(prompt_of(one.score) for one in found)))
    alike = {prompt: _alike([one for one in found if prompt_of(one.score) == prompt]) for prompt in prompts}
    is_one = all(len(them) == 1 for them in alike.values()) and _same_prompts(found)
    if is_one:
        floors = [one for one in found if one.is_floor]
        models = [one for one in found if not one.is_floor]
        return [_row(key, models or floors, floors if models else [], "")]
    rows = []
    for prompt in prompts:
        first = alike[prompt][0][0].score["signature"]
        for place, them in enumerate(alike[prompt]):
            differs = comparable(_seedless(first), _seedless(them[0].score["signature"])) if place else ""
            floors = [one for one in them if one.is_floor]
            models = [one for one in them if not one.is_floor]
            rows.append(_row(key, models or floors, floors if models else [], differs))
    return rows


def _row(key: tuple[str, str, str], models: Sequence[_Found], floors: Sequence[_Found], differs: str) -> Row:
    cells = {}
    for name in dict.fromkeys(one.model for one in [*floors, *models]):
        cells[name] = _merged([one for one in [*floors, *models] if one.model == name])
    prompts = tuple(dict.fromkeys(sorted(prompt_of(one.score) for one in models)))
    first = min(models, key=lambda one: prompt_of(one.score)).score
    return Row(*key, prompts, first["items"], first["signature"], differs, cells)


def _merged(found: Sequence[_Found]) -> Merged:
    """The mean of one model's scores; one and the same model that several runs measured counts once.

    So do floors, but random labels of two seeds, which are two draws even where their scores are equal.
    """
    by_run: dict[str, dict[str, Mapping[str, Any]]] = {}
    seed_of = {one.run: one.seed for one in found}
    for one in found:
        by_run.setdefault(one.run, {})[prompt_of(one.score)] = one.score
    distinct: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for run, scores in by_run.items():
        first = next(iter(scores.values()))
        which: Any = first.get("fingerprint") or run
        if found[0].is_floor:
            which = seed_of[run] if _floor_name(first) == "random" else FLOORS
        values = tuple(sorted((prompt, score["value"]) for prompt, score in scores.items()))
        distinct.setdefault((which, values), scores)
    seeds = list(distinct.values())
    prompts = list(dict.fromkeys(prompt for scores in seeds for prompt in scores))
    over_seeds = spread([spread([score["value"] for score in them.values()]).mean for them in seeds])
    over_prompts = spread(
        [spread([them[prompt]["value"] for them in seeds if prompt in them]).mean for prompt in prompts]
    )
    only = seeds[0][prompts[0]] if len(seeds) == len(prompts) == 1 else {}
    return Merged(
        value=over_seeds.mean,
        seeds=over_seeds.n,
        sd_seeds=over_seeds.standard_deviation,
        prompts=over_prompts.n,
        sd_prompts=over_prompts.standard_deviation,
        low=only.get("low"),
        high=only.get("high"),
    )


def _same_prompts(found: Sequence[_Found]) -> bool:
    """Whether every run of every model was asked in the same prompts; floors do not depend on them."""
    asked: dict[tuple[str, str], set[str]] = {}
    for one in found:
        if not one.is_floor:
            asked.setdefault((one.model, one.run), set()).add(prompt_of(one.score))
    return len({frozenset(prompts) for prompts in asked.values()}) <= 1


def _alike(found: Sequence[_Found]) -> list[list[_Found]]:
    """Scores apart by the way in which they were measured; that of the models comes first."""
    classes: list[list[_Found]] = []
    for one in sorted(found, key=lambda one: one.is_floor):
        for them in classes:
            first = _seedless(them[0].score["signature"])
            own = _seedless(one.score["signature"])
            if one.is_floor:
                first, own = _without_decoding(first), _without_decoding(own)
            if not comparable(first, own):
                them.append(one)
                break
        else:
            classes.append([one])
    return classes


def _seedless(signature: str) -> str:
    """A signature without the seed of sampled answers, which is the run's."""
    return re.sub(r"(\|decoding:[^|]*?),seed\d+", r"\1", signature)


def _without_decoding(signature: str) -> str:
    return re.sub(r"\|decoding:[^|]*", "", signature)
