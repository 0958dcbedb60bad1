"""Laws are recovered, as scipy and numpy recover them, and refused where scores cannot tell them."""

import numpy as np
import pytest
from scipy.optimize import curve_fit, least_squares

from jaxlingua.analysis.scaling.fit import Fit, NotDetermined, fit, refit
from jaxlingua.analysis.scaling.laws import LAWS
from tests.analysis.scaling.synthetic import CODES, draw_law, draw_scores

SAME_MINIMUM = 1e-4  # of parameters, relative: two ways to the same least squares


def parameters_of(found: Fit) -> np.ndarray:
    return np.stack([found.form.parameters(found.unknowns, place) for place in range(found.form.languages)])


@pytest.mark.parametrize("law", LAWS)
def test_parameters_without_noise_are_those_the_scores_were_made_from(law):
    of = draw_law(law, 3, np.random.default_rng(0))
    found = fit(law, draw_scores(of, 7, 1, 0.0, np.random.default_rng(0)))
    np.testing.assert_allclose(
        parameters_of(found), [one.parameters for one in of.values()], rtol=SAME_MINIMUM
    )
    assert found.r_squared == pytest.approx(1)


def test_a_power_law_is_that_of_scipys_curve_fit():
    """In the parameters that users see, with the same robust cost; least squares alone is a little off."""
    of = draw_law("power", 2, np.random.default_rng(1))
    points = draw_scores(of, 6, 3, 0.3, np.random.default_rng(1))
    found = fit("power", points)

    def law(log_effective, first, second, a, b):
        return np.where(points.language == 0, first, second) - a * np.exp(-b * log_effective)

    start = (20, 20, 400, 0.5)
    robust = {"method": "trf", "loss": "soft_l1", "f_scale": found.bend * found.form.scale, "x_scale": "jac"}
    precise = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12, "max_nfev": 5000}
    theirs, _ = curve_fit(law, points.log_effective, points.score, start, **robust, **precise)
    ours = parameters_of(found)
    np.testing.assert_allclose([ours[0, 0], ours[1, 0], *ours[0, 1:]], theirs, rtol=SAME_MINIMUM)
    plain, covariance = curve_fit(law, points.log_effective, points.score, start)
    assert (np.abs(theirs - plain) < 0.5 * np.sqrt(np.diag(covariance))).all()


def test_a_log_linear_law_is_that_of_least_squares_by_hand():
    of = draw_law("log_linear_free", 2, np.random.default_rng(2))
    points = draw_scores(of, 5, 1, 0.0, np.random.default_rng(2))
    ours = parameters_of(fit("log_linear_free", points))
    for place in range(2):
        own = points.language == place
        columns = np.column_stack([np.ones(own.sum()), points.log_effective[own]])
        np.testing.assert_allclose(
            ours[place], np.linalg.lstsq(columns, points.score[own])[0], rtol=SAME_MINIMUM
        )


def test_an_outlier_moves_the_law_less_than_least_squares():
    of = draw_law("log_linear", 1, np.random.default_rng(3))
    points = draw_scores(of, 6, 3, 0.2, np.random.default_rng(3))
    points.score[-1] -= 15  # a run that diverged
    true = of[CODES[0]].parameters[1]
    ours = parameters_of(fit("log_linear", points))[0, 1]
    theirs = np.polyfit(points.log_effective, points.score, 1)[0]
    assert abs(ours - true) < 0.2 * abs(theirs - true)


@pytest.mark.parametrize("law", [law for law in LAWS if law != "log_linear"])
def test_refitting_many_draws_finds_what_scipy_finds_for_each(law):
    rng = np.random.default_rng(4)
    points = draw_scores(draw_law(law, 2, rng), 6, 2, 0.7, rng)
    found = fit(law, points)
    draws = points.score - found.residuals + rng.normal(0, found.residual_sd, (4, len(points.score)))
    low, high = found.form.limits()
    for ours, scores in zip(refit(found, draws), draws, strict=True):
        target = (scores - found.form.level) / found.form.scale
        theirs = least_squares(
            lambda unknowns, target=target: found.form.predict(unknowns)[0] - target,
            found.unknowns, lambda unknowns: found.form.predict(unknowns)[1], bounds=(low, high), loss="soft_l1",
            f_scale=found.bend, x_scale="jac", xtol=1e-12, ftol=1e-14, gtol=1e-12, max_nfev=3000,
        )  # fmt: skip
        away = (found.form.predict(ours)[0] - target) / found.bend
        assert found.bend**2 * (np.sqrt(1 + away**2) - 1).sum() <= theirs.cost * (1 + 1e-6)
        assert (ours >= low).all()
        assert (ours <= high).all()


def test_derivatives_are_those_of_small_differences():
    rng = np.random.default_rng(5)
    for law in LAWS:
        form = fit(law, draw_scores(draw_law(law, 2, rng), 6, 2, 0.5, rng)).form
        at = np.full(form.unknowns, 0.7)
        differences = [
            (form.predict(at + step)[0] - form.predict(at - step)[0]) / 2e-6
            for step in 1e-6 * np.eye(form.unknowns)
        ]
        np.testing.assert_allclose(form.predict(at)[1], np.transpose(differences), atol=1e-8)


def test_a_law_that_the_scores_cannot_tell_is_not_fitted():
    rng = np.random.default_rng(6)
    points = draw_scores(draw_law("power", 2, rng), 2, 1, 0.1, rng)
    with pytest.raises(NotDetermined, match="4 scores for 4 unknowns"):
        fit("power", points)
    points = draw_scores(draw_law("power", 1, rng), 1, 9, 0.1, rng)
    with pytest.raises(NotDetermined, match="several sets of parameters"):
        fit("log_linear", points)


def test_aicc_is_the_formula():
    rng = np.random.default_rng(7)
    found = fit("power", draw_scores(draw_law("power", 2, rng), 5, 2, 0.5, rng))
    likelihood = -10 * (np.log(2 * np.pi * (found.residuals**2).mean()) + 1)  # of normal noise, 20 scores
    aic = 2 * 5 - 2 * likelihood  # two levels, amplitude, exponent, noise
    assert found.aicc == pytest.approx(aic + 2 * 5 * 6 / (20 - 5 - 1) - 20 * (np.log(2 * np.pi) + 1))
