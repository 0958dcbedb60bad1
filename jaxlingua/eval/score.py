"""One metric of one model on one task: its interval, its difference to the base, all that repeats it."""

from dataclasses import dataclass

from jaxlingua.config import Config
from jaxlingua.eval.metrics.measured import Measured, interval, interval_method
from jaxlingua.eval.significance import difference
from jaxlingua.eval.tasks.item import FIRST_PROMPT, Task

FLOORS = "floors"  # the stage under which answers without a model are scored


@dataclass(frozen=True, slots=True)
class Score:
    """A score from 0 to 100 unless its metric says otherwise, with its 95 % interval.

    Attributes:
        delta: value minus that of the base model on the same items; None where there is none to compare with.
        delta_low, delta_high: its 95 % interval by paired bootstrap.
        p_value: of a difference at least as large between models that are alike, two-sided.
    """

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
    prompt: str = FIRST_PROMPT
    kind: str = ""
    source_language: str = ""
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    p_value: float | None = None


def score_of(
    one: Measured,
    base: Measured | None,
    *,
    task: Task,
    config: Config,
    stage: str,
    step: int,
    model: str,
    decoding: str,
) -> Score:
    """The score of what was measured.

    Args:
        base: the same metric of the base model on the same items.
        decoding: how the answers came about.
    """
    samples, seed = config.eval.bootstrap_samples, config.run.seed
    low, high = interval(one, samples, seed)
    against = {}
    if base is not None:
        found = difference(one, base, samples=samples, seed=seed)
        against = {
            "delta": round(found.delta, 4),
            "delta_low": round(found.low, 4),
            "delta_high": round(found.high, 4),
            "p_value": found.p_value,
        }
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
        items=one.items,
        signature=signature_of(one, task, config, decoding),
        prompt=task.prompt,
        kind=task.kind,
        source_language=task.source_language,
        **against,
    )


def signature_of(one: Measured, task: Task, config: Config, decoding: str) -> str:
    """All that two scores must share to be compared, and how the interval was made."""
    how = interval_method(one, config.eval.bootstrap_samples, config.run.seed)
    return f"{one.signature}|{task.signature}|decoding:{decoding}|interval:95%,{how}"
