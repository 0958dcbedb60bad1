"""The report: what it shows of a run folder, and how it refuses a damaged one."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from jaxlingua.errors import DataError
from jaxlingua.eval.report import curves_of, headlines, model_key, models_of, score_rows, write_report


def score(
    stage: str, step: int, model: str, metric: str, value: float, task: str = "news.eng_Latn-deu_Latn"
) -> dict:
    return {
        "stage": stage,
        "step": step,
        "model": model,
        "task": task,
        "language": "deu_Latn",
        "metric": metric,
        "value": value,
        "low": value - 1,
        "high": value + 1,
        "items": 2,
        "signature": f"{metric}|v1",
    }


def prediction(id: str, text: str) -> dict[str, Any]:
    return {
        "id": id,
        "language": "deu_Latn",
        "prompt": "English to German\n<b>in 2 days</b>\n",
        "prediction": text,
        "targets": ["in 2 Tagen"],
        "exact_match": 100.0 * (text == "in 2 Tagen"),
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a base model that knows nothing and a tuned one that knows half."""
    lines = [
        {
            "step": step,
            "stage": "coit",
            "loss": 5.0 / step,
            "loss/news/deu_Latn": 5.0 / step,
            "target_tokens": 10,
            "target_tokens_per_second": 100.0 + step,
            "step_seconds": 0.1,
        }
        for step in (10, 20, 30)
    ]
    lines.append({"step": 30, "stage": "coit", "bits_per_byte/news/deu_Latn": 0.5})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for stage, step, answers, values in (
        ("base", 0, ["xx", "yy"], (0.0, 1.0)),
        ("coit", 30, ["in 2 Tagen", "in 2 Jahren"], (50.0, 60.5)),
    ):
        folder = tmp_path / "evals" / f"{stage}-{step}"
        folder.mkdir(parents=True)
        model = "base" if stage == "base" else "tuned"
        found = [
            score(stage, step, model, "exact_match", values[0]),
            score(stage, step, model, "BLEU", values[1]),
        ]
        counts = {"news.eng_Latn-deu_Latn": {"items": 2, "available": 9, "cut_prompts": 0, "unfinished": 1}}
        (folder / "scores.json").write_text(json.dumps({"scores": found, "tasks": counts}))
        items = "".join(json.dumps(prediction(str(n), text)) + "\n" for n, text in enumerate(answers))
        (folder / "news.eng_Latn-deu_Latn.jsonl").write_text(items)
    (tmp_path / "provenance.json").write_text(
        json.dumps(
            {
                "command": "python -m jaxlingua.train small.yaml",
                "repeat": "python -m jaxlingua.train run",
                "started": "2026-01-01",
                "versions": {"jaxlingua": "0.1.0", "jax": "0.10.2"},
                "git_commit": "abc",
                "tokenizer": "f00",
                "devices": "1 device (cpu)",
            }
        )
    )
    entry = {"entry": "news", "language": "deu_Latn", "examples": 1234, "cut tokens": 0}
    stage = {
        "name": "coit",
        "steps": 30,
        "batch_rows": 4,
        "row_length_tokens": 64,
        "use": 0.987,
        "mixture": [entry],
    }
    source = {
        "name": "news",
        "languages": ["eng_Latn", "deu_Latn"],
        "train": 1234,
        "held_out": 2,
        "skipped": {"empty": 3},
        "fingerprint": "abcdef0123456789",
    }
    (tmp_path / "data.json").write_text(json.dumps({"stages": [stage], "sources": [source]}))
    return tmp_path


class Words(HTMLParser):
    """The text and the tags of a page; an unclosed table or a stray tag changes the count."""

    def __init__(self, page: str):
        super().__init__()
        self.text, self.opened, self.closed, self.addresses = "", 0, 0, []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.opened += tag in ("div", "table", "tr", "td", "th", "dl", "figure")
        self.addresses += [value for name, value in attributes if name in ("src", "href") and value[0] != "#"]

    def handle_endtag(self, tag: str) -> None:
        self.closed += tag in ("div", "table", "tr", "td", "th", "dl", "figure")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_shows_scores_samples_curves_and_losses(run: Path):
    write_report(run)
    page = (run / "report.html").read_text("utf-8")
    words = Words(page)
    assert words.opened == words.closed > 20
    assert words.addresses == []
    assert page.count("<svg") == 3  # loss, held-out loss, speed
    for shown in (
        "0 → 50",
        "[49.0, 51.0]",
        "60.5",
        "in 2 Jahren",
        "98.7 %",
        "1,234",
        "3 empty",
        "abcdef012345",
    ):
        assert shown in words.text, shown
    assert "<b>in 2 days</b>" in words.text  # text of the data is text, never markup
    assert len(page) < 1_000_000


def test_the_markdown_has_a_table_row_per_metric(run: Path):
    write_report(run)
    lines = (run / "report.md").read_text("utf-8").split("\n")
    header = next(place for place, line in enumerate(lines) if line.startswith("| task |"))
    assert lines[header].count("|") == lines[header + 1].count("|") == lines[header + 2].count("|")
    assert any("| exact\\_match | 2 | 0.0 [-1.0, 1.0] | 50.0 [49.0, 51.0] |" in line for line in lines)


def test_the_json_holds_every_score_as_it_was_measured(run: Path):
    report = write_report(run)
    assert json.loads((run / "report.json").read_text("utf-8")) == report
    assert len(report["scores"]) == 4
    assert set(report["scores"][0]) == set(score("", 0, "", "", 0))
    assert report["throughput"] == {"steps": 30.0, "target_tokens_per_second": 120.0, "step_seconds": 0.1}
    assert [sample["exact"] for sample in report["samples"]] == [True, False]
    assert [sample["base_prediction"] for sample in report["samples"]] == ["xx", "yy"]


def test_models_stand_in_the_order_in_which_they_were_trained():
    scores = [
        score("b", 20, "tuned", "BLEU", 3),
        score("base", 0, "base", "BLEU", 1),
        score("floors", 0, "copy_source", "BLEU", 0),
        score("a", 10, "tuned", "BLEU", 2),
    ]
    assert models_of(scores) == ["floor", "base", "a, step 10", "b, step 20"]
    (row,) = score_rows(scores)
    assert [row["scores"][model]["value"] for model in models_of(scores)] == [0, 1, 2, 3]
    assert headlines([row], models_of(scores))[0]["after"] == 3
    assert model_key(score("floors", 0, "copy_source", "BLEU", 1)) == "floor"


def test_long_curves_are_thinned_and_keep_their_ends():
    metrics = [{"step": step, "loss": float(step)} for step in range(5001)]
    ((_, _, lines),) = curves_of(metrics)
    assert len(lines["all"]) <= 402
    assert lines["all"][0] == (0, 0.0)
    assert lines["all"][-1] == (5000, 5000.0)


def test_a_run_without_evaluation_still_has_a_report(run: Path):
    for file in (run / "evals").glob("*/*"):
        file.unlink()
    report = write_report(run)
    assert report["scores"] == []
    assert "No task was evaluated" in (run / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    "name", ["provenance.json", "data.json", "metrics.jsonl", "evals/base-0/scores.json"]
)
def test_a_damaged_file_is_named(run: Path, name: str):
    (run / name).write_text('{"cut off": ')
    with pytest.raises(
        DataError, match=f"{name}(:1)?: damaged .*; a run writes whole lines of JSON; mend or remove it"
    ):
        write_report(run)


def test_a_folder_that_is_no_run_is_told(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"provenance.json: missing, so .* is not the folder of a run; give one"
    ):
        write_report(tmp_path)


SCORES, LINES = "evals/coit-30/scores.json", "evals/coit-30/news.eng_Latn-deu_Latn.jsonl"
TASK = "news.eng_Latn-deu_Latn"


def edited(file: Path, place: tuple[Any, ...], value: Any) -> None:
    """Change one thing in a file of JSON, or in the first line of one with a line each."""
    first, newline, rest = (
        file.read_text().partition("\n") if file.suffix == ".jsonl" else (file.read_text(), "", "")
    )
    content = at = json.loads(first)
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    file.write_text(json.dumps(content) + newline + rest)


@pytest.mark.parametrize(
    ("file", "place", "value", "told"),
    [
        (SCORES, ("scores", 0, "value"), None, "scores.0.value: Input should be a valid number"),
        (SCORES, ("scores", 1, "value"), "12", "scores.1.value: Input should be a valid number"),
        (SCORES, ("scores", 0, "value"), True, "scores.0.value: Input should be a valid number"),
        (SCORES, ("scores", 0, "low"), float("nan"), "NaN is no JSON"),
        (SCORES, ("scores", 0, "delta"), float("-inf"), "-Infinity is no JSON"),
        (SCORES, ("scores", 0, "step"), "30", "scores.0.step: Input should be a valid integer"),
        (SCORES, ("scores", 0, "items"), -1, "scores.0.items: Input should be greater than or equal to 0"),
        (SCORES, ("scores", 0, "metric"), None, "scores.0.metric: Input should be a valid string"),
        (SCORES, ("scores", 0, "task"), "\ud800", "'utf-8' codec can't encode character '\\ud800'"),
        ("provenance.json", ("devices",), "\udfff", "'utf-8' codec can't encode character '\\udfff'"),
        (SCORES, ("scores", 0, "p_value"), 2.0, "scores.0.p_value: Input should be less than or equal to 1"),
        (SCORES, ("scores", 0, "prompt"), 3, "scores.0.prompt: Input should be a valid string"),
        (SCORES, ("tasks",), [], "tasks: Input should be a valid dictionary"),
        (SCORES, ("tasks", TASK), {}, f"tasks.{TASK}.items: Field required"),
        (SCORES, ("model",), "x", "model: Input should be a valid dictionary or instance of"),
        (SCORES, ("base",), {"evaluation": 1}, "base.evaluation: Input should be a valid string, and 1 more"),
        (LINES, ("prediction",), None, "prediction: Value error, not a text"),
        (LINES, ("targets",), "x", "targets: Input should be a valid list"),
        (LINES, ("exact_match",), float("nan"), "NaN is no JSON"),
        (LINES, ("id",), 5, "id: Value error, not a text"),
        ("provenance.json", ("versions",), [], "versions: Input should be a valid dictionary"),
        ("provenance.json", ("command",), None, "command: Input should be a valid string"),
        ("data.json", ("stages",), {}, "stages: Input should be a valid list"),
        ("data.json", ("stages", 0, "mixture", 0, "language"), 1, "stages.0.mixture.0.language: Input should be"),
        ("metrics.jsonl", ("step",), None, "step: Input should be a valid integer"),
        ("metrics.jsonl", ("step_seconds",), "x", "step_seconds: Input should be a valid number"),
    ],
)  # fmt: skip
def test_what_is_not_of_its_type_is_told_in_one_line_with_its_file(run: Path, file, place, value, told):
    edited(run / file, place, value)
    with pytest.raises(DataError) as refused:
        write_report(run)
    message = str(refused.value)
    at = ":1" if file.endswith("jsonl") else ""
    assert message.startswith(f"{run / file}{at}: damaged ({told}")
    assert "; " in message  # what is allowed, what to do
    assert "\n" not in message
    assert not (run / "report.json").exists()


@pytest.mark.parametrize("content", ["{}", "[1, 2]", "null", '"x"', "3", "[" * 100_000])
@pytest.mark.parametrize("file", [SCORES, "provenance.json"])
def test_a_file_of_another_form_is_told(run: Path, file: str, content: str):
    (run / file).write_text(content)
    with pytest.raises(DataError, match=f"{file}: damaged"):
        write_report(run)


def test_half_a_character_of_a_model_is_shown_by_its_number(run: Path):
    """Bytes that a tokenizer joins wrongly cannot be written as UTF-8."""
    edited(run / LINES, ("prediction",), "in \ud800 Tagen")
    report = write_report(run)
    assert json.loads((run / "report.json").read_text("utf-8")) == report
    for name in ("report.html", "report.json"):
        assert "in \\ud800 Tagen" in (run / name).read_text("utf-8")
