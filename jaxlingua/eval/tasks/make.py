"""Stage 7, eval: entries of `eval.tasks` to tasks."""

from collections.abc import Mapping

from jaxlingua.config import Config, source_languages
from jaxlingua.data.records import Pair, Question, Record, RecordSource
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import Wording, load_wording
from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.build import source_in_context
from jaxlingua.eval.in_context.form import Form
from jaxlingua.eval.in_context.pool import records_asked
from jaxlingua.eval.metrics.registry import check_measurable
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.eval.tasks.prompts import TRAINED
from jaxlingua.eval.tasks.published import published_tasks
from jaxlingua.eval.tasks.sampling import sample
from jaxlingua.languages import parse_direction


def make_tasks(config: Config, sources: Mapping[str, RecordSource]) -> list[Task]:
    """The tasks of `eval.tasks` in their order; of a task file, one for each of `eval.prompts`.

    A source that any stage trains on is evaluated on its held-out records, any other on all of them. A name
    that is both a source's and a task file's is the source's.

    Raises: ConfigError for an entry given twice, that its source cannot answer, or that has no items; what
        `published_tasks` raises for task files, and `check_measurable` for their metrics.
    """
    for name in config.eval.tasks:
        if config.eval.tasks.count(name) > 1:
            raise ConfigError(f"eval.tasks: '{name}' given twice; each task is evaluated once; remove one")
    tasks = []
    for name in config.eval.tasks:
        source = sources.get(name.partition(".")[0])
        tasks += (
            published_tasks(name, config, sources)
            if source is None
            else [make_task(name, config, source, sources)]
        )
    check_measurable(tasks, config=config)
    return tasks


def make_task(name: str, config: Config, source: RecordSource, sources: Mapping[str, RecordSource]) -> Task:
    """The items of one entry of `eval.tasks` that names a source.

    Args:
        sources: all of the configuration, one of which eval.in_context.parallel may be.
    """
    what = name.partition(".")[2]
    if "." in what:
        raise ConfigError(
            f"eval.tasks: '{name}' given; '{source.name}' is a source, which has no splits to choose from; "
            f"write {source.name}.{what.rpartition('.')[2]}"
        )
    direction = parse_direction(what) if "-" in what else None
    split = "held_out" if source.name in trained_sources(config) else "all"
    records = [record for record in source.records(split) if _is_asked(record, direction, what)]
    if not records:
        raise ConfigError(f"eval.tasks: '{name}' has no items: {_why_no_items(source, split, direction)}")
    keys = [record.id if isinstance(record, Question) else str(record.index) for record in records]
    chosen = sample(records, config.eval.items, keys)
    wording = load_wording(config.data)
    task = Task(
        name=name,
        kind="translation" if direction else "qa",
        source=source.name,
        language=direction[1] if direction else what,
        split=split,
        template=config.data.template,
        items=tuple(_item(record, wording, name, direction) for record in chosen),
        records=tuple(chosen),
        available=len(records),
        left_out=dict(source.skipped),
        source_language=direction[0] if direction else what,
    )
    if not config.eval.in_context.is_on:
        return task
    asked = records_asked(chosen, direction, what, source.name)
    return source_in_context(task, source, _form(wording, direction, what), asked, config, sources)


def _form(wording: Wording, direction: tuple[str, str] | None, language: str) -> Form:
    """The wording that translation and questions are trained with, as `render` has it in evaluation."""
    answered_in = direction[1] if direction else language
    prompt = TRAINED["translation" if direction else "qa"](wording, answered_in)
    shape = wording.frames_of(answered_in).get("translation" if direction else "qa", "")
    names, shape_names = (
        wording.names(text, *direction) if direction else {} for text in (prompt.instruction, shape)
    )
    return Form(prompt, names, wording, answered_in, shape, shape_names)


def trained_sources(config: Config) -> set[str]:
    """Names of the sources that some stage trains on."""
    return {
        name if entry.source == "auto" else entry.source
        for stage in config.stages
        for name, entry in stage.mixture.items()
    }


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


def _item(record: Record, wording: Wording, name: str, direction: tuple[str, str] | None) -> Item:
    example = render(record, wording, source=name, training=False, direction=direction)
    if isinstance(record, Question):
        return Item(record.id, record.language, example.prompt, record.answers, record.context)
    return Item(
        str(record.index), direction[1], example.prompt, example.answer_texts, record.texts[direction[0]]
    )
