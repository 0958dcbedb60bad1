"""An example's ranges cut out exactly what is learned."""

import pytest

from jaxlingua.data.example import Example
from jaxlingua.errors import DataError


def test_prompt_ends_where_the_last_answer_begins():
    example = Example("chat", 0, "eng_Latn", "hi\nhello\nbye\nfarewell", ((3, 8), (13, 21)))
    assert example.answer_texts == ("hello", "farewell")
    assert example.prompt == "hi\nhello\nbye\n"


def test_ranges_count_code_points_not_bytes():
    text = "مرحبا\nसुप्रभात 🎉"
    assert Example("x", 0, "hin_Deva", text, ((6, len(text)),)).answer_texts == ("सुप्रभात 🎉",)


@pytest.mark.parametrize(
    "answers", [((2, 2),), ((3, 2),), ((0, 6),), ((-1, 2),), ((2, 4), (0, 1)), ((0, 3), (2, 4))]
)
def test_a_range_that_is_empty_out_of_bounds_or_out_of_order_is_refused(answers):
    with pytest.raises(DataError, match=r"^news \(record 7\): answer range .* given; ranges are ascending"):
        Example("news", 7, "eng_Latn", "abcde", answers)


def test_an_example_without_answer_is_refused():
    with pytest.raises(
        DataError, match=r"^news \(record 7\): no answer given; an example needs at least one range"
    ):
        Example("news", 7, "eng_Latn", "abcde", ())


def test_ranges_that_touch_are_two_answers():
    assert Example("chat", 0, "eng_Latn", "ab", ((0, 1), (1, 2))).answer_texts == ("a", "b")
