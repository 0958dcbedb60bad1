"""Shares of languages: against closed forms and a brute force, exact sums, and what a weight keeps."""

import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlingua.config import StageConfig
from jaxlingua.errors import ConfigError
from jaxlingua.tokens.balance import (
    documents_per_epoch,
    documents_per_pool,
    temperature_shares,
    unimax_shares,
    whole_numbers,
)

LANGUAGES = ["eng_Latn", "ind_Latn", "jav_Latn", "lao_Laoo", "tha_Thai"]
LANGUAGE_SIZES = st.dictionaries(
    st.sampled_from(LANGUAGES), st.integers(1, 5000), min_size=1, max_size=len(LANGUAGES)
)
POOL_SIZES = st.dictionaries(
    st.tuples(st.sampled_from(["books", "news", "web"]), st.sampled_from(LANGUAGES)),
    st.integers(1, 3000),
    min_size=1,
    max_size=15,
)


def stage(balance: str = "off", **options) -> StageConfig:
    return StageConfig(name="muit", mixture="news", epochs=1.0, balance=balance, **options)


def auto(sizes) -> dict[str, str]:
    return {entry: "auto" for entry, _ in sizes}


def by_language(counts) -> dict[str, int]:
    return {of: sum(count for (_, language), count in counts.items() if language == of) for _, of in counts}


def by_entry(counts) -> dict[str, int]:
    return {of: sum(count for (entry, _), count in counts.items() if entry == of) for of, _ in counts}


STAGES = st.one_of(
    st.floats(0.05, 1e6).map(lambda temperature: stage("temperature", balance_temperature=temperature)),
    st.floats(1, 50).map(lambda repeats: stage("unimax", balance_max_repeats=repeats)),
)


# ── entries without weight ───────────────────────────────────────────────────────────────────────────────────


@given(sizes=POOL_SIZES, stage=STAGES)
def test_an_epoch_has_as_many_documents_as_there_are_and_some_of_every_pool(sizes, stage):
    counts = documents_per_pool(sizes, auto(sizes), stage)
    assert list(counts) == list(sizes)
    assert sum(counts.values()) == sum(sizes.values())
    assert min(counts.values()) >= 1


@given(sizes=POOL_SIZES)
def test_temperature_1_and_no_balance_are_by_size_exactly(sizes):
    assert documents_per_pool(sizes, auto(sizes), stage("temperature", balance_temperature=1.0)) == sizes
    assert documents_per_pool(sizes, auto(sizes), stage()) == sizes


@given(sizes=LANGUAGE_SIZES, temperature=st.floats(0.05, 100))
def test_temperature_gives_each_language_its_closed_form_rounded(sizes, temperature):
    powers = {name: math.exp((math.log(size) - math.log(5000)) / temperature) for name, size in sizes.items()}
    total = sum(sizes.values())
    shares = temperature_shares(sizes, total, temperature)
    assert sum(shares.values()) == total
    for name in sizes:
        expected = total * powers[name] / sum(powers.values())
        assert float(shares[name]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    counts = documents_per_pool(
        {("web", name): size for name, size in sizes.items()},
        {"web": "auto"},
        stage("temperature", balance_temperature=temperature),
    )
    raised = sum(1 for share in shares.values() if share < 1)  # these take what others were rounded to
    for name, share in shares.items():
        assert math.floor(share) - raised <= counts["web", name] <= math.ceil(share)


@given(sizes=POOL_SIZES)
def test_a_large_temperature_and_many_repeats_are_uniform_over_languages(sizes):
    """Where the small ones have pools enough to be raised to, a language may be above the others."""
    languages = by_language(sizes)
    equal = sum(sizes.values()) / len(languages)
    for balanced in (
        stage("temperature", balance_temperature=1e9),
        stage("unimax", balance_max_repeats=1e9),
    ):
        counts = by_language(documents_per_pool(sizes, auto(sizes), balanced))
        pools = {of: sum(1 for _, language in sizes if language == of) for of in languages}
        if equal >= max(pools.values()) + 1:
            assert max(abs(count - equal) for count in counts.values()) <= 1 + 1e-4


@given(sizes=POOL_SIZES, stage=STAGES)
def test_the_documents_of_a_language_go_to_its_entries_by_size(sizes, stage):
    counts = documents_per_pool(sizes, auto(sizes), stage)
    of_language, sizes_of_language = by_language(counts), by_language(sizes)
    for (entry, language), count in counts.items():
        pools = sum(1 for _, other in sizes if other == language)
        share = of_language[language] * sizes[entry, language] / sizes_of_language[language]
        assert -pools < count - share < 1 + (share < 1)


@given(sizes=POOL_SIZES, stage=STAGES, seed=st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_the_order_of_the_pools(sizes, stage, seed):
    shuffled = list(sizes.items())
    seed.shuffle(shuffled)
    assert documents_per_pool(dict(shuffled), auto(sizes), stage) == documents_per_pool(
        sizes, auto(sizes), stage
    )


# ── UniMax ───────────────────────────────────────────────────────────────────────────────────────────────────


def water_filled(sizes: dict[str, int], total: int, max_repeats: Fraction) -> dict[str, Fraction]:
    """The level at which all languages, each up to its cap, hold `total`: tried at every cap.

    Between two neighboring caps the sum is a straight line in the level, so that it can be solved for.
    """
    caps = sorted(max_repeats * size for size in sizes.values())
    for full in range(len(caps)):
        level = (total - sum(caps[:full])) / Fraction(len(caps) - full)
        if level <= caps[full]:
            return {name: min(level, max_repeats * size) for name, size in sizes.items()}
    raise AssertionError("above all caps")


@given(sizes=LANGUAGE_SIZES, max_repeats=st.floats(1, 20), scale=st.floats(0.01, 1))
def test_unimax_is_the_level_to_which_water_rises_in_vessels_of_different_height(sizes, max_repeats, scale):
    total = max(1, int(scale * max_repeats * sum(sizes.values())))
    expected = water_filled(sizes, total, Fraction(max_repeats))
    shares = unimax_shares(sizes, total, max_repeats)
    assert shares == expected
    assert sum(shares.values()) == total


@given(sizes=POOL_SIZES, max_repeats=st.floats(1, 20))
def test_unimax_repeats_no_language_above_its_cap(sizes, max_repeats):
    counts = documents_per_pool(sizes, auto(sizes), stage("unimax", balance_max_repeats=max_repeats))
    for language, size in by_language(sizes).items():
        assert by_language(counts)[language] <= math.ceil(max_repeats * size)


def test_unimax_by_hand():
    """10,000 documents: 3,333 each is above 4 x 200; the other two share 9,200, and 4 x 1,100 is below 4,600."""
    sizes = {("web", "eng_Latn"): 8700, ("web", "ind_Latn"): 1100, ("web", "jav_Latn"): 200}
    assert documents_per_pool(sizes, {"web": "auto"}, stage("unimax")) == {
        ("web", "eng_Latn"): 4800,
        ("web", "ind_Latn"): 4400,
        ("web", "jav_Latn"): 800,
    }


def test_unimax_of_a_weight_that_asks_for_more_than_all_caps_repeats_all_alike():
    """10 passes over an entry of 100, where 4 were to be the most: a weight goes before the cap."""
    sizes = {("old", "eng_Latn"): 80, ("old", "ind_Latn"): 20, ("new", "jav_Latn"): 1000}
    counts = documents_per_pool(sizes, {"old": 1.0, "new": 1.0}, stage("unimax"))
    assert counts == {("old", "eng_Latn"): 800, ("old", "ind_Latn"): 200, ("new", "jav_Latn"): 1000}


def test_less_than_one_pass_is_refused():
    with pytest.raises(ConfigError) as caught:
        documents_per_pool(
            {("web", "eng_Latn"): 5}, {"web": "auto"}, stage("unimax", balance_max_repeats=0.5)
        )
    assert str(caught.value) == (
        "stage 'muit', balance_max_repeats: 0.5 given; an epoch has as many documents as the languages "
        "together; 1 or more is allowed; raise it"
    )


# ── entries with weight ──────────────────────────────────────────────────────────────────────────────────────


@given(
    sizes=POOL_SIZES,
    weights=st.fixed_dictionaries(
        {name: st.one_of(st.just("auto"), st.floats(0.01, 0.3)) for name in ("books", "news", "web")}
    ),
    stage=STAGES,
)
def test_an_entry_with_weight_keeps_its_share_of_the_documents(sizes, weights, stage):
    counts = by_entry(documents_per_pool(sizes, weights, stage))
    expected = documents_per_epoch(
        by_entry(sizes), {entry: weights[entry] for entry in by_entry(sizes)}, "muit"
    )
    without = [entry for entry in counts if weights[entry] == "auto"]
    assert sum(counts[entry] for entry in without) == sum(expected[entry] for entry in without)
    for entry in counts.keys() - set(without):
        languages = sum(1 for of, _ in sizes if of == entry)
        assert counts[entry] == max(expected[entry], languages)


def test_languages_of_an_entry_with_weight_share_it_by_their_sizes_there():
    """20 % of 1,250: 250, by the square roots of 400 and 100. The others share 1,000 by those of 900 and 100."""
    sizes = {
        ("old", "eng_Latn"): 400,
        ("old", "ind_Latn"): 100,
        ("new", "ind_Latn"): 900,
        ("new", "jav_Latn"): 100,
    }
    balanced = stage("temperature", balance_temperature=2.0)
    assert documents_per_pool(sizes, {"old": 0.2, "new": "auto"}, balanced) == {
        ("old", "eng_Latn"): 167,
        ("old", "ind_Latn"): 83,
        ("new", "ind_Latn"): 750,
        ("new", "jav_Latn"): 250,
    }


@pytest.mark.parametrize(
    ("replayed", "epoch"),
    [(100, 62_288), (1_000, 62_288), (10_000, 62_288), (31_144, 62_288), (100_000, 200_000)],
)
def test_weights_of_1_and_1_are_the_papers_interleave_until_all_are_exhausted(replayed, epoch):
    counts = documents_per_epoch({"flores": 31_144, "xp3": replayed}, {"flores": 1.0, "xp3": 1.0}, "align")
    assert counts == {"flores": epoch // 2, "xp3": epoch // 2}


def test_a_pool_without_documents_gets_none():
    sizes = {("web", "eng_Latn"): 5, ("web", "jav_Latn"): 0}
    assert documents_per_pool(sizes, {"web": "auto"}, stage("unimax")) == sizes


# ── rounding ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_largest_remainders_are_rounded_up():
    shares = {"a": Fraction(16, 10), "b": Fraction(17, 10), "c": Fraction(27, 10)}
    assert whole_numbers(shares, dict.fromkeys(shares, 0)) == {"a": 1, "b": 2, "c": 3}


def test_among_equal_remainders_the_name_decides_and_not_the_order():
    shares = dict.fromkeys("cab", Fraction(4, 3))
    assert whole_numbers(shares, dict.fromkeys(shares, 0)) == {"a": 2, "b": 1, "c": 1}


def test_who_has_less_than_the_least_takes_it_from_who_has_most():
    shares = {"a": Fraction(1, 10), "b": Fraction(39, 10), "c": Fraction(6)}
    assert whole_numbers(shares, {"a": 2, "b": 1, "c": 1}) == {"a": 2, "b": 4, "c": 4}
    assert whole_numbers(shares, {"a": 4, "b": 4, "c": 4}) == {"a": 4, "b": 4, "c": 4}


# ── what the documentation says ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("`off`, or temperature 1", {}),
        ("`off`, or temperature 1", {"balance": "temperature", "balance_temperature": 1.0}),
        ("temperature 3.3", {"balance": "temperature"}),
        ("temperature 100", {"balance": "temperature", "balance_temperature": 100.0}),
        ("UniMax, 4 repeats", {"balance": "unimax"}),
        ("UniMax, 16 repeats", {"balance": "unimax", "balance_max_repeats": 16.0}),
        ("UniMax, 50 repeats", {"balance": "unimax", "balance_max_repeats": 50.0}),
    ],
)
def test_the_table_of_the_documentation_is_what_comes_out(row, options):
    sizes = {("web", "eng_Latn"): 90_000, ("web", "ind_Latn"): 9_000, ("web", "jav_Latn"): 1_000}
    counts = documents_per_pool(sizes, {"web": "auto"}, stage(**options)).values()
    repeats = f"{round(list(counts)[-1] / 1000, 1):g}"
    expected = " | ".join([row, *(f"{count:,}" for count in counts), repeats])
    documentation = Path(__file__).parents[2] / "docs" / "mixtures.md"
    assert f"| {expected} |" in documentation.read_text(encoding="utf-8").splitlines()


def test_the_weights_of_the_documentation_come_out():
    sizes = {"new": 9_000, "old": 50_000}
    assert documents_per_epoch(sizes, {"new": "auto", "old": 0.1}, "x") == {"new": 9_000, "old": 1_000}
    assert documents_per_epoch(sizes, {"new": 3.0, "old": 1.0}, "x") == {"new": 9_000, "old": 3_000}
