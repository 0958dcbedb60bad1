"""The language of a text, in our codes, without a network and without jax."""

import subprocess
import sys

import pytest

from jaxlingua.identify import (
    identify,
    known_language,
    letters,
    main_script,
    probabilities,
    share_in_script,
)

SENTENCES = {
    "eng_Latn": "The library opens at nine o'clock, and nobody is waiting in front of it.",
    "deu_Latn": "Die Bibliothek öffnet um neun Uhr, und niemand wartet vor der Tür.",
    "arb_Arab": "تفتح المكتبة أبوابها في الساعة التاسعة صباحا ولا أحد ينتظر أمامها.",
    "pes_Arab": "کتابخانه ساعت نه صبح باز می‌شود و هیچ کس جلوی آن منتظر نیست.",
    "hin_Deva": "पुस्तकालय सुबह नौ बजे खुलता है और उसके सामने कोई इंतज़ार नहीं कर रहा है।",
    "zho_Hans": "图书馆早上九点开门，门口没有人在等候。",
    "zho_Hant": "圖書館早上九點開門，門口沒有人在等候。",
    "jpn_Jpan": "図書館は朝九時に開きますが、前で待っている人は誰もいません。",
    "kor_Hang": "도서관은 아침 아홉 시에 문을 열지만 앞에서 기다리는 사람은 없다.",
    "swh_Latn": "Maktaba inafunguliwa saa tatu asubuhi na hakuna mtu anayesubiri mbele yake.",
    "jav_Latn": "Perpustakaan dibukak jam sanga esuk lan ora ana wong sing ngenteni ing ngarepe.",
    "srp_Cyrl": "Библиотека се отвара у девет сати ујутру и нико не чека испред ње.",
    "tgl_Latn": "Nagbubukas ang aklatan ng alas nuwebe ng umaga at walang naghihintay sa harap nito.",
    "grn_Latn": "Ko arandupakoty ojepe'a pyhareve ha ndaipóri avave oha'arõva henondépe.",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_in_its_language_and_script(code):
    found, confidence = identify(SENTENCES[code])
    assert found == code
    assert 0.3 < confidence <= 1


@pytest.mark.parametrize("text", ["", " \n", "12:30, 14.", "...", "[{}];"])
def test_a_text_without_letters_is_in_no_language(text):
    assert identify(text) == (None, 0.0)


def test_chinese_that_is_written_alike_in_both_forms_is_taken_for_simplified():
    assert identify("今天我在家，他也在家。")[0] == "zho_Hans"


def test_probabilities_add_up_to_1_and_are_sorted():
    found = probabilities(SENTENCES["deu_Latn"])
    assert sum(found.values()) == pytest.approx(1, abs=1e-4)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert next(iter(found)) == "deu"


def test_languages_are_known_by_each_of_their_codes():
    same = {"zsm_Latn": "zsm", "msa_Latn": "zsm", "cmn_Hant": "zho", "ekk_Latn": "est", "uzn_Cyrl": "uzn"}
    assert {code: known_language(code) for code in same} == same
    for unknown in ("bug_Latn", "min_Latn", "sun_Latn", "ceb_Latn", "apc_Arab"):
        assert known_language(unknown) is None


def test_every_label_of_the_identifier_is_a_language_of_its_own():
    """Two labels under one code would hide the probability of one of them."""
    codes = list(probabilities("Any text will do."))
    assert len(codes) == len(set(codes)) > 130
    assert all(len(code) == 3 for code in codes)


def test_scripts_are_counted_letter_by_letter():
    assert share_in_script("Москва (Moscow) 1147", "rus_Cyrl") == 0.5
    assert share_in_script("日本のコーヒー", "jpn_Jpan") == 1
    assert share_in_script("日本のコーヒー", "zho_Hans") == 2 / 5  # ー is in no script alone
    assert share_in_script("圖書館", "zho_Hans") == 1
    assert share_in_script("1147", "rus_Cyrl") == 0
    assert share_in_script("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "chr_Cher") == 1  # a script that no language of our table has
    assert main_script("दिल्ली is a city in भारत और एशिया") == "Deva"
    assert letters("नदी 12!") == 3  # two letters and a mark


def test_data_may_identify_languages_without_jax_or_a_network():
    program = (
        "import socket, sys; socket.socket.connect = None; socket.getaddrinfo = None\n"
        "from jaxlingua.identify import identify\n"
        "print(identify('Die Bibliothek wird um neun Uhr geöffnet.')[0], 'jax' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "deu_Latn False\n"
