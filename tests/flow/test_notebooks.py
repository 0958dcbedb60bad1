"""The notebooks run from the first cell to the last, and show what they promise."""

import ast
import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.xdist_group("notebooks")  # so that each runs once

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADAPT = ROOT / "notebooks" / "1_adapt_a_tiny_model.ipynb"
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


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[nbformat.NotebookNode, Path]:
    """The first notebook with the outputs of a short run, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(ADAPT, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert names_set_in(parameters.source) == names_set_in(QUICK)
    parameters.source = QUICK
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("XLA_FLAGS", "")  # one device, as readers have
        patch.delenv("MPLBACKEND", raising=False)
        client = NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return notebook, folder


def outputs(notebook: nbformat.NotebookNode, cell_id: str) -> list[nbformat.NotebookNode]:
    (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
    return cell.outputs


def printed(notebook: nbformat.NotebookNode, cell_id: str) -> str:
    return "".join(output.text for output in outputs(notebook, cell_id) if output.output_type == "stream")


def test_every_cell_runs_and_none_raises(adapted):
    notebook, _ = adapted
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count
            assert "error" not in [output.output_type for output in cell.outputs], cell.source


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
