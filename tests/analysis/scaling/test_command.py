"""The command, from a table to what is printed and written."""

import re
import subprocess
import sys

import numpy as np
import pytest

from jaxlingua.analysis.scaling.command import main
from jaxlingua.analysis.scaling.intervals import interval
from jaxlingua.analysis.scaling.laws import read_laws
from jaxlingua.analysis.scaling.told import short
from jaxlingua.errors import ConfigError
from tests.analysis.scaling.synthetic import draw_law, draw_scores


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Scores of a power law in two languages; better the lower where the metric is the loss."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    of = draw_law("power", 2, rng)
    points = draw_scores(of, 6, 2, 0.3, rng)
    lines = ["language,pairs,seed,task,metric,value,similarity"]
    for place, (whose, pairs, score) in enumerate(
        zip(points.language, points.pairs, points.score, strict=True)
    ):
        code = points.languages[whose]
        start = f"{code},{pairs:.0f},{place % 2},news.eng_Latn-{code}"
        end = f"{points.similarity[whose]}"
        lines += [f"{start},chrf++,{score},{end}", f"{start},loss,{5 - score / 10},{end}"]
    lines.append(f"jav_Latn,0,0,news.eng_Latn-jav_Latn,chrf++,3,{points.similarity[0]}")
    (tmp_path / "scores.csv").write_text("\n".join(lines), "utf-8")
    return of


def told_by(capsys, *arguments: str) -> str:
    main(["scores.csv", *arguments])
    return capsys.readouterr().out


def test_everything_that_is_told_of_a_power_law(table, tmp_path, capsys):
    told = told_by(
        capsys, "--metric", "chrf++", "--at", "64000,500000", "--for=1,1000", "--output", "laws.json", "--plot", "a.svg"
    )  # fmt: skip
    assert (
        "chrf++ of news.eng_Latn-*: 24 scores, 2 languages, 1,000 to 32,000 pairs, 2 seeds; higher is better"
        in told
    )
    assert "1 more at 0 pairs, which no law is fitted to" in told
    assert "taken: power, c − a·(g·n)^(−b): " in told
    laws = read_laws("laws.json")
    assert (laws.metric, laws.task, laws.is_higher_better) == ("chrf++", "news.eng_Latn-*", True)
    for code, true in table.items():
        one = laws.of[code]
        assert len(one.draws) == 500
        low, high = interval(one.draws[:, 0])
        assert low < true.bound < high
        assert re.search(rf"^{code} +{short(one.similarity)} ", told, re.MULTILINE)
        line = next(line for line in told.splitlines() if line.startswith(code) and "*" in line)
        assert f"{short(float(one.at(64000)))} [" in line
        assert f"{short(float(one.at(500000)))} [" in line
        assert line.count("*") == 1
    assert "* more than 2 times the largest size measured: a guess" in told
    line = told.splitlines()[
        [line.startswith("pairs for a score") for line in told.splitlines()].index(True) + 2
    ]
    assert line.split() == ["jav_Latn", "below", "1,000", "never"]
    assert "never: the score is beyond what the law comes to" in told
    picture = (tmp_path / "a.svg").read_text("utf-8")
    assert "<svg" in picture
    assert not list(tmp_path.glob(".*"))
    told_by(capsys, "--metric", "chrf++", "--at", "64000,500000", "--plot", "b.svg")
    assert (tmp_path / "b.svg").read_text("utf-8") == picture


def test_a_metric_that_falls_has_the_same_law_the_other_way_round(table, capsys):
    told_by(capsys, "--metric", "chrf++", "--law", "power", "--output", "up.json")
    told = told_by(
        capsys, "--metric", "loss", "--law", "power", "--output", "down.json", "--for", "4", "--plot", "a.png"
    )
    assert "; lower is better" in told
    assert "worse" not in told
    up, down = read_laws("up.json"), read_laws("down.json")
    assert not down.is_higher_better
    for code, one in up.of.items():
        np.testing.assert_allclose(down.of[code].at([1000, 9e9]), 5 - one.at([1000, 9e9]) / 10, rtol=1e-6)
        assert down.of[code].pairs_for(4.2) == pytest.approx(one.pairs_for(8), rel=1e-3)


def test_what_is_odd_about_a_law_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    lines = ["language,pairs,seed,task,metric,value"]
    for pairs in (1000, 2000, 4000, 8000):
        lines += [
            f"deu_Latn,{pairs},{seed},t,bleu,{30 - np.log(pairs) + rng.normal(0, 0.01)}" for seed in (1, 2)
        ]
        lines += [f"jav_Latn,{pairs},{seed},t,bleu,{10 + rng.normal(0, 0.01)}" for seed in (1, 2)]
    (tmp_path / "scores.csv").write_text("\n".join(lines), "utf-8")
    told = told_by(capsys, "--law", "power_free")
    assert "no similarity given: g is 1 for every language" in told
    assert "deu_Latn: more pairs make it worse: from 1,000 to 8,000 pairs the score changes by −2.0" in told
    assert "jav_Latn: whether more pairs help cannot be told" in told
    assert "b is at its limit, 0.0100: 0.01 is nearly the log-linear law" in told
    assert "deu_Latn has 4 sizes alone: below 5, the law can hardly be told" in told
    told = told_by(capsys, "--law", "power_free", "--for", "9.9,22,26").split("pairs for a score")[1]
    of = {line.split()[0]: re.split(r"  +", line.rstrip()) for line in told.splitlines()[1:]}
    assert of["jav_Latn"][1:] == ["cannot be told"] * 3
    assert of["deu_Latn"][1:] == ["cannot be told"] * 3  # of 22, too, to which the law falls at e^8 pairs


def test_a_metric_without_a_better_side_is_fitted_and_not_judged(table, tmp_path, capsys):
    path = tmp_path / "scores.csv"
    path.write_text(path.read_text("utf-8").replace(",loss,", ",length,"), "utf-8")
    told = told_by(capsys, "--metric", "length", "--law", "power", "--output", "laws.json")
    assert "; neither higher nor lower is better" in told
    assert "worse" not in told
    assert "sizes alone" not in told
    assert read_laws("laws.json").is_higher_better is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--metric", "loss", "more.csv"], "'more.csv' given beside scores.csv; one TABLE is allowed"),
        (["--law", "cubic"], "--law: 'cubic' given; known: power, power_free"),
        (["--at", "1e4"], "--at: '1e4' given; whole numbers from 0 to 10.15 are"),
        (["--at", "1000000000000001"], "--at: '1000000000000001' given; whole numbers from 0 to"),
        (["--at", "1" + "0" * 5000], "--at: '10{20,}.* given; whole numbers from 0 to"),
        (["--for", "good"], "--for: 'good' given; scores are allowed"),
        (["--plot", "a.pdf"], "--plot: 'a.pdf' given; .png and .svg are allowed"),
        (["--output", "no/laws.json"], "--output: 'no/laws.json' given; a file in a folder that exists"),
        (["--metrics", "loss"], "'--metrics' given; did you mean '--metric'"),
        ([], "--metric: not given, and the table has several: chrf\\+\\+, loss"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(arguments, told, table):
    with pytest.raises(ConfigError, match=told):
        main(["scores.csv", *arguments])


def test_the_command_imports_no_jax():
    probe = "import sys, jaxlingua.analysis.scaling.command, jaxlingua.analysis.scaling.plots; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", probe], check=True)
