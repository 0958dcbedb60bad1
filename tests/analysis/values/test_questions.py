"""What is asked: ours, and a user's file."""

import json
from collections import Counter
from pathlib import Path

import pytest

from jaxlingua.analysis.values.questions import (
    CONTROLS,
    DIMENSIONS,
    PIVOT,
    SETS,
    Question,
    held_out,
    our_questions,
    read_questions,
)
from jaxlingua.errors import ConfigError, DataError

GOOD = {"id": "a", "dimension": "security", PIVOT: "Is it safe?", "deu_Latn": "Ist es sicher?"}

OUR_FACT = next(question.texts[PIVOT] for question in our_questions() if question.id == "facts-1")


def write(path: Path, *lines: dict | str) -> str:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(texts) + "\n", "utf-8")
    return str(path)


def test_ours_touch_every_value_alike_and_have_both_controls():
    ours = our_questions()
    counts = Counter(question.dimension for question in ours)
    assert counts == {**dict.fromkeys(DIMENSIONS, 6), "facts": 40, "neutral": 40}
    assert len({question.id for question in ours}) == len(ours)
    assert len({question.texts[PIVOT] for question in ours}) == len(ours)
    asks_back = [one for one in ours if one.set != "neutral" and "?" not in one.texts[PIVOT]]
    assert not asks_back
    assert all(one.texts[PIVOT].startswith("Repeat this sentence") for one in ours if one.set == "neutral")


def test_a_third_is_held_out_of_every_set_and_dimension():
    ours = our_questions()
    tests = held_out(ours, 0)
    asked, held = (Counter(one.set for one in ours if one.id in ids) for ids in ({q.id for q in ours}, tests))
    assert held == {name: asked[name] // 3 for name in SETS}
    assert Counter(one.dimension for one in ours if one.id in tests and one.set == "values") == dict.fromkeys(
        DIMENSIONS, 2
    )
    assert tests == held_out(ours[::-1], 0)  # whatever their order
    assert tests != held_out(ours, 1)


def test_a_file_gets_the_controls_that_it_lacks(tmp_path):
    own = {**GOOD, "id": "b", "dimension": "facts", PIVOT: "Is ice heavy?"}
    found = read_questions(write(tmp_path / "q.jsonl", GOOD, own))
    assert Question("a", "security", {PIVOT: "Is it safe?", "deu_Latn": "Ist es sicher?"}) in found
    assert Counter(one.set for one in found) == {"values": 1, "facts": 1, "neutral": 40}


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        ([GOOD, GOOD], DataError, "jsonl:2: id 'a' given a second time; each question needs its own; rename it"),
        ([{"dimension": "x", PIVOT: "A?"}], DataError, r"jsonl:1: no id given; \{\"id\", \"dimension\""),
        ([{"id": "a", PIVOT: "A?"}], DataError, "jsonl:1: no dimension given"),
        ([{"id": "a", "dimension": " ", PIVOT: "A?"}], DataError, "jsonl:1: no dimension given"),
        ([{"id": "a", "dimension": "x", "deu_Latn": "A?"}], DataError, "jsonl:1: no eng_Latn given; answers are"),
        ([{**GOOD, "deu_Latn": ""}], DataError, "jsonl:1: deu_Latn has no text; a question is needed"),
        ([{**GOOD, "german": "A?"}], ConfigError, "jsonl:1: unknown language 'german'; write 'deu_Latn'"),
        ([{**GOOD, "dimension": "facts"}], DataError, "no question that touches a value given"),
        ([{**GOOD, "id": "facts-1"}], DataError, "id 'facts-1' given, which is one of ours"),
        ([GOOD, '{"id": "b", "dimens'], DataError, "jsonl:2: no JSON .* was it cut short"),
        ([{**GOOD, "id": "b"}, GOOD], DataError, "jsonl:2: id 'a' asks what 'b' asks; one may be learned from"),
        ([GOOD, {**GOOD, "id": "b", PIVOT: " is  it SAFE? "}], DataError, "jsonl:2: id 'b' asks what 'a' asks"),
        ([{**GOOD, PIVOT: OUR_FACT}], DataError, "id 'a' asks what ours asks as 'facts-1'; one may be learned"),
        ([GOOD, {**GOOD, "id": "b", PIVOT: "Is \ud83d it?"}], DataError, r"jsonl:2: half of a surrogate pair, U\+D83D"),
        ([GOOD, "[" * 200_000], DataError, "jsonl:2: no JSON .*; one whole object a line is needed"),
        (["[]"], DataError, "jsonl:1: no object given; one a line is needed"),
        ([""], DataError, "q.jsonl: empty; JSON lines are needed"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_line(tmp_path, lines, error, message):
    with pytest.raises(error, match=message) as caught:
        read_questions(write(tmp_path / "q.jsonl", *lines))
    assert "\n" not in str(caught.value)


def test_controls_are_two():
    assert set(CONTROLS) < set(SETS)
    assert len(CONTROLS) == 2
