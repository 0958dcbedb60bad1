"""The notebooks run from the first cell to the last, and show what they promise."""

import ast
import json
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
import yaml
from nbclient import NotebookClient

from jaxlingua.command_line import load_config
from jaxlingua.errors import DataError
from jaxlingua.eval.report import write_report
from jaxlingua.tokens.stages import open_sources
from tests.checkpoint.folders import LLAMA, draw, write_folder
from tests.compiling import xla_flags
from tests.eval.report.staged_run import write_staged_run
from tests.tiny import tiny_parallel, tiny_tokenizer

pytestmark = pytest.mark.xdist_group("notebooks")  # so that each runs once

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADAPT = ROOT / "notebooks" / "1_adapt_a_tiny_model.ipynb"
LORA = ROOT / "notebooks" / "2_lora_on_a_colab_tpu.ipynb"
MATRIX = ROOT / "notebooks" / "3_read_a_forgetting_matrix.ipynb"
QUICK = """
STEPS = 20
ITEMS = 4
FOLDER = "run"
OPTIONS = [
    "data.sources.phrases.records=300",
    "data.sources.diary.records=300",
    "data.sources.diary.held_out_records=40",
    "data.sources.forms.records=300",
    "eval.tasks=[phrases.eng_Latn-deu_Latn, phrases.hin_Deva-eng_Latn, diary.rus_Cyrl]",
    "eval.bootstrap_samples=50",
    "tracking.log_every_steps=2",
]
"""


def names_set_in(source: str) -> list[str]:
    return [target.id for line in ast.parse(source).body for target in line.targets]


def executed(path: Path, quick: str, folder: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs that it has with other parameters, run in `folder`."""
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert names_set_in(parameters.source) == names_set_in(quick)
    parameters.source = quick
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("XLA_FLAGS", xla_flags())  # one device, as readers have
        patch.delenv("MPLBACKEND", raising=False)
        client = NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count
            assert "error" not in [output.output_type for output in cell.outputs], cell.source
    return notebook


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[nbformat.NotebookNode, Path]:
    """The first notebook with the outputs of a short run, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    return executed(ADAPT, QUICK, folder), folder


def outputs(notebook: nbformat.NotebookNode, cell_id: str) -> list[nbformat.NotebookNode]:
    (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
    return cell.outputs


def printed(notebook: nbformat.NotebookNode, cell_id: str) -> str:
    return "".join(output.text for output in outputs(notebook, cell_id) if output.output_type == "stream")


def test_the_data_are_shown_with_learned_tokens_in_green(adapted):
    shown = printed(adapted[0], "look")
    assert "stage coit" in shown
    assert "20 steps of 16 rows of 64 tokens" in shown
    assert "\x1b[32m" in shown


def test_training_is_told_line_by_line(adapted):
    told = printed(adapted[0], "train")
    assert "step 20 of 20" in told
    assert "\x1b" not in told


def test_the_table_holds_the_scores_of_the_report(adapted):
    notebook, folder = adapted
    (table,) = [output.data["text/markdown"] for output in outputs(notebook, "table")]
    scores = json.loads((folder / "run" / "report.json").read_text("utf-8"))["scores"]
    exact = {(score["task"], score["model"]): score for score in scores if score["metric"] == "exact_match"}
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in table.split("\n")[2:]]
    assert [row[0] for row in rows] == [
        "diary.rus_Cyrl", "phrases.eng_Latn-deu_Latn", "phrases.hin_Deva-eng_Latn",
    ]  # fmt: skip
    for task, floor, before, after, interval in rows:
        floor_of = "majority_answer" if task.startswith("diary") else "copy_source"
        assert floor == f"{exact[task, floor_of]['value']:.1f}"
        assert before == f"{exact[task, 'base']['value']:.1f}"
        tuned = exact[task, "tuned"]
        assert after == f"{tuned['value']:.1f}"
        assert interval == f"{tuned['low']:.1f} to {tuned['high']:.1f}"


def test_the_table_tells_floor_before_and_after_apart(
    adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A few steps leave most scores at 0, so the same cell reads a report of different numbers here."""
    (cell,) = [cell for cell in adapted[0].cells if cell.id == "table"]
    scores = [
        {
            "task": "diary.rus_Cyrl",
            "metric": metric,
            "model": model,
            "value": value,
            "low": 31.0,
            "high": 39.5,
        }
        for metric, add in (("f1", 50), ("exact_match", 0))
        for model, value in (("base", add + 1.25), ("majority_answer", add + 8.0), ("tuned", add + 35.0))
    ]
    (tmp_path / "report.json").write_text(json.dumps({"scores": scores}), "utf-8")
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    exec(cell.source, {"FOLDER": str(tmp_path)})
    assert shown[0].data.split("\n")[2:] == ["| diary.rus_Cyrl | 8.0 | 1.2 | **35.0** | 31.0 to 39.5 |"]


def test_curves_answers_and_report_are_shown(adapted):
    notebook, folder = adapted
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook, "loss"))
    answers = printed(notebook, "predictions")
    for task in ("eng_Latn, phrases.hin_Deva-eng_Latn: ", "rus_Cyrl, diary.rus_Cyrl: "):
        assert task in answers
    file = folder / "run" / "evals" / "coit-20" / "phrases.eng_Latn-deu_Latn.jsonl"
    items = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
    right = sum(item["exact_match"] == 100 for item in items)
    assert f"deu_Latn, phrases.eng_Latn-deu_Latn: {right} of {len(items)} right" in answers
    wrong = next(item for item in items if item["exact_match"] < 100)
    assert f"WRONG, it is {wrong['targets'][0]}" in answers
    (link,) = [output.data["text/html"] for output in outputs(notebook, "link")]
    assert "run/report.html" in link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_valid_and_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


# ── LoRA on a Colab TPU ──────────────────────────────────────────────────────────────────────────────────

QUICK_LORA = """
MODEL = "public"
LANGUAGE = "ell_Grek"
OWN_FILES = False
INSTRUCTIONS = "../greek"
SENTENCES = "../wikimatrix"
PAIR = "en-el"
SENTENCE_COUNT = 200
ENGLISH = "../english"
STEPS = 6
ITEMS = 4
FOLDER = "kept"
PLATFORM = "cpu"
OPTIONS = [
    "model.compute_dtype=float32",
    "data.template=short",
    "data.sources.sentences.held_out_records=8",
    "tokens.row_length_tokens=64",
    "train.batch_rows=8",
    "train.micro_batch_rows=auto",
    "train.held_out_documents=2",
    "generate.max_new_tokens=8",
    "generate.batch_rows=4",
    "eval.bootstrap_samples=20",
    "tracking.log_every_steps=2",
]
"""
TASK = "sentences.eng_Latn-ell_Grek"


def lora_cell(cell_id: str) -> str:
    (cell,) = [cell for cell in nbformat.read(LORA, as_version=4).cells if cell.id == cell_id]
    return cell.source


def made_of_cells(*cell_ids: str, **changes: Any) -> dict[str, Any]:
    """The names that are there when the parameters and these cells have run; `changes` are of parameters."""
    names: dict[str, Any] = {}
    exec(lora_cell("parameters"), names)
    names.update(changes)
    for cell_id in cell_ids:
        exec(lora_cell(cell_id), names)
    return names


def write_instructions(folder: Path, language: str) -> None:
    """What a data set of the hub holds, in a folder."""
    folder.mkdir()
    lines = [
        json.dumps({"instruction": f"Say {n}.", "input": "", "output": text}, ensure_ascii=False)
        for n, text in enumerate(tiny_parallel()[language])
    ]
    (folder / "train.jsonl").write_text("\n".join(lines), "utf-8")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[nbformat.NotebookNode, Path]:
    """The second notebook with the outputs of a short run on a CPU, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("lora")
    fields = LLAMA | {"vocab_size": 384, "num_attention_heads": 4, "num_hidden_layers": 2}
    tensors = {name: array * 0.1 if array.ndim > 1 else abs(array) for name, array in draw(fields).items()}
    tiny_tokenizer().save(write_folder(folder / "public", fields, tensors))
    write_instructions(folder / "english", "eng_Latn")
    write_instructions(folder / "greek", "ell_Grek")
    pairs = zip(tiny_parallel()["eng_Latn"], tiny_parallel()["ell_Grek"], strict=True)
    lines = [json.dumps({"english": english, "non_english": other}) for english, other in pairs]
    (folder / "wikimatrix" / "en-el").mkdir(parents=True)
    (folder / "wikimatrix" / "en-el" / "train.jsonl").write_text("\n".join(lines), "utf-8")
    parts = {"configs": [{"config_name": "en-el", "data_files": "en-el/train.jsonl"}]}
    (folder / "wikimatrix" / "README.md").write_text(f"---\n{yaml.safe_dump(parts)}---\n", "utf-8")
    return executed(LORA, QUICK_LORA, folder), folder


@pytest.mark.slow
def test_lora_is_trained_and_told_from_the_model_before(tuned):
    notebook, folder = tuned
    assert "backend: cpu" in printed(notebook, "check")
    assert printed(notebook, "check").endswith("All is here.\n")
    assert "\x1b[32m" in printed(notebook, "look")
    assert "step 6 of 6" in printed(notebook, "train")
    (table,) = [
        out.data["text/markdown"] for out in outputs(notebook, "table") if "text/markdown" in out.data
    ]
    assert [line.split("|")[1].strip() for line in table.split("\n")[2:]] == ["chrf++", "bleu"]
    (link,) = [out.data["text/html"] for out in outputs(notebook, "table") if "text/html" in out.data]
    assert "kept/run/report.html" in link
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook, "loss"))
    predictions = (folder / "kept" / "run" / "evals" / "coit-6" / f"{TASK}.jsonl").read_text("utf-8")
    first = json.loads(predictions.splitlines()[0])
    assert f"reference  {first['targets'][0]!r}\n" in printed(notebook, "answers")
    assert f"after      {first['prediction']!r}\n" in printed(notebook, "answers")


def test_the_table_of_translations_tells_floor_before_and_after_apart(tmp_path, monkeypatch):
    """A few steps leave all scores at 0, so the cell reads a report of different numbers here."""
    scores = [
        {"metric": metric, "model": model, "value": value + add, "low": 31.0 + add, "high": 39.5 + add}
        for metric, add in (("bleu", 0), ("exact_match", 20), ("chrf++", 50))
        for model, value in (("base", 1.25), ("copy_source", 8.0), ("tuned", 35.0))
    ]
    (tmp_path / "report.json").write_text(json.dumps({"scores": scores}), "utf-8")
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *objects: shown.extend(objects))
    exec(lora_cell("table"), {"RUN": tmp_path, "json": json})
    assert shown[0].data.split("\n")[2:] == [
        "| chrf++ | 58.0 | 51.2 | **85.0** | 81.0 to 89.5 |", "| bleu | 8.0 | 1.2 | **35.0** | 31.0 to 39.5 |"
    ]  # fmt: skip


@pytest.mark.slow
def test_what_is_handed_on_answers_alike_in_peft_and_transformers(tuned):
    """In float32, so that merged weights are not rounded."""
    notebook, folder = tuned
    changed, differ = (
        float(line.rpartition(" ")[2])
        for line in printed(notebook, "load").splitlines()
        if " logits" in line or " same " in line
    )
    assert changed > 1e-3
    assert differ < 1e-4
    fields = json.loads((folder / "kept" / "run" / "export" / "adapter_config.json").read_text("utf-8"))
    assert (fields["r"], fields["lora_alpha"], fields["use_dora"]) == (16, 32, False)
    with zipfile.ZipFile(folder / "adapter.zip") as archive:
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= set(
            archive.namelist()
        )
    assert str(folder / "merged") in printed(notebook, "download")


def test_its_settings_are_those_of_the_recipe_that_was_planned(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_of_cells("mount", "sources", "recipe", FOLDER=str(tmp_path))
    own, planned = load_config("lora.yaml"), load_config("coit-lora_llama3.2-1b_zho_v5e-1.yaml")
    assert (own.model, own.train, own.tokens) == (planned.model, planned.train, planned.tokens)
    assert own.run.platform == "tpu"
    assert own.eval.tasks == ["sentences.eng_Latn-ind_Latn"]


def test_files_of_ones_own_are_read_and_what_is_missing_or_wrong_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_instructions(tmp_path / "english", "eng_Latn")
    write_instructions(tmp_path / "greek", "ell_Grek")
    own = {
        "FOLDER": str(tmp_path),
        "LANGUAGE": "ell_Grek",
        "OWN_FILES": True,
        "ENGLISH": "english",
    }
    with pytest.raises(SystemExit) as stopped:
        made_of_cells("mount", "sources", "recipe", **own)
    assert stopped.value.code == (
        f"OWN_FILES: instructions.jsonl and sentences.tsv not found; put them into {tmp_path}"
    )
    shutil.copy(tmp_path / "greek" / "train.jsonl", tmp_path / "instructions.jsonl")
    pairs = zip(tiny_parallel()["eng_Latn"], tiny_parallel()["ell_Grek"], strict=True)
    lines = ["eng_Latn\tell_Grek", *("\t".join(pair) for pair in pairs)]
    (tmp_path / "sentences.tsv").write_text("\n".join(lines), "utf-8")
    made_of_cells("mount", "sources", "recipe", **own)
    sources = open_sources(load_config("lora.yaml"))
    assert [len(sources[name].records("all")) for name in ("english", "instructions")] == [200, 200]
    assert sources["sentences"].records("all")[0].texts["ell_Grek"] == tiny_parallel()["ell_Grek"][0]
    (tmp_path / "sentences.tsv").write_text("\n".join(lines), "utf-16")
    with pytest.raises(DataError, match=r"sentences\.tsv"):
        open_sources(load_config("lora.yaml"))


BACKENDS = {"cpu": "cpu: 1 x cpu", "gpu": "gpu: 1 x Tesla T4, 14.6 GiB each", "tpu": "tpu: 1 x TPU v5 lite"}


@pytest.mark.parametrize(
    ("there", "wanted", "told"),
    [
        ("cpu", "tpu", "- this runtime has neither TPU nor GPU; choose one in Runtime → Change runtime type"),
        ("gpu", "tpu", "- this runtime has a GPU, not a TPU; choose one in Runtime → Change runtime type"),
        ("tpu", "cpu", '- this runtime has a TPU; set PLATFORM = "tpu", not "cpu"'),
    ],
)
def test_a_runtime_of_another_kind_is_told_in_words(there, wanted, told, tmp_path, monkeypatch):
    finding = {"level": "ok", "what": "backend", "told": BACKENDS[there], "remedy": ""}
    assert told in stopped_by_check(monkeypatch, tmp_path, [finding], PLATFORM=wanted)


def test_what_the_doctor_finds_wrong_is_told_with_its_remedy(tmp_path, monkeypatch):
    finding = {"level": "problem", "what": "packages", "told": "jax wants 'libtpu==1', 2 is installed"}
    told = stopped_by_check(monkeypatch, tmp_path, [finding | {"remedy": "pip install 'libtpu==1'"}])
    assert told == (
        "This cannot work yet:\n- packages: jax wants 'libtpu==1', 2 is installed; pip install 'libtpu==1'"
    )


def test_a_gated_model_without_a_token_and_a_full_disk_are_told(tmp_path, monkeypatch):
    def gated(path, patterns, where, error):
        raise error(f"{where}: '{path}' is no folder here, and is gated on the hub; accept its terms")

    told = stopped_by_check(monkeypatch, tmp_path, [], find_folder=gated)
    assert "- MODEL: 'meta-llama/Llama-3.2-1B' is no folder here, and is gated" in told
    assert told.endswith("; in Colab: the key on the left, a secret named HF_TOKEN")
    files = [
        SimpleNamespace(rfilename="model.safetensors", size=2**50),
        SimpleNamespace(rfilename="a", size=None),
    ]
    hub = SimpleNamespace(model_info=lambda *_, **__: SimpleNamespace(siblings=files))
    told = stopped_by_check(monkeypatch, tmp_path, [], find_folder=lambda *_: tmp_path, hub=hub)
    assert told.endswith("- disk: the model, and the merged one at the end, want 2097152.0 GiB")


def stopped_by_check(
    monkeypatch: pytest.MonkeyPatch, folder: Path, findings: list[dict], find_folder=None, hub=None, **changes
) -> str:
    """What the cell that checks stops with, where the doctor finds this."""
    answer = SimpleNamespace(returncode=1, stdout=json.dumps({"findings": findings}), stderr="")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: answer)
    monkeypatch.setattr("jaxlingua.hub.find_folder", find_folder or (lambda *_: folder))
    empty = SimpleNamespace(model_info=lambda *_, **__: SimpleNamespace(siblings=[]))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub or empty)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(SystemExit) as stopped:
        made_of_cells("mount", "check", FOLDER=str(folder), **changes)
    return stopped.value.code


# ── the forgetting matrix ─────────────────────────────────────────────────────────────────────────────────

QUICK_MATRIX = """
RUN = ""
STEPS = 3
ITEMS = 2
REPLAY = 0.4
FOLDER = "kept"
OPTIONS = [
    "model.preset=tiny-test",
    "data.sources.phrases.records=200",
    "data.sources.diary.records=200",
    "data.sources.diary.held_out_records=20",
    "tokens.vocab_size=384",
    "train.held_out_documents=0",
    "train.optimizer.warmup_steps=1",
    "eval.tasks=[diary.deu_Latn, phrases.eng_Latn-rus_Cyrl, diary.spa_Latn]",
    "generate.max_new_tokens=4",
    "eval.bootstrap_samples=50",
    "tracking.log_every_steps=3",
]
"""


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> tuple[nbformat.NotebookNode, Path]:
    """The third notebook with the outputs of two short runs of three stages, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("matrix")
    return executed(MATRIX, QUICK_MATRIX, folder), folder


def told_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text("utf-8"))["forgetting"]


def table_of(notebook: nbformat.NotebookNode, cell_id: str) -> list[list[str]]:
    (table,) = [
        out.data["text/markdown"]
        for out in outputs(notebook, cell_id)
        if "text/markdown" in out.get("data", {})
    ]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.split("\n")[2:]]


@pytest.mark.slow
def test_three_stages_are_trained_and_their_matrix_is_read(continued):
    notebook, folder = continued
    told = told_in(folder / "kept" / "naive")
    assert printed(notebook, "read").startswith("rows: base, german, russian, hindi\n")
    assert printed(notebook, "read").count("column: ") == len(told["columns"]) == 3
    for cell_id in ("matrix", "curves"):
        assert any("image/png" in output.get("data", {}) for output in outputs(notebook, cell_id))
    rows = table_of(notebook, "numbers")
    assert [row[-1] for row in rows] == [line["sentence"] for line in told["summary"]]
    assert [row[2] for row in rows] == [f"{line['value']:.1f}" for line in told["summary"]]


@pytest.mark.slow
def test_the_second_run_replays_and_stands_beside_the_first(continued):
    notebook, folder = continued
    mixture = json.loads((folder / "kept" / "replay" / "data.json").read_text("utf-8"))["stages"][2][
        "mixture"
    ]
    assert {row["entry"].split(".")[1] for row in mixture if row["entry"].startswith("replay.")} == {
        "german", "russian",
    }  # fmt: skip
    both = [told_in(folder / "kept" / name)["summary"] for name in ("naive", "replay")]
    for row, *lines in zip(table_of(notebook, "compare"), *both, strict=True):
        assert [cell.partition(" ")[0] for cell in row[2:]] == [f"{line['value']:.1f}" for line in lines]


def matrix_cell(cell_id: str) -> str:
    (cell,) = [cell for cell in nbformat.read(MATRIX, as_version=4).cells if cell.id == cell_id]
    return cell.source


def test_a_run_of_ones_own_is_read_with_tasks_that_came_later_and_old_abilities(tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    folder = write_staged_run(tmp_path / "run", items=6, abilities={"old": ["quiz.eng_Latn"]})
    for name in ("base-0", "greek-100"):
        file = folder / "evals" / name / "scores.json"
        content = json.loads(file.read_text())
        content["scores"] = [one for one in content["scores"] if one["task"] != "quiz.tha_Thai"]
        file.write_text(json.dumps(content))
    write_report(folder)
    names = {"folder": folder, "Path": Path}
    for cell_id in ("read", "matrix", "curves", "numbers"):
        exec(matrix_cell(cell_id), names)
    (thai,) = [place for place, one in enumerate(names["columns"]) if one["task"] == "quiz.tha_Thai"]
    assert np.isnan(names["changes"][:3, thai]).all()
    assert names["changes"][3, thai] == told_in(folder)["columns"][thai]["cells"]["hebrew"]["change"]
    assert "| old | f1 | " in shown[0].data
    content = json.loads((folder / "report.json").read_text("utf-8"))
    (folder / "report.json").write_text(json.dumps(content | {"forgetting": None}))
    with pytest.raises(SystemExit, match="a matrix needs two stages"):
        exec(matrix_cell("read"), names)
