"""Entries of `eval.tasks` that name a task file, to tasks: one for each prompt that is asked."""

from pathlib import Path

from jaxlingua.config import Config
from jaxlingua.data.readers import cut, listed, sha256_of
from jaxlingua.data.wordings import Wording, load_wording
from jaxlingua.errors import DataError
from jaxlingua.eval.tasks.asked import Asked, slot_names
from jaxlingua.eval.tasks.entry import Entry, Found, find_files, parse_entry
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.eval.tasks.library import read_prompts, read_task_file
from jaxlingua.eval.tasks.prompts import (
    LANGUAGE_SLOTS,
    as_trained,
    ask,
    check_prompt,
    chosen_prompts,
    fill,
    language_name,
    own_shape,
    unfilled,
)
from jaxlingua.eval.tasks.read import read_asked
from jaxlingua.eval.tasks.sampling import sample
from jaxlingua.eval.tasks.schema import SLOT, Prompt, PromptSet, TaskFile


def published_tasks(text: str, config: Config) -> list[Task]:
    """The tasks of one entry, in the order of `eval.prompts`.

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
    every, left_out, ids = read_asked(entry, found)
    asked = sample(every, config.eval.items, [each.id for each in every])
    files = list(dict.fromkeys(path for path, _ in found.files))
    fingerprint = sha256_of(files, entry.where)
    tasks = []
    for prompt_name, prompt in chosen:
        framed_in = _frame_language(entry, prompt_name)
        shape = own_shape(task.kind, prompt_name, prompt_file, wording, framed_in)
        if shape:
            words = wording.names(shape, _question_language(entry), _answer_language(entry))
        else:
            words = _language_names(entry, prompts, prompt, prompt_name)
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
    slots = asked.slots | language_names | (_words(asked, prompt) if prompt.words else {})
    return Item(
        id=asked.id,
        language=_answer_language(entry),
        prompt=ask(prompt, shape, *frame, slots),
        targets=asked.targets,
        source_text=asked.source_text,
        choices=_choices(entry.task, prompt, slots) if entry.task.labels else (),
        fields=tuple(asked.slots.items()),
    )


def _words(asked: Asked, prompt: Prompt) -> dict[str, str]:
    """Slots whose text goes by the value of a field."""
    words = {}
    for slot, of_field in prompt.words.items():
        for field, texts in of_field.items():
            value = asked.slots[field]
            if value not in texts:
                raise DataError(
                    f"{asked.place}: {field} '{cut(value)}' given, which the prompt has no {slot} for; "
                    f"{listed(texts)} are known; mend the record, or `words` of the prompt"
                )
            words[slot] = texts[value]
    return words


def _choices(task: TaskFile, prompt: Prompt, slots: dict[str, str]) -> tuple[str, ...]:
    """What may follow the prompt, by label: as the prompt says it, as the task does, or the label itself."""
    texts = dict(zip(task.values, task.choices, strict=True)) if task.choices else {}
    texts |= prompt.choices
    return tuple(fill(texts[label], slots) if label in texts else label for label in task.values)


def _told(path: Path, folder: str) -> str:
    """A path as it is told: relative to the data folder, so that it is the same on every machine."""
    home = Path(folder).absolute()
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)
