"""Stages: what is learned in each, from sources to the batches of its steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxlingua.config import Config, StageConfig
from jaxlingua.data.example import Example
from jaxlingua.data.leaks import Leaks, refuse_leaks
from jaxlingua.data.mixtures import StageExamples, held_out_examples, stage_examples, training_records
from jaxlingua.data.records import RecordSource
from jaxlingua.data.sources import open_source
from jaxlingua.errors import TrainingError
from jaxlingua.eval.tasks import Task
from jaxlingua.tokens.batches import OnePass, StageBatches, one_pass, stage_batches
from jaxlingua.tokens.documents import Documents, tokenize
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tracking import StageFacts, mean_keys

CULPRITS_SHOWN = 5


@dataclass(frozen=True)
class Stage:
    """One stage, ready to train: steps `first_step` to `end_step` of the run."""

    config: StageConfig
    first_step: int
    batches: StageBatches
    held_out: OnePass | None
    examples: StageExamples

    @property
    def end_step(self) -> int:
        """The run's step after the last one of this stage."""
        return self.first_step + self.batches.steps

    @property
    def facts(self) -> StageFacts:
        """What the lines of metrics need to know."""
        batches = self.batches
        positions = batches.batch_rows * batches.row_length_tokens * batches.use
        lengths = np.asarray(batches.corpus.lengths)
        return StageFacts(self.config.name, batches.group_names, positions, mean_keys(lengths))


def open_sources(config: Config) -> dict[str, RecordSource]:
    """The sources that a stage or a task names, opened; others are left alone."""
    named = {
        name if entry.source == "auto" else entry.source
        for s in config.stages
        for name, entry in s.mixture.items()
    }
    named |= {task.partition(".")[0] for task in config.eval.tasks}
    return {
        name: open_source(name, source, config.data.folder)
        for name, source in config.data.sources.items()
        if name in named
    }


def make_examples(
    config: Config, sources: Mapping[str, RecordSource], tasks: Sequence[Task]
) -> tuple[list[StageExamples], Leaks]:
    """The training examples of every stage, after a check that none of them is evaluated on."""
    training = training_records(config.stages, sources)
    leaks = refuse_leaks(training, {task.name: task.records for task in tasks}, config.data.leaks)
    return [
        stage_examples(stage, sources, config.data.template, leaks=leaks) for stage in config.stages
    ], leaks


def learned_texts(examples: Sequence[StageExamples]) -> Iterable[str]:
    """The texts of all examples of all stages: what a tokenizer is learned on."""
    return (example.text for stage in examples for entry in stage.by_entry.values() for example in entry)


def make_stages(
    config: Config,
    sources: Mapping[str, RecordSource],
    examples: Sequence[StageExamples],
    tokenizer: Tokenizer,
    *,
    cache: Path,
    on_progress: Callable[[int, int], None],
) -> list[Stage]:
    """Tokenise, pack and count; from here on a stage is a number of steps, each with its batch."""
    stages: list[Stage] = []
    for stage, made in zip(config.stages, examples, strict=True):
        documents = _tokenize(config, made.by_entry, tokenizer, cache, on_progress)
        batches = stage_batches(
            documents,
            stage,
            seed=config.run.seed,
            row_length_tokens=config.tokens.row_length_tokens,
            batch_rows=config.train.batch_rows,
            packing=config.tokens.packing,
        )
        limit = config.train.held_out_documents
        kept = held_out_examples(stage, sources, config.data.template, limit=limit).by_entry if limit else {}
        kept = {entry: held for entry, held in kept.items() if held}
        held_out = None
        if kept:
            held_out = one_pass(
                _tokenize(config, kept, tokenizer, cache, on_progress),
                row_length_tokens=config.tokens.row_length_tokens,
                batch_rows=config.train.batch_rows,
            )
        first_step = stages[-1].end_step if stages else 0
        stages.append(Stage(stage, first_step, batches, held_out, made))
    return stages


def _tokenize(
    config: Config,
    by_entry: Mapping[str, list[Example]],
    tokenizer: Tokenizer,
    cache: Path,
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


def describe_stage(stage: Stage) -> dict[str, Any]:
    """What a stage shows the model, for the console, data.json and the report."""
    batches = stage.batches
    counts = {group: count for store in batches.corpus.stores for group, count in store.counts.items()}
    rows = []
    for (entry, language), shown in batches.describe().items():
        made, kept = stage.examples.counts[entry, language], counts[entry, language]
        left_out = dict(made.dropped)
        left_out |= {"too long": kept.dropped_too_long, "without target": kept.dropped_without_target}
        rows.append(
            {
                "entry": entry,
                "language": language,
                "records": made.examples,
                "left out": ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
                or "nothing",
                "documents": kept.documents,
                "cut": kept.cut_documents,
                "tokens cut": kept.cut_tokens,
                "passes": round(shown.epochs, 3),
                "documents seen": shown.documents,
                "target tokens seen": shown.target_tokens,
                "share of target tokens": round(shown.share_of_target_tokens, 4),
            }
        )
    return {
        "name": stage.config.name,
        "steps": batches.steps,
        "epochs": round(batches.epoch(batches.steps), 3),
        "batch_rows": batches.batch_rows,
        "row_length_tokens": batches.row_length_tokens,
        "use": round(batches.use, 4),
        "mixture": rows,
    }


def describe_source(source: RecordSource) -> dict[str, Any]:
    """What was read of a source, for data.json and the report."""
    return {
        "name": source.name,
        "languages": list(source.languages),
        "train": len(source.records("train")),
        "held_out": len(source.records("held_out")),
        "skipped": dict(source.skipped),
        "fingerprint": source.fingerprint,
    }


def sample_rows(stage: Stage, tokenizer: Tokenizer, count: int = 3) -> list[str]:
    """The first documents of the first batch as the model sees them, learned tokens between 「 and 」."""
    batch = stage.batches.batch(0, 0, 1)
    shown = []
    for segment in range(1, min(count, int(batch.segments.max())) + 1):
        places = np.flatnonzero(batch.segments[0] == segment)
        tokens = [int(batch.tokens[0, places[0]]), *map(int, batch.targets[0, places])]
        learned = [False, *map(bool, batch.target_mask[0, places])]
        text, start = "", 0
        for end in range(1, len(tokens) + 1):
            if end == len(tokens) or learned[end] != learned[start]:
                part = tokenizer.decode(tokens[start:end])
                text += f"「{part}」" if learned[start] else part
                start = end
        shown.append(text.replace("\n", "⏎"))
    return shown


def is_due(step: int, every_steps: int, last_step: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens after `step`."""
    return step % every_steps == 0 or step == last_step


def stop_if_nonfinite(arrived: tuple[int, Any] | None, stage: Stage, allowed: int) -> None:
    """Refuse to go on after `allowed` steps in a row whose loss or gradient was not finite.

    Raises: TrainingError naming the examples of the last such step.
    """
    if arrived is None or int(arrived[1].nonfinite_in_a_row) < allowed:
        return
    step = arrived[0]
    examples = stage.batches.examples(step - 1 - stage.first_step)
    shown = ", ".join(f"{entry}[{index}]" for entry, index in examples[:CULPRITS_SHOWN])
    more = f" and {len(examples) - CULPRITS_SHOWN} more" if len(examples) > CULPRITS_SHOWN else ""
    raise TrainingError(
        f"stage '{stage.config.name}', steps {step - allowed + 1} to {step}: loss or gradient was not finite "
        f"{allowed} times in a row; the last step held {shown}{more}; lower train.optimizer.peak_lr or look "
        f"at these examples; parameters are as they were before, and the last checkpoint is whole"
    )
