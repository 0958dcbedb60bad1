"""`python -m jaxlingua.eval`, from the command line to the report: runs, public models, interruptions, bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxlingua.errors import exit_with_one_line
from jaxlingua.eval.__main__ import main
from tests.checkpoint.folders import LLAMA, draw, write_folder
from tests.compiling import xla_flags
from tests.eval.harness_tasks import write_tasks
from tests.flow.small import train, write_config
from tests.tiny import tiny_tokenizer

# The tests that share what these make stay together, so that it is made once.
pytestmark = pytest.mark.xdist_group("evaluated")

FIELDS = LLAMA | {
    "vocab_size": 384,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "max_position_embeddings": 256,
}
QUICK = (
    "generate.max_new_tokens=6",
    "generate.batch_rows=8",
    "eval.bootstrap_samples=20",
    "model.compute_dtype=float32",
)


def command(*arguments: object) -> None:
    """`python -m jaxlingua.eval …` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua.eval", *map(str, arguments)])
        exit_with_one_line(main)


def refused(capsys, *arguments: object, code: int = 2) -> str:
    """The one line with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    assert ended.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


def public(folder: Path, scale: float = 0.1) -> Path:
    """A public checkpoint with its tokenizer; `scale` of its weights makes it another model."""
    tensors = {
        name: (array * scale if array.ndim > 1 else abs(array)).astype(array.dtype)
        for name, array in draw(FIELDS, "float32").items()
    }
    write_folder(folder, FIELDS, tensors)
    tiny_tokenizer().save(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A trained run, evaluated by training, and two public models beside it."""
    home = tmp_path_factory.mktemp("made")
    train(write_config(home / "small.yaml"))
    public(home / "first")
    public(home / "second", 0.2)
    return home


@pytest.fixture
def run(made, tmp_path) -> Path:
    """The run, of the test's own."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


@pytest.fixture
def questions(tmp_path) -> Path:
    """A task file with its data: which color, in two languages, and a sentiment."""
    home = tmp_path / "asked"
    home.mkdir()
    for language, color in (("en", "red"), ("de", "rot")):
        rows = [{"id": f"q{i}", "question": f"{i}?", "answers": [color]} for i in range(5)]
        (home / f"colors.{language}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "colors.yaml").write_text(
        """
about: Which color.
citation: our own
license: Apache-2.0
version: 1
checked_on: made-up files
kind: qa
splits: [test]
languages: {eng_Latn: en, deu_Latn: de}
data: [{format: jsonl, files: {test: "colors.{code}.jsonl"}, fields: {id: id, question: question, answers: answers}}]
prompts: colors
max_new_tokens: 4
"""
    )
    (home / "prompts").mkdir()
    (home / "prompts" / "colors.yaml").write_text(
        'english: [{instruction: "Color {question}"}, {instruction: "Which? {question}"}]\n'
    )
    return home


def of_task_files(home: Path) -> tuple[str, ...]:
    return (f"eval.task_folder={home}", f"eval.data_folder={home}", *QUICK)


def scores(folder: Path, name: str) -> dict[tuple[str, str, str], dict]:
    found = json.loads((folder / "evals" / name / "scores.json").read_text("utf-8"))["scores"]
    return {(score["task"], score["prompt"], score["metric"]): score for score in found}


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]


def test_a_run_that_training_evaluated_is_not_evaluated_again(run, capsys):
    command(run)
    said = capsys.readouterr().out
    assert "base, step 0: evaluated already" in said
    assert "coit, step 12: evaluated already" in said


def test_scores_of_a_checkpoint_are_those_that_training_told(run, capsys):
    """Another process, read from disk: the same predictions."""
    kept = {name: scores(run, name) for name in ("base-0", "coit-12", "floors-0")}
    shutil.rmtree(run / "evals")
    command(run, "eval.groups={mine: [tha_Thai]}")
    assert {name: scores(run, name) for name in kept} == kept
    report = json.loads((run / "report.json").read_text("utf-8"))
    assert report["groups"] == {"mine": ["tha_Thai"]}
    assert {score["stage"] for score in report["scores"]} == {"base", "coit", "floors"}


def test_other_steps_of_a_run_are_evaluated_when_asked_for(run, capsys):
    command(run, "eval.steps=all")
    evaluated = {path.name for path in (run / "evals").iterdir()}
    kept = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert len(kept) > 1
    assert evaluated == {"base-0", "floors-0", *(f"coit-{step}" for step in kept)}
    assert "eval.steps: 7 given; the run keeps other steps" in refused(capsys, run, "eval.steps=[7]")


def test_models_side_by_side_are_compared_with_the_first(made, questions, tmp_path, capsys):
    folder = tmp_path / "side"
    tasks = "eval.tasks=[colors.eng_Latn,colors.deu_Latn]"
    command(
        made / "first",
        made / "second",
        tasks,
        "eval.prompts=[english]",
        f"run.folder={folder}",
        *of_task_files(questions),
    )
    first, second = scores(folder, "first-0"), scores(folder, "second-0")
    assert {prompt for _, prompt, _ in first} == {"english.0", "english.1"}
    assert all(score["delta"] is None for score in first.values())
    for key, score in second.items():
        assert score["delta"] == pytest.approx(score["value"] - first[key]["value"], abs=2e-4)
        assert score["delta_low"] <= score["delta"] <= score["delta_high"]
        assert 0 < score["p_value"] <= 1
    facts = json.loads((folder / "evals/second-0/scores.json").read_text("utf-8"))["model"]
    assert (facts["name"], facts["path"]) == ("second", str(made / "second"))
    assert (folder / "report.html").is_file()
    command(folder)
    assert "second, step 0: evaluated already" in capsys.readouterr().out


def test_tasks_of_lm_evaluation_harness_stand_beside_ours(made, questions, tmp_path, capsys):
    (tmp_path / "harness").mkdir()
    write_tasks(tmp_path / "harness")
    name = "cause_et"
    harness = f"eval.harness={{tasks: [{name}], folder: {tmp_path / 'harness'}, limit: 4}}"
    asked = (made / "first", harness, f"run.folder={tmp_path / 'run'}")
    command(*asked, "eval.tasks=[colors.eng_Latn]", *of_task_files(questions))
    found = scores(tmp_path / "run", "first-0")
    assert {task for task, *_ in found} == {"colors.eng_Latn", f"harness:{name}"}
    capsys.readouterr()
    command(*asked, "eval.tasks=[colors.eng_Latn]", *of_task_files(questions))
    assert "first, step 0: evaluated already" in capsys.readouterr().out
    command(*asked[:2], f"run.folder={tmp_path / 'alone'}", *QUICK)
    assert {task for task, *_ in scores(tmp_path / "alone", "first-0")} == {f"harness:{name}"}


def test_a_model_may_stand_beside_a_run(made, run, questions, capsys):
    command(run, made / "first", "eval.tasks=[colors.eng_Latn]", *of_task_files(questions)[:-1])
    beside = scores(run, "first-0")
    assert {task for task, *_ in beside} == {"colors.eng_Latn"}
    assert beside.keys() < scores(run, "coit-12").keys() == scores(run, "base-0").keys()
    assert all(score["delta"] is not None for score in beside.values())


def test_predictions_of_another_model_are_refused(made, questions, tmp_path, capsys):
    """Another model of the same name, with the same tasks and with more."""
    folder = tmp_path / "side"
    asked = ("eval.tasks=[colors.eng_Latn]", f"run.folder={folder}", *of_task_files(questions))
    command(made / "second", *asked)
    before = (folder / "evals/second-0/scores.json").read_bytes()
    more = ("eval.tasks=[colors.eng_Latn,colors.deu_Latn]", *asked[1:])
    for tasks in (asked, more):
        line = refused(capsys, f"eval.models={{second: {made / 'first'}}}", *tasks)
        wanted = r"second-0/colors.eng_Latn.jsonl: predictions of another model \(fingerprint \w{12} there"
        assert re.search(wanted, line)
    assert (folder / "evals/second-0/scores.json").read_bytes() == before
    command(made / "second", *more)
    assert {task for task, *_ in scores(folder, "second-0")} == {"colors.eng_Latn", "colors.deu_Latn"}


def test_a_folder_keeps_all_tasks_and_models_that_it_was_asked_for(made, questions, tmp_path, capsys):
    folder = tmp_path / "side"
    where = (f"run.folder={folder}", *of_task_files(questions))
    command(made / "first", "eval.tasks=[colors.eng_Latn]", *where)
    command(made / "second", "eval.tasks=[colors.deu_Latn]", *where)
    command(folder)
    both = {"colors.eng_Latn", "colors.deu_Latn"}
    for name in ("first-0", "second-0", "floors-0"):
        assert {task for task, *_ in scores(folder, name)} == both
    capsys.readouterr()
    command(folder, *where[1:])
    assert capsys.readouterr().out.count("evaluated already") == 2


def test_a_model_that_cannot_be_opened_is_found_before_any_is_evaluated(made, questions, tmp_path, capsys):
    asked = (
        made / "first",
        "eval.tasks=[colors.eng_Latn]",
        f"run.folder={tmp_path / 'side'}",
        *of_task_files(questions),
    )
    (tmp_path / "empty").mkdir()
    assert "eval.models.empty: " in refused(capsys, *asked, tmp_path / "empty")
    assert not (tmp_path / "side/evals").exists()


def test_training_in_the_folder_of_an_evaluation_leaves_it_there(made, questions, tmp_path):
    folder = tmp_path / "run"
    command(made / "first", "eval.tasks=[colors.eng_Latn]", f"run.folder={folder}", *of_task_files(questions))
    before = (folder / "evals/first-0/scores.json").read_bytes()
    train(write_config(tmp_path / "small.yaml"), "stages[0].steps=2")
    assert (folder / "evals/first-0/scores.json").read_bytes() == before
    assert scores(folder, "coit-2")


def test_the_model_before_training_is_not_asked_twice_after_a_kill(made, tmp_path, capsys):
    """Killed before the first checkpoint: answers that are marked on disk are in the end."""
    config = write_config(tmp_path / "small.yaml")
    shutil.copytree(made / "run", tmp_path / "run")
    for path in ("checkpoints", "evals/coit-12", "evals/floors-0", "evals/base-0/scores.json"):
        gone = tmp_path / "run" / path
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    kept = lines(made / "run/evals/base-0/phrases.eng_Latn-ell_Grek.jsonl")
    model = json.loads((made / "run/evals/base-0/scores.json").read_text("utf-8"))["model"]["fingerprint"]
    marked = [line | {"prediction": "marked"} for line in kept]
    journal = tmp_path / "run/evals/base-0/unfinished.jsonl"
    journal.write_text("".join(json.dumps(line) + "\n" for line in [{"model": model}, *marked]))
    train(config, "stages[0].steps=2")
    found = lines(tmp_path / "run/evals/base-0/phrases.eng_Latn-ell_Grek.jsonl")
    assert [line["prediction"] for line in found] == ["marked"] * len(kept)


def test_a_comparison_with_the_beginning_can_be_asked_for_later(run, capsys):
    shutil.rmtree(run / "evals")
    command(run, "eval.base_model=false")
    assert all(score["delta"] is None for score in scores(run, "coit-12").values())
    command(run)
    assert all(
        score["delta"] is not None
        for score in scores(run, "coit-12").values()
        if score["metric"] != "off_target"
    )


def started(*arguments: object) -> subprocess.Popen:
    """`python -m jaxlingua.eval …` in a process of its own, with one device."""
    environment = os.environ | {"XLA_FLAGS": xla_flags(), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "jaxlingua.eval", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_xquad_in_all_its_languages_goes_on_after_a_kill_and_asks_nothing_twice(made, tmp_path, shared_data):
    """Killed as an operating system kills; the answers on disk are marked, and the marks are in the end."""
    languages = (
        "arb_Arab",
        "deu_Latn",
        "ell_Grek",
        "eng_Latn",
        "hin_Deva",
        "rus_Cyrl",
        "spa_Latn",
        "tur_Latn",
        "vie_Latn",
        "zho_Hans",
    )
    tasks = ",".join(f"xquad.{language}" for language in languages)
    folder = tmp_path / "xquad"
    arguments = (
        made / "first",
        f"eval.tasks=[{tasks}]",
        f"eval.data_folder={shared_data}",
        "eval.items=12",
        f"run.folder={folder}",
        *QUICK,
    )
    journal = folder / "evals/first-0/unfinished.jsonl"
    process = started(*arguments)
    while process.poll() is None and (not journal.is_file() or journal.read_bytes().count(b"\n") < 40):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stdout.read()
    header, *kept = journal.read_bytes().split(b"\n")[:-1]
    kept = [json.loads(line) for line in kept]
    assert 39 <= len(kept) < 120
    marked = [
        json.dumps(line | {"prediction": f"marked {place}"}).encode() for place, line in enumerate(kept)
    ]
    journal.write_bytes(b"\n".join([header, *marked, b'{"asked": "torn']))
    process = started(*arguments)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "torn line, its item is asked again" in said
    written = [
        line for language in languages for line in lines(folder / f"evals/first-0/xquad.{language}.jsonl")
    ]
    assert len(written) == len({line["asked"] for line in written}) == 120
    told = {line["asked"]: line["prediction"] for line in written}
    assert [told[line["asked"]] for line in kept] == [f"marked {place}" for place in range(len(kept))]
    assert sum(text.startswith("marked ") for text in told.values()) == len(kept)
    assert not journal.exists()
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert {score["language"] for score in report["scores"]} == set(languages)


def test_a_stop_signal_keeps_the_answers(made, tmp_path, shared_data):
    folder = tmp_path / "stopped"
    arguments = (
        made / "first",
        "eval.tasks=[xquad.eng_Latn]",
        f"eval.data_folder={shared_data}",
        "eval.items=300",
        f"run.folder={folder}",
        *QUICK,
    )
    journal = folder / "evals/first-0/unfinished.jsonl"
    process = started(*arguments)
    while process.poll() is None and (not journal.is_file() or journal.read_bytes().count(b"\n") < 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 143, said
    assert "answers so far are kept" in said.splitlines()[-1]
    assert journal.read_bytes().endswith(b"\n")
    assert journal.read_bytes().count(b"\n") > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval.tasks=[xquad.eng_Latn]"], "jaxlingua.eval: no RUN, MODEL or CONFIG given"),
        (["FIRST"], "eval.tasks: none given; entries such as xquad.zho_Hans are needed"),
        (["FIRST", "eval.tasks=[colour.eng_Latn]", "TASKS"], "unknown source or task file 'colour'; did you mean 'colors'?"),
        (["FIRST", "eval.tasks=[colors.fra_Latn]", "TASKS"], "fra_Latn"),
        (["FIRST", "eval.tasks=[colors.eng_Latn]", "eval.prompts=[english.7]", "TASKS"], "english.7"),
        (["FIRST", "eval.tasks=[colors.eng_Latn]", "eval.prompts=[native]", "TASKS"], "native"),
        (["FIRST", "FIRST", "eval.tasks=[colors.eng_Latn]", "TASKS"], "another model is called 'first'"),
        (["FIRST", "eval.models={floors: x/y}", "eval.tasks=[colors.eng_Latn]", "TASKS"], "name 'floors' given"),
        (["FIRST", "--limit"], "'--limit' given; options have the form key=value"),
        (["nowhere.yaml", "eval.tasks=[colors.eng_Latn]"], "nowhere.yaml: no such configuration"),
        (["FIRST", "eval.tasks=[colors.eng_Latn]", "TASKS", "generate.beams=2", "generate.temperature=1"], "generate.beams: 2 given"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_told_in_one_line(made, questions, tmp_path, capsys, arguments, message):
    replaced = {"FIRST": [made / "first"], "TASKS": of_task_files(questions)[:2]}
    given = [one for argument in arguments for one in replaced.get(argument, [argument])]
    assert message in refused(
        capsys, *given, *([f"run.folder={tmp_path / 'x'}"] if "nowhere.yaml" not in given else [])
    )


def test_a_run_without_a_checkpoint_is_refused(tmp_path, capsys):
    config = write_config(tmp_path / "never.yaml")
    assert "holds no checkpoint that is asked for, and eval.models is empty" in refused(capsys, config)


def test_what_a_run_does_not_have_is_refused(made, run, capsys):
    beside = f"eval.models={{base: {made / 'first'}}}"
    assert "name 'base' given beside a run" in refused(capsys, run, beside)
    assert "no checkpoint that is asked for" in refused(capsys, run, "eval.steps=[]", "eval.base_model=false")


def test_a_run_is_evaluated_as_it_was_trained(run, capsys):
    assert "model.compute_dtype" in refused(capsys, run, "model.compute_dtype=bfloat16")
