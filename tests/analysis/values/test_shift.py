"""How far a class moved, against chance and against controls."""

import numpy as np
import pytest

from jaxlingua.analysis.values.shift import class_cosines, more_than, plane_of, question_means, shift_of


def answers(rng: np.random.Generator, questions: int = 20) -> np.ndarray:
    return rng.normal(size=(questions, 8))


def test_the_shift_is_around_zero_where_nothing_moved_and_the_plain_distance_is_not():
    """400 draws; three standard errors."""
    rng = np.random.default_rng(0)
    pairs = [(answers(rng), answers(rng)) for _ in range(400)]
    shifts = np.array([shift_of(a, b, samples=1, seed=0).told.value for a, b in pairs])
    plain = np.array([((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() for a, b in pairs])
    assert abs(shifts.mean()) < 3 * shifts.std() / np.sqrt(400)
    assert plain.mean() > 10 * plain.std() / np.sqrt(400)


def test_the_shift_is_the_squared_distance_in_expectation():
    rng = np.random.default_rng(1)
    moved = np.full(8, 0.5)
    shifts = np.array(
        [shift_of(answers(rng), answers(rng) + moved, samples=1, seed=0).told.value for _ in range(400)]
    )
    assert abs(shifts.mean() - 2.0) < 3 * shifts.std() / np.sqrt(400)


def test_the_shift_is_the_mean_over_different_questions():
    rng = np.random.default_rng(2)
    a, b = answers(rng, 5), answers(rng, 5)
    change = b - a
    expected = np.mean([change[q] @ change[r] for q in range(5) for r in range(5) if q != r])
    assert shift_of(a, b, samples=1, seed=0).told.value == pytest.approx(expected)


def test_noise_is_passed_by_chance_one_time_in_twenty():
    rng = np.random.default_rng(3)
    of = [shift_of(answers(rng), answers(rng), samples=200, seed=each) for each in range(300)]
    passed = np.mean([one.told.value > one.noise for one in of])
    assert abs(passed - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 300)


def test_the_interval_holds_the_shift_of_moved_classes():
    """Bootstrap over 40 questions, nominally 95 %; of 200 draws."""
    rng = np.random.default_rng(4)
    of = [
        shift_of(answers(rng, 40), answers(rng, 40) + 0.5, samples=200, seed=each).told for each in range(200)
    ]
    held = np.mean([one.low <= 2.0 <= one.high for one in of])
    assert held > 0.88


def test_more_than_a_control():
    rng = np.random.default_rng(5)
    a, b = answers(rng, 40), answers(rng, 40)
    moved = shift_of(a, b + 1.0, samples=200, seed=0)
    still = shift_of(a, b, samples=200, seed=0)
    told = more_than(moved, still)
    assert told.value == pytest.approx(moved.told.value - still.told.value)
    assert 0 < told.low < told.value < told.high
    assert more_than(still, moved).high < 0
    same = more_than(still, still)
    assert same.low < 0 < same.high  # resamples of another set are others, also where they are as many


def test_a_single_question_has_no_shift():
    one = shift_of(np.ones((1, 8)), np.zeros((1, 8)), samples=10, seed=0)
    assert one.told.value is None
    assert np.isnan(one.noise)


def test_means_of_questions_and_cosines_of_classes():
    vectors = np.array([[1.0, 0], [0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    means = question_means(vectors, np.array([4, 4, 7, 9]), [4, 9])
    np.testing.assert_allclose(means, [[0.5, 0.5], [-1, -1]])
    found = class_cosines(vectors, np.array([0, 0, 1, 2]), 4)
    np.testing.assert_allclose(found[:3, :3], [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-12)
    assert np.isnan(found[3]).all()


def test_a_plane_is_scikit_learns():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(6).normal(size=(50, 6)) * [3, 2, 1, 1, 1, 1]
    mean, directions, shares = plane_of(vectors)
    theirs = PCA(2).fit(vectors)
    ours = (vectors - mean) @ directions
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs.transform(vectors)), atol=1e-9)
    np.testing.assert_allclose(shares, theirs.explained_variance_ratio_)
    assert (directions[np.abs(directions).argmax(axis=0), [0, 1]] > 0).all()
