"""What a translation leaves as it is: which spans are found, and that parts joined are the text."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxlingua.data.protect import (
    LONG_LINE,
    agree,
    around,
    count_protected,
    parts,
    spans,
    unprotected,
)


def asked(text: str) -> list[str]:
    return [part.text for part in parts(text) if part.is_asked]


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in spans(text)]


@pytest.mark.parametrize(
    ("text", "protected"),
    [
        ("Call `f(x)` now", ["`f(x)`"]),
        ("Write ``a`b`` here", ["``a`b``"]),
        ("Dear {name}, {0:>8} of {} in {user.id}", ["{name}", "{0:>8}", "{}", "{user.id}"]),
        ("Hi {{ customer name }} and ${HOME DIR}", ["{{ customer name }}", "${HOME DIR}"]),
        ("Set $PATH for $5", ["$PATH"]),
        ("Print %s, %d, %.2f, %(name)s and %5d", ["%s", "%d", "%.2f", "%(name)s", "%5d"]),
        ("It is 50% of it, 100%sure", []),
        ("Fill [MASK] and [YOUR NAME], not [Your Name]", ["[MASK]", "[YOUR NAME]"]),
        ("A <b>bold</b> <br/> word<|end|>", ["<b>", "</b>", "<br/>", "<|end|>"]),
        ("Where a < b and c > d", []),
        ("See https://a.org/x?y=1#z. Or http://b.org!", ["https://a.org/x?y=1#z", "http://b.org"]),
        ("(see www.example.com/page), then", ["www.example.com/page"]),
        ("見てhttps://a.jp/い。次", ["https://a.jp/い"]),
        ("Write to me.too@mail.example.org.", ["me.too@mail.example.org"]),
        ("The ___ is blue", ["___"]),
        ("Braces { with spaces } and a dict {'a': 1}", []),
        ("An `open tick", []),
    ],
)
def test_protected_spans_are_found_and_nothing_else(text, protected):
    assert found(text) == protected
    assert count_protected(text) == len(protected)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Look:\n```py\nprint('hi')\n```\nDone.", ["Look:", "Done."]),
        ("Look:\n~~~~\nx\n~~~\ny\n~~~~\nDone.", ["Look:", "Done."]),
        ("Look:\n```\nnever closed\nmore", ["Look:"]),
        ("Use ```x = 1``` here", ["Use", "here"]),
        ("1. First\n   - Second\n## Third\n> Fourth", ["First", "Second", "Third", "Fourth"]),
        ("12 + 30\n= 42\n\n---\n3.14", []),
        ("https://a.org\n{name}\n`code`", []),
        ("", []),
        (" \t\n ", []),
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("7 apples", ["7 apples"]),
    ],
)
def test_what_is_asked_for_are_lines_with_letters_outside_of_code(text, wanted):
    assert asked(text) == wanted
    assert "".join(part.text for part in parts(text)) == text


def test_a_long_line_is_asked_for_by_sentences_and_never_inside_protected_text():
    sentence = "Read `a. B. c` and the rest of it. "
    text = sentence * 40
    pieces = asked(text)
    assert all(len(piece) <= LONG_LINE for piece in pieces)
    assert min(map(len, pieces[:-1])) > LONG_LINE - len(sentence) - 1  # as long as sentences allow
    assert all(piece.startswith("Read `a. B. c`") and piece.endswith("rest of it.") for piece in pieces)
    assert asked("no end " * 200) == [("no end " * 200).strip()]
    chinese = "今天天气很好我们去公园散步吧。" * 60
    assert all(piece.endswith("。") and len(piece) <= LONG_LINE for piece in asked(chinese))


def test_what_stands_around_protected_spans_is_asked_for_from_its_first_word_on():
    pieces = around("Send {n} , or `x`,  to a@b.org")
    assert [(part.text, part.is_asked) for part in pieces] == [
        ("Send", True),
        (" {n} , ", False),
        ("or", True),
        (" `x`,  ", False),
        ("to", True),
        (" a@b.org", False),
    ]


def test_a_translation_agrees_only_with_the_same_spans_in_the_same_order():
    text = "Put {a} before `b`"
    assert agree(text, "Setze {a} vor `b`")
    for wrong in ("Setze `b` vor {a}", "Setze {a} vor b", "{a} {a} `b`", "{A} `b`", "{a} `b` {c}", ""):
        assert not agree(text, wrong), wrong


def test_protected_text_tells_nothing_of_the_language():
    assert unprotected("Nimm `the value` und\n```\nthe code\n```\nend").split() == ["Nimm", "und", "end"]


CODE = [
    "`x = 1`",
    "{name}",
    "%s",
    "$HOME",
    "[MASK]",
    "<b>",
    "</p>",
    "https://a.org/b?c=d",
    "me@x.org",
    "____",
]
BLOCKS = ["\n```py\nprint(1)\n\n# two\n```\n", "\n~~~\nx\n~~~\n", "\n1234\n", "\n - ", "\n"]
# Letters of a newer Unicode are letters to regex before they are to str.isalpha, which the test asks.
KNOWN = st.characters(exclude_categories=["Cs", "Cn"])
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(CODE).map(lambda code: f" {code} "),
        st.sampled_from(BLOCKS),
        st.sampled_from(["the dog", "Ein Satz.", "今天。", "12", " ", "और।"]),
        st.text(KNOWN, max_size=8),
    ),
    max_size=30,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("``` `` ```` a\n```\nb")
def test_parts_joined_are_the_text_and_what_is_asked_for_is_one_line_of_letters(text):
    assert "".join(part.text for part in parts(text)) == text
    for part in parts(text):
        if part.is_asked:
            assert "\n" not in part.text
            assert part.text == part.text.strip()
            assert any(char.isalpha() for char in part.text)
            pieces = around(part.text)
            assert "".join(piece.text for piece in pieces) == part.text
            assert not any(spans(piece.text) for piece in pieces if piece.is_asked)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*CODE, "words", "de la"]), max_size=12))
def test_every_span_of_known_code_is_found(pieces):
    assert found(" ".join(pieces)) == [piece for piece in pieces if piece in CODE]


@pytest.mark.parametrize(
    "text", ["`" * 20_000, "` " * 20_000, "```x " * 5_000, "<a" * 20_000, "{" * 20_000, "a@" * 20_000]
)
def test_text_made_to_be_slow_is_read_in_a_moment(text):
    start = time.perf_counter()
    assert "".join(part.text for part in parts(text)) == text
    spans(text)
    assert time.perf_counter() - start < 5
