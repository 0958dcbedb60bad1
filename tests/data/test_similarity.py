"""Similarity: labels that are true, negatives of every kind, and spaces that give nothing away."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from jaxlingua.config import ParallelSource
from jaxlingua.data.leaks import normalize
from jaxlingua.data.mismatches import overlaps
from jaxlingua.data.noise import BLANK
from jaxlingua.data.records import Pair
from jaxlingua.data.sources import open_source
from tests.drawing import Records, draws, made, parts, sentences, tabbed_wording


@pytest.fixture(scope="module")
def tabbed(tmp_path_factory):
    return tabbed_wording(tmp_path_factory.mktemp("wording"))


def test_similarity_says_what_is_true_as_far_as_any_record_tells(tabbed):
    """Many translations of one sentence, the same sentence in both languages, other case and punctuation."""
    english = ["Thank you", "thank you!", "Good morning.", "OK", "See you", "Never mind", "Please, wait."]
    german = ["Danke", "Vielen Dank", "danke!", "Guten Morgen", "OK", "Bis bald", "Egal", "Warte bitte"]
    draw = random.Random(3)
    pairs = [Pair(n, {"eng_Latn": draw.choice(english), "deu_Latn": draw.choice(german)}) for n in range(12)]
    true = {
        tuple(normalize(pair.texts[code]) for code in codes)
        for pair in pairs
        for codes in (("eng_Latn", "deu_Latn"), ("deu_Latn", "eng_Latn"))
    }
    found = draws(made(Records(["eng_Latn", "deu_Latn"], pairs), "similarity", wording=tabbed), passes=60)
    for drawn in found:
        said = parts(drawn)
        pair = normalize(said["source_text"]), normalize(said["target_text"])
        assert (pair in true) == (drawn.label == "same")
        assert said["label"] == {"same": "yes", "different": "no"}[drawn.label]
        assert drawn.label == "same" or pair[0] != pair[1]
    assert {drawn.negative for drawn in found} == {"", "random", "hard", "noised"}


def test_negatives_are_sentences_of_other_records_or_the_right_one_with_noise(tabbed):
    source = sentences(80)
    seen = {code: {pair.texts[code] for pair in source.everything} for code in source.languages}
    for drawn in draws(made(source, "similarity", wording=tabbed), passes=4):
        said, texts = parts(drawn), source.everything[drawn.example.index].texts
        right = texts[drawn.example.language]
        assert said["source_text"] in texts.values()
        if drawn.negative in ("random", "hard"):
            assert said["target_text"] in seen[drawn.example.language] - {right}
        elif drawn.negative == "noised":
            assert said["target_text"] not in seen[drawn.example.language]
            assert set(re.findall(r"\w+", said["target_text"].replace(BLANK, ""))) <= set(
                re.findall(r"\w+", right)
            )


def test_hard_negatives_look_more_like_the_right_sentence_than_random_ones(tabbed):
    source = sentences(200)
    shared = {"random": [], "hard": []}
    weights = {"random": 1, "hard": 1}
    for drawn in draws(made(source, "similarity", wording=tabbed, negatives=weights)):
        if drawn.negative:
            right = source.everything[drawn.example.index].texts[drawn.example.language]
            shared[drawn.negative].append(overlaps(right, [parts(drawn)["target_text"]])[0])
    assert np.quantile(shared["hard"], 0.1) > np.quantile(shared["random"], 0.9)


def test_a_sentence_that_no_noise_changes_gets_a_random_mismatch():
    """One word: only infilling does anything to it."""
    pairs = [Pair(n, {"eng_Latn": f"word{n}", "deu_Latn": f"Wort{n}"}) for n in range(30)]
    found = draws(made(Records(["eng_Latn", "deu_Latn"], pairs), "similarity", negatives={"noised": 1},
                       direction="eng_Latn-deu_Latn"), passes=20)  # fmt: skip
    for drawn in found:
        second = {BLANK, *(f"Wort{n}" for n in range(30) if n != drawn.example.index)}
        if drawn.label == "different":
            assert any(text in re.split(r"[\n ]", drawn.example.text) for text in second)


def test_as_released_both_sides_of_what_is_called_different_have_noise(tabbed):
    source = sentences(60)
    found = draws(made(source, "similarity", faithful=True, wording=tabbed), passes=10)
    changed = Counter()
    for drawn in found:
        said, texts = parts(drawn), source.everything[drawn.example.index].texts
        untouched = [said[side] in texts.values() for side in ("source_text", "target_text")]
        if drawn.label == "same":
            assert all(untouched)
        else:
            assert not any(untouched)  # since marks are set apart
            changed[said["source_text"].count(BLANK), said["target_text"].count(BLANK)] += 1
    assert len(changed) > 6  # independent draws


SPOKEN = {
    "eng_Latn": "Yesterday, the old bridge (built in 1902) was closed; nobody knew why, did they?",
    "deu_Latn": "Gestern wurde die alte Brücke (von 1902) gesperrt; niemand wusste, warum, oder?",
    "fra_Latn": "Hier, le vieux pont (de 1902) a été fermé, mais personne ne savait pourquoi.",
    "rus_Cyrl": "Вчера старый мост (1902 года) закрыли, но никто не знал, почему это сделали.",
    "ell_Grek": "Χθες, η παλιά γέφυρα (του 1902) έκλεισε, αλλά κανείς δεν ήξερε γιατί.",
    "arb_Arab": "أمس، أُغلق الجسر القديم (من عام 1902)، ولم يعرف أحد السبب، أليس كذلك؟",
    "hin_Deva": "कल, पुराना पुल (1902 का) बंद कर दिया गया, लेकिन किसी को नहीं पता क्यों।",
    "zho_Hans": "昨天，那座老桥（建于一九〇二年）被关闭了，但是没有人知道为什么。",
    "jpn_Jpan": "昨日、古い橋（一九〇二年のもの）が閉鎖されたが、誰も理由を知らなかった。",
    "kor_Hang": "어제, 오래된 다리(1902년)가 폐쇄되었지만, 아무도 그 이유를 몰랐다.",
    "tha_Thai": "เมื่อวานนี้ สะพานเก่า (สร้างในปี 1902) ถูกปิด แต่ไม่มีใครรู้ว่าทำไม",
    "amh_Ethi": "ትናንት፣ አሮጌው ድልድይ (በ1902 የተሠራ) ተዘጋ፤ ግን ማንም ምክንያቱን አላወቀም።",
}


def spacing_detector(text):
    """How odd the spaces of a text are; it looks at nothing but spaces and the kind of character beside them."""
    no_space_scripts = "[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff]"
    odd = [r"\s[.,;:!?)。，、；：！？）।،؛؟።፣፤]", r"[(（]\s", r"\s\s", r"^\s", r"\s$",
           rf"{no_space_scripts}\s(?={no_space_scripts})"]  # fmt: skip
    return sum(len(re.findall(pattern, text)) for pattern in odd)


def told_apart(found):
    """Share of right answers of the detector, which says "different" where it sees more odd spaces."""
    odd = {label: [] for label in ("same", "different")}
    for drawn in found:
        said = parts(drawn)
        odd[drawn.label].append(spacing_detector(said["target_text"]))
    same, different = (np.array(odd[label]) for label in ("same", "different"))
    return max(((same < limit).mean() + (different >= limit).mean()) / 2 for limit in range(1, 6))


def spoken(count=60):
    """The sentences with other numbers, in languages whose texts are not translations of one another's."""
    texts = [{code: text.replace("1902", str(1900 + n)).replace("九〇", f"九{'一二三四五六七八九'[n % 9]}{n // 9}")
              for code, text in SPOKEN.items()} for n in range(count)]  # fmt: skip
    return Records(list(SPOKEN), [Pair(n, text) for n, text in enumerate(texts)])


def test_spaces_do_not_tell_negatives_apart_but_as_released_they_do(tabbed):
    corrected, released = (
        told_apart(draws(made(spoken(), "similarity", wording=tabbed, faithful=faithful), passes=2))
        for faithful in (False, True)
    )
    assert corrected < 0.53
    assert released > 0.9


def test_spaces_do_not_tell_negatives_of_real_text_apart(shared_data, tabbed):
    codes = ["eng_Latn", "zho_Hans", "arb_Arab", "hin_Deva", "ell_Grek", "jav_Latn", "bug_Latn"]
    config = ParallelSource(kind="parallel", path="flores200/{language}.jsonl", languages=codes)
    source = open_source("flores", config, str(shared_data))
    records = source.records("all")[:150]
    corrected, released = (
        told_apart(draws(made(source, "similarity", wording=tabbed, faithful=faithful, records=records)))
        for faithful in (False, True)
    )
    assert corrected < 0.53
    assert released > 0.9
