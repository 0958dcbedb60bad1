"""A sequence of stages from the command line: each means against forgetting, resumed anywhere, and appended to."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from tests.flow.small import CONFIG, scored, train, write_config
from tests.flow.test_train import lines_of, losses, parameters

# The tests that share what these make stay together, so that it is made once.
pytestmark = pytest.mark.xdist_group("stages")

PHRASES = {"kind": "cldr", "records": 200}
SOURCES = {
    "greek": PHRASES | {"languages": ["eng_Latn", "ell_Grek"]},
    "german": PHRASES | {"languages": ["eng_Latn", "deu_Latn"]},
    "hindi": PHRASES | {"languages": ["eng_Latn", "hin_Deva"]},
}
FIRST = {"name": "one", "mixture": {"greek": {"direction": "eng_Latn-ell_Grek"}}, "steps": 4}
SECOND = {"name": "two", "mixture": {"german": {"direction": "eng_Latn-deu_Latn"}}, "steps": 4}
THIRD = {"name": "three", "mixture": {"hindi": {"direction": "eng_Latn-hin_Deva"}}, "steps": 4}
RUNS = {
    "ewc, replay and average, then KL, L2-SP and frozen": [
        FIRST,
        SECOND | {"anchor": {"ewc": 5.0, "fisher_draws": 2}, "replay": 0.3, "average": "auto"},
        THIRD
        | {
            "anchor": {"kl": 1.0, "l2_sp": 0.1},
            "frozen": ["final_norm/*", "embed/embedding[:260]", "layers[0]/*"],
        },
    ],
    "one schedule and optimizer, then ewc on drawn text": [
        FIRST | {"mixture": {"greek": {"objectives": "denoising"}}},
        SECOND | {"schedule": "continue", "optimizer": "keep", "replay": {"share": 0.5, "records": 50}},
        THIRD | {"anchor": {"ewc": 2.0, "l2_sp": 0.1, "fisher_draws": 1}, "average": 0.7},
    ],
}


@pytest.fixture(autouse=True, scope="module")
def _one_device():
    """Programs for one device are compiled in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        first = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *platform: first)
        yield


def config_of(path: Path, stages: list, **changes) -> Path:
    sections = {
        "data": CONFIG["data"] | {"sources": SOURCES},
        "stages": stages,
        "checkpoint": {"save_every_steps": 2, "keep_last": 10},
        "tracking": {"log_every_steps": 1, "tensorboard": False},
        "eval": {"tasks": ["greek.eng_Latn-ell_Grek"], "items": 2, "bootstrap_samples": 20},
    }
    return write_config(path, **sections | changes)


@pytest.fixture(scope="module", params=RUNS)
def finished(request, tmp_path_factory) -> Path:
    """The folder of a whole run of twelve steps; its configuration lies beside it."""
    home = tmp_path_factory.mktemp("whole")
    train(config_of(home / "c.yaml", RUNS[request.param]))
    return home / "run"


@pytest.mark.parametrize("step", [4, 10, *(pytest.param(step, marks=pytest.mark.slow) for step in (6, 8))])
def test_a_run_that_is_resumed_at_or_behind_a_boundary_is_the_same_bit_for_bit(finished, tmp_path, step):
    shutil.copytree(finished.parent, tmp_path / "again")
    run = tmp_path / "again" / "run"
    for later in (run / "checkpoints").iterdir():
        if int(later.name) > step:
            shutil.rmtree(later)
    for evaluation in (run / "evals").iterdir():
        if int(evaluation.name.rpartition("-")[2]) >= step:  # killed before it was evaluated
            shutil.rmtree(evaluation)
    train(config_of(tmp_path / "again" / "c.yaml", config_in(finished)["stages"]))
    whole, again = parameters(finished, 12), parameters(run, 12)
    assert whole.keys() == again.keys()
    for name, leaf in whole.items():
        np.testing.assert_array_equal(again[name], leaf, err_msg=name)
    assert losses(run) == losses(finished)
    for evaluation in ("one-4", "two-8", "three-12"):
        if int(evaluation.rpartition("-")[2]) >= step:
            assert scored(run, evaluation) == scored(finished, evaluation)


def config_in(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text("utf-8"))


def test_what_a_stage_remembers_is_in_its_checkpoints_alone(finished):
    first, second, third = (set(parameters(finished, step)) for step in (4, 8, 12))
    remembered = [{name for name in names if name.startswith("anchor/")} for names in (first, second, third)]
    assert not remembered[0]
    is_ewc = [config_in(finished)["stages"][place]["anchor"] for place in (1, 2)]
    for names, anchor in zip(remembered[1:], is_ewc, strict=True):
        has_fisher = anchor != "off" and anchor["ewc"] != "off"
        assert any(name.startswith("anchor/fisher/") for name in names) == has_fisher
        assert any(name.startswith("anchor/params/") for name in names) == (anchor != "off")


def test_frozen_parameters_are_what_they_were(finished):
    frozen = config_in(finished)["stages"][2]["frozen"]
    before, after = parameters(finished, 8), parameters(finished, 12)
    moved = {
        name
        for name in before.keys() & after.keys()
        if name.startswith("params/") and (before[name] != after[name]).any()
    }
    assert ("params/final_norm/scale" in moved) != bool(frozen)
    embedding = "params/embed/embedding"
    assert (before[embedding][:260] == after[embedding][:260]).all() == bool(frozen)
    assert (before[embedding][260:] != after[embedding][260:]).any()
    down = "params/layers/mlp/down"
    assert (before[down][0] == after[down][0]).all() == bool(frozen)
    assert (before[down][1] != after[down][1]).any()


def test_an_optimizer_goes_on_or_begins_anew(finished):
    """It counts its own steps."""
    for place, step in enumerate((4, 8, 12)):
        is_kept = config_in(finished)["stages"][place]["optimizer"] == "keep"
        arrays = parameters(finished, step).items()
        counts = {
            int(leaf) for name, leaf in arrays if name.startswith("opt_state/") and name.endswith("count")
        }
        assert counts == {step if is_kept else 4}


def test_lines_of_an_anchored_stage_tell_what_its_anchors_add_and_no_others_do(finished):
    anchored = {stage["name"] for stage in config_in(finished)["stages"] if stage["anchor"] != "off"}
    for line in lines_of(finished):
        assert ("anchor_loss" in line) == (line["stage"] in anchored)
        if line["stage"] in anchored and line["step"] % 4 == 0:  # the first step of a stage has not moved yet
            assert line["anchor_loss"] > 0


def test_replay_has_its_share_of_what_is_shown(finished):
    """Of the documents, as data.json tells; and every replayed one is of the earlier stage's source."""
    stages = {stage["name"]: stage for stage in json.loads((finished / "data.json").read_text())["stages"]}
    rows = stages["two"]["mixture"]
    replayed = sum(row["documents seen"] for row in rows if row["entry"].startswith("replay.one."))
    share = config_in(finished)["stages"][1]["replay"]
    share = share["share"] if isinstance(share, dict) else share
    seen = sum(row["documents seen"] for row in rows)
    assert abs(replayed - share * seen) <= 3 * (seen * share * (1 - share)) ** 0.5
    assert {row["language"] for row in rows} >= {"ell_Grek", "deu_Latn"}


def test_a_stage_is_appended_to_a_finished_run(tmp_path):
    train(config_of(tmp_path / "c.yaml", [FIRST]))
    before = parameters(tmp_path / "run", 4)
    more = [FIRST, SECOND | {"anchor": {"ewc": 5.0, "fisher_draws": 1}, "replay": 0.3, "steps": 2}]
    train(config_of(tmp_path / "c.yaml", more))
    for name, leaf in parameters(tmp_path / "run", 4).items():
        np.testing.assert_array_equal(before[name], leaf, err_msg=name)
    assert "anchor/fisher/embed/embedding" in parameters(tmp_path / "run", 6)
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert {(score["stage"], score["step"]) for score in report["scores"]} >= {
        ("base", 0),
        ("one", 4),
        ("two", 6),
    }


@pytest.mark.parametrize(
    ("stages", "changes", "said"),
    [
        ([FIRST, SECOND | {"schedule": "continue"}], {}, "stages[1].schedule"),
        ([FIRST, SECOND], {"tokens": {"row_length_tokens": 64, "vocab_size": 500}}, "tokens.vocab_size"),
        ([FIRST | {"frozen": ["embed/*"]}, SECOND], {}, "stages[0].frozen"),
        ([FIRST, SECOND | {"frozen": ["embeding/*"]}], {}, "stage 'two', frozen: 'embeding/*' given"),
        (
            [FIRST, SECOND | {"frozen": ["embed/embedding[:999]"]}],
            {},
            "rows 0 to 399 are there; name some of",
        ),
        ([FIRST, SECOND | {"mixture": {"german": {"start": 9999}}}], {}, "stage 'two', mixture.german.start"),
    ],
    ids=[
        "one schedule",
        "another vocabulary",
        "a begun stage changed",
        "nothing to freeze",
        "no such row",
        "without data",
    ],
)
def test_an_appended_stage_that_cannot_be_is_refused_before_a_step(
    first_stage, tmp_path, capsys, stages, changes, said
):
    shutil.copytree(first_stage, tmp_path / "home")
    with pytest.raises(SystemExit) as ended:
        train(config_of(tmp_path / "home" / "c.yaml", stages, **changes))
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert said in lines[-1]
    assert "Traceback" not in "\n".join(lines)
    assert sorted(path.name for path in (tmp_path / "home" / "run" / "checkpoints").iterdir()) == ["2", "4"]


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("first")
    train(config_of(home / "c.yaml", [FIRST]))
    return home
