"""Prompts of task files: which are asked, what fills them, and what they look like in each frame."""

import pytest

from jaxlingua.command_line import check_map
from jaxlingua.data.templates import framed
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import ConfigError
from jaxlingua.eval.tasks.prompts import (
    ask,
    check_prompt,
    chosen_prompts,
    fill,
    language_name,
    own_shape,
    unfilled,
)
from jaxlingua.eval.tasks.schema import Prompt, PromptSet

SHORT, RAW = wording_of("short"), wording_of("raw")
PROMPTS = check_map(
    PromptSet,
    {
        "english": [{"instruction": "E0"}, {"instruction": "E1", "input": "{text}"}],
        "native": {"ind_Latn": [{"instruction": "I0"}, {"instruction": "I1"}]},
        "names": {"ind_Latn": {"bug_Latn": "Bugis", "deu_Latn": "bahasa Jerman"}},
    },
    "prompts.yaml",
)


@pytest.mark.parametrize(
    ("asked", "language", "names"),
    [
        (["english.0"], "jav_Latn", ["english.0"]),
        (["english"], "jav_Latn", ["english.0", "english.1"]),
        (["native"], "ind_Latn", ["native.0", "native.1"]),
        (["all"], "ind_Latn", ["english.0", "english.1", "native.0", "native.1"]),
        (["all"], "jav_Latn", ["english.0", "english.1"]),
        (["native.1", "english.1", "native"], "ind_Latn", ["native.1", "english.1", "native.0"]),
    ],
)
def test_prompts_are_chosen_by_name_each_once(asked, language, names):
    chosen = chosen_prompts(asked, PROMPTS, language, "x")
    assert [name for name, _ in chosen] == names
    told = {"english.0": "E0", "english.1": "E1", "native.0": "I0", "native.1": "I1"}
    assert all(prompt.instruction == told[name] for name, prompt in chosen)


@pytest.mark.parametrize(
    ("asked", "language", "message"),
    [
        (
            "native",
            "jav_Latn",
            "'native' given; x has no prompt in jav_Latn; ind_Latn has; ask it in english",
        ),
        ("native.0", "jav_Latn", "'native.0' given; x has no prompt in jav_Latn"),
        ("english.2", "ind_Latn", "'english.2' given; x has english.0 to english.1; choose one"),
        ("english.x", "ind_Latn", "'english.x' given; english, native, all, english.0"),
        ("german", "ind_Latn", "'german' given; english, native, all"),
        ("all.0", "ind_Latn", "'all.0' given"),
    ],
)
def test_prompts_that_there_are_not_are_refused(asked, language, message):
    with pytest.raises(ConfigError, match=f"eval.prompts: {message}"):
        chosen_prompts([asked], PROMPTS, language, "x")


def test_what_is_filled_in_is_not_looked_at_again():
    """Data that holds braces, slots or modifiers stays as it is, also in the frame around it."""
    slots = {"text": "{question} {text} {input} {{x}} {0}", "question": "{text|no_period}."}
    prompt = Prompt(instruction="{question}", input="{text}|{question|no_period} {not a slot} {}")
    for template in ("alpaca", "short", "raw"):
        text = ask(prompt, "", wording_of(template), "eng_Latn", slots)
        expected = framed(
            wording_of(template),
            slots["question"],
            f"{slots['text']}|{{text|no_period}} {{not a slot}} {{}}",
            "eng_Latn",
        )
        assert text == expected
        assert slots["text"] in text
    assert (
        ask(prompt, "{input}={question}", SHORT, "eng_Latn", slots) == f"{slots['text']}={slots['question']}"
    )


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{a|no_period} x", "Is it. so x"),
        ("{b|no_period}，", "他走了，"),
        ("{c|lower_first}", "éA."),
        ("{e}!", "!"),
    ],
)
def test_modifiers_fit_a_text_into_a_sentence(text, filled):
    assert fill(text, {"a": "Is it. so. ", "b": "他走了。", "c": "ÉA.", "e": ""}) == filled


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(instruction="{contxt}"), "english.0: unknown slot '{contxt}'; did you mean 'context'?"),
        (Prompt(instruction="x", input="{context|lower}"), r"unknown '\|lower' in '{context\|lower}'"),
        (
            Prompt(instruction="x", choices={"a": "{b}"}),
            "unknown slot '{b}'; known: context, source_language",
        ),
        (Prompt(instruction="x", words={"so": {"kind": {"a": "b"}}}), "words.so: kind given; it goes by one"),
    ],
)
def test_slots_that_nothing_fills_are_refused(prompt, message):
    with pytest.raises(ConfigError, match=message):
        check_prompt("english.0", prompt, [], ["context"], "x")


def test_a_template_has_a_shape_of_its_own_for_the_first_prompt_only():
    """A tiny model learned that one; further prompts are wordings in its frame."""
    assert own_shape("qa", "english.0", "qa", SHORT, "deu_Latn") == "{context}\n{question}\n"
    alpaca = wording_of("alpaca")
    others = [("qa", "english.1", "qa", SHORT), ("qa", "english.0", "mine", SHORT)]
    others += [("qa", "english.0", "qa", alpaca), ("choice", "english.0", "choice", SHORT)]
    assert {own_shape(*other, "deu_Latn") for other in others} == {""}


def test_the_prompt_of_a_report_has_its_slots_unfilled():
    prompt = Prompt(instruction="Say {question}.", input="{context}")
    assert unfilled(prompt, "", RAW, "eng_Latn") == "Say {question}.\n\n{context}\n"
    assert unfilled(prompt, "{context}\n", SHORT, "eng_Latn") == "{context}\n"
    assert unfilled(Prompt(instruction="Say."), "", RAW, "eng_Latn") == "Say.\n"


@pytest.mark.parametrize(
    ("language", "prompt_language", "name"),
    [
        ("deu_Latn", "eng_Latn", "German"),
        ("deu_Latn", "ind_Latn", "bahasa Jerman"),
        ("fra_Latn", "ind_Latn", "Prancis"),
        ("zho_Hans", "deu_Latn", "Chinesisch"),
        ("zho_Hant", "deu_Latn", "Chinesisch (traditionell)"),
        ("bug_Latn", "ind_Latn", "Bugis"),
    ],
)
def test_languages_are_named_in_the_language_of_the_prompt(language, prompt_language, name):
    assert language_name(language, prompt_language, PROMPTS, "x") == name


@pytest.mark.parametrize(
    ("language", "prompt_language"), [("abs_Latn", "ind_Latn"), ("deu_Latn", "min_Latn")]
)
def test_a_language_that_nothing_names_is_refused(language, prompt_language):
    with pytest.raises(
        ConfigError, match=f"no name of {language} in {prompt_language} is known, .* add it to names"
    ):
        language_name(language, prompt_language, PROMPTS, "x")


def test_cldr_names_languages_that_it_has_no_text_in():
    assert language_name("bug_Latn", "zho_Hans", PROMPTS, "x") == "布吉语"
    assert language_name("bug_Latn", "ind_Latn", PROMPTS, "x") == "Bugis", "what the prompts say goes first"
