"""Answers to verdicts, and verdicts to scores: what part is right, and how often the base model is beaten."""

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from jaxlingua import identify
from jaxlingua.config import Config, JudgeConfig
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.judge.asking import Asking, Question, Told
from jaxlingua.eval.judge.endpoint import Endpoint, part_of_signature
from jaxlingua.eval.judge.transcript import Transcript
from jaxlingua.eval.judge.wording import (
    ask_for_grades,
    ask_for_verdict,
    read_grades,
    read_verdict,
    version_of,
)
from jaxlingua.eval.metrics.measured import Measured
from jaxlingua.eval.metrics.off_target import verdict
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.languages import display_name

JUDGED_KINDS = ("qa", "open")

# Share of a task's right answers that may be taken for another language, if answers are to lose by that.
MOST_TARGETS_OFF = 0.05

Outcome = Literal["win", "tie", "loss", "undecided"]
POINTS: Mapping[str, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


@dataclass(frozen=True, slots=True)
class Gate:
    """Tells which answers lose without being graded. `name` is told in signatures."""

    name: str
    is_off_target: Callable[[str, str], bool]  # a text, and the language that was asked


def language_gate(task: Task) -> Gate:
    """Answers that are off-target by the rule of that metric; those that are undecided are graded.

    Where that rule takes more than MOST_TARGETS_OFF of the task's own targets for off-target, of those that
    it can tell, it cannot be relied on, and nothing but empty answers is held back.
    """
    told = [
        verdict(item.targets[0], item.language, task.source_language)
        for item in task.items
        if item.targets and item.targets[0].strip()
    ]
    off, decided = told.count("off"), len(told) - told.count("undecided")
    if off > MOST_TARGETS_OFF * decided:
        return Gate(f"none,targets:{100 * off / decided:.1f}off", lambda text, language: False)
    return Gate(
        identify.identifier_version(),
        lambda text, language: verdict(text, language, task.source_language) == "off",
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """What a judge makes of a task, and the counts that have to be told beside it."""

    measured: list[Measured]
    counts: dict[str, int]


def judge_answers(
    task: Task,
    predictions: Sequence[str],
    base_predictions: Sequence[str] | None,
    *,
    config: Config,
    folder: str | Path,
    gate: Gate | None = None,
    say: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judged:
    """Verdicts on answers to a task of kind qa or open; nothing for other kinds or without `eval.judge.url`.

    In several processes the first one alone asks, and the others get nothing.

    judge_yes: the share of answers that pass. Right answers are shown to the judge where they are known. An
    empty answer does not pass, and nobody is asked. Of several samples the majority counts.

    judge_win_rate, with judge_win, judge_tie and judge_loss: against the base model's answers. Both are
    graded together, in both orders; the higher mean wins. A side that is empty or not in the item's language
    loses without being graded; where that holds for both, or both say the same, it is a tie. A tie is half a
    win.

    An item for which no reply could be read is undecided, and neither a NO nor a loss: judge_yes and
    judge_win_rate are of the others, the shares of wins, ties, losses and undecided of all that are judged.

    Args:
        base_predictions: the base model's answers to the same items; None for no comparison.
        folder: of the evaluation; its judge.jsonl keeps every reply, and what is there is not asked again.
        gate: which answers are in another language; None is `language_gate`.
        on_progress: called with questions done and questions in all.

    Raises: ConfigError, DataError or MachineError in one line; what was replied until then is kept.
    Cost: items x samples requests, and 2 x items x samples for the comparison; told before the first one.
    """
    judge = config.eval.judge
    is_asked = judge.url and task.kind in JUDGED_KINDS and task.items
    if not is_asked or jax.process_index() != 0:
        return Judged([], {})
    for answers in (predictions, base_predictions):
        if answers is not None and len(answers) != len(task.items):
            raise DataError(
                f"eval.judge: {len(answers)} answers for {len(task.items)} items of {task.key}; each item "
                "needs one; make the predictions again"
            )
    gate = gate or language_gate(task)
    endpoint = Endpoint(judge)
    asking = Asking(judge, endpoint, Transcript(folder, say))
    chosen = chosen_items(task, judge)
    singles = {index: _verdict_questions(task, index, predictions[index], judge) for index in chosen}
    pairs: dict[int, list[Question]] = {}
    settled: dict[int, Outcome] = {}
    if base_predictions is not None and judge.compare:
        for index in chosen:
            sides = (predictions[index], base_predictions[index])
            outcome = _without_grading(task.items[index], *sides, gate)
            if outcome:
                settled[index] = outcome
            else:
                pairs[index] = _grade_questions(task, index, *sides, judge)
    questions = [q for asked in (*singles.values(), *pairs.values()) for q in asked]
    new = asking.new(questions)
    say(
        f"judge, {task.key}: {len(questions):,} questions to {judge.model} at {judge.url} about "
        f"{len(chosen):,} items, {new:,} requests; each is tried at most {judge.retries + 1} times"
    )
    told = iter(asking.ask_all(questions, on_progress))
    of_singles = {index: [next(told) for _ in asked] for index, asked in singles.items()}
    of_pairs = {index: [next(told) for _ in asked] for index, asked in pairs.items()}
    return _judged(task, judge, of_singles, of_pairs, settled, predictions, base_predictions, gate)


def chosen_items(task: Task, judge: JudgeConfig) -> list[int]:
    """Places of the items that are judged: all, or a sample by hash, of which a smaller one is a part."""
    places = list(range(len(task.items)))
    if judge.items == "auto" or judge.items >= len(places):
        return places
    places.sort(key=lambda place: hashlib.sha256(task.items[place].id.encode()).digest())
    return sorted(places[: judge.items])


# ── questions ──────────────────────────────────────────────────────────────────────────────────────────────


def _verdict_questions(task: Task, index: int, answer: str, judge: JudgeConfig) -> list[Question]:
    if not answer.strip():
        return []
    item = task.items[index]
    messages = ask_for_verdict(item.prompt, answer, item.targets, display_name(item.language))
    told = {"task": task.key, "item": item.id, "kind": "answer"}
    return [Question(messages, sample, read_verdict, told) for sample in range(judge.samples)]


def _grade_questions(task: Task, index: int, own: str, base: str, judge: JudgeConfig) -> list[Question]:
    """Those of one order, then those of the other."""
    item = task.items[index]
    questions = []
    for order, sides in (("base second", (own, base)), ("base first", (base, own))):
        messages = ask_for_grades(item.prompt, *sides, display_name(item.language))
        told = {"task": task.key, "item": item.id, "kind": "pair", "order": order}
        questions += [Question(messages, sample, read_grades, told) for sample in range(judge.samples)]
    return questions


def _without_grading(item: Item, own: str, base: str, gate: Gate) -> Outcome | None:
    """What is settled by the languages of both answers, or by their being the same."""
    own_is_out, base_is_out = (_is_out(text, item.language, gate) for text in (own, base))
    if own_is_out != base_is_out:
        return "loss" if own_is_out else "win"
    return "tie" if own_is_out or own.strip() == base.strip() else None


def _is_out(text: str, language: str, gate: Gate) -> bool:
    return not text.strip() or gate.is_off_target(text, language)


# ── verdicts ───────────────────────────────────────────────────────────────────────────────────────────────


def majority(told: Sequence[Told]) -> bool | None:
    """Whether most of the verdicts that could be read are YES; None where there is no majority."""
    votes = Counter(one.value for one in told if one.value is not None)
    return None if votes[True] == votes[False] else votes[True] > votes[False]


def outcome(told: Sequence[Told]) -> Outcome:
    """Who has the higher grade over both orders, each of which counts alike; undecided where one has none."""
    half = len(told) // 2
    own_first = [one.value for one in told[:half] if one.value is not None]
    base_first = [one.value for one in told[half:] if one.value is not None]
    if not own_first or not base_first:
        return "undecided"
    first, second = np.mean(own_first, axis=0), np.mean(base_first, axis=0)
    own, base = first[0] + second[1], first[1] + second[0]
    if math.isclose(own, base, abs_tol=1e-9):
        return "tie"
    return "win" if own > base else "loss"


def _judged(
    task: Task,
    judge: JudgeConfig,
    singles: Mapping[int, Sequence[Told]],
    pairs: Mapping[int, Sequence[Told]],
    settled: Mapping[int, Outcome],
    predictions: Sequence[str],
    base_predictions: Sequence[str] | None,
    gate: Gate,
) -> Judged:
    verdicts = {index: majority(told) if told else False for index, told in singles.items()}
    outcomes = dict(settled) | {index: outcome(told) for index, told in pairs.items()}
    everything = [one for told in (*singles.values(), *pairs.values()) for one in told]
    if everything and all(one.value is None for one in everything):
        raise ConfigError(
            f"eval.judge: none of {len(everything):,} replies of {judge.model} about {task.key} could be "
            "read; see judge.jsonl, and take another model as eval.judge.model"
        )
    models = sorted({part_of_signature(model) for one in everything for model in one.models if model})
    asked = part_of_signature(judge.model)
    rules = (
        f"judge:{asked}|answered_by:{'+'.join(models) or asked}|samples:{judge.samples}"
        f"|temperature:{judge.temperature:g}|judged:{len(singles)}of{len(task.items)}"
    )
    shown = sum(bool(item.targets) for item in task.items)
    gold = "shown" if shown == len(task.items) else "shown_where_known" if shown else "none"
    single_rules = f"judge_prompt:{version_of('answer', shows_targets=shown > 0)}|gold:{gold}|{rules}"
    share = functools.partial(_share, items=len(task.items))
    passes = {i: float(yes) for i, yes in verdicts.items() if yes is not None}
    measured = [share("judge_yes", passes, single_rules)] if passes else []
    undecided = {i: float(yes is None) for i, yes in verdicts.items()}
    measured.append(share("judge_undecided", undecided, single_rules))
    counts = {
        "judged": len(singles),
        "yes": sum(yes is True for yes in verdicts.values()),
        "no": sum(yes is False for yes in verdicts.values()),
        "undecided": sum(yes is None for yes in verdicts.values()),
        "empty": sum(not told for told in singles.values()),
    }
    if base_predictions is not None and judge.compare:
        pair_rules = f"judge_prompt:{version_of('pair')}|orders:both|gate:{gate.name}|{rules}"
        points = {i: POINTS[one] for i, one in outcomes.items() if one in POINTS}
        measured += [share("judge_win_rate", points, pair_rules)] if points else []
        for kind in ("win", "tie", "loss", "undecided"):
            name = "judge_pair_undecided" if kind == "undecided" else f"judge_{kind}"
            measured.append(share(name, {i: float(one == kind) for i, one in outcomes.items()}, pair_rules))
            counts[f"pair_{kind}"] = sum(one == kind for one in outcomes.values())
        for side, answers in (("", predictions), ("base_", base_predictions)):
            out = (_is_out(answers[i], task.items[i].language, gate) for i in singles)
            counts[f"pair_{side}off_target"] = sum(out)
        counts["pair_same_or_both_off_target"] = sum(one == "tie" for one in settled.values())
    counts["requests"] = sum(one.asked for one in everything)
    counts["refused"] = sum(one.is_refused for one in everything)
    return Judged(measured, counts)


def _share(metric: str, values: Mapping[int, float], rules: str, *, items: int) -> Measured:
    """The mean over the items that have a value, in percent; the others have no weight.

    A resample without any of them tells nothing, and is worth what all of them are.
    """
    statistics = np.zeros((items, 2))
    for index, value in values.items():
        statistics[index] = (100.0 * value, 1.0)
    total, count = statistics.sum(axis=0)
    overall = float(total / count)
    return Measured(
        metric,
        statistics,
        lambda sums: float(sums[0] / sums[1]) if sums[1] else overall,
        f"metric:{metric}|{rules}",
        score_of_one=len(values) == items,
        is_share=True,
        is_testable=False,
    )
