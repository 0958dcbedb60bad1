"""Adapters of earlier stages: how many there are in each stage, merged into the base or stacked beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jaxlingua.config import StageConfig
from jaxlingua.errors import ConfigError
from jaxlingua.model.lora import stacked
from jaxlingua.model.presets import LlamaConfig


@dataclass(frozen=True)
class Earlier:
    """How many adapters there are beside those that are trained: of earlier stages, and frozen.

    `merged` are in the base, `stacked` beside it.
    """

    merged: int = 0
    stacked: int = 0

    @property
    def count(self) -> int:
        """Of both."""
        return self.merged + self.stacked

    def sizes(self, one: LlamaConfig) -> LlamaConfig:
        """The model that computes, by that with one adapter.

        Raises: ConfigError where the ranks side by side are more than a target's matrix has.
        """
        return replace(one, lora=stacked(one.lora, self.stacked + 1)) if self.stacked else one


NONE = Earlier()


def earlier_adapters(stages: Sequence[StageConfig]) -> Iterator[Earlier]:
    """Those of each stage."""
    last = NONE
    for stage in stages:
        if stage.adapters == "stack":
            last = replace(last, stacked=last.stacked + 1)
        elif stage.adapters == "merge":
            last = Earlier(last.merged + last.stacked + 1, 0)
        yield last


def earlier_in(stages: Sequence[StageConfig], name: str) -> Earlier:
    """Those of the stage of that name, as a checkpoint tells it; none where no stage has it."""
    names = [stage.name for stage in stages]
    return list(earlier_adapters(stages))[names.index(name)] if name in names else NONE


def refuse_adapters(stages: Sequence[StageConfig], one: LlamaConfig) -> None:
    """Check new adapters of stages against the model, and against the adapter that training begins with.

    Args:
        one: sizes with one adapter, if any.
    Raises: ConfigError.
    """
    for stage, earlier in zip(stages, earlier_adapters(stages), strict=True):
        if stage.adapters == "continue":
            continue
        where = f"stage '{stage.name}', adapters: {stage.adapters} given"
        if one.lora.dora:
            raise ConfigError(
                f"{where} with the DoRA of model.lora.adapter, whose magnitudes do not add up; continue is "
                f"allowed; leave it out"
            )
        if stage.adapters == "merge" and one.tie_embeddings and {"embed", "head"} & set(one.lora.targets):
            raise ConfigError(
                f"{where} with an adapter of embed or head, which are one matrix in this model and would "
                f"become two; stack is allowed; take that, or leave embed and head out of model.lora.targets"
            )
        try:
            earlier.sizes(one)
        except ConfigError as error:
            raise ConfigError(
                f"{where}, {earlier.stacked + 1} adapters side by side, whose ranks add up; {error}"
            ) from None
