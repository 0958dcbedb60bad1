"""How each stage learns: its optimizer and schedule, what it trains, and what holds it to earlier stages."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxlingua.config import AnchorConfig, Config, OptimizerConfig, StageConfig
from jaxlingua.errors import ConfigError, TrainingError
from jaxlingua.model.llama import Llama
from jaxlingua.tokens.stages import Stage
from jaxlingua.tracking import fetch
from jaxlingua.train.anchors import FISHER, PARAMS, is_taught, remembered_by
from jaxlingua.train.earlier import Earlier, earlier_adapters
from jaxlingua.train.fisher import fisher_information
from jaxlingua.train.learned import Learned
from jaxlingua.train.objective import Objective
from jaxlingua.train.optimizer import Schedule, make_optimizer
from jaxlingua.train.state import TrainState, abstract_state, with_fresh_optimizer, with_new_adapters

# `told` of progress.py with where to speak: called with what takes long.
Telling = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
Stoppable = Callable[[Callable[[int, int], None]], Callable[[int, int], None]]


@dataclass(frozen=True)
class Method:
    """How one stage learns.

    `span` is where its learning rate begins and ends, in steps of the run: that of the stage, or of several
    that go on from one another. `earlier` are the stages before it.
    """

    stage: Stage
    earlier: tuple[Stage, ...]
    span: tuple[int, int]
    optimizer: optax.GradientTransformationExtraArgs
    schedule: Schedule
    objective: Objective

    @property
    def learned(self) -> Learned:
        """What it trains."""
        return Learned(tuple(self.stage.config.frozen))

    @property
    def anchor(self) -> AnchorConfig | None:
        """What holds it."""
        return self.stage.config.anchored

    @property
    def remembered(self) -> tuple[str, ...]:
        """What its state keeps of its beginning."""
        return remembered_by(self.stage.config)

    @property
    def measured(self) -> tuple[Stage, ...]:
        """Earlier stages whose batches it wants at its beginning."""
        return self.earlier if FISHER in self.remembered else ()

    @property
    def is_averaged(self) -> bool:
        """Whether its last weights are averaged with its first ones."""
        return self.stage.config.average != "off"

    @property
    def adapters(self) -> Earlier:
        """How many adapters of earlier stages it has."""
        return list(earlier_adapters([stage.config for stage in (*self.earlier, self.stage)]))[-1]

    def model(self, one: Llama) -> Llama:
        """What computes in it, by the model with one adapter: that one, but for stacked adapters."""
        return one.clone(config=self.adapters.sizes(one.config))

    def abstract_state(self, model: Llama, mesh: Mesh) -> TrainState:
        """Shapes and shardings of the state from its first step to its last.

        Args:
            model: with one adapter, if any.
        """
        return abstract_state(model, self.optimizer, mesh, self.learned, self.remembered, self.adapters)

    def begun(
        self,
        state: TrainState,
        model: Llama,
        shardings: TrainState,
        *,
        seed: int,
        micro_batches: int,
        telling: Telling,
        stoppable: Stoppable,
    ) -> TrainState:
        """The state in which it begins, from that in which the stage before it ended.

        A function of that state and of the data alone: where a run is resumed here, it is made again.

        Args:
            state: which is used up.
            model: with one adapter, if any.
            shardings: of the state that is made.
            stoppable: makes a report of progress one that ends the run where that is asked for.
        Raises: TrainingError where nothing could be learned with such an anchor.
        Cost: copies of what is trained; for EWC the passes of `fisher_information`.
        """
        state = state.replace(anchor={})
        if self.stage.config.adapters != "continue":
            is_merged, mesh = self.stage.config.adapters == "merge", shardings.step.mesh
            state = with_new_adapters(state, model, mesh, seed, len(self.earlier), is_merged=is_merged)
        if self.stage.config.optimizer == "fresh":
            state = with_fresh_optimizer(state, self.optimizer, shardings, self.learned)
        anchor: dict[str, Any] = {}
        trained, trained_shardings = (self.learned.parts(t.params)[0] for t in (state, shardings))
        if PARAMS in self.remembered:
            anchor[PARAMS] = jax.tree.map(lambda leaf: leaf.copy(), trained)
        if FISHER in self.remembered:
            draws = self.anchor.fisher_draws
            with telling("measuring what earlier stages need (batches)") as on_progress:
                anchor[FISHER] = fisher_information(
                    state.params, state.fixed, self.learned, trained_shardings, self.measured,
                    model=self.model(model), objective=self.objective, draws=draws, seed=seed,
                    micro_batches=micro_batches, on_progress=stoppable(on_progress),
                )  # fmt: skip
            if not np.isfinite(fetch(jax.jit(optax.global_norm)(anchor[FISHER]))):
                raise TrainingError(
                    f"stage '{self.stage.config.name}', anchor.ewc: the information of the stages before "
                    f"it is not finite at the weights that it begins with; see to what came before, or "
                    f"take l2_sp or kl"
                )
        return state.replace(anchor=anchor)


def make_methods(config: Config, stages: Sequence[Stage], vocab_size: int) -> list[Method]:
    """One for each stage. Learning rates of stages that go on from one another lie on one curve."""
    firsts: list[int] = []  # for each stage, the place of the one where its learning rate begins
    for place, stage in enumerate(stages):
        firsts.append(firsts[-1] if stage.config.schedule == "continue" else place)
    ends = {first: stages[place].end_step for place, first in enumerate(firsts)}
    methods = []
    for place, (stage, first) in enumerate(zip(stages, firsts, strict=True)):
        span = stages[first].first_step, ends[first]
        given = optimizer_of(config.train.optimizer, stages[first].config)
        try:
            optimizer, schedule = make_optimizer(given, span[1] - span[0], span[0])
        except ConfigError as error:
            raise ConfigError(f"stage '{stages[first].config.name}', {error}") from None
        groups = len(stage.batches.group_names)
        objective = make_objective(stage.config, groups, vocab_size, config.train.loss_chunk_tokens)
        methods.append(Method(stage, tuple(stages[:place]), span, optimizer, schedule, objective))
    return methods


def optimizer_of(optimizer: OptimizerConfig, stage: StageConfig) -> OptimizerConfig:
    """The optimizer of a stage whose learning rate begins with it."""
    return optimizer if stage.peak_lr == "auto" else optimizer.model_copy(update={"peak_lr": stage.peak_lr})


def make_objective(stage: StageConfig, groups: int, vocab_size: int, loss_chunk_tokens: int) -> Objective:
    """What the loss of a stage is made of."""
    return Objective(vocab_size, groups, loss_chunk_tokens, stage.anchored.kl if is_taught(stage) else 0.0)


def no_longer_read(methods: Sequence[Method], place: int) -> list[Stage]:
    """The stages up to `place` of which no later one wants batches."""
    wanted = {stage.config.name for method in methods[place + 1 :] for stage in method.measured}
    return [method.stage for method in methods[: place + 1] if method.stage.config.name not in wanted]


def method_at(methods: Sequence[Method], step: int) -> int:
    """The place of the one that a checkpoint of `step` belongs to: of its last step, or one before."""
    places = [place for place, method in enumerate(methods) if step <= method.stage.end_step]
    return places[0] if places else len(methods) - 1
