"""Answers in another language than asked: known and unknown languages, other scripts, too short, empty."""

import json

import pytest

from jaxlingua.eval.metrics.off_target import off_target_metrics, verdict
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
    predictions = [german, english, "", "Ja.", "Nein."]
    off, undecided = off_target_metrics(predictions, [(german,)] * 5, "deu_Latn", "eng_Latn")
    assert off.values == [0, 100, 100, 0, 0]
    assert off.value == pytest.approx(100 * 2 / 3)
    assert undecided.values == [0, 0, 0, 100, 100]
    assert undecided.value == 40
    nothing_told, all_undecided = off_target_metrics(["Ja."], [()], "deu_Latn", "")
    assert (nothing_told.value, all_undecided.value) == (0, 100)


def test_the_signature_tells_the_rule_and_what_it_makes_of_the_targets():
    german, english = SENTENCES["deu_Latn"], SENTENCES["eng_Latn"]
    known = off_target_metrics([german] * 2, [(german,), (english,)], "deu_Latn", "eng_Latn")[0].signature
    assert known.startswith("metric:off_target|rule:identified|identifier:py3langid-")
    assert known.endswith("|letters:10|targets:50.0off")
    unknown = off_target_metrics([german], [()], "bbc_Latn", "deu_Latn")[0].signature
    assert "|rule:source_or_english|" in unknown
    assert unknown.endswith("|targets:none")
    model_b = off_target_metrics([english] * 2, [(german,), (english,)], "deu_Latn", "eng_Latn")[0].signature
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
