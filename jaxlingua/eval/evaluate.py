"""Stage 7, eval: a model, its tokenizer and tasks to predictions and scores in the run folder.

    RUN/evals/<stage>-<step>/<task>.jsonl        a line per item: prompt, prediction, targets, its scores
    RUN/evals/<stage>-<step>/scores.json         all scores and counts; written last: with it all is there
    RUN/evals/<stage>-<step>/unfinished.jsonl    answers so far, while it goes on

`<task>` is the entry of `eval.tasks`, such as xquad.zho_Hans or flores.eng_Latn-zho_Hans, followed by @ and
the prompt's name unless it is the first one.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlingua.config import Config
from jaxlingua.eval.answer import (
    Answering,
    answer_tasks,
    check_answerable,
    choice_by,
    decoding_signature,
)
from jaxlingua.eval.done import BASE, SCORES_FILE, asked_of, fingerprint_in, is_answered, with_earlier
from jaxlingua.eval.fingerprint import fingerprint_of, name_of
from jaxlingua.eval.grams import TrainingGrams
from jaxlingua.eval.in_context.ask import prompts_of
from jaxlingua.eval.journal import Prediction, asked_in, opened_journal, read_predictions
from jaxlingua.eval.judge.answers import JUDGED_KINDS, judge_answers
from jaxlingua.eval.metrics.measured import Measured
from jaxlingua.eval.metrics.registry import floors, measure
from jaxlingua.eval.overlap import Overlap, overlap
from jaxlingua.eval.score import FLOORS, Score, score_of
from jaxlingua.eval.scorers.run import run_scorers
from jaxlingua.eval.tasks.item import Task
from jaxlingua.generate.decoding import decoding_of
from jaxlingua.model.llama import Llama
from jaxlingua.progress import told
from jaxlingua.tokens.interface import Tokenizer


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
    model_path: str = "",
    source: str | None = None,
    eos_ids: Sequence[int] = (),
    base: str = BASE,
    overlaps: Mapping[str, Overlap] | None = None,
    is_owner: bool = True,
    say: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Score]:
    """Answer and score all items of all tasks; predictions and scores are written into the run folder.

    Scores do not depend on `generate.batch_rows`, on the mesh or on which tasks are evaluated together. A
    prompt too long for model.max_positions loses tokens behind its BOS; predictions and scores.json tell how
    many. An evaluation that was cut off goes on from the answers that it left.

    Args:
        folder: the run folder.
        model_name: what the scores are told for, such as base or tuned.
        model_path: where the model came from, told in scores.json.
        source: names what was read there, for `is_evaluated`.
        eos_ids: tokens that end an answer beside the tokenizer's EOS.
        base: folder beside this one whose model this one is compared with, item by item.
        overlaps: by task key, what its items share with the training data.
        is_owner: whether answers of another model found here are made again instead of refused.
        on_progress: called with items done and items in all.
    """
    home = Path(folder) / "evals" / f"{stage}-{step}"
    every_eos = tuple(dict.fromkeys((tokenizer.eos_id, *eos_ids)))
    who = Answering(model, params, tokenizer, every_eos, mesh, config)
    check_answerable(tasks, config)
    weights = fingerprint_of(params)
    fingerprint = name_of(weights, tokenizer.fingerprint, every_eos)
    asked = {task.key: task for task in tasks}  # prompts of an arm may depend on the model
    tasks = prompts_of(tasks, who, folder=Path(folder), fingerprint=fingerprint)
    with opened_journal(home, fingerprint, is_owner=is_owner, say=say) as journal:
        answers = answer_tasks(who, tasks, journal, on_progress)
        harness = []
        if config.eval.harness.tasks:
            from jaxlingua.eval.harness import run_harness  # lm-eval takes a second, and may be absent

            harness = run_harness(
                model, params, tokenizer, mesh=mesh, config=config, folder=folder, stage=stage, step=step,
                model_name=model_name, eos_ids=every_eos, on_progress=on_progress,
            )  # fmt: skip
        if jax.process_index() != 0:
            return []
        where = {"config": config, "stage": stage, "step": step, "model": model_name}
        scores, counts = _scored(tasks, answers, home, base, overlaps or {}, say, where)
        compared = "" if home.name == base else fingerprint_in(home.parent / base)
        content = {
            "scores": [dataclasses.asdict(score) for score in (*scores, *harness)],
            "tasks": counts,
            "model": {"name": model_name, "path": model_path, "source": source, "fingerprint": fingerprint}
            | {"weights": weights, "tokenizer": tokenizer.fingerprint, "eos_ids": list(every_eos)},
            "base": {"evaluation": base, "fingerprint": compared} if compared else None,
            "decoding": _decoding(config),
            "asked": {key: asked_of(task, config, stage, compared) for key, task in asked.items()},
        }
        _write_scores(home, with_earlier(content, home, has_harness=bool(harness)))
    return [*scores, *harness]


def _scored(
    tasks: Sequence[Task],
    answers: Mapping[str, Sequence[Prediction]],
    home: Path,
    base: str,
    overlaps: Mapping[str, Overlap],
    say: Callable[[str], None],
    where: Mapping[str, Any],
) -> tuple[list[Score], dict[str, Any]]:
    """Scores and counts of all tasks; the predictions are written beside."""
    config: Config = where["config"]
    texts = {task.key: [one.text for one in answers[task.key]] for task in tasks}
    before = {} if home.name == base else _base_answers(tasks, home.parent / base, config)
    measured = _measured(tasks, texts, home, config, say)
    compared = _measured(
        [task for task in tasks if task.key in before], before, home.parent / base, config, say
    )
    scores: list[Score] = []
    counts = {}
    for task in tasks:
        is_judged = config.eval.judge.url and task.kind in JUDGED_KINDS
        with told(say, f"judging {task.key}") if is_judged else nullcontext(_untold) as on_progress:
            judged = judge_answers(
                task, texts[task.key], before.get(task.key), config=config, folder=home, say=say,
                on_progress=on_progress,
            )  # fmt: skip
        decoding = decoding_signature(task, config)
        against = {one.metric: one for one in compared.get(task.key, ())}
        every = [*measured[task.key], *judged.measured]
        tell = functools.partial(score_of, task=task, decoding=decoding, **where)
        scores += [tell(one, against.get(one.metric)) for one in measured[task.key]]
        scores += [tell(one, None) for one in judged.measured]
        counts[task.key] = _counts(task, answers[task.key], every, overlaps.get(task.key))
        counts[task.key] |= {"judged": judged.counts} if judged.counts else {}
        _write(home / f"{task.key}.jsonl", _lines(task, answers[task.key], every, config))
    return scores, counts


def _untold(done: int, total: int) -> None:
    """Progress of nothing."""


def _measured(
    tasks: Sequence[Task],
    texts: Mapping[str, Sequence[str]],
    home: Path,
    config: Config,
    say: Callable[[str], None],
) -> dict[str, list[Measured]]:
    """By task key, what answers are worth by our own metrics and those of other environments."""
    of_scorers = run_scorers(tasks, [texts[task.key] for task in tasks], config=config, folder=home, say=say)
    return {
        task.key: [*measure(task, texts[task.key], config=config), *more]
        for task, more in zip(tasks, of_scorers, strict=True)
    }


def _base_answers(tasks: Sequence[Task], there: Path, config: Config) -> dict[str, list[str]]:
    """By task key, the base model's answers to the same items, asked and decoded alike."""
    found = {}
    for task in tasks:
        if is_answered(task, config, there):
            lines = read_predictions(there / f"{task.key}.jsonl")
            texts = {line["id"]: line["prediction"] for line in lines}
            if all(item.id in texts for item in task.items):
                found[task.key] = [texts[item.id] for item in task.items]
    return found


def overlaps_of(tasks: Sequence[Task], texts: Iterable[str], words: int) -> dict[str, Overlap]:
    """By task key, what its items share with training texts; nothing where there are none, or words is 0."""
    if not tasks or not words:
        return {}
    grams = TrainingGrams.of(texts, words=words)
    return {task.key: overlap(task.items, grams) for task in tasks} if grams.training_words else {}


def evaluate_floors(tasks: Sequence[Task], *, config: Config, folder: str | Path) -> list[Score]:
    """What answers without a model score: the sentence as it is, the most frequent answer, a random label.

    Written like any evaluation, under stage "floors" and step 0, without predictions.
    """
    if jax.process_index() != 0:
        return []
    scores = []
    for task in tasks:
        for name, texts in floors(task, config.run.seed).items():
            tell = functools.partial(score_of, task=task, config=config, stage=FLOORS, step=0, model=name)
            scores += [tell(one, None, decoding="none") for one in measure(task, texts, config=config)]
    home = Path(folder) / "evals" / f"{FLOORS}-0"
    content = {
        "scores": [dataclasses.asdict(score) for score in scores],
        "tasks": {},
        "model": {"fingerprint": ""},
        "base": None,
        "asked": {task.key: asked_of(task, config, FLOORS, "") for task in tasks},
    }
    _write_scores(home, with_earlier(content, home, has_harness=False))
    return scores


def _decoding(config: Config) -> dict[str, Any]:
    return {
        "how": decoding_of(config).signature,
        "max_new_tokens": config.generate.max_new_tokens,
        "stop": config.generate.stop,
        "choice_by": config.eval.choice_by,
        "seed": config.run.seed,
        "compute_dtype": config.model.compute_dtype,
    }


def _counts(
    task: Task, answers: Sequence[Prediction], measured: Sequence[Measured], shared: Overlap | None
) -> dict[str, Any]:
    """What scores alone do not tell: items left out, prompts cut, answers that did not end, leaks."""
    cut = [prediction.cut_prompt_tokens for prediction in answers]
    return {
        "items": len(task.items),
        "available": task.available,
        "split": task.split,
        "left_out": dict(task.left_out),
        "cut_prompts": int(np.count_nonzero(cut)),
        "cut_prompt_tokens": sum(cut),
        "unfinished": sum(not prediction.is_finished for prediction in answers),
        "prompt": task.prompt,
        "kind": task.kind,
        "is_parallel": task.is_parallel,
        "checked_on": task.checked_on,
        "version": task.version,
        "prompt_text": task.prompt_text,
        "prompt_hash": hashlib.sha256(task.prompt_text.encode()).hexdigest()[:16],
        "files": list(task.files),
        "files_hash": task.fingerprint,
        "items_hash": hashlib.sha256(repr(task.items).encode()).hexdigest()[:16],
        "note": task.note,
        "in_context": task.arm,
        "overlap": None if shared is None else _overlap_of(task, measured, shared),
    }


def _overlap_of(task: Task, measured: Sequence[Measured], shared: Overlap) -> dict[str, Any]:
    """What items share with the training data, and what the others alone are worth."""
    leaked = set(shared.leaked)
    clean = np.array([item.id not in leaked for item in task.items])
    values = {}
    if leaked and clean.any():
        values = {one.metric: round(one.of_sums(one.statistics[clean].sum(axis=0)), 4) for one in measured}
    return {**dataclasses.asdict(shared), "leaked": sorted(leaked), "value_without": values}


def _lines(task: Task, answers: Sequence[Prediction], measured: Sequence[Measured], config: Config) -> str:
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
            **({"choices": list(item.choices), "choice_by": choice_by(task, config)} if item.choices else {}),
            **({"scores": prediction.scores} if prediction.scores else {}),
            "new_tokens": prediction.new_tokens,
            "is_finished": prediction.is_finished,
            "cut_prompt_tokens": prediction.cut_prompt_tokens,
            "asked": asked_in(task, item, decoding_signature(task, config)),
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _write_scores(home: Path, content: Mapping[str, Any]) -> None:
    _write(home / SCORES_FILE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    """The whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # A lone surrogate, which a tokenizer may give, is written as JSON escapes it.
    partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    os.replace(partial, path)
