"""What the folder of an evaluation holds already, and whether that is what is asked for now."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlingua.config import Config
from jaxlingua.eval.answer import decoding_signature
from jaxlingua.eval.metrics.registry import metric_names
from jaxlingua.eval.score import FLOORS
from jaxlingua.eval.tasks.item import Task

SCORES_FILE = "scores.json"
HARNESS = "harness:"  # how names of tasks of lm-evaluation-harness begin
BASE = "base-0"  # the evaluation that others are compared with

# What becomes of the answers; with other values they are scored again.
_SCORING = ("bleu_tokenizer", "bootstrap_samples", "leak_words", "scorers", "judge")


def is_evaluated(
    tasks: Sequence[Task],
    stage: str,
    step: int,
    *,
    config: Config,
    folder: str | Path,
    base: str = BASE,
    source: str | None = None,
) -> bool:
    """Whether the run folder has all scores that `evaluate` would write.

    That is of the same items, prompts, decoding and metrics, compared with the same base model. Without the
    predictions that they were computed from, or where the file is damaged, it has none.

    Args:
        source: names where the model was read from; None where the folder can only be of one model.
    """
    home = Path(folder) / "evals" / f"{stage}-{step}"
    content = read_scores(home)
    asked = content.get("asked", {})
    compared = "" if f"{stage}-{step}" == base else fingerprint_in(home.parent / base)
    if source is not None and content.get("model", {}).get("source") != source:
        return False
    if stage != FLOORS and config.eval.harness.tasks and not _is_harnessed(home, config):
        return False
    return all(
        asked.get(task.key) == asked_of(task, config, stage, compared)
        and (stage == FLOORS or (home / f"{task.key}.jsonl").is_file())
        for task in tasks
    )


def asked_of(task: Task, config: Config, stage: str, compared: str) -> str:
    """A hash of all that the scores of a task depend on, beside the model.

    Args:
        compared: fingerprint of the base model; empty where there is none.
    """
    decoding = "none" if stage == FLOORS else decoding_signature(task, config)
    given = config.eval.model_dump(mode="json")
    scoring = [config.run.seed, {name: given[name] for name in _SCORING}]
    parts = [task.signature, decoding, metric_names(task), scoring, "" if stage == FLOORS else compared]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def read_scores(home: Path) -> dict[str, Any]:
    """The content of scores.json; nothing where the file is missing, damaged or of an older form."""
    try:
        content = json.loads((home / SCORES_FILE).read_text("utf-8"))
        told = [(score["task"], score["prompt"], score["signature"]) for score in content["scores"]]
        is_whole = all(isinstance(part, str) for parts in told for part in parts)
        maps = (content["tasks"], content["asked"], content["model"])
        return content if is_whole and all(isinstance(one, dict) for one in maps) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def fingerprint_in(home: Path) -> str:
    """Of the model whose scores are in a folder; empty where there are none."""
    return str(read_scores(home).get("model", {}).get("fingerprint", ""))


def is_answered(task: Task, config: Config, home: Path) -> bool:
    """Whether a folder has answers to the same items in the same prompt, decoded alike."""
    wanted = f"|{task.signature}|decoding:{decoding_signature(task, config)}|"
    return (home / f"{task.key}.jsonl").is_file() and any(
        (score["task"], score["prompt"]) == (task.name, task.prompt) and wanted in score["signature"]
        for score in read_scores(home).get("scores", ())
    )


def with_earlier(content: Mapping[str, Any], home: Path, *, has_harness: bool) -> dict[str, Any]:
    """`content` of scores.json with what the folder has of the same model and was not asked now.

    Differences of earlier scores are kept where they are to the same base model.
    """
    before = read_scores(home)
    if before.get("model", {}).get("fingerprint") != content["model"]["fingerprint"]:
        return dict(content)
    now = {(score["task"], score["prompt"]) for score in content["scores"]}
    kept = [
        score
        for score in before["scores"]
        if (score["task"], score["prompt"]) not in now
        and not (has_harness and score["task"].startswith(HARNESS))
    ]
    if before.get("base") != content["base"]:
        nothing = dict.fromkeys(("delta", "delta_low", "delta_high", "p_value"))
        kept = [{**score, **nothing} for score in kept]
    tasks = {**before["tasks"], **content["tasks"]}
    for key, counts in content["tasks"].items():
        old = before["tasks"].get(key, {})
        if not counts["overlap"] and old.get("overlap") and old.get("items_hash") == counts["items_hash"]:
            tasks[key] = {**counts, "overlap": old["overlap"]}  # the training data is not here any more
    asked = {**before["asked"], **content["asked"]}
    return {**content, "scores": [*kept, *content["scores"]], "tasks": tasks, "asked": asked}


def _is_harnessed(home: Path, config: Config) -> bool:
    """Whether a folder has the results of just the tasks of lm-evaluation-harness that are asked for."""
    try:
        there = json.loads((home / "harness.json").read_text("utf-8"))["asked"]
        return bool(read_scores(home)) and there == config.eval.harness.model_dump(mode="json")
    except (OSError, ValueError, KeyError, TypeError):
        return False
