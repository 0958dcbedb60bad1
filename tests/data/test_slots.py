"""Slots: filled in one pass, so that what is filled in is never taken for a slot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlingua.data.slots import fill, parse_slots, slots_of

PIECES = st.sampled_from(["{a}", "{b}", "{", "}", "{{", "}}", "{0}", "{}", "{a b}", "-", "é", "\n", "{c "])
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@given(template=TEXTS, a=TEXTS, b=TEXTS)
def test_text_with_braces_and_slots_goes_in_unchanged(template, a, b):
    filled = fill(template, {"a": a, "b": b})
    texts = {"a": a, "b": b, "": ""}
    assert filled == "".join(literal + texts[slot] for literal, slot in parse_slots(template))
    assert len(filled) == len(template) + sum(len(texts[slot]) - 3 for slot in slots_of(template))


@given(template=TEXTS)
def test_a_template_is_the_sum_of_its_parts(template):
    parts = parse_slots(template)
    assert "".join(literal + (f"{{{slot}}}" if slot else "") for literal, slot in parts) == template
    assert parts[-1][1] == ""
    assert all(slot in ("a", "b") for _, slot in parts[:-1])


def test_a_slot_that_stands_twice_is_filled_twice_and_other_braces_are_text():
    assert fill('{"x": "{a}", "y": {a}} {0} {} {{a}}', {"a": "1"}) == '{"x": "1", "y": 1} {0} {} {1}'


def test_a_slot_that_nothing_fills_is_no_text():
    with pytest.raises(KeyError, match="b"):
        fill("{a}{b}", {"a": ""})
