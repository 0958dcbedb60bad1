"""Two views of a class for each row of a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlingua.analysis.values.views import NONE, Views, check_views
from jaxlingua.errors import DataError


@given(st.data())
def test_views_are_of_one_class_without_repeats_and_share_no_more_than_they_must(data):
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    most = data.draw(st.integers(1, min(sizes)))
    classes = np.repeat(np.arange(len(sizes)), sizes)
    classes = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(classes)
    views = Views(classes, most, batch_rows=5, seed=data.draw(st.integers(0, 99)))
    members, of_rows = views.at(data.draw(st.integers(0, 99)))
    for row, own in enumerate(of_rows):
        first, second = ([one for one in view[row] if one != NONE] for view in members)
        for view in (first, second):
            assert 1 <= len(view) <= most
            assert len(set(view)) == len(view)
            assert set(classes[view]) == {own}
        assert len({*first, *second}) == min(len(first) + len(second), sizes[own])


@given(st.data())
def test_views_share_no_more_questions_than_they_must_however_many_answers_each_has(data):
    per_class = data.draw(
        st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=9), min_size=1, max_size=4)
    )
    most = data.draw(st.integers(1, min(map(len, per_class))))
    pairs = np.array(
        [
            (label, question)
            for label, counts in enumerate(per_class)
            for question, count in enumerate(counts)
            for _ in range(count)
        ]
    )
    classes, questions = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(pairs).T
    views = Views(classes, most, batch_rows=5, seed=data.draw(st.integers(0, 99)), questions=questions)
    members, of_rows = views.at(data.draw(st.integers(0, 99)))
    for row, own in enumerate(of_rows):
        asked = [questions[view[row][view[row] != NONE]].tolist() for view in members]
        for view, numbers in zip(members, asked, strict=True):
            assert set(classes[view[row][view[row] != NONE]]) == {own}
            assert 1 <= len(numbers) == len(set(numbers)) <= most
        assert len({*asked[0], *asked[1]}) == min(len(asked[0]) + len(asked[1]), len(per_class[own]))


def test_all_answers_to_a_question_are_drawn_alike_and_so_are_questions():
    """20 questions, of which one has four answers and 19 one; bounds of four standard deviations."""
    questions = np.r_[0, 0, 0, np.arange(20)]
    members, _ = Views(np.zeros(23, int), 1, 8000, 0, questions).at(0)
    counts = np.bincount(questions[members[0, :, 0]], minlength=20)
    np.testing.assert_allclose(counts, 400, atol=4 * np.sqrt(8000 * 0.05 * 0.95))
    of_first = np.bincount(members[0, :, 0], minlength=23)[:4]
    np.testing.assert_allclose(of_first, counts[0] / 4, atol=4 * np.sqrt(counts[0] * 0.25 * 0.75))


def test_views_are_a_function_of_seed_and_step():
    classes = np.repeat([0, 1], 20)
    one, again, other = (Views(classes, 5, 16, seed) for seed in (3, 3, 4))
    one.at(0)  # what was drawn before does not matter
    for found, expected in zip(one.at(7), again.at(7), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (one.at(7)[0] != other.at(7)[0]).any()
    assert (one.at(7)[0] != one.at(8)[0]).any()


def test_sizes_are_uniform_and_classes_in_proportion_to_their_pairs():
    """4,000 rows: the bounds are four standard deviations."""
    views = Views(np.repeat([0, 1], [30, 10]), 5, 4000, 0)
    members, classes = views.at(0)
    assert abs((classes == 0).mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4000)
    for view in members:
        counts = np.bincount((view != NONE).sum(axis=1), minlength=6)[1:] / 4000
        np.testing.assert_allclose(counts, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / 4000))
    used = np.bincount(members[0][classes == 1].ravel() + 1, minlength=41)[31:]
    assert used.min() > 0.8 * used.mean()  # every pair of a class is drawn alike


def test_one_class_and_a_class_with_fewer_answers_than_a_view_are_refused():
    with pytest.raises(DataError, match=r"values: answers of one class given \(a · eng_Latn\); two or more"):
        check_views({"a · eng_Latn": 9}, 1)
    with pytest.raises(
        DataError,
        match=r"--lambda: 5 given, and b · eng_Latn has 4 answers to learn from to different questions",
    ):
        check_views({"a · eng_Latn": 9, "b · eng_Latn": 4}, 5)
    check_views({"a · eng_Latn": 9, "b · eng_Latn": 5}, 5)
