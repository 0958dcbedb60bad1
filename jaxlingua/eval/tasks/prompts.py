"""Prompts of task files: which are asked, and how their slots are filled."""

from collections.abc import Iterable, Mapping

from jaxlingua.data.readers import cut, listed
from jaxlingua.data.templates import framed
from jaxlingua.data.wordings import Wording, name_in
from jaxlingua.errors import ConfigError, DataError, nearest
from jaxlingua.eval.tasks.asked import Asked
from jaxlingua.eval.tasks.item import FIRST_PROMPT
from jaxlingua.eval.tasks.schema import SLOT, Prompt, PromptSet, TaskFile
from jaxlingua.languages import display_name

ENDS = ".。．।۔።"  # what ends a statement
MODIFIERS = {
    "lower_first": lambda text: text[:1].lower() + text[1:],
    "no_period": lambda text: text.rstrip().rstrip(ENDS),
}
LANGUAGE_SLOTS = ("source_language", "target_language")


def chosen_prompts(
    asked: Iterable[str], prompts: PromptSet, language: str, where: str
) -> list[tuple[str, Prompt]]:
    """Names and wordings of `eval.prompts`, each once; of `all`, the native ones where there are any.

    Raises: ConfigError for a name that is none, or native prompts of a language without.
    """
    groups = {"english": prompts.english, "native": prompts.native.get(language, [])}
    chosen: dict[str, Prompt] = {}
    for name in asked:
        group, dot, number = name.partition(".")
        if name != "all" and (group not in groups or (dot and not number.isdecimal())):
            known = "english, native, all, english.0, native.0 … are allowed"
            raise ConfigError(f"eval.prompts: '{name}' given; {known}; mend it")
        if group == "native" and not groups["native"]:
            has = ", ".join(prompts.native) or "no language"
            raise ConfigError(
                f"eval.prompts: '{name}' given; {where} has no prompt in {language}; {has} has; "
                f"ask it in english, or in all that there are"
            )
        if dot and int(number) >= len(groups[group]):
            raise ConfigError(
                f"eval.prompts: '{name}' given; {where} has {group}.0 to {group}.{len(groups[group]) - 1}; "
                f"choose one"
            )
        for each in groups if name == "all" else [group]:
            for index, prompt in enumerate(groups[each]):
                if not dot or index == int(number):
                    chosen[f"{each}.{index}"] = prompt
    return list(chosen.items())


def check_prompt(name: str, prompt: Prompt, choices: Iterable[str], slots: Iterable[str], where: str) -> None:
    """Refuse slots and modifiers that there are not.

    Args:
        choices: further texts with slots.
        slots: fields of the task that may be asked about.
    """
    fields = list(slots)
    for slot, of_field in prompt.words.items():
        for field in of_field:
            if field not in fields or len(of_field) > 1:
                raise ConfigError(
                    f"{where}: {name}: words.{slot}: {', '.join(of_field)} given; it goes by one field; "
                    f"{nearest(field, fields)}"
                )
    known = [*fields, *LANGUAGE_SLOTS, *prompt.words]
    for text in (prompt.instruction, prompt.input, *prompt.choices.values(), *choices):
        for match in SLOT.finditer(text):
            if match[1] not in known:
                raise ConfigError(f"{where}: {name}: unknown slot '{match[0]}'; {nearest(match[1], known)}")
            if match[2] and match[2] not in MODIFIERS:
                hint = nearest(match[2], [*MODIFIERS])
                raise ConfigError(f"{where}: {name}: unknown '|{match[2]}' in '{match[0]}'; {hint}")


def fill(text: str, slots: Mapping[str, str]) -> str:
    """`text` with its slots filled in one pass: what is filled in is not looked at again.

    Example:
        >>> fill("{a}; {b|no_period}!", {"a": "a {b}", "b": "B."})
        'a {b}; B!'
    """
    return SLOT.sub(lambda match: MODIFIERS.get(match[2], str)(slots[match[1]]), text)


def as_trained(
    prompts: PromptSet, kind: str, prompt_file: str, wording: Wording, asked_in: str, answer_language: str
) -> PromptSet:
    """`prompts` with the wording that translation and questions are trained with, a user's too, as the first.

    That is english.0, and native.0 where frames are localized and the prompt is in the answer's language.
    """
    if prompt_file != kind or kind not in TRAINED:
        return prompts
    english = [TRAINED[kind](wording, "eng_Latn"), *prompts.english[1:]]
    native, names = prompts.native, prompts.names
    if wording.frames == "localized" and asked_in == answer_language != "eng_Latn":
        native = native | {asked_in: [TRAINED[kind](wording, asked_in), *native.get(asked_in, [])[1:]]}
        names = names | {asked_in: {**names.get(asked_in, {}), **wording.own_names(asked_in)}}
    return prompts.model_copy(update={"english": english, "native": native, "names": names})


def _trained_translation(wording: Wording, language: str) -> Prompt:
    return Prompt(instruction=wording.translation(language)[0], input="{text}")


def _trained_question(wording: Wording, language: str) -> Prompt:
    return Prompt(**wording.qa(language))


# The prompt that the wording of training makes of each kind, for answers in a language.
TRAINED = {"translation": _trained_translation, "qa": _trained_question}


def own_shape(kind: str, name: str, prompt_file: str, wording: Wording, language: str) -> str:
    """The shape that a template has of its own for a kind of task, "" where it has none.

    It stands for the first prompt, since a model that was trained with the template knows no other.
    """
    if name != FIRST_PROMPT or prompt_file != kind:
        return ""
    return wording.frames_of(language).get(kind, "")


def words_of(asked: Asked, prompt: Prompt) -> dict[str, str]:
    """Slots whose text goes by the value of a field. Raises: DataError for a value without a text."""
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


def choice_texts(task: TaskFile, prompt: Prompt, slots: Mapping[str, str]) -> tuple[str, ...]:
    """What may follow the prompt, by label: as the prompt says it, as the task does, or the label itself."""
    texts = dict(zip(task.values, task.choices, strict=True)) if task.choices else {}
    texts |= prompt.choices
    return tuple(fill(texts[label], slots) if label in texts else label for label in task.values)


def ask(prompt: Prompt, shape: str, wording: Wording, language: str, slots: Mapping[str, str]) -> str:
    """All that the model reads.

    Args:
        language: that of the frame.
    """
    if shape:
        return fill(shape, {**slots, "input": slots.get("text", "")})
    return framed(wording, fill(prompt.instruction, slots), fill(prompt.input, slots), language)


def unfilled(prompt: Prompt, shape: str, wording: Wording, language: str) -> str:
    """The prompt with its slots as they are named, for reports."""
    return shape or framed(wording, prompt.instruction, prompt.input, language)


def language_name(language: str, prompt_language: str, prompts: PromptSet, where: str) -> str:
    """Name of a language in that of the prompt. Raises: ConfigError where nothing knows it."""
    if prompt_language == "eng_Latn":
        return display_name(language)
    named = prompts.names.get(prompt_language, {}).get(language)
    if named:
        return named
    found = name_in(language, prompt_language)
    if not found:
        raise ConfigError(
            f"{where}: no name of {language} in {prompt_language} is known, which a native prompt needs; "
            f"add it to names.{prompt_language} of the prompts, or ask in english"
        )
    return found
