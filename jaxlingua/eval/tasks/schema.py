"""What a task file and a file of prompts may say: adding a task needs a YAML file and no code.

A task is files/<name>.yaml of this package, or <name>.yaml in `eval.task_folder`. A complete one:

    about: Extractive questions on 240 paragraphs of Wikipedia, translated by professionals.
    citation: Artetxe, Ruder and Yogatama 2020, arXiv:1910.11856
    license: CC BY-SA 4.0
    version: 1                          # raise it when other items or other answers are asked for
    checked_on: real files              # or: made-up files
    kind: qa                            # qa, translation, choice, number or open
    splits: [test, dev]                 # the first is asked unless an entry says NAME.dev.LANGUAGE
    languages: {eng_Latn: en, zho_Hans: zh}     # our code: the benchmark's; or: same
    data:                               # layouts; the first that has the files of an entry is read
    - format: squad                     # squad, jsonl, json, csv, tsv or lines
      files: {test: "xquad/xquad.{code}.json", dev: ["xquad/dev.{code}.json", "dev.{code}.json"]}
    is_parallel: true                   # an id names the same question in every language
    prompts: qa                         # prompts/qa.yaml, which is what the kind has anyway
    metrics: [exact_match, f1]          # none: those of the kind
    max_new_tokens: 32
    stop: ["\\n"]

Fields of a layout (`fields: {name: column}`) are read from a record and are slots of the prompts under
their own names. Some have a meaning: `id`; `context`, `question` and `answers` of kind qa; `text`, and
`pivot` in files of pairs, of kind translation; `label` of kind choice; `answer` of kind number. A column is
a name, a path such as instances.0.input, of a table without header a number from 1, of lines always `line`.

Slots in names of files, in columns and in values of `rows`:
    {code}            the benchmark's code of the language; in files of pairs, of the one that is no pivot
    {other}           the benchmark's code of the pivot
    {side}            of the one of both languages whose text is read: its text has a file of its own
    {question_code}   of the language of the question, where context and question differ

A file of prompts is prompts/<name>.yaml of this package or of `eval.task_folder`:

    english:                            # english.0, english.1 …
    - instruction: "Answer the question with words taken from the context."
      input: "Context: {context}\\nQuestion: {question}"
    native:                             # native.0 …, by language
      zho_Hans:
      - {instruction: "请用文中的词语回答问题。", input: "{context}\\n{question}"}

Slots of a prompt are the fields of the task, {source_language} and {target_language} (names of languages, in
the language of the prompt), and `words`. They are filled in one pass, so braces in data mean nothing.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from jaxlingua.config import STRICT, LanguageCode, Text
from jaxlingua.config.fields import Positive
from jaxlingua.errors import ConfigError, nearest
from jaxlingua.eval.tasks.item import Kind
from jaxlingua.languages import check_language

Format = Literal["squad", "jsonl", "json", "csv", "tsv", "lines"]
Likelihood = Literal["label", "per_token", "per_character", "whole_sequence", "constrained"]
FileValue = int | str | list[int | str]

FILE_SLOTS = ("code", "other", "side", "question_code")
# What a record must have, beside the slots of the prompts.
NEEDED_FIELDS = {
    "qa": ("question", "answers"),
    "translation": ("text",),
    "choice": ("label",),
    "number": ("question", "answer"),
    "open": (),
}
SQUAD_FIELDS = {name: name for name in ("id", "context", "question", "answers")}
SLOT = re.compile(r"\{(\w+)(?:\|(\w+))?\}")


def given(description: str, default: Any = ..., **limits: Any) -> Any:
    """A key of a task file, with the sentence that tells what it is."""
    return Field(default, description=description, **limits)


class Layout(BaseModel):
    """One way in which the files of a benchmark lie on the disk."""

    model_config = STRICT
    format: Format = given("squad, jsonl, json, csv (with header), tsv (quotes are text) or lines.")
    files: dict[str, Text | list[Text]] = given(
        "Of each split the name of its file in eval.data_folder, or names, of which the first there is read.",
        min_length=1,
    )
    fields: dict[str, Text] = given("Name of each field that is read, and its column.", {})
    rows: dict[str, Text] = given("Columns and the values that a row must have in them to be read.", {})
    pivot: LanguageCode | Literal[""] = given(
        "Language that all pairs have in common, where there is a file per pair; field `pivot` has its text.",
        "",
    )

    @property
    def columns(self) -> dict[str, str]:
        """Fields and their columns, with those that the format itself has."""
        if self.format == "squad":
            return SQUAD_FIELDS | self.fields
        return self.fields or ({"text": "line"} if self.format == "lines" else {})

    def names(self, split: str) -> list[str]:
        """Names of the file of a split, the first of which that is there is read."""
        names = self.files.get(split, [])
        return [names] if isinstance(names, str) else names


class Prompt(BaseModel):
    """One wording; the frame of data.template goes around it."""

    model_config = STRICT
    instruction: Text = given("What is to be done.")
    input: Text = given("What it is to be done with; empty for nothing.", "")
    choices: dict[str, Text] = given(
        "Of kind choice: what is said for each label; a label that is not here is said as the task says it.",
        {},
    )
    words: dict[str, dict[str, dict[str, Text]]] = given(
        "Slots whose text goes by the value of a field: {connective: {question: {cause: because}}}.", {}
    )


class PromptSet(BaseModel):
    """All wordings of a kind of task."""

    model_config = STRICT
    about: Text = given("One sentence on the wordings.", "")
    english: list[Prompt] = given("Prompts in English: english.0, english.1 …", min_length=1)
    native: dict[LanguageCode, list[Prompt]] = given("Prompts in each language: native.0 …", {})
    names: dict[LanguageCode, dict[LanguageCode, Text]] = given(
        "Names of languages in native prompts: language of the prompt, language that is named, its name. "
        "The others are those of Unicode CLDR.",
        {},
    )

    @model_validator(mode="after")
    def _languages_are_known(self) -> "PromptSet":
        for key, of_key in (("native", self.native), ("names", self.names)):
            for language in of_key:
                check_language(language, key)
        for language, named in self.names.items():
            for other in named:
                check_language(other, f"names.{language}")
        if empty := [language for language, prompts in self.native.items() if not prompts]:
            raise ConfigError(f"native.{empty[0]}: no prompt given; one or more is needed; leave it out")
        return self


class TaskFile(BaseModel):
    """Everything about one task."""

    model_config = STRICT
    about: Text = given("One sentence on what is asked.")
    citation: Text = given("Who made it: the paper or the address.")
    license: Text = given("License of the data.")
    version: Positive = given("A number from 1, raised when other items or other answers are asked for.")
    checked_on: Literal["real files", "made-up files"] = given(
        "Which files the tests read: the published ones, or a few made-up records in their format."
    )
    kind: Kind = given("How it is answered: qa, translation, choice, number or open.")
    splits: list[Text] = given("The split that is asked, then others that can be.", min_length=1)
    languages: Literal["same"] | dict[LanguageCode, Text] = given(
        "Our code of each language and the benchmark's; same where it has ours."
    )
    data: list[Layout] = given("Layouts; the first that has the files of an entry is read.", min_length=1)
    prompts: Text | PromptSet = given(
        "Name of a file of prompts, or the prompts themselves; empty for those of the kind.", ""
    )
    labels: list[Text] | dict[str, FileValue] = given(
        "Of kind choice: the classes, and what the file says for each (a value or several).", []
    )
    choices: list[Text] = given(
        "Of kind choice: what is said for each label, such as '{choice1}'; none: the prompt's, or the label.",
        [],
    )
    answer_language: LanguageCode | Literal[""] = given(
        "Language of all answers, where it is not that of the entry.", ""
    )
    is_parallel: bool = given(
        "Of kind qa, choice and number: whether an id, or without ids a place in the file, is that of "
        "the same question in all languages. Of kind qa, NAME.CONTEXT-QUESTION can be asked then.",
        False,
    )
    metrics: list[Text] = given("Names of metrics; none: those of the kind.", [])
    max_new_tokens: Annotated[int, Field(gt=0)] | Literal["auto"] = given(
        "Longest answer in tokens; auto is generate.max_new_tokens.", "auto"
    )
    stop: list[Annotated[str, Field(min_length=1)]] = given("Texts that end an answer.", [])
    likelihood: Likelihood = given("Of kind choice: how it is made, see eval.choice_by.", "label")

    @property
    def values(self) -> dict[str, list[str]]:
        """Labels, and what the file says for each."""
        labels = self.labels if isinstance(self.labels, dict) else {label: label for label in self.labels}
        return {
            label: [str(one) for one in (value if isinstance(value, list) else [value])]
            for label, value in labels.items()
        }

    @model_validator(mode="after")
    def _keys_agree(self) -> "TaskFile":
        _check_languages(self)
        _check_kind(self)
        for number, layout in enumerate(self.data):
            _check_layout(self, layout, f"data[{number}]")
        for split in self.splits:
            if not any(split in layout.files for layout in self.data):
                raise ConfigError(f"splits: '{split}' given, which no layout has files of; add it to data")
        return self


def _check_languages(task: TaskFile) -> None:
    named = [] if task.languages == "same" else list(task.languages)
    for language in named:
        check_language(language, "languages")
    if task.answer_language:
        check_language(task.answer_language, "answer_language")


def _check_kind(task: TaskFile) -> None:
    """What only one kind of task has."""
    for key, kinds in (
        ("labels", ("choice",)),
        ("choices", ("choice",)),
        ("answer_language", ("qa",)),
        ("is_parallel", ("qa", "choice", "number")),
    ):
        if getattr(task, key) and task.kind not in kinds:
            raise ConfigError(
                f"{key}: given for kind={task.kind}; only kind={'|'.join(kinds)} has it; leave it out"
            )
    if task.kind != "choice":
        return
    if len(task.values) < 2:
        raise ConfigError(f"labels: {len(task.values)} given; a choice has two or more; name them")
    if task.choices and len(task.choices) != len(task.values):
        raise ConfigError(
            f"choices: {len(task.choices)} given for {len(task.values)} labels; each label has one; mend them"
        )
    said = [value for values in task.values.values() for value in values]
    if repeated := [value for value in said if said.count(value) > 1]:
        raise ConfigError(f"labels: value '{repeated[0]}' given twice; each is of one label; mend them")


def _check_layout(task: TaskFile, layout: Layout, where: str) -> None:
    """Splits are those of the task, slots are known, needed fields are there."""
    for split in layout.files:
        if split not in task.splits:
            raise ConfigError(f"{where}.files: split '{split}' given; {nearest(split, task.splits)}")
    texts = [name for split in layout.files for name in layout.names(split)]
    for text in [*texts, *layout.fields.values(), *layout.rows.values()]:
        check_slots(text, FILE_SLOTS, where)
    needed = [*NEEDED_FIELDS[task.kind]]
    if layout.pivot:
        check_language(layout.pivot, f"{where}.pivot")
        if task.kind != "translation":
            raise ConfigError(f"{where}.pivot: given for kind={task.kind}; only translation has pairs")
        if not any("{side}" in text for text in texts):
            needed.append("pivot")
    for name in needed:
        if name not in layout.columns:
            raise ConfigError(
                f"{where}.fields: no '{name}' given; kind={task.kind} needs it; name its column"
            )


def check_slots(text: str, known: Iterable[str], where: str) -> None:
    """Refuse a slot that nothing fills. Raises: ConfigError naming the nearest one."""
    for match in SLOT.finditer(text):
        if match[1] not in known:
            raise ConfigError(f"{where}: unknown slot '{{{match[1]}}}'; {nearest(match[1], [*known])}")
