"""Entries of `eval.tasks` that name a task file, to tasks: one for each prompt that is asked."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from jaxlingua.config import Config
from jaxlingua.data.readers import sha256_of
from jaxlingua.data.records import RecordSource
from jaxlingua.data.wordings import Wording, load_wording
from jaxlingua.eval.in_context.build import published_in_context
from jaxlingua.eval.in_context.form import Form
from jaxlingua.eval.tasks.asked import Asked, slot_names
from jaxlingua.eval.tasks.entry import Entry, Found, find_files, parse_entry
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.eval.tasks.library import read_prompts, read_task_file
from jaxlingua.eval.tasks.prompts import (
    LANGUAGE_SLOTS,
    as_trained,
    ask,
    check_prompt,
    choice_texts,
    chosen_prompts,
    language_name,
    own_shape,
    unfilled,
    words_of,
)
from jaxlingua.eval.tasks.read import read_asked
from jaxlingua.eval.tasks.sampling import sample
from jaxlingua.eval.tasks.schema import SLOT, Prompt, PromptSet, TaskFile


def published_tasks(
    text: str, config: Config, sources: Mapping[str, RecordSource] = MappingProxyType({})
) -> list[Task]:
    """The tasks of one entry, in the order of `eval.prompts`.

    Args:
        sources: those of the configuration, one of which eval.in_context.parallel may be.
    Raises: ConfigError or DataError, one line, for a task file, prompts, languages or files that cannot be
        used.
    """
    name = text.partition(".")[0]
    task = read_task_file(name, config.eval.task_folder)
    entry = parse_entry(text, task)
    prompts = read_prompts(task, config.eval.task_folder, entry.where)
    prompt_file = "" if isinstance(task.prompts, PromptSet) else task.prompts or task.kind
    found = find_files(entry, config.eval.data_folder)
    asked_in = prompt_language(entry)
    wording = load_wording(config.data)
    prompts = as_trained(prompts, task.kind, prompt_file, wording, asked_in, _answer_language(entry))
    chosen = chosen_prompts(config.eval.prompts, prompts, asked_in, entry.where)
    for prompt_name, prompt in chosen:
        check_prompt(prompt_name, prompt, task.choices, _slots(task, found), entry.where)
    every, left_out, ids, why_left_out = read_asked(entry, found)
    asked = sample(every, config.eval.items, [each.id for each in every])
    files = list(dict.fromkeys(path for path, _ in found.files))
    fingerprint = sha256_of(files, entry.where)
    tasks, forms = [], []
    for prompt_name, prompt in chosen:
        framed_in = _frame_language(entry, prompt_name)
        shape = own_shape(task.kind, prompt_name, prompt_file, wording, framed_in)
        if shape:
            words = wording.names(shape, _question_language(entry), _answer_language(entry))
        else:
            words = _language_names(entry, prompts, prompt, prompt_name)
        if config.eval.in_context.is_on:
            names = _language_names(entry, prompts, prompt, prompt_name)
            forms.append(Form(prompt, names, wording, framed_in, shape, words, task))
        tasks.append(
            Task(
                name=text,
                kind=task.kind,
                source=name,
                language=_answer_language(entry),
                split=entry.split,
                template=config.data.template,
                items=tuple(_item(each, entry, prompt, shape, (wording, framed_in), words) for each in asked),
                records=tuple(each.record for each in asked),
                available=len(every),
                left_out=left_out,
                why_left_out=why_left_out,
                source_language=_question_language(entry),
                prompt=prompt_name,
                metrics=tuple(task.metrics),
                labels=tuple(task.values),
                max_new_tokens=None if task.max_new_tokens == "auto" else task.max_new_tokens,
                stop=tuple(task.stop),
                likelihood=task.likelihood,
                version=task.version,
                checked_on=task.checked_on,
                prompt_text=unfilled(prompt, shape, wording, framed_in),
                fingerprint=fingerprint,
                note="; ".join(filter(None, (ids, _note(config, prompts, asked_in)))),
                is_parallel=task.is_parallel and not ids,  # a note: they repeat, and items are numbered
                files=tuple(_told(path, config.eval.data_folder) for path in files),
            )
        )
    if config.eval.in_context.is_on:
        return published_in_context(entry, tasks, forms, asked, prompts, config, sources)
    return tasks


def _note(config: Config, prompts: PromptSet, language: str) -> str:
    is_without = "all" in config.eval.prompts and language not in prompts.native
    return f"no native prompt in {language}" if is_without else ""


def prompt_language(entry: Entry) -> str:
    """Language of the native prompts: of the question; of a translation the target, unless it is English."""
    source, target = entry.languages
    return source if entry.task.kind == "translation" and target == "eng_Latn" else target


def _question_language(entry: Entry) -> str:
    return entry.languages[0 if entry.task.kind == "translation" else 1]


def _answer_language(entry: Entry) -> str:
    return entry.task.answer_language or entry.languages[1 if entry.task.kind == "translation" else 0]


def _frame_language(entry: Entry, prompt_name: str) -> str:
    """Language of a localized frame: that of the answer, which of a choice is that of the prompt."""
    if entry.task.kind != "choice":
        return _answer_language(entry)
    return prompt_language(entry) if prompt_name.startswith("native") else "eng_Latn"


def _slots(task: TaskFile, found: Found) -> list[str]:
    """Of translation, `pivot` has gone into `text`."""
    names = slot_names(found)
    return [name for name in names if name != "pivot"] if task.kind == "translation" else names


def _language_names(entry: Entry, prompts: PromptSet, prompt: Prompt, prompt_name: str) -> dict[str, str]:
    """The names of languages that a prompt has slots for, in its own language."""
    language = prompt_language(entry) if prompt_name.startswith("native") else "eng_Latn"
    named = {"source_language": _question_language(entry), "target_language": _answer_language(entry)}
    texts = [prompt.instruction, prompt.input, *prompt.choices.values()]
    used = {match[1] for text in texts for match in SLOT.finditer(text)}
    return {
        slot: language_name(named[slot], language, prompts, entry.where)
        for slot in LANGUAGE_SLOTS
        if slot in used
    }


def _item(
    asked: Asked,
    entry: Entry,
    prompt: Prompt,
    shape: str,
    frame: tuple[Wording, str],
    language_names: dict[str, str],
) -> Item:
    slots = asked.slots | language_names | words_of(asked, prompt)
    return Item(
        id=asked.id,
        language=_answer_language(entry),
        prompt=ask(prompt, shape, *frame, slots),
        targets=asked.targets,
        source_text=asked.source_text,
        choices=choice_texts(entry.task, prompt, slots) if entry.task.labels else (),
        fields=tuple(asked.slots.items()),
    )


def _told(path: Path, folder: str) -> str:
    """A path as it is told: relative to the data folder, so that it is the same on every machine."""
    home = Path(folder).absolute()
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)
