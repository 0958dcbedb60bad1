"""What training asks of a stage: facts for its metrics, when something is due, and when to give up."""

from collections.abc import Callable
from typing import Any

from jaxlingua.errors import TrainingError
from jaxlingua.tokens.stages import Stage
from jaxlingua.tracking import StageFacts, mean_keys

CULPRITS_SHOWN = 5


def facts_of(stage: Stage) -> StageFacts:
    """What the lines of metrics need to know of a stage."""
    batches = stage.batches
    positions = batches.batch_rows * batches.row_length_tokens * batches.use
    return StageFacts(
        stage.config.name, batches.group_names, positions, mean_keys(batches.lengths),
        stage.config.anchored is not None,
    )  # fmt: skip


def is_due(step: int, every_steps: int, last_step: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens after `step`."""
    return step % every_steps == 0 or step == last_step


def stop_if_nonfinite(
    arrived: tuple[int, Any] | None, stage: Stage, allowed: int, saved: Callable[[], int | None]
) -> None:
    """Refuse to go on after `allowed` steps in a row whose loss or gradient was not finite.

    Raises: TrainingError naming the examples of the last such step.
    """
    if arrived is None or int(arrived[1].nonfinite_in_a_row) < allowed:
        return
    step, saved_step = arrived[0], saved()
    examples = stage.batches.examples(step - 1 - stage.first_step)
    shown = ", ".join(f"{entry}[{index}]" for entry, index in examples[:CULPRITS_SHOWN])
    more = f" and {len(examples) - CULPRITS_SHOWN} more" if len(examples) > CULPRITS_SHOWN else ""
    raise TrainingError(
        f"stage '{stage.config.name}', steps {step - allowed + 1} to {step}: loss or gradient was not finite "
        f"{allowed} times in a row; the last step held {shown}{more}; lower train.optimizer.peak_lr or look "
        f"at these examples; {'no step was saved' if saved_step is None else f'step {saved_step} is saved'}"
    )
