"""Scores: by hand in several scripts, with intervals, and refused where they would be silently wrong."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from jaxlingua.errors import DataError
from jaxlingua.eval.metrics.answers import exact_match, f1, qa_metrics
from jaxlingua.eval.metrics.measured import interval, interval_method, length_metric, mean_of
from jaxlingua.eval.metrics.translation import bleu_tokenizer, translation_metrics

BY_HAND = [  # language, prediction, target, exact match, F1
    ("eng_Latn", "The Nile.", "nile", 1, 1),  # case, article, full stop
    ("eng_Latn", "the river Nile", "the Nile", 0, 2 / 3),  # P 1/2, R 1
    ("deu_Latn", "am Ufer des Rheins", "Rheins", 0, 1 / 2),  # am, Ufer, Rheins: P 1/3, R 1
    ("arb_Arab", "«القاهرة»", "القاهرة", 1, 1),  # quotes of another script
    ("arb_Arab", "في القاهرة", "القاهرة", 0, 2 / 3),
    ("hin_Deva", "गंगा नदी।", "गंगा नदी", 1, 1),  # danda
    ("zho_Hans", "约6650公里", "6650公里", 0, 6 / 7),  # 约 6650 公 里: P 3/4, R 1
    ("jpn_Jpan", "ナイル川", "ナイル", 0, 6 / 7),  # characters: P 3/4, R 1
    ("tha_Thai", "ปี", "ปี 1952", 0, 2 / 3),  # a letter with its vowel sign is one unit: P 1, R 1/2
    ("ell_Grek", "Ποταμός;", "ποταμός", 1, 1),  # the Greek question mark
    ("rus_Cyrl", "река Нил", "Нил", 0, 2 / 3),
]


@pytest.mark.parametrize(("language", "prediction", "target", "exact", "overlap"), BY_HAND)
def test_answers_are_scored_as_by_hand(language, prediction, target, exact, overlap):
    assert exact_match(prediction, target, language) == exact
    assert f1(prediction, target, language) == pytest.approx(overlap)


def test_the_best_of_several_targets_counts():
    targets = [("Amazon", "Nile", "Nile river"), ("yes",)]
    exact, overlap = qa_metrics(["the Nile river", "no"], targets, "eng_Latn")
    assert exact.values == [100.0, 0.0]
    assert overlap.values == [100.0, 0.0]
    assert exact.value == overlap.value == 50.0


def test_exact_translations_ignore_form_of_spaces_and_of_accents():
    predictions, targets = ["5\u202fkm à  pied ", "5 KM"], [("5 km a\u0300 pied",), ("5 km",)]
    exact = translation_metrics(predictions, targets, "fra_Latn")[0]
    assert exact.values == [100.0, 0.0]


def test_bleu_segments_scripts_without_spaces():
    """13a takes a Chinese sentence for one word: BLEU would be 0 or 100."""
    by_tokenizer = {
        "zh": "zho_Hans yue_Hant",
        "char": "jpn_Jpan tha_Thai khm_Khmr mya_Mymr",
        "13a": "kor_Hang hin_Deva",
    }
    for tokenizer, languages in by_tokenizer.items():
        assert {bleu_tokenizer(language) for language in languages.split()} == {tokenizer}
    target = "我们现在有四个月大没有病的老鼠"
    bleu = translation_metrics(["我们现在有四个月大的老鼠"], [(target,)], "zho_Hans")[1]
    assert 40 < bleu.value < 90
    assert "tok:zh" in bleu.signature


@pytest.mark.parametrize("score", [translation_metrics, qa_metrics])
def test_a_wrong_number_of_predictions_is_refused(score):
    """sacreBLEU gives one hypothesis against two references 100 chrF++."""
    with pytest.raises(DataError, match="eval: 1 predictions for 2 items; each item needs one prediction"):
        score(["a dog"], [("a dog",), ("a cat",)], "eng_Latn")
    with pytest.raises(DataError, match="0 predictions for 0 items"):
        score([], [], "eng_Latn")
    with pytest.raises(DataError, match="item 1 has no target"):
        score(["a", "b"], [("a",), ()], "eng_Latn")


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    scores = [0.2, 0.9] * 200
    low, high = interval(mean_of("f1", scores, ""), samples=4000, seed=0)
    half = 1.96 * 100 * 0.35 / np.sqrt(400)
    assert low == pytest.approx(55.0 - half, abs=0.4)
    assert high == pytest.approx(55.0 + half, abs=0.4)


@pytest.mark.parametrize(("right", "items"), [(0, 20), (1, 50), (120, 400), (49, 50), (7, 7)])
def test_the_interval_of_items_that_are_right_or_wrong_is_wilson_s(right, items):
    predictions = ["yes"] * right + ["no"] * (items - right)
    exact = qa_metrics(predictions, [("yes",)] * items, "eng_Latn")[0]
    known = scipy.stats.binomtest(right, items).proportion_ci(method="wilson")
    assert interval(exact, samples=10, seed=0) == pytest.approx((100 * known.low, 100 * known.high))
    assert interval_method(exact, 10, 0) == "wilson,bootstrap10,seed0"


def test_intervals_near_0_and_100_hold_the_true_share_in_19_of_20_draws():
    """Resampled items that are all wrong are all wrong: at 1 % of fifty items that is so in 60 % of draws."""
    ends = [interval(mean_of("x", [1.0] * n + [0.0] * (50 - n), ""), samples=10, seed=0) for n in range(51)]
    shares = np.concatenate([np.linspace(0.005, 0.1, 20), np.linspace(0.9, 0.995, 20)])
    held = []
    for share in shares:
        chances = scipy.stats.binom.pmf(range(51), 50, share)
        held.append(
            sum(p for p, (low, high) in zip(chances, ends, strict=True) if low <= 100 * share <= high)
        )
    assert 0.94 < np.mean(held) < 0.97
    assert min(held) > 0.85


def test_what_is_no_share_keeps_its_resamples():
    assert interval(length_metric([""] * 9), samples=20, seed=0) == (0.0, 0.0)
    assert interval_method(length_metric(["a"]), 20, 3) == "bootstrap20,seed3"
    weights = replace(mean_of("x", [0.0, 1.0], ""), statistics=np.array([[0.0, 2.0], [100.0, 1.0]]))
    assert interval_method(weights, 20, 3) == "bootstrap20,seed3"
    some = replace(weights, statistics=np.array([[0.0, 0.0], [100.0, 1.0], [0.0, 1.0]]))
    assert (some.items, some.values) == (2, [0.0, 100.0, 0.0])
    known = scipy.stats.binomtest(1, 2).proportion_ci(method="wilson")
    assert interval(some, samples=10, seed=0) == pytest.approx((100 * known.low, 100 * known.high))


def test_intervals_bracket_the_score_and_repeat_with_the_seed():
    targets = [(f"the {i} small dogs run over field number {i * i}",) for i in range(80)]
    predictions = [text if i % 3 else text.replace("small dogs", "cat") for i, (text,) in enumerate(targets)]
    for measured in translation_metrics(predictions, targets, "eng_Latn"):
        low, high = interval(measured, samples=200, seed=1)
        assert low < measured.value < high
        assert interval(measured, samples=200, seed=1) == (low, high)
        is_resampled = not interval_method(measured, 200, 1).startswith("wilson")
        assert (interval(measured, samples=200, seed=2) != (low, high)) == is_resampled


def test_one_item_has_an_interval_of_no_width():
    for measured in translation_metrics(["a dog runs over there"], [("a dog runs over here",)], "eng_Latn")[
        1:
    ]:
        assert interval(measured, samples=50, seed=0) == (measured.value, measured.value)


def test_signatures_tell_the_rules():
    exact, _ = qa_metrics(["Nil"], [("Nil",)], "deu_Latn")
    assert exact.signature == "metric:exact_match|norm:mlqa1|articles:deu|seg:space"
    overlap = qa_metrics(["ナ"], [("ナ",)], "jpn_Jpan")[1]
    assert overlap.signature == "metric:f1|norm:mlqa1|articles:none|seg:Jpan"
    chrf = translation_metrics(["a"], [("a",)], "eng_Latn")[2]
    assert chrf.signature.startswith("metric:chrf++|nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:")
