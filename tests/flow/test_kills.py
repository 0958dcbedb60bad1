"""A run that is killed at bad moments and started again ends bit for bit as if nobody had touched it."""

import random
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.flow.kills import (
    FIRST,
    KINDS,
    LAST,
    Kill,
    Run,
    arrays,
    differences,
    kill_and_start_again,
    plan,
    small_config,
)


def pair(folder: Path, **changes) -> tuple[Run, Run]:
    """A run that comes to its end undisturbed, and one in another folder that is still to be started."""
    config = small_config(folder, **changes)
    undisturbed, killed = Run(config, folder / "undisturbed"), Run(config, folder / "killed")
    undisturbed.finish()
    return undisturbed, killed


@pytest.mark.slow
def test_three_kills_in_a_save_in_a_step_and_in_an_evaluation_change_nothing(tmp_path: Path):
    tasks = {"tasks": ["phrases.eng_Latn-ell_Grek"], "items": 4, "bootstrap_samples": 20, "base_model": False}
    undisturbed, killed = pair(tmp_path, eval=tasks)
    kills = [Kill("save", 4), Kill("step", 9), Kill("evaluation", FIRST, delay=0.1)]
    hit = kill_and_start_again(killed, kills)
    assert hit == [kill.kind for kill in kills]
    assert differences(undisturbed.folder, killed.folder) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path):
    undisturbed, killed = pair(tmp_path)
    hit = kill_and_start_again(killed, plan(20, random.Random(0)))
    assert len(hit) == 20
    assert {"save", "evaluation", "compilation", "stage end"} <= set(hit)
    assert differences(undisturbed.folder, killed.folder) == []


def test_twenty_planned_kills_are_of_every_kind_and_the_report_is_last():
    for seed in range(20):
        kills = plan(20, random.Random(seed))
        assert {kill.kind for kill in kills} >= set(KINDS)
        assert [kill.step for kill in kills] == sorted(kill.step for kill in kills)
        assert kills[-1].kind == "report"


def test_the_comparison_sees_one_bit_of_an_array_a_loss_a_prediction_and_a_score(tmp_path: Path):
    """It has to: all that the tests above say, it says."""
    folders = [made(tmp_path / name) for name in ("undisturbed", "killed")]
    assert differences(*folders) == []
    changed = [
        ("metrics.jsonl", "0.5", "0.25", "metrics.jsonl: step 30 differs in ['loss']"),
        ("metrics.jsonl", "30", "29", "metrics.jsonl has the steps [29]"),
        ("evals/second-30/diary.jsonl", "yes", "no", "evals/second-30/diary.jsonl differs"),
        ("report.json", "7", "8", "the scores of report.json differ"),
    ]
    for name, before, after, told in changed:
        path = folders[1] / name
        kept = path.read_text()
        path.write_text(kept.replace(before, after))
        assert told in differences(*folders)
        path.write_text(kept)
    (folders[1] / "evals" / "more.json").write_text("{}")
    assert differences(*folders) == ["evals/more.json is in one only"]
    made(tmp_path / "other", np.nextafter(np.float32(1), np.float32(2)))
    found = differences(folders[0], tmp_path / "other")
    assert found == ["array params/b/kernel differs"]


def made(folder: Path, number: float | np.float32 = 1) -> Path:
    """As much of a run folder as the comparison looks at."""
    state = {
        "step": np.int32(LAST),
        "params": {"b": {"kernel": np.array([number, 2], np.float32)}, "a": None},
    }
    ocp.PyTreeCheckpointer().save(folder / "checkpoints" / str(LAST) / "state", state)
    (folder / "evals" / "second-30").mkdir(parents=True)
    (folder / "evals" / "second-30" / "diary.jsonl").write_text('{"answer": "yes"}\n')
    (folder / "metrics.jsonl").write_text('{"step": 30, "loss": 0.5, "step_seconds": 1}\n')
    (folder / "report.json").write_text('{"scores": [{"value": 7}]}')
    assert arrays(folder).keys() == {"step", "params/b/kernel"}
    return folder
