"""What a fitted law tells, and its file."""

import json

import numpy as np
import pytest

from jaxlingua.analysis.scaling.laws import Fitted, Laws, read_laws, write_laws
from jaxlingua.errors import DataError

PARAMETERS = {"power": (30, 50, 0.4), "log_linear": (1, 2), "sigmoid": (2, 30, 5000, 0.8)}


def make(law: str, similarity: float = 0.7) -> Fitted:
    parameters = np.array(PARAMETERS[law.removesuffix("_free")], float)
    draws = np.stack([parameters, parameters * 1.01])
    return Fitted("jav_Latn", law, parameters, draws, similarity, 100, 10000, 0.5, 9)


def test_scores_by_hand():
    assert make("power").at(1000) == pytest.approx(30 - 50 * 700**-0.4)
    assert make("log_linear").at(1000) == pytest.approx(1 + 2 * np.log(700))
    assert make("sigmoid").at(1000) == pytest.approx(2 + 30 / (1 + (5000 / 700) ** (1 / 0.8)))


@pytest.mark.parametrize("law", PARAMETERS)
def test_shapes_slopes_and_the_way_back(law):
    one, pairs = make(law), np.array([[100, 1000.0, 7], [3, 1e5, 1]])
    assert one.at(pairs).shape == (2, 3)
    assert one.draws_at(pairs).shape == (2, 2, 3)
    assert one.draws_at(5).shape == (2,)
    np.testing.assert_allclose(one.draws_at(pairs)[0], one.at(pairs))
    slopes = (one.at(pairs * 1.0001) - one.at(pairs * 0.9999)) / (0.0002 * pairs)
    np.testing.assert_allclose(one.slope(pairs), slopes, rtol=1e-6)
    assert one.pairs_for(float(one.at(777))) == pytest.approx(777)
    assert one.draws_pairs_for(float(one.draws_at(50)[1]))[1] == pytest.approx(50)


def test_bounds_and_what_is_never_reached():
    assert [make(law).bound for law in PARAMETERS] == [30, np.inf, 32]
    assert make("power").pairs_for(30) == np.inf
    assert make("sigmoid").pairs_for(32) == np.inf
    assert make("sigmoid").pairs_for(1.9) == 0
    falling = Fitted("jav_Latn", "log_linear", np.array([1.0, -2]), np.ones((1, 2)), 1.0, 1, 2, 0.1)
    assert falling.bound == -np.inf
    assert falling.pairs_for(1 - 2 * np.log(50)) == pytest.approx(50)
    flat = Fitted("jav_Latn", "power", np.array([30.0, 0, 0.4]), np.ones((1, 3)), 1.0, 1, 2, 0.1)
    assert flat.pairs_for(30) == np.inf


def test_no_pair_at_all():
    assert make("sigmoid").at(0) == 2
    assert make("sigmoid").slope(0) == 0
    for law in ("power", "log_linear"):
        with pytest.raises(ValueError, match=f"0 pairs given, where {law} has no value"):
            make(law).at([0, 5])
    with pytest.raises(ValueError, match="numbers from 0 on"):
        make("sigmoid").at(-1)


@pytest.mark.parametrize("law", ["power_free", "log_linear", "sigmoid"])
def test_laws_are_read_as_they_were_written(law, tmp_path):
    write_laws(
        tmp_path / "laws.json", Laws("chrf++", "flores", True, {"jav_Latn": make(law)}), [{"law": law}]
    )
    found = read_laws(tmp_path / "laws.json")
    assert (found.metric, found.task, found.is_higher_better) == ("chrf++", "flores", True)
    np.testing.assert_allclose(found.of["jav_Latn"].draws_at(5000), make(law).draws_at(5000), rtol=1e-8)
    assert found.of["jav_Latn"].freedom == 9
    told = json.loads((tmp_path / "laws.json").read_text("utf-8"))
    assert (told["chosen"], told["compared"]) == (law, [{"law": law}])
    assert list(told["languages"]["jav_Latn"]["parameters"].values()) == list(make(law).parameters)


def change(key: str, value):
    return lambda told: told["languages"]["jav_Latn"].update({key: value})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda told: told.update(version=2), "version '2' given; version 1 is allowed"),
        (lambda told: told.pop("metric"), r"damaged \(KeyError: 'metric'\)"),
        (lambda told: told.update(languages={}), "no language in it"),
        (change("law", "cubic"), "law 'cubic' is unknown"),
        (change("draws", [[1.0]]), "damaged"),
        (change("draws", []), "parameters or draws that are no numbers, or none"),
        (change("draws", [[1.0, float("nan"), 1.0]]), "no numbers"),
        (change("similarity", 0), "out of range"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_sound_is_refused(spoil, told, tmp_path):
    path = tmp_path / "laws.json"
    write_laws(path, Laws("chrf++", "flores", True, {"jav_Latn": make("power")}))
    content = json.loads(path.read_text("utf-8"))
    spoil(content)
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(DataError, match=told):
        read_laws(path)


def test_a_file_that_is_no_laws_at_all_is_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_laws(tmp_path / "laws.json")
    (tmp_path / "laws.json").write_text("law", "utf-8")
    with pytest.raises(DataError, match="not JSON"):
        read_laws(tmp_path / "laws.json")
    (tmp_path / "laws.json").write_text("[]", "utf-8")
    with pytest.raises(DataError, match="version 'None' given"):
        read_laws(tmp_path / "laws.json")
