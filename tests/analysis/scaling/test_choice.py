"""Which law is taken, and why."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jaxlingua.analysis.scaling.choice import Candidate, candidates, choose, held_out_error
from jaxlingua.analysis.scaling.laws import family
from jaxlingua.errors import DataError
from tests.analysis.scaling.synthetic import draw_law, draw_scores


def candidate(law: str, aicc: float, error: float, unknowns: int = 4) -> Candidate:
    return Candidate(law, SimpleNamespace(aicc=aicc, unknowns=[0] * unknowns), error, 0.1)


def test_the_law_that_scores_were_made_from_is_nearly_always_taken():
    """A sigmoid can be nearly one of the others, so that noise alone may favor it now and then."""
    right = []
    for law in ("power", "log_linear_free", "sigmoid"):
        for seed in range(2):
            rng = np.random.default_rng(seed)
            chosen, _ = choose(candidates(draw_scores(draw_law(law, 3, rng), 7, 3, 0.1, rng)))
            right.append(family(chosen.law) == family(law))
    assert sum(right) >= 5, right


def test_the_held_out_error_is_that_of_a_fit_without_the_largest_size():
    """By hand, of a straight line through the smaller sizes."""
    rng = np.random.default_rng(2)
    points = draw_scores(draw_law("log_linear", 1, rng), 4, 2, 0.0, rng)
    points.score[points.pairs == 8000] += (1.0, 3.0)
    assert held_out_error("log_linear", points, points.largest()) == pytest.approx(2, abs=1e-6)


def test_a_free_amplitude_is_a_matter_of_aicc_and_a_law_of_the_held_out_size():
    power, free = candidate("power", 10, 0.5), candidate("power_free", 5, 0.9)
    line, sigmoid = candidate("log_linear", 30, 2.0), candidate("sigmoid", 2, 1.5)
    chosen, why = choose([power, free, line, sigmoid])
    assert chosen.law == "power_free"
    assert "AICc would take sigmoid, by 3.0: the two disagree, so see --law sigmoid too" in why


def test_errors_alike_to_within_the_noise_are_told_apart_by_aicc():
    chosen, why = choose([candidate("power", 1, 0.55), candidate("sigmoid", 4, 0.5)])
    assert (chosen.law, why) == (
        "power", "its error at the held-out size is that of sigmoid to within the noise, and AICc takes it too"
    )  # fmt: skip
    assert choose([candidate("power", 1, 0.65), candidate("sigmoid", 4, 0.5)])[0].law == "sigmoid"


@pytest.mark.parametrize(
    ("laws", "law", "why"),
    [
        # One unknown more, alike in AICc: no disagreement.
        ([("power", 3, 0.9, 4), ("log_linear", 3.9, 0.5, 3)], "log_linear",
         "its error at the held-out size is smallest, and AICc takes it too"),
        ([("power", 3, 0.5, 5), ("log_linear", 3.9, 0.9, 3)], "power",
         "its error at the held-out size is smallest; AICc finds it and log_linear alike"),
        # AICc took power_free out, whose error is the smallest of all.
        ([("power", 1, 0.5, 4), ("power_free", 9, 0.4, 5), ("log_linear", 30, 0.9, 3)], "power",
         "its error at the held-out size is smallest of power, log_linear, and AICc takes it too"),
        ([("power", 4, 0.5, 4), ("sigmoid", 8, 0.55, 5), ("log_linear", 1, 0.9, 3)], "power",
         "its error at the held-out size is smallest; AICc would take log_linear, by 3.0: the two disagree, "
         "so see --law log_linear too"),
        ([("power", 8, 0.5, 4), ("sigmoid", 5, 0.55, 5), ("log_linear", 1, 0.9, 3)], "sigmoid",
         "its error at the held-out size is that of power to within the noise; AICc would take log_linear, "
         "by 4.0: the two disagree, so see --law log_linear too"),
        ([("power", math.inf, 0.5, 4), ("log_linear", 2, 0.9, 3)], "power",
         "its error at the held-out size is smallest; AICc needs more scores"),
        ([("power", math.inf, 0.9, 4), ("log_linear", math.inf, 0.5, 3)], "log_linear",
         "its error at the held-out size is smallest; AICc needs more scores"),
        ([("power", math.inf, math.nan, 4), ("log_linear", math.inf, math.nan, 3)], "log_linear",
         "it has the fewest unknowns; no size could be held out, and AICc needs more scores"),
        ([("power", -25, math.nan, 4), ("log_linear", 2, 0.5, 3)], "power",
         "by AICc alone, since it cannot be fitted without the largest size"),
    ],
)  # fmt: skip
def test_the_reason_is_the_true_one(laws, law, why):
    chosen, told = choose([candidate(*one) for one in laws])
    assert (chosen.law, told) == (law, why)


def test_the_law_of_three_sizes_is_not_the_one_that_two_sizes_are_enough_for():
    """Two sizes cannot tell a curve with an amplitude for each language; AICc is far from a line."""
    rng = np.random.default_rng(6)
    found = candidates(draw_scores(draw_law("power_free", 3, rng), 3, 3, 0.1, rng))
    errors = {one.law: one.held_out_error for one in found}
    assert math.isfinite(errors["log_linear_free"])
    assert math.isnan(errors["power_free"])
    assert choose(found)[0].law == "power_free"


def test_laws_alike_in_aicc_are_told_apart_by_their_unknowns():
    laws = [candidate("power", 3, 0.5), candidate("sigmoid", 1.5, 0.5, unknowns=5)]
    assert choose(laws)[0].law == "power"
    assert choose([laws[0], candidate("sigmoid", 0.5, 0.5, unknowns=5)])[0].law == "sigmoid"


def test_aicc_alone_where_no_size_can_be_held_out():
    rng = np.random.default_rng(3)
    found = candidates(draw_scores(draw_law("log_linear", 2, rng), 2, 3, 0.1, rng))
    assert all(math.isnan(one.held_out_error) for one in found)
    assert choose(found)[1] == "by AICc alone, since no size could be held out"
    assert {one.law for one in found if one.fitted is None} >= {"sigmoid"}
    told = {one.law: one.told() for one in found}
    assert told["log_linear"]["held_out_error"] is None
    assert told["log_linear"]["unknowns"] == 3


def test_too_few_scores_for_every_law_are_refused():
    rng = np.random.default_rng(4)
    with pytest.raises(DataError, match="no law can be fitted; power: 2 scores for 3 unknowns; .*add scores"):
        candidates(draw_scores(draw_law("power", 1, rng), 2, 1, 0.1, rng))
