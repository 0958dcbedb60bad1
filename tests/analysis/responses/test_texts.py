"""One answer: its language, its repetitions and what it copies, against plain counts."""

import random

import pytest

from jaxlingua.analysis.responses.texts import (
    EMPTY,
    NO_LETTERS,
    SHORT,
    UNSURE,
    copied_grams,
    ends_in_loop,
    language_of,
    repeated_grams,
    words_of,
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("The weather will be fine tomorrow, and we shall walk to the river.", "eng_Latn"),
        ("Завтра будет хорошая погода, и мы пойдём к реке.", "rus_Cyrl"),
        ("明天天气很好，我们会去河边散步。", "zho_Hans"),
        (" \n", EMPTY),
        ("1848 – 1849.", NO_LETTERS),
        ("Nile", SHORT),
        ("尼罗河", SHORT),
        ("qwzx vbnk lkjh trpw qqrs", UNSURE),
    ],
)
def test_the_language_of_an_answer_or_why_it_is_not_told(text, told):
    assert language_of(text) == told


def test_words_are_without_punctuation_and_case():
    assert words_of("The Nile, 6,650 km!") == ["the", "nile", "6,650", "km"]
    assert words_of("尼罗河。") == ["尼", "罗", "河"]


def test_repeated_and_copied_runs_are_those_of_a_plain_count():
    rng = random.Random(0)
    for _ in range(300):
        words, source = ([rng.choice("abc") for _ in range(rng.randrange(14))] for _ in range(2))
        repeated = total = copied = 0
        for start in range(len(words) - 3):
            run = words[start : start + 4]
            total += 1
            repeated += any(words[before : before + 4] == run for before in range(start))
            copied += any(source[at : at + 4] == run for at in range(len(source)))
        assert repeated_grams(words) == (repeated, total)
        if len(words) >= 4:
            assert copied_grams(words, source) == (copied, total)
        elif words:
            stands = any(source[at : at + len(words)] == words for at in range(len(source)))
            assert copied_grams(words, source) == (int(stands), 1)


@pytest.mark.parametrize(
    ("text", "is_loop"),
    [
        ("we go to the river and the river and the river and the river", True),
        ("yes yes yes yes yes yes yes yes", True),
        ("no no no", False),  # people write so
        ("one two three one two three four", False),
        ("the river and the river and the river and then we rest", False),  # it has left the loop
        ("a b c d e f a b c d e f", False),  # twice
        ("one two three four five six seven a b c d a b c d", False),  # also twice
        ("a b c d e f a b c d e f a b c d e f a", True),
    ],
)
def test_an_answer_loops_where_its_end_is_a_block_again_and_again(text, is_loop):
    assert ends_in_loop(text.split()) is is_loop


def test_of_an_answer_that_was_cut_the_last_word_may_be_a_part():
    words = ["the", "river", "and", "the", "river", "and", "the", "river", "and", "the", "riv"]
    assert ends_in_loop(words, is_finished=False)
    assert not ends_in_loop(words)
