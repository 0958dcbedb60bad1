"""Stage 7, eval: entries of `eval.tasks` to tasks."""

import hashlib
from collections.abc import Mapping
from typing import Literal

from jaxlingua.config import Config, source_languages
from jaxlingua.data.records import Pair, Question, Record, RecordSource
from jaxlingua.data.templates import render
from jaxlingua.errors import ConfigError
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.languages import parse_direction


def make_tasks(config: Config, sources: Mapping[str, RecordSource]) -> list[Task]:
    """The tasks of `eval.tasks` in their order.

    A source that any stage trains on is evaluated on its held-out records, any other on all of them.

    Raises: ConfigError for an entry given twice, that its source cannot answer, or that has no items.
    """
    for name in config.eval.tasks:
        if config.eval.tasks.count(name) > 1:
            raise ConfigError(f"eval.tasks: '{name}' given twice; each task is evaluated once; remove one")
    return [make_task(name, config, sources[name.partition(".")[0]]) for name in config.eval.tasks]


def make_task(name: str, config: Config, source: RecordSource) -> Task:
    """The items of one entry of `eval.tasks`."""
    what = name.partition(".")[2]
    direction = parse_direction(what) if "-" in what else None
    split = "held_out" if source.name in trained_sources(config) else "all"
    records = [record for record in source.records(split) if _is_asked(record, direction, what)]
    if not records:
        raise ConfigError(f"eval.tasks: '{name}' has no items: {_why_no_items(source, split, direction)}")
    chosen = sample(records, config.eval.items)
    return Task(
        name=name,
        kind="translation" if direction else "qa",
        source=source.name,
        language=direction[1] if direction else what,
        split=split,
        template=config.data.template,
        items=tuple(_item(record, config.data.template, name, direction) for record in chosen),
        records=tuple(chosen),
        available=len(records),
        left_out=dict(source.skipped),
    )


def trained_sources(config: Config) -> set[str]:
    """Names of the sources that some stage trains on."""
    return {
        name if entry.source == "auto" else entry.source
        for stage in config.stages
        for name, entry in stage.mixture.items()
    }


def sample(records: list[Record], items: int | Literal["auto"]) -> list[Record]:
    """At most `items` records, in order; "auto" is all of them.

    They are chosen by the hash of their index alone, or of a question's id, so that the same items are asked
    in every direction, and in every language of a parallel set.
    """
    if items == "auto" or len(records) <= items:
        return records

    def key(record: Record) -> bytes:
        name = record.id if isinstance(record, Question) else str(record.index)
        return hashlib.blake2b(name.encode()).digest()

    by_hash = sorted(records, key=key)
    return sorted(by_hash[:items], key=lambda record: record.index)


def _is_asked(record: Record, direction: tuple[str, str] | None, language: str) -> bool:
    if direction:
        return isinstance(record, Pair)
    return isinstance(record, Question) and record.language == language


def _why_no_items(source: RecordSource, split: str, direction: tuple[str, str] | None) -> str:
    every = source.records("all")
    kinds = {type(record) for record in every}
    if direction and Pair not in kinds:
        return f"'{source.name}' has no translations; for questions write SOURCE.LANGUAGE"
    if not direction and Question not in kinds:
        languages = source_languages(source.config)
        if Pair in kinds:
            example = f"{source.name}.{languages[0]}-{languages[1]}"
            return f"'{source.name}' has no questions; for translation write '{example}'"
        return f"'{source.name}' has no questions; evaluate a source of kind qa or parallel"
    if split == "held_out" and not source.records("held_out"):
        return f"a stage trains on '{source.name}', which holds nothing out; set its held_out_records"
    return f"no record of '{source.name}' ({split}) is in this language; choose another, or more records"


def _item(record: Record, template: str, name: str, direction: tuple[str, str] | None) -> Item:
    example = render(record, template, source=name, training=False, direction=direction)
    if isinstance(record, Question):
        return Item(record.id, record.language, example.prompt, record.answers, record.context)
    return Item(
        str(record.index), direction[1], example.prompt, example.answer_texts, record.texts[direction[0]]
    )
