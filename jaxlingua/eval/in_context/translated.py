"""Translate-test: items are translated into eval.in_context.source_language, in which they are asked then.

    RUN/translations/<hash>/answers.jsonl       what a model answered to each part of a text, by its prompt
    RUN/translations/<hash>/unfinished.jsonl    answers so far, while it goes on

The hash is of the model, the direction, its wording and the decoding. Nothing is translated twice in a run
folder, whichever model answers the items.
"""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxlingua.config import Config
from jaxlingua.data.wordings import Wording, load_wording
from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.context import Context
from jaxlingua.eval.in_context.form import Form
from jaxlingua.eval.journal import Journal, is_whole
from jaxlingua.eval.tasks.item import Task
from jaxlingua.eval.tasks.prompts import LANGUAGE_SLOTS
from jaxlingua.eval.tasks.schema import SLOT
from jaxlingua.eval.translate.asking import Asking, Model, Telling
from jaxlingua.eval.translate.command import translation_prompt
from jaxlingua.eval.translate.fields import EMPTY, Field, translate_texts
from jaxlingua.generate import journal
from jaxlingua.generate.decoding import decoding_of
from jaxlingua.languages import display_name

ANSWERS = "answers.jsonl"
_KINDS = ("choice", "number")  # their answers need no way back into the language of the item


def check_translatable(tasks: Sequence[Task], config: Config) -> None:
    """Refuse tasks that mean nothing in another language. Raises: ConfigError."""
    language = config.eval.in_context.source_language
    for task in tasks:
        if task.kind not in _KINDS:
            raise ConfigError(
                f"eval.in_context.translate_test: '{task.name}' is kind {task.kind}, whose answers would be "
                f"in {language}; {' and '.join(_KINDS)} are allowed; leave the task out"
            )
        if task.prompt.startswith("native") and task.source_language != language:
            raise ConfigError(
                f"eval.in_context.translate_test: '{task.key}' has a prompt in {task.source_language}, and "
                f"its items are asked in {language}; set eval.prompts=[english]"
            )


def translated_tasks(
    tasks: Sequence[Task],
    config: Config,
    data: Any,
    model: Model,
    mesh: Mesh,
    folder: Path,
    *,
    say: Callable[[str], None],
    telling: Telling,
    at_boundary: Callable[[], None] = lambda: None,
) -> list[Task]:
    """The tasks with their texts in eval.in_context.source_language; ids, targets and order as they were.

    A text that comes back empty stays as it is; the note of the task counts these.

    Args:
        data: of the configuration that the model was trained with: the wording that it knows.
        model: its weights are read for the first part that the folder lacks.
        folder: of the run.
        at_boundary: called after each answer; raises where all processes are to stop.
    """
    target = config.eval.in_context.source_language
    wording = load_wording(data)
    found: dict[str, dict[str, Field]] = {}
    for language in dict.fromkeys(task.source_language for task in tasks):
        if language != target:
            texts = [
                each.slots[name]
                for task in tasks
                if task.source_language == language
                for each in task.context.asked
                for name in _shown(task.context.form)
            ]
            direction = (language, target)
            with _asking(config, wording, direction, model, mesh, folder, say, telling, at_boundary) as ask:
                found[language] = translate_texts(texts, ask, direction)
    name = config.eval.in_context.translate_test
    return [
        _translated(task, found[task.source_language], target, name)
        if task.source_language in found
        else task
        for task in tasks
    ]


@contextmanager
def _asking(
    config: Config,
    wording: Wording,
    direction: tuple[str, str],
    model: Model,
    mesh: Mesh,
    folder: Path,
    say: Callable[[str], None],
    telling: Telling,
    at_boundary: Callable[[], None],
) -> Iterator[Asking]:
    """Gives the reply to each part, from the folder where it is there; all of them are there afterwards."""
    decoding = (decoding_of(config).signature, config.generate.max_new_tokens, config.generate.stop)
    of_model = (model.source, model.tokenizer.fingerprint, config.model.compute_dtype, wording.fingerprint)
    name = hashlib.sha256(json.dumps([of_model, direction, decoding]).encode()).hexdigest()[:16]
    home = folder / "translations" / name

    def read() -> dict[str, journal.Fields]:
        files = [file for file in (home / ANSWERS, home / journal.JOURNAL) if file.is_file()]
        return {
            line.pop("asked"): line
            for file in files
            for line in journal.read_answers(file, is_whole, is_journal=file.name == journal.JOURNAL, say=say)
            if "asked" in line
        }

    def prompt(part: str) -> str:
        return translation_prompt(part, wording, direction)

    with journal.opened_journal(home / journal.JOURNAL, name, read) as answers:
        before = len(answers.known)
        yield Asking(prompt, config, model, mesh, Journal(answers), telling, at_boundary)
        if jax.process_index() == 0 and len(answers.known) > before:
            partial = home / f".{ANSWERS}.partial"
            lines = [json.dumps({"asked": key, **fields}) + "\n" for key, fields in answers.known.items()]
            partial.write_text("".join(lines), encoding="utf-8", newline="\n")
            os.replace(partial, home / ANSWERS)


def _shown(form: Form) -> list[str]:
    """Fields whose texts a model reads, in the prompt or as a choice; not those that choose words of it."""
    choices = [*form.prompt.choices.values(), *(form.task.choices if form.task else ())]
    slots = [*form.fields, *(match[1] for text in choices for match in SLOT.finditer(text))]
    words = {field for of_field in form.prompt.words.values() for field in of_field}
    others = {*LANGUAGE_SLOTS, *form.prompt.words, *words}
    return [slot for slot in dict.fromkeys(slots) if slot not in others]


def _translated(task: Task, fields: Mapping[str, Field], language: str, model: str) -> Task:
    context: Context = task.context
    names, form = _shown(context.form), context.form
    texts = {each.slots[name] for each in context.asked for name in names}
    became = {text: text if EMPTY in fields[text].problems else fields[text].text for text in texts}
    asked = tuple(
        dataclasses.replace(each, slots=each.slots | {name: became[each.slots[name]] for name in names})
        for each in context.asked
    )
    form = dataclasses.replace(
        form,
        names={slot: display_name(language) for slot in form.names},
        framed_in=form.framed_in if task.kind == "choice" else language,
    )
    now = dataclasses.replace(context, asked=asked, form=form, language=language)
    now.check()
    items = tuple(
        dataclasses.replace(item, prompt=form.plain(each), choices=shown.choices)
        for item, each, shown in zip(task.items, asked, now.items, strict=True)
    )
    problems = Counter(problem for text in texts for problem in fields[text].problems)
    told = ", ".join(f"{what} {count:,}" for what, count in sorted(problems.items()))
    notes = [task.note.removesuffix(context.note).removesuffix("; "), now.note]
    notes.append(f"{len(texts):,} texts translated by {model}" + (f" ({told})" if told else ""))
    return dataclasses.replace(task, items=items, context=now, note="; ".join(filter(None, notes)))
