"""Differences, their intervals and p-values: against enumeration, scipy, sacreBLEU, and known truth."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest
import scipy.stats
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from sklearn.metrics import f1_score

from jaxlingua.errors import DataError
from jaxlingua.eval.metrics.classes import class_metrics
from jaxlingua.eval.metrics.measured import Measured, interval, mean_of
from jaxlingua.eval.metrics.translation import translation_metrics
from jaxlingua.eval.significance import comparable, correlation, difference, holm, spread

WORDS = [f"word{n}" for n in range(300)]
LABELS = ("a", "b", "c")


def mean(scores) -> Measured:
    return mean_of("exact_match", list(scores), "norm:none")


def translations(items: int, *rates: float, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """References, and for each rate what is left of them when so many of the words are others."""
    rng = np.random.default_rng(seed)
    references = [list(rng.choice(WORDS, size=20)) for _ in range(items)]

    def noisy(rate: float) -> list[str]:
        return [
            " ".join(word if rng.random() > rate else rng.choice(WORDS) for word in words)
            for words in references
        ]

    return [" ".join(words) for words in references], [noisy(rate) for rate in rates]


def bleu(predictions: list[str], references: list[str]) -> Measured:
    return translation_metrics(predictions, [(text,) for text in references], "eng_Latn")[1]


def macro_f1(predictions, gold) -> Measured:
    return class_metrics(predictions, [(label,) for label in gold], LABELS)[1]


# ── difference ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_p_value_of_few_items_is_the_share_of_all_exchanges_of_a_metric_that_is_no_mean():
    """Brute force over all 2 ** 7 exchanges with scikit-learn's macro F1."""
    rng = np.random.default_rng(3)
    gold, model, base = (rng.choice(LABELS, size=7).tolist() for _ in range(3))
    model = [right if rng.random() < 0.6 else other for right, other in zip(gold, model, strict=True)]

    def delta(mine, theirs):
        return 100 * (
            f1_score(gold, mine, labels=LABELS, average="macro", zero_division=0)
            - f1_score(gold, theirs, labels=LABELS, average="macro", zero_division=0)
        )

    seen = delta(model, base)
    exchanges = [
        delta(np.where(swap, base, model), np.where(swap, model, base))
        for swap in itertools.product([False, True], repeat=7)
    ]
    expected = np.mean([abs(one) >= abs(seen) - 1e-9 for one in exchanges])
    found = difference(macro_f1(model, gold), macro_f1(base, gold), samples=10, seed=0)
    assert 0.01 < expected < 0.9
    assert found.delta == pytest.approx(seen)
    assert found.p_value == pytest.approx(expected, abs=1e-12)


def test_few_items_that_differ_among_many_are_enumerated_too():
    scores = np.random.default_rng(0).random(500)
    better = scores.copy()
    better[:6] += 0.1
    found = difference(mean(better), mean(scores), samples=100, seed=0)
    assert found.p_value == 2 / 2**6
    assert found.method == "paired_bootstrap100,exchanges32,seed0"


@pytest.mark.parametrize("items", [8, 12, 60])
def test_p_values_of_means_are_those_of_scipy(items):
    """Exact where there are few items; else within four standard deviations of two Monte-Carlo estimates."""
    rng = np.random.default_rng(items)
    base = rng.random(items)
    model = base + rng.normal(0.1, 0.35, size=items)
    samples = 4000
    theirs = scipy.stats.permutation_test(
        (model, base),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if items <= 12 else samples,
        rng=np.random.default_rng(1),
    ).pvalue
    found = difference(mean(model), mean(base), samples=samples, seed=0)
    bound = 1e-12 if items <= 12 else 4 * math.sqrt(2 * theirs * (1 - theirs) / samples)
    assert 0.005 < theirs < 0.9
    assert abs(found.p_value - theirs) <= bound


def test_the_interval_of_a_mean_is_scipys_paired_percentile_bootstrap():
    rng = np.random.default_rng(2)
    base = rng.random(80)
    model = np.clip(base + rng.normal(0.02, 0.2, size=80), 0, 1)
    found = difference(mean(model), mean(base), samples=4000, seed=0)
    theirs = scipy.stats.bootstrap(
        (100 * (model - base),), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.05 * width)


@pytest.mark.parametrize("rates", [(0.30, 0.315), (0.30, 0.30), (0.32, 0.30)])
def test_bleu_is_judged_as_by_sacrebleus_paired_tests(rates):
    """Randomization: p-values within four standard deviations of two Monte-Carlo estimates of 1,000 each.

    Bootstrap: sacreBLEU asks how often the absolute difference of a resample lies above its mean by more than
    the difference seen. For a normal distribution as wide as our interval that is known; as close as four
    standard deviations of 1,000 resamples, and 0.02 for the width and the shape."""
    references, (model, base) = translations(300, *rates, seed=7)
    samples = 1000
    found = difference(bleu(model, references), bleu(base, references), samples=samples, seed=0)
    systems = [("base", base), ("model", model)]
    theirs = {
        kind: PairedTest(
            systems, {"BLEU": BLEU(force=True)}, [references], test_type=kind, n_samples=samples
        )()[1]["BLEU"]
        for kind in ("ar", "bs")
    }
    exchanged, resampled = theirs["ar"][1], theirs["bs"][1]
    assert found.delta == pytest.approx(exchanged.score - theirs["ar"][0].score)
    p = exchanged.p_value
    assert abs(found.p_value - p) <= 4 * math.sqrt(2 * p * (1 - p) / samples) + 1 / samples
    width = (found.high - found.low) / (2 * scipy.stats.norm.ppf(0.975))
    absolute = scipy.stats.foldnorm(abs(found.delta) / width, scale=width)
    p = float(absolute.sf(absolute.mean() + abs(found.delta)))
    assert abs(resampled.p_value - p) <= 4 * math.sqrt(p * (1 - p) / samples) + 0.02


def test_the_interval_of_bleu_is_that_of_resampled_texts():
    """BLEU of the texts themselves, resampled in pairs and counted again by sacreBLEU: the same random numbers."""
    references, (model, base) = translations(40, 0.3, 0.4, seed=5)
    rng = np.random.default_rng([11, 40])
    deltas = []
    for _ in range(50):
        drawn = rng.integers(40, size=40)
        gold = [[references[n] for n in drawn]]
        mine, theirs = (
            BLEU(force=True).corpus_score([texts[n] for n in drawn], gold).score for texts in (model, base)
        )
        deltas.append(mine - theirs)
    found = difference(bleu(model, references), bleu(base, references), samples=50, seed=11)
    assert [found.low, found.high] == pytest.approx(list(np.percentile(deltas, [2.5, 97.5])), abs=1e-9)


def test_resamples_are_those_of_the_score_s_own_interval():
    scores = np.random.default_rng(4).random(70)
    nothing = mean(np.zeros(70))
    found = difference(mean(scores), nothing, samples=200, seed=3)
    assert (found.low, found.high) == pytest.approx(interval(mean(scores), samples=200, seed=3))


def test_drawing_in_blocks_changes_nothing(monkeypatch):
    references, (model, base) = translations(50, 0.3, 0.32)
    pair = bleu(model, references), bleu(base, references)
    whole = difference(*pair, samples=64, seed=0)
    monkeypatch.setattr("jaxlingua.eval.significance._CELLS", 1000)
    blocks = difference(*pair, samples=64, seed=0)
    assert (blocks.low, blocks.high, blocks.p_value) == (whole.low, whole.high, whole.p_value)


def test_intervals_cover_the_truth_and_p_values_are_uniform_where_there_is_none():
    """1,000 simulated pairs of models, equally good by construction, 100 items each.

    Coverage of 95 % has a standard deviation of 0.7 points. The p-values pass Kolmogorov and Smirnov's test at
    1 %, and at most so many are below 0.05 as chance allows."""
    rng = np.random.default_rng(0)
    covered, p_values = 0, []
    for seed in range(1000):
        skill = rng.random(100)
        model, base = (np.clip(skill + rng.normal(0, 0.2, size=100), -1, 2) for _ in range(2))
        found = difference(mean(model), mean(base), samples=200, seed=seed)
        covered += found.low <= 0 <= found.high
        p_values.append(found.p_value)
    assert 0.93 <= covered / 1000 <= 0.97
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_identical_predictions_differ_by_nothing_and_prove_nothing():
    references, (model,) = translations(50, 0.3)
    found = difference(bleu(model, references), bleu(model, references), samples=100, seed=0)
    assert (found.delta, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_one_item_proves_nothing_however_large_the_difference():
    found = difference(mean([1.0]), mean([0.0]), samples=100, seed=0)
    assert (found.delta, found.low, found.high, found.p_value) == (100, 100, 100, 1)


def test_items_that_are_all_alike_leave_no_doubt_about_the_size_of_the_difference():
    found = difference(mean([1.0] * 40), mean([0.0] * 40), samples=999, seed=0)
    assert (found.delta, found.low, found.high) == (100, 100, 100)
    assert found.p_value == 1 / 1000


def test_the_other_way_round_is_the_same_with_another_sign():
    references, (model, base) = translations(40, 0.3, 0.34)
    there = difference(bleu(model, references), bleu(base, references), samples=200, seed=0)
    back = difference(bleu(base, references), bleu(model, references), samples=200, seed=0)
    assert (back.delta, back.low, back.high) == pytest.approx((-there.delta, -there.high, -there.low))
    assert back.p_value == there.p_value


def test_two_thousand_items_of_bleu_take_well_under_a_second():
    references, (model, base) = translations(100, 0.3, 0.31)
    pair = [
        dataclasses.replace(one, statistics=np.tile(one.statistics, (20, 1)))
        for one in (bleu(model, references), bleu(base, references))
    ]
    start = time.process_time()
    difference(*pair, samples=1000, seed=0)
    assert time.process_time() - start < 1.5  # 0.2 s where nothing else runs


def test_what_was_not_measured_alike_is_refused_by_the_part_that_differs():
    exact, other = mean([1.0, 0.0]), mean_of("exact_match", [1.0, 0.0], "norm:mlqa1")
    with pytest.raises(DataError) as error:
        difference(exact, other, samples=10, seed=0)
    assert str(error.value) == (
        "eval: 'exact_match' of a model and of its base were not measured alike (norm: 'none' and 'mlqa1'); "
        "a difference needs the same metric on the same items; evaluate both again"
    )
    with pytest.raises(DataError, match=r"items and statistics: \(2, 2\) and \(3, 2\)"):
        difference(exact, mean([1.0, 0.0, 0.0]), samples=10, seed=0)


# ── several tests, several scores ────────────────────────────────────────────────────────────────────────────────


def test_holm_is_the_closed_test_of_bonferroni():
    """The adjusted p-value is the largest Bonferroni p-value of all the sets of hypotheses that a hypothesis is in."""
    rng = np.random.default_rng(0)
    for count in range(1, 7):
        p_values = [*(rng.random(count - 1) ** 3), 0.01]
        sets = [s for size in range(1, count + 1) for s in itertools.combinations(range(count), size)]
        of_set = {s: min(1.0, len(s) * min(p_values[n] for n in s)) for s in sets}
        expected = [max(p for s, p in of_set.items() if n in s) for n in range(count)]
        assert holm(p_values) == pytest.approx(expected, abs=1e-15)


def test_holm_keeps_ties_together_and_takes_nothing():
    assert holm([0.02, 0.02, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([]) == []


def test_spread_is_numpys_and_its_interval_scipys():
    values = [31.0, 28.5, 35.25, 30.0]
    found = spread(values)
    low, high = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert (found.mean, found.standard_deviation, found.n) == pytest.approx(
        (np.mean(values), np.std(values, ddof=1), 4)
    )
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_score_has_a_mean_and_no_spread_and_none_has_neither():
    alone = spread([12.5])
    assert (alone.mean, alone.n) == (12.5, 1)
    assert alone.standard_deviation is alone.low is alone.high is None
    assert spread([3.0, 3.0]).low == spread([3.0, 3.0]).high == 3.0
    with pytest.raises(DataError) as error:
        spread([])
    assert (
        str(error.value)
        == "eval: the spread of no scores was asked for; one or more are needed; leave it out"
    )


@pytest.mark.parametrize("count", [3, 4, 5, 30])
def test_correlations_are_scipys_with_and_without_ties(count):
    rng = np.random.default_rng(count)
    x = rng.integers(6, size=count).astype(float)
    x[:2] = 0, 5
    y = x + rng.normal(size=count)
    found = correlation(list(x), list(y))
    pearson = scipy.stats.pearsonr(x, y)
    assert found.pearson == pytest.approx(pearson.statistic)
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    if count == 3:
        assert found.low is found.high is None
    else:
        assert (found.low, found.high) == pytest.approx(tuple(pearson.confidence_interval(0.95)))


def test_a_correlation_that_is_not_defined_is_told_as_such():
    assert correlation([1.0, 2.0], [3.0, 4.0]).describe() == (
        "correlation of 2 pairs: not defined, three or more are needed"
    )
    constant = correlation([1.0, 2.0, 3.0, 4.0], [5.0] * 4)
    assert constant.pearson is constant.spearman is None
    assert constant.describe() == "correlation of 4 pairs: not defined, one of the series is constant"
    assert correlation([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]).describe() == (
        "correlation of 4 pairs: Pearson 0.80 (95 % interval -0.70 to 1.00), Spearman 0.80"
    )
    assert correlation([1.0, 2.0, 4.0], [1.0, 3.0, 5.0]).describe() == (
        "correlation of 3 pairs: Pearson 0.98, Spearman 1.00"
    )


def test_a_perfect_correlation_has_an_interval_of_no_width():
    found = correlation([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0])
    assert (found.pearson, found.spearman) == pytest.approx((1, 1))
    assert (found.low, found.high) == pytest.approx((1, 1))


def test_series_without_partners_are_refused():
    with pytest.raises(DataError) as error:
        correlation([1.0, 2.0, 3.0], [1.0, 2.0])
    assert str(error.value) == (
        "eval: series of 3 and 2 numbers were to be correlated; each number needs its partner; "
        "leave out those that have none"
    )


# ── what may be compared ─────────────────────────────────────────────────────────────────────────────────────────

SIGNATURE = (
    "metric:bleu|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
    "|task:translation1|prompt:alpaca.english.0|split:all|items:60of120|data:0a1b2c3d"
    "|decoding:greedy,64|interval:95%,bootstrap1000,seed0"
)


def test_scores_that_only_differ_in_how_the_interval_was_made_are_comparable():
    assert comparable(SIGNATURE, SIGNATURE) == ""
    assert comparable(SIGNATURE, SIGNATURE.replace("bootstrap1000,seed0", "bootstrap50,seed7")) == ""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("tok:13a", "tok:zh", "tok: '13a' and 'zh'"),
        ("|version:2.6.0", "", "version: '2.6.0' and none"),
        ("|split:all", "|split:all|chunk:2", "chunk: none and '2'"),
        ("data:0a1b2c3d", "data:0a1b2c3e", "data: '0a1b2c3d' and '0a1b2c3e'"),
        ("english.0|split:all", "native.1|split:test", "prompt: 'alpaca.english.0' and 'alpaca.native.1'"),
        ("greedy,64", "beams4,64", "decoding: 'greedy,64' and 'beams4,64'"),
    ],
)
def test_the_first_part_that_differs_is_named(old, new, reason):
    assert comparable(SIGNATURE, SIGNATURE.replace(old, new)) == reason


def test_a_value_may_hold_colons_and_a_key_may_be_there_twice():
    assert comparable("a:1:2|b:1", "a:1:3|b:1") == "a: '1:2' and '1:3'"
    assert comparable("a:1|a:2", "a:1|a:3") == "a: '1|2' and '1|3'"
    assert comparable("a:1|a:2", "a:1") == "a: '1|2' and '1'"
