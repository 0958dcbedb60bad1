"""The items that a report shows: the best and the worst ones of each task, and what was gained and lost."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlingua.errors import DataError
from jaxlingua.eval.report.files import read_lines
from jaxlingua.eval.report.forms import Prediction, check
from jaxlingua.eval.report.models import better_high, importance
from jaxlingua.eval.tasks.item import FIRST_PROMPT

ITEMS_PER_TASK = 8
ITEMS_IN_ALL = 320
SHOWN_CHARACTERS = 700

# Metrics by which an item is right or wrong and nothing between.
RIGHT_OR_WRONG = ("exact_match", "accuracy", "exact_number")

# What a line of predictions has beside the scores of its item.
_NO_SCORES = frozenset({"new_tokens", "cut_prompt_tokens", "is_finished", "id", "asked"})


def read_items(
    folder: Path, name: str, base: str, tasks: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Some items of each task of one evaluation, the best first, with what the base model answered.

    A task that was asked in several prompts is shown in its first. With many tasks each shows fewer items.

    Args:
        name: of the evaluation, `<stage>-<step>`; `base` that of the base model.
        tasks: key of a task → what scores.json counts of it.
    Raises: DataError naming a damaged line.
    """
    by_name = {key.partition("@")[0]: key for key in sorted(tasks, reverse=True)}  # the plain key comes last
    keys = [by_name[name] for name in sorted(by_name)]
    each = max(2, min(ITEMS_PER_TASK, ITEMS_IN_ALL // max(len(keys), 1)))
    shown = []
    for key in keys[: ITEMS_IN_ALL // 2]:
        now = _predictions(folder / "evals" / name / f"{key}.jsonl")
        before = {line["id"]: line for line in _predictions(folder / "evals" / base / f"{key}.jsonl")}
        shown += _of_task(key, now, before, each)
    return shown


def read_prompts(folder: Path, name: str, tasks: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first item of each task as the model read it, in every prompt: in all languages where the prompt is
    in the language of the task, else in the first of them.

    Raises: DataError naming a damaged line.
    """
    found, seen = [], set()
    for key in sorted(tasks):
        task, _, prompt = key.partition("@")
        head = task if prompt.startswith("native") else task.rpartition(".")[0]
        if (head, prompt) in seen:
            continue
        line = next(iter(_predictions(folder / "evals" / name / f"{key}.jsonl", most=1)), None)
        if line is not None:
            seen.add((head, prompt))
            named = {"task": task, "prompt": prompt or FIRST_PROMPT, "language": line["language"]}
            found.append({**named, "text": line["prompt"][: 4 * SHOWN_CHARACTERS]})
    return found


def _predictions(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    wanted = {"id", "language", "prompt", "prediction", "targets"}
    lines = read_lines(path, most)
    for place, line in enumerate(lines, start=1):
        if missing := wanted - line.keys():
            raise DataError(
                f"{path}:{place}: damaged (a prediction without {', '.join(sorted(missing))}); an evaluation "
                f"writes all of them; remove the file and evaluate again"
            )
        advice = "an evaluation writes it whole; remove the file and evaluate again"
        check(Prediction, line, f"{path}:{place}", advice)
        for name, value in line.items():
            if isinstance(value, int | float) and not abs(value) < float("inf"):
                raise DataError(f"{path}:{place}: damaged ({name}: {value} is not finite); {advice}")
    return lines


def _of_task(
    key: str, now: Sequence[Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]], each: int
) -> list[dict[str, Any]]:
    metric = _metric_of(now)
    found = []
    for place, line in enumerate(now):
        earlier = before.get(line["id"])
        score = float(line[metric]) if metric else None
        past = float(earlier[metric]) if metric and earlier and metric in earlier else None
        found.append((place, line, earlier, score, past))
    if metric is None:
        picks = {place: [] for place in range(min(each, len(found)))}
    else:
        picks = _picks([(score, past) for *_, score, past in found], each, is_high=better_high(metric))
    samples = []
    for place, reasons in picks.items():
        _, line, earlier, score, past = found[place]
        samples.append(
            {
                "task": key.partition("@")[0],
                "prompt_name": key.partition("@")[2] or FIRST_PROMPT,
                "id": line["id"],
                "language": line["language"],
                "prompt": line["prompt"],
                "targets": line["targets"],
                "prediction": line["prediction"],
                "base_prediction": earlier["prediction"] if earlier else None,
                "exact": _is_exact(line),
                "metric": metric,
                "score": score,
                "base_score": past,
                "why": reasons,
            }
        )
    return samples


def _is_exact(line: Mapping[str, Any]) -> bool | None:
    """Whether an answer is just what was expected; None where nothing was."""
    for metric in RIGHT_OR_WRONG:
        if isinstance(line.get(metric), int | float):
            return line[metric] == 100
    return line["prediction"] in line["targets"] if line["targets"] else None


def _metric_of(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """The metric by which items are sorted: the first with a better side that every line has a number of."""
    if not lines:
        return None
    names = {
        name
        for name, value in lines[0].items()
        if isinstance(value, int | float) and not isinstance(value, bool) and better_high(name) is not None
    }
    for line in lines:
        names = {name for name in names if isinstance(line.get(name), int | float)}
    return min(names - _NO_SCORES, key=importance, default=None)


def _picks(
    scores: Sequence[tuple[float | int, float | int | None]], each: int, *, is_high: bool | None = True
) -> dict[int, list[str]]:
    """Places of the items that are shown, the best first, with why.

    Args:
        is_high: whether high scores are the better ones.
    """
    if is_high is False:
        scores = [(100 - now, None if past is None else 100 - past) for now, past in scores]
    order = sorted(range(len(scores)), key=lambda place: (-scores[place][0], place))
    if not order:
        return {}
    change = {place: now - past for place, (now, past) in enumerate(scores) if past is not None}
    gained = sorted((place for place in change if change[place] > 0), key=lambda place: -change[place])
    lost = sorted((place for place in change if change[place] < 0), key=lambda place: change[place])
    best, worst = scores[order[0]][0], scores[order[-1]][0]
    tops = [place for place in order if scores[place][0] > worst or best == 100]
    ends = [place for place in reversed(order) if scores[place][0] < best or best == 0]
    wanted = [("lost most", lost), ("worst", ends), ("gained most", gained), ("best", tops)]
    chosen: dict[int, list[str]] = {}
    for turn in range(math.ceil(each / len(wanted))):
        for why, places in wanted:
            if turn < len(places) and (places[turn] in chosen or len(chosen) < each):
                chosen.setdefault(places[turn], []).append(why)
    return {place: chosen[place] for place in order if place in chosen}


def clipped(text: str) -> tuple[str, str]:
    """What of a text is shown at once, and the rest that is folded away; both short enough for a page."""
    if len(text) <= SHOWN_CHARACTERS // 2:
        return text, ""
    cut = text.rfind(" ", 0, SHOWN_CHARACTERS // 2)
    cut = cut if cut > SHOWN_CHARACTERS // 4 else SHOWN_CHARACTERS // 2
    rest = text[cut:]
    if len(rest) > 4 * SHOWN_CHARACTERS:
        rest = rest[: 4 * SHOWN_CHARACTERS] + f" … ({len(text):,} characters in all)"
    return text[:cut], rest
