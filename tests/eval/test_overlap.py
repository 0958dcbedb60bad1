"""N-grams that items share with training text: against sets of tuples in plain Python, and on real text."""

import csv
import functools
import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.data.records import Pair, Question
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import DataError
from jaxlingua.eval import grams as grams_module
from jaxlingua.eval.grams import TrainingGrams, units
from jaxlingua.eval.overlap import SOURCE_BYTES, overlap
from jaxlingua.eval.tasks.item import Item

SENTENCE = "When the river rises in spring, the old mill behind the town stands in water."
CHINESE = "每年春天河水上涨的时候，城后面的老磨坊总是站在水里，孩子们常常去那里玩。"
WITHOUT_SPACES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "JAVANESE")


def item(source: str, *targets: str, name: str = "1", **fields: str) -> Item:
    return Item(name, "eng_Latn", "the frame around it", targets, source, fields=tuple(fields.items()))


def is_found(training: str, evaluated: str) -> bool:
    return bool(overlap([item(evaluated)], TrainingGrams.of([training])).leaked)


# ── brute force: character by character, sets of tuples ──────────────────────────────────────────────────────────


@functools.cache
def plain_units(text: str) -> list[tuple[str, int]]:
    """Each unit with its weight: 2 of a word, 1 of a character."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found, word = [], ""
    for char in [*(char for char in text if unicodedata.category(char) != "Cf"), " "]:
        kind = unicodedata.category(char)[0]
        without_spaces = unicodedata.name(char, "").startswith(WITHOUT_SPACES)
        if kind in "LMN" and not (without_spaces and kind != "M"):
            if kind == "M" and not word and found and found[-1][2]:
                found[-1] = (found[-1][0] + char, 1, True)
                continue
            word += char
            continue
        if word:
            found.append((word, 2, False))
            word = ""
        found.append((char, 1, True) if kind in "LMN" else ("", 0, False))
    return [(unit, weight) for unit, weight, _ in found if weight]


def plain_grams(text: str, words: int) -> set[tuple[str, ...]]:
    of_text, found = plain_units(text), set()
    for start in range(len(of_text)):
        weight = 0
        for end in range(start, len(of_text)):
            weight += of_text[end][1]
            if weight >= 2 * words:
                found.add(tuple(unit for unit, _ in of_text[start : end + 1]))
                break
    return found


def plain_overlap(sources: list[str], training: list[str], words: int) -> set[int]:
    """Which sources share an n-gram, or are shorter and equal a text or a line, or all their lines do."""
    grams = set().union(*(plain_grams(text, words) for text in training))
    lines = [line for text in training for line in (text, *text.split("\n"))]
    lines += [line.partition(":")[2] for text in training for line in text.split("\n")]
    wholes = {tuple(unit for unit, _ in plain_units(line)) for line in lines}
    leaked = set()
    for index, source in enumerate(sources):
        of_lines = [plain_units(line) for line in source.split("\n")]
        whole = [unit for line in of_lines for unit in line]
        names = [tuple(unit for unit, _ in units_of_line) for units_of_line in of_lines if units_of_line]
        is_short = sum(weight for _, weight in whole) < 2 * words
        is_long_enough = len(" ".join(unit for unit, _ in whole).encode()) >= SOURCE_BYTES
        is_seen = tuple(unit for unit, _ in whole) in wholes or wholes.issuperset(names)
        if plain_grams(source, words) & grams or (is_long_enough and is_short and is_seen):
            leaked.add(index)
    return leaked


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.text("ab é́\n水河กั１ .:", max_size=24), max_size=6),
    st.lists(st.text("ab é́\n水河กั１ .:", max_size=20), min_size=1, max_size=6),
    st.integers(1, 7),
)
def test_any_text_shares_what_plain_sets_of_tuples_share(training, sources, words):
    found = overlap(
        [item(source, name=str(n)) for n, source in enumerate(sources)], TrainingGrams.of(training, words)
    )
    assert set(map(int, found.leaked)) == plain_overlap(sources, training, words)


def test_questions_of_one_set_are_compared_with_another_as_by_plain_sets(shared_data):
    """MLQA's and XQuAD's English are both from Wikipedia; what they share is little, and just that is found."""

    def contexts(path):
        return [
            paragraph["context"]
            for article in json.loads((shared_data / path).read_text("utf-8"))["data"]
            for paragraph in article["paragraphs"]
        ]

    mlqa, xquad = (contexts(path) for path in ("mlqa/dev-context-en-question-en.json", "xquad/xquad.en.json"))
    training = [*mlqa[::3], *(text[40:] for text in xquad[::7])]
    for words in (4, 13):
        found = overlap(
            [item(text, name=str(n)) for n, text in enumerate(xquad)], TrainingGrams.of(training, words)
        )
        expected = plain_overlap(xquad, training, words)
        assert set(map(int, found.leaked)) == expected
        assert set(range(0, len(xquad), 7)) <= expected < set(range(len(xquad)))


# ── real text ────────────────────────────────────────────────────────────────────────────────────────────────────


def flores(shared_data, language: str) -> list[str]:
    with open(shared_data / "flores200" / f"{language}.jsonl", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


@pytest.mark.parametrize("language", ["zho_Hans", "arb_Arab", "hin_Deva", "min_Latn"])
def test_a_set_that_was_trained_on_is_leaked_as_a_whole_and_its_translation_is_not(shared_data, language):
    english, other = flores(shared_data, "eng_Latn"), flores(shared_data, language)
    items = [
        item(source, target, name=str(n))
        for n, (source, target) in enumerate(zip(english, other, strict=True))
    ]
    found = overlap(items, TrainingGrams.of(other))
    assert len(found.leaked) == len(found.asked) == len(items)
    assert len(found.source) < 0.01 * len(items)
    assert overlap(items, TrainingGrams.of([*other, *english])).source == found.leaked


def test_the_known_leak_between_translation_and_sentiment_is_found(shared_data):
    """By its README 831 of 1,200 Minangkabau sentences are there as a whole; n-grams find parts of others too."""
    folder = shared_data / "nusawrites"
    with open(folder / "nusa_kalimat-mt-min-train.csv", newline="", encoding="utf-8") as file:
        pairs = [(row["ind_text"], row["tgt_text"]) for row in csv.DictReader(file)]
    with open(folder / "nusa_kalimat-senti-min-test.csv", newline="", encoding="utf-8") as file:
        items = [item(row["text"], row["label"], name=str(n)) for n, row in enumerate(csv.DictReader(file))]
    found = overlap(items, TrainingGrams.of(text for pair in pairs for text in pair))
    verbatim = {minangkabau for _, minangkabau in pairs}
    whole = {one.id for one in items if one.source_text in verbatim}
    assert len(whole) == 831
    too_short = {one.id for one in items if len(" ".join(units(one.source_text)).encode()) < SOURCE_BYTES}
    assert whole - set(found.leaked) == whole & too_short
    assert len(whole & too_short) == 2
    assert len(found.leaked) < 900
    assert found.source == found.leaked


# ── what hides nothing, and what is no leak ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changed",
    [
        SENTENCE.upper(),
        SENTENCE.replace(" ", "\u00a0 \t"),
        SENTENCE.replace(",", " —").replace(".", "!?"),
        SENTENCE.replace(" ", "\n"),
        SENTENCE.translate({ord(char): ord(char) + 0xFEE0 for char in "abcdefghijklmnopqrstuvwxyz"}),
        SENTENCE.replace("river", "ri\u00adver").replace("mill", "\ufeffmill"),
        f"# Title\n\n**{SENTENCE}** [1]",
    ],
)
def test_case_punctuation_width_spaces_and_invisible_characters_hide_nothing(changed):
    assert is_found(changed, SENTENCE)
    assert is_found(SENTENCE, changed)


def test_unicode_form_hides_nothing():
    text = "Ångström für Äpfel über Öl, wie wär’s mit größeren Bögen täglich früh genüge schön"
    for form in ("NFC", "NFD", "NFKD"):
        assert is_found(unicodedata.normalize(form, text), text)
        assert is_found(unicodedata.normalize(form, text.replace("ß", "SS")), text)


def test_thirteen_words_are_enough_and_twelve_are_not():
    words = [f"word{n}" for n in range(40)]
    training = " ".join(words)
    assert is_found(training, " ".join(["other", *words[10:23], "other"]))
    assert not is_found(training, " ".join(["other", *words[10:22], "other"]))


def test_twenty_six_characters_are_enough_where_there_are_no_spaces_and_twenty_five_are_not():
    characters = "".join(units(CHINESE))
    assert is_found(CHINESE, f"别{characters[2:28]}别")
    assert not is_found(CHINESE, f"别{characters[2:27]}别")


def test_words_among_characters_count_twice():
    mixed = f"iPhone 15 {'水河山' * 6} Pro Max"  # 18 characters and 4 words
    assert is_found(f"x {mixed} x", f"y {mixed} y")
    shorter = mixed.removesuffix(" Max")
    assert not is_found(f"x {shorter} x", f"y {shorter} y")


@pytest.mark.parametrize("language", ["ไทย", "ខ្មែរ", "မြန်မာ", "ລາວ", "ひらがなカタカナー漢字"])
def test_characters_keep_their_marks_and_stand_alone_in_scripts_without_spaces(language):
    found = units(language)
    assert "".join(found) == unicodedata.normalize("NFKC", language)
    assert all(sum(unicodedata.category(char)[0] != "M" for char in unit) == 1 for unit in found)


def test_numbers_and_vowel_signs_make_other_words():
    assert units("1.5 km") != units("15 km")
    assert units("लड़की पढ़ती") != units("लड़का पढ़ता")
    assert not is_found(SENTENCE.replace("spring", "1999"), SENTENCE.replace("spring", "2000"))


def test_texts_without_a_common_word_share_nothing():
    """20,000 n-grams of either side: no hash is there by chance."""
    rng = np.random.default_rng(0)
    mine, theirs = (
        [" ".join(f"{letter}{n}" for n in rng.integers(50, size=100)) for _ in range(200)] for letter in "ab"
    )
    found = overlap([item(text, name=str(n)) for n, text in enumerate(mine)], TrainingGrams.of(theirs))
    assert found.leaked == ()
    assert found.share == 0


def test_the_same_words_in_another_order_are_another_text():
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
    ]
    swapped = [words[1], words[0], *words[2:]]
    assert is_found(" ".join(words), " ".join(words))
    assert not is_found(" ".join(words), " ".join(swapped))
    assert not is_found(" ".join(words), " ".join([*words[1:], words[0]]))


def test_an_n_gram_does_not_run_from_one_text_into_the_next():
    words = SENTENCE.split()
    grams = TrainingGrams.of([" ".join(words[:8]), " ".join(words[8:])])
    assert overlap([item(SENTENCE)], grams).leaked == ()


# ── which texts of an item count ─────────────────────────────────────────────────────────────────────────────────

QUESTION = "Which building stands in water in spring?"


def test_context_and_question_are_told_apart():
    other = "Nothing of this long context was ever read by anybody who was trained on texts like these here."
    items = [
        item(SENTENCE, "the mill", name="context", question="Who knows?"),
        item(other, "the old mill", name="question", question=QUESTION),
        item(SENTENCE, "the mill", name="both", question=QUESTION),
        item(other, "nobody", name="none", question="Which one of them was it?"),
    ]
    found = overlap(items, TrainingGrams.of([f"Long ago. {SENTENCE}", f"- {QUESTION}"]))
    assert found.source == ("context", "both")
    assert found.asked == ("question", "both")
    assert found.leaked == ("context", "question", "both")
    assert found.whole == ("question",)
    assert (found.items, found.short, found.share) == (4, 0, 0.75)
    assert found.examples[1] == ("question", "which building stands in water in spring")
    assert found.examples[0] == ("context", " ".join(units(SENTENCE)[:13]))


def test_a_field_that_repeats_the_source_is_no_question():
    items = [
        item(SENTENCE, "the mill", context=SENTENCE),
        item(f"{SENTENCE} Or not.", "it", name="2", context="-"),
    ]
    found = overlap(items, TrainingGrams.of([SENTENCE]))
    assert (found.source, found.asked) == (("1", "2"), ())


def test_the_frame_of_the_prompt_is_no_leak():
    frame = "Below is an instruction that describes a task, write a response that completes the request: "
    asked = Item("1", "eng_Latn", f"{frame}{SENTENCE}", ("4",), "What is two and two?")
    assert overlap([asked], TrainingGrams.of([f"{frame} something else", SENTENCE])).leaked == ()


def test_short_answers_and_labels_are_no_leak_but_a_long_answer_is():
    training = TrainingGrams.of(["Paris", "positive", "the Cathedral of Saint Mary\nParis"])
    items = [
        item("Where?", "Paris", name="1"),
        item("How?", "positive", name="2"),
        item("What?", "The Cathedral of Saint Mary", name="3"),
    ]
    assert overlap(items, training).leaked == ("3",)


def test_what_every_item_has_belongs_to_the_task():
    wording = "Is the text above positive, negative or neutral?"
    items = [item(f"text number {n}", "neutral", name=str(n), question=wording) for n in range(3)]
    assert overlap(items, TrainingGrams.of([wording])).leaked == ()


def test_a_short_source_is_compared_as_a_whole_with_texts_and_lines_and_counted():
    grams = TrainingGrams.of(
        ["Thank you.", "### Response:\nGood morning!\n", "I say good night to all of you"]
    )
    items = [
        item(text, name=text) for text in ("thank you", "Good morning", "Good night", "Thank", "…", SENTENCE)
    ]
    found = overlap(items, grams)
    assert found.leaked == found.whole == ("thank you", "Good morning")
    assert found.short == 5
    assert found.describe() == (
        "2 of 6 items (33.3 %) share 13 words in a row with training text (source or context 2, question or "
        "answer 0; 2 by a shorter text as a whole); 5 have no text so long and were compared whole"
    )


def test_a_short_source_of_one_word_proves_nothing():
    """Any line "Yes" of the training data would be a leak of it."""
    training = ["Is it so?\nYes", "Answer: no\nHello!", "是的。", "Thank you"]
    items = [item(text, name=text) for text in ("Yes.", "No", "hello", "是的", "Thank you!")]
    assert overlap(items, TrainingGrams.of(training)).leaked == ("Thank you!",)


@pytest.mark.parametrize("template", ["alpaca", "short", "raw"])
def test_a_short_source_of_several_lines_is_found_in_any_frame(template):
    poem = "Roses are red.\n\nViolets are blue."
    pair = Pair(0, {"eng_Latn": poem, "deu_Latn": "Rosen sind rot."})
    example = render(
        pair, wording_of(template), source="news", training=True, direction=("eng_Latn", "deu_Latn")
    )
    items = [
        item("roses are red\nviolets are blue", name="same"),
        item("Roses are red.\nViolets are old.", name="half"),
        item("Violets are blue.", name="line"),
        item("are blue.\nRoses are", name="parts"),
    ]
    found = overlap(items, TrainingGrams.of([example.text]))
    assert found.leaked == found.whole == ("same", "line")


@pytest.mark.parametrize("template", ["alpaca", "short", "raw"])
def test_short_texts_are_found_in_examples_with_any_frame(template):
    """Source, target and question stand behind other words of the frame, or behind none."""
    german = "Guten Morgen, alter Freund!"
    pair = Pair(0, {"eng_Latn": "Good morning, old friend.", "deu_Latn": german})
    question = Question(1, "q", "eng_Latn", SENTENCE, QUESTION, ("the mill",), 30)
    options = {"source": "news", "training": True}
    examples = [
        render(pair, wording_of(template), direction=("eng_Latn", "deu_Latn"), **options),
        render(question, wording_of(template), **options),
    ]
    items = [
        item("good morning old friend", "?", name="source"),
        item("Something else.", german, name="target"),
        item("Some other context.", "mill", name="question", question=QUESTION),
        item("Good morning, friend.", "the mill", name="none", question="Which of them is it?"),
    ]
    found = overlap(items, TrainingGrams.of(example.text for example in examples))
    assert found.leaked == found.whole == ("source", "target", "question")


def test_nothing_found_is_told_too():
    assert overlap([item(SENTENCE)], TrainingGrams.of([])).describe() == (
        "none of 1 items shares 13 words in a row with training text"
    )
    assert overlap([], TrainingGrams.of([SENTENCE])).share == 0


# ── in passes, deterministic ─────────────────────────────────────────────────────────────────────────────────────


def test_many_small_passes_give_the_grams_of_one(monkeypatch):
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{n}" for n in rng.integers(30, size=rng.integers(0, 40))) for _ in range(300)]
    whole = TrainingGrams.of(texts, words=2)
    monkeypatch.setattr(grams_module, "_KNOWN_UNITS", 10)
    monkeypatch.setattr(grams_module, "_PASS_UNITS", 50)
    passes = TrainingGrams.of(iter(texts), words=2)
    assert len(whole.grams) == len(
        {(a, b) for text in texts for a, b in zip(*[text.split()[n:] for n in (0, 1)], strict=False)}
    )
    np.testing.assert_array_equal(passes.grams, whole.grams)
    np.testing.assert_array_equal(passes.wholes, whole.wholes)
    assert passes.training_words == whole.training_words == sum(len(text.split()) for text in texts)


def test_text_that_comes_again_and_again_takes_no_more_memory():
    kept = grams_module._Sorted()
    hashes = np.arange(1000, dtype=np.uint64)
    for _ in range(100):
        kept.add(hashes)
        assert sum(map(len, kept.parts)) <= 2 * len(hashes)


def test_hashes_are_the_same_in_every_process_and_version():
    for text in ("Old mill!", "old, MILL: 水"):
        assert TrainingGrams.of([text], words=2).grams.tolist() == [6734026603833820184]


def test_n_grams_of_no_words_are_refused():
    with pytest.raises(DataError) as error:
        TrainingGrams.of([SENTENCE], words=0)
    assert str(error.value) == "eval: n-grams of 0 words given; 1 or more are allowed; 13 is usual"


def test_the_benchmark_tells_a_row_for_made_up_text():
    script = Path(__file__).parents[2] / "benchmarks" / "overlap.py"
    done = subprocess.run(
        [sys.executable, script, "--words", "5000"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| made up \| 5,000 \| [\d,]+ \| not run \| 7\.8 \| ", done.stdout, re.MULTILINE)
