"""What is told of values and controls of which only the topic differs."""

import numpy as np
import pytest

from jaxlingua.analysis.values.answers import Answer
from jaxlingua.analysis.values.measure import FROZEN, Learning, measure
from jaxlingua.analysis.values.questions import CONTROLS, PIVOT, our_questions
from jaxlingua.progress import told

EMBED = 16
CLASSES = tuple((model, language) for model in ("base", "tuned") for language in (PIVOT, "jav_Latn"))


def moved_alike(offset: float, seed: int = 0) -> tuple[list[Answer], np.ndarray]:
    """Answers of which a tuned model moved all sets as far; controls lie off by `offset` a dimension."""
    rng = np.random.default_rng(seed)
    of_class = 0.5 * rng.normal(size=(len(CLASSES), EMBED))
    topics = {"values": 0.0, **{name: offset * rng.choice([-1, 1], size=EMBED) for name in CONTROLS}}
    answers, vectors = [], []
    for question in our_questions():
        about = topics[question.set] + rng.normal(size=EMBED)
        for (model, language), own in zip(CLASSES, of_class, strict=True):
            answers.append(Answer(model, language, question.id, "a", "a"))
            vectors.append(about + own + 0.5 * rng.normal(size=EMBED))
    return answers, np.array(vectors, np.float32)


def measured(offset: float, seed: int = 0) -> dict:
    learning = Learning(mosts=(3,), steps=60, seed=0, masks_same_class=False, samples=200)
    answers, vectors = moved_alike(offset, seed)
    content, _, _ = measure(
        answers, our_questions(), vectors, learning, lambda what: told(lambda line: None, what)
    )
    return content


@pytest.fixture(scope="module")
def near_and_off() -> tuple[dict, dict]:
    return measured(0.0), measured(2.0)


def test_where_a_control_lies_changes_no_shift_and_no_distance(near_and_off):
    near, off = near_and_off
    assert len(near["shifts"]) == 2 * 2 * 3  # vectors, languages, sets
    for one, other in zip(near["shifts"], off["shifts"], strict=True):
        for name in ("value", "low", "high", "noise"):
            assert one[name] == pytest.approx(other[name], abs=1e-4), one
    for one, other in zip(near["distances"], off["distances"], strict=True):
        np.testing.assert_allclose(one["cosines"], other["cosines"], atol=1e-4)


def test_values_did_not_move_more_where_all_sets_moved_alike(near_and_off):
    _, off = near_and_off
    told_more = [row for row in off["shifts"] if row["values_more_by"] is not None]
    assert {row["vectors"] for row in told_more} == {FROZEN, "λ = 3"}
    for row in told_more:
        assert row["value"] > row["noise"], row  # it did move
        assert row["values_more_by"]["low"] < 0 < row["values_more_by"]["high"], row
