"""What is drawn for a slot: how often what, the same each time, and what the example says."""

import pickle
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from jaxlingua.data.noise import BLANK, RECIPES
from jaxlingua.data.records import Pair
from jaxlingua.data.wordings import wording_of
from jaxlingua.languages import display_name
from tests.drawing import ALL, RAW, Records, draws, made, parts, sentences, tabbed_wording

SURELY = 1e-4  # how unlikely what was drawn may be; seeds are fixed, so a test fails always or never


@pytest.fixture(scope="module")
def tabbed(tmp_path_factory):
    return tabbed_wording(tmp_path_factory.mktemp("wording"))


def assert_uniform(counts, size):
    assert len(counts) == size
    assert chisquare(list(counts.values())).pvalue > SURELY, counts


def assert_share(found, total, share):
    low, high = binom.interval(1 - SURELY, total, share)
    assert low <= found <= high, (found, total, share)


# ── how often what is drawn ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def many():
    """4,000 draws of all four objectives."""
    return draws(made(sentences(500), "random-xss"), passes=4)


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
    found = draws(made(sentences(150), objective, faithful=faithful), passes=5)
    assert_uniform(Counter(drawn.template for drawn in found), 6)
    for drawn in found[:200]:
        beginning = RAW.objectives[objective][drawn.template].partition("{")[0]
        assert drawn.example.text.startswith(beginning)


def test_as_many_templates_name_the_languages_as_in_the_paper():
    slot = {
        "denoising": "source",
        "translation": "source",
        "bilingual_denoising": "context",
        "similarity": "target",
    }
    naming = {
        name: sum(f"{{{slot[name]}_language}}" in template for template in templates)
        for name, templates in RAW.objectives.items()
    }
    assert naming == {"denoising": 5, "translation": 3, "bilingual_denoising": 4, "similarity": 3}


def test_half_of_the_labels_say_that_the_meaning_is_the_same(many):
    labels = [drawn.label for drawn in many if drawn.objective == "similarity"]
    assert_share(labels.count("same"), len(labels), 0.5)
    assert {drawn.label for drawn in many if drawn.objective != "similarity"} == {""}


@pytest.mark.parametrize(
    "weights", [{"random": 1, "hard": 1, "noised": 1}, {"noised": 1, "random": 3}, {"hard": 2}]
)
def test_negatives_are_drawn_by_their_weights(weights):
    found = draws(made(sentences(200), "similarity", negatives=weights), passes=5)
    counts = Counter(drawn.negative for drawn in found if drawn.label == "different")
    assert set(counts) == set(weights)
    for kind, weight in weights.items():
        assert_share(counts[kind], counts.total(), weight / sum(weights.values()))


@pytest.mark.parametrize("objective", ["denoising", "bilingual_denoising"])
@pytest.mark.parametrize("faithful", [False, True])
def test_noise_has_the_seven_recipes_with_the_probabilities_of_the_paper(objective, faithful):
    found = draws(made(sentences(150), objective, faithful=faithful), passes=8)
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


def test_the_directions_of_a_sentence_are_drawn_apart(many):
    by_record: dict[int, list[tuple[str, int]]] = {}
    for drawn in many:
        by_record.setdefault(drawn.example.index, []).append((drawn.objective, drawn.template))
    pairs = [pair for drawn in by_record.values() for pair in zip(drawn[::2], drawn[1::2], strict=True)]
    alike = sum(one == other for one, other in pairs)
    assert_share(alike, len(pairs), 1 / 24)  # four objectives of six templates


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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=4, max_size=8), st.booleans())
def test_any_text_can_be_drawn_from(pairs, faithful):
    source = Records(
        ["eng_Latn", "deu_Latn"],
        [Pair(n, {"eng_Latn": first, "deu_Latn": second}) for n, (first, second) in enumerate(pairs)],
    )
    objectives = made(source, "random-xss", split="held_out", faithful=faithful)  # of which all may be empty
    for drawn in draws(objectives, passes=2):
        if not faithful and drawn.objective != "similarity":
            assert drawn.example.answer_texts[0] in source.everything[drawn.example.index].texts.values()


def test_a_tokenizer_is_learned_on_every_sentence_once_and_on_prompts():
    source = sentences(30, ["eng_Latn", "deu_Latn", "ind_Latn"])
    objectives = made(source, "random-xss", wording=wording_of("alpaca"))
    learned = list(objectives.texts())
    clean = [text for pair in source.everything for text in pair.texts.values()]
    assert learned[: len(clean)] == clean
    assert learned[len(clean) :] == [objectives.draw(slot, 0).prompt for slot in range(120)]
    released = list(made(source, "random-xss", faithful=True).texts())
    assert all(released)
