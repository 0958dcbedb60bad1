"""Which prompt a model reads: the frame that it learned, known from its run or from the chat template of an export."""

import json

import pytest

from jaxlingua.command_line import check_config
from jaxlingua.config import DataConfig
from jaxlingua.data.chat_template import chat_template
from jaxlingua.data.records import Instruction
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import CheckpointError, ConfigError, DataError
from jaxlingua.generate.framing import Question, framing_of_model, framing_of_run
from tests.flow.small import CONFIG


def trained_on(**entries):
    """A run of which a stage has these entries of CONFIG's sources."""
    return check_config({**CONFIG, "stages": [{"name": "one", "mixture": entries, "steps": 2}]}, "test")


@pytest.mark.parametrize(("template", "frames", "language"), [
    ("alpaca", "english", "eng_Latn"), ("short", "english", "eng_Latn"), ("raw", "english", "eng_Latn"),
    ("alpaca", "localized", "deu_Latn"), ("alpaca", "localized", "ell_Grek"),
])  # fmt: skip
@pytest.mark.parametrize("has_bos", [True, False])
def test_an_export_is_known_by_its_chat_template(tmp_path, template, frames, language, has_bos):
    wording = wording_of(template, frames)
    text = chat_template(wording, language, has_bos=has_bos, opens_with_space=has_bos)
    if has_bos:
        (tmp_path / "chat_template.jinja").write_text(text, "utf-8")
    else:  # where transformers wrote it before
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": text}), "utf-8")
    framing = framing_of_model(str(tmp_path), DataConfig(), is_given=False)
    asked = Instruction(0, language, "Say it.", "twice", "x")
    assert (
        framing.prompt(Question("Say it.", "twice"))
        == render(asked, wording, source="a", training=True).prompt
    )
    assert f"its chat template says ({template}" in framing.about


@pytest.mark.parametrize(
    ("text", "why"), [("", "it has no chat template"), ("{{ messages }}", "is none of ours")]
)
def test_any_other_folder_reads_instructions_as_they_are(tmp_path, text, why):
    if text:
        (tmp_path / "chat_template.jinja").write_text(text, "utf-8")
    framing = framing_of_model(str(tmp_path), DataConfig(), is_given=False)
    assert framing.prompt(Question("Say it.")) == "Say it."
    assert framing.prompt(Question("Say it.", "twice")) == "Say it.\ntwice"
    assert why in framing.about
    given = framing_of_model(str(tmp_path), DataConfig(template="short"), is_given=True)
    assert given.prompt(Question("Say it.", "twice")) == "Say it.\ntwice\n"


def test_a_run_frames_what_it_learned_and_only_that():
    framed = framing_of_run(trained_on(phrases={}))
    assert framed.prompt(Question("Say it.")) == "Say it.\n"
    assert framed.prompt(Question("Say it.", is_raw=True)) == "Say it."
    plain = framing_of_run(trained_on(phrases={"task": "text"}))
    assert plain.prompt(Question("Say it.")) == "Say it."
    assert "the run learns plain text alone" in plain.about
    wanted = "English to Greek\nin 2 days\n"
    asked = Question("in 2 days", direction=("eng_Latn", "ell_Grek"))
    assert framed.prompt(asked) == plain.prompt(asked) == wanted


def test_localized_frames_are_those_of_the_answers_language():
    framing = framing_of_model(".", DataConfig(frames="localized"), is_given=True)
    english, german = (framing.prompt(Question("Say it.", language=code)) for code in ("", "deu_Latn"))
    assert "### Instruction:" in english
    assert "### Instruction:" not in german
    with pytest.raises(ConfigError, match=r"has no frames for answers in heb_Hebr"):
        framing.prompt(Question("Say it.", language="heb_Hebr"))


@pytest.mark.parametrize(
    "question", [Question(""), Question(" \n"), Question("", "x", direction=("eng_Latn", "ell_Grek"))]
)
def test_there_is_something_to_frame(question):
    with pytest.raises(DataError, match="an empty text given"):
        framing_of_run(trained_on(phrases={})).prompt(question)


@pytest.mark.parametrize("question", [Question("a\udc80b", is_raw=True), Question("a", "\ud800")])
def test_what_is_no_text_is_refused(question):
    with pytest.raises(DataError, match=r"U\+D[8C][80]0 at character [12] given"):
        framing_of_run(trained_on(phrases={})).prompt(question)


def test_another_template_than_that_of_training_is_told():
    config = trained_on(phrases={})
    other = config.model_copy(update={"data": config.data.model_copy(update={"template": "alpaca"})})
    assert framing_of_run(config, config.data).about == "instructions are framed as in training (short)"
    assert framing_of_run(other, config.data).about == (
        "instructions are framed as the command says (data.template=alpaca); the run learned data.template=short"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b'{"a": "\xff"}'),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_damaged_file_of_a_model_is_told_by_its_path(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as told:
        framing_of_model(str(tmp_path), DataConfig(), is_given=False)
    assert str(told.value).startswith(f"{tmp_path / name}: ")
