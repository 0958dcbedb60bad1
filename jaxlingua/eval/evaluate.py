"""Stage 7, eval: a model, its tokenizer and tasks to predictions and scores in the run folder.

    RUN/evals/<stage>-<step>/<task>.jsonl    a line per item: prompt, prediction, targets, its scores
    RUN/evals/<stage>-<step>/scores.json     all scores and counts; written last: where it is, all the rest is

`<task>` is the entry of `eval.tasks`, such as xquad.zho_Hans or flores.eng_Latn-zho_Hans.
"""

import dataclasses
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlingua.config import Config
from jaxlingua.eval.metrics.answers import qa_metrics
from jaxlingua.eval.metrics.measured import Measured, interval
from jaxlingua.eval.metrics.translation import translation_metrics
from jaxlingua.eval.tasks.item import Task
from jaxlingua.generate.engine import cut_prompts, generate, prompt_room
from jaxlingua.model.llama import Llama
from jaxlingua.tokens.masks import prompt_tokens
from jaxlingua.tokens.tokenizer import Tokenizer

SCORES_FILE = "scores.json"
FLOORS = "floors"  # the stage under which answers without a model are scored


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one model on one task, 0 to 100, with its 95 % interval and all that repeats it."""

    stage: str
    step: int
    model: str
    task: str
    language: str
    metric: str
    value: float
    low: float
    high: float
    items: int
    signature: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered to one item."""

    text: str
    new_tokens: int
    is_finished: bool  # ended by itself, not by max_new_tokens
    cut_prompt_tokens: int


def evaluate(
    model: Llama,
    params: Any,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    *,
    mesh: Mesh,
    config: Config,
    folder: str | Path,
    stage: str,
    step: int,
    model_name: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Score]:
    """Answer and score all items of all tasks; predictions and scores are written into the run folder.

    Scores do not depend on `generate.batch_rows`, on the mesh or on which tasks are evaluated together. A
    prompt too long for model.max_positions loses tokens behind its BOS; predictions and scores.json tell how
    many.

    Args:
        folder: the run folder.
        model_name: what the scores are told for, such as base or tuned.
        on_progress: called with items done and items in all.
    """
    items = [item for task in tasks for item in task.items]
    prompts = [item.prompt for item in items]
    options = {"mesh": mesh, "config": config, "on_progress": on_progress}
    predictions = iter(answer(model, params, tokenizer, prompts, **options))
    home = Path(folder) / "evals" / f"{stage}-{step}"
    decoding = _decoding(config, stage)
    scores, counts = [], {}
    for task in tasks:
        answers = [next(predictions) for _ in task.items]
        measured = measure(task, [prediction.text for prediction in answers])
        tell = functools.partial(_score, task=task, config=config, stage=stage, step=step, model=model_name)
        scores += [tell(one, decoding=decoding) for one in measured]
        counts[task.name] = _counts(task, answers)
        _write(home / f"{task.name}.jsonl", _lines(task, answers, measured))
    _write(home / SCORES_FILE, _scores_text(scores, counts))
    return scores


def answer(
    model: Llama,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    mesh: Mesh,
    config: Config,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Prediction]:
    """Greedy answers to prompts, as text without the white space around them."""
    max_new_tokens = config.generate.max_new_tokens
    room = prompt_room(model.config, max_new_tokens)
    ids, cut = cut_prompts(prompt_tokens(prompts, tokenizer), room, tokenizer.bos_id)
    new = generate(
        model,
        params,
        ids,
        max_new_tokens=max_new_tokens,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        batch_rows=config.generate.batch_rows,
        mesh=mesh,
        on_progress=on_progress,
    )
    return [
        Prediction(tokenizer.decode(row).strip(), len(row), len(row) < max_new_tokens, lost)
        for row, lost in zip(new, cut, strict=True)
    ]


def measure(task: Task, predictions: Sequence[str]) -> list[Measured]:
    """The metrics that belong to a task's kind."""
    metrics = translation_metrics if task.kind == "translation" else qa_metrics
    return metrics(predictions, [item.targets for item in task.items], task.language)


def evaluate_floors(tasks: Sequence[Task], *, config: Config, folder: str | Path) -> list[Score]:
    """What answers without a model score: the sentence as it is, the most frequent answer to every question.

    Written like any evaluation, under stage "floors" and step 0, without predictions.
    """
    scores = []
    for task in tasks:
        name, texts = _floor(task)
        tell = functools.partial(_score, task=task, config=config, stage=FLOORS, step=0, model=name)
        scores += [tell(one, decoding=_decoding(config, FLOORS)) for one in measure(task, texts)]
    _write(Path(folder) / "evals" / f"{FLOORS}-0" / SCORES_FILE, _scores_text(scores, {}))
    return scores


def is_evaluated(tasks: Sequence[Task], stage: str, step: int, *, config: Config, folder: str | Path) -> bool:
    """Whether the run folder has the scores of just these tasks, of the same items and the same decoding.

    Without the predictions that they were computed from, or where the file is damaged, it has none.
    """
    home = Path(folder) / "evals" / f"{stage}-{step}"
    path = home / SCORES_FILE
    if not tasks or not path.is_file():
        return not tasks
    if stage != FLOORS and not all((home / f"{task.name}.jsonl").is_file() for task in tasks):
        return False
    decoding = _decoding(config, stage)
    asked = {(task.name, f"|{task.signature}|decoding:{decoding}|") for task in tasks}
    try:
        there = [
            (score["task"], score["signature"]) for score in json.loads(path.read_text("utf-8"))["scores"]
        ]
        return {name for name, _ in there} == {name for name, _ in asked} and all(
            any(name == task and signature in of_score for task, of_score in there)
            for name, signature in asked
        )
    except (ValueError, KeyError, TypeError):
        return False


def _decoding(config: Config, stage: str) -> str:
    return "none" if stage == FLOORS else f"greedy,{config.generate.max_new_tokens}"


def _floor(task: Task) -> tuple[str, list[str]]:
    if task.kind == "translation":
        return "copy_source", [item.source_text for item in task.items]
    frequent = Counter(item.targets[0] for item in task.items).most_common(1)[0][0]
    return "majority_answer", [frequent] * len(task.items)


def _score(
    one: Measured, *, task: Task, config: Config, stage: str, step: int, model: str, decoding: str
) -> Score:
    samples, seed = config.eval.bootstrap_samples, config.run.seed
    low, high = interval(one, samples, seed)
    return Score(
        stage=stage,
        step=step,
        model=model,
        task=task.name,
        language=task.language,
        metric=one.metric,
        value=round(one.value, 4),
        low=round(low, 4),
        high=round(high, 4),
        items=len(task.items),
        signature=f"{one.signature}|{task.signature}|decoding:{decoding}|interval:95%,bootstrap{samples},seed{seed}",
    )


def _counts(task: Task, answers: Sequence[Prediction]) -> dict[str, Any]:
    """What scores alone do not tell: items left out, prompts cut, answers that did not end."""
    cut = [prediction.cut_prompt_tokens for prediction in answers]
    return {
        "items": len(task.items),
        "available": task.available,
        "split": task.split,
        "left_out": dict(task.left_out),
        "cut_prompts": int(np.count_nonzero(cut)),
        "cut_prompt_tokens": sum(cut),
        "unfinished": sum(not prediction.is_finished for prediction in answers),
    }


def _lines(task: Task, answers: Sequence[Prediction], measured: Sequence[Measured]) -> str:
    """The predictions of a task, a JSON object per line."""
    of_items = {one.metric: one.values for one in measured if one.score_of_one}
    lines = []
    for index, (item, prediction) in enumerate(zip(task.items, answers, strict=True)):
        line = {
            "id": item.id,
            "language": item.language,
            "prompt": item.prompt,
            "prediction": prediction.text,
            "targets": list(item.targets),
            **{metric: round(values[index], 4) for metric, values in of_items.items()},
            "new_tokens": prediction.new_tokens,
            "is_finished": prediction.is_finished,
            "cut_prompt_tokens": prediction.cut_prompt_tokens,
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _scores_text(scores: Sequence[Score], counts: Mapping[str, dict]) -> str:
    content = {"scores": [dataclasses.asdict(score) for score in scores], "tasks": counts}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    """The whole file or none of it; by the first process alone."""
    if jax.process_index() != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)
