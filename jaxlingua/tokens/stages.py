"""Stages: what is learned in each, from sources to the batches of its steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxlingua.config import Config, StageConfig, WeightSchedule
from jaxlingua.data.example import Example
from jaxlingua.data.leaks import Leaks, refuse_leaks
from jaxlingua.data.mixtures import StageExamples, held_out_examples, stage_examples, training_records
from jaxlingua.data.records import Record, RecordSource
from jaxlingua.data.replay import is_replay, replay_weights, with_replay
from jaxlingua.data.sources import open_source
from jaxlingua.data.wordings import load_wording
from jaxlingua.errors import ConfigError
from jaxlingua.tokens.batches import OnePass, StageBatches, one_pass, stage_batches
from jaxlingua.tokens.documents import Documents, tokenize
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.windows import WindowBatches, window_batches


@dataclass(frozen=True)
class Stage:
    """One stage, ready to train: steps `first_step` to `end_step` of the run."""

    config: StageConfig
    first_step: int
    batches: StageBatches | WindowBatches
    held_out: OnePass | None
    examples: StageExamples

    @property
    def end_step(self) -> int:
        """The run's step after the last one of this stage."""
        return self.first_step + self.batches.steps

    @property
    def shown(self) -> dict[str, int]:
        """Documents that it shows of each entry of its own, replay left out."""
        shown: dict[str, int] = {}
        for (entry, _), count in self.batches.describe().items():
            if not is_replay(entry):
                shown[entry] = shown.get(entry, 0) + count.documents
        return shown


def refuse_no_stage(config: Config) -> None:
    """Raises: ConfigError if the configuration has no stage."""
    if not config.stages:
        raise ConfigError(
            "stages: none given; a run needs one or more, each with name, mixture and steps or epochs"
        )


def open_sources(config: Config) -> dict[str, RecordSource]:
    """The sources that a stage or a task names, opened; others are left alone."""
    return {
        name: open_source(name, config.data.sources[name], config.data.folder)
        for name in used_sources(config)
    }


def used_sources(config: Config) -> list[str]:
    """Names of the sources that a stage or a task names."""
    named = {
        name if entry.source == "auto" else entry.source
        for s in config.stages
        for name, entry in s.mixture.items()
    }
    named |= {task.partition(".")[0] for task in config.eval.tasks}
    return [name for name in config.data.sources if name in named]


def make_examples(
    config: Config, sources: Mapping[str, RecordSource], evaluated: Mapping[str, Sequence[Record]]
) -> tuple[list[StageExamples], Leaks]:
    """The training examples of every stage, after a check that none of them is evaluated on.

    Args:
        evaluated: the records of each task.
    """
    stages = with_replay(config.stages)
    training = training_records(stages, sources)
    leaks = refuse_leaks(training, evaluated, config.data.leaks)
    wording = load_wording(config.data)
    seed = config.run.seed
    return [stage_examples(stage, sources, wording, seed=seed, leaks=leaks) for stage in stages], leaks


def learned_texts(examples: Sequence[StageExamples]) -> Iterable[str]:
    """The texts of all examples of all stages, each once: what a tokenizer is learned on."""
    for stage in examples:
        for name, entry in stage.by_entry.items():
            yield from (example.text for example in entry if not is_replay(name))
        for name, redrawn in stage.redrawn.items():
            yield from redrawn.texts() if not is_replay(name) else ()


def make_stages(
    config: Config,
    sources: Mapping[str, RecordSource],
    examples: Sequence[StageExamples],
    tokenizer: Tokenizer,
    *,
    cache: Path | None,
    on_progress: Callable[[int, int], None],
) -> list[Stage]:
    """Tokenize, pack and count; from here on a stage is a number of steps, each with its batch."""
    stages: list[Stage] = []
    wording = load_wording(config.data)
    for stage, made in zip(with_replay(config.stages), examples, strict=True):
        shown = {earlier.config.name: earlier.shown for earlier in stages}
        stage = replay_weights(stage, list(shown), shown)
        documents = _tokenize(config, made.by_entry, tokenizer, cache, on_progress)
        batches = _batches(config, stage, made, documents, tokenizer, cache)
        limit = config.train.held_out_documents
        kept = {}
        if limit:
            kept = held_out_examples(
                stage, sources, wording, limit=limit, seed=config.run.seed, leaking=made.leaking
            ).by_entry
        kept = _tokenize(config, kept, tokenizer, cache, on_progress)
        kept = {entry: held for entry, held in kept.items() if len(held)}  # all of one may be too long
        held_out = None
        if kept:
            held_out = one_pass(
                kept,
                row_length_tokens=config.tokens.row_length_tokens,
                batch_rows=config.train.batch_rows,
            )
        first_step = stages[-1].end_step if stages else 0
        stages.append(Stage(stage, first_step, batches, held_out, made))
    return stages


def _batches(
    config: Config,
    stage: StageConfig,
    made: StageExamples,
    documents: Mapping[str, Documents],
    tokenizer: Tokenizer,
    cache: Path | None,
) -> StageBatches | WindowBatches:
    """The batches of a stage: planned by the epoch where all text and weights are fixed, else by windows."""
    how = {
        "seed": config.run.seed,
        "row_length_tokens": config.tokens.row_length_tokens,
        "batch_rows": config.train.batch_rows,
        "packing": config.tokens.packing,
    }
    changes = any(isinstance(entry.weight, WeightSchedule) for entry in stage.mixture.values())
    if not made.redrawn and not changes:
        return stage_batches(documents, stage, **how)
    return window_batches(
        documents,
        made.redrawn,
        stage,
        tokenizer,
        too_long=config.tokens.too_long,
        workers=config.data.workers,
        counts_folder=cache,
        **how,
    )


def _tokenize(
    config: Config,
    by_entry: Mapping[str, list[Example]],
    tokenizer: Tokenizer,
    cache: Path | None,
    on_progress: Callable[[int, int], None],
) -> dict[str, Documents]:
    return {
        entry: tokenize(
            examples,
            tokenizer,
            row_length_tokens=config.tokens.row_length_tokens,
            too_long=config.tokens.too_long,
            cache_folder=cache,
            progress=on_progress,
        )
        for entry, examples in by_entry.items()
    }
