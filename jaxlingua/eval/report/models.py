"""Which models a run folder has scores of, which one a report is about, and which metric comes first."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxlingua.eval.metrics.registry import METRICS
from jaxlingua.eval.tasks.item import FIRST_PROMPT

FLOOR, BASE = "floor", "base"

# What a task is shown by where it is measured in several ways, from the first that it has.
PRIMARY = (
    *("accuracy", "weighted_f1", "exact_number", "chrf++", "bleu", "f1", "exact_match", "judge_yes"),
    *("judge_win_rate", "rouge_l", "acc_norm", "acc", "off_target"),
)
# Of metrics that are not in the registry: those that are the better the higher or the lower they are. Of
# others, such as those of scorers, it is not known.
HIGHER_IS_BETTER = frozenset(
    {"acc", "acc_norm", "acc_norm_bytes", "acc_mutual_info", "acc_all", "acc_bytes", "exact_match", "exact"}
    | {"em", "f1", "macro_f1", "mcc", "bleu", "chrf", "chrfpp", "rouge1", "rouge2", "rougel", "rougelsum"}
    | {"pass@1", "pass_at_1", "contains", "recall", "precision", "r@2", "mrr"}
    | {"judge_yes", "judge_win", "judge_win_rate"}
)
LOWER_IS_BETTER = frozenset(
    {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier", "brier_score"}
    | {"ter", "wer", "judge_loss"}
)
UNSCALED = "_unscaled"  # how lm-evaluation-harness's metrics end that do not lie between 0 and 100

Score = Mapping[str, Any]


def model_key(score: Score) -> str:
    """How a score's model is named in tables: floor, base, a trained one by stage and step, or its name."""
    if score["stage"] == "floors":
        return FLOOR
    if score["step"] == 0:
        return BASE if BASE in (score["model"], score["stage"]) else score["stage"]
    return f"{score['stage']}, step {score['step']:,}"


def models_of(scores: Iterable[Score]) -> list[str]:
    """The columns of the table of scores: floor, base, then models as they were trained or named."""
    first = {FLOOR: 0, BASE: 1}
    order = sorted(scores, key=lambda score: (first.get(model_key(score), 2), score["step"]))
    return list(dict.fromkeys(model_key(score) for score in order))


def baseline_of(scores: Iterable[Score]) -> str:
    """The model that others are compared with: base, or else the one that has no deltas while others have.

    Empty where nothing is compared.
    """
    has_deltas: dict[str, bool] = {}
    for score in scores:
        key = model_key(score)
        has_deltas[key] = has_deltas.get(key, False) or score.get("delta") is not None
    if BASE in has_deltas:
        return BASE
    has_deltas.pop(FLOOR, None)
    without = [model for model, has in has_deltas.items() if not has]
    return without[0] if len(without) == 1 and len(has_deltas) > 1 else ""


def shown_models(scores: Iterable[Score], stages: Collection[str]) -> list[str]:
    """The models that a report is about: the newest that the run trained, then those set beside it.

    Where there is none but the one that others would be compared with, that one.

    Args:
        stages: names of the run's stages.
    """
    scores = list(scores)
    baseline = baseline_of(scores)
    trained = {model_key(score) for score in scores if is_own(score, stages)}
    models = [model for model in models_of(scores) if model != FLOOR]
    newest = [model for model in models if model in trained and model != baseline][-1:]
    others = [model for model in models if model not in trained and model != baseline]
    return newest + others or models[:1]


def is_own(score: Score, stages: Collection[str]) -> bool:
    """Whether a score is of a model that the run itself trained."""
    return score["step"] > 0 and (score["stage"] in stages or score["model"] == "tuned")


def prompt_of(score: Score) -> str:
    """The prompt that a score was asked in."""
    return score.get("prompt") or FIRST_PROMPT


def kind_of(score: Score) -> str:
    """How a task is answered; of old scores, which do not tell, by the form of its name."""
    return score.get("kind") or ("translation" if "-" in score["task"].rpartition(".")[2] else "qa")


def direction_of(score: Score) -> tuple[str, str] | None:
    """Source and target of a translation; None of other tasks."""
    if kind_of(score) != "translation":
        return None
    source = score.get("source_language") or next(iter(_codes(score["task"])), "")
    return (source, score["language"]) if source else None


def better_high(metric: str) -> bool | None:
    """Whether a metric is the better the higher it is; None where neither is better, or it is not known.

    Example:
        >>> [better_high(name) for name in ("acc.none", "byte_perplexity_unscaled", "length", "comet")]
        [True, False, None, None]
    """
    name = metric.casefold().removesuffix(UNSCALED)
    for known in (name, name.partition(".")[0].removesuffix(UNSCALED)):  # of the harness, with its filter
        if known in METRICS:
            return METRICS[known].is_better_high
        if known in HIGHER_IS_BETTER or known in LOWER_IS_BETTER:
            return known in HIGHER_IS_BETTER
    return None


def importance(metric: str) -> tuple[int, str]:
    """Sorts metrics: those that a task is shown by come first."""
    name = metric.casefold()
    return (PRIMARY.index(name) if name in PRIMARY else len(PRIMARY), name)


def primary_metrics(scores: Iterable[Score]) -> dict[str, str]:
    """Task → the metric that it is shown by; none where all of its metrics only inform or have no scale."""
    found: dict[str, str] = {}
    for score in scores:
        metric = score["metric"]
        if better_high(metric) is not None and not metric.endswith(UNSCALED):
            found[score["task"]] = min(found.get(score["task"], metric), metric, key=importance)
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task stands in a table of languages and tasks."""

    column: str
    language: str


def places_of(scores: Iterable[Score]) -> dict[str, Place]:
    """Task → its column and language; translations stand with the language that is not in all of them.

    Example:
        >>> names = ["f.eng_Latn-jav_Latn", "f.jav_Latn-eng_Latn", "f.eng_Latn-deu_Latn"]
        >>> told = places_of({"task": name, "language": name[-8:]} for name in names)
        >>> [(place.column, place.language) for place in told.values()]
        [('f eng_Latn → …', 'jav_Latn'), ('f … → eng_Latn', 'jav_Latn'), ('f eng_Latn → …', 'deu_Latn')]
    """
    scores = list(scores)
    languages = {score["task"]: score["language"] for score in scores}
    arrows = {score["task"]: " → " if kind_of(score) == "translation" else "-" for score in scores}
    pairs = {task: parts for task in languages if len(parts := _codes(task)) == 2}
    heads = {task.rpartition(".")[0] for task in pairs}
    pivots = {
        head: _pivot([pair for task, pair in pairs.items() if task.rpartition(".")[0] == head])
        for head in heads
    }
    found = {}
    for task, language in languages.items():
        head = task.rpartition(".")[0]
        if task in pairs:
            first, second = pairs[task]
            if second == pivots[head]:
                found[task] = Place(f"{head} …{arrows[task]}{second}", first)
            else:
                found[task] = Place(f"{head} {first}{arrows[task]}…", second)
        else:
            found[task] = Place(head if head and _codes(task) == [language] else task, language)
    return found


def _codes(task: str) -> list[str]:
    return task.rpartition(".")[2].split("-") if not task.startswith("harness:") else []


def _pivot(pairs: list[list[str]]) -> str:
    """The language that most pairs share; of equal ones English, else the first as source."""
    counts: dict[str, int] = {}
    for pair in pairs:
        for code in pair:
            counts[code] = counts.get(code, 0) + 1
    return max(counts, key=lambda code: (counts[code], code == "eng_Latn"))
