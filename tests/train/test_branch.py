"""A run that begins as a copy of another: all that it needs, or one line; never half a run."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from etils import epath

from jaxlingua.checkpoint import steps
from jaxlingua.command_line import check_config
from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, DataError, MachineError
from jaxlingua.processes.roll_call import alone
from jaxlingua.train import branch
from jaxlingua.train.run_folder import identity_differences, own_folder
from tests.checkpoint.test_steps import write_step

GIVEN = {
    "data": {"sources": {"phrases": {"kind": "cldr", "languages": ["eng_Latn", "ell_Grek"]}}},
    "stages": [{"name": "coit", "mixture": "phrases", "steps": 8}],
}
KEPT = {
    "config.yaml", "provenance.json", "data.json", "metrics.jsonl", "goodput.json", "tokenizer/tokenizer.json",
    "model/config.json", "replay/coit.old.jsonl", "evals/base-0/scores.json", "evals/coit-8/scores.json",
    "evals/coit-8/report.eng_Latn.jsonl", "evals/cache/notes", "evals/my-notes/notes",
}  # fmt: skip
LEFT = {
    "cache/documents", "export/model.safetensors", "report.html", "evals/coit-12/scores.json", ".lock",
    "evals/coit-8/unfinished.jsonl", ".metrics.partial", "wandb/run", "stacks/1.txt", "forgetting.csv",
    "traces/5-8/summary.json", "memory.json",
    "evals/coit-8/.report.eng_Latn.chrf++.npz",
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A run at step 12, which is damaged, so that step 8 counts, the last one of its stage."""
    source = tmp_path / "mine"
    for name in (*KEPT, *LEFT):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"{name} of mine")
    given = check_config(GIVEN, "given")
    (source / "config.yaml").write_text(yaml.safe_dump(given.model_dump(mode="json")))
    facts = {"repeat": "again", "fingerprints": {}, "command": "first", "resumed": []}
    (source / "provenance.json").write_text(json.dumps(facts))
    (source / "data.json").write_text(json.dumps({"stages": [{"steps": 8}]}))
    for step in (4, 8, 12):
        write_step(source / "checkpoints", step)
    (source / "checkpoints/12/state/d/array").unlink()
    return source


def config_of(folder: Path, source: Path, **changes: object) -> Config:
    run = {"folder": str(folder), "branch_from": str(source)}
    return check_config({**GIVEN, "run": run, **changes}, "changed")


def branched(folder: Path, source: Path, **changes: object) -> tuple[int | None, list[str]]:
    """The step that the new run goes on from, and what was told."""
    told: list[str] = []
    with own_folder(config_of(folder, source, **changes), alone(), told.append) as home:
        return home.step, told


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_that_a_run_needs_is_copied_and_nothing_of_what_came_after_its_newest_sound_step(
    source, tmp_path
):
    step, told = branched(tmp_path / "new", source)
    assert step == 8
    state = {f"checkpoints/8/{name}" for name in ("files.json", "meta/metadata", "state/d/array")}
    assert files_in(tmp_path / "new") == KEPT | state | {".lock"}
    for name in KEPT - {"provenance.json"}:
        assert (tmp_path / "new" / name).read_bytes() == (source / name).read_bytes()
    facts = json.loads((tmp_path / "new" / "provenance.json").read_text())
    branched_from = {"folder": str(source), "step": 8, "command": "first", "resumed": []}
    assert facts == {"repeat": "again", "fingerprints": {}, "branched": branched_from}
    assert [line for line in told if "begins" in line] == [
        f"{tmp_path}/new: begins as a copy of {source} at step 8"
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new"]


def test_the_run_that_is_copied_stays_as_it_is_and_a_damaged_step_in_its_place(source, tmp_path):
    before = files_in(source)
    branched(tmp_path / "new", source)
    assert files_in(source) == before


def test_a_run_that_trains_can_be_branched_from(source, tmp_path):
    with (source / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert branched(tmp_path / "new", source)[0] == 8


def test_a_step_that_goes_while_it_is_copied_is_followed_by_the_one_that_took_its_place(
    source, tmp_path, monkeypatch
):
    real = shutil.copytree

    def removing(there: Path, copy: Path, *how: object, **more: object) -> object:
        if Path(there).name == "8":
            shutil.rmtree(there)
            write_step(source / "checkpoints", 9)
        return real(there, copy, *how, **more)

    monkeypatch.setattr(shutil, "copytree", removing)
    assert branched(tmp_path / "new", source)[0] == 9
    assert json.loads((tmp_path / "new" / "provenance.json").read_text())["branched"]["step"] == 9
    assert steps.complete_steps(epath.Path(tmp_path / "new" / "checkpoints")) == [9]


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.parametrize("cut", ["_copy_step", "_facts", "rename"])
def test_of_a_copy_that_was_cut_off_nothing_is_left(source, tmp_path, monkeypatch, cut):
    real = branch._facts

    def killed(place: Path, *_: object) -> dict:
        if cut == "_facts" and place == source:
            return real(place)
        assert (tmp_path / ".new.branch" / "config.yaml").is_file()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(branch.os if cut == "rename" else branch, cut, killed)
        with pytest.raises(Killed):
            branched(tmp_path / "new", source)
    assert files_in(tmp_path / "new") <= {".lock"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new"]
    assert branched(tmp_path / "new", source)[0] == 8


def test_what_a_killed_process_left_of_a_copy_is_no_part_of_the_next(source, tmp_path):
    (tmp_path / ".new.branch").mkdir()
    (tmp_path / ".new.branch" / "half a file").write_text("half")
    assert branched(tmp_path / "new", source)[0] == 8
    assert "half a file" not in files_in(tmp_path / "new")
    assert not (tmp_path / ".new.branch").exists()


def test_the_lock_goes_with_the_copy(source, tmp_path, monkeypatch):
    """Until the process that copies lets go of it, nobody else has the folder."""
    told = []

    def say(line: str) -> None:
        if "begins as a copy" in line:
            with (tmp_path / "new" / ".lock").open("a") as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            told.append(line)

    with own_folder(config_of(tmp_path / "new", source), alone(), say):
        assert len(told) == 1


def test_where_the_run_is_there_already_nothing_is_copied_nor_looked_for(source, tmp_path):
    branched(tmp_path / "new", source)
    write_step(tmp_path / "new" / "checkpoints", 10)
    shutil.rmtree(source)
    assert branched(tmp_path / "new", source) == (10, [])


def test_a_disk_that_is_full_is_told_in_one_line(source, tmp_path, monkeypatch):
    def full(there: Path, *_: object, **__: object) -> None:
        raise shutil.Error([(str(there), "copy", os.strerror(errno.ENOSPC))])

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(
        MachineError, match=r"mine: cannot be copied to .*new.branch \(No space left on device\)"
    ):
        branched(tmp_path / "new", source)
    assert files_in(tmp_path / "new") <= {".lock"}
    assert not (tmp_path / ".new.branch").exists()


def test_a_folder_that_takes_no_copy_is_told_in_one_line(source, tmp_path, monkeypatch):
    def taken(*_: object) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(branch.os, "rename", taken)
    with pytest.raises(MachineError, match=r"new.branch \(Directory not empty\); see to the disk"):
        branched(tmp_path / "new", source)
    assert not (tmp_path / ".new.branch").exists()


def without(name: str) -> Callable[[Path], None]:
    return lambda source: (source / name).unlink()


BAD = {
    "no such folder": (shutil.rmtree, {}, "mine' given, which is no folder; that of a run is needed"),
    "a run cut short": (
        lambda source: (source / "provenance.json").write_text('{"repeat": "ag'),
        {},
        "mine/provenance.json: damaged (Unterminated string starting at: line 1 column 12 (char 11)); a run writes",
    ),
    "a run of another kind": (
        lambda source: (source / "provenance.json").write_text("[]"), {}, "provenance.json: damaged (not a map); a"
    ),
    "no tokenizer": (
        without("tokenizer/tokenizer.json"), {}, "mine' given, which has no tokenizer/tokenizer.json; the one that"
    ),
    "inside of it": (
        lambda source: None,
        {"folder": "mine/new"},
        "'mine' given, and run.folder is 'mine/new', one inside the other; folders beside each other are allowed",
    ),
    "around it": (
        lambda source: None, {"folder": "."}, "'mine' given, and run.folder is '.', one inside the other; folders"
    ),
    "not a run": (without("provenance.json"), {}, "mine' given, which has no provenance.json; the folder of a"),
    "nothing saved": (
        lambda source: shutil.rmtree(source / "checkpoints"), {}, "which has no checkpoint that is whole; one is"
    ),
    "itself": (lambda source: None, {"folder": "mine"}, "which is run.folder; a run goes on without it; leave"),
    "a bucket": (
        lambda source: None,
        {"branch_from": "gs://b/mine"},
        "run.branch_from: 'gs://b/mine' given; a run branches from and to a folder of this machine",
    ),
    "into a bucket": (lambda source: None, {"folder": "gs://b/new"}, "run.folder: 'gs://b/new' given; a run"),
    "a folder of other things": (
        lambda source: (source.parent / "new").mkdir() or (source.parent / "new" / "notes").touch(),
        {},
        "new' given to be a copy, which holds 'notes' and no checkpoint; a run that goes on, or a",
    ),
    "a folder of a notebook": (
        lambda source: (source.parent / "new" / ".ipynb_checkpoints").mkdir(parents=True),
        {},
        "new' given to be a copy, which holds '.ipynb_checkpoints' and no checkpoint; a run that",
    ),
    "another tokenizer": (
        lambda source: None,
        {"tokens": {"vocab_size": 500}},
        "mine' given, which is another run: tokens.vocab_size: 768 there, 500 given; stages, sources and tasks",
    ),
    "another stage": (
        lambda source: None,
        {"stages": [{**GIVEN["stages"][0], "steps": 9}]},
        "which is another run: stages[0].steps: 8 there, 9 given; stages, sources and tasks may be added; extend",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_branched_from_is_one_line_and_leaves_nothing(
    source, tmp_path, monkeypatch, what: str
):
    spoil, changes, message = BAD[what]
    monkeypatch.chdir(tmp_path)
    spoil(source)
    before = files_in(tmp_path)
    run = {"folder": "new", "branch_from": "mine"}
    run |= {name: value for name, value in changes.items() if name in run}
    given = {**GIVEN, **{name: value for name, value in changes.items() if name not in run}, "run": run}
    with (
        pytest.raises((ConfigError, DataError)) as error,
        own_folder(check_config(given, "given"), alone(), lambda _: None),
    ):
        pass
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert files_in(tmp_path) == before


def stages_of(*schedules: str) -> Config:
    stages = [
        {"name": f"s{place}", "mixture": "phrases", "steps": 8, "schedule": schedule}
        for place, schedule in enumerate(schedules)
    ]
    return check_config({**GIVEN, "stages": stages}, "given")


def test_a_stage_that_would_change_the_rate_of_one_that_is_trained_is_refused():
    """On one curve with the stage before, which had one of its own, it would have changed the rates there."""
    one, two = stages_of("restart"), stages_of("restart", "continue")
    assert list(identity_differences(one, stages_of("restart", "restart"), 1)) == []
    told = (
        "stages[1].schedule: 'continue' given for 's1', and the learning rate of the stage before was to end"
    )
    assert [line.startswith(told) for line in identity_differences(one, two, 1)] == [True]
    assert list(identity_differences(two, two, 1)) == []
    assert len(list(identity_differences(two, stages_of("restart", "continue", "continue"), 1))) == 1
    # Nor may what was to go on from it change, as long as it lies on one curve with what is trained.
    assert list(identity_differences(two, stages_of("restart", "restart"), 1)) == [
        'stages[1].schedule: "continue" there, "restart" given'
    ]
    assert list(identity_differences(stages_of("restart", "restart"), one, 1)) == []


def test_from_the_end_of_a_stage_on_a_copy_may_have_another_seed(source, tmp_path):
    folder = tmp_path / "new"
    run = {"folder": str(folder), "branch_from": str(source), "seed": 7}
    assert branched(folder, source, run=run)[0] == 8
    assert yaml.safe_load((folder / "config.yaml").read_text())["run"]["seed"] == 7
    assert json.loads((folder / "provenance.json").read_text())["branched"]["seed"] == 0
    assert branched(folder, source, run=run)[0] == 8  # it goes on as its own
    with pytest.raises(ConfigError, match=r"run.seed: 7 there, 8 given"):
        branched(folder, source, run=run | {"seed": 8})


@pytest.mark.parametrize(
    ("stage", "steps", "said"),
    [
        ({"steps": 9}, 9, "whose stage 'coit' ends at step 9 and is at 8;"),
        ({"epochs": 1}, 8, "whose stage 'coit' has a length in epochs or tokens, which the seed changes"),
        (
            {"steps": 8, "mixture": {"phrases": {"objectives": "denoising"}}},
            8,
            "whose stage 'coit' has objectives, which the seed changes",
        ),
    ],
)
def test_a_seed_that_would_change_what_is_learned_already_is_refused(source, tmp_path, stage, steps, said):
    given = GIVEN | {"stages": [{"name": "coit", "mixture": "phrases", **stage}]}
    kept = check_config(given, "given").model_dump(mode="json")
    (source / "config.yaml").write_text(yaml.safe_dump(kept))
    (source / "data.json").write_text(json.dumps({"stages": [{"steps": steps}]}))
    run = {"folder": str(tmp_path / "new"), "branch_from": str(source), "seed": 7}
    with pytest.raises(ConfigError) as error:
        branched(tmp_path / "new", source, **given | {"run": run})
    assert said in str(error.value)
    assert not (tmp_path / "new").exists()
