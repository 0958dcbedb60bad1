"""What task files and files of prompts may say, and that those that come with jaxlingua say nothing else."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxlingua.command_line import check_map, parse_yaml
from jaxlingua.config import Config, task_files
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import ConfigError
from jaxlingua.eval.tasks import schema
from jaxlingua.eval.tasks.asked import SECRET
from jaxlingua.eval.tasks.library import PROMPTS, read_prompts, read_task_file
from jaxlingua.eval.tasks.prompts import check_prompt
from jaxlingua.eval.tasks.schema import PromptSet, TaskFile

NAMES = sorted(task_files(""))
GIVEN = {
    "about": "Riddles.",
    "citation": "Nobody 2026",
    "license": "CC0",
    "version": 1,
    "checked_on": "made-up files",
    "kind": "choice",
    "splits": ["test"],
    "languages": {"eng_Latn": "en"},
    "labels": ["yes", "no"],
    "data": [{"format": "csv", "files": {"test": "riddles.csv"}, "fields": {"text": "text", "label": "label"}}],
}  # fmt: skip
QUESTIONS = {"kind": "qa", "labels": [], "data": [{"format": "squad", "files": {"test": "{code}.json"}}]}


def first_layout(**changed: object) -> dict:
    return {"data": [GIVEN["data"][0] | changed]}


REFUSED = [
    ({"lables": ["a", "b"]}, "unknown key 'lables'; did you mean 'labels'?"),
    (first_layout(file={"test": "x"}), r"data\[0\]: unknown key 'file'; did you mean 'files'?"),
    ({"prompts": {"english": [{"instrution": "x"}]}}, "unknown key 'instrution'; did you mean 'instruction'?"),
    ({"kind": "quiz"}, r"kind: 'quiz' given; qa\|translation\|choice\|number\|open is allowed; How it is"),
    ({"languages": {"eng": "en"}}, "languages: unknown language 'eng'; write 'eng_Latn'"),
    ({"labels": ["yes"]}, "labels: 1 given; a choice has two or more; name them"),
    ({"labels": {"yes": [1, 2], "no": 2}}, "labels: value '2' given twice; each is of one label"),
    ({"choices": ["{text}"]}, "choices: 1 given for 2 labels; each label has one"),
    ({"kind": "number"}, "labels: given for kind=number; only kind=choice has it; leave it out"),
    (
        {"kind": "open", "labels": [], "is_parallel": True},
        r"is_parallel: given for kind=open; only kind=qa\|choice\|number has it",
    ),
    ({"splits": ["tset"]}, r"data\[0\].files: split 'test' given; did you mean 'tset'?"),
    ({"splits": ["test", "dev"]}, "splits: 'dev' given, which no layout has files of; add it to data"),
    (first_layout(files={"test": "{cod}.csv"}), r"data\[0\]: unknown slot '{cod}'; did you mean 'code'?"),
    (first_layout(fields={"text": "text"}), r"data\[0\].fields: no 'label' given; kind=choice needs it"),
    (first_layout(pivot="eng_Latn"), r"data\[0\].pivot: given for kind=choice; only translation has pairs"),
    (QUESTIONS | {"answer_language": "english"}, "answer_language: unknown language 'english'; write"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "message"), REFUSED)
def test_a_task_file_that_says_something_else_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        check_map(TaskFile, GIVEN | changed, "riddles.yaml")


def test_a_task_file_that_says_just_this_is_read():
    task = check_map(TaskFile, GIVEN, "riddles.yaml")
    assert task.values == {"yes": ["yes"], "no": ["no"]}
    named = check_map(TaskFile, GIVEN | {"labels": {"yes": [1, "true"], "no": 0}}, "riddles.yaml")
    assert named.values == {"yes": ["1", "true"], "no": ["0"]}
    assert check_map(TaskFile, GIVEN | QUESTIONS, "riddles.yaml").data[0].columns["answers"] == "answers"


def test_the_examples_of_the_schema_can_be_read():
    task, prompts = (textwrap.dedent(block) for block in examples(schema.__doc__))
    xquad = check_map(TaskFile, parse_yaml(task, "example"), "example")
    assert xquad.data[0].names("dev") == ["xquad/dev.{code}.json", "dev.{code}.json"]
    assert "zho_Hans" in check_map(PromptSet, parse_yaml(prompts, "example"), "example").native


def examples(text: str) -> Iterator[str]:
    """The indented blocks of YAML in the docstring."""
    for block in text.split("\n\n"):
        if block.startswith("    about:") or block.startswith("    english:"):
            yield block


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"english": []}, r"english: \[\] given; list of maps \(1 or more\) is allowed"),
        ({"english": [{"instruction": "x"}], "native": {"deu": []}}, "native: unknown language 'deu'; write"),
        ({"english": [{"instruction": "x"}], "native": {"deu_Latn": []}}, "native.deu_Latn: no prompt given"),
        ({"english": [{"instruction": "x"}], "names": {"deu_Latn": {"eng": "E"}}}, "names.deu_Latn: unknown"),
    ],
)
def test_prompts_that_say_something_else_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        check_map(PromptSet, given, "riddles.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_every_slot_of_every_prompt_is_filled_by_the_task(name):
    """Also of native prompts, which no test asks in every language."""
    task = read_task_file(name, "")
    prompts = read_prompts(task, "", name)
    languages = prompts.native if task.languages == "same" else prompts.native.keys() & task.languages.keys()
    for layout in task.data:
        slots = [each for each in [*layout.columns, "text"] if each not in (*SECRET, "pivot")]
        for prompt in [*prompts.english, *(each for key in languages for each in prompts.native[key])]:
            check_prompt(name, prompt, task.choices, slots, name)


@pytest.mark.parametrize("name", NAMES)
def test_choices_are_said_for_labels_that_there_are(name):
    task = read_task_file(name, "")
    prompts = read_prompts(task, "", name)
    for prompt in [*prompts.english, *(each for native in prompts.native.values() for each in native)]:
        assert not prompt.choices or prompt.choices.keys() >= task.values.keys()


def test_no_file_of_prompts_is_without_a_task():
    used = {task.prompts or task.kind for task in (read_task_file(name, "") for name in NAMES)}
    assert {file.stem for file in PROMPTS.glob("*.yaml")} == used


def test_the_first_prompts_are_those_of_training():
    """A model that learned the wording of data/wording is asked in it."""
    qa = read_prompts(read_task_file("xquad", ""), "", "xquad").english[0]
    assert qa.model_dump(include={"instruction", "input"}) == wording_of("raw").qa("eng_Latn")
    translation = read_prompts(read_task_file("flores", ""), "", "flores").english[0]
    assert (translation.instruction, translation.input) == (
        wording_of("raw").translation("eng_Latn")[0],
        "{text}",
    )


def test_a_task_of_ones_own_may_not_be_named_like_another(tmp_path: Path):
    """It would be asked in place of the one that is meant."""
    (tmp_path / "xquad.yaml").write_text("about: mine", "utf-8")
    with pytest.raises(ConfigError, match="'xquad' is a task that comes with jaxlingua; rename the file"):
        Config.model_validate({"eval": {"tasks": ["xquad.eng_Latn"], "task_folder": str(tmp_path)}})


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "no map of keys given"), ("kind: qa\nkind: open\n", "key 'kind' given twice"), ("a: b: c", "not YAML")],
)  # fmt: skip
def test_a_task_file_that_is_no_map_is_refused(tmp_path, text, message):
    (tmp_path / "riddles.yaml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        read_task_file("riddles", str(tmp_path))
