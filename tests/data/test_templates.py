"""Rendering: the frames are what checkpoints expect, and texts go in and come out unchanged."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text
from jaxlingua.data.templates import render, why_unusable
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import DataError
from jaxlingua.languages import display_name

TEMPLATES = ["alpaca", "short", "raw"]

# As published by Stanford Alpaca (tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT).
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nName it.\n\n### Input:\na cow\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nName it.\n\n### Response:"
)

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SOME_TEXT = ANY_TEXT.filter(lambda text: text.strip())


def instruction(text="Name it.", given="", answer="Cow"):
    return Instruction(3, "eng_Latn", text, given, answer)


def one(record, template, *, training=True, direction=None):
    return render(record, wording_of(template), source="entry", training=training, direction=direction)


# ── Alpaca ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_alpaca_scaffold_is_the_published_one_to_the_character():
    assert one(instruction(given="a cow"), "alpaca").text == ALPACA_WITH_INPUT + "Cow"
    assert one(instruction(), "alpaca").text == ALPACA_WITHOUT_INPUT + "Cow"


def test_an_input_of_white_space_is_no_input():
    assert one(instruction(given=" \n"), "alpaca").prompt == ALPACA_WITHOUT_INPUT


# ── translation ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_33_translation_instructions_of_which_11_name_both_languages_and_22_only_the_target():
    wordings = wording_of("raw").translation("eng_Latn")
    slots = [set(re.findall(r"{(\w+)}", wording)) for wording in wordings]
    assert len(set(wordings)) == 33
    assert slots.count({"source_language", "target_language"}) == 11
    assert slots.count({"target_language"}) == 22


def test_training_takes_instruction_index_mod_33_and_evaluation_always_the_first():
    direction = ("eng_Latn", "ell_Grek")
    names = {"source_language": "English", "target_language": "Greek"}
    wanted = [wording.format(**names) for wording in wording_of("raw").translation("eng_Latn")]
    for index in (0, 1, 32, 33, 34, 1000 * 33 + 5):
        pair = Pair(index, {"eng_Latn": "one", "ell_Grek": "ένα"})
        assert one(pair, "raw", direction=direction).text == f"{wanted[index % 33]}\n\none\nένα"
        assert one(pair, "raw", direction=direction, training=False).prompt == f"{wanted[0]}\n\none\n"


@pytest.mark.parametrize(
    ("direction", "source", "target"),
    [
        (("eng_Latn", "arb_Arab"), "Two men.", "رجلان."),
        (("heb_Hebr", "eng_Latn"), "שני גברים.", "Two men."),
        (("zho_Hans", "jav_Latn"), "两个男人。", "Wong lanang loro."),
        (("hin_Deva", "tha_Thai"), "दो पुरुष।", "ชายสองคน"),
    ],
)
@pytest.mark.parametrize("template", TEMPLATES)
def test_languages_are_named_in_english_and_the_sentence_and_its_translation_stand_whole(
    direction, source, target, template
):
    example = one(Pair(0, {direction[0]: source, direction[1]: target}), template, direction=direction)
    assert example.language == direction[1]
    assert example.answer_texts == (target,)
    assert example.text == example.prompt + target
    assert source in example.prompt
    assert all(display_name(language) in example.prompt for language in direction)


def test_the_short_translation_frame_costs_a_tiny_model_few_bytes():
    pair = Pair(0, {"eng_Latn": "x", "ind_Latn": "y"})
    frame = one(pair, "short", direction=("eng_Latn", "ind_Latn")).prompt.replace("x", "")
    assert frame == "English to Indonesian\n\n"
    assert len(frame.encode()) <= 40


# ── questions, conversations, text ───────────────────────────────────────────────────────────────────────────────


def question(context="Oslo is big.", asked="What is big?", answers=("Oslo", "the city")):
    return Question(5, "q5", "eng_Latn", context, asked, answers, 0)


@pytest.mark.parametrize("template", TEMPLATES)
def test_of_a_question_the_first_answer_is_learned(template):
    example = one(question(), template)
    assert example.answer_texts == ("Oslo",)
    assert "Oslo is big." in example.prompt
    assert "What is big?" in example.prompt


def test_a_question_under_short_is_context_and_question():
    assert one(question(), "short").text == "Oslo is big.\nWhat is big?\nOslo"


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_conversation_of_one_turn_reads_as_an_instruction_without_input(template):
    chat = Conversation(3, "eng_Latn", (("user", "Name it."), ("assistant", "Cow")))
    assert one(chat, template) == one(instruction(), template)


@pytest.mark.parametrize("template", TEMPLATES)
def test_only_assistant_turns_are_learned_and_nothing_follows_the_last(template):
    turns = (
        ("system", "Be short."),
        ("user", "2+2?"),
        ("assistant", "4"),
        ("user", "3+3?"),
        ("assistant", "6"),
        ("user", "thanks"),
    )
    example = one(Conversation(0, "eng_Latn", turns), template)
    assert example.answer_texts == ("4", "6")
    assert "thanks" not in example.text
    assert example.text.endswith("6")
    places = [example.text.index(text) for text in ("Be short.", "2+2?", "3+3?")]
    assert places == sorted(places)


def test_alpaca_chat_repeats_the_scaffold_and_a_system_turn_takes_the_place_of_the_opening():
    turns = (("user", "Name it."), ("assistant", "Cow"), ("user", "And this?"), ("assistant", "Hen"))
    again = "\n\n### Instruction:\nAnd this?\n\n### Response:Hen"
    assert one(Conversation(0, "eng_Latn", turns), "alpaca").text == ALPACA_WITHOUT_INPUT + "Cow" + again
    with_system = one(Conversation(0, "eng_Latn", (("system", "You know animals."), *turns)), "alpaca").text
    opening = "You know animals.\n\n### Instruction:\nName it.\n\n### Response:"
    assert with_system == opening + "Cow" + again


@pytest.mark.parametrize("template", TEMPLATES)
def test_plain_text_has_no_frame_and_is_learned_whole(template):
    text = "  First {line}.\nSecond line.\n"
    example = one(Text(0, "eng_Latn", text), template)
    assert (example.text, example.answer_texts, example.prompt) == (text, (text,), "")


# ── texts go in unchanged ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("template", TEMPLATES)
def test_braces_in_a_text_are_text(template):
    hostile = "{input} {0} {target_language} {{}} {"
    records = [
        (instruction(hostile, hostile, hostile), None),
        (Pair(0, {"eng_Latn": hostile, "deu_Latn": hostile}), ("eng_Latn", "deu_Latn")),
        (question(hostile, hostile, (hostile,)), None),
        (Conversation(0, "eng_Latn", (("system", hostile), ("user", hostile), ("assistant", hostile))), None),
    ]
    for record, direction in records:
        example = one(record, template, direction=direction)
        assert example.answer_texts == (hostile,)
        assert hostile in example.prompt


@given(text=SOME_TEXT, context=ANY_TEXT, answer=SOME_TEXT, template=st.sampled_from(TEMPLATES))
def test_ranges_cut_out_the_answer_exactly_as_it_stood_in_the_record(text, context, answer, template):
    example = one(instruction(text, context, answer), template)
    assert example.answer_texts == (answer,)
    assert example.text == example.prompt + answer
    assert text in example.prompt


@given(
    turns=st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), SOME_TEXT), min_size=1, max_size=6
    ),
    template=st.sampled_from(TEMPLATES),
)
def test_every_order_of_turns_keeps_every_assistant_turn(turns, template):
    chat = Conversation(0, "eng_Latn", tuple(turns))
    answers = tuple(text for role, text in turns if role == "assistant")
    if answers:
        assert one(chat, template).answer_texts == answers
    else:
        assert why_unusable(chat) == "no assistant turn"


@pytest.mark.parametrize("template", ["short", "raw"])
@pytest.mark.parametrize("answer", ["in 2 Tagen", "-5 °C", "«Ja»", "两个男人", "42"])
def test_a_prompt_has_the_same_pieces_alone_and_before_its_answer(template, answer):
    """Else training would read pieces across the seam that generation never starts from."""
    pieces = ByteLevel(add_prefix_space=False).pre_tokenize_str
    example = one(
        Pair(0, {"eng_Latn": "two", "deu_Latn": answer}), template, direction=("eng_Latn", "deu_Latn")
    )
    alone = pieces(example.prompt)
    assert pieces(example.text)[: len(alone)] == alone


# ── records that give no example ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (instruction("", " "), "empty instruction"),
        (instruction(answer=" \n"), "empty answer"),
        (Pair(3, {"eng_Latn": "one"}), "no text in deu_Latn"),
        (Pair(3, {"eng_Latn": " ", "deu_Latn": "eins"}), "no text in eng_Latn"),
        (question(context=""), "empty question or context"),
        (question(answers=()), "empty answer"),
        (question(answers=(" ",)), "empty answer"),
        (Conversation(3, "eng_Latn", (("user", "hi"),)), "no assistant turn"),
        (Conversation(3, "eng_Latn", (("user", "hi"), ("assistant", ""))), "empty answer"),
        (Text(3, "eng_Latn", "\n"), "empty text"),
    ],
)
def test_a_record_that_gives_no_example_says_why(record, reason):
    direction = ("eng_Latn", "deu_Latn")
    assert why_unusable(record, direction) == reason
    with pytest.raises(
        DataError, match=rf"^entry \(record \d\): {reason}; an example needs a prompt and an answer"
    ):
        one(record, "alpaca", direction=direction)
