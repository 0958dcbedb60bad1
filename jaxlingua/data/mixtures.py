"""Mixtures: the examples of a stage, entry by entry, and an account of every record that gave none.

Weights are not applied here: they are shares of a batch, and batches.py draws them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxlingua.config import MixtureEntry, StageConfig
from jaxlingua.data.counts import LEAKING, Count
from jaxlingua.data.example import Example, Redrawn
from jaxlingua.data.leaks import Leaks
from jaxlingua.data.objectives import Objectives, directions_of, objectives_of
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Record, RecordSource, Text
from jaxlingua.data.released import as_released
from jaxlingua.data.replay import choose_replay, is_replay
from jaxlingua.data.templates import render, why_unusable
from jaxlingua.data.wordings import Wording
from jaxlingua.errors import DataError

_TASKS = {"instruction": Instruction, "translation": Pair, "qa": Question, "text": Text, "chat": Conversation}
_NEEDS = {
    "instruction": "instruction, input and output",
    "translation": "a sentence in two languages",
    "qa": "context, question and answers",
    "text": "text in one language",
    "chat": "turns of a conversation",
}


@dataclass(frozen=True, slots=True)
class StageExamples:
    """The examples of a stage by mixture entry, and their counts by entry and language of the answer.

    Entries that have objectives are in `redrawn`, all others in `by_entry`. `replay` holds the records that
    are learned of an entry that is replay, `leaking` the indices of those that equal evaluation text,
    `directions` source and target of the translations of an entry in `by_entry`.
    """

    stage: str
    by_entry: dict[str, list[Example]] = field(default_factory=dict)
    counts: dict[tuple[str, str], Count] = field(default_factory=dict)
    redrawn: dict[str, Redrawn] = field(default_factory=dict)
    replay: dict[str, list[Record]] = field(default_factory=dict)
    leaking: dict[str, frozenset[int]] = field(default_factory=dict)
    directions: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def stage_examples(
    stage: StageConfig,
    sources: Mapping[str, RecordSource],
    wording: Wording,
    *,
    seed: int = 0,
    leaks: Leaks | None = None,
) -> StageExamples:
    """The training examples of a stage, each record in each direction of its entry.

    `start` and `limit` of an entry count records of the source's training part, before any is dropped, so
    every direction has the same sentences. A record gives no example if a text is missing or empty, or if
    `leaks` drops it.

    Args:
        seed: of what is drawn anew each time.
    Raises: DataError naming entry and source where task, direction, language or slice ask for what the source
        does not have, or where no record gives an example.
    Cost: 12 s and 0.8 GB for a million sentence pairs under alpaca.
    """
    result = StageExamples(stage.name)
    for name, entry in stage.mixture.items():
        where, source = _where(stage, name), _source(name, entry, sources)
        leaking = result.leaking[name] = leaks.dropped(source.name) if leaks else frozenset()
        records = _training_records(stage, name, source)
        if entry.objectives != "off":
            redrawn = result.redrawn[name] = _objectives(name, stage, source, records, wording, seed, leaking)
            result.counts.update({(name, language): count for language, count in redrawn.counts.items()})
            _note_replay(result, name, entry, records, set(redrawn.indices))
            continue
        examples = result.by_entry[name] = []
        if isinstance(records[0], Pair) and entry.task != "text":
            result.directions[name] = directions_of(entry, source.languages)
        for record, direction in _asked(entry, source, records):
            reason = LEAKING if record.index in leaking else why_unusable(record, direction)
            _count(result, name, _language(record, direction), reason)
            if not reason:
                examples.append(_rendered(record, wording, stage, name, direction))
        if not examples:
            counts = [count for (of, _), count in result.counts.items() if of == name]
            reasons = {reason for count in counts for reason in count.dropped}
            why = ", ".join(sorted(reasons)) or f"it has only {source.languages[0]}, and no direction"
            raise DataError(
                f"{where}: no record of source '{source.name}' gives an example ({why}); each needs a "
                f"prompt and an answer; mend the source or take the entry out"
            )
        _note_replay(result, name, entry, records, {example.index for example in examples})
    return result


def held_out_examples(
    stage: StageConfig,
    sources: Mapping[str, RecordSource],
    wording: Wording,
    *,
    limit: int,
    seed: int = 0,
    leaking: Mapping[str, frozenset[int]] | None = None,
) -> StageExamples:
    """The first `limit` held-out examples of each entry and language, rendered as in evaluation.

    An entry whose source holds nothing out has an empty list.

    Args:
        leaking: those of `stage_examples`, by entry; a faithful stage parts its rows without them.
    Raises: DataError as `stage_examples`, but not for empty entries.
    """
    result = StageExamples(stage.name)
    for name, entry in stage.mixture.items():
        where, source = _where(stage, name), _source(name, entry, sources)
        examples = result.by_entry[name] = []
        records = _select(where, entry, source, source.records("held_out"))
        if entry.objectives != "off":
            held_out = _training_records(stage, name, source) if stage.faithful else records
            left_out = (leaking or {}).get(name, frozenset()) if stage.faithful else frozenset()
            if held_out:
                drawn = _objectives(name, stage, source, held_out, wording, seed, left_out, split="held_out")
                examples += _first_draws(drawn, limit)
            continue
        for record, direction in _asked(entry, source, records):
            language = _language(record, direction)
            if (name, language) in result.counts and result.counts[name, language].kept >= limit:
                continue
            reason = why_unusable(record, direction)
            _count(result, name, language, reason)
            if not reason:
                examples.append(render(record, wording, source=name, training=False, direction=direction))
    return result


def training_records(
    stages: Sequence[StageConfig], sources: Mapping[str, RecordSource]
) -> dict[str, list[Record]]:
    """The records that the stages learn from, by source and each once: what `refuse_leaks` looks at."""
    by_source: dict[str, dict[int, Record]] = {}
    for stage in stages:
        for name, entry in stage.mixture.items():
            source = _source(name, entry, sources)
            records = _training_records(stage, name, source)
            by_source.setdefault(source.name, {}).update((record.index, record) for record in records)
    return {name: list(records.values()) for name, records in by_source.items()}


# ── entries that are drawn anew ─────────────────────────────────────────────────────────────────────────────


def _objectives(
    name: str,
    stage: StageConfig,
    source: RecordSource,
    records: Sequence[Record],
    wording: Wording,
    seed: int,
    leaking: frozenset[int] = frozenset(),
    split: Literal["train", "held_out"] = "train",
) -> Objectives:
    return objectives_of(
        name,
        stage.mixture[name],
        source,
        records,
        stage=stage.name,
        seed=seed,
        wording=wording,
        faithful=stage.faithful,
        leaking=leaking,
        split=split,
    )


def _first_draws(objectives: Objectives, limit: int) -> Iterator[Example]:
    """The first draws, as many in each language."""
    left = dict.fromkeys(objectives.languages, limit)
    for slot in range(len(objectives)):
        example = objectives.draw(slot, 0)
        if left[example.language]:
            left[example.language] -= 1
            yield example
        if not any(left.values()):
            return


def _note_replay(
    result: StageExamples, name: str, entry: MixtureEntry, records: Sequence[Record], learned: set[int]
) -> None:
    if entry.replay != "off":
        result.replay[name] = [record for record in records if record.index in learned]


def _rendered(
    record: Record, wording: Wording, stage: StageConfig, name: str, direction: tuple[str, str] | None
) -> Example:
    if stage.faithful and isinstance(record, Instruction):
        return as_released(record, source=name)
    return render(record, wording, source=name, training=True, direction=direction)


# ── which records, and in which directions ──────────────────────────────────────────────────────────────────


def _where(stage: StageConfig, entry_name: str) -> str:
    return f"stage '{stage.name}', mixture.{entry_name}"


def _source(entry_name: str, entry: MixtureEntry, sources: Mapping[str, RecordSource]) -> RecordSource:
    return sources[entry_name if entry.source == "auto" else entry.source]


def _training_records(stage: StageConfig, name: str, source: RecordSource) -> list[Record]:
    where, entry = _where(stage, name), stage.mixture[name]
    records = _select(where, entry, source, source.records("train"))
    if not records and (held_out := source.records("held_out")):
        raise DataError(
            f"{where}: all {len(held_out):,} records of source '{source.name}' are held out; "
            f"some are needed for training; give fewer as data.sources.{source.name}.held_out_records"
        )
    stop = None if entry.limit == "auto" else entry.start + entry.limit
    chosen = records[entry.start : stop]
    if not chosen:
        raise DataError(
            f"{where}.start: {entry.start:,} given; source '{source.name}' has {len(records):,} training "
            f"records here; start below that, or mend the source"
        )
    if entry.replay == "off":
        return chosen
    replay = entry.replay
    if is_replay(name):  # of as many as there are of each earlier entry
        replay = replay.model_copy(update={"records": min(replay.records, len(chosen))})
    return choose_replay(chosen, replay, where)


def _select(where: str, entry: MixtureEntry, source: RecordSource, records: list[Record]) -> list[Record]:
    """The records in the entry's language, after a check that it asks for what the source has."""
    if not records:
        return []
    task = _task(where, entry, source, records[0])
    is_drawn = entry.objectives != "off"  # which has checks of its own
    if not is_drawn and entry.directions() and task != "translation":
        raise DataError(
            f"{where}.direction: '{'-'.join(entry.directions()[0])}' given with task {task}; only "
            f"translation has a direction; leave it out, or name a parallel source"
        )
    if not is_drawn and entry.language != "auto" and task == "translation":
        raise DataError(
            f"{where}.language: '{entry.language}' given with task translation, which has directions; write "
            f"direction: SOURCE-TARGET, or task: text to learn the sentences of one language"
        )
    asked = [language for direction in entry.directions() for language in direction]
    for language in asked + ([] if entry.language == "auto" else [entry.language]):
        if language not in source.languages:
            raise DataError(
                f"{where}: language '{language}' given; source '{source.name}' has "
                f"{', '.join(source.languages)}; choose one of these or name another source"
            )
    if entry.language == "auto" or isinstance(records[0], Pair):
        return records
    return [record for record in records if record.language == entry.language]


def _task(where: str, entry: MixtureEntry, source: RecordSource, record: Record) -> str:
    """The entry's task; `record` stands for all of its source, which are of one kind."""
    natural = next(task for task, kind in _TASKS.items() if isinstance(record, kind))
    if entry.task in ("auto", natural) or (entry.task == "text" and natural == "translation"):
        return natural if entry.task == "auto" else entry.task
    raise DataError(
        f"{where}.task: '{entry.task}' given, which needs {_NEEDS[entry.task]}; source '{source.name}' has "
        f"{_NEEDS[natural]}; write task: {natural}, or name another source"
    )


def _asked(
    entry: MixtureEntry, source: RecordSource, records: list[Record]
) -> Iterator[tuple[Record, tuple[str, str] | None]]:
    """Each record with the direction it is rendered in: pairs once in each, or as text once per language."""
    directions = directions_of(entry, source.languages)
    languages = source.languages if entry.language == "auto" else [entry.language]
    for record in records:
        if not isinstance(record, Pair):
            yield record, None
        elif entry.task == "text":
            for language in languages:
                yield Text(record.index, language, record.texts.get(language, "")), None
        else:
            yield from ((record, direction) for direction in directions)


def _language(record: Record, direction: tuple[str, str] | None) -> str:
    return direction[1] if direction else record.language


def _count(result: StageExamples, entry_name: str, language: str, dropped: str) -> None:
    result.counts.setdefault((entry_name, language), Count()).add(dropped)
