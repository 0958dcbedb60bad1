"""What a stage takes from the stages before it: replay, an anchor, the optimizer, adapters."""

from collections.abc import Sequence

from jaxlingua.config.model import LoraConfig, ModelConfig
from jaxlingua.config.stages import AnchorConfig, StageConfig
from jaxlingua.config.train import TrainConfig
from jaxlingua.errors import ConfigError, nearest


def check_sequence(stages: Sequence[StageConfig], model: ModelConfig, train: TrainConfig) -> None:
    """Names differ, and what a stage takes from earlier ones is there to be taken."""
    names = [stage.name for stage in stages]
    for place, stage in enumerate(stages):
        if stage.name in names[:place]:
            raise ConfigError(f"stages: name '{stage.name}' given twice; each stage needs its own name")
        _check_replay(stage, stages[:place])
        _check_anchor(stage, place, model)
        _check_continued(stage, stages[place - 1] if place else None)
        _check_adapters(stage, place, model.lora)
        _check_average(stage, place, model, train)


def _check_replay(stage: StageConfig, before: Sequence[StageConfig]) -> None:
    replay, earlier = stage.replayed, [other.name for other in before]
    if replay is None:
        return
    where = f"stage '{stage.name}', replay"
    if not earlier:
        raise ConfigError(
            f"{where}: given for the first stage, which has none before it; leave it out, or replay a source "
            f"by an entry of the mixture"
        )
    named = [] if replay.stages == "auto" else replay.stages
    for name in named:
        if name not in earlier:
            raise ConfigError(
                f"{where}.stages: '{name}' given, no stage before this one; {nearest(name, earlier)}"
            )
        if named.count(name) > 1:
            raise ConfigError(f"{where}.stages: '{name}' given twice; each may appear once")
    if replay.stages != "auto" and not named:
        raise ConfigError(f"{where}.stages: an empty list given; name one or more, or leave it out for all")
    for other in before:
        if other.faithful != stage.faithful and other.name in (named or earlier):
            raise ConfigError(
                f"{where}: given, and of this stage and '{other.name}' one is faithful, whose text is made "
                f"otherwise; name stages that are alike, or give both the same faithful"
            )


def _check_anchor(stage: StageConfig, place: int, model: ModelConfig) -> None:
    if not isinstance(stage.anchor, AnchorConfig) or place:
        return
    where = f"stage '{stage.name}', anchor"
    if model.init == "scratch":
        raise ConfigError(
            f"{where}: given for the first stage of a model that begins from nothing; an anchor needs an "
            f"earlier state; give it to a later stage, or set model.init=huggingface"
        )
    if stage.anchor.ewc != "off":
        raise ConfigError(
            f"{where}.ewc: given for the first stage, and the Fisher information is that of earlier stages; "
            f"l2_sp and kl are allowed here; take one of these"
        )


def _check_continued(stage: StageConfig, before: StageConfig | None) -> None:
    for field, value in (("schedule", "continue"), ("optimizer", "keep")):
        if getattr(stage, field) == value and before is None:
            raise ConfigError(
                f"stage '{stage.name}', {field}: {value} given for the first stage, which has none before "
                f"it; leave it out"
            )
    if stage.schedule == "continue" and stage.peak_lr not in ("auto", before.peak_lr):
        raise ConfigError(
            f"stage '{stage.name}', peak_lr: {stage.peak_lr:g} given with schedule: continue, which goes on "
            f"with the learning rate of stage '{before.name}'; leave one of them out"
        )
    if stage.optimizer != "keep":
        return
    where = f"stage '{stage.name}', optimizer: keep given"
    if stage.frozen != before.frozen:
        raise ConfigError(
            f"{where}, and stage '{before.name}' has other frozen parameters, whose optimizer state is not "
            f"there; give both the same, or leave it out"
        )
    if stage.adapters != "continue":
        raise ConfigError(
            f"{where} with adapters: {stage.adapters}, which begins with new ones; leave one of them out"
        )
    if before.average != "off":
        raise ConfigError(
            f"{where}, and stage '{before.name}' ends with averaged weights, to which its optimizer state "
            f"does not belong; leave one of them out"
        )


def _check_adapters(stage: StageConfig, place: int, lora: LoraConfig | str) -> None:
    if stage.adapters == "continue":
        return
    where = f"stage '{stage.name}', adapters: {stage.adapters} given"
    if not isinstance(lora, LoraConfig):
        raise ConfigError(
            f"{where} without model.lora, so there are none; set model.lora.rank, or leave it out"
        )
    if not place:
        raise ConfigError(f"{where} for the first stage, which has no earlier adapters; leave it out")
    if lora.dora is True:
        raise ConfigError(
            f"{where} with model.lora.dora, whose magnitudes do not add up; continue is allowed; leave it out"
        )
    if stage.adapters == "merge" and lora.base in ("int8", "nf4"):
        raise ConfigError(
            f"{where} with model.lora.base={lora.base}, into whose codes nothing can be merged without loss; "
            f"stack is allowed; take that"
        )


def _check_average(stage: StageConfig, place: int, model: ModelConfig, train: TrainConfig) -> None:
    if stage.average == "off":
        return
    where = f"stage '{stage.name}', average: {stage.average} given"
    if not place and model.init == "scratch":
        raise ConfigError(
            f"{where} for the first stage of a model that begins from nothing; an average needs an earlier "
            f"state; leave it out"
        )
    if model.lora != "off":
        raise ConfigError(
            f"{where} with model.lora; the average of two products A·B is not the product of averages; leave "
            f"one of them out"
        )
    if stage.average == "auto" and not train.held_out_documents:
        raise ConfigError(
            f"{where} with train.held_out_documents=0; the share is chosen by held-out loss; give a share "
            f"such as 0.5, or keep documents"
        )
