"""Scores against sacreBLEU, its command line, scikit-learn, and MLQA's official script and its rules."""

import hashlib
import json
import os
import string
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import sentencepiece
from sacrebleu.metrics import BLEU, CHRF
from sklearn.metrics import accuracy_score, f1_score

from jaxlingua.eval.metrics.answers import exact_match, f1, normalize_answer
from jaxlingua.eval.metrics.classes import class_metrics
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


# The rules of MLQA once more, from their description alone: text is read character by character, and articles
# are runs of what Python counts as parts of words.
PUNCTUATION = {chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i))[0] == "P"}
PUNCTUATION |= set(string.punctuation)
ARTICLES = {
    "eng_Latn": "a an the",
    "spa_Latn": "un una unos unas el la los las",
    "deu_Latn": "ein eine einen einem eines einer der die das den dem des",
    "vie_Latn": "của là cái chiếc những",
    "hin_Deva": "",
    "zho_Hans": "",
    "arb_Arab": "",
}
WORDS = """
the a An THE der Die ein la Los của là những ال النيل سؤال تعالى theater a_b the_ 2nd Nile नील दिल्ली १९४७ 长江 國立
ｎｉｌｅ ６６５０ Ａ Straße İstanbul ſ ǅ 𝟙 ① Ⅳ x² 𠀀 龥 龦 〇 カ
. , ' ’ ” « » ¿ ¡ 。 ， ！ ؟ ، । ॥ ・ － — _ - $ + ^ ` | ~ < = € ° № ％ ﹪ ( ） 《 𐄀
"""
SPACES = " \t\n\u00a0\u3000\u2009\u200b\u200d\u0301\u0327\ufeff\u2028\u0000\u200f"
PIECES = [*WORDS.split(), *SPACES, ""]


def normalized_by_hand(text: str, language: str) -> list[str]:
    text = "".join(char for char in text.lower() if char not in PUNCTUATION)
    articles = ARTICLES[language].split()
    runs = ["".join(run) for _, run in groupby(text, key=lambda char: char.isalnum() or char == "_")]
    text = "".join(" " if run in articles else run for run in runs)
    if language == "arb_Arab":
        text = " ".join(text.split("ال"))
    if language == "zho_Hans":
        text = "".join(f" {char} " if "\u4e00" <= char <= "\u9fa5" else char for char in text)
    return text.split()


def f1_by_hand(given: list[str], wanted: list[str]) -> float:
    shared = sum(min(count, Counter(wanted)[word]) for word, count in Counter(given).items())
    if not shared:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("language", ARTICLES)
def test_adversarial_answers_score_by_the_rules_of_mlqa_written_once_more(language):
    """Mixed scripts, articles inside words, punctuation of many scripts, full width, odd spaces, nothing."""
    rng = np.random.default_rng(7)
    seen = Counter()
    for _ in range(400):
        target = [*rng.choice(PIECES, size=rng.integers(0, 6))]
        prediction = [piece for piece in target if rng.random() < 0.8] + [
            *rng.choice(PIECES, size=rng.integers(0, 3))
        ]
        joint = str(rng.choice(["", " "]))
        given, wanted = joint.join(prediction), joint.join(target)
        by_hand, of_target = normalized_by_hand(given, language), normalized_by_hand(wanted, language)
        assert normalize_answer(given, language).split() == by_hand, repr(given)
        assert exact_match(given, wanted, language) == (by_hand == of_target)
        overlap = f1_by_hand(by_hand, of_target)
        assert f1(given, wanted, language) == pytest.approx(overlap)
        seen[(by_hand == of_target, 0 < overlap < 1, not of_target)] += 1
    assert len(seen) >= 5, f"too few kinds of pairs were met: {seen}"


def command_line(folder: Path, *options: str, models: Path | None = None) -> list[dict]:
    """What sacrebleu's command prints of hypotheses.txt against references.txt."""
    command = [sys.executable, "-m", "sacrebleu", "references.txt", "-i", "hypotheses.txt", "-w", "6"]
    told = subprocess.run(
        [*command, "-m", "bleu", "chrf", "--chrf-word-order", "2", *options],
        cwd=folder,
        env=os.environ | ({"SACREBLEU": str(models)} if models else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder for SACREBLEU with a small SentencePiece model in the place of that of FLORES-200."""
    folder = tmp_path_factory.mktemp("sacrebleu")
    (folder / "models").mkdir()
    prefix = folder / "models" / "flores200sacrebleuspm"
    sentences = [text for alphabet in ALPHABETS for text in random_corpus(alphabet, seed=1)[1]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(prefix),
        vocab_size=150,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    Path(f"{prefix}.model").rename(prefix)
    return folder


@pytest.mark.parametrize(
    ("language", "tokenizer", "alphabet"),
    [
        ("zho_Hans", "zh", ALPHABETS[1]),
        ("deu_Latn", "13a", ALPHABETS[0]),
        ("zho_Hans", "flores200", ALPHABETS[1]),
    ],
)
def test_translations_score_as_by_the_command_of_sacrebleu(
    language, tokenizer, alphabet, models, tmp_path, monkeypatch
):
    predictions, targets, _ = random_corpus(alphabet, seed=6)
    predictions[3] = ""
    (tmp_path / "hypotheses.txt").write_text("".join(f"{text}\n" for text in predictions), "utf-8")
    (tmp_path / "references.txt").write_text("".join(f"{text}\n" for text in targets), "utf-8")
    theirs = command_line(tmp_path, "-tok", tokenizer, models=models)
    monkeypatch.setenv("SACREBLEU", str(models))  # sacreBLEU was imported long ago
    asked = tokenizer if tokenizer == "flores200" else "auto"
    _, bleu, chrf = translation_metrics(predictions, [(text,) for text in targets], language, asked)
    for ours, one in zip((bleu, chrf), theirs, strict=True):
        assert ours.value == pytest.approx(one["score"], abs=1e-6)
    assert theirs[1]["nw"] == 2 or "nw:2" in theirs[1]["signature"]
    assert f"|tok:{tokenizer}|" in bleu.signature
    assert f"|tok:{tokenizer}|" in theirs[0]["signature"]
    digest = hashlib.sha256((models / "models" / "flores200sacrebleuspm").read_bytes()).hexdigest()
    assert bleu.signature.endswith(f"|spm:{digest[:8]}") == (tokenizer == "flores200")


@pytest.mark.parametrize("seed", range(4))
def test_class_scores_are_those_of_scikit_learn(seed):
    """With a label that no item has, one that nobody predicts, one that is neither, and words that are none."""
    rng = np.random.default_rng(seed)
    labels = ["negative", "neutral", "positive", "mixed", "never"]
    gold = [*rng.choice(labels[:3], size=50, p=[0.6, 0.3, 0.1])]
    guessed = [*rng.choice([*labels[1:4], "positiv", ""], size=50)]
    predictions = [
        target if rng.random() < 0.5 else guess for target, guess in zip(gold, guessed, strict=True)
    ]
    accuracy, macro, weighted = class_metrics(predictions, [(target,) for target in gold], labels)
    options = {"labels": labels, "zero_division": 0}
    assert accuracy.value == pytest.approx(100 * accuracy_score(gold, predictions))
    assert macro.value == pytest.approx(100 * f1_score(gold, predictions, average="macro", **options))
    assert weighted.value == pytest.approx(100 * f1_score(gold, predictions, average="weighted", **options))
    drawn = rng.integers(50, size=50)  # as a resample adds statistics up
    again = 100 * f1_score(
        [gold[i] for i in drawn], [predictions[i] for i in drawn], average="macro", **options
    )
    assert macro.of_sums(macro.statistics[drawn].sum(axis=0)) == pytest.approx(again)
