"""Splits: as good as the best of all, within every limit, and what they are set against."""

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.analysis.allocate.problem import make_problem
from jaxlingua.analysis.allocate.split import TEMPERATURE, baselines, best_split, by_shares
from jaxlingua.tokens.balance import temperature_shares, unimax_shares
from tests.analysis.allocate.made import CODES, best_by_trying, fitted, laws_of, many, powers

CLOSE = 1e-9  # of sums of the same numbers in another order
OFF = 5  # pairs, by which whole numbers of pairs of cost 1 to 4 keep a language from where it would be
TOLD = 2e-6  # what branch and bound leaves at most, which it tells

SIGNS = st.sampled_from([1, 1, 1, -1])
POWER = st.tuples(st.floats(-5, 40), st.floats(0, 60), st.floats(0.05, 2))
LOG = st.tuples(st.floats(-5, 5), st.floats(0, 10))
SIGMOID = st.tuples(st.floats(-2, 2), st.floats(0, 30), st.floats(0.5, 60), st.floats(0.08, 2))
DOWN = st.one_of(st.tuples(st.just("power"), POWER), st.tuples(st.just("log_linear"), LOG))
LAW = st.one_of(DOWN, st.tuples(st.just("sigmoid"), SIGMOID))


@st.composite
def problems(draw, laws=LAW, costs=("1", "1", "1.5", "2", "0.3")):
    """Two to four languages, some of them limited; where lower is better, laws fall."""
    count = draw(st.integers(2, 4))
    is_higher_better = draw(st.booleans())
    ones = []
    for code in CODES[:count]:
        name, (level, amplitude, *rest) = draw(laws)
        amplitude *= draw(SIGNS) * (1 if is_higher_better else -1)
        ones.append(fitted(code, name, (level, amplitude, *rest)))
    objective = draw(st.sampled_from(["mean", "minimum", "weighted"]))
    weights = {code: draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])) for code in CODES[1:count]}
    least = {code: draw(st.integers(0, 4)) for code in CODES[:count] if draw(st.booleans())}
    available = {
        code: least.get(code, 1) + draw(st.integers(0, 25)) for code in CODES[:count] if draw(st.booleans())
    }
    cost = {code: Fraction(draw(st.sampled_from(costs))) for code in CODES[:count]}
    needed = sum(cost[code] * max(1, least.get(code, 0)) for code in CODES[:count])
    budget = needed + draw(st.integers(0, {2: 60, 3: 30, 4: 14}[count]))
    return make_problem(
        laws_of(*ones, is_higher_better=is_higher_better),
        budget,
        objective=objective,
        weights=weights | {CODES[0]: 1.0} if objective == "weighted" else {},
        available={code: max(1, pairs) for code, pairs in available.items()},
        cost=cost,
        least=least,
    )  # fmt: skip


def check_limits(problem, pairs):
    assert pairs.dtype == np.int64
    assert (pairs >= problem.least).all()
    assert (pairs <= problem.most).all()
    assert (pairs <= problem.available).all()
    assert sum(int(c) * int(n) for c, n in zip(problem.cost, pairs, strict=True)) <= problem.budget


@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_a_split_is_as_good_as_the_best_of_all_that_were_tried(problem):
    """Of two to four languages, for all objectives, laws that bend either way, costs and limits."""
    split = best_split(problem)
    check_limits(problem, split.pairs)
    value = float(problem.value(problem.gains_at(split.pairs)))
    best, of_best = best_by_trying(problem)
    assert value <= best + CLOSE * max(1, abs(best))
    assert split.gap <= TOLD * max(1, abs(best))
    assert value >= best - split.gap - CLOSE * max(1, abs(best))
    if problem.objective == "minimum" and not split.is_flat:  # and of these the next lowest is best
        lowest, second = np.sort(problem.gains_at(split.pairs))[:2]
        as_good = of_best[of_best[:, 0] >= lowest]  # not those that buy it with a little of the lowest
        if (problem.cost == problem.cost[0]).all():
            assert second >= as_good[:, 1].max(initial=second) - 1e-9 * max(1, abs(second))


def test_what_the_lowest_cannot_use_goes_to_the_next():
    """From 10 pairs on the lowest gains less than a float can tell; an 11th would be one that the other lacks."""
    other, lowest = fitted(CODES[0], "power", (3, 1, 1)), fitted(CODES[1], "sigmoid", (0, 0.5, 0.5, 0.08))
    problem = make_problem(laws_of(other, lowest), 12, objective="minimum")
    assert best_split(problem).pairs.tolist() == [2, 10]


@settings(max_examples=40, deadline=None)
@given(problem=problems(laws=DOWN, costs=("1",)))
def test_laws_that_bend_down_and_cost_alike_leave_no_gap(problem):
    split = best_split(problem)
    best, _ = best_by_trying(problem)
    assert problem.value(problem.gains_at(split.pairs)) == pytest.approx(best, rel=CLOSE, abs=CLOSE)
    assert split.gap <= CLOSE * max(1, abs(best))


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(5, 30), st.floats(50, 900), st.floats(0.05, 1)), min_size=2, max_size=6),
    budget=st.integers(10, 1500),
)  # fmt: skip
def test_sigmoids_get_what_a_dynamic_program_finds(steps, budget):
    """Where each language must be lifted over a threshold, and the budget is not enough for all."""
    codes = [f"l{index:02d}_Latn" for index in range(len(steps))]
    laws = laws_of(*(fitted(code, "sigmoid", (0, *step)) for code, step in zip(codes, steps, strict=True)))
    problem = make_problem(laws, budget)
    best = np.zeros(budget + 1)
    for index in range(len(codes)):
        gains = problem.gains(index, np.arange(budget + 1)) / len(codes)
        best = np.array([(best[: n + 1] + gains[: n + 1][::-1]).max() for n in range(budget + 1)])
    split = best_split(problem)
    value = float(problem.value(problem.gains_at(split.pairs)))
    assert value <= best[-1] + CLOSE
    assert value >= best[-1] - split.gap - CLOSE
    assert split.gap <= TOLD * max(1.0, value)


@settings(max_examples=40, deadline=None)
@given(
    laws=st.lists(st.tuples(st.floats(10, 40), st.floats(20, 300), st.floats(0.1, 0.9)), min_size=2, max_size=4),
    costs=st.lists(st.sampled_from(["1", "1.5", "4"]), min_size=4, max_size=4),
    limits=st.lists(st.integers(2000, 60_000), min_size=4, max_size=4),
)  # fmt: skip
def test_marginal_gains_per_cost_are_equal_where_no_limit_binds(laws, costs, limits):
    """The conditions of Karush, Kuhn and Tucker: above the price at `available`, below it at `least`."""
    codes = CODES[: len(laws)]
    problem = make_problem(
        powers(*laws),
        Fraction(100_000),
        available=dict(zip(codes, limits, strict=False)),
        least={codes[0]: 1000},
        cost={code: Fraction(cost) for code, cost in zip(codes, costs, strict=False)},
    )
    pairs = best_split(problem).pairs
    if (pairs == problem.available).all():
        return
    assert problem.budget - problem.spent(pairs) < problem.cost.max()
    slopes = [float(one.slope(n)) for one, n in zip(problem.fitted, pairs, strict=True)]
    gains = np.array(slopes) * problem.units / problem.cost
    full, low = pairs > problem.available - OFF, pairs < problem.least + OFF
    free = ~full & ~low
    price = gains[free].mean() if free.any() else gains[~full].max() if not full.all() else 0
    near = 1 + 4 * OFF / pairs.min()  # gains go by n^-2 at most
    assert (gains[free] <= price * near).all()
    assert (gains[free] >= price / near).all()
    assert (gains[full] >= price / near).all()
    assert (gains[low & ~full] <= price * near).all()


@pytest.mark.parametrize("law", ["power", "log_linear", "sigmoid"])
def test_no_exchange_of_a_pair_makes_a_split_of_100_languages_better(law):
    laws = many(100, law)
    cost = {code: Fraction(10 + index % 7, 10) for index, code in enumerate(laws.of)}
    problem = make_problem(laws, Fraction(400_000), cost=cost, available=dict.fromkeys(laws.of, 20_000))
    split = best_split(problem)
    check_limits(problem, split.pairs)
    left = problem.budget - problem.spent(split.pairs)
    low, high = problem.least, problem.most
    now, more, less = (problem.gains_at(np.clip(split.pairs + step, low, high)) for step in (0, 1, -1))
    up = np.where(split.pairs < high, more - now, -np.inf)
    down = np.where(split.pairs > low, now - less, np.inf)
    fits = problem.cost[None, :] <= left + problem.cost[:, None]
    np.fill_diagonal(fits, False)
    assert (np.where(fits, up[None, :] - down[:, None], -np.inf) <= CLOSE).all()
    assert (up[problem.cost <= left] <= CLOSE).all()


@pytest.mark.parametrize("objective", ["mean", "minimum"])
@pytest.mark.parametrize("law", ["power", "log_linear", "sigmoid"])
def test_100_languages_take_less_than_a_second(law, objective):
    laws = many(100, law)
    rng = np.random.default_rng(1)
    available = {code: int(np.exp(rng.uniform(5, 12))) for code in laws.of}
    problem = make_problem(laws, Fraction(500_000), objective=objective, available=available)
    before = time.process_time()  # of this process alone
    split = best_split(problem)
    assert time.process_time() - before < 1
    check_limits(problem, split.pairs)
    assert problem.spent(split.pairs) == problem.budget


@pytest.mark.parametrize("costs", [(1000, 1, 1), (1000, 30, 1), (1, 700, 1000)])
def test_the_minimum_leaves_nothing_that_a_language_could_gain_from(costs):
    """What is too little for a pair of a dear language goes to the cheap ones, however many pairs it buys."""
    problem = make_problem(
        powers((25, 90, 0.35), (30, 200, 0.3), (28, 150, 0.3)),
        Fraction("2000000.9"),
        objective="minimum",
        cost={code: Fraction(cost) for code, cost in zip(CODES, costs, strict=False)},
    )
    pairs = best_split(problem).pairs
    check_limits(problem, pairs)
    assert problem.budget - problem.spent(pairs) < problem.cost.min()
    dear = int(problem.cost.argmax())  # which, of the lowest gain, could not have been raised instead
    assert problem.gains_at(pairs)[dear] == problem.gains_at(pairs).min()


def test_a_language_that_loses_with_more_pairs_gets_the_least():
    laws = powers((20, 50, 0.3), (20, -50, 0.3))
    for objective in ("mean", "minimum"):
        pairs = best_split(make_problem(laws, 1000, objective=objective)).pairs
        assert list(pairs) == [999, 1]


def test_a_law_without_a_value_at_0_gets_a_pair_and_a_sigmoid_may_get_none():
    """Its start is above what the other can come to, and it rises late."""
    laws = laws_of(
        fitted("deu_Latn", "log_linear", (-50, 5)), fitted("jav_Latn", "sigmoid", (0, 1, 1e6, 0.3))
    )
    problem = make_problem(laws, 100)
    assert list(problem.least) == [1, 0]
    assert list(best_split(problem).pairs) == [100, 0]


def test_flat_laws_get_a_uniform_split_which_is_told():
    laws = powers((20, 0, 0.3), (30, 0, 0.3), (10, 0, 1.0))
    for objective in ("mean", "minimum"):
        split = best_split(make_problem(laws, 90, objective=objective))
        assert split.is_flat
        assert list(split.pairs) == [30, 30, 30]
    assert not best_split(make_problem(powers((20, 0, 0.3), (30, 5, 0.3)), 90)).is_flat


def test_an_unlimited_budget_takes_all_that_is_available():
    available = {"deu_Latn": 700, "jav_Latn": 20}
    problem = make_problem(powers((20, 50, 0.3), (30, 5, 0.3)), float("inf"), available=available)
    assert list(best_split(problem).pairs) == [700, 20]


# ── what it is set against ──────────────────────────────────────────────────────────────────────────────────


def test_equal_shares_are_those_of_unimax():
    available = dict(zip(CODES, (40, 5000, 700, 333), strict=True))
    problem = make_problem(powers(*[(20, 50, 0.3)] * 4), 1600, available=available)
    expected = unimax_shares(available, 1600, 1.0)
    split = baselines(problem)["uniform"]
    assert split.sum() == 1600
    assert all(abs(n - expected[code]) < 1 for code, n in zip(CODES, split, strict=True))


def test_shares_by_temperature_are_those_of_stages():
    available = dict(zip(CODES, (4000, 5000, 70_000, 33_300), strict=True))
    problem = make_problem(powers(*[(20, 50, 0.3)] * 4), 9001, available=available)
    for name, temperature in (("proportional", 1.0), (f"temperature {TEMPERATURE}", TEMPERATURE)):
        expected = temperature_shares(available, 9001, temperature)
        split = baselines(problem)[name]
        assert split.sum() == 9001
        assert all(abs(n - expected[code]) < 1 for code, n in zip(CODES, split, strict=True))


@settings(max_examples=60, deadline=None)
@given(problem=problems(), shares=st.lists(st.floats(0.01, 100), min_size=4, max_size=4))
def test_shares_meet_every_limit_and_leave_less_than_a_pair(problem, shares):
    pairs = by_shares(problem, np.array(shares[: len(problem.cost)]))
    check_limits(problem, pairs)
    can = pairs < problem.most
    assert (problem.cost[can] > problem.budget - problem.spent(pairs)).all()
