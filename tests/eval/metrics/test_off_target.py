"""Answers in another language than asked: known and unknown languages, other scripts, too short, empty."""

import json

import numpy as np
import pytest

from jaxlingua.eval.metrics.measured import Measured
from jaxlingua.eval.metrics.off_target import is_reliable, off_target_metrics, verdict
from jaxlingua.eval.significance import difference
from tests.test_identify import SENTENCES

CASES = [  # text, language that was asked, source language, verdict
    (SENTENCES["deu_Latn"], "deu_Latn", "eng_Latn", "on"),
    (SENTENCES["eng_Latn"], "deu_Latn", "eng_Latn", "off"),
    (SENTENCES["swh_Latn"], "deu_Latn", "eng_Latn", "off"),  # a third language
    ("", "deu_Latn", "eng_Latn", "off"),
    (" \n", "deu_Latn", "eng_Latn", "off"),
    ("Yes.", "deu_Latn", "eng_Latn", "undecided"),
    ("42", "deu_Latn", "eng_Latn", "undecided"),
    ("很好。", "zho_Hans", "eng_Latn", "undecided"),
    ("今天天气很好。", "zho_Hans", "eng_Latn", "on"),
    (SENTENCES["jpn_Jpan"], "zho_Hans", "eng_Latn", "off"),
    (SENTENCES["zho_Hant"], "zho_Hans", "eng_Latn", "on"),  # one language
    (SENTENCES["zho_Hans"], "jpn_Jpan", "eng_Latn", "off"),  # all in a script of Japanese
    (SENTENCES["deu_Latn"], "hin_Deva", "eng_Latn", "off"),  # another script
    ("Srpski jezik je jedan od slovenskih jezika.", "srp_Cyrl", "eng_Latn", "off"),  # its other script
    (SENTENCES["pes_Arab"], "arb_Arab", "eng_Latn", "off"),  # the same script
    ("Saya suka makan nasi goreng.", "zsm_Latn", "eng_Latn", "undecided"),  # Malay or Indonesian
    # Toba Batak is not known: only the source language and English are off-target.
    (SENTENCES["eng_Latn"], "bbc_Latn", "deu_Latn", "off"),
    (SENTENCES["deu_Latn"], "bbc_Latn", "deu_Latn", "off"),
    (SENTENCES["swh_Latn"], "bbc_Latn", "deu_Latn", "on"),
    (SENTENCES["hin_Deva"], "bbc_Latn", "deu_Latn", "off"),
]


@pytest.mark.parametrize(("text", "language", "source_language", "expected"), CASES)
def test_the_verdict_on_an_answer(text, language, source_language, expected):
    assert verdict(text, language, source_language) == expected


def test_the_rate_is_over_answers_that_can_be_told_and_the_others_are_counted():
    german, english = SENTENCES["deu_Latn"], SENTENCES["eng_Latn"]
    predictions = [german, german, german, english, "", "Ja.", "Nein."]
    off, undecided = off_target_metrics(predictions, [(german,)] * 7, "deu_Latn", "eng_Latn")
    assert off.values == [0, 0, 0, 100, 100, 0, 0]
    assert off.value == pytest.approx(100 * 2 / 5)
    assert (off.items, undecided.items) == (5, 7)
    assert undecided.values == [0, 0, 0, 0, 0, 100, 100]
    assert undecided.value == pytest.approx(100 * 2 / 7)


@pytest.mark.parametrize("told", [0, 4, 5])
def test_there_is_no_rate_of_answers_that_cannot_be_told(told):
    """0.0 of nothing would be perfect."""
    answers = ["Ja."] * 20 + [SENTENCES["deu_Latn"]] * told
    measured = off_target_metrics(answers, [()] * len(answers), "deu_Latn", "eng_Latn")
    assert [one.metric for one in measured] == ["undecided"] if told < 5 else ["off_target", "undecided"]
    assert measured[-1].value == pytest.approx(100 * 20 / len(answers))


def test_there_is_no_rate_where_the_rule_takes_the_targets_for_off_target():
    german, english = SENTENCES["deu_Latn"], SENTENCES["eng_Latn"]
    for wrong, names in ((1, ["off_target", "undecided"]), (2, ["undecided"])):
        targets = [(english,)] * wrong + [(german,)] * (21 - wrong)
        measured = off_target_metrics([german] * 21, targets, "deu_Latn", "eng_Latn")
        assert [one.metric for one in measured] == names
        assert is_reliable(targets, "deu_Latn", "eng_Latn") is (wrong == 1)
    assert is_reliable([(), ("Ja.",)], "deu_Latn", "eng_Latn")


def test_an_answer_that_repeats_its_source_is_off_target_unless_that_is_right():
    source = ["Yes.", "Berlin", "Hmm."] * 2
    targets = [("Ja.",), ("Berlin",), ()] * 2
    undecided = off_target_metrics(source, targets, "deu_Latn", "eng_Latn", source)[-1]
    assert undecided.values == [0, 100, 0] * 2
    same_language = off_target_metrics(source, targets, "deu_Latn", "deu_Latn", source)[-1]
    assert same_language.values == [100] * 6
    (rate, _) = off_target_metrics(["Yes."] * 5, [("Ja.",)] * 5, "deu_Latn", "eng_Latn", ["Yes. "] * 5)
    assert rate.value == 100


def test_the_rate_has_no_p_value_since_answers_are_chosen_by_what_they_are():
    """Two models with equal rates among told answers, one of which can rarely be told: exchanges mix them up."""
    german, english = SENTENCES["deu_Latn"], SENTENCES["eng_Latn"]
    rng = np.random.default_rng(0)

    def drawn(told: float) -> Measured:
        texts = [
            (english if rng.random() < 0.5 else german) if rng.random() < told else "Ja." for _ in range(40)
        ]
        return off_target_metrics(texts, [(german,)] * 40, "deu_Latn", "eng_Latn")[0]

    found = [difference(drawn(1.0), drawn(0.3), samples=100, seed=seed) for seed in range(5)]
    assert {one.p_value for one in found} == {None}
    assert all(
        one.low < one.high and one.method.endswith(",untested,seed" + str(n)) for n, one in enumerate(found)
    )


def test_the_signature_tells_the_rule_and_what_it_makes_of_the_targets():
    german, english = SENTENCES["deu_Latn"], SENTENCES["eng_Latn"]
    targets = [(english,), *[(german,)] * 19]
    known = off_target_metrics([german] * 20, targets, "deu_Latn", "eng_Latn")[0].signature
    assert known.startswith("metric:off_target|rule:identified|identifier:py3langid-")
    assert known.endswith("|letters:10|source:off|targets:5.0off")
    unknown = off_target_metrics([german], [()], "bbc_Latn", "deu_Latn")[0].signature
    assert "|rule:source_or_english|" in unknown
    assert unknown.endswith("|targets:none")
    assert "|rule:english|" in off_target_metrics([german], [()], "bbc_Latn", "bug_Latn")[0].signature
    assert "|rule:english|" in off_target_metrics([german], [()], "bbc_Latn", "")[0].signature
    model_b = off_target_metrics([english] * 20, targets, "deu_Latn", "eng_Latn")[0].signature
    assert model_b == known  # answers leave it alone: only equal signatures are compared


@pytest.mark.parametrize("language", ["deu_Latn", "ind_Latn", "jav_Latn", "hin_Deva", "swh_Latn", "ace_Latn"])
def test_real_sentences_are_on_target_and_copies_of_the_source_are_off(shared_data, language):
    def sentences(code: str) -> list[str]:
        lines = (shared_data / "flores200" / f"{code}.jsonl").read_text("utf-8").split("\n")[:100]
        return [json.loads(line)["text"] for line in lines]

    right, english = sentences(language), sentences("eng_Latn")
    targets = [(text,) for text in right]
    off, undecided = off_target_metrics(right, targets, language, "eng_Latn")
    assert off.value <= 1
    assert undecided.value <= 10
    assert off_target_metrics(english, targets, language, "eng_Latn")[0].value >= 99
