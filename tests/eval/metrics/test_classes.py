"""Accuracy and F1 by hand; scikit-learn's are in tests/reference/test_scorers.py."""

import numpy as np
import pytest

from jaxlingua.eval.metrics.classes import class_metrics
from jaxlingua.eval.metrics.measured import interval

LABELS = ["no", "yes", "maybe"]


def test_f1_of_classes_is_as_by_hand():
    """yes: 1 of 2 predicted is right, 1 of 1 found; no: 1 of 1 right, 1 of 3 found; maybe: never there."""
    gold, predictions = ["yes", "no", "no", "no"], ["yes", "yes", "no", "perhaps"]
    accuracy, macro, weighted = class_metrics(predictions, [(label,) for label in gold], LABELS)
    yes, no = 2 / 3, 1 / 2
    assert accuracy.values == [100, 0, 100, 0]
    assert accuracy.value == 50
    assert macro.value == pytest.approx(100 * (yes + no + 0) / 3)
    assert weighted.value == pytest.approx(100 * (yes * 1 + no * 3) / 4)
    assert macro.signature == "metric:macro_f1|labels:3|absent:0"


@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_weighted_f1_of_the_majority_is_its_closed_form(share):
    """Precision is its share p and recall 1, so that F1 is 2p / (1 + p), and p of all items weigh it."""
    often = round(100 * share)
    gold = [("yes",)] * often + [("no",)] * (100 - often)
    accuracy, macro, weighted = class_metrics(["yes"] * 100, gold, LABELS[:2])
    assert accuracy.value == pytest.approx(100 * share)
    assert weighted.value == pytest.approx(100 * share * 2 * share / (1 + share))
    assert macro.value == pytest.approx(100 * share / (1 + share))


def test_f1_has_an_interval_around_it_and_no_score_of_one_item():
    rng = np.random.default_rng(0)
    gold = list(rng.choice(LABELS, size=200))
    predictions = [label if rng.random() < 0.7 else "no" for label in gold]
    for one in class_metrics(predictions, [(label,) for label in gold], LABELS):
        low, high = interval(one, samples=200, seed=0)
        assert low < one.value < high < low + 25
        assert one.score_of_one == (one.metric == "accuracy")
