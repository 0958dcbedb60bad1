"""Text made from Unicode CLDR: as Babel writes it, held out by meaning, in all languages alike."""

import itertools

import pytest
from babel import Locale, dates, units
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxlingua.config import CldrSource
from jaxlingua.data.cldr import Moment, Quantity, all_words, is_held_out, meanings, missing_parts, open_cldr
from jaxlingua.data.leaks import find_leaks
from jaxlingua.data.records import Pair
from jaxlingua.errors import ConfigError
from jaxlingua.languages import cldr_locale

FIVE = ["eng_Latn", "deu_Latn", "spa_Latn", "rus_Cyrl", "hin_Deva"]


def source(yields: str = "translation", languages: list[str] = FIVE, **options):
    return open_cldr("cldr", CldrSource(languages=languages, yields=yields, **options))


def texts(record) -> list[str]:
    if isinstance(record, Pair):
        return list(record.texts.values())
    return [value for value in (getattr(record, "context", None), getattr(record, "output", None)) if value]


# ── what is written ─────────────────────────────────────────────────────────────────────────────────────────


def test_examples_that_anybody_can_check():
    english, german, russian = Locale("en"), Locale("de"), Locale("ru")
    assert Quantity(37, "length-kilometer").text(german) == "37 Kilometer"
    assert [Quantity(n, "duration-year").text(russian) for n in (1, 3, 7, 21)] == [
        "1 год",
        "3 года",
        "7 лет",
        "21 год",
    ]
    assert [Moment(5, "hour", future).text(english) for future in (True, False)] == [
        "in 5 hours",
        "5 hours ago",
    ]
    assert Moment(3, "day", True).text(german) == "in 3 Tagen"


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(FIVE), st.integers(1, 99), st.sampled_from(["length-meter", "mass-gram", "duration-week"])
)
def test_a_quantity_is_what_babel_writes(language, number, unit):
    locale = Locale.parse(cldr_locale(language))
    expected = units.format_unit(number, unit, "long", locale=locale)
    assume(unit not in expected)  # where CLDR has no long form, Babel writes the unit's identifier
    assert Quantity(number, unit).text(locale) == expected


@pytest.mark.parametrize("language", sorted(all_words()))
def test_no_identifier_stands_in_a_text(language):
    locale = Locale.parse(cldr_locale(language))
    for quantity in meanings(True, (locale,)).quantities:
        assert not [text for text in quantity.texts(locale) if quantity.unit in text]


def test_moments_keep_their_number_and_unit():
    """Babel rounds a timedelta into the unit that it thinks best; none of ours may become another one."""
    english = Locale("en")
    for moment in meanings(False, (english,)).moments:
        unit = moment.unit + ("" if moment.number == 1 else "s")
        expected = f"in {moment.number} {unit}" if moment.is_future else f"{moment.number} {unit} ago"
        assert moment.text(english) == expected


# ── held out ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("training", "evaluated"), itertools.product(["translation", "qa", "instruction"], repeat=2)
)
def test_no_held_out_phrase_is_in_any_training_record(training, evaluated):
    """Not in another language, not in another kind of record: looked up by text, phrase by phrase."""
    locales = [Locale.parse(cldr_locale(language)) for language in FIVE]
    held = {
        text
        for pool in [meanings(True, tuple(locales))]
        for meaning in [*pool.quantities, *pool.moments]
        for locale in locales
        for text in meaning.texts(locale)
    }
    for record in source(training, records=1500, held_out_records=100).training:
        assert held.isdisjoint(texts(record))
    kept = source(training, records=1500, held_out_records=100).training
    leaks = find_leaks(
        {"train": kept}, {"eval": source(evaluated, records=1500, held_out_records=100).held_out}
    )
    assert not leaks


def test_a_tenth_of_the_meanings_is_held_out_whatever_the_languages():
    pools = [meanings(True, (Locale("en"),)), meanings(True, (Locale("hi"), Locale("ru")))]
    assert pools[0] == pools[1]
    everything = meanings(False, ()).quantities + pools[0].quantities
    assert 0.08 < len(pools[0].quantities) / len(everything) < 0.12
    assert {quantity for quantity in everything if is_held_out(quantity.key())} == set(pools[0].quantities)


@pytest.mark.parametrize("yields", ["translation", "qa", "instruction"])
def test_records_are_the_same_each_time_and_numbered(yields):
    first, again = (source(yields, records=600, held_out_records=60) for _ in range(2))
    assert first.records("all") == again.records("all")
    assert first.fingerprint == again.fingerprint
    assert [record.index for record in first.records("all")] == list(range(600))
    assert (len(first.training), len(first.held_out)) == (540, 60)
    other = source(yields, records=601, held_out_records=60)
    assert other.fingerprint != first.fingerprint


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_question_is_answered_by_one_place_of_its_context_and_asked_alike_in_every_language():
    questions = source("qa", records=1000, held_out_records=100).held_out
    for question in questions:
        (answer,) = question.answers
        assert question.context.count(answer) == 1
        assert question.context[question.answer_start :].startswith(answer)
    by_id = {}
    for question in questions:
        by_id.setdefault(question.id, []).append(question.language)
    assert all(sorted(languages) == sorted(FIVE) for languages in by_id.values())


def test_a_diary_names_the_day_as_babel_does():
    days = {
        language: set(dates.get_day_names("wide", locale=cldr_locale(language)).values()) for language in FIVE
    }
    for question in source("qa", records=500, held_out_records=50).training:
        assert question.context.partition(":")[0] in days[question.language]


def test_an_instruction_asks_for_another_form_than_it_gives():
    for record in source("instruction", records=500).training:
        assert record.input != record.output
        assert record.instruction == all_words()[record.language]["write_out"]


@pytest.mark.parametrize("language", sorted(all_words()))
def test_every_language_with_words_has_what_is_asked_of_cldr(language):
    assert missing_parts(Locale.parse(cldr_locale(language))) == []
    assert set(all_words()[language]) == {"how_much", "when", "write_out"}


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("languages", "options", "message"),
    [
        (
            ["eng_Latn", "bug_Latn"],
            {},
            "data.sources.cldr.languages: CLDR lacks everything of 'bug_Latn'; languages it",
        ),
        (
            ["eng_Latn"],
            {"records": 5, "held_out_records": 5},
            "held_out_records: 5 given, of 5 records; some must remain",
        ),
        (
            ["eng_Latn"],
            {"yields": "instruction", "records": 900_000, "held_out_records": 256},
            "data.sources.cldr.records: 899,744 given that are not held out; about 3",
        ),
    ],
)
def test_what_cannot_be_made_is_told(languages, options, message):
    with pytest.raises(ConfigError) as error:
        source(languages=languages, **options)
    assert message in str(error.value)
