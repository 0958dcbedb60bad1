"""Objectives of a mixture entry: which slots there are, what is held out, counted and refused."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.config import MixtureEntry, ParallelSource
from jaxlingua.data.objectives import directions_of
from jaxlingua.data.records import Instruction, Pair, Text
from jaxlingua.data.sources import open_source
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import ConfigError, DataError
from tests.drawing import Records, draws, made, sentences

CODES = ["eng_Latn", *(f"{code}_Latn" for code in ("ind", "sun", "jav", "bug", "ace", "bjn", "ban", "min"))]


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


def test_language_chooses_what_is_denoised():
    source = sentences(30)
    only = made(source, "denoising", language="deu_Latn")
    assert len(only) == 30
    assert only.languages == ("deu_Latn",)
    assert only.draw(4, 0).answer_texts == (source.everything[4].texts["deu_Latn"],)


def test_plain_text_can_be_denoised():
    text = Records(["deu_Latn"], [Text(n, "deu_Latn", f"Das ist Satz {n}, nicht mehr.") for n in range(5)])
    objectives = made(text, "denoising")
    assert [objectives.draw(slot, 0).answer_texts[0] for slot in range(5)] == [
        r.text for r in text.everything
    ]


# ── nothing is lost without being counted ───────────────────────────────────────────────────────────────────


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
    first, *others = languages = ["eng_Latn", "deu_Latn", "ind_Latn"]
    ways = [(language,) for language in languages]
    if objective != "denoising":
        ways = [way for other in others for way in ((first, other), (other, first))]
    usable = sum(
        number not in leaking and all(record.get(language, "").strip() for language in way)
        for number, record in enumerate(texts)
        for way in ways
    )
    source = Records(languages, [Pair(n, text) for n, text in enumerate(texts)])
    splits = ("train", "held_out") if usable else ("held_out",)
    found = {
        split: made(source, objective, faithful=faithful, leaking=frozenset(leaking), split=split)
        for split in splits
    }
    held_out = min(1000, usable // 10) if faithful else 0
    sizes = {"train": usable - held_out, "held_out": held_out if faithful else usable}
    for split, objectives in found.items():
        counts = objectives.counts.values()
        assert len(objectives) == sum(count.kept for count in counts) == sizes[split]
        assert sum(count.examples for count in counts) == len(ways) * len(texts)
        assert all(count.examples == count.kept + sum(count.dropped.values()) for count in counts)
        for drawn in draws(objectives):
            assert drawn.example.index not in leaking
            assert drawn.example.answer_texts[-1]


def test_what_is_dropped_is_counted_by_reason_and_language():
    source = sentences(6)
    source.everything[2].texts["deu_Latn"] = " "
    objectives = made(source, "pair", leaking=frozenset([4]))
    assert {language: count.dropped for language, count in objectives.counts.items()} == {
        "deu_Latn": {"no text in deu_Latn": 1, "equals evaluation text": 1},
        "eng_Latn": {"no text in deu_Latn": 1, "equals evaluation text": 1},
    }
    assert {objectives.draw(slot, 0).index for slot in range(len(objectives))} == {0, 1, 3, 5}


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
