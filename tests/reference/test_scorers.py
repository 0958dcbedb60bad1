"""Scores against sacreBLEU's own corpus scores and MLQA's official script."""

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF

from jaxlingua.eval.metrics.answers import exact_match, f1, normalize_answer
from jaxlingua.eval.metrics.measured import interval
from jaxlingua.eval.metrics.translation import translation_metrics

LANGUAGES = ["eng_Latn", "zho_Hans", "jpn_Jpan", "tha_Thai", "arb_Arab", "hin_Deva"]
TOKENIZERS = ["13a", "zh", "char", "char", "13a", "13a"]
ALPHABETS = ["abcde ,.", "我们你他的，。", "ナイル川は長い。", "กขคงาี ", "ابتثج ،", "अआइईक ।"]

# Written by mlqa_evaluation_v1.py of facebookresearch/MLQA, commit 5ef5c731, under Python 3.11: its normalized
# prediction, exact match and F1.
OFFICIAL = [
    ("eng_Latn", "The «Nile», in Africa", "the Nile", "nile in africa", 0.0, 0.5),
    ("eng_Latn", "A.D. 1066", "1066 AD", "ad 1066", 0.0, 1.0),
    ("eng_Latn", "a theater", "theater", "theater", 1.0, 1.0),
    ("eng_Latn", "$5 + 3", "5 3", "5 3", 1.0, 1.0),
    ("eng_Latn", "", "the", "", 1.0, 0.0),
    ("eng_Latn", "", "Nile", "", 0.0, 0.0),
    ("deu_Latn", "In der Nähe des Rheins!", "Nähe Rheins", "in nähe rheins", 0.0, 0.8),
    ("spa_Latn", "los Ángeles", "Ángeles", "ángeles", 1.0, 1.0),
    ("vie_Latn", "Những con sông của Việt Nam", "con sông Việt Nam", "con sông việt nam", 1.0, 1.0),
    ("vie_Latn", "là là", "là", "", 1.0, 0.0),
    ("arb_Arab", "في القاهرة، عام 1952", "القاهرة", "في قاهرة عام 1952", 0.0, 0.4),
    ("arb_Arab", "سؤال", "سؤ", "سؤ", 1.0, 1.0),
    ("hin_Deva", "गंगा नदी।", "गंगा", "गंगा नदी", 0.0, 0.666667),
    ("hin_Deva", "१९४७", "१९४७ में", "१९४७", 0.0, 0.666667),
    ("zho_Hans", "长约6650公里。", "6650公里", "长 约 6650 公 里", 0.0, 0.75),
    ("zho_Hans", "在 London 的大桥", "London桥", "在 london 的 大 桥", 0.0, 0.571429),
    ("zho_Hans", "國立臺灣大學", "臺灣大學", "國 立 臺 灣 大 學", 0.0, 0.8),
    ("zho_Hans", "，", "。", "", 1.0, 0.0),
]


def random_corpus(alphabet: str, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Predictions that share some of their letters with either of two references."""
    rng = np.random.default_rng(seed)
    first = ["".join(rng.choice(list(alphabet), size=rng.integers(4, 40))) for _ in range(60)]
    second = [text[::-1] for text in first]
    predictions = [text[: len(text) - rng.integers(0, 4)] + alphabet[: rng.integers(0, 4)] for text in first]
    return predictions, first, second


@pytest.mark.parametrize(
    ("language", "tokenizer", "alphabet"), zip(LANGUAGES, TOKENIZERS, ALPHABETS, strict=True)
)
def test_bleu_and_chrf_are_those_of_sacrebleu(language, tokenizer, alphabet):
    predictions, first, second = random_corpus(alphabet, seed=3)
    for streams in ([first], [first, second]):
        _, bleu, chrf = translation_metrics(predictions, list(zip(*streams, strict=True)), language)
        theirs = sacrebleu.corpus_bleu(predictions, streams, tokenize=tokenizer)
        assert bleu.value == pytest.approx(theirs.score)
        assert chrf.value == pytest.approx(sacrebleu.corpus_chrf(predictions, streams, word_order=2).score)
        assert f"|tok:{tokenizer}|" in bleu.signature
        assert f"nrefs:{len(streams)}" in bleu.signature


def test_chrf_of_one_item_is_sacrebleus_sentence_score():
    predictions, first, _ = random_corpus("abcde ,.", seed=4)
    values = translation_metrics(predictions, [(text,) for text in first], "eng_Latn")[2].values
    pairs = zip(predictions, first, strict=True)
    assert values == pytest.approx(
        [sacrebleu.sentence_chrf(given, [text], word_order=2).score for given, text in pairs]
    )


@pytest.mark.parametrize(("metric", "reference"), [(1, BLEU(force=True)), (2, CHRF(word_order=2))])
def test_intervals_are_as_wide_as_sacrebleus_bootstrap(metric, reference):
    """Other random numbers, so the widths agree to the noise of 1,000 resamples."""
    predictions, first, _ = random_corpus("abcde ,.", seed=5)
    measured = translation_metrics(predictions, [(text,) for text in first], "eng_Latn")[metric]
    low, high = interval(measured, samples=1000, seed=0)
    theirs = reference.corpus_score(predictions, [first], n_bootstrap=1000)
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=0.15)
    assert (high + low) / 2 == pytest.approx(theirs._mean, rel=0.02)


@pytest.mark.parametrize(("language", "prediction", "target", "normalized", "exact", "overlap"), OFFICIAL)
def test_answers_score_as_in_the_official_mlqa_script(
    language, prediction, target, normalized, exact, overlap
):
    assert normalize_answer(prediction, language) == normalized
    assert exact_match(prediction, target, language) == exact
    assert f1(prediction, target, language) == pytest.approx(overlap, abs=1e-6)
