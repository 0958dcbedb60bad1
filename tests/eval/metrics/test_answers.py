"""Containment: whether the answer is anywhere in what was said."""

import pytest

from jaxlingua.eval.metrics.answers import containment_metrics

CASES = [  # language, prediction, targets, released rule, with the normalization of MLQA
    ("eng_Latn", "It flows into the NILE delta.", ("Nile",), 1, 1),
    ("eng_Latn", "It flows into the Amazon.", ("Nile",), 0, 0),
    ("eng_Latn", "", ("Nile",), 0, 0),
    ("eng_Latn", " ", ("Nile",), 0, 0),
    ("eng_Latn", "A.D. 1066", ("AD 1066",), 0, 1),  # punctuation
    ("eng_Latn", "the Nile and the Amazon", ("Nile and Amazon",), 0, 1),  # articles
    ("eng_Latn", "the Amazon", ("Nile", "Amazon"), 0, 1),  # the second target
    ("eng_Latn", "the Nile", ("the",), 1, 0),  # a target that normalization empties
    ("eng_Latn", "a", ("the",), 0, 1),  # as in exact_match: both are emptied
    ("eng_Latn", "", ("the",), 0, 0),
    ("tur_Latn", "Ankara'da doğdu", ("Ankara",), 1, 1),
    ("zho_Hans", "全长约6,650公里。", ("6650公里",), 0, 1),
    ("arb_Arab", "في القاهرة، عام 1952", ("القاهرة",), 1, 1),
    ("rus_Cyrl", "в городе МОСКВА", ("Москва",), 1, 1),
]


@pytest.mark.parametrize(("language", "prediction", "targets", "released", "normalized"), CASES)
def test_containment_is_as_by_hand_under_both_rules(language, prediction, targets, released, normalized):
    values = [one.values for one in containment_metrics([prediction], [targets], language)]
    assert values == [[100.0 * released], [100.0 * normalized]]


def test_the_two_rules_of_containment_have_names_and_signatures_of_their_own():
    first, second = containment_metrics(["a"], [("a",)], "zho_Hans")
    assert first.signature == "metric:containment|case:lc|norm:none|targets:first"
    assert second.signature == "metric:containment_mlqa|norm:mlqa1|articles:none|seg:Hans|targets:any"
