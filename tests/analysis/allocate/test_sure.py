"""How sure a split is: draws that agree with the laws, draws that do not, and what is told first."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from jaxlingua.analysis.allocate.problem import make_problem
from jaxlingua.analysis.allocate.split import Split, baselines, best_split
from jaxlingua.analysis.allocate.sure import compare, regret
from jaxlingua.analysis.allocate.told import describe
from jaxlingua.analysis.scaling.laws import Laws
from tests.analysis.allocate.made import CODES, fitted, laws_of, powers

TABLE = 2e-3  # of a score of some 20: what lines between the sizes of a table lose


def told(problem, split=None):
    split = split or best_split(problem)
    compared = compare(problem, split.pairs, baselines(problem))
    return describe(problem, split, compared, regret(problem, split.pairs))


def spread_draws(parameters, count=100, spread=0.05, seed=0):
    return np.array(parameters) * np.exp(
        np.random.default_rng(seed).normal(0, spread, (count, len(parameters)))
    )


def test_draws_that_are_the_law_leave_no_doubt_and_nothing_to_regret():
    problem = make_problem(powers((30, 200, 0.3), (30, 20, 0.3)), 5000)
    facts = told(problem)
    (uniform,) = facts["baselines"]
    assert uniform["better_in"] == 1.0
    assert uniform["low"] == uniform["high"] == pytest.approx(uniform["better_by"])
    assert uniform["better_by"] == pytest.approx(facts["score"] - uniform["score"])
    assert facts["regret"]["high"] <= TABLE
    assert facts["summary"].startswith("5,000 pairs over 2 languages: mean bleu")
    assert "better than uniform by" in facts["summary"]


def test_draws_that_disagree_are_told_first():
    """In half of the draws the languages change places, so that the split made for one half is bad there."""
    a, b = (30.0, 200.0, 0.3), (30.0, 60.0, 0.3)
    half = np.array([[a] * 10 + [b] * 10, [b] * 10 + [a] * 10])
    laws = laws_of(
        *(fitted(code, "power", p, draws=d) for code, p, d in zip(CODES, (a, b), half, strict=False))
    )
    facts = told(make_problem(laws, 5000))
    (uniform,) = facts["baselines"]
    assert uniform["better_in"] == 0.5
    assert uniform["low"] < 0 < uniform["high"]
    assert facts["summary"].startswith("Not surely better than uniform (better in 50 %)")
    assert facts["regret"]["high"] > 0.2


def test_where_lower_is_better_a_split_is_better_that_lowers():
    ones = [fitted(code, "power", p) for code, p in zip(CODES, ((1, -20, 0.3), (1, -2, 0.3)), strict=False)]
    facts = told(make_problem(laws_of(*ones, is_higher_better=False), 5000))
    (uniform,) = facts["baselines"]
    assert facts["score"] < uniform["score"]
    assert uniform["better_by"] == pytest.approx(uniform["score"] - facts["score"])
    assert uniform["better_in"] == 1.0
    assert all(one["per_1000_pairs"] < 0 for one in facts["languages"])


@pytest.mark.parametrize("objective", ["mean", "minimum", "weighted"])
def test_regret_is_what_the_best_split_of_each_draw_gains(objective):
    """Found one draw at a time, by the solver that splits after the law itself."""
    parameters = [(30, 200, 0.3), (25, 60, 0.4), (40, 300, 0.35)]
    ones = [
        fitted(code, "power", p, draws=spread_draws(p, 10, 0.4, seed=place))
        for place, (code, p) in enumerate(zip(CODES, parameters, strict=False))
    ]
    weights = {"jav_Latn": 3.0} if objective == "weighted" else {}
    more = {"objective": objective, "weights": weights, "available": {"sun_Latn": 3000}}
    problem = make_problem(laws_of(*ones), 6000, **more)
    ours = best_split(problem).pairs
    lost = []
    for draw in range(10):
        of = {one.language: replace(one, parameters=one.draws[draw]) for one in ones}
        then = make_problem(Laws("bleu", "multi30k", True, of), 6000, **more)
        best = best_split(then).pairs
        lost.append(then.value(then.gains_at(best)) - then.value(then.gains_at(ours)))
    found = regret(problem, ours)
    assert found.draws == 10
    assert found.median == pytest.approx(np.median(lost), abs=TABLE)
    assert found.high == pytest.approx(np.percentile(lost, 95), abs=TABLE)
    assert found.high > 10 * TABLE  # so that there is something to regret


def test_predictions_and_their_intervals_are_those_of_the_draws():
    p = (30, 200, 0.3)
    problem = make_problem(
        laws_of(fitted("jav_Latn", "power", p, draws=spread_draws(p))), 1000, available={"jav_Latn": 800}
    )
    facts = told(problem)
    (language,) = facts["languages"]
    of_draws = problem.fitted[0].draws_at(800)
    assert language["pairs"] == 800
    assert language["score"] == pytest.approx(30 - 200 * 800**-0.3)
    assert [language["low"], language["high"]] == pytest.approx(list(np.percentile(of_draws, [5, 95])))
    assert language["per_1000_pairs"] == pytest.approx(1000 * 60 * 800**-1.3)
    assert language["bound_by"] == "availability"
    assert "200 of the budget left over: nothing gains from it" in facts["notes"]
    assert "no other split that is compared here differs from it" in facts["summary"]


def test_predictions_far_from_what_was_measured_are_told_of_each_language():
    laws = powers((30, 200, 0.3), (30, 20, 0.3), smallest=1000, largest=2000)
    facts = told(make_problem(laws, 6000, available={"jav_Latn": 100}))
    assert [one["bound_by"] for one in facts["languages"]] == ["", "availability"]
    notes = " ".join(facts["notes"])
    assert "beyond 2 times the largest measured size, which is extrapolation: deu_Latn" in notes
    assert "below the smallest measured size, where the law was not tried: jav_Latn" in notes
    assert "proportional and temperature splits are left out" in notes


def test_costs_and_what_is_left_of_the_best_are_told():
    problem = make_problem(
        powers((30, 200, 0.3), (30, 20, 0.3)), Fraction(100), cost={"jav_Latn": Fraction(7, 2)}
    )
    split = best_split(problem)
    facts = told(problem, Split(split.pairs, gap=0.25))
    assert facts["languages"][1]["cost"] == 3.5 * facts["languages"][1]["pairs"]
    assert facts["spent"] == sum(one["cost"] for one in facts["languages"]) <= 100
    assert "no split of whole pairs is better than this one by more than 0.25" in facts["notes"]


def test_a_sure_difference_that_no_run_would_show_is_told_first():
    """Of two nearly equal languages: 0.1 is how far a single score lies from its law, of a mean of two 0.07."""
    facts = told(make_problem(powers((30, 200, 0.3), (30, 190, 0.3)), 5000))
    assert facts["noise"] == pytest.approx(0.1 / np.sqrt(2))
    assert facts["baselines"][0]["better_in"] == 1.0
    assert facts["baselines"][0]["better_by"] < facts["noise"]
    assert facts["summary"].endswith("less than a single run strays from the laws (0.0707): uniform")
    far = told(make_problem(powers((30, 200, 0.3), (30, 2, 0.3)), 5000))
    assert "strays" not in far["summary"]
