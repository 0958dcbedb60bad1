"""InstructAlign's objectives: what is drawn, how often, from which records, and what the example looks like."""

import pickle
import random
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from jaxlingua.config import DataConfig, MixtureEntry, ParallelSource
from jaxlingua.data.leaks import normalize
from jaxlingua.data.noise import BLANK, RECIPES
from jaxlingua.data.objectives import directions_of, objectives_of
from jaxlingua.data.records import Instruction, Pair, Text
from jaxlingua.data.sources import open_source
from jaxlingua.data.wordings import load_wording, wording_of
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.languages import display_name

ALL = ["denoising", "translation", "bilingual_denoising", "similarity"]
CODES = ["eng_Latn", *(f"{code}_Latn" for code in ("ind", "sun", "jav", "bug", "ace", "bjn", "ban", "min"))]
SURELY = 1e-4  # how unlikely what was drawn may be; seeds are fixed, so a test fails always or never
RAW = wording_of("raw")
# Templates that say which they are and can be taken apart again.
SLOTS = {
    "denoising": "{source_language}\t{source_text}\t{target_text}",
    "translation": "{source_language}\t{target_language}\t{source_text}\t{target_text}",
    "bilingual_denoising": "{source_language}\t{source_text}\t{context_language}\t{context}\t{target_text}",
    "similarity": "{source_language}\t{target_language}\t{source_text}\t{target_text}\t{label}",
}


@dataclass
class Records:
    """A source, as far as objectives ask."""

    languages: list[str]
    everything: list
    name: str = "news"
    config: None = None
    fingerprint: str = "0"
    skipped: dict = field(default_factory=dict)

    def records(self, split):
        return self.everything


def sentences(count, languages=("eng_Latn", "deu_Latn"), words=8):
    """Pairs of different sentences with a comma and a full stop; each language has words of its own."""
    draw = random.Random(1)

    def sentence(language, number):
        said = [f"{language[:2]}{draw.randrange(500)}" for _ in range(words)]
        return f"{said[0]}, {' '.join(said[1:])} {language[:3]}{number}."

    return Records(
        list(languages),
        [Pair(n, {language: sentence(language, n) for language in languages}) for n in range(count)],
    )


def made(source, objectives, *, faithful=False, wording=RAW, seed=0, stage="align", name="news", **options):
    """Objectives of an entry with these fields; `records`, `leaking` and `split` go to `objectives_of`."""
    passed = {key: options.pop(key) for key in ("leaking", "split", "records") if key in options}
    if "records" not in passed:
        passed["records"] = source.everything
    entry = MixtureEntry(objectives=objectives, **options)
    return objectives_of(
        name, entry, source, stage=stage, seed=seed, wording=wording, faithful=faithful, **passed
    )


def draws(objectives, passes=1):
    return [objectives.drawn(slot, number) for number in range(passes) for slot in range(len(objectives))]


@pytest.fixture(scope="module")
def tabbed(tmp_path_factory):
    """A wording with one template per objective, whose slots are separated by tabs."""
    folder = tmp_path_factory.mktemp("wording")
    said = {name: [template] for name, template in SLOTS.items()}
    said["labels"] = {"same": "yes", "different": "no"}
    (folder / "objectives.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    return load_wording(DataConfig(template="raw", wording_folder=str(folder)))


def parts(drawn):
    """The filled slots of a tabbed example by name; the frame raw puts a line break before the answer."""
    names = [name.strip("{}") for name in SLOTS[drawn.objective].split("\t")]
    text = drawn.example.text
    if drawn.example.ends:
        answer = drawn.example.answer_texts[0]
        asked = drawn.example.prompt.removesuffix("\n").split("\t")
        return dict(zip(names, [*asked, answer], strict=True))
    return dict(zip(names, text.split("\t"), strict=True))


def assert_uniform(counts, size):
    assert len(counts) == size
    assert chisquare(list(counts.values())).pvalue > SURELY, counts


def assert_share(found, total, share):
    low, high = binom.interval(1 - SURELY, total, share)
    assert low <= found <= high, (found, total, share)


# ── how often what is drawn ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def many():
    """6,000 draws of all four objectives."""
    return draws(made(sentences(500), "random-xss"), passes=6)


def test_each_objective_is_drawn_equally_often(many):
    assert_uniform(Counter(drawn.objective for drawn in many), 4)


@pytest.mark.parametrize(("preset", "names"), [
    ("random", ALL[:3]), ("random-xss", ALL), ("pair", ALL[1:3]), ("pair-xss", ALL[1:]),
    ("bilingual-xss", ALL[2:]), ("similarity", ALL[3:]), (["translation", "denoising"], ALL[:2]),
])  # fmt: skip
def test_presets_and_lists_draw_their_objectives_and_no_other(preset, names):
    counts = Counter(drawn.objective for drawn in draws(made(sentences(100), preset), passes=4))
    assert set(counts) == set(names)
    if len(names) > 1:
        assert_uniform(counts, len(names))


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("faithful", [False, True])
def test_each_of_six_templates_is_drawn_equally_often(objective, faithful):
    found = draws(made(sentences(300), objective, faithful=faithful), passes=5)
    assert_uniform(Counter(drawn.template for drawn in found), 6)
    for drawn in found[:200]:
        beginning = RAW.objectives[objective][drawn.template].partition("{")[0]
        assert drawn.example.text.startswith(beginning)


def test_half_of_the_labels_say_that_the_meaning_is_the_same(many):
    labels = [drawn.label for drawn in many if drawn.objective == "similarity"]
    assert_share(labels.count("same"), len(labels), 0.5)
    assert {drawn.label for drawn in many if drawn.objective != "similarity"} == {""}


@pytest.mark.parametrize(
    "weights", [{"random": 1, "hard": 1, "noised": 1}, {"noised": 1, "random": 3}, {"hard": 2}]
)
def test_negatives_are_drawn_by_their_weights(weights):
    found = draws(made(sentences(400), "similarity", negatives=weights), passes=5)
    counts = Counter(drawn.negative for drawn in found if drawn.label == "different")
    assert set(counts) == set(weights)
    for kind, weight in weights.items():
        assert_share(counts[kind], counts.total(), weight / sum(weights.values()))


@pytest.mark.parametrize("objective", ["denoising", "bilingual_denoising"])
@pytest.mark.parametrize("faithful", [False, True])
def test_noise_has_the_seven_recipes_with_the_probabilities_of_the_paper(objective, faithful):
    found = draws(made(sentences(300), objective, faithful=faithful), passes=8)
    counts = Counter(drawn.recipe for drawn in found)
    expected = [probability * len(found) for _, probability in RECIPES]
    assert chisquare([counts[recipe] for recipe, _ in RECIPES], expected).pvalue > SURELY
    blanked = [BLANK in drawn.example.text for drawn in found]
    assert_share(sum(blanked), len(found), 0.44 * (1 - 0.8**11))  # of 8 + 1 words and 2 marks


# ── the same and not the same ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("faithful", [False, True])
def test_two_runs_draw_the_same_and_a_worker_process_too(faithful):
    source = sentences(60, ["eng_Latn", "deu_Latn", "ind_Latn"])
    first = draws(made(source, "random-xss", faithful=faithful), passes=3)
    again = made(source, "random-xss", faithful=faithful)
    assert draws(again, passes=3) == first
    elsewhere = pickle.loads(pickle.dumps(again))
    backwards = [elsewhere.drawn(slot, n) for n in (2, 1, 0) for slot in reversed(range(len(again)))]
    assert backwards[::-1] == first


def test_two_passes_seeds_stages_and_entries_draw_differently():
    source = sentences(100)
    texts = [
        [drawn.example.text for drawn in draws(made(source, "random-xss", **other))]
        for other in ({}, {"seed": 1}, {"stage": "later"}, {"name": "other"})
    ]
    objectives = made(source, "random-xss")
    texts.append([objectives.draw(slot, 1).text for slot in range(len(objectives))])
    for number, one in enumerate(texts):
        for other in texts[:number]:
            assert sum(a == b for a, b in zip(one, other, strict=True)) < len(one) / 20  # translations may


def test_a_draw_depends_neither_on_the_order_of_records_nor_on_other_records():
    source = sentences(40)
    everything = made(source, "random")
    of_slot = {(drawn.example.index, drawn.example.text) for drawn in draws(everything)}
    turned = made(source, "random", records=source.everything[::-1])
    assert draws(turned) == draws(everything)
    few = made(source, "random", records=source.everything[7:19])
    assert {(drawn.example.index, drawn.example.text) for drawn in draws(few)} == {
        (index, text) for index, text in of_slot if 7 <= index < 19
    }


def test_what_similarity_asks_does_not_depend_on_the_order_of_records():
    source = sentences(40)
    turned = made(source, "similarity", records=source.everything[::-1])
    assert draws(turned, passes=3) == draws(made(source, "similarity"), passes=3)


def test_whatever_decides_a_draw_is_in_the_fingerprint():
    source, other = sentences(30), sentences(30)
    other.fingerprint = "1"
    changed = [
        made(source, "random"), made(other, "random"), made(source, "random-xss"), made(source, "pair", seed=1),
        made(source, "pair"), made(source, "pair", stage="b"), made(source, "pair", name="b"),
        made(source, "pair", faithful=True), made(source, "pair", faithful=True, split="held_out"),
        made(source, "pair", wording=wording_of("short")), made(source, "pair", leaking=frozenset([3])),
        made(source, "pair", direction="eng_Latn-deu_Latn"), made(source, "random-xss", negatives={"hard": 1}),
        made(source, "pair", records=source.everything[1:]),
    ]  # fmt: skip
    assert len({objectives.fingerprint for objectives in changed}) == len(changed)
    assert made(source, "random").fingerprint == changed[0].fingerprint


# ── which slots there are ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def flores():
    """As many sentences and languages as InstructAlign has of FLORES-200."""
    return Records(CODES, [Pair(n, {code: f"{code} {n}." for code in CODES}) for n in range(2009)])


def test_eight_languages_from_and_into_english_have_the_slots_of_the_paper(flores):
    objectives = made(flores, "random-xss")
    assert len(objectives) == 32_144
    assert {language: count.kept for language, count in objectives.counts.items()} == {
        code: 2009 * (8 if code == "eng_Latn" else 1) for code in CODES
    }
    assert objectives.languages == tuple(sorted(CODES))
    assert len(set(map(tuple, objectives.slots.tolist()))) == 32_144


def test_denoising_alone_has_a_slot_for_each_sentence(flores):
    objectives = made(flores, "denoising")
    assert len(objectives) == 18_081
    assert Counter(objectives.draw(slot, 0).language for slot in range(0, 90)) == dict.fromkeys(CODES, 10)


def test_the_released_split_holds_a_thousand_rows_out_whose_sentences_are_learned(flores):
    train, held_out = (made(flores, "random", faithful=True, split=split) for split in ("train", "held_out"))
    assert (len(train), len(held_out)) == (31_144, 1_000)
    rows = [set(map(tuple, part.slots.tolist())) for part in (train, held_out)]
    assert not rows[0] & rows[1]
    assert len(rows[0] | rows[1]) == 32_144
    learned, kept = ({record for record, _ in part} for part in rows)
    assert kept <= learned
    assert sum(count.dropped.get("held out", 0) for count in train.counts.values()) == 1_000
    assert sum(count.dropped["learned"] for count in held_out.counts.values()) == 31_144
    assert len(made(flores, "denoising", faithful=True)) == 17_081


def test_the_corrected_split_shares_no_sentence(tmp_path):
    for code in CODES[:3]:
        lines = "".join(f"{code} number {n}.\n" for n in range(400))
        (tmp_path / f"{code}.txt").write_text(lines)
    config = ParallelSource(kind="parallel", path="{language}.txt", languages=CODES[:3], held_out_records=100)
    source = open_source("flores", config, str(tmp_path))
    train, held_out = (
        made(source, "random-xss", records=source.records(split), split=split)
        for split in ("train", "held_out")
    )
    assert (len(train), len(held_out)) == (300 * 4, 100 * 4)
    assert not set(train.indices) & set(held_out.indices)
    learned = {text for texts in train.sentences for text in texts.values()}
    for drawn in draws(held_out):
        assert not any(sentence in drawn.example.text.split("\n") for sentence in learned)


def test_directions_are_those_of_the_entry():
    source = sentences(30, ["eng_Latn", "deu_Latn", "ind_Latn"])
    only = made(source, "translation", direction=["deu_Latn-ind_Latn"])
    assert {(drawn.example.language) for drawn in draws(only)} == {"ind_Latn"} == set(only.languages)
    assert len(only) == 30
    assert directions_of(MixtureEntry(), ["a", "b", "c"]) == [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")]


def test_language_chooses_what_is_denoised(tabbed):
    source = sentences(30)
    only = made(source, "denoising", language="deu_Latn", wording=tabbed)
    assert len(only) == 30
    assert only.languages == ("deu_Latn",)
    assert parts(only.drawn(4, 0))["target_text"] == source.everything[4].texts["deu_Latn"]


def test_plain_text_can_be_denoised():
    text = Records(["deu_Latn"], [Text(n, "deu_Latn", f"Das ist Satz {n}, nicht mehr.") for n in range(5)])
    objectives = made(text, "denoising")
    assert [objectives.draw(slot, 0).answer_texts[0] for slot in range(5)] == [
        r.text for r in text.everything
    ]


def test_mixed_objectives_answer_in_the_language_of_what_was_drawn(many):
    source = sentences(50)
    objectives = made(source, "random-xss", direction="eng_Latn-deu_Latn")
    languages = {drawn.objective: drawn.example.language for drawn in draws(objectives, passes=2)}
    assert languages == {
        "denoising": "eng_Latn",
        "translation": "deu_Latn",
        "bilingual_denoising": "deu_Latn",
        "similarity": "deu_Latn",
    }
    assert objectives.languages == ("deu_Latn", "eng_Latn")


# ── what an example says ────────────────────────────────────────────────────────────────────────────────────


def test_the_corrected_form_is_a_framed_prompt_and_an_answer_that_alone_is_learned():
    source = sentences(50)
    for template in ("alpaca", "short", "raw"):
        wording = wording_of(template)
        before, after = wording.frames_of("eng_Latn")["without_input"].split("{instruction}")
        for drawn in draws(made(source, "random-xss", wording=wording)):
            example, texts = drawn.example, source.everything[drawn.example.index].texts
            answer = {"same": "yes", "different": "no"}.get(drawn.label) or texts[example.language]
            assert example.answer_texts == (answer,)
            assert example.text == example.prompt + answer
            assert example.ends
            assert example.prompt.startswith(before)
            assert example.prompt.endswith(after)
            asked = example.prompt.removeprefix(before).removesuffix(after)
            assert asked == asked.rstrip()


def test_the_faithful_form_is_the_whole_template_all_of_it_learned_without_end():
    source = sentences(50)
    for drawn in draws(made(source, "random-xss", faithful=True, wording=wording_of("alpaca"))):
        example = drawn.example
        assert example.answers == ((0, len(example.text)),)
        assert not example.ends
        assert "###" not in example.text
        template = RAW.objectives[drawn.objective][drawn.template]
        pattern = "(.+)".join(map(re.escape, re.split(r"\{\w+\}", template)))
        assert re.fullmatch(pattern, example.text, re.DOTALL)


def test_denoising_and_translation_take_the_sentences_of_the_direction(tabbed):
    source = sentences(60)
    objectives = made(source, ["denoising", "translation"], wording=tabbed, direction="eng_Latn-deu_Latn")
    for drawn in draws(objectives, passes=2):
        texts, found = source.everything[drawn.example.index].texts, parts(drawn)
        assert found["source_language"] == "English"
        if drawn.objective == "denoising":
            assert found["target_text"] == texts["eng_Latn"]
            if drawn.recipe == ("permutation",):
                assert sorted(found["source_text"]) == sorted(texts["eng_Latn"])
        else:
            assert (found["source_text"], found["target_text"]) == (texts["eng_Latn"], texts["deu_Latn"])
            assert found["target_language"] == "German"


@pytest.mark.parametrize("faithful", [False, True])
def test_bilingual_denoising_names_each_text_by_its_language_and_as_released_by_the_other(tabbed, faithful):
    codes = ("eng_Latn", "deu_Latn", "ind_Latn")
    source = sentences(40, codes)
    beginning = {display_name(code): code[:2] for code in codes}
    found = draws(made(source, "bilingual_denoising", wording=tabbed, faithful=faithful), passes=2)
    for drawn in found:
        said, texts = parts(drawn), source.everything[drawn.example.index].texts
        assert said["target_text"] == texts[drawn.example.language]
        assert said["context"] in texts.values()
        languages = [said["source_language"], said["context_language"]]
        if faithful:
            languages.reverse()
        assert said["context"].startswith(beginning[languages[1]])
        words = re.findall(r"[a-z]+\d+", said["source_text"])
        assert {word[:2] for word in words} <= {beginning[languages[0]]}


def test_text_that_looks_like_a_slot_passes_unchanged(tabbed):
    odd = "{target_text} says {label}, {0} and {{context}} {source_language}"
    pairs = [Pair(n, {"eng_Latn": f"{odd} {n}", "deu_Latn": f"{n} {odd} }}{{"}) for n in range(40)]
    for faithful in (False, True):
        for drawn in draws(made(Records(["eng_Latn", "deu_Latn"], pairs), "random-xss", wording=tabbed,
                                faithful=faithful), passes=2):  # fmt: skip
            texts, said = pairs[drawn.example.index].texts, parts(drawn)
            if drawn.objective != "similarity":
                assert said["target_text"] == texts[drawn.example.language]
            if drawn.objective == "bilingual_denoising":
                assert said["context"] in texts.values()
            if drawn.objective == "similarity" and drawn.label == "same":
                assert said["source_text"] in texts.values()
                assert said["target_text"] in texts.values()


# ── similarity ──────────────────────────────────────────────────────────────────────────────────────────────


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
    records = source.records("all")
    corrected, released = (
        told_apart(draws(made(source, "similarity", wording=tabbed, faithful=faithful, records=records)))
        for faithful in (False, True)
    )
    assert corrected < 0.53
    assert released > 0.9


# ── nothing is lost without being counted ───────────────────────────────────────────────────────────────────


def none_or(source, objectives, pattern, **options):
    """What `made` gives, or None where it refuses with an error of this pattern."""
    try:
        return made(source, objectives, **options)
    except DataError as error:
        if not re.search(pattern, str(error)):
            raise
        return None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["eng_Latn", "deu_Latn", "ind_Latn"]), st.sampled_from(["", " ", "a b", "c, d."])
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["random", "denoising", "translation"]),
    st.booleans(),
    st.sets(st.integers(0, 12)),
)
def test_slots_are_those_there_could_be_less_the_counted_ones(texts, objective, faithful, leaking):
    languages = ["eng_Latn", "deu_Latn", "ind_Latn"]
    source = Records(languages, [Pair(n, text) for n, text in enumerate(texts)])
    ways = 3 if objective == "denoising" else 4
    objectives = none_or(source, objective, "can be used", faithful=faithful, leaking=frozenset(leaking))
    if objectives is None:
        return
    counts = objectives.counts.values()
    assert sum(count.examples for count in counts) == ways * len(texts)
    assert all(count.examples == count.kept + sum(count.dropped.values()) for count in counts)
    kept = sum(count.kept for count in counts)
    assert len(objectives) == kept
    held_out = sum(count.dropped.get("held out", 0) for count in counts)
    assert held_out == (min(1000, (kept + held_out) // 10) if faithful else 0)
    for drawn in draws(objectives):
        assert drawn.example.index not in leaking
        assert drawn.example.answer_texts[-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=4, max_size=8), st.booleans())
def test_any_text_can_be_drawn_from(pairs, faithful):
    source = Records(
        ["eng_Latn", "deu_Latn"],
        [Pair(n, {"eng_Latn": first, "deu_Latn": second}) for n, (first, second) in enumerate(pairs)],
    )
    objectives = none_or(source, "random-xss", "can be used|means something else", faithful=faithful)
    if objectives is None:
        return
    for drawn in draws(objectives, passes=2):
        if not faithful and drawn.objective != "similarity":
            assert drawn.example.answer_texts[0] in source.everything[drawn.example.index].texts.values()


def test_what_is_dropped_is_counted_by_reason_and_language():
    source = sentences(6)
    source.everything[2].texts["deu_Latn"] = " "
    objectives = made(source, "pair", leaking=frozenset([4]))
    assert {language: count.dropped for language, count in objectives.counts.items()} == {
        "deu_Latn": {"no text in deu_Latn": 1, "equals evaluation text": 1},
        "eng_Latn": {"no text in deu_Latn": 1, "equals evaluation text": 1},
    }
    assert {objectives.draw(slot, 0).index for slot in range(len(objectives))} == {0, 1, 3, 5}


def test_a_tokenizer_is_learned_on_every_sentence_once_and_on_prompts():
    source = sentences(30, ["eng_Latn", "deu_Latn", "ind_Latn"])
    objectives = made(source, "random-xss", wording=wording_of("alpaca"))
    learned = list(objectives.texts())
    clean = [text for pair in source.everything for text in pair.texts.values()]
    assert learned[: len(clean)] == clean
    assert learned[len(clean) :] == [objectives.draw(slot, 0).prompt for slot in range(120)]
    released = list(made(source, "random-xss", faithful=True).texts())
    assert all(released)


# ── what cannot be asked for ────────────────────────────────────────────────────────────────────────────────


def refused(kind, source, objectives, **options):
    with pytest.raises(kind) as caught:
        made(source, objectives, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_records_that_are_no_sentences_are_refused():
    alpaca = Records(["eng_Latn"], [Instruction(0, "eng_Latn", "Do.", "", "Done.")], "alpaca")
    assert refused(DataError, alpaca, "random") == (
        "stage 'align', mixture.news.objectives: denoising given; source 'alpaca' has records of kind "
        "instruction, and sentences are needed; name a source of parallel text, or of text and write "
        "objectives: denoising"
    )


def test_text_of_one_language_can_only_be_denoised():
    web = Records(["eng_Latn"], [Text(0, "eng_Latn", "a b")], "web")
    assert refused(DataError, web, "random") == (
        "stage 'align', mixture.news.objectives: translation given; source 'web' has text in one language, "
        "which can only be denoised; write objectives: denoising, or name a parallel source"
    )


def test_a_language_chosen_of_pairs_can_only_be_denoised():
    assert refused(DataError, sentences(9), "pair", language="deu_Latn") == (
        "stage 'align', mixture.news.language: 'deu_Latn' given with objective translation, which has "
        "directions; write direction: SOURCE-TARGET, or write objectives: denoising"
    )


def test_denoising_alone_has_no_direction():
    assert refused(DataError, sentences(9), "denoising", direction="eng_Latn-deu_Latn") == (
        "stage 'align', mixture.news.direction: 'eng_Latn-deu_Latn' given with denoising alone, which has "
        "none; write language, or leave both out for all languages"
    )


def test_a_source_of_one_record_has_nothing_that_means_something_else():
    assert refused(DataError, sentences(1), "random-xss") == (
        "stage 'align', mixture.news: objective similarity given; record 0 has no sentence in deu_Latn beside "
        "it that means something else (1 records here); use more records, or objectives without similarity"
    )
    assert len(made(sentences(1), "random")) == 2


def test_of_what_is_held_out_there_may_be_nothing():
    lonely = made(sentences(1), "random-xss", split="held_out")
    assert len(lonely) == 0
    assert lonely.counts["deu_Latn"].dropped == {"no other meaning in deu_Latn": 1}
    assert list(lonely.texts()) == [*sentences(1).everything[0].texts.values()]
    assert len(made(sentences(0), "pair", split="held_out")) == 0


def test_an_entry_without_a_sentence_is_refused_with_the_reasons():
    empty = Records(["eng_Latn", "deu_Latn"], [Pair(0, {"eng_Latn": "a"})])
    assert refused(DataError, empty, "pair") == (
        "stage 'align', mixture.news: no record of source 'news' can be used (no text in deu_Latn); each needs "
        "its sentences; mend the source or take the entry out"
    )
    assert "there is none" in refused(DataError, sentences(0), "pair")


def test_a_language_without_localized_frames_is_told_at_the_beginning():
    wording = wording_of("alpaca", "localized")
    message = refused(ConfigError, sentences(5, ["eng_Latn", "bug_Latn"]), "pair", wording=wording)
    assert "bug_Latn" in message
    assert len(made(sentences(5, ["eng_Latn", "bug_Latn"]), "pair", wording=wording, faithful=True)) == 9
