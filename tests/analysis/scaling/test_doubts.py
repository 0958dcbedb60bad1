"""Whether laws follow the scores: the test for lack of fit, turns, and what is told of them."""

import json

import numpy as np
import pytest
from scipy import stats

from jaxlingua.analysis.scaling.command import main
from jaxlingua.analysis.scaling.doubts import DOUBTED, lack_of_fit, turns
from jaxlingua.analysis.scaling.fit import Points, fit
from jaxlingua.analysis.scaling.laws import LAWS, read_laws
from tests.analysis.scaling.synthetic import draw_law, draw_scores

TURNING = dict(zip((500, 1000, 2000, 4000, 8000, 16000), (17, 19, 22, 23, 21, 19.5), strict=True))


def test_the_statistic_is_that_of_the_definition():
    """Cells of one, two and three scores, summed one by one."""
    rng = np.random.default_rng(0)
    points = draw_scores(draw_law("log_linear", 2, rng), 5, 3, 0.3, rng)
    points = points.only(~np.isin(np.arange(30), (0, 3, 4, 20)))
    fitted = fit("log_linear", points)
    tested = lack_of_fit(fitted)
    within, cells = 0.0, set(zip(points.language.tolist(), points.pairs.tolist(), strict=True))
    for language, pairs in cells:
        of_cell = points.score[(points.language == language) & (points.pairs == pairs)]
        within += sum((score - of_cell.mean()) ** 2 for score in of_cell)
    freedom = (len(cells) - 3, 26 - len(cells))
    left = sum(float(one) ** 2 for one in fitted.residuals) - within
    statistic = left / freedom[0] / (within / freedom[1])
    assert tested.freedom == freedom == (7, 16)
    assert tested.statistic == pytest.approx(statistic)
    assert tested.p == pytest.approx(stats.f.sf(statistic, *freedom))
    assert tested.seeds_differ_by == pytest.approx((within / freedom[1]) ** 0.5)


@pytest.mark.slow
def test_scores_of_a_law_are_hardly_ever_doubted():
    """200 tables; as many false alarms as the level says, but for chance (two standard deviations of it)."""
    doubted, turned = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        law = LAWS[seed % len(LAWS)]
        points = draw_scores(draw_law(law, 2, rng), 5, 2, 0.5, rng)
        doubted += lack_of_fit(fit(law, points)).is_doubted
        turned += any(turns(points))
    expected = 200 * DOUBTED
    assert doubted <= expected + 2 * (expected * (1 - DOUBTED)) ** 0.5
    assert turned <= expected / 2


def turning(factor: float = 1.0) -> Points:
    rng = np.random.default_rng(3)
    pairs = np.tile(np.repeat(list(TURNING), 3), 2).astype(float)
    means = factor * np.tile(np.repeat(list(TURNING.values()), 3), 2)
    language = np.repeat([0, 1], 18)
    codes = ("deu_Latn", "tur_Latn")
    return Points(codes, np.ones(2), language, pairs, means - 4 * language + rng.normal(0, 0.1, 36))


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_a_turn_is_found_where_it_is_greatest(factor):
    found = {one.language: one.pairs for one in turns(turning(factor))}
    assert found == {"deu_Latn": (500, 4000, 16000), "tur_Latn": (500, 4000, 16000)}


def test_seeds_that_do_not_differ_doubt_a_law_that_is_off_and_no_other():
    exact = draw_scores(
        draw_law("log_linear", 1, np.random.default_rng(1)), 5, 2, 0.0, np.random.default_rng(1)
    )
    assert not lack_of_fit(fit("log_linear", exact)).is_doubted
    exact.score[exact.pairs == 4000] += 1
    assert lack_of_fit(fit("log_linear", exact)).p == 0


def write(path, points: Points, seeds: int) -> None:
    """Only the first `seeds` scores of each cell."""
    lines, of_cell = ["language,pairs,seed,task,metric,value"], {}
    for whose, pairs, score in zip(points.language, points.pairs, points.score, strict=True):
        seed = of_cell[whose, pairs] = of_cell.get((whose, pairs), -1) + 1
        if seed < seeds:
            lines.append(f"{points.languages[whose]},{pairs:.0f},{seed},t,bleu,{score}")
    path.write_text("\n".join(lines), "utf-8")


def test_scores_that_no_law_follows_are_told_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "scores.csv", turning(), 3)
    main(["scores.csv", "--output", "laws.json"])
    told = capsys.readouterr().out
    assert "! no law follows these scores: off by 1." in told
    assert ", seeds differ by 0." in told
    assert "(lack of fit, p = " in told
    assert "! deu_Latn: its scores rise and then fall, by more than the noise: 1" in told
    content = json.loads((tmp_path / "laws.json").read_text("utf-8"))
    assert content["lack_of_fit"]["p"] < 1e-9
    assert content["lack_of_fit"]["seeds_differ_by"] == pytest.approx(0.1, rel=0.3)
    warnings = read_laws("laws.json").warnings
    assert [line for line in told.splitlines() if line.startswith("! ")] == [f"! {one}" for one in warnings]
    assert len(warnings) == 3


def test_a_law_that_was_asked_for_is_told_apart_from_all_laws(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(7)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "scores.csv", draw_scores(draw_law("power", 1, rng), 6, 3, 0.05, rng), 3)
    main(["scores.csv", "--law", "log_linear", "--output", "laws.json"])
    told = capsys.readouterr().out
    assert "! log_linear does not follow these scores: off by " in told
    assert "; power does (p = 0." in told
    main(["scores.csv", "--output", "laws.json"])
    assert "! " not in capsys.readouterr().out
    assert read_laws("laws.json").warnings == ()


def test_with_one_seed_a_held_out_size_that_is_far_missed_is_told(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(8)
    monkeypatch.chdir(tmp_path)
    points = draw_scores(draw_law("log_linear", 2, rng), 6, 1, 0.1, rng)
    write(tmp_path / "scores.csv", points, 1)
    main(["scores.csv", "--law", "log_linear"])
    assert "! " not in capsys.readouterr().out
    points.score[points.largest()] += 20
    write(tmp_path / "scores.csv", points, 1)
    main(["scores.csv", "--law", "log_linear"])
    told = capsys.readouterr().out
    assert "! log_linear missed the held-out size by " in told
    assert "with several seeds it could be tested" in told
