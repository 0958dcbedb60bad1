"""From fields to parts and from answers to fields, with stand-ins for a model."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.data.protect import around, parts, spans
from jaxlingua.eval.translate.fields import (
    CUT,
    EMPTY,
    LANGUAGE,
    LINES,
    TOO_LONG,
    UNCHANGED,
    Field,
    Reply,
    reply_of,
    translate_texts,
)
from tests.data.test_protect import TEXTS

DIRECTION = ("eng_Latn", "deu_Latn")


class Model:
    """Answers with a function, and knows what it was asked."""

    def __init__(self, answer: Callable[[str], str]):
        self.answer = answer
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Mapping[str, Reply]:
        self.asked.append(list(texts))
        return {text: reply_of(self.answer(text), is_finished=True) for text in texts}


def translated(text: str, answer: Callable[[str], str]) -> Field:
    return translate_texts([text], Model(answer), DIRECTION)[text]


def shouting_all_but_code(text: str) -> str:
    """A good model: it copies what is protected."""
    return "".join(part.text.upper() if part.is_asked else part.text for part in around(text))


def test_layout_code_and_white_space_stay_where_they_are():
    text = " Do this:\n\n1. Open `a b`.\n2. Say {name}\t\n```py\nx = 'y'\n```\r\n\n3.14\nEnd\n"
    wanted = " DO THIS:\n\n1. OPEN `a b`.\n2. SAY {name}\t\n```py\nx = 'y'\n```\r\n\n3.14\nEND\n"
    assert translated(text, shouting_all_but_code).text == wanted
    assert translated(text, str.upper).text == wanted


def test_a_line_whose_code_comes_back_is_taken_whole_and_another_is_asked_for_in_pieces():
    text = "Put `x` first"
    good = Model(lambda asked: "Zuerst `x` hinein")
    assert translate_texts([text], good, DIRECTION)[text].text == "Zuerst `x` hinein"
    assert good.asked == [["Put `x` first"]]
    bad = Model({"Put `x` first": "Zuerst x hinein", "Put": "Setze", "first": "zuerst"}.get)
    found = translate_texts([text], bad, DIRECTION)[text]
    assert (found.text, found.split, found.asked, found.protected) == ("Setze `x` zuerst", 1, 1, 1)
    assert bad.asked == [["Put `x` first"], ["Put", "first"]]


def test_what_stands_in_several_fields_is_asked_for_once():
    model = Model(str.upper)
    found = translate_texts(["one\ntwo", "two", "two", "one\n42"], model, DIRECTION)
    assert model.asked == [["one", "two"]]
    assert {text: field.text for text, field in found.items()} == {
        "one\ntwo": "ONE\nTWO",
        "two": "TWO",
        "one\n42": "ONE\n42",
    }


@pytest.mark.parametrize("text", ["", "  \n", "42", "```\ncode\n```", "https://a.org", "{name}"])
def test_where_nothing_is_to_be_translated_nothing_is_asked_or_changed(text):
    model = Model(lambda asked: "nonsense")
    field = translate_texts([text], model, DIRECTION)[text]
    assert (field.text, field.asked, field.problems, field.told) == (text, 0, (), "")
    assert model.asked == [[]]


@pytest.mark.parametrize(
    ("answer", "is_finished", "text", "problems"),
    [
        ("\n Ja.  \n", True, "Ja.", set()),
        ("Ja.\n\n### Yes", False, "Ja.", {LINES}),
        ("Ja und", False, "Ja und", {CUT}),
        (" \n ", True, "", {EMPTY}),
        ("", False, "", {EMPTY, CUT}),
    ],
)
def test_an_answer_becomes_one_line(answer, is_finished, text, problems):
    assert reply_of(answer, is_finished=is_finished) == Reply(text, frozenset(problems))


def test_problems_of_a_field_are_those_of_its_parts_and_its_language():
    english = "This is quite an ordinary sentence about the weather of today."
    german = "Das ist ein ganz gewöhnlicher Satz über das Wetter von heute."
    assert translated(english, lambda _: german) == Field(german, (), 1, 0, 0, "on")
    repeated = translated(english, lambda text: text)
    assert (set(repeated.problems), repeated.told) == ({LANGUAGE, UNCHANGED}, "off")
    one_empty = translated(f"{english}\nYes.", lambda text: german if text == english else "")
    assert (one_empty.problems, one_empty.text) == ((EMPTY,), f"{german}\n")
    too_long = translate_texts(
        [english], lambda texts: {english: Reply(english, frozenset({TOO_LONG}))}, DIRECTION
    )
    assert set(too_long[english].problems) == {TOO_LONG, LANGUAGE}
    code = translated(
        "Use `the code that is written in English here`",
        lambda _: "Nimm `the code that is written in English here`",
    )
    assert (code.problems, code.told) == ((), "undecided")  # the code is no evidence


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.lists(st.one_of(TEXTS, st.just("")), min_size=1, max_size=6), st.booleans())
def test_whatever_a_model_answers_every_protected_span_comes_back_in_order(text, answers, is_copying):
    """Byte for byte: code blocks, spans inside lines, and all that stands between the lines."""

    def answer(asked: str) -> str:
        if is_copying and len(asked) % 2:
            return shouting_all_but_code(asked)
        return answers[int(hashlib.sha256(asked.encode()).hexdigest(), 16) % len(answers)]

    found, place = translated(text, answer).text, 0
    for part in parts(text):
        kept = [part.text[slice(*span)] for span in spans(part.text)] if part.is_asked else [part.text]
        for span in kept:
            assert span in found[place:]
            place = found.index(span, place) + len(span)
    assert found.count("\n") == text.count("\n")
