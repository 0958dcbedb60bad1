"""Answers that are there already."""

import json
from dataclasses import asdict

import pytest

from jaxlingua.analysis.values.answers import (
    Answer,
    check_answers,
    check_splits,
    counts_of,
    read_answers,
    untranslated,
    write_answers,
)
from jaxlingua.analysis.values.questions import PIVOT, held_out, our_questions
from jaxlingua.errors import ConfigError, DataError

ONE = Answer("m", "deu_Latn", "facts-1", "Eis ist leichter.", "Ice is lighter.")


def test_what_is_written_is_read(tmp_path):
    answers = [ONE, Answer("m", PIVOT, "power-1", "No 😀\u2028\nnever", "No 😀\u2028\nnever")]
    write_answers(tmp_path / "a.jsonl", answers)
    assert read_answers(str(tmp_path / "a.jsonl"), our_questions()) == answers


def test_half_a_character_is_refused_with_its_line(tmp_path):
    write_answers(tmp_path / "a.jsonl", [ONE, Answer("m", PIVOT, "power-1", "No \ud83d", "No \ud83d")])
    with pytest.raises(
        DataError, match=r"jsonl:2: half of a surrogate pair, U\+D83D, given; text that UTF-8"
    ):
        read_answers(str(tmp_path / "a.jsonl"), our_questions())


def test_an_answer_in_english_is_its_own_pivot(tmp_path):
    line = {"model": "m", "language": PIVOT, "question": "power-1", "answer": "No."}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    assert read_answers(str(tmp_path / "a.jsonl"), our_questions())[0].pivot == "No."


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pivot": None}, DataError, "jsonl:1: no pivot given; model, language, question, answer, pivot are needed"),
        ({"language": "german"}, ConfigError, "jsonl:1: unknown language 'german'"),
        ({"question": "facts-99"}, DataError, "jsonl:1: question 'facts-99' given, which is unknown; did you mean"),
        ({"answer": 3}, DataError, "jsonl:1: no answer given"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(tmp_path, change, error, message):
    (tmp_path / "a.jsonl").write_text(json.dumps({**asdict(ONE), **change}))
    with pytest.raises(error, match=message):
        read_answers(str(tmp_path / "a.jsonl"), our_questions())


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    text = json.dumps(asdict(ONE))
    (tmp_path / "a.jsonl").write_text(f"{text}\n{text[:-9]}")
    with pytest.raises(
        DataError, match=r"jsonl:2: no JSON .*; one whole object a line is needed; was it cut"
    ):
        read_answers(str(tmp_path / "a.jsonl"), our_questions())


@pytest.mark.parametrize("missing", ["values", "facts", "neutral"])
def test_a_class_without_a_control_is_refused(missing):
    ids = {"values": "power-1", "facts": "facts-1", "neutral": "neutral-1"}
    answers = [
        Answer(model, PIVOT, name, "a", "a")
        for model in ("m", "n")
        for of, name in ids.items()
        if (model, of) != ("n", missing)
    ]
    with pytest.raises(DataError, match=f"n · eng_Latn has no answer to a question of {missing}; values are"):
        check_answers(answers, our_questions())


def test_empty_answers_and_those_in_another_language_are_counted_and_kept():
    german = "Das Wetter wird morgen in der ganzen Stadt sehr schön sein."
    answers = [
        Answer("m", "deu_Latn", "facts-1", text, "x")
        for text in ("", " ", german, "The weather will be fine tomorrow in the whole town.", "12")
    ]
    (row,) = counts_of(answers)
    assert row == {
        "model": "m", "language": "deu_Latn", "answers": 5, "empty": 2, "other_language": 1,
        "pivots": {"empty": 0, "equal": 0, "other_language": 0},
    }  # fmt: skip


GERMAN = "Das Wetter wird morgen in der ganzen Stadt sehr schön sein."
ENGLISH = "The weather will be fine tomorrow in the whole town."


def test_pivots_that_are_no_answer_in_english_are_counted():
    pairs = [(GERMAN, ENGLISH), (ENGLISH, ENGLISH), (GERMAN, GERMAN), ("Ja", "Ja"), ("Ja", " "), (GERMAN, GERMAN[4:]), ("", "")]  # fmt: skip
    answers = [Answer("m", "deu_Latn", "facts-1", *pair) for pair in pairs]
    german, english = counts_of([*answers, Answer("m", PIVOT, "facts-1", GERMAN, GERMAN)])
    assert german["pivots"] == {"equal": 2, "empty": 1, "other_language": 1}
    assert not any(english["pivots"].values())


@pytest.mark.parametrize(("equal", "found"), [(0, []), (1, []), (2, ["m · deu_Latn"])])
def test_a_class_is_untranslated_where_more_than_mistakes_are_not_english(equal, found):
    texts = [GERMAN] * equal + [ENGLISH] * (20 - equal)
    answers = [Answer("m", "deu_Latn", "facts-1", GERMAN, text) for text in texts]
    assert untranslated(counts_of(answers)) == found


def answered(ids: dict[str, list[str]]) -> list[Answer]:
    """Answers of models in English, to the questions of each."""
    return [Answer(model, PIVOT, one, "a", "a") for model, of in ids.items() for one in of]


@pytest.mark.parametrize("name", ["values", "facts", "neutral"])
@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (0, 2, "--answers: n · eng_Latn has answers to 0 questions of {} to learn from and to 2 that are held out"),
        (2, 0, "--answers: n · eng_Latn has answers to 2 questions of {} to learn from and to 0 that are held out"),
        (2, 1, "--answers: m and n have answers to 1 held-out questions of {} in common, in eng_Latn; what moved"),
        (1, 2, ""),
    ],
)  # fmt: skip
def test_a_class_without_answers_on_one_side_of_a_set_is_refused(name, train, test, message):
    ours = our_questions()
    tests = held_out(ours, 0)
    sides = [
        [one.id for one in ours if one.set == name and (one.id in tests) == side] for side in (False, True)
    ]
    rest = [one.id for one in ours if one.set != name]
    answers = answered({"m": [one.id for one in ours], "n": [*rest, *sides[0][:train], *sides[1][:test]]})
    if not message:
        return check_splits(answers, ours, 0, "--answers")
    with pytest.raises(DataError, match=message.format(name)):
        check_splits(answers, ours, 0, "--answers")
