"""Intervals hold what they say."""

import numpy as np
import pytest
from scipy.stats import t as student

from jaxlingua.analysis.scaling.choice import candidates, choose
from jaxlingua.analysis.scaling.fit import NotDetermined, fit
from jaxlingua.analysis.scaling.intervals import interval, new_score_interval, with_draws
from jaxlingua.analysis.scaling.laws import LAWS
from tests.analysis.scaling.synthetic import draw_law, draw_scores

NOISES = (0.2, 0.5, 1.5)


def share_within(
    law: str,
    simulations: int,
    draws: int,
    *,
    is_law_known: bool = True,
    sizes: tuple[int, ...] = (5, 6, 7),
    noises: tuple[float, ...] = NOISES,
) -> float:
    """How often the score of the next size lies in its interval, over laws, languages, sizes, seeds and noises."""
    rng = np.random.default_rng(11)
    hits: list[float] = []
    refused = 0
    for simulation in range(simulations):
        of = draw_law(law, int(rng.integers(2, 4)), rng)
        count, noise = sizes[int(rng.integers(len(sizes)))], noises[simulation % len(noises)]
        points = draw_scores(of, count, int(rng.integers(2, 4)), noise, rng)
        try:
            found = fit(law, points) if is_law_known else choose(candidates(points))[0].fitted
        except NotDetermined:
            refused += 1
            continue
        told = with_draws(found, draws=draws, seed=simulation)
        following = 1000 * 2.0**count
        for code, one in of.items():
            low, high = new_score_interval(told[code], following)
            hits.append(low <= one.at(following) + rng.normal(0, noise) <= high)
    assert refused <= simulations / 100
    return float(np.mean(hits))


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_the_next_score_lies_in_its_90_percent_interval_in_85_to_95_of_100_simulations(law):
    assert 0.85 <= share_within(law, 200, 200) <= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("law", ["power", "log_linear", "sigmoid"])
def test_choosing_the_law_costs_the_interval_little(law):
    """Which law is true is not in the interval; the choice is right often enough that it hardly shows."""
    assert 0.80 <= share_within(law, 60, 200, is_law_known=False) <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [3, 4])
@pytest.mark.parametrize(
    ("law", "least"), [("power", 0.7), ("power_free", 0.7), ("log_linear", 0.8), ("sigmoid", 0.5)]
)
def test_intervals_of_few_sizes_are_too_narrow_and_not_useless(law, least, sizes):
    """Three sizes can hardly tell where a sigmoid bends."""
    assert least <= share_within(law, 60, 200, is_law_known=False, sizes=(sizes,)) <= 0.96


def test_the_next_score_lies_in_its_interval_about_as_often_as_it_says():
    assert 0.82 <= share_within("power", 40, 100) <= 0.96


def test_intervals_of_a_linear_law_are_those_of_students_t():
    """By hand: with few scores the doubt about the noise matters, which the normal distribution would leave out."""
    rng = np.random.default_rng(12)
    points = draw_scores(draw_law("log_linear", 1, rng), 4, 1, 0.5, rng)
    found = fit("log_linear", points)
    one = next(iter(with_draws(found, draws=4000).values()))
    columns = np.column_stack([np.ones(4), np.log(points.pairs)])
    at = np.array([1, np.log(16000.0)])
    leverage = at @ np.linalg.inv(columns.T @ columns) @ at
    wide = student.ppf(0.95, 2) * found.residual_sd * np.sqrt([leverage, 1 + leverage])
    (curve_low, curve_high), (low, high) = interval(one.draws_at(16000)), new_score_interval(one, 16000)
    # Four residuals are no normal distribution: a quarter, where without the doubt it would be almost half.
    np.testing.assert_allclose([curve_high - curve_low, high - low], 2 * wide, rtol=0.25)


def test_draws_are_the_same_again_and_lie_around_the_law():
    rng = np.random.default_rng(13)
    points = draw_scores(draw_law("power", 2, rng), 6, 2, 0.5, rng)
    first, second = (with_draws(fit("power", points), draws=50) for _ in range(2))
    for code, one in first.items():
        np.testing.assert_array_equal(one.draws, second[code].draws)
        assert (one.smallest_pairs, one.largest_pairs) == (1000, 32000)
        low, high = interval(one.draws_at([1000, 32000]))
        assert (low < one.at([1000, 32000])).all()
        assert (one.at([1000, 32000]) < high).all()


def test_an_end_of_an_interval_may_be_infinite():
    low, high = interval(np.array([1.0, 2.0, np.inf, np.inf]))
    assert (low, high) == (1.0, np.inf)
