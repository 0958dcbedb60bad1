"""Runs whose text is drawn anew: repeated, resumed in mid-epoch, with other numbers of workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxlingua.data
from tests.flow.kills import arrays
from tests.flow.small import CONFIG, train, write_config

ROOT = Path(__file__).parents[2]
DATA = {
    "template": "short",
    "workers": 0,
    "sources": {
        "phrases": {"kind": "cldr", "languages": ["eng_Latn", "ell_Grek", "deu_Latn"], "records": 400},
        "diary": {"kind": "cldr", "yields": "qa", "languages": ["eng_Latn", "ell_Grek"], "records": 200},
    },
}
STAGES = [
    {
        "name": "align",
        "mixture": {
            "phrases": {"objectives": "random-xss", "weight": 1.0},
            "diary": {"replay": {"records": 60}, "weight": {"steps": [0, 12], "weights": [1.0, 0.2]}},
        },
        "steps": 12,
    }
]
CHANGES = {
    "data": DATA,
    "stages": STAGES,
    "eval": {"tasks": []},
    "tokens": {"row_length_tokens": 128, "vocab_size": 400},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("redrawn")
    train(write_config(folder / "small.yaml", **CHANGES))
    return folder / "run"


def test_a_run_that_stopped_in_mid_epoch_goes_on_bit_for_bit_with_other_workers(finished, tmp_path):
    shorter = [{**STAGES[0], "steps": 12}]
    config = write_config(tmp_path / "small.yaml", **{**CHANGES, "stages": shorter})
    train(config)
    run = tmp_path / "run"
    for later in ("8", "12"):
        for file in sorted((run / "checkpoints" / later).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        (run / "checkpoints" / later).rmdir()
    train(config, "data.workers=2")
    for name, array in arrays(finished, 12).items():
        np.testing.assert_array_equal(array, arrays(run, 12)[name], err_msg=name)


def test_what_is_told_of_the_run_has_replay_and_objectives(finished):
    [stage] = json.loads((finished / "data.json").read_text("utf-8"))["stages"]
    assert {row["entry"] for row in stage["mixture"]} == {"phrases", "diary"}
    replayed = (finished / "replay" / "align.diary.jsonl").read_text("utf-8").splitlines()
    assert len(replayed) == 60
    assert {"index", "language", "stratum"} <= json.loads(replayed[0]).keys()


def test_other_objectives_are_another_run(finished, capsys):
    stages = [
        {**STAGES[0], "mixture": {**STAGES[0]["mixture"], "phrases": {"objectives": "pair", "weight": 1.0}}}
    ]
    config = write_config(finished.parent / "other.yaml", **{**CHANGES, "stages": stages})
    with pytest.raises(SystemExit) as ended:
        train(config)
    assert ended.value.code == 2
    assert "stages[0].mixture.phrases.objectives" in capsys.readouterr().err


def test_the_released_code_s_stage_learns_every_token_and_no_end(tmp_path):
    stages = [{**STAGES[0], "faithful": True, "steps": 2}]
    changes = {
        **CHANGES,
        "stages": stages,
        "tokens": {**CONFIG["tokens"], "packing": False, "row_length_tokens": 127},
    }
    train(write_config(tmp_path / "small.yaml", **changes))
    [stage] = json.loads((tmp_path / "run" / "data.json").read_text("utf-8"))["stages"]
    rows = [row for row in stage["mixture"] if row["entry"] == "phrases"]
    # All tokens but the BOS of each document: no prompt is left out, and no EOS is put in.
    assert sum(row["target tokens seen"] for row in rows) == pytest.approx(
        sum(row["tokens seen"] - row["documents seen"] for row in rows), abs=len(rows)
    )


def test_a_run_with_wording_of_its_own_goes_on_from_its_folder_and_other_wording_is_refused(
    tmp_path, monkeypatch, capsys
):
    ours = Path(jaxlingua.data.__file__).parent / "wording" / "objectives.yaml"
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "objectives.yaml"
    file.write_text(ours.read_text("utf-8"), "utf-8")
    monkeypatch.chdir(tmp_path)
    changes = {**CHANGES, "data": {**DATA, "wording_folder": "mine"}, "stages": [{**STAGES[0], "steps": 4}]}
    config = write_config(tmp_path / "small.yaml", **changes)
    train(config)
    monkeypatch.chdir("/")
    train(tmp_path / "run")  # a folder is a configuration; nothing is left to train
    file.write_text(file.read_text("utf-8").replace("yes", "indeed"), "utf-8")
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "run")
    assert ended.value.code == 2
    assert "stages.align.mixture.phrases" in capsys.readouterr().err


ROWS = """
import hashlib, sys
from jaxlingua.config import Config
from jaxlingua.tokens import stages as flow
from jaxlingua.tokens.tokenizer import load_tokenizer
from tests.flow.small import CONFIG
from tests.flow.test_redrawn import CHANGES

if __name__ == "__main__":
    config = Config.model_validate({**CONFIG, **CHANGES})
    sources = flow.open_sources(config)
    examples, _ = flow.make_examples(config, sources, {})
    tokenizer = load_tokenizer(config.tokens, lambda: flow.learned_texts(examples), None)
    [stage] = flow.make_stages(
        config, sources, examples, tokenizer, cache=None, on_progress=lambda done, total: None
    )
    first, last = map(int, sys.argv[1:])
    for row in range(first, last):
        batch = stage.batches.batch(5, row, row + 1)
        print(row, hashlib.sha256(b"".join(array.tobytes() for array in batch)).hexdigest())
"""


def test_processes_that_each_draw_for_themselves_have_rows_of_one_batch():
    """Whatever the seed of Python's hashes, as on several hosts."""

    def rows(first: int, last: int, seed: str) -> list[str]:
        command = [sys.executable, "-c", ROWS, str(first), str(last)]
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    whole = rows(0, 8, "1")
    assert len(set(whole)) == 8
    assert rows(0, 4, "2") + rows(4, 8, "3") == whole
