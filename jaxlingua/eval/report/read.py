"""A run folder to what report.json holds.

Everything is read from the folder (config.yaml, provenance.json, data.json, metrics.jsonl, evals/), so that a
report can be written again at any time, also of a run that was cut off.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from jaxlingua.config import EvalConfig
from jaxlingua.errors import DataError
from jaxlingua.eval.report.comparisons import compare, told, too_few_samples
from jaxlingua.eval.report.files import read_data, read_evaluations, read_lines, read_provenance
from jaxlingua.eval.report.forgetting import forgetting
from jaxlingua.eval.report.forms import MetricsLine, check
from jaxlingua.eval.report.groups import group_means, make_groups, transfer
from jaxlingua.eval.report.heat import heat_map
from jaxlingua.eval.report.items import read_items, read_prompts
from jaxlingua.eval.report.models import (
    baseline_of,
    model_key,
    places_of,
    shown_models,
)
from jaxlingua.eval.report.resampled import answered_in
from jaxlingua.eval.report.rows import prompt_rows
from jaxlingua.tracking.device import read_peaks
from jaxlingua.tracking.goodput import programs_made, read_starts, spent
from jaxlingua.tracking.trace_summary import read_summaries


def read_run(folder: Path, asked: EvalConfig | None = None) -> dict[str, Any]:
    """What report.json holds: scores, comparisons, samples, data, throughput and provenance of a run.

    Args:
        asked: as in `write_report`.
    Raises: DataError naming the file that is missing or damaged.
    """
    provenance = read_provenance(folder)
    metrics = read_lines(folder / "metrics.jsonl")
    for place, line in enumerate(metrics, start=1):
        where = f"{folder / 'metrics.jsonl'}:{place}"
        check(MetricsLine, line, where, "a run writes whole lines of JSON; mend or remove it")
    starts = read_starts(folder)
    evaluations = read_evaluations(folder)
    scores = [score for evaluation in evaluations.values() for score in evaluation["scores"]]
    scores.sort(key=lambda score: (score["step"], score["task"], score["language"], score["metric"]))
    data = read_data(folder)
    names = [stage["name"] for stage in data["stages"]]
    shown = shown_models(scores, names)
    baseline = baseline_of(scores)
    homes = {
        model_key(score): name for name, evaluation in evaluations.items() for score in evaluation["scores"]
    }
    strangers = _strangers(evaluations, homes, homes.get(baseline, ""))
    found = compare(scores, strangers)
    name = homes.get(shown[0], "") if shown else ""
    tasks = evaluations[name]["tasks"] if name else {}
    against = homes.get(baseline, "") if shown[:1] != [baseline] else ""
    rows = {place.language for place in places_of(scores).values()}
    given = _given(folder, "groups") if asked is None else asked.groups
    abilities = _given(folder, "abilities") if asked is None else asked.abilities
    groups = make_groups(given, data["stages"], rows)
    tables = [heat_map(scores, found, model, groups, is_primary=True) for model in shown[:1]]
    return {
        "name": folder.resolve().name,
        "scores": scores,
        "comparisons": [told(key, one) for key, one in found.items()],
        "samples_needed": too_few_samples(scores, found),
        "prompts": prompt_rows(scores),
        "groups": groups,
        "group_means": group_means(tables[0]) if tables and groups else [],
        "transfer": transfer(tables[0]) if tables and groups else [],
        "forgetting": forgetting(scores, data["stages"], abilities, partial(answered_in, folder)),
        "answers": {
            name: evaluation["tasks"] for name, evaluation in evaluations.items() if evaluation["tasks"]
        },
        "evaluations": {
            name: {part: evaluation.get(part) for part in ("model", "decoding", "versions")}
            for name, evaluation in evaluations.items()
        },
        "baseline": baseline,
        "shown": name,
        "strangers": strangers,
        "samples": read_items(folder, name, against, tasks) if name else [],
        "prompt_examples": read_prompts(folder, name, tasks) if name else [],
        "throughput": throughput_of(metrics),
        "time": spent(starts),
        "programs": programs_made(starts),
        "memory": read_peaks(folder),
        "traces": read_summaries(folder),
        "data": data,
        "metrics": metrics,
        "provenance": provenance,
    }


def _strangers(
    evaluations: Mapping[str, Mapping[str, Any]], homes: Mapping[str, str], baseline: str
) -> dict[str, str]:
    """Model → why the differences that its evaluation tells are not to the baseline of this report."""
    found = {}
    known = (evaluations.get(baseline, {}).get("model") or {}).get("fingerprint", "")
    for model, name in homes.items():
        if not baseline or name == baseline:
            continue
        base = evaluations[name].get("base") or {}
        told = base.get("evaluation", "")
        if told != baseline:
            found[model] = f"differences are to {told or 'a model that is not named'}, not to {baseline}"
        elif known and base.get("fingerprint", known) != known:
            found[model] = f"differences are to weights that {baseline} has no more"
    return found


def _given(folder: Path, field: str) -> dict[str, list[str]]:
    """eval.groups or eval.abilities of the configuration that the run was last started with."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text("utf-8")) or {}
        given = (content.get("eval") or {}).get(field) or {}
        return {str(name): [str(one) for one in them] for name, them in given.items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        what = str(error).replace("\n", " ")
        raise DataError(
            f"{path}: damaged ({what}); the configuration of a run is a mapping; mend or remove it"
        ) from None


def throughput_of(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Steps, target tokens and time of a run; the median speed, since the first steps hold compilation."""
    steps = [line for line in metrics if "step_seconds" in line]
    if not steps:
        return {}
    speeds = sorted(
        line["target_tokens_per_second"] for line in steps if line.get("target_tokens_per_second")
    )
    seconds = sorted(line["step_seconds"] for line in steps if line.get("step_seconds") is not None)
    found = {"steps": float(steps[-1]["step"])}
    if speeds:
        found["target_tokens_per_second"] = speeds[len(speeds) // 2]
    if seconds:
        found["step_seconds"] = seconds[len(seconds) // 2]
    mfu = sorted(line["mfu"] for line in steps if line.get("mfu") is not None)
    return found | ({"mfu": mfu[len(mfu) // 2]} if mfu else {})
