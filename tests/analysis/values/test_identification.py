"""Whose answer it is: planted classes, shuffled labels, scikit-learn's numbers, controls beside."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from jaxlingua.analysis.values import identification
from jaxlingua.analysis.values.encoder import Scale, learn
from jaxlingua.analysis.values.identification import (
    METHODS,
    NEIGHBORS,
    found_within,
    identified,
    nearest_scores,
    probe_scores,
    weighted_f1,
)
from jaxlingua.analysis.values.questions import SETS
from jaxlingua.analysis.values.views import Views
from jaxlingua.errors import DataError
from tests.analysis.values.planted import planted, three


def values_of(rows: list[dict], measure: str) -> list[float]:
    return [row["value"] for row in rows if row["measure"] == measure]


def test_planted_classes_are_all_found_with_all_controls_beside():
    rows = identified(three(6.0), samples=50, seed=0)
    assert values_of(rows, "accuracy@1") == [1.0] * len(SETS) * len(METHODS)
    assert values_of(rows, "weighted F1") == pytest.approx([1.0] * 6)
    assert values_of(rows, "accuracy@3") == [1.0] * 6
    assert not values_of(rows, "accuracy@5")  # of four classes
    assert {(row["set"], row["method"]) for row in rows} == {(a, b) for a in SETS for b in METHODS}
    assert all(row["low"] < 1 and row["questions"] == 10 and row["answers"] == 40 for row in rows if row["measure"] == "accuracy@1")  # fmt: skip
    assert {row["chance"] for row in rows if row["measure"] == "accuracy@1"} == {0.25}
    assert {row["chance"] for row in rows if row["measure"] == "accuracy@3"} == {0.75}


def test_planted_classes_are_all_found_in_learned_vectors_too():
    """The encoder has learned from values alone; what belongs to the classes is the same in all sets."""
    sets = three(6.0)
    of = sets["values"]
    train = ~of.is_test
    scale = Scale.of(of.vectors[train])
    views = Views(of.labels[train], 5, 64, 0)
    encoder = learn(scale(of.vectors[train]), views, steps=30, masks_same_class=False)
    learned = {name: replace(one, vectors=encoder(scale(one.vectors))) for name, one in sets.items()}
    rows = identified(learned, samples=50, seed=0)
    assert values_of(rows, "accuracy@1") == [1.0] * len(SETS) * len(METHODS)
    assert values_of(rows, "weighted F1") == pytest.approx([1.0] * 6)


@pytest.fixture
def given(monkeypatch) -> list[tuple]:
    """What neighbors are looked for in: vectors, answers by class, held-out answers, neighbors."""
    found = []

    def nearest(train, labels, test, classes, count):
        found.append((train, np.bincount(labels).tolist(), len(test), count))
        return nearest_scores(train, labels, test, classes, count)

    monkeypatch.setattr(identification, "nearest_scores", nearest)
    return found


def test_all_sets_learn_from_as_many_questions_with_as_many_neighbors(given):
    sets = {name: planted(1.0, questions=n, kept=0) for name, n in zip(SETS, (90, 60, 75), strict=True)}
    rows = identified(sets, samples=10, seed=0)
    assert [each[1:] for each in given] == [([40] * 4, tests, 40) for tests in (120, 80, 100)]
    assert {row["learned_from"] for row in rows} == {40}
    assert rows == identified(sets, samples=10, seed=0)
    identified(sets, samples=10, seed=1)
    (values, facts, _), (again, _, _), (other, others_facts, _) = given[:3], given[3:6], given[6:]
    np.testing.assert_array_equal(values[0], again[0])
    assert (values[0] != other[0]).any()
    np.testing.assert_array_equal(facts[0], others_facts[0])  # the smallest has all of its own


def test_questions_that_all_classes_answered_are_drawn_first(given):
    """Of the 40 training questions about values, class 3 answered 20; both controls have 20."""
    many = planted(6.0, questions=60, kept=0)
    kept = (many.labels != 3) | many.is_test | (many.questions % 2 == 0)
    values = identification.Labeled(
        many.vectors[kept], many.labels[kept], many.questions[kept], many.is_test[kept]
    )
    identified({**three(6.0), "values": values}, samples=10, seed=0)
    assert [each[1] for each in given] == [[20] * 4] * 3


@pytest.mark.parametrize("missing", SETS)
def test_no_score_is_made_without_its_controls(missing):
    sets = {name: of for name, of in three(6.0).items() if name != missing}
    with pytest.raises(DataError, match=f"no answers to questions of {missing} given; values are never told"):
        identified(sets, samples=50, seed=0)


def shuffled(of: identification.Labeled, seed: int) -> identification.Labeled:
    """Which model gave an answer is drawn by lot, question by question."""
    rng = np.random.default_rng(seed)
    labels = of.labels.copy()
    for question in np.unique(of.questions):
        own = of.questions == question
        labels[own] = rng.permutation(labels[own])
    return replace(of, labels=labels)


def test_shuffled_labels_are_at_chance_frozen_and_learned():
    """600 held-out answers of 4 classes; wrong once in 10,000 seeds for each of the four numbers."""
    of = shuffled(planted(6.0, questions=450), 0)
    train = ~of.is_test
    scaled = Scale.of(of.vectors[train])(of.vectors)
    encoder = learn(scaled[train], Views(of.labels[train], 5, 64, 0), steps=40, masks_same_class=True)
    assert np.count_nonzero(of.is_test) == 600
    low, high = binom.interval(1 - 1e-4, 600, 0.25)
    for vectors in (scaled, encoder(scaled)):
        given = (vectors[train], of.labels[train], vectors[of.is_test], 4)
        for scores in (nearest_scores(*given, NEIGHBORS), probe_scores(*given)):
            assert low <= found_within(scores, of.labels[of.is_test], 1).sum() <= high


def test_the_probe_is_scikit_learns():
    of = planted(0.6)
    vectors = of.vectors.astype(np.float64)
    train, test = vectors[~of.is_test], vectors[of.is_test]
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(train, of.labels[~of.is_test])
    scores = probe_scores(train, of.labels[~of.is_test], test, 4)
    own = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(own / own.sum(axis=1, keepdims=True), theirs.predict_proba(test), atol=1e-4)


def test_neighbors_are_scikit_learns_where_no_votes_are_equal():
    of = planted(1.0, classes=2)  # of two classes five votes are never equal
    train, test = of.vectors[~of.is_test], of.vectors[of.is_test]
    theirs = KNeighborsClassifier(5, metric="cosine").fit(train, of.labels[~of.is_test])
    scores = nearest_scores(train, of.labels[~of.is_test], test, 2, 5)
    np.testing.assert_array_equal(scores.argmax(axis=1), theirs.predict(test))


def test_of_classes_with_as_many_votes_the_nearer_one_is_first_and_a_small_class_can_win():
    train = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]])
    labels = np.array([0, 1, 1, 1, 1])
    scores = nearest_scores(train, labels, np.array([[1.0, 0.1]]), 2, 1)  # as many as class 0 has
    assert scores.argmax() == 0
    labels = np.array([1, 0, 0, 1, 1])
    scores = nearest_scores(train, labels, np.array([[0.97, 0.2]]), 2, 2)  # a vote each
    assert int(scores[0, 0]) == int(scores[0, 1]) == 1
    assert scores.argmax() == 1


def test_equally_good_classes_share_the_point():
    scores = np.array([[2.0, 1.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    labels = np.array([1, 3, 0])
    np.testing.assert_allclose(found_within(scores, labels, 1), [0, 0, 0.25])
    np.testing.assert_allclose(found_within(scores, labels, 3), [1, 0.5, 0.75])


def test_weighted_f1_is_scikit_learns_also_of_resamples():
    rng = np.random.default_rng(0)
    labels, guessed = rng.integers(4, size=60), rng.integers(3, size=60)
    weights = np.stack([np.ones(60), rng.integers(0, 3, size=60)])
    theirs = [
        f1_score(labels, guessed, average="weighted", sample_weight=w, zero_division=0) for w in weights
    ]
    np.testing.assert_allclose(weighted_f1(guessed, labels, weights, 4), theirs)


def test_one_class_and_no_held_out_question_are_refused():
    sets = three(6.0)
    one = replace(sets["facts"], labels=np.zeros_like(sets["facts"].labels))
    with pytest.raises(DataError, match="values: facts has 1 classes, 40 held-out answers; two classes with"):
        identified({**sets, "facts": one}, samples=10, seed=0)
    none = replace(sets["neutral"], is_test=np.zeros(120, bool))
    with pytest.raises(DataError, match="values: neutral has 4 classes, 0 held-out answers"):
        identified({**sets, "neutral": none}, samples=10, seed=0)
