"""The table of several runs: what is averaged, what is kept apart, what is refused, in every format."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval import table

TASK = "flores.eng_Latn-jav_Latn"


def score(
    stage, step, value, *, model="tuned", task=TASK, metric="chrf++", prompt="english.0", items=4, **changes
):
    return {
        "stage": stage, "step": step, "model": model, "task": task, "language": "jav_Latn", "metric": metric,
        "value": value, "low": value - 1, "high": value + 1, "items": items,
        "signature": f"metric:{metric}|nw:2|task:translation1|prompt:alpaca.{prompt}|items:{items}of9|"
        f"data:{len(prompt)}|decoding:greedy,64|interval:95%,bootstrap1000,seed0",
        "prompt": prompt, **changes,
    }  # fmt: skip


def write_run(folder: Path, scores, *, seed=0, config=None, items=4) -> Path:
    """A run folder of a seed with scores, and predictions of one task."""
    folder.mkdir()
    content = {"run": {"seed": seed, "folder": str(folder)}, **(config or {})}
    (folder / "config.yaml").write_text(json.dumps(content))
    for name in dict.fromkeys(f"{one['stage']}-{one['step']}" for one in scores):
        home = folder / "evals" / name
        home.mkdir(parents=True)
        own = [one for one in scores if f"{one['stage']}-{one['step']}" == name]
        tasks = {} if name == "floors-0" else {one["task"]: {"items": items} for one in own}
        model = {"fingerprint": "base" if name == "base-0" else f"{folder} {name}"}
        (home / "scores.json").write_text(json.dumps({"scores": own, "tasks": tasks, "model": model}))
        for task in tasks:
            (home / f"{task}.jsonl").write_text('{"id": "1", "prediction": "x"}\n' * items)
    return folder


def run_of(folder: Path, value: float, seed: int, **options) -> Path:
    floor = score("floors", 0, 12.5, model="copy_source")
    scores = [floor, score("base", 0, 30.0, model="base"), score("coit", 50, 1.0), score("coit", 100, value)]
    return write_run(folder, scores, seed=seed, **options)


def made(capsys, *arguments) -> str:
    table.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def cells(capsys, *arguments) -> dict[str, dict]:
    """Model → its line of the CSV, of a table with one row."""
    lines = list(csv.DictReader(io.StringIO(made(capsys, *arguments, "--format", "csv"))))
    assert len({line["model"] for line in lines}) == len(lines)
    return {line["model"]: line for line in lines}


@pytest.fixture
def seeds(tmp_path: Path) -> list[Path]:
    values = (40.0, 44.0, 45.0)
    return [run_of(tmp_path / f"demo-seed{seed}", value, seed) for seed, value in enumerate(values)]


def test_runs_that_differ_in_the_seed_alone_are_averaged(seeds, capsys):
    found = cells(capsys, *seeds)
    assert list(found) == ["copy", "base", "demo"]
    assert float(found["demo"]["value"]) == 43.0
    assert float(found["demo"]["sd_seeds"]) == pytest.approx(7.0**0.5)  # sample deviation of 40, 44, 45
    assert found["demo"]["seeds"] == "3"
    assert found["demo"]["low"] == ""


def test_runs_of_other_training_data_are_not_seeds_of_each_other(tmp_path, capsys):
    """The configuration names files, and not what is in them."""
    runs = [run_of(tmp_path / f"a-{seed}", 40.0 + seed, seed) for seed in range(3)]
    for run, fingerprint in zip(runs, "112", strict=True):
        source = {"name": "news", "languages": ["jav_Latn"], "train": 1, "held_out": 0, "skipped": {}}
        sources = [{**source, "fingerprint": fingerprint * 64}]
        (run / "data.json").write_text(json.dumps({"stages": [], "sources": sources}))
    found = cells(capsys, *runs)
    assert sorted(float(found[name]["value"]) for name in found if name not in ("copy", "base")) == [
        40.5,
        42.0,
    ]


@pytest.mark.parametrize(("kind", "columns"), [("learned", 1), ("huggingface", 2)])
def test_runs_of_another_tokenizer_are_not_seeds_of_each_other_unless_each_learned_its_own(
    tmp_path, capsys, kind, columns
):
    config = {"tokens": {"kind": kind, **({"path": "owner/name"} if kind == "huggingface" else {})}}
    runs = [run_of(tmp_path / f"a-{seed}", 40.0 + seed, seed, config=config) for seed in range(2)]
    for run, fingerprint in zip(runs, "12", strict=True):
        told = {"command": "x", "repeat": "x", "started": "x", "devices": "x", "versions": {"jaxlingua": "1"}}
        (run / "provenance.json").write_text(json.dumps({**told, "tokenizer": fingerprint * 64}))
    assert len(cells(capsys, *runs).keys() - {"copy", "base"}) == columns


def test_equal_random_labels_of_two_seeds_are_two_draws(tmp_path, capsys):
    runs = [
        write_run(
            tmp_path / f"a-{seed}",
            [score("floors", 0, value, model=model) for model in ("random", "majority")],
            seed=seed,
        )
        for seed, value in enumerate((33.0, 33.0, 36.0))
    ]
    found = cells(capsys, *runs)
    assert (found["random"]["seeds"], float(found["random"]["value"])) == ("3", 34.0)
    assert found["majority"]["seeds"] == "2"  # of other items, or it would be the same


def test_one_and_the_same_base_model_and_floor_count_once(seeds, capsys):
    found = cells(capsys, *seeds)
    assert (found["base"]["seeds"], found["base"]["low"], found["copy"]["seeds"]) == ("1", "29.0", "1")


def test_floors_of_one_name_are_one_column(tmp_path, capsys):
    scores = [
        score("floors", 0, 1.0, model="majority_answer", task="xquad.jav_Latn"),
        score("floors", 0, 2.0, model="majority"),
        score("floors", 0, 3.0, model="random"),
    ]
    text = made(capsys, write_run(tmp_path / "a", scores))
    assert text.startswith("| task | language | metric | items | majority | random |\n")


def test_runs_that_differ_in_more_than_the_seed_are_columns_of_their_own(tmp_path, capsys):
    first = run_of(tmp_path / "a", 40.0, 0)
    second = run_of(tmp_path / "b", 50.0, 1, config={"train": {"batch_rows": 64}})
    found = cells(capsys, first, second)
    assert (float(found["a"]["value"]), float(found["b"]["value"])) == (40.0, 50.0)
    assert (found["a"]["seeds"], found["a"]["low"], found["a"]["high"]) == ("1", "39.0", "41.0")


def test_what_is_free_to_change_on_resume_does_not_part_runs(tmp_path, capsys):
    first = run_of(tmp_path / "a-1", 40.0, 0)
    second = run_of(
        tmp_path / "a-2", 50.0, 1, config={"tracking": {"tensorboard": False}, "eval": {"items": 7}}
    )
    assert float(cells(capsys, first, second)["a"]["value"]) == 45.0


def test_each_stage_is_shown_as_it_ended(tmp_path, capsys):
    run = write_run(tmp_path / "a", [score("x", 10, 1.0), score("x", 20, 2.0), score("y", 30, 3.0)])
    found = cells(capsys, run)
    assert {model: float(line["value"]) for model, line in found.items()} == {
        "a x, step 20": 2.0,
        "a y, step 30": 3.0,
    }


def test_prompts_are_averaged_and_their_spread_is_told(tmp_path, capsys):
    def with_prompts(name, values, seed):
        scores = [score("coit", 9, value, prompt=f"english.{n}") for n, value in enumerate(values)]
        return write_run(tmp_path / name, scores, seed=seed)

    found = cells(capsys, with_prompts("a0", (10.0, 20.0), 0), with_prompts("a1", (30.0, 40.0), 1))["a"]
    assert float(found["value"]) == 25.0
    assert float(found["sd_seeds"]) == pytest.approx(200**0.5)  # of 15 and 35
    assert float(found["sd_prompts"]) == pytest.approx(50**0.5)  # of 20 and 30
    assert (found["prompts"], found["prompt_count"]) == ("english.0 english.1", "2")


def test_models_that_were_asked_in_other_prompts_are_not_averaged_over_them(tmp_path, capsys):
    both = [score("coit", 9, value, prompt=f"english.{n}") for n, value in enumerate((10.0, 20.0))]
    first = write_run(tmp_path / "a", both)
    second = write_run(tmp_path / "b", both[:1], config={"train": {"batch_rows": 64}})
    lines = list(csv.DictReader(io.StringIO(made(capsys, first, second, "--format", "csv"))))
    assert [(line["prompts"], line["model"], float(line["value"])) for line in lines] == [
        ("english.0", "a", 10.0),
        ("english.0", "b", 10.0),
        ("english.1", "a", 20.0),
    ]


def test_scores_with_other_signatures_stand_apart_and_the_difference_is_named(tmp_path, capsys):
    first = run_of(tmp_path / "a-0", 40.0, 0)
    second = write_run(tmp_path / "a-1", [score("coit", 100, 60.0, items=3)], seed=1, items=3)
    lines = list(csv.DictReader(io.StringIO(made(capsys, first, second, "--format", "csv"))))
    assert [(line["model"], float(line["value"]), line["items"], line["differs"]) for line in lines] == [
        ("copy", 12.5, "4", ""),
        ("base", 30.0, "4", ""),
        ("a", 40.0, "4", ""),
        ("a", 60.0, "3", "items: '4of9' and '3of9'"),
    ]
    text = made(capsys, first, second)
    assert "not measured as the row above: items: '4of9' and '3of9'" in text
    assert "50.0" not in text  # the mean of what must not be averaged


def test_sampled_answers_of_several_seeds_are_averaged(tmp_path, capsys):
    def sampled(seed, value):
        signature = score("coit", 9, 0)["signature"].replace("greedy", f"sample,temperature0.7,seed{seed}")
        return write_run(tmp_path / f"a{seed}", [score("coit", 9, value, signature=signature)], seed=seed)

    assert float(cells(capsys, sampled(0, 10.0), sampled(1, 20.0))["a"]["value"]) == 15.0


def test_the_markdown_is_a_table_with_signatures_below(seeds, capsys):
    text = made(capsys, *seeds)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    shown = [
        tokens[place + 1].content
        for place, token in enumerate(tokens)
        if token.type in ("th_open", "td_open")
    ]
    assert shown[:7] == ["task", "language", "metric", "items", "copy", "base", "demo"]
    assert shown[-3:] == [r"12.5 \[11.5, 13.5\]", r"30.0 \[29.0, 31.0\]", "43.0 ± 2.6 (3 s)"]
    assert "1. `metric:chrf++|nw:2`" in text
    assert all(str(run) in text.replace("\\", "") for run in seeds)


def test_json_latex_and_html_tell_the_same(seeds, capsys, tmp_path):
    content = json.loads(made(capsys, *seeds, "--format=json"))
    assert content["models"] == ["copy", "base", "demo"]
    assert content["rows"][0]["cells"]["demo"]["value"] == 43.0
    tex = made(capsys, *seeds, "--format=tex")
    assert r"43.0 $\pm$ 2.6 (3 s)" in tex
    assert r"eng\_Latn{-}jav\_Latn" in tex
    table.main([*map(str, seeds), f"--output={tmp_path}/t.html"])
    page = (tmp_path / "t.html").read_text("utf-8")
    assert "43.0 ± 2.6 (3 s)" in page
    assert not re.search(r"https?:|src=|<script|url\(", page)
    assert not (tmp_path / "t.html.tmp").exists()


def test_the_ending_of_the_output_tells_the_format(seeds, tmp_path):
    table.main([str(seeds[0]), "--output", str(tmp_path / "t.csv")])
    assert (tmp_path / "t.csv").read_text().startswith("task,language,metric,")


def test_only_the_metrics_that_are_named_are_shown(tmp_path, capsys):
    run = write_run(tmp_path / "a", [score("x", 1, 2.0), score("x", 1, 3.0, metric="bleu")])
    assert cells(capsys, run, "--metric", "bleu")["a"]["value"] == "3.0"
    with pytest.raises(
        ConfigError, match="--metric: 'blue' given; did you mean 'bleu'\\?; name one of these"
    ):
        table.main([str(run), "--metric", "blue"])


def test_two_models_of_one_name_are_never_averaged(tmp_path, capsys):
    runs = [
        write_run(tmp_path / f"a{n}", [score("Other", 0, 10.0 * n, model="Other")], seed=n) for n in (1, 2)
    ]
    found = {model: float(line["value"]) for model, line in cells(capsys, *runs).items()}
    assert found == {"Other in a": 10.0, "Other in a #2": 20.0}


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────


def refused(error, *arguments) -> str:
    with pytest.raises(error) as told:
        table.main([str(argument) for argument in arguments])
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_folder_that_is_no_run_is_told(tmp_path):
    assert refused(DataError, tmp_path).startswith(f"{tmp_path}: given, which is not the folder of a run")


def test_a_run_without_scores_is_told(tmp_path):
    run = write_run(tmp_path / "a", [])
    assert refused(DataError, run).endswith(f"run python -m jaxlingua.eval {run} first")


def test_the_same_folder_twice_is_told(seeds, tmp_path):
    (tmp_path / "link").symlink_to(seeds[0])
    message = refused(DataError, seeds[0], tmp_path / "link")
    assert (
        message
        == f"{tmp_path}/link: the same folder as {seeds[0]}; each run may be given once; leave one out"
    )


def test_one_seed_of_one_configuration_counts_once(tmp_path):
    first, second = run_of(tmp_path / "a", 40.0, 7), run_of(tmp_path / "b", 40.0, 7)
    assert refused(DataError, first, second).startswith(
        f"{second}: the same configuration and seed as {first}"
    )


def test_a_damaged_scores_file_is_named(seeds):
    (seeds[0] / "evals" / "coit-100" / "scores.json").write_text('{"scores": [')
    assert "evals/coit-100/scores.json: damaged (" in refused(DataError, *seeds)


def test_a_score_without_its_fields_is_damage(seeds):
    (seeds[0] / "evals" / "coit-100" / "scores.json").write_text('{"scores": [{"value": 3}]}')
    assert "scores.json: damaged (a score lacks some of high, items, language" in refused(DataError, *seeds)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"scores": [score("coit", 100, float("nan"))]}, "damaged (NaN is no JSON)"),
        (
            {"scores": [{**score("coit", 100, 4.0), "value": None}]},
            "damaged (scores.0.value: Input should be a valid number)",
        ),
        ({"tasks": []}, "damaged (tasks: Input should be a valid dictionary)"),
        ({"tasks": {TASK: None}}, f"damaged (tasks.{TASK}: Input should be a valid dictionary"),
        ({"model": "x"}, "damaged (model: Input should be a valid dictionary"),
    ],
)
def test_what_is_not_of_its_type_is_named(seeds, part, told):
    file = seeds[0] / "evals" / "coit-100" / "scores.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **part}))
    assert refused(DataError, *seeds).startswith(f"{file}: {told}")


def test_a_damaged_line_of_predictions_is_named_with_its_number(seeds):
    file = seeds[0] / "evals" / "coit-100" / f"{TASK}.jsonl"
    file.write_text('{"id": "1"}\n{"id": "2"}\n{"id": \n{"id": "4"}\n')
    assert f"{file}:3: damaged (" in refused(DataError, *seeds)


def test_predictions_that_are_missing_are_told(seeds):
    file = seeds[0] / "evals" / "coit-100" / f"{TASK}.jsonl"
    file.write_text('{"id": "1"}\n')
    assert refused(DataError, *seeds).startswith(f"{file}: 1 predictions for 4 items; a prediction per item")


def test_a_wrong_configuration_of_a_run_is_told_with_its_folder(tmp_path):
    folder = write_run(tmp_path / "run", [], config={"eval": {"abilities": {"old": ["quiz.eng_Latn"]}}})
    message = refused(ConfigError, folder)
    assert message.startswith(f"{folder}: config.yaml: eval.abilities.old: 'quiz.eng_Latn' given")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "csv"], "jaxlingua.eval table: no RUN given;"),
        (
            ["RUN", "--format", "xls"],
            "--format: 'xls' given; md, csv, tex, html, json are allowed; choose one",
        ),
        (
            ["RUN", "--fromat", "csv"],
            "jaxlingua.eval table: '--fromat' given; did you mean '--format'?; see --help",
        ),
        (["RUN", "--output"], "--output: no value given; it takes one; write it like --output VALUE"),
        (
            ["RUN", "--output", "t.xls"],
            "--output: 't.xls' given; endings md, csv, tex, html, json tell the format;",
        ),
        (["RUN", "--output=a.md", "--output=b.md"], "--output: given twice; once is allowed; leave one out"),
    ],
)
def test_a_wrong_command_line_is_told(arguments, message):
    assert refused(ConfigError, *arguments).startswith(message)


def test_an_output_in_no_folder_is_told(seeds, tmp_path):
    message = refused(ConfigError, seeds[0], f"--output={tmp_path}/none/t.md")
    assert message.startswith(
        f"--output: '{tmp_path}/none/t.md' given; a file in a folder that exists is allowed"
    )


def test_old_scores_without_the_new_fields_are_read(tmp_path, capsys):
    old = {name: value for name, value in score("coit", 9, 5.0).items() if name != "prompt"}
    run = write_run(tmp_path / "a", [old])
    assert cells(capsys, run)["a"]["value"] == "5.0"


# ── runs of several stages ────────────────────────────────────────────────────────────────────────────────


def staged(folder: Path, seed: int, thai: float, *, tasks=("quiz.ell_Grek", "quiz.tha_Thai")) -> Path:
    """Greek learned at 60, then Thai, after which Greek has 50 and 5 less for each further seed."""
    values = {"base": (10.0, 10.0), "greek": (60.0, 20.0), "thai": (50.0 - 5 * seed, thai)}
    scores = [
        score(stage, step, value, model="base" if stage == "base" else "tuned", task=task, metric="f1")
        | {"language": task[-8:]}
        for step, (stage, of_tasks) in zip((0, 100, 200), values.items(), strict=True)
        for task, value in zip(tasks, of_tasks, strict=False)
    ]
    write_run(folder, scores, seed=seed)
    stages = [
        {"name": name, "steps": 100, "batch_rows": 1, "row_length_tokens": 8, "use": 1.0}
        | {"mixture": [{"entry": "x", "language": code}]}
        for name, code in (("greek", "ell_Grek"), ("thai", "tha_Thai"))
    ]
    (folder / "data.json").write_text(json.dumps({"stages": stages, "sources": []}))
    return folder


def test_what_was_forgotten_is_told_with_its_spread_over_seeds(tmp_path, capsys):
    runs = [staged(tmp_path / f"naive-{seed}", seed, 80.0) for seed in range(3)]
    lines = list(csv.DictReader(io.StringIO(made(capsys, *runs, "--format", "csv"))))
    told = [line for line in lines if not line["language"]]
    assert lines[-len(told) :] == told  # below the tasks
    assert {line["model"] for line in told} == {"naive thai, step 200"}
    backward, average = -15.0, (50 - 5 + 80) / 2  # −10, −15 and −20
    wanted = {
        "average score": average,
        "backward transfer": backward,
        "forgetting": 15.0,
        "forward transfer": 10.0,
    }
    assert {line["task"]: float(line["value"]) for line in told} == pytest.approx(wanted)
    assert {line["task"]: float(line["sd_seeds"]) for line in told} == pytest.approx(
        {"average score": 2.5, "backward transfer": 5.0, "forgetting": 5.0, "forward transfer": 0.0}
    )
    assert {line["seeds"] for line in told} == {"3"}
    text = made(capsys, *runs)
    assert "| backward transfer |  | f1 <sup>3</sup> | 4 |" in text
    assert "−15.0 ± 5.0 (3 s)" in text
    assert "score after the last stage minus that after the stage which learned the language" in text


def test_means_over_other_tasks_are_not_averaged(tmp_path, capsys):
    one = staged(tmp_path / "naive-0", 0, 80.0)
    other = staged(tmp_path / "naive-1", 1, 80.0, tasks=("quiz.ell_Grek",))
    text = made(capsys, one, other, "--format", "csv")
    told = [line for line in csv.DictReader(io.StringIO(text)) if line["task"] == "average score"]
    assert sorted(float(line["value"]) for line in told) == [45.0, 65.0]
    assert sorted(line["differs"].partition(":")[0] for line in told) == ["", "task"]
    for kind in ("md", "tex", "html", "json"):
        assert "average score" in made(capsys, one, other, "--format", kind)
