"""`python -m jaxlingua.analysis alignment` on a run of seconds and the model that was made of it."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxlingua.analysis.alignment.command import main
from jaxlingua.checkpoint.__main__ import main as checkpoint
from jaxlingua.errors import ConfigError, DataError
from tests.flow.small import CONFIG, train, write_config

TASK = "eval.tasks=[phrases.eng_Latn-ell_Grek]"
SMALL = ("eval.items=auto", "eval.bootstrap_samples=50", "sharding.mesh.fsdp=1", "sharding.mesh.data=8")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alignment")
    phrases = {**CONFIG["data"]["sources"]["phrases"], "held_out_records": 24}
    stages = [{"name": "coit", "mixture": {"phrases": {}}, "steps": 2}]
    data = {"template": "short", "sources": {"phrases": phrases}}
    config = write_config(folder / "small.yaml", data=data, stages=stages, eval={"tasks": []})
    train(
        config,
        "train.optimizer.warmup_steps=1",
        "train.held_out_documents=0",
        "checkpoint.save_every_steps=1",
    )
    return folder / "run"


@pytest.fixture(scope="module")
def content(run: Path) -> dict:
    main([str(run), TASK, *SMALL])
    return json.loads((run / "analysis" / "alignment" / "alignment.json").read_text("utf-8"))


def numbers(content: dict, **wanted) -> list[dict]:
    return [row for row in content["numbers"] if all(row[name] == value for name, value in wanted.items())]


def test_base_and_newest_step_stand_side_by_side_at_every_layer(content):
    assert [model["name"] for model in content["models"]] == ["base", "coit, step 2"]
    assert content["sentences"]["count"] == 24
    assert content["chance"] == 1 / 24
    for model in content["models"]:
        rows = numbers(content, model=model["name"], pooling="mean", measure="retrieval")
        assert [row["layer"] for row in rows] == [0, 1, 2]
        assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in rows)
    both = numbers(content, layer=2, pooling="last", measure="cosine_gap")
    assert both[1]["change"] == pytest.approx(both[1]["value"] - both[0]["value"])
    assert "change" not in both[0]


def test_retrieval_is_the_mean_of_both_directions(content):
    of = {name: numbers(content, measure=name) for name in ("retrieval", "retrieval_forth", "retrieval_back")}
    values = {name: np.array([row["value"] for row in rows]) for name, rows in of.items()}
    np.testing.assert_allclose(
        values["retrieval"], (values["retrieval_forth"] + values["retrieval_back"]) / 2
    )
    assert (values["retrieval_forth"] != values["retrieval_back"]).any()


def test_pages_tell_the_same_and_are_whole(run, content):
    folder = run / "analysis" / "alignment"
    page, text = (folder / "alignment.html").read_text("utf-8"), (folder / "alignment.md").read_text("utf-8")
    layer = content["models"][1]["layer"]
    (row,) = numbers(content, model="coit, step 2", layer=layer, pooling="mean", measure="cka")
    for told in (page, text):
        assert f"{row['value']:.3f}".replace("-", "−") in told
        assert "24 of 24 sentences of phrases" in told
    assert page.count("<svg") == 2
    for name in ("curves.svg", "planes.svg"):
        assert f"({name})" in text
        assert (folder / name).read_text("utf-8").startswith("<svg")


def test_the_same_model_beside_itself_changes_nothing(run, tmp_path, capsys):
    """An exported folder, with the tokenizer in it, gives the vectors of the run; its layer may be chosen."""
    with pytest.MonkeyPatch.context() as patch:
        options = [f"checkpoint.export.folder={tmp_path / 'tuned'}", "checkpoint.export.dtype=float32"]
        patch.setattr(sys, "argv", ["jaxlingua.checkpoint", "export", str(run), *options])
        checkpoint()
    main(
        [
            str(run),
            str(tmp_path / "tuned"),
            TASK,
            *SMALL,
            "eval.base_model=false",
            "--layer",
            "2",
            "--output",
            str(tmp_path / "out"),
        ]
    )
    content = json.loads((tmp_path / "out" / "alignment.json").read_text("utf-8"))
    assert [(model["name"], model["layer"]) for model in content["models"]] == [
        ("coit, step 2", 2),
        ("tuned", 2),
    ]
    changes = [row["change"] for row in numbers(content, model="tuned", measure="cosine_gap")]
    np.testing.assert_allclose(changes, 0, atol=1e-6)
    assert len(changes) == 6
    assert "tuned, eng_Latn-ell_Grek, layer 2: retrieval" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ConfigError, "eval.tasks: none given; parallel sentences are needed"),
        ([TASK, "--layer", "3"], ConfigError, "--layer: 3 given; base has layers 0 to 2"),
        ([TASK, "--layer", "x"], ConfigError, "--layer: 'x' given; a number is allowed"),
        ([TASK, "eval.steps=[7]"], ConfigError, "eval.steps: 7 given; the run keeps 1, 2; give one"),
        ([TASK, "model.rope_theta=5"], ConfigError, "a run is compared as it was trained; leave it out"),
        (["eval.tasks=[phrases.eng_Latn-ell_Grek]", "eval.items=1"], DataError, "has 1 sentences in all of eng_Latn, ell_Grek; two or"),
        (["eval.tasks=[flores.eng_Latn-ell_Grek]"], DataError, "no file .* in eval.data_folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_in_one_line(run, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        main([str(run), *arguments])
    assert "\n" not in str(caught.value)


def test_a_run_that_has_saved_nothing_and_a_model_without_a_place_to_write_are_refused(tmp_path):
    config = write_config(tmp_path / "small.yaml")
    with pytest.raises(ConfigError, match=r"run\.folder: .* holds no checkpoint; a run that has saved one"):
        main([str(config)])
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match="--output: not given; a folder is needed where there is no RUN"):
        main([str(tmp_path / "model"), "eval.tasks=[flores.eng_Latn-ell_Grek]"])
    with pytest.raises(ConfigError, match=re.escape("no RUN, CONFIG or MODEL given")):
        main([TASK])
