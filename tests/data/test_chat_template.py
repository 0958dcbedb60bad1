"""The chat template against `templates.render`: the same text, whatever the texts of the turns hold."""

import functools

import jinja2
import jinja2.ext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxlingua.data.chat_template import as_message, chat_template
from jaxlingua.data.example import Example
from jaxlingua.data.records import Conversation, Instruction, Pair, Question
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import Wording, wording_of

TEMPLATES = ["alpaca", "short", "raw"]
BOS, EOS = "<s>", "</s>"

ANSWER = "answer"
PAIR = Pair(0, {"eng_Latn": "in 2 days", "jav_Latn": ANSWER})
QUESTION = Question(0, "id", "eng_Latn", "It rains.\n\n### Input:\nyes", "What does it do?", (ANSWER,), 0)
ASKED = {
    "an instruction": Instruction(0, "eng_Latn", "Name a fox.", "", ANSWER),
    "an instruction with input": Instruction(0, "eng_Latn", "Shorten.", "A long\ntext.", ANSWER),
    "a translation": PAIR,
    "a question": QUESTION,
}

HARD = (
    "{{ x }}", "{% raw %}", "{# note #}", "{text}", "{", "}}", "\\n", '"', "'", "  both ends \n", "\n\nlines\n\n", "\r\n",
    "### Response:", "</s>", "नमस्ते", "שָׁלוֹם", "你好。", "สวัสดี", "🦙\U0001f468‍👩", "<b>&amp;</b>", "\t", "\x00", "\u2028",
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(HARD),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.lists(st.sampled_from(HARD), min_size=2, max_size=3).map("".join),
).filter(lambda text: text.strip())
TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=6)


@functools.cache
def compiled(text: str, plain: bool) -> jinja2.Template:
    """With the settings of transformers, or as an engine without them has it."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    settings = {} if plain else {"trim_blocks": True, "lstrip_blocks": True}
    environment = ImmutableSandboxedEnvironment(extensions=[jinja2.ext.loopcontrols], **settings)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(text)


def page(
    template: str | Wording,
    messages: list[dict],
    *,
    generation: bool = False,
    plain: bool = False,
    language: str = "eng_Latn",
    **options,
) -> str:
    """The template rendered as transformers renders it, or by an engine without its settings."""
    wording = wording_of(template) if isinstance(template, str) else template
    text = chat_template(wording, language, **{"has_bos": True, **options})
    return compiled(text, plain).render(
        messages=messages, tools=[], documents=None, add_generation_prompt=generation,
        bos_token=BOS, eos_token=EOS, pad_token="<pad>",
    )  # fmt: skip


def messages_of(turns) -> list[dict]:
    return [{"role": role, "content": text} for role, text in turns]


def with_ends(example: Example, answers) -> str:
    """The text of an example as its tokens are: BOS, and EOS after each of `answers`."""
    text, before = BOS, 0
    for _, end in answers:
        text, before = text + example.text[before:end] + EOS, end
    return text + example.text[before:]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("task", ASKED)
def test_every_task_can_be_asked_in_a_user_turn_as_it_was_learned(task, template):
    """Alpaca's frame begins otherwise where there is an input, and a translation always has one."""
    direction = ("eng_Latn", "jav_Latn") if task == "a translation" else None
    prompt = render(ASKED[task], wording_of(template), source="x", training=False, direction=direction).prompt
    message = {"role": "user", "content": as_message(prompt, wording_of(template), "eng_Latn")}
    assert page(template, [message], generation=True) == BOS + prompt
    assert "### Response" not in message["content"]
    assert "Below is" not in message["content"]


def example_of(turns, template: str) -> Example:
    return render(
        Conversation(0, "eng_Latn", tuple(turns)), wording_of(template), source="chat", training=True
    )


@pytest.mark.parametrize("template", TEMPLATES)
@given(turns=TURNS, answer=TEXTS)
@settings(max_examples=200, deadline=None)
def test_any_conversation_is_the_text_that_is_trained_on(template, turns, answer):
    turns = [*turns, ("assistant", answer)]
    example = example_of(turns, template)
    expected = with_ends(example, example.answers)
    assert page(template, messages_of(turns)) == expected
    assert page(template, messages_of(turns), plain=True) == expected, (
        "whatever the engine does to white space"
    )


@pytest.mark.parametrize("template", TEMPLATES)
@given(turns=TURNS.filter(bool), answer=TEXTS)
@settings(max_examples=200, deadline=None)
def test_a_generation_prompt_ends_where_the_next_answer_begins(template, turns, answer):
    example = example_of([*turns, ("assistant", answer)], template)
    prompt = with_ends(Example("chat", 0, "eng_Latn", example.text, example.answers), example.answers[:-1])
    expected = prompt[: len(prompt) - len(answer)]
    assert page(template, messages_of(turns), generation=True) == expected


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("text", [text for text in HARD if text.strip()])
def test_one_user_turn_is_an_instruction_without_input(template, text):
    record = Instruction(0, "eng_Latn", text, "", "yes")
    example = render(record, wording_of(template), source="alpaca", training=False)
    assert page(template, messages_of([("user", text)]), generation=True) == BOS + example.prompt
    both = messages_of([("user", text), ("assistant", "yes")])
    assert page(template, both) == BOS + example.text + EOS


def test_the_alpaca_prompt_is_the_published_one_to_the_character():
    assert page("alpaca", messages_of([("user", "Name it.")]), generation=True, has_bos=False) == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nName it.\n\n### Response:"
    )


@pytest.mark.parametrize("language", ["arb_Arab", "jpn_Jpan", "hin_Deva", "fra_Latn"])
@given(text=TEXTS, given_too=TEXTS)
@settings(max_examples=30, deadline=None)
def test_a_localized_frame_is_laid_out_as_it_is_learned(language, text, given_too):
    wording = wording_of("alpaca", "localized")
    for record in (
        Instruction(0, language, text, "", "yes"),
        Instruction(0, language, "short", given_too, "yes"),
    ):
        prompt = render(record, wording, source="x", training=False).prompt
        asked = messages_of([("user", as_message(prompt, wording, language))])
        heading = wording.frames_of(language)["chat"]["input_mark"]
        if record.input or heading not in text:
            assert page(wording, asked, generation=True, language=language) == BOS + prompt


def test_a_tokenizer_without_bos_gets_none_and_a_space_stands_only_behind_one():
    turns = messages_of([("user", "dog?")])
    assert page("short", turns, has_bos=False) == "dog?\n"
    assert page("short", turns, has_bos=True) == "<s>dog?\n"
    assert page("short", turns, has_bos=True, opens_with_space=True) == "<s> dog?\n"
    assert page("short", turns, has_bos=False, opens_with_space=True) == "dog?\n"


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("role", ["tool", "Assistant", ""])
def test_other_roles_are_refused_by_name(template, role):
    message = f"role '{role}': system, user and assistant are allowed"
    with pytest.raises(jinja2.TemplateError, match=message):
        page(template, messages_of([("user", "dog?"), (role, "king")]))


@pytest.mark.parametrize("content", [None, 7, [{"type": "image"}], {"text": "dog?"}])
def test_content_that_is_no_text_is_refused_by_its_place(content):
    messages = [*messages_of([("user", "dog?")]), {"role": "assistant", "content": content}]
    with pytest.raises(jinja2.TemplateError, match="content of message 2: text is allowed, and nothing else"):
        page("alpaca", messages)
