"""All metrics by name: which of them a task has, and what no model would score."""

import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.metrics.answers import containment_metrics, qa_metrics
from jaxlingua.eval.metrics.classes import class_metrics
from jaxlingua.eval.metrics.measured import Measured, length_metric
from jaxlingua.eval.metrics.numbers import number_metrics
from jaxlingua.eval.metrics.off_target import off_target_metrics
from jaxlingua.eval.metrics.rouge import rouge_metrics
from jaxlingua.eval.metrics.translation import make_bleu, translation_metrics
from jaxlingua.eval.tasks.item import Kind, Task

Family = Callable[[Task, Sequence[str], Config], list[Measured]]


def _targets(task: Task) -> list[tuple[str, ...]]:
    return [item.targets for item in task.items]


def _exact_match(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    return (_translation if task.kind == "translation" else _qa)(task, predictions, config)


def _qa(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    return qa_metrics(predictions, _targets(task), task.language)


def _containment(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    return containment_metrics(predictions, _targets(task), task.language)


def _translation(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    return translation_metrics(predictions, _targets(task), task.language, config.eval.bleu_tokenizer)


def _off_target(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    sources = [item.source_text for item in task.items]
    return off_target_metrics(predictions, _targets(task), task.language, task.source_language, sources)


def _rouge(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    return rouge_metrics(predictions, _targets(task), task.language)


def _classes(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    return class_metrics(predictions, _targets(task), task.labels)


def _number(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    return number_metrics(predictions, _targets(task))


def _length(task: Task, predictions: Sequence[str], config: Config) -> list[Measured]:
    return [length_metric(predictions)]


@dataclass(frozen=True, slots=True)
class Metric:
    """What is known of a metric before it is measured.

    Attributes:
        about: one line for the documentation and the report.
        kinds: of tasks that can have it.
        family: measures it, often together with its relatives.
        is_percent: between 0 and 100.
        is_better_high: a higher value is the better one; None where neither is.
        needs_targets: cannot be measured where the right answer is not known.
    """

    about: str
    kinds: tuple[Kind, ...]
    family: Family
    is_percent: bool = True
    is_better_high: bool | None = True
    needs_targets: bool = True


_GENERATED: tuple[Kind, ...] = ("qa", "translation", "number", "open")
_CHOICE: tuple[Kind, ...] = ("choice",)

METRICS: Mapping[str, Metric] = {
    "exact_match": Metric("Answers that equal a target after normalization.", _GENERATED, _exact_match),
    "f1": Metric("Words shared with the best target, by the rules of MLQA.", ("qa", "open"), _qa),
    "containment": Metric(
        "Answers with the first target anywhere in them, both in lower case, as released with x-LLaMA.",
        ("qa", "open"),
        _containment,
    ),
    "containment_mlqa": Metric(
        "Answers with any target in them after the normalization of MLQA.", ("qa", "open"), _containment
    ),
    "bleu": Metric("BLEU of sacreBLEU, over the corpus.", ("translation",), _translation),
    "chrf++": Metric("chrF++ of sacreBLEU, over the corpus.", ("translation",), _translation),
    "rouge_l": Metric("Longest common subsequence of words with the best target.", _GENERATED, _rouge),
    "off_target": Metric(
        "Answers in another language than asked, of those where a language identifier can tell.",
        _GENERATED,
        _off_target,
        is_better_high=False,
        needs_targets=False,
    ),
    "undecided": Metric(
        "Answers where the language identifier cannot tell: too short, or two languages are likely.",
        _GENERATED,
        _off_target,
        is_better_high=None,
        needs_targets=False,
    ),
    "accuracy": Metric("Items whose label is right.", _CHOICE, _classes),
    "macro_f1": Metric("Mean F1 over all labels.", _CHOICE, _classes),
    "weighted_f1": Metric("Mean F1 over labels, each weighed by its items.", _CHOICE, _classes),
    "exact_number": Metric("Answers whose last number is the target.", ("number",), _number),
    "length": Metric(
        "Characters of an answer; informative only.",
        _GENERATED,
        _length,
        is_percent=False,
        is_better_high=None,
        needs_targets=False,
    ),
}

DEFAULTS: Mapping[Kind, tuple[str, ...]] = {
    "qa": ("exact_match", "f1", "containment"),
    "translation": ("exact_match", "bleu", "chrf++", "off_target", "undecided"),
    "choice": ("accuracy", "macro_f1", "weighted_f1"),
    "number": ("exact_number",),
    "open": ("off_target", "undecided", "length"),
}


def check_metrics(names: Sequence[str], kind: Kind, where: str) -> None:
    """Refuse metrics that do not exist or that a task of this kind cannot have.

    Raises: ConfigError beginning with `where`.
    """
    fitting = [name for name, metric in METRICS.items() if kind in metric.kinds]
    for name in names:
        if name in fitting:
            continue
        what = (
            f"metric '{name}' is not for tasks of kind {kind}" if name in METRICS else f"no metric '{name}'"
        )
        near = difflib.get_close_matches(name, fitting, n=1)
        hint = f"; did you mean '{near[0]}'?" if near and name not in METRICS else ""
        raise ConfigError(f"{where}: {what}; there are {', '.join(fitting)}{hint}")


def metric_names(task: Task) -> tuple[str, ...]:
    """What is measured of a task: what it says, or else what belongs to its kind."""
    return task.metrics or DEFAULTS[task.kind]


def check_measurable(tasks: Sequence[Task], *, config: Config) -> None:
    """Find what would stop `measure`, before any answer is made.

    Raises: ConfigError for metrics that a task cannot have; DataError where an answer that a metric needs is
        not known, or sacreBLEU's tokenizer cannot be had.
    """
    for task in tasks:
        names = metric_names(task)
        check_metrics(names, task.kind, f"task '{task.key}': metrics")
        _check_targets(task, names)
    if any("bleu" in metric_names(task) for task in tasks) and config.eval.bleu_tokenizer != "auto":
        make_bleu(config.eval.bleu_tokenizer)


def measure(task: Task, predictions: Sequence[str], *, config: Config) -> list[Measured]:
    """The metrics of a task, in their order; of a choice, predictions are labels.

    One that these predictions have no value of is not there: see `off_target_metrics`.

    Raises: DataError where predictions do not fit the items, an answer that a metric needs is not known, or
    a choice is no label; ConfigError for metrics that the task cannot have.
    """
    names = metric_names(task)
    check_metrics(names, task.kind, f"task '{task.key}': metrics")
    _check(task, names, predictions)
    known: dict[str, Measured] = {}
    for name in names:
        if name not in known:
            known.update((one.metric, one) for one in METRICS[name].family(task, predictions, config))
    return [known[name] for name in names if name in known]


def floors(task: Task, seed: int) -> dict[str, list[str]]:
    """Answers without a model, by name: what a score has to be better than.

    copy_source repeats the sentence to translate; majority_answer and majority give every item the most
    frequent answer, the first of several in the order of items and labels; random draws a label for each
    item, by seed and id of the item alone.
    """
    items = task.items
    if task.kind == "translation":
        return {"copy_source": [item.source_text for item in items]}
    if task.kind == "qa":
        answers = Counter(item.targets[0] for item in items if item.targets)
        return {"majority_answer": [answers.most_common(1)[0][0]] * len(items)} if answers else {}
    if task.kind == "choice":
        gold = Counter(item.targets[0] for item in items if item.targets)
        majority = max(task.labels, key=lambda label: gold[label])
        return {
            "majority": [majority] * len(items),
            "random": [task.labels[_draw(seed, item.id, len(task.labels))] for item in items],
        }
    return {}


def _draw(seed: int, key: str, below: int) -> int:
    """A number below `below` that belongs to a seed and a key."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8]) % below


def _check(task: Task, names: Sequence[str], predictions: Sequence[str]) -> None:
    if len(predictions) != len(task.items) or not task.items:
        raise DataError(
            f"task '{task.key}': {len(predictions)} predictions for {len(task.items)} items; each item needs "
            "one prediction; make the predictions again"
        )
    _check_targets(task, names)
    if task.kind == "choice":
        for item, prediction in zip(task.items, predictions, strict=True):
            _check_label(task, item.id, "prediction", prediction)


def _check_targets(task: Task, names: Sequence[str]) -> None:
    needing = [name for name in names if METRICS[name].needs_targets]
    for item in task.items if needing else ():
        if not item.targets:
            raise DataError(
                f"task '{task.key}': item '{item.id}' has no target; {', '.join(needing)} need one or more; "
                "take it out"
            )
        if task.kind == "choice":
            _check_label(task, item.id, "target", item.targets[0])


def _check_label(task: Task, item_id: str, what: str, text: str) -> None:
    if text not in task.labels:
        near = difflib.get_close_matches(text, task.labels, n=1)
        raise DataError(
            f"task '{task.key}': item '{item_id}' has the {what} '{text}'; "
            f"labels are {', '.join(task.labels)}"
            + (f"; did you mean '{near[0]}'?" if near else "; give one of them")
        )
