"""ROUGE-L against values of the rouge_score package, and its subsequences against those found by trying."""

from itertools import combinations

import numpy as np
import pytest

from jaxlingua.eval.metrics.rouge import common_subsequence_length, rouge_l, rouge_metrics

# Written by RougeScorer(["rougeL"]).score(target, prediction) of rouge_score 0.1.2.
OFFICIAL = [
    ("the cat sat on the mat", "the cat is on the mat", 0.8333333333333334),
    ("The Cat, sat!", "the cat sat", 1.0),
    ("police killed the gunman", "the gunman killed police", 0.5),
    ("don't do it", "do not do it", 0.5),
    ("a b c d e f", "f e d c b a", 0.16666666666666666),
    ("x9 is 3.14", "x9 is 3", 0.8571428571428571),
    ("", "nothing", 0.0),
    ("one two", "three", 0.0),
    ("a a a b", "a b", 0.6666666666666666),
]


@pytest.mark.parametrize(("prediction", "target", "score"), OFFICIAL)
def test_rouge_l_of_latin_text_is_that_of_the_rouge_score_package(prediction, target, score):
    assert rouge_l(prediction, target, "eng_Latn") == pytest.approx(score)


@pytest.mark.parametrize(
    ("language", "text", "other"),
    [
        ("hin_Deva", "दिल्ली भारत की राजधानी है।", "मुंबई महाराष्ट्र में स्थित शहर"),
        ("zho_Hans", "北京是中国的首都。", "我喝茶"),
        ("tha_Thai", "กรุงเทพเป็นเมืองหลวง", "ชา"),
        ("arb_Arab", "القاهرة عاصمة مصر", "شاي"),
        ("kor_Hang", "서울은 대한민국의 수도이다", "차"),
    ],
)
def test_an_answer_in_any_script_scores_100_against_itself_and_0_against_another(language, text, other):
    """The rouge_score package gives 0 to Hindi against itself: it knows the letters a to z alone."""
    same, different = rouge_metrics([text, other], [(other, text), (text,)], language)[0].values
    assert same == 100.0
    assert different == 0.0


def test_a_letter_keeps_its_marks_and_unspaced_scripts_are_cut_into_characters():
    assert rouge_l("ดี", "ดู", "tha_Thai") == 0.0
    assert rouge_l("北京大学", "北京", "zho_Hans") == pytest.approx(2 * 2 / 6)
    assert rouge_metrics(["a"], [("a",)], "zho_Hans")[0].signature.endswith("|stem:no|seg:Hans")
    assert rouge_metrics(["a"], [("a",)], "hin_Deva")[0].signature.endswith("|seg:words")


def test_the_longest_common_subsequence_is_the_one_found_by_trying_all():
    rng = np.random.default_rng(0)
    for _ in range(200):
        first, second = ("".join(rng.choice(list("abc"), size=rng.integers(0, 8))) for _ in range(2))
        of_first = {sub for n in range(len(first) + 1) for sub in combinations(first, n)}
        of_second = {sub for n in range(len(second) + 1) for sub in combinations(second, n)}
        assert common_subsequence_length(first, second) == max(map(len, of_first & of_second))
