"""Tasks with what their items can be shown with: the hook of eval/tasks, which reads no model.

Prompts are made in `complete.py`, once the model that answers is there.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from jaxlingua.config import Config
from jaxlingua.data.records import RecordSource
from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.context import Context
from jaxlingua.eval.in_context.form import Form
from jaxlingua.eval.in_context.parallel import sentence_pairs
from jaxlingua.eval.in_context.pool import check_fields, published_pool, source_pool
from jaxlingua.eval.tasks.asked import Asked
from jaxlingua.eval.tasks.entry import Entry
from jaxlingua.eval.tasks.item import Task
from jaxlingua.eval.tasks.prompts import choice_texts
from jaxlingua.eval.tasks.schema import SLOT, PromptSet, TaskFile


def published_in_context(
    entry: Entry,
    tasks: Sequence[Task],
    forms: Sequence[Form],
    asked: Sequence[Asked],
    prompts: PromptSet,
    config: Config,
    sources: Mapping[str, RecordSource],
) -> list[Task]:
    """The tasks of one entry, each with its context.

    Args:
        forms: the prompt of each task.
        asked: the records of the items.
    Raises: ConfigError or DataError, one line, for what the entry cannot be shown with.
    """
    wanted, language = config.eval.in_context, tasks[0].source_language
    where = f"eval.in_context: '{entry.text}'"
    if wanted.has_context and entry.task.kind == "open":
        raise ConfigError(
            f"{where} is kind open, whose answers nobody knows; exemplars need answers; leave the task out"
        )
    pool = published_pool(entry, config, is_parallel=tasks[0].is_parallel)
    pairs = _pairs(config, sources, language, entry.text)
    found = []
    for task, form in zip(tasks, forms, strict=True):
        labels: tuple[tuple[str, str], ...] = ()
        if wanted.label_language == "target":
            native = native_labels(entry.task, prompts, language, where)
            if wanted.align in ("label", "both"):
                is_native = task.prompt.startswith("native")
                source = choice_texts(entry.task, prompts.english[0] if is_native else form.prompt, {})
                labels = tuple(zip(source, native.values(), strict=True))
            form = dataclasses.replace(form, prompt=form.prompt.model_copy(update={"choices": native}))
        check_fields(pool, form.fields)
        context = Context(
            task.key, task.kind, language, form, tuple(asked), pool, pairs, labels, wanted, config.run.seed
        )
        found.append(_with_context(task, context))
    return found


def source_in_context(
    task: Task,
    source: RecordSource,
    form: Form,
    asked: Sequence[Asked],
    config: Config,
    sources: Mapping[str, RecordSource],
) -> Task:
    """The task of a source with its context."""
    wanted, language = config.eval.in_context, task.source_language
    if wanted.label_language == "target":
        raise _no_labels(f"eval.in_context: '{task.name}'", f"of kind {task.kind}")
    direction = (language, task.language) if task.kind == "translation" else None
    pool = source_pool(source, direction, language, wanted)
    pairs = _pairs(config, sources, language, task.name)
    return _with_context(
        task,
        Context(task.key, task.kind, language, form, tuple(asked), pool, pairs, (), wanted, config.run.seed),
    )


def _with_context(task: Task, context: Context) -> Task:
    """The task with a context, which its signature tells; its prompts are still without."""
    context.check()
    return dataclasses.replace(
        task,
        context=context,
        arm=context.arm,
        stop=tuple(dict.fromkeys((*task.stop, *(context.stop if context.config.has_context else ())))),
        prompt_text=context.unfilled or task.prompt_text,
        note="; ".join(filter(None, (task.note, context.note))),
    )


def native_labels(task: TaskFile, prompts: PromptSet, language: str, where: str) -> dict[str, str]:
    """What the first native prompt with labels says for each label; in English what the first prompt does.

    Raises: ConfigError for a task without labels, one whose labels are texts of each item, and a language
        without native labels.
    """
    if task.kind != "choice":
        raise _no_labels(where, f"of kind {task.kind}")
    said = [*task.choices, *(text for each in prompts.english for text in each.choices.values())]
    if any(SLOT.search(text) for text in said):
        raise _no_labels(where, "whose labels are texts of each item, in its own language already")
    if language == "eng_Latn":
        return dict(zip(task.values, choice_texts(task, prompts.english[0], {}), strict=True))
    with_labels = {
        code: prompt.choices
        for code, of_language in prompts.native.items()
        for prompt in reversed(of_language)
        if task.values.keys() <= prompt.choices.keys()
    }
    if language not in with_labels:
        has = ", ".join(with_labels) or "no language"
        raise ConfigError(
            f"{where} has no labels in {language}; {has} has; ask these, or leave target labels and label "
            f"alignment out"
        )
    return {label: with_labels[language][label] for label in task.values}


def _no_labels(where: str, what: str) -> ConfigError:
    return ConfigError(
        f"{where} given with target labels, {what}; only choices among named labels have them; leave the "
        f"task out, or labels=target and label alignment"
    )


def _pairs(
    config: Config, sources: Mapping[str, RecordSource], language: str, name: str
) -> tuple[tuple[str, str], ...]:
    asked = config.eval.in_context
    if language == asked.source_language and (asked.align != "none" or asked.exemplars == "pivot"):
        given = f"align={asked.align}" if asked.align != "none" else "exemplars=pivot"
        raise ConfigError(
            f"eval.in_context.{given} given; the items of '{name}' are in source_language={language} "
            f"themselves; another language is needed; leave the task out, or change source_language"
        )
    return sentence_pairs(config, sources, language) if asked.needs_parallel else ()
