"""report.html, .md, .json, .csv and .tex of a run folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from jaxlingua.config import EvalConfig
from jaxlingua.eval.report import words
from jaxlingua.eval.report.comparisons import compare
from jaxlingua.eval.report.escape import markdown
from jaxlingua.eval.report.files import replace
from jaxlingua.eval.report.heat import heat_map
from jaxlingua.eval.report.items import clipped
from jaxlingua.eval.report.matrix_page import matrix_view
from jaxlingua.eval.report.models import FLOOR, is_own, model_key, models_of, shown_models
from jaxlingua.eval.report.pictures import curves_of, draw, draw_points, score_curves
from jaxlingua.eval.report.read import read_run
from jaxlingua.eval.report.rows import headlines, mean_of, score_rows
from jaxlingua.eval.report.tex import forgetting_csv, scores_csv, scores_latex
from jaxlingua.eval.tasks.item import FIRST_PROMPT
from jaxlingua.tracking.trace_summary import told

CARDS = 6
OPEN_ROWS = 30  # a longer table of all scores is folded


def write_report(folder: Path, asked: EvalConfig | None = None) -> dict[str, Any]:
    """Write report.html, .md, .json, .csv and .tex into a run folder; the content of report.json is returned.

    Of a run of several stages the forgetting matrix is written to forgetting.csv too.

    Args:
        asked: whose groups and abilities count; without it those of the folder's config.yaml.
    Raises: DataError where the folder is not a run's, or a file in it cannot be read.
    Cost: about a second, and for large evaluations the time to read their predictions once; of several stages
    also a millisecond per translation the first time, see `resampled.answered_in`.
    """
    report = read_run(folder, asked)
    view = view_of(report)
    environment = _environment()
    pages = {
        "json": json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False),
        "md": environment.get_template("report.md").render(**view),
        "html": environment.get_template("report.html").render(**view),
        "csv": scores_csv(report["scores"], view["compared"]),
        "tex": scores_latex(
            report["name"],
            [*view["heat_maps"], *view["other_maps"]],
            report["group_means"],
            view["rows"],
            view["models"],
            report["forgetting"],
        ),
    }
    for ending, text in pages.items():
        replace(folder / f"report.{ending}", text)
    if report["forgetting"]:
        replace(folder / "forgetting.csv", forgetting_csv(report["forgetting"]))
    return report


def view_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """All that the pages show, made of the content of report.json alone."""
    scores, stages = report["scores"], [stage["name"] for stage in report["data"]["stages"]]
    found, models = compare(scores, report["strangers"]), models_of(scores)
    rows = score_rows(scores)
    maps = {
        is_primary: [
            heat_map(scores, found, model, report["groups"], is_primary=is_primary)
            for model in shown_models(scores, stages)
            if model != FLOOR
        ]
        for is_primary in (True, False)
    }
    lines = headlines(rows, models)
    over_steps = score_curves(scores, stages)
    if report["forgetting"] and _all_in_matrix(scores, stages, report["forgetting"]["rows"]):
        over_steps = []  # the curves over stages show the same points
    labels = sorted({label for *_, of in over_steps for label in of})
    pictures = curves_of(report["metrics"])
    return {
        **report,
        "rows": rows,
        "models": models,
        "compared": found,
        "columns": _columns(scores, models, stages),
        "has_prompts": len({row["prompt"] for row in rows}) > 1,
        "open_rows": OPEN_ROWS,
        "headlines": lines,
        "cards": lines
        if len(lines) <= CARDS
        else list({line["kind"]: line for line in lines[::-1]}.values())[::-1],
        "spent": [
            words.time_of(report["time"]),
            words.programs_of(report["programs"]),
            words.memory_of(report["memory"]),
        ],
        "trace_lines": [line.strip() for one in report["traces"] for line in told(one, one["folder"])],
        "heat_maps": [one for one in maps[True] if one.cells],
        "other_maps": [one for one in maps[False] if one.cells],
        "not_compared": _not_compared(report["comparisons"]),
        "matrix": matrix_view(report["forgetting"]),
        "score_pictures": [(title, draw(of, title, unit, labels)) for title, unit, of in over_steps],
        "curves": [(title, draw(of, title, unit)) for title, unit, of in pictures],
        "transfer_pictures": [
            draw_points(
                one["points"],
                "Scores" if one["of"] == "score" else "Deltas against base",
                f"mean of {one['groups'][0]}",
                f"mean of {one['groups'][1]}",
            )
            for one in report["transfer"]
            if len(one["points"]) > 1
        ],
        "hashes": _hashes(scores),
        "leaks": _leaks(report["answers"], report["shown"]),
        "answer_rows": _answer_rows(report["answers"]),
        "model_rows": _model_rows(report["evaluations"]),
        "provenance": {"tokenizer": "", "git_commit": "", **report["provenance"]},
        "signatures": _signatures(scores),
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxlingua.eval", "pages"),
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": words.number,
        "mean_of": mean_of,
        "percent": words.percent,
        "score": words.one_digit,
        "signed": words.signed,
        "p_text": words.p_text,
        "language": words.language_name,
        "direction": words.direction,
        "html_language": words.html_language,
        "clipped": clipped,
        "cell": markdown,
        "breakable": words.breakable,
        "with_head": lambda sample: {**sample, "head": sample["task"].rpartition(".")[0] or sample["task"]},
        "line": lambda text: " ".join(str(text).split()),
    }
    return environment


def _columns(scores: Sequence[Mapping[str, Any]], models: Sequence[str], stages: Sequence[str]) -> list[str]:
    """The models of the table of all scores: of several checkpoints of a stage the last one."""
    last: dict[str, str] = {}
    own = [score for score in scores if is_own(score, stages)]
    for score in sorted(own, key=lambda score: score["step"]):
        last[score["stage"]] = model_key(score)
    older = {model_key(score) for score in own} - set(last.values())
    return [model for model in models if model not in older]


def _all_in_matrix(
    scores: Sequence[Mapping[str, Any]], stages: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether each checkpoint that was evaluated is a row of the forgetting matrix."""
    own = {(score["stage"], score["step"]) for score in scores if is_own(score, stages)}
    return own <= {(row["name"], row["step"]) for row in rows}


def _not_compared(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reason → the models and tasks whose scores it keeps from being compared."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for one in comparisons:
        if one["reason"]:
            models, tasks = found.setdefault(one["reason"], ([], []))
            models.append(one["model"])
            tasks.append(f"{one['task']} {one['metric']}")
    return [
        {"reason": reason, "models": list(dict.fromkeys(models)), "tasks": list(dict.fromkeys(tasks))}
        for reason, (models, tasks) in found.items()
    ]


def _hashes(scores: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Task and prompt → the hash of its items, prompts included, as the signature has it."""
    return {
        (score["task"], score.get("prompt") or FIRST_PROMPT): part.removeprefix("data:")
        for score in scores
        for part in score["signature"].split("|")
        if part.startswith("data:")
    }


def _leaks(answers: Mapping[str, Mapping[str, Any]], shown: str) -> list[dict[str, Any]]:
    """What the search for training n-grams found in each task, once, whatever model answered it.

    Scores of the items that are left are those of the evaluation that is shown.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, tasks in sorted(answers.items(), key=lambda one: one[0] == shown):
        for key, counts in tasks.items():
            if overlap := counts.get("overlap"):
                leaked, items = len(overlap["leaked"]), overlap["items"]
                found[key] = {
                    "task": key,
                    "items": items,
                    "leaked": leaked,
                    "share": leaked / items if items else 0.0,
                    "n": overlap["words"],
                    "example": next((text for _, text in overlap.get("examples", ())), ""),
                    "value_without": overlap.get("value_without", {}) if name == shown else {},
                }
    return sorted(found.values(), key=lambda one: (-one["share"], one["task"]))


def _answer_rows(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Where something was cut, left out or came to no end; all tasks where these are few."""
    rows = [
        {
            "cut_prompt_tokens": 0,
            "left_out": {},
            "checked_on": "",
            "in_context": "",
            **counts,
            "model": name,
            "task": key,
        }
        for name, tasks in answers.items()
        for key, counts in tasks.items()
    ]
    names = ("cut_prompts", "unfinished", "left_out", "in_context")
    special = [row for row in rows if any(row[name] for name in names)]
    cut = f"{sum(row['cut_prompts'] for row in rows):,} prompts cut"
    endless = f"{sum(row['unfinished'] for row in rows):,} answers that did not end"
    shown = rows if len(rows) <= OPEN_ROWS else special
    rest = f"; {len(rows) - len(shown):,} tasks without any are not listed" if len(shown) < len(rows) else ""
    return {"rows": shown, "told": f"{cut}, {endless}{rest}"} if rows else {}


def _model_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What answered, by its fingerprint, and how its tokens were chosen; old evaluations do not tell."""
    return [
        {
            "evaluation": name,
            "path": (one["model"] or {}).get("path", ""),
            "fingerprint": str((one["model"] or {}).get("fingerprint", "")),
            "decoding": one["decoding"] or {},
        }
        for name, one in evaluations.items()
        if one.get("model") or one.get("decoding")
    ]


def _signatures(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each signature with the scores that bear it."""
    found: dict[str, dict[str, Any]] = {}
    for score in scores:
        one = found.setdefault(
            score["signature"],
            {"task": score["task"], "metric": score["metric"], "prompt": score.get("prompt") or FIRST_PROMPT},
        )
        one["signature"] = score["signature"]
    return list(found.values())
