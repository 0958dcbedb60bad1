"""Each score beside that of the base model: the difference, how sure it is, or why there is none."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxlingua.eval.report.models import (
    FLOOR,
    baseline_of,
    better_high,
    model_key,
    primary_metrics,
    prompt_of,
)
from jaxlingua.eval.significance import comparable, holm

SIGNIFICANT = 0.05

Key = tuple[str, str, str, str, str]  # model, task, language, metric, prompt


@dataclass(frozen=True, slots=True)
class Comparison:
    """A score against the base model's.

    Attributes:
        reason: why the two must not be compared; then there is no delta.
        low, high, p_value: None where the evaluation did not tell them, as old ones.
        p_holm: p_value adjusted for all differences of one model that stand in one table: those of the
            metrics that tasks are shown by, or those of the other metrics.
        tests: how many these are.
    """

    base: float | int
    delta: float | int | None
    low: float | int | None = None
    high: float | int | None = None
    p_value: float | int | None = None
    p_holm: float | int | None = None
    tests: int = 0
    reason: str = ""

    @property
    def is_significant(self) -> bool:
        """Whether models that are alike would rarely differ so much, in the whole table."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


def key_of(score: Mapping[str, Any]) -> Key:
    """What names a score within a report."""
    return model_key(score), score["task"], score["language"], score["metric"], prompt_of(score)


def is_better(metric: str, delta: float | int) -> bool | None:
    """Whether a difference is a gain; None for metrics of which neither side is better."""
    high = better_high(metric)
    return None if high is None else delta > 0 if high else delta < 0


def compare(
    scores: Iterable[Mapping[str, Any]], strangers: Mapping[str, str] | None = None
) -> dict[Key, Comparison]:
    """Every score that has one of the base model beside it, compared with that; see `baseline_of`.

    Args:
        strangers: model → why the differences told with its scores are not to that base model; none of
            these is shown.
    """
    strangers = strangers or {}
    scores = list(scores)
    baseline = baseline_of(scores)
    primary = primary_metrics(scores)
    base = {key_of(score)[1:]: score for score in scores if model_key(score) == baseline}
    plain: dict[Key, Comparison] = {}
    tables: dict[tuple[str, bool], list[Key]] = {}
    for score in scores:
        key = key_of(score)
        before = base.get(key[1:])
        if key[0] in (FLOOR, baseline) or before is None:
            continue
        reason = comparable(before["signature"], score["signature"])
        if reason:
            plain[key] = Comparison(before["value"], None, reason=reason)
            continue
        told = score.get("delta")
        if told is not None and key[0] in strangers:
            plain[key] = Comparison(before["value"], None, reason=strangers[key[0]])
            continue
        delta = score["value"] - before["value"] if told is None else told
        plain[key] = Comparison(
            before["value"], delta, score.get("delta_low"), score.get("delta_high"), score.get("p_value")
        )
        if score.get("p_value") is not None:
            tables.setdefault((key[0], primary.get(score["task"]) == score["metric"]), []).append(key)
    for keys in tables.values():
        for key, p_holm in zip(keys, holm([plain[key].p_value for key in keys]), strict=True):
            one = plain[key]
            plain[key] = Comparison(
                one.base, one.delta, one.low, one.high, one.p_value, p_holm, len(keys), one.reason
            )
    return plain


def told(key: Key, one: Comparison) -> dict[str, Any]:
    """A comparison as report.json holds it."""
    names = ("model", "task", "language", "metric", "prompt")
    values = ("base", "delta", "low", "high", "p_value", "p_holm", "tests", "reason")
    return dict(zip(names, key, strict=True)) | {name: getattr(one, name) for name in values}


def too_few_samples(scores: Iterable[Mapping[str, Any]], found: Mapping[Key, Comparison]) -> int:
    """Samples from which on differences could be significant that are as unlikely as samples can tell.

    0 where there are none such. The smallest p-value of a randomization test is 1 in its trials and one more;
    that of an exact one, of few items, depends on no samples.
    """
    needed = 0
    for score in scores:
        one = found.get(key_of(score))
        samples = _samples(score["signature"])
        if not one or one.p_value is None or not samples or one.is_significant:
            continue
        smallest = 1 / (samples + 1)
        if math.isclose(one.p_value, smallest) and one.tests * smallest >= SIGNIFICANT:
            needed = max(needed, round(one.tests / SIGNIFICANT))
    return needed


def _samples(signature: str) -> int:
    digits = signature.partition("bootstrap")[2].partition(",")[0]
    return int(digits) if digits.isdigit() else 0
