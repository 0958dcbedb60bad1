"""Filters of parallel text: each against the same written plainly, what is told of drops, real and bad text."""

import json
import re
import statistics
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.config import FiltersConfig, HuggingFaceSource, ParallelSource
from jaxlingua.data.filters import apply_filters, numbers_in, tags_in, urls_in, usual_ratios
from jaxlingua.data.leaks import normalize
from jaxlingua.data.records import Pair
from jaxlingua.data.sources import open_source
from jaxlingua.errors import ConfigError, DataError

EN, DE, HI, ZH, BUG = "eng_Latn", "deu_Latn", "hin_Deva", "zho_Hans", "bug_Latn"
ALL = FiltersConfig(
    identical=True,
    duplicates=True,
    length_ratio=3,
    longest_characters=1000,
    script=0.5,
    language=0.9,
    numbers=True,
    urls=True,
)
ENGLISH = "The library opens at nine o'clock, and nobody is waiting in front of it."
GERMAN = "Die Bibliothek öffnet um neun Uhr, und niemand wartet vor der Tür."
FRENCH = "La bibliothèque ouvre à neuf heures, et personne n'attend devant la porte."
INDONESIAN = "Perpustakaan dibuka pada pukul sembilan dan tidak ada orang yang menunggu di depannya."


def pairs_of(*sides: tuple[str, str], languages=(EN, DE)) -> list[Pair]:
    return [Pair(index, dict(zip(languages, texts, strict=True))) for index, texts in enumerate(sides)]


def kept(records, languages=(EN, DE), **filters) -> list[int]:
    """Indices of what is left."""
    return [record.index for record in apply_filters(records, FiltersConfig(**filters), languages).kept]


# ── each filter ──────────────────────────────────────────────────────────────────────────────────────────────


def test_sides_are_identical_apart_from_case_and_white_space():
    records = pairs_of(
        ("Tom", "tom "), ("New  York", "new york"), ("Straße", "STRASSE"), ("a b", "ab"), ("é", "e")
    )
    assert kept(records, identical=True) == [3, 4]


def test_a_pair_is_a_duplicate_by_all_its_sides():
    records = pairs_of(
        ("One.", "Eins."), ("One.", "Ein."), ("one!", "EINS"), ("Two", "Eins."), ("1.5", "a"), ("15", "a")
    )
    assert kept(records, duplicates=True) == [0, 1, 3, 4, 5]


def test_sides_of_punctuation_alone_are_not_all_the_same():
    assert kept(pairs_of(("!", "."), ("?", "."), ("?", ".")), duplicates=True) == [0, 1]


def test_a_text_is_not_split_over_two_sides_in_another_way():
    assert kept(pairs_of(("a b", "c"), ("a", "b c")), duplicates=True) == [0, 1]


def test_longest_characters_counts_either_side():
    records = pairs_of(("a" * 5, "b"), ("a", "b" * 6), ("a" * 6, "b"), ("\U0001f600" * 5, "é" * 5))
    assert kept(records, longest_characters=5) == [0, 3]


def test_lengths_are_compared_with_what_is_usual_for_the_two_languages():
    """Chinese has a third of the characters: by a fixed ratio of 3 most of it would go."""
    records = pairs_of(
        *[("e" * 40, "中" * 10)] * 9, ("e" * 40, "中" * 2), ("e" * 40, "中" * 40), languages=(EN, ZH)
    )
    assert kept(records, (EN, ZH), length_ratio=3) == list(range(9))
    assert usual_ratios([record.texts for record in records], [EN, ZH]) == {ZH: pytest.approx(1 / 4)}


def test_the_order_of_the_languages_does_not_change_which_lengths_are_unusual():
    lengths = [(10, 30), (20, 20), (30, 10), (40, 10), (10, 15), (12, 80)]
    there = pairs_of(*[("a" * a, "b" * b) for a, b in lengths])
    back = pairs_of(*[("b" * b, "a" * a) for a, b in lengths], languages=(DE, EN))
    assert kept(there, length_ratio=2.5) == kept(back, (DE, EN), length_ratio=2.5) != []


def test_copies_do_not_count_for_what_is_usual_where_they_are_dropped():
    records = pairs_of(*[("e" * 40, "中" * 10)] * 3, *[("e" * 40, "e" * 40)] * 5, languages=(EN, ZH))
    assert kept(records, (EN, ZH), length_ratio=3, identical=True) == [0, 1, 2]
    assert kept(records, (EN, ZH), length_ratio=3) == [3, 4, 5, 6, 7]


def test_a_source_of_one_pair_has_no_unusual_length():
    assert kept(pairs_of(("a", "b" * 100)), length_ratio=3) == [0]


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("It has 1,000.5 m.", "Es hat 1.000,5 m."),
        ("7:30 on 3 May 2020", "2020年5月3日7時30分".replace("5月", "月").replace("7時30", "730")),
        ("10,000 people", "10 000 personnes"),
        ("10,000 people", "10\u202f000 personnes"),
        ("1,00,000 rupees", "100000"),
        ("There are 12 of 345.", "١٢ ... ٣٤٥"),
        ("१२", "12"),
        ("07:05", "7.05"),
        ("3 and 3", "3, 3"),
        ("none", "keine"),
    ],
)
def test_numbers_are_the_same_whatever_their_digits_and_separators(first, other):
    assert numbers_in(first) == numbers_in(other)
    assert kept(pairs_of((first, other)), numbers=True) == [0]


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("12", "13"),
        ("3 and 3", "3"),
        ("1.5 km", "1.6 km"),
        ("in 1947 200", "1947200"),
        ("12 34", "1234"),
        ("5 1000", "51000"),
        ("5", "five"),
    ],
)
def test_other_numbers_are_other_numbers(first, other):
    assert kept(pairs_of((first, other)), numbers=True) == []


def test_urls_are_the_same_whatever_stands_around_them():
    same = [
        "See https://www.Example.org/a?b=1.",
        "(http://example.org/a?b=1/)",
        "请看https://example.org/a?b=1。",
        "看www.example.org/a?b=1",
    ]
    assert {tuple(urls_in(text)) for text in same} == {("example.org/a?b=1",)}
    records = pairs_of(
        (same[0], same[2]), (same[0], "Siehe https://example.org/b"), (same[0], "Siehe dort"), ("a", "b")
    )
    assert kept(records, urls=True) == [0, 3]


def test_html_tags_of_one_side_alone_are_found_and_comparisons_are_not_tags():
    records = pairs_of(
        (ENGLISH, f'<p class="x">{GERMAN}</p>'), (f"<B>{ENGLISH}</b>", f"<b>{GERMAN}</B>"), ("1 < 2 > 0", "a")
    )
    assert kept(records, urls=True) == [1, 2]
    assert tags_in("a<b and b>c") == {"b": 1}  # what looks like a tag is one
    assert not tags_in("<3 <- -> <>")


def test_the_script_is_that_of_most_letters():
    texts = ["नमस्ते दुनिया", "नमस्ते world", "hello world", "12:30", "😀", "Наука"]
    records = pairs_of(*[(ENGLISH, text) for text in texts], languages=(EN, HI))
    assert kept(records, (EN, HI), script=0.5) == [0, 3, 4]
    assert kept(records, (EN, HI), script=0.3) == [0, 1, 3, 4]


def test_the_language_goes_by_what_the_identifier_is_sure_of():
    texts = [GERMAN, FRENCH, ENGLISH, "Tom", "12:30", "OK!"]
    assert kept(pairs_of(*[(ENGLISH, text) for text in texts]), language=0.9) == [0, 3, 4, 5]
    assert kept(pairs_of((GERMAN, ENGLISH)), language=0.9) == []


def test_text_that_is_taken_for_no_language_is_kept():
    """The identifier calls numbers a language of its own, with little probability but the most."""
    assert kept(pairs_of((ENGLISH, "12:30, 14.")), language=0.015) == [0]


def test_a_language_that_the_identifier_does_not_know_is_never_dropped():
    texts = [(ENGLISH, ENGLISH), (ENGLISH, GERMAN), (ENGLISH, INDONESIAN)]
    assert kept(pairs_of(*texts, languages=(EN, BUG)), (EN, BUG), language=0.01) == [0, 1, 2]


@pytest.mark.parametrize("code", ["ind_Latn", "zsm_Latn"])
def test_languages_of_one_macrolanguage_pass_for_each_other_and_are_found_together(code):
    """The identifier gives Indonesian half of the probability as Malay, less than any limit of use."""
    assert kept(pairs_of((ENGLISH, INDONESIAN), languages=(EN, code)), (EN, code), language=0.6) == [0]
    assert kept(pairs_of((ENGLISH, INDONESIAN)), language=0.9) == []


def test_a_record_of_three_languages_goes_if_one_fails_beside_the_first():
    languages = (EN, DE, "fra_Latn")
    texts = [
        (ENGLISH, GERMAN, FRENCH),
        (ENGLISH, GERMAN, ENGLISH),
        (ENGLISH, FRENCH, FRENCH),
        (ENGLISH, GERMAN, "Oui"),
    ]
    records = pairs_of(*texts, languages=languages)
    assert kept(records, languages, identical=True) == [0, 2, 3]
    assert kept(records, languages, language=0.9) == [0, 3]
    assert kept(records, languages, length_ratio=3) == [0, 1, 2]


# ── counts and examples ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_dropped_is_counted_once_under_the_first_reason_with_three_examples():
    records = pairs_of(
        (ENGLISH, GERMAN),
        *[(f"copy {number}", f"copy {number}") for number in range(5)],
        ("5 apples", "6 Äpfel"),
        (ENGLISH, FRENCH),
    )
    filtered = apply_filters(records, ALL, [EN, DE])
    assert filtered.dropped == {
        "identical sides": 5, "different numbers": 1, "other language at 0.9 or more in deu_Latn": 1
    }  # fmt: skip
    assert filtered.examples["identical sides"] == [
        f"record {n}: copy {n - 1} | copy {n - 1}" for n in (1, 2, 3)
    ]
    assert filtered.examples["different numbers"] == ["record 6 (5 / 6): 5 apples | 6 Äpfel"]
    [told] = filtered.examples["other language at 0.9 or more in deu_Latn"]
    assert re.fullmatch(
        rf"record 7 \(fra at (0\.9\d|1\.00)\): {re.escape(ENGLISH)} \| {re.escape(FRENCH)}", told
    )


@pytest.mark.parametrize(
    ("filters", "sides", "told"),
    [
        ({"longest_characters": 3}, ("a", "bbbb"), ("longer than 3 characters", "4 characters")),
        ({"length_ratio": 2.5}, ("a" * 10, "b" * 40), ("length ratio above 2.5", "4 of the usual length")),
        ({"length_ratio": 2.5}, ("a" * 40, "b" * 10), ("length ratio above 2.5", "0.25 of the usual length")),
        ({"urls": True}, ("a www.b.org", "c"), ("different URLs", "b.org / none")),
        ({"urls": True}, ("a", "<i>c"), ("different HTML tags", "none / i")),
        ({"script": 0.5}, ("a", "Наука"), ("script share below 0.5 in deu_Latn", "0, most are Cyrl")),
        ({"script": 0.5}, ("Наука", "a"), ("script share below 0.5 in eng_Latn", "0, most are Cyrl")),
        ({"duplicates": True}, ("x" * 8, "x" * 8), ("duplicate", "")),
    ],
)
def test_a_reason_tells_the_limit_and_an_example_what_was_found(filters, sides, told):
    """Two pairs of eight letters each say what is usual."""
    records = pairs_of(
        *[("x" * 8, "x" * 8)] * (1 if "longest_characters" not in filters else 0), ("x" * 3, "x" * 3), sides
    )
    filtered = apply_filters(records, FiltersConfig(**filters), [EN, DE])
    reason, detail = told
    assert filtered.dropped == {reason: 1}
    assert filtered.examples == {
        reason: [f"record {len(records) - 1}{f' ({detail})' if detail else ''}: {sides[0]} | {sides[1]}"]
    }


def test_an_example_is_one_short_line_that_steers_no_terminal():
    text = "a\x1b[31m\n\u202eb\t" + "c" * (1 << 20)
    [told] = apply_filters(pairs_of((text, text)), FiltersConfig(identical=True), [EN, DE]).examples[
        "identical sides"
    ]
    assert told.startswith("record 0: a [31m b ccc")
    assert told.isprintable()
    assert len(told) < 200


# ── the same, written plainly ────────────────────────────────────────────────────────────────────────────────

WORDS = st.sampled_from(
    [
        "dog",
        "Hund",
        "कुत्ता",
        "狗",
        "12",
        "१२",
        "1.000",
        "x.",
        "!",
        "😀",
        "\u0301",
        "www.a.org",
        "<b>",
        "שלום",
        "CAT",
        "cat",
    ]
)
SIDE = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(SIDE, SIDE), max_size=12),
    st.fixed_dictionaries(
        {
            "identical": st.booleans(),
            "duplicates": st.booleans(),
            "length_ratio": st.sampled_from(["off", 1.4937, 2.9371]),  # which no two lengths have
            "longest_characters": st.sampled_from(["off", 12]),
            "script": st.sampled_from(["off", 0.5]),
            "numbers": st.booleans(),
            "urls": st.booleans(),
        }
    ),
)
def test_every_pair_is_kept_or_counted_as_by_plain_rules(sides, filters):
    records = pairs_of(*sides, languages=(EN, HI))
    filtered = apply_filters(records, FiltersConfig(**filters), [EN, HI])
    assert len(records) == len(filtered.kept) + sum(filtered.dropped.values())
    assert {r: min(n, 3) for r, n in filtered.dropped.items()} == {
        r: len(e) for r, e in filtered.examples.items()
    }
    assert [record.index for record in filtered.kept] == plainly_kept(sides, **filters)


def plainly_kept(sides, *, identical, duplicates, length_ratio, longest_characters, script, numbers, urls):
    """One filter after the other over all that is left."""
    left = list(enumerate(sides))
    if identical:
        left = [(i, (a, b)) for i, (a, b) in left if a.lower() != b.lower()]
    if longest_characters != "off":
        left = [(i, (a, b)) for i, (a, b) in left if max(len(a), len(b)) <= longest_characters]
    if length_ratio != "off" and left:
        ratios = sorted(len(b) / len(a) for _, (a, b) in left)
        middle = statistics.geometric_mean([ratios[(len(left) - 1) // 2], ratios[len(left) // 2]])
        left = [
            (i, (a, b)) for i, (a, b) in left
            if 1 / length_ratio <= len(b) / len(a) / middle <= length_ratio
        ]  # fmt: skip
    if numbers:
        left = [(i, (a, b)) for i, (a, b) in left if plain_numbers(a) == plain_numbers(b)]
    if urls:
        left = [
            (i, (a, b)) for i, (a, b) in left
            if ("www." in a) == ("www." in b) and a.count("<b>") == b.count("<b>")
        ]  # fmt: skip
    if duplicates:
        keys = [tuple(normalize(x) or x.strip() for x in texts) for _, texts in left]
        left = [one for place, one in enumerate(left) if keys[place] not in keys[:place]]
    if script != "off":
        left = [(i, (a, b)) for i, (a, b) in left if in_script(a, "LATIN") and in_script(b, "DEVANAGARI")]
    return [i for i, _ in left]


def plain_numbers(text):
    return sorted(str(int(word.replace(".", ""))) for word in text.split() if word[0].isdecimal())


def in_script(text, name):
    letters = [unicodedata.name(char) for char in text if unicodedata.category(char)[0] == "L"]
    return not letters or sum(one.startswith(name) for one in letters) >= 0.5 * len(letters)


# ── bad text ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "😀",
        "123",
        "\u0301",
        "\u0301\u0302",
        "שלום עולם",
        "\u202eabc\u202c",
        "\ud800",
        "\x00",
        "٪",
        "²",
        "<",
        "://",
        "www.",
        "https://",
    ],
)
def test_odd_text_passes_through_every_filter(text):
    records = pairs_of((text, text), (text, GERMAN), (ENGLISH, text), (ENGLISH, GERMAN))
    everything = ALL.model_dump()
    for name, value in [*everything.items(), ("identical", False)]:
        filters = FiltersConfig(**{name: value}) if value else FiltersConfig(**everything | {name: value})
        filtered = apply_filters(records, filters, [EN, DE])
        assert len(filtered.kept) + sum(filtered.dropped.values()) == 4
        assert filtered.kept[-1].index == 3


@pytest.mark.parametrize("unit", ["a", "1,", "1 000 ", "<a ", "www.", "http://", "中", "e\u0301"])
def test_a_line_of_a_megabyte_takes_no_more_than_its_length(unit):
    """An expression that went back and forth would take hours."""
    text = unit * (1_000_000 // len(unit))
    filters = ALL.model_copy(update={"longest_characters": "off", "identical": False})
    filtered = apply_filters(pairs_of((text, text)), filters, [EN, DE])
    assert len(filtered.kept) + sum(filtered.dropped.values()) == 1


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def open_pairs(tmp_path):
    """Opens a source of German sentences beside English ones, with filters."""

    def open_pairs(sides, held_out_records=0, **filters):
        rows = [json.dumps({EN: first, DE: other}) for first, other in sides]
        (tmp_path / "a.jsonl").write_text("\n".join(rows))
        config = ParallelSource(
            path="a.jsonl", languages=[EN, DE], filters=filters, held_out_records=held_out_records
        )
        return open_source("news", config, str(tmp_path))

    return open_pairs


def test_a_source_counts_empty_and_filtered_pairs_together_and_holds_out_of_what_is_left(open_pairs):
    sides = [
        ("", "leer"),
        *[(f"copy {number}", f"copy {number}") for number in range(50)],
        *[("a", f"b {n}") for n in range(9)],
    ]
    source = open_pairs(sides, held_out_records=9, identical=True)
    assert source.skipped == {"empty text in eng_Latn": 1, "identical sides": 50}
    assert list(source.dropped_examples) == ["identical sides"]
    assert [record.index for record in source.records("held_out")] == list(range(51, 60))
    assert open_pairs(sides).dropped_examples == {}


def test_the_fingerprint_goes_by_the_filters_and_by_what_they_leave(open_pairs, monkeypatch):
    """Another version of the identifier may leave other pairs of the same file."""
    sides = [("a", "b"), ("c", "c")]
    fingerprints = [
        open_pairs(sides, **filters).fingerprint for filters in ({}, {"identical": True}, {"numbers": True})
    ]
    assert len(set(fingerprints)) == 3
    assert open_pairs(sides, identical=True).fingerprint == fingerprints[1]
    monkeypatch.setattr("jaxlingua.data.filters.same_sides", lambda languages, texts: None)
    assert open_pairs(sides, identical=True).fingerprint != fingerprints[1]


def test_filters_that_drop_everything_are_told_with_their_counts(open_pairs):
    with pytest.raises(DataError) as caught:
        open_pairs([("a", "a"), ("b", "B"), ("1", "2"), ("", "x")], identical=True, numbers=True)
    assert str(caught.value) == (
        "data.sources.news (a.jsonl): no record that can be used, skipped: empty text in eng_Latn (1), "
        "identical sides (2), different numbers (1); one or more is needed; loosen data.sources.news.filters, "
        "mend the file or remove the source"
    )


def test_filters_of_what_is_not_pairs_are_refused(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"text": "a"}]).save_to_disk(str(tmp_path / "set"))
    config = HuggingFaceSource(path="set", yields="text", language=EN, filters={"identical": True})
    with pytest.raises(ConfigError) as caught:
        open_source("news", config, str(tmp_path))
    assert str(caught.value) == (
        "data.sources.news.filters: given with yields=text; only pairs are filtered; leave filters out, or set "
        "data.sources.news.yields=translation"
    )


def test_pairs_of_a_dataset_are_filtered(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{EN: "a", DE: "a"}, {EN: "a", DE: "b"}]).save_to_disk(str(tmp_path / "set"))
    config = HuggingFaceSource(
        path="set", yields="translation", languages=[EN, DE], filters={"identical": True}
    )
    source = open_source("news", config, str(tmp_path))
    assert (source.records("all"), source.skipped) == ([Pair(1, {EN: "a", DE: "b"})], {"identical sides": 1})


# ── real text ────────────────────────────────────────────────────────────────────────────────────────────────


def test_recommended_limits_take_less_than_3_percent_of_clean_text(shared_data):
    """17 languages beside English, one of them with a third of the characters, five unknown to the identifier."""
    texts = {
        path.stem: [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()[:120]]
        for path in sorted((shared_data / "flores200").glob("*_*.jsonl"))
    }
    english = texts.pop(EN)
    assert len(texts) == 17
    for code, sides in texts.items():
        records = pairs_of(*zip(english, sides, strict=True), languages=(EN, code))
        for filters in (
            {"length_ratio": 3},
            {"script": 0.5},
            {"language": 0.9},
            {"duplicates": True, "urls": True},
        ):
            assert len(kept(records, (EN, code), **filters)) > 0.97 * len(records), (code, filters)


def test_swapped_copied_and_cut_sides_are_mostly_found(shared_data):
    """In a file whose other lines are clean; a sentence of the wrong line has no filter but numbers."""
    rows = [
        json.loads(line)
        for line in (shared_data / "multi30k" / "train.jsonl").read_text("utf-8").splitlines()[:400]
    ]
    faults = {
        "swapped": lambda row: (row["de"], row["en"]),
        "copied": lambda row: (row["en"], row["en"]),
        "other language": lambda row: (row["en"], row["fr"]),
        "cut": lambda row: (row["en"], row["de"][: len(row["de"]) // 5]),
        "markup": lambda row: (row["en"], f"<p>{row['de']}</p>"),
    }
    filters = {"identical": True, "length_ratio": 3, "urls": True, "script": 0.5, "language": 0.9}
    for name, fault in faults.items():
        sides = [fault(row) if index % 10 == 0 else (row["en"], row["de"]) for index, row in enumerate(rows)]
        left = kept(pairs_of(*sides), **filters)
        assert sum(index % 10 == 0 for index in left) <= 8, name  # of 40
        assert sum(index % 10 != 0 for index in left) >= 357, name  # of 360
