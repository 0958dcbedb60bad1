"""Held-out records: as many as asked for, always the same ones, none of whose text is trained on."""

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxlingua.data.held_out import choose_held_out, groups_of_shared_text
from jaxlingua.data.leaks import find_leaks
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text
from jaxlingua.errors import ConfigError


def texts(*lines: str) -> list[Text]:
    return [Text(index, "eng_Latn", line) for index, line in enumerate(lines)]


def different(count: int) -> list[Text]:
    return texts(*(f"line {number}" for number in range(count)))


@pytest.mark.parametrize(
    ("records", "expected"), [(19, 0), (20, 1), (100, 1), (250, 2), (5000, 50), (25_600, 256), (40_000, 256)]
)
def test_auto_is_one_percent_at_least_one_and_at_most_256(records, expected):
    assert len(choose_held_out("news", different(records), "auto")) == expected


@pytest.mark.parametrize("count", [0, 1, 17, 100])
def test_the_count_is_exact(count):
    assert len(choose_held_out("news", different(100), count)) == count


def test_the_choice_is_the_same_every_time_and_another_for_another_source():
    assert choose_held_out("news", different(100), 5) == {24, 35, 65, 80, 88}
    assert choose_held_out("web", different(100), 5) != choose_held_out("news", different(100), 5)


def test_a_larger_count_keeps_what_a_smaller_one_held_out():
    smaller, larger = (choose_held_out("news", different(100), count) for count in (5, 20))
    assert smaller < larger


def test_every_record_is_held_out_about_as_often_as_any_other():
    """Over 400 names each of 50 records is drawn 80 times on average, with a standard deviation of 8."""
    drawn = Counter(
        index for number in range(400) for index in choose_held_out(f"s{number}", different(50), 10)
    )
    assert all(abs(drawn[index] - 80) < 4 * 8 for index in range(50))


def test_a_record_keeps_its_rank_when_others_are_skipped():
    """What counts is the index in the file, not the position among the records that are left."""
    chosen = choose_held_out("news", different(100), 5)
    left = [record for record in different(100) if record.index in chosen or record.index % 2]
    assert choose_held_out("news", left, 5) == chosen


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("klmnopqrst")), min_size=1, max_size=40
    ),
    st.integers(1, 10),
)
def test_no_text_is_on_both_sides(sides, count):
    """Sides are shared at random, so groups are chains of pairs that share one side with the next."""
    records = [Pair(i, {"eng_Latn": first, "deu_Latn": second}) for i, (first, second) in enumerate(sides)]
    smallest_group = min(Counter(groups_of_shared_text(records)).values())
    assume(smallest_group <= count <= len(records))
    held_out = choose_held_out("news", records, count)
    assert 0 < len(held_out) <= count
    split = [set(), set()]
    for record in records:
        split[record.index in held_out] |= set(record.texts.values())
    assert not split[0] & split[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Text(0, "eng_Latn", "Two  Men."), Text(1, "eng_Latn", "two men")),
        (Pair(0, {"eng_Latn": "a", "deu_Latn": "b"}), Pair(1, {"eng_Latn": "c", "deu_Latn": "B"})),
        (Instruction(0, "eng_Latn", "a", "b", "c"), Instruction(1, "eng_Latn", "a", "b", "d")),
        (
            Question(0, "x", "eng_Latn", "a b", "c", ("a",), 0),
            Question(1, "y", "eng_Latn", "a b", "d", ("b",), 2),
        ),
        (
            Conversation(0, "eng_Latn", (("user", "a"), ("assistant", "b"))),
            Conversation(1, "eng_Latn", (("user", "a"), ("assistant", "c"))),
        ),
    ],
    ids=["text", "pair", "instruction", "question", "conversation"],
)
def test_records_that_share_what_is_asked_stay_together(first, second):
    assert groups_of_shared_text([first, second]) == [0, 0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Instruction(0, "eng_Latn", "a", "b", "c"), Instruction(1, "eng_Latn", "a", "d", "c")),
        (Text(0, "eng_Latn", "..."), Text(1, "eng_Latn", "?!")),
    ],
    ids=["same instruction, another input", "nothing but punctuation"],
)
def test_records_that_only_look_alike_are_not_tied(first, second):
    assert groups_of_shared_text([first, second]) == [0, 1]


def test_a_chain_of_shared_texts_is_one_group():
    pairs = [("a", "x"), ("b", "y"), ("b", "x"), ("c", "z")]
    records = [Pair(i, {"eng_Latn": first, "deu_Latn": second}) for i, (first, second) in enumerate(pairs)]
    assert groups_of_shared_text(records) == [0, 0, 0, 3]


def test_a_group_that_does_not_fit_is_left_for_smaller_ones():
    records = texts(*["same"] * 10, *(f"line {number}" for number in range(5)))
    assert choose_held_out("news", records, 5) == set(range(10, 15))


def test_what_is_held_out_does_not_leak_from_the_rest():
    lines = [f"A man rides his bicycle number {number % 60}." for number in range(200)]
    records = [Pair(i, {"eng_Latn": line, "deu_Latn": f"{i} {line}"}) for i, line in enumerate(lines)]
    held_out = choose_held_out("news", records, 40)
    assert 36 < len(held_out) <= 40
    training = [record for record in records if record.index not in held_out]
    evaluated = [record for record in records if record.index in held_out]
    assert find_leaks({"news": training}, {"news": evaluated}) == []


def test_more_than_there_are_is_refused():
    with pytest.raises(ConfigError) as caught:
        choose_held_out("news", different(12), 13)
    assert str(caught.value) == (
        "data.sources.news.held_out_records: 13 given; the source has 12 records; give 12 or fewer"
    )


def test_a_count_that_no_group_fits_is_refused_but_auto_holds_none_out():
    records = texts(*["same"] * 30, *["other"] * 20)
    with pytest.raises(ConfigError) as caught:
        choose_held_out("news", records, 13)
    assert str(caught.value) == (
        "data.sources.news.held_out_records: 13 given; records that share a text stay together, "
        "20 in the smallest group; give that many or more, or 0"
    )
    assert choose_held_out("news", records, "auto") == frozenset()
