"""The main job from configuration to report: what lies in the run folder, and that it can be cut off anywhere."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

from jaxlingua.train.run_folder import identity_differences
from tests.compiling import xla_flags
from tests.flow.small import CONFIG, scored, train, write_config

# One worker of pytest-xdist takes all, so that the run that most of them look at is trained once.
pytestmark = pytest.mark.xdist_group("finished")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    config = write_config(tmp_path_factory.mktemp("finished") / "small.yaml")
    train(config)
    return config.parent / "run"


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").split("\n") if line]


def losses(run: Path) -> list[tuple[int, float, float]]:
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines_of(run)]


def parameters(run: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, read by Orbax alone."""
    tree = ocp.PyTreeCheckpointer().restore(run / "checkpoints" / str(step) / "state")
    leaves = ocp.tree.to_flat_dict(tree, sep="/")
    return {name: np.asarray(leaf) for name, leaf in leaves.items() if leaf is not None}


def test_a_run_leaves_all_that_the_design_promises(finished: Path):
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    promised = {
        "config.yaml",
        "provenance.json",
        "data.json",
        "metrics.jsonl",
        "report.html",
        "report.md",
        "report.json",
        "tokenizer/tokenizer.json",
        "evals/base-0/phrases.eng_Latn-ell_Grek.jsonl",
        "evals/coit-12/phrases.eng_Latn-ell_Grek.jsonl",
        "evals/coit-12/diary.ell_Grek.jsonl",
    }
    assert promised <= files
    assert (finished / "checkpoints" / "12").is_dir()


def test_every_line_of_metrics_has_the_promised_names(finished: Path):
    lines = lines_of(finished)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12] or {2, 4, 6, 8, 10, 12} <= {
        line["step"] for line in lines
    }
    for line in lines:
        promised = {"step", "stage", "loss", "target_tokens", "target_tokens_per_second", "step_seconds"}
        assert promised | {"learning_rate", "grad_norm", "loss/phrases/ell_Grek"} <= line.keys()
        assert line["stage"] == "coit"
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert 0 < lines[-1]["bits_per_byte/diary/eng_Latn"] < 8


def test_predictions_and_scores_have_the_promised_fields(finished: Path):
    file = finished / "evals" / "coit-12" / "phrases.eng_Latn-ell_Grek.jsonl"
    for line in file.read_text("utf-8").split("\n")[:-1]:
        assert {"id", "language", "prompt", "prediction", "targets", "exact_match"} <= json.loads(line).keys()
    report = json.loads((finished / "report.json").read_text("utf-8"))
    fields = [
        "stage",
        "step",
        "model",
        "task",
        "language",
        "metric",
        "value",
        "low",
        "high",
        "items",
        "signature",
        *("prompt", "kind", "source_language", "delta", "delta_low", "delta_high", "p_value"),
    ]
    assert [list(score) for score in report["scores"]] == [fields] * len(report["scores"])
    models = {(score["stage"], score["model"]) for score in report["scores"]}
    assert models == {
        ("base", "base"),
        ("coit", "tuned"),
        ("floors", "copy_source"),
        ("floors", "majority_answer"),
    }


def test_a_finished_run_is_not_trained_again(finished: Path):
    before = (finished / "metrics.jsonl").read_bytes(), parameters(finished, 12)
    scores = finished / "evals" / "coit-12" / "scores.json"
    written = scores.stat().st_mtime_ns
    train(finished / "config.yaml")
    assert (finished / "metrics.jsonl").read_bytes() == before[0]
    assert scores.stat().st_mtime_ns == written
    for name, array in parameters(finished, 12).items():
        np.testing.assert_array_equal(array, before[1][name], err_msg=name)


@pytest.mark.usefixtures("traceable")
def test_a_run_repeated_from_its_folder_gives_the_same_numbers_also_while_it_is_traced(
    finished: Path, tmp_path: Path
):
    train(finished, f"run.folder={tmp_path / 'again'}", "tracking.trace_steps=[5, 8]")
    assert losses(tmp_path / "again") == losses(finished)
    for name, array in parameters(tmp_path / "again", 12).items():
        np.testing.assert_array_equal(array, parameters(finished, 12)[name], err_msg=name)

    trace = json.loads((tmp_path / "again" / "traces" / "5-8" / "summary.json").read_text("utf-8"))
    assert (trace["steps"], len(trace["step_seconds"]), trace["devices"]) == ([5, 8], 4, 8)
    assert sum(trace["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert all(trace["shares"][kind] > 0 for kind in ("matmul", "attention", "collectives", "host"))
    assert any("layers/" in one["where"] and ".py:" in one["source"] for one in trace["operations"])
    report = json.loads((tmp_path / "again" / "report.json").read_text("utf-8"))
    assert report["traces"] == [{**trace, "folder": "traces/5-8"}]
    assert report["memory"]["host"]["gib"] > 0
    assert {"starting", "step", "held_out", "eval"} <= {one["purpose"] for one in report["programs"]}
    assert report["time"]["trace"] > 0


def test_one_device_and_other_meshes_give_the_same_losses_and_scores(finished: Path, tmp_path: Path):
    """`finished` spread everything over eight devices (fsdp=8)."""
    mesh = "sharding.mesh={data: 2, fsdp: 2, tensor: 2}"
    train(finished / "config.yaml", f"run.folder={tmp_path / 'mesh'}", mesh)
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *platform: first)
        train(finished / "config.yaml", f"run.folder={tmp_path / 'alone'}")
    expected = np.array([loss for _, loss, _ in losses(finished)])
    for run, devices in ((tmp_path / "mesh", "8 devices"), (tmp_path / "alone", "1 device")):
        assert json.loads((run / "provenance.json").read_text("utf-8"))["devices"].startswith(devices)
        np.testing.assert_allclose([loss for _, loss, _ in losses(run)], expected, rtol=1e-5)
        assert scored(run, "coit-12") == scored(finished, "coit-12")


def test_a_run_killed_in_the_middle_goes_on_bit_for_bit(finished: Path, tmp_path: Path):
    """Killed by the system after the checkpoint of step 4; the same command gives the uninterrupted run."""
    config = write_config(tmp_path / "small.yaml")
    command = [sys.executable, "-m", "jaxlingua.train", str(config)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=os.environ | {"XLA_FLAGS": xla_flags(8)}
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "checkpoints" / "4").is_dir():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "report.json").exists()
    train(config)
    assert losses(tmp_path / "run") == losses(finished)
    for name, array in parameters(tmp_path / "run", 12).items():
        np.testing.assert_array_equal(array, parameters(finished, 12)[name], err_msg=name)


@pytest.mark.slow
def test_stages_follow_one_another_and_one_can_be_appended_with_its_source(tmp_path: Path):
    config = write_config(tmp_path / "small.yaml")
    train(config)
    rows = [{"instruction": f"Add {n} and {n}.", "input": "", "output": f"It is {2 * n}."} for n in range(60)]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    sources = {"sums": {"kind": "instructions", "path": str(tmp_path / "sums.json"), "language": "eng_Latn"}}
    data = {**CONFIG["data"], "sources": {**CONFIG["data"]["sources"], **sources}}
    second = {"name": "sums", "mixture": {"sums": {}, "diary": {"language": "ell_Grek"}}, "steps": 6}
    write_config(tmp_path / "small.yaml", stages=[CONFIG["stages"][0], second], data=data)
    train(config)
    lines = lines_of(tmp_path / "run")
    assert [line["stage"] for line in lines if line["step"] in (12, 18)] == ["coit", "sums"]
    # Each stage has a schedule of its own: after the first, the rate begins to rise anew.
    rates = {line["step"]: line["learning_rate"] for line in lines}
    assert rates[12] < rates[14]
    assert (tmp_path / "run" / "evals" / "sums-18" / "diary.ell_Grek.jsonl").is_file()
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert [stage["name"] for stage in report["data"]["stages"]] == ["coit", "sums"]
    # The run tells how to repeat it, with the tokenizer of its first start.
    told = report["provenance"]["repeat"].replace("ANOTHER", str(tmp_path / "again")).split()
    train(Path(told[3]), *told[4:])
    assert losses(tmp_path / "again") == losses(tmp_path / "run")


def test_new_tasks_of_a_finished_run_are_evaluated_with_the_base_and_nothing_is_trained(
    finished: Path, tmp_path: Path
):
    run = shutil.copytree(finished, tmp_path / "run")
    trained = (run / "metrics.jsonl").read_bytes()
    tasks = [*CONFIG["eval"]["tasks"], "diary.eng_Latn"]
    train(run, f"run.folder={run}", f"eval.tasks=[{','.join(tasks)}]")
    assert (run / "metrics.jsonl").read_bytes() == trained
    scores = json.loads((run / "report.json").read_text("utf-8"))["scores"]
    for model in ("base", "tuned", "majority_answer"):
        assert "diary.eng_Latn" in {score["task"] for score in scores if score["model"] == model}
    # What was scored before is scored alike: the base is drawn again from the seed.
    before = json.loads((finished / "report.json").read_text("utf-8"))["scores"]
    assert [score for score in scores if score["task"] != "diary.eng_Latn"] == before


def test_a_run_that_stopped_before_its_evaluation_is_evaluated(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "evals" / "coit-12")
    train(run, f"run.folder={run}")
    scores = Path("evals", "coit-12", "scores.json")
    assert (run / scores).read_bytes() == (finished / scores).read_bytes()


def test_a_refused_start_leaves_the_run_as_it_was(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = shutil.copytree(finished, tmp_path / "run")
    bad = {"name": "more", "mixture": {"phrases": {"start": 999}}, "steps": 2}
    with pytest.raises(SystemExit):
        train(run, f"run.folder={run}", f"stages={json.dumps([*CONFIG['stages'], bad])}")
    assert "999 given" in capsys.readouterr().err
    train(run, f"run.folder={run}")


def test_a_folder_in_which_another_process_trains_is_left_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    config = write_config(tmp_path / "small.yaml")
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit) as stop:
            train(config)
    assert stop.value.code == 1
    assert "another process trains here; one at a time is allowed" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_with_somebodys_config_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture):
    config = write_config(tmp_path / "config.yaml")
    written = config.read_bytes()
    with pytest.raises(SystemExit) as stop:
        train(config, f"run.folder={tmp_path}")
    assert stop.value.code == 2
    assert "which has a config.yaml that is not a run's" in capsys.readouterr().err
    assert config.read_bytes() == written


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json", "data.json"])
def test_a_damaged_run_folder_is_told_in_one_line(
    name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / name).write_text((run / name).read_text("utf-8")[:-40] + "{", "utf-8")
    with pytest.raises(SystemExit) as stop:
        train(finished / "config.yaml", f"run.folder={run}")
    assert stop.value.code == 2
    assert f"error: {run / name}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "run").write_text("a file")
    for folder in (tmp_path / "run", tmp_path / "run" / "deeper"):
        with pytest.raises(SystemExit) as stop:
            train(write_config(tmp_path / "small.yaml"), f"run.folder={folder}")
        assert stop.value.code == 2
        assert f"run.folder: '{folder}' given, which cannot be made or written" in capsys.readouterr().err


def test_another_identity_is_refused_with_the_differences(finished: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        train(finished / "config.yaml", "run.seed=3", "train.batch_rows=16", "tracking.log_every_steps=7")
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "holds another run: run.seed: 0 there, 3 given; train.batch_rows: 8 there, 16 given;" in told
    assert "log_every_steps" not in told


def test_changed_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    text = tmp_path / "news.txt"
    text.write_text("".join(f"The train number {n} is late.\n" for n in range(100)))
    sources = {"news": {"kind": "text", "path": str(text), "language": "eng_Latn"}}
    config = write_config(
        tmp_path / "small.yaml",
        data={"sources": sources},
        stages=[{"name": "a", "mixture": "news", "steps": 2}],
        eval={},
    )
    train(config)
    text.write_text(text.read_text() + "One more.\n")
    with pytest.raises(SystemExit) as stop:
        train(config)
    assert stop.value.code == 2
    assert "data.sources.news is not what the run began with" in capsys.readouterr().err


def test_too_many_non_finite_steps_stop_the_run_and_name_the_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    train_options = {**CONFIG["train"], "optimizer": {"peak_lr": 1e30, "clip_norm": "off", "warmup_steps": 0}}
    config = write_config(tmp_path / "small.yaml", train={**train_options, "max_nonfinite_steps": 2})
    with pytest.raises(SystemExit) as stop:
        train(config)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "loss or gradient was not finite 2 times in a row; the last step held " in told
    assert "phrases[" in told or "diary[" in told


def test_training_text_that_depends_on_the_items_cannot_change_on_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    """With data.leaks=drop, what is evaluated decides what is learned."""
    pairs = "".join(f"The train number {n} is very late.\tZug {n} ist zu spät.\n" for n in range(60))
    (tmp_path / "news.tsv").write_text(pairs)
    (tmp_path / "test.tsv").write_text("".join(pairs.splitlines(True)[:20]))
    options = {
        "kind": "parallel",
        "languages": ["eng_Latn", "deu_Latn"],
        "columns": {"eng_Latn": "1", "deu_Latn": "2"},
    }
    sources = {name: {**options, "path": str(tmp_path / f"{name}.tsv")} for name in ("news", "test")}
    config = write_config(
        tmp_path / "small.yaml",
        data={"sources": sources, "leaks": "drop", "template": "short"},
        stages=[{"name": "a", "mixture": "news", "steps": 2}],
        eval={"tasks": ["test.eng_Latn-deu_Latn"], "items": 4, "base_model": False},
    )
    train(config)
    with pytest.raises(SystemExit) as stop:
        train(config, "eval.items=20")
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "stages.a.mixture.news is not what the run began with" in told
    assert "with data.leaks=drop the eval.tasks and eval.items" in told


def test_identity_is_what_the_fields_say():
    from jaxlingua.config import Config

    before = Config.model_validate(CONFIG)
    longer = yaml.safe_load(yaml.safe_dump(CONFIG))
    longer["stages"].append({"name": "more", "mixture": "phrases", "steps": 1})
    longer["sharding"] = {"mesh": {"fsdp": 8}}
    assert list(identity_differences(before, Config.model_validate(longer))) == []
    longer["stages"][0]["steps"] = 13
    longer["data"]["sources"]["phrases"]["records"] = 500
    assert list(identity_differences(before, Config.model_validate(longer))) == [
        "data.sources.phrases.records: 400 there, 500 given",
        "stages[0].steps: 12 there, 13 given",
    ]
    # A stage that is not begun is free, and so is a source that the run does not have yet.
    del longer["data"]["sources"]["phrases"]["records"]
    longer["data"]["sources"]["more"] = CONFIG["data"]["sources"]["phrases"]
    longer["data"]["sources"]["phrases"] = CONFIG["data"]["sources"]["phrases"]
    assert list(identity_differences(before, Config.model_validate(longer), 0)) == []
    longer["stages"] = []
    assert list(identity_differences(before, Config.model_validate(longer), 1)) == [
        "stages[0]: 'coit' there, none given"
    ]
