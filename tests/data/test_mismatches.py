"""Mismatches: sentences of other records that mean something else, and how alike two sentences look."""

import pickle
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from jaxlingua.config import ParallelSource
from jaxlingua.data.leaks import normalize
from jaxlingua.data.mismatches import mismatches_of, overlaps
from jaxlingua.data.sources import open_source

TO_GERMAN, TO_ENGLISH = ("eng_Latn", "deu_Latn"), ("deu_Latn", "eng_Latn")
BOTH = [TO_GERMAN, TO_ENGLISH]


def pairs(*texts):
    return [{"eng_Latn": english, "deu_Latn": german} for english, german in texts]


def jaccard(text, other):
    """Brute force, with sets of strings."""
    one, two = ({f" {t[:1000]} "[n : n + 3] for n in range(len(t[:1000]))} for t in (text, other))
    return len(one & two) / len(one | two)


FEW = st.text("ab中é", min_size=1, max_size=30)  # whose trigrams have different hashes


@settings(deadline=None)
@given(FEW, st.lists(FEW, min_size=1, max_size=6))
def test_overlap_is_the_jaccard_index_of_trigrams(text, others):
    np.testing.assert_allclose(overlaps(text, others), [jaccard(text, other) for other in others])


def test_the_overlap_of_real_sentences_is_right_to_a_few_hundredths(shared_data):
    codes = ["eng_Latn", "zho_Hans", "jav_Latn", "arb_Arab", "hin_Deva"]
    config = ParallelSource(kind="parallel", path="flores200/{language}.jsonl", languages=codes)
    records = open_source("flores", config, str(shared_data)).records("all")
    for code in codes:
        texts = [record.texts[code] for record in records[:100]]
        for text in texts[:10]:
            expected = [jaccard(text, other) for other in texts]
            np.testing.assert_allclose(overlaps(text, texts), expected, atol=0.03)


def test_a_text_overlaps_wholly_with_itself_and_long_ones_go_by_their_beginning():
    assert overlaps("ab", ["ab", "xy"]).tolist() == [1.0, 0.0]
    assert overlaps("a" * 5000, ["a" * 1000]).tolist() == [1.0]
    assert overlaps("\ud800 lone", ["\ud800 lone"]).tolist() == [1.0]


def test_a_random_mismatch_is_each_other_sentence_equally_often():
    texts = pairs(*((f"one {n}", f"eins {n}") for n in range(10)))
    mismatches = mismatches_of(texts, BOTH)
    drawn = random.Random(0)
    counts = Counter(mismatches.draw("random", 3, TO_GERMAN, drawn) for _ in range(2000))
    assert set(counts) == {f"eins {n}" for n in range(10)} - {"eins 3"}
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_a_hard_mismatch_is_the_most_alike_of_those_that_are_drawn():
    names = [f"{a}{b}" for a in "bdfgk" for b in ("ana", "eno", "iru", "osa")]
    texts = pairs(*((f"name {n}", f"Das ist {name}.") for n, name in enumerate(names)))
    mismatches = mismatches_of(texts, BOTH)
    right = texts[0]["deu_Latn"]
    alike = {text["deu_Latn"]: jaccard(right, text["deu_Latn"]) for text in texts[1:]}
    best = {text for text, shared in alike.items() if shared == max(alike.values())}
    drawn = random.Random(0)
    found = {mismatches.draw("hard", 0, TO_GERMAN, drawn) for _ in range(60)}  # 64 of 20: nearly all seen
    assert found <= best
    hard, anything = (
        np.mean([jaccard(right, mismatches.draw(kind, 0, TO_GERMAN, drawn)) for _ in range(200)])
        for kind in ("hard", "random")
    )
    assert hard > anything + 0.05


def test_no_mismatch_is_a_translation_that_another_record_has_or_the_source_itself():
    texts = pairs(
        ("Thanks", "Danke"), ("thanks!", "Vielen Dank"), ("Many thanks", "vielen  Dank."),
        ("Danke", "Merci"), ("Hello", "Hallo"), ("Thanks", "Besten Dank"),
    )  # fmt: skip
    mismatches = mismatches_of(texts, BOTH)
    drawn = random.Random(1)
    for kind in ("random", "hard"):
        german = {mismatches.draw(kind, 0, TO_GERMAN, drawn) for _ in range(300)}
        # "Danke" is the source, though another record has it as an English sentence.
        english = {mismatches.draw(kind, 0, TO_ENGLISH, drawn) for _ in range(300)}
        assert german <= {"Merci", "Hallo"}
        assert english <= {"Many thanks", "Hello"}
        if kind == "random":
            assert len(german) == len(english) == 2


def test_where_nearly_all_sentences_are_the_same_the_others_are_found():
    texts = pairs(*[("Yes", "Ja")] * 300, ("No", "Nein"), ("Perhaps", "Vielleicht"))
    mismatches = mismatches_of(texts, BOTH)
    drawn = random.Random(1)
    for kind in ("random", "hard"):
        found = {mismatches.draw(kind, 7, TO_GERMAN, drawn) for _ in range(50)}
        assert found <= {"Nein", "Vielleicht"}


def test_a_sentence_is_drawn_only_where_there_is_one():
    texts = [{"eng_Latn": f"one {n}", "deu_Latn": f"eins {n}" if n % 3 else " "} for n in range(30)]
    mismatches = mismatches_of(texts, BOTH)
    drawn = random.Random(1)
    assert all(mismatches.draw("random", 1, TO_GERMAN, drawn).strip() for _ in range(100))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["A", "a.", "B", "C"]), st.sampled_from(["A", "b", "B!", "D", ""])),
        max_size=6,
    )
)
def test_the_lonely_are_those_without_any_mismatch(texts):
    """Compared with looking at every sentence; and whoever is not lonely gets one."""
    texts = pairs(*texts)
    mismatches = mismatches_of(texts, BOTH)
    for direction in BOTH:
        source, target = direction
        both = [n for n, text in enumerate(texts) if text[source] and text[target]]
        pool = {normalize(text[target]) for text in texts if text[target]}
        for record in both:
            own = normalize(texts[record][source])
            true = {normalize(texts[n][target]) for n in both if normalize(texts[n][source]) == own}
            assert ((record, direction) in mismatches.lonely) == (not pool - true - {own})
            if pool - true - {own}:
                found = mismatches.draw("hard", record, direction, random.Random(record))
                assert normalize(found) in pool - true - {own}


@pytest.mark.parametrize("kind", ["random", "hard"])
def test_a_copy_in_another_process_draws_the_same(kind):
    texts = pairs(*((f"one {n}", f"eins {n % 5}") for n in range(40)))
    mismatches = mismatches_of(texts, BOTH)
    copy = pickle.loads(pickle.dumps(mismatches))
    for record in range(40):
        first, again = (m.draw(kind, record, TO_GERMAN, random.Random(record)) for m in (mismatches, copy))
        assert first == again
