"""A made-up run of several stages whose scores are those of its predictions, so that they can be resampled."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlingua.eval.metrics.translation import translation_metrics
from tests.eval.told_run import mixture_row, stage

STEPS = 100  # of each stage
STAGES = (("greek", ("ell_Grek",)), ("thai", ("tha_Thai",)), ("hebrew", ("heb_Hebr",)))
LEARNED = ("ell_Grek", "tha_Thai", "heb_Hebr")
TASKS = (
    *(f"quiz.{code}" for code in (*LEARNED, "urd_Arab", "eng_Latn")),
    *(f"news.eng_Latn-{code}" for code in LEARNED),
    "talk.ell_Grek",
)
WORDS = ("stone", "river", "garden", "house", "winter", "letter", "music", "bread", "silver", "window")


def chance_of(task: str, row: int, learned: int | None) -> float:
    """How often a row answers right: it learns at its stage, and then forgets some of it."""
    if learned is None:
        return 0.7 - 0.1 * row if task.endswith("eng_Latn") else 0.1 + 0.05 * row
    return 0.1 + 0.02 * row if row < learned else 0.8 - 0.15 * (row - learned)


def answers_of(
    task: str, rows: int, items: int, stages: Sequence[tuple[str, Sequence[str]]]
) -> list[list[bool]]:
    """Row → which items are answered right. An item that is easy for one row is so for the others."""
    language = task.rpartition(".")[2].rpartition("-")[2]
    learned = next((place for place, (_, codes) in enumerate(stages, 1) if language in codes), None)
    rng = np.random.default_rng(list(task.encode()))
    ease = rng.random(items)
    return [list(0.8 * ease + 0.2 * rng.random(items) < chance_of(task, row, learned)) for row in range(rows)]


def score_and_lines(
    task: str, right: Sequence[bool], metric: str, name: str, step: int, prompt: str = "english.0"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The scores of a task and its predictions, which they are the mean or the chrF++ of."""
    language = task.rpartition(".")[2].rpartition("-")[2]
    targets = [
        f"the {WORDS[n % 10]} of the {WORDS[n // 10 % 10]} and its {WORDS[n % 7]}" for n in range(len(right))
    ]
    texts = [
        text if ok else text[: 9 + n % 5] for n, (text, ok) in enumerate(zip(targets, right, strict=True))
    ]
    lines = [
        {
            "id": str(n), "language": language, "prompt": f"What is {n}?", "prediction": text, "targets": [target],
            "is_finished": True, "cut_prompt_tokens": 0, "new_tokens": 5,
        }
        for n, (text, target) in enumerate(zip(texts, targets, strict=True))
    ]  # fmt: skip
    if metric == "chrf++":
        (found,) = [
            one for one in translation_metrics(texts, [[one] for one in targets], language, "13a")
            if one.metric == metric
        ]  # fmt: skip
        value, of_items = found.value, found.values
    elif metric == "off_target":  # where the identifier cannot tell of every fourth
        undecided = [n % 4 == 0 for n in range(len(right))]
        of_items = [0.0 if hard else 100.0 * (not ok) for ok, hard in zip(right, undecided, strict=True)]
        value = sum(of_items) / undecided.count(False)
        for line, hard in zip(lines, undecided, strict=True):
            line["undecided"] = 100.0 * hard
    else:
        of_items = [100.0 if ok else float(n % 30) for n, ok in enumerate(right)]
        value = sum(of_items) / len(of_items)
    for line, worth in zip(lines, of_items, strict=True):
        line[metric] = round(worth, 4)
    score = {
        "stage": name, "step": step, "model": "base" if name == "base" else "tuned", "task": task,
        "language": language, "metric": metric, "value": round(value, 4), "low": round(value - 5, 4),
        "high": round(value + 5, 4), "items": len(right),
        "signature": f"metric:{metric}|task:made1|data:{task}|decoding:greedy,8|interval:95%,bootstrap500,seed3",
        "prompt": prompt, "kind": "translation" if "-" in task else "qa",
    }  # fmt: skip
    return [score], lines


def write_staged_run(
    folder: Path,
    *,
    stages: Sequence[tuple[str, Sequence[str]]] = STAGES,
    tasks: Sequence[str] = TASKS,
    items: int = 40,
    abilities: Mapping[str, Sequence[str]] | None = None,
    replays: bool = True,
) -> Path:
    """Each stage learns its languages, replays those before it, and is evaluated on all tasks."""
    names = ["base", *(name for name, _ in stages)]
    right = {task: answers_of(task, len(names), items, stages) for task in tasks}
    for row, name in enumerate(names):
        home = folder / "evals" / f"{name}-{row * STEPS}"
        home.mkdir(parents=True)
        scores, counts = [], {}
        for task in tasks:
            metric = {"news": "chrf++", "talk": "off_target"}.get(task.partition(".")[0], "f1")
            own, lines = score_and_lines(task, right[task][row], metric, name, row * STEPS)
            scores += own
            counts[task] = {"items": items, "available": items, "unfinished": 0, "cut_prompts": 0}
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (home / f"{task}.jsonl").write_text(text, "utf-8")
        (home / "scores.json").write_text(json.dumps({"scores": scores, "tasks": counts}), "utf-8")
    told = []
    for place, (name, codes) in enumerate(stages):
        earlier = [(before, code) for before, them in stages[:place] for code in them] if replays else []
        rows = [mixture_row(f"text_{code[:3]}", code) for code in codes]
        rows += [mixture_row(f"replay.{before}.text_{code[:3]}", code) for before, code in earlier]
        told.append(stage(name, STEPS, *rows))
    (folder / "data.json").write_text(json.dumps({"stages": told, "sources": []}))
    provenance = {
        "command": "python -m jaxlingua.train made.yaml", "repeat": "python -m jaxlingua.train RUN",
        "started": "2031-02-03 04:05 UTC", "devices": "1 device (cpu)", "versions": {"jaxlingua": "0.1.0"},
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(provenance))
    config = {"run": {"folder": str(folder), "seed": 0}, "eval": {"abilities": abilities or {}}}
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder
