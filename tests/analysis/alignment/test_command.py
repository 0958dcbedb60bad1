"""`python -m jaxlingua.analysis alignment` on a run of seconds and the model that was made of it."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlingua.analysis.alignment.command import main
from jaxlingua.analysis.alignment.report import summary_lines
from jaxlingua.checkpoint.__main__ import main as checkpoint
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.train import open_model
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
    assert "by meaning: 8 sentences" in (folder / "planes.svg").read_text("utf-8")


def test_changes_of_every_measure_are_told(run, content):
    folder = run / "analysis" / "alignment"
    layer = content["models"][1]["layer"]
    page, text = ((folder / name).read_text("utf-8") for name in ("alignment.html", "alignment.md"))
    lines = "\n".join(summary_lines(content))
    for measure in ("retrieval", "cosine_gap", "cka"):
        for pooling in ("mean", "last"):
            (row,) = numbers(content, model="coit, step 2", layer=layer, pooling=pooling, measure=measure)
            told = f"{row['change']:+.3f} ({row['change_low']:+.3f} to {row['change_high']:+.3f})"
            told = told.replace("-", "−")
            assert told in page.partition("Change against base")[2]
            assert told in text.replace("\\", "").partition("Change against base")[2]
            assert pooling == "last" or told in lines.partition("change against base: ")[2]


@pytest.fixture(scope="module")
def tuned(run, tmp_path_factory) -> Path:
    """The newest step as a Hugging Face folder, with the tokenizer in it."""
    folder = tmp_path_factory.mktemp("exported") / "tuned"
    with pytest.MonkeyPatch.context() as patch:
        options = [f"checkpoint.export.folder={folder}", "checkpoint.export.dtype=float32"]
        patch.setattr(sys, "argv", ["jaxlingua.checkpoint", "export", str(run), *options])
        checkpoint()
    return folder


def test_the_same_model_beside_itself_changes_nothing(run, tuned, content, tmp_path, capsys):
    """Its layer may be chosen, and a dtype that is not that of training, which changes all vectors a little."""
    changed = ["eval.base_model=false", "model.compute_dtype=bfloat16"]
    output = ["--layer", "2", "--output", str(tmp_path / "out")]
    main([str(run), str(tuned), TASK, *SMALL, *changed, *output])
    same = json.loads((tmp_path / "out" / "alignment.json").read_text("utf-8"))
    names = [(model["name"], model["layer"]) for model in same["models"]]
    assert names == [("coit, step 2", 2), ("tuned", 2)]
    changes = [row["change"] for row in numbers(same, model="tuned", measure="cosine_gap")]
    np.testing.assert_allclose(changes, 0, atol=1e-6)
    assert len(changes) == 6
    assert "tuned, eng_Latn-ell_Grek, layer 2: retrieval" in capsys.readouterr().out
    rounded, exact = (
        np.array([row["value"] for row in numbers(one, model="coit, step 2", measure="cosine_gap")])
        for one in (same, content)
    )
    np.testing.assert_allclose(rounded, exact, atol=0.02)
    assert (rounded != exact).any()


def test_a_layer_that_a_later_model_lacks_is_refused_before_weights_are_read(
    run, tuned, tmp_path, monkeypatch
):
    short = shutil.copytree(tuned, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    weights = load_file(short / "model.safetensors")
    save_file(
        {name: one for name, one in weights.items() if ".layers.1." not in name}, short / "model.safetensors"
    )
    for name in ("open_base", "open_step"):
        monkeypatch.setattr(open_model, name, lambda *given: pytest.fail("weights are read"))
    with pytest.raises(ConfigError, match="--layer: 2 given; short has layers 0 to 1; give one of these"):
        main([str(run), str(short), TASK, *SMALL, "--layer", "2"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ConfigError, "eval.tasks: none given; parallel sentences are needed"),
        ([TASK, "--layer", "3"], ConfigError, "--layer: 3 given; base has layers 0 to 2"),
        ([TASK, "--layer", "x"], ConfigError, "--layer: 'x' given; a number is allowed"),
        ([TASK, "eval.steps=[7]"], ConfigError, "eval.steps: 7 given; the run keeps other steps"),
        ([TASK, "model.rope_theta=5"], ConfigError, "a run is evaluated as it was trained; leave it out"),
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
    with pytest.raises(
        ConfigError,
        match="--output: not given; 'runs/grek' is no folder on this machine and was taken as a hub name",
    ):
        main(["runs/grek"])
    with pytest.raises(ConfigError, match=re.escape("no RUN, CONFIG or MODEL given")):
        main([TASK])
