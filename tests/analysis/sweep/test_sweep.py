"""A grid of runs from one base: what each learns and is asked, the table, going on after a stop."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jaxlingua.analysis.sweep import command, runs
from jaxlingua.analysis.sweep.cells import cells_of
from jaxlingua.analysis.sweep.command import main
from jaxlingua.analysis.sweep.table import COLUMNS, rows_of, sources_of
from jaxlingua.command_line import check_config, load_config
from jaxlingua.errors import ConfigError, DataError, Stopped
from tests.flow.small import CONFIG, train, write_config
from tests.tiny import tiny_tokenizer

LANGUAGES = ["deu_Latn", "ell_Grek"]
PHRASES = {"kind": "cldr", "languages": ["eng_Latn", *LANGUAGES], "records": 400}
STAGE = {
    "name": "pairs",
    "steps": 3,
    "mixture": {
        "english": {"source": "diary", "language": "eng_Latn"},
        "german": {"source": "diary", "language": "deu_Latn"},
        "out": {
            "source": "phrases",
            "direction": ["eng_Latn-deu_Latn", "eng_Latn-ell_Grek", "deu_Latn-ell_Grek"],
        },
    },
}
TEXTS = {"eng_Latn": "a fox sees a hen", "deu_Latn": "a fox sees a dog", "ell_Grek": "η fox αλεπού"}
BACK = {"source": "phrases", "direction": "deu_Latn-eng_Latn"}
PUBLIC = {"init": "huggingface", "path": "owner/model"}
TASKS = [
    "phrases.eng_Latn-deu_Latn",
    "phrases.eng_Latn-ell_Grek",
    "phrases.deu_Latn-ell_Grek",
    "diary.eng_Latn",
]


def config(tmp_path: Path, **changes):
    diary = {"kind": "cldr", "yields": "qa", "languages": ["eng_Latn", "deu_Latn"], "records": 100}
    given = {
        **CONFIG,
        "run": {"folder": str(tmp_path / "run"), "branch_from": str(tmp_path / "base")},
        "data": {"template": "short", "sources": {"phrases": PHRASES, "diary": diary}},
        "stages": [CONFIG["stages"][0], STAGE],
        "eval": {**CONFIG["eval"], "tasks": TASKS},
    }
    given["stages"][0] = {
        "name": "coit",
        "mixture": {"phrases": {"direction": "eng_Latn-ell_Grek"}},
        "steps": 2,
    }
    return check_config(given | changes, "a test")


def test_a_run_learns_its_language_and_is_asked_in_it(tmp_path):
    cells = cells_of(config(tmp_path), LANGUAGES, [10, 20], [0, 7], tmp_path)
    assert [cell.name for cell in cells] == [
        f"{language}-{pairs}-{seed}" for seed in (0, 7) for pairs in (10, 20) for language in LANGUAGES
    ]
    german, greek = cells[2].config, cells[3].config
    first, last = german.stages
    assert first == config(tmp_path).stages[0]  # earlier stages are those of the base
    assert list(last.mixture) == ["english", "german", "out"]
    assert last.mixture["out"].direction == ["eng_Latn-deu_Latn"]
    assert (last.mixture["out"].replay.records, last.mixture["out"].replay.seed) == (20, 0)
    assert last.mixture["english"].replay == "off"
    assert german.eval.tasks == ["phrases.eng_Latn-deu_Latn", "diary.eng_Latn"]
    assert list(greek.stages[1].mixture) == ["english", "out"]
    assert greek.stages[1].mixture["out"].direction == ["eng_Latn-ell_Grek"]
    assert not any(cell.config.eval.base_model for cell in cells)  # which is the end of stage coit
    assert [cell.config.run.seed for cell in cells] == [0] * 4 + [7] * 4
    assert len({cell.config.run.folder for cell in cells}) == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"run": {}},
            "model.init: scratch given, so that each run of the sweep would begin with another model",
        ),
        (
            {"stages": [STAGE, {**STAGE, "name": "more"}], "run": {}, "model": PUBLIC, "tokens": {}},
            "stages: 2 given, of which each run of the sweep would train all",
        ),
        (
            {"stages": [{**STAGE, "mixture": STAGE["mixture"] | {"back": BACK}}]},
            "mixture: out and back translate from or into 'deu_Latn', so that it would learn 2 times the pairs",
        ),
        (
            {"stages": [{**STAGE, "mixture": {"english": STAGE["mixture"]["english"]}}]},
            "--languages: 'deu_Latn' given; stage 'pairs' has no entry that translates",
        ),
        (
            {"eval": {"tasks": ["phrases.eng_Latn-ell_Grek"]}},
            "--languages: 'deu_Latn' given, and no task of eval.tasks is of it",
        ),
        (
            {
                "stages": [
                    {**STAGE, "mixture": STAGE["mixture"] | {"both": {"source": "phrases", "task": "text"}}}
                ]
            },
            "mixture.both: shows deu_Latn and ell_Grek, which are swept",
        ),
    ],
)
def test_what_cannot_be_swept_is_one_line(tmp_path, changes, said):
    with pytest.raises(ConfigError) as error:
        cells_of(config(tmp_path, **changes), LANGUAGES, [10], [0], tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("flag", "given", "said"),
    [
        ("--pairs", "10,ten", "--pairs: 'ten' given; whole numbers from 1 on"),
        ("--pairs", "0", "--pairs: '0' given"),
        ("--pairs", "10,10", "--pairs: '10' twice"),
        ("--seeds", "1,,2", "--seeds: nothing between two commas"),
        ("--languages", "german", "german"),
    ],
)
def test_bad_lists_are_one_line(tmp_path, flag, given, said):
    flags = {"--languages": "deu_Latn", "--pairs": "10", "--output": str(tmp_path / "sweep")} | {flag: given}
    with pytest.raises(ConfigError) as error:
        main([str(write_config(tmp_path / "a.yaml")), *(part for pair in flags.items() for part in pair)])
    assert said in str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_a_table_has_the_last_stage_and_the_base(tmp_path):
    cell = cells_of(config(tmp_path), LANGUAGES, [10], [3], tmp_path)[0]
    score = {"metric": "chrf++", "value": 1.5, "low": 1.0, "high": 2.0, "items": 4, "signature": "s"}
    scores = [
        {"stage": "coit", "model": "tuned", "task": "phrases.eng_Latn-ell_Grek", **score},
        {"stage": "base", "model": "base", "task": "phrases.eng_Latn-deu_Latn", **score},
        {"stage": "floors", "model": "source_copied", "task": "phrases.eng_Latn-deu_Latn", **score},
        {"stage": "coit", "model": "tuned", "task": "phrases.eng_Latn-deu_Latn", **score, "value": 9.0},
        {"stage": "pairs", "model": "tuned", "task": "diary.eng_Latn", **score, "value": 7.0},
    ]
    (tmp_path / "report.json").write_text(json.dumps({"scores": scores}))
    lines = [
        {"step": 1, "stage": "coit", "bits_per_byte/phrases/ell_Grek": 4.0},
        {"step": 2, "stage": "pairs", "bits_per_byte/out/deu_Latn": 3.0, "bits_per_byte": 5.0},
        {"step": 3, "stage": "pairs", "bits_per_byte/out/deu_Latn": 2.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = rows_of(tmp_path, cell)
    assert [(row["pairs"], row["task"], row["metric"], row["value"]) for row in rows] == [
        (0, "phrases.eng_Latn-*", "chrf++", 9.0),
        (10, "diary.eng_Latn", "chrf++", 7.0),
        (10, "out/*", "bits_per_byte", 2.0),
    ]
    assert {(row["language"], row["seed"]) for row in rows} == {("deu_Latn", 3)}


def test_held_out_losses_of_the_base_are_those_of_entries_that_go_on(tmp_path):
    """Of the stage before, entry out is of the same source, and english of another."""
    before = {
        "name": "coit",
        "mixture": {"out": STAGE["mixture"]["out"], "english": {"source": "phrases", "language": "eng_Latn"}},
        "steps": 2,
    }
    cells = cells_of(config(tmp_path, stages=[before, STAGE]), LANGUAGES, [10, 20], [3], tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({"scores": []}))
    names = ("out/deu_Latn", "out/ell_Grek", "english/eng_Latn")
    lines = [
        {"stage": "coit", **{f"held_out_loss/{name}": 5.0 for name in names}},
        {"stage": "coit", **{f"held_out_loss/{name}": 4.0 for name in names}},
        {"stage": "pairs", **{f"held_out_loss/{name}": 3.0 for name in names if "ell_Grek" not in name}},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tuned = [("english/eng_Latn", 3.0), ("out/*", 3.0)]
    for cell, base in ((cells[0], [(0, "out/*", 4.0)]), (cells[2], [])):
        found = [(row["pairs"], row["task"], row["value"]) for row in rows_of(tmp_path, cell)]
        assert found == [*base, *((cell.pairs, *one) for one in tuned)]


def fake_training(trained: list[str], ends: list[int], came: list[int]):
    """Writes what a run of the configuration would leave, unless it is to end with another exit code."""

    def train_one(path: Path, programs: Path) -> tuple[int, int]:
        trained.append(path.stem)
        if code := ends.pop(0) if ends else 0:
            return code, 0
        cell = load_config(str(path))
        run = Path(cell.run.folder)
        run.mkdir()
        models = [("base", "base"), ("tuned", "coit"), ("tuned", "pairs")]
        scores = [
            {
                "stage": stage,
                "model": model,
                "task": task,
                "metric": "f1",
                "value": 1,
                "low": 0,
                "high": 2,
                "items": 4,
            }
            for model, stage in models
            for task in cell.eval.tasks
        ]
        (run / "report.json").write_text(json.dumps({"scores": scores}))
        (run / "metrics.jsonl").write_text("")
        entry, records = (
            cell.stages[-1].mixture["out"],
            [{"texts": TEXTS}] * cell.stages[-1].mixture["out"].replay.records,
        )
        assert len(entry.directions()) == 1
        (run / "replay").mkdir()
        (run / "replay" / "pairs.out.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
        tiny_tokenizer().save(run / "tokenizer")
        return 0, came.pop(0) if came else 0

    return train_one


def test_a_sweep_runs_each_once_and_goes_on(tmp_path, monkeypatch):
    path, out, trained = tmp_path / "sweep.yaml", tmp_path / "sweep", []
    path.write_text(yaml.safe_dump(config(tmp_path).model_dump(mode="json")), "utf-8")
    monkeypatch.setattr(runs, "_train", fake_training(trained, [0, 143], []))
    monkeypatch.setattr(command, "refuse_other_base", list)  # there is none
    arguments = [str(path), "--languages", "deu_Latn,ell_Grek", "--pairs", "10,20", "--output", str(out)]
    with pytest.raises(Stopped) as error:
        main(arguments)
    assert error.value.exit_code == 143
    assert {row["language"] for row in table(out)} == {"deu_Latn"}
    main(arguments)
    first, second, *rest = [f"{language}-{pairs}-0" for pairs in (10, 20) for language in LANGUAGES]
    assert trained == [first, second, second, *rest]
    found = [(row["language"], row["pairs"], row["task"]) for row in table(out)]
    assert found == [
        (language, pairs, task)
        for size in ("10", "20")
        for language in LANGUAGES
        for pairs in (["0", "10"] if size == "10" else ["20"])
        for task in ("phrases.eng_Latn-*", "diary.eng_Latn")
    ]
    similarity = {row["language"]: row["similarity"] for row in table(out)}
    assert 0.5 < float(similarity["deu_Latn"]) < 1
    assert float(similarity["ell_Grek"]) < float(similarity["deu_Latn"])
    main(arguments)
    assert len(trained) == 5
    with pytest.raises(ConfigError, match="deu_Latn-10-0 of another configuration"):
        main([*arguments, "train.optimizer.peak_lr=0.1"])


@pytest.mark.slow
def test_runs_of_other_sizes_take_their_programs_from_the_first(tmp_path):
    """In processes of their own, from a run that they all branch from."""
    given = config(tmp_path, eval={**CONFIG["eval"], "tasks": TASKS}).model_dump(mode="json")
    given["train"]["held_out_documents"], given["stages"][1] = (
        0,
        given["stages"][1] | {"steps": "auto", "epochs": 1},
    )
    base = {**given, "run": given["run"] | {"folder": str(tmp_path / "base"), "branch_from": ""}}
    base |= {"stages": given["stages"][:1], "eval": given["eval"] | {"tasks": []}}
    for name, content in (("base", base), ("sweep", given)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), "utf-8")
    train(tmp_path / "base.yaml")
    main(
        [
            str(tmp_path / "sweep.yaml"),
            "--languages",
            "deu_Latn",
            "--pairs",
            "40,80",
            "--seeds",
            "0,3",
            "--output",
            str(tmp_path / "out"),
        ]
    )
    compiled = {}
    for pairs in (40, 80):
        run = tmp_path / "out" / "runs" / f"deu_Latn-{pairs}-0"
        programs = json.loads((run / "goodput.json").read_text())["starts"][-1]["compiled"]
        compiled[pairs] = [one for one in programs if (one["purpose"], one["stage"]) == ("step", "pairs")]
    (first,), (second,) = compiled[40], compiled[80]
    assert first["cached"] < first["programs"]
    assert second["cached"] == second["programs"]
    steps = {
        json.loads(line)["step"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if "loss" in line
    }
    assert max(steps) > 2 + 3  # the runs differ in length
    assert {row["seed"] for row in table(tmp_path / "out") if row["pairs"] == "80"} == {"0", "3"}
    repeat = json.loads((tmp_path / "out/runs/deu_Latn-40-3/provenance.json").read_text())["repeat"]
    assert repeat.endswith(f"run.branch_from={tmp_path / 'base'}")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    return rows


def test_a_public_base_is_evaluated_once_for_each_language(tmp_path):
    given = config(tmp_path)
    model = given.model.model_copy(update={"init": "huggingface", "path": "owner/model"})
    run = given.run.model_copy(update={"branch_from": ""})
    given = given.model_copy(update={"model": model, "run": run, "stages": given.stages[1:]})
    cells = cells_of(given, LANGUAGES, [10, 20], [0], tmp_path)
    assert [cell.config.eval.base_model for cell in cells] == [True, True, False, False]


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """A sweep with another command line each time; what was trained; the signals that come meanwhile."""
    path, trained, came = tmp_path / "sweep.yaml", [], []
    out = {**STAGE["mixture"]["out"], "direction": "eng_Latn-deu_Latn"}
    monkeypatch.setattr(runs, "_train", fake_training(trained, [], came))
    monkeypatch.setattr(command, "refuse_other_base", list)

    def sweep(pairs: str, seeds: str, *more: str, **changed: int) -> None:
        stage = {**STAGE, "mixture": STAGE["mixture"] | {"out": out | changed}}
        given = config(tmp_path, stages=[config(tmp_path).stages[0].model_dump(), stage])
        path.write_text(yaml.safe_dump(given.model_dump(mode="json")), "utf-8")
        asked = ["--languages", "deu_Latn", "--pairs", pairs, "--seeds", seeds]
        main([str(path), *asked, "--output", str(tmp_path / "sweep"), *more])

    return sweep, trained, came


def test_a_sweep_may_grow_and_its_table_has_all(swept, tmp_path):
    sweep, trained, _ = swept
    for pairs, seeds in (("20", "0"), ("10,20", "0"), ("20", "1")):
        sweep(pairs, seeds)
    assert trained == ["deu_Latn-20-0", "deu_Latn-10-0", "deu_Latn-20-1"]
    found = [(row["seed"], row["pairs"]) for row in table(tmp_path / "sweep")]
    assert found == [(*one,) for one in (("0", "0"), ("0", "10"), ("0", "20"), ("1", "20")) for _ in TASKS]
    with pytest.raises(ConfigError, match="of another configuration"):
        sweep("40", "0", "train.optimizer.peak_lr=0.1")


def test_a_stop_that_came_when_the_training_was_at_its_end_is_not_lost(swept, tmp_path):
    sweep, trained, came = swept
    came.append(15)
    with pytest.raises(Stopped) as error:
        sweep("10,20", "0")
    assert error.value.exit_code == 143
    assert (trained, len(table(tmp_path / "sweep"))) == (["deu_Latn-10-0"], 2 * len(TASKS))


@pytest.mark.parametrize(("limit", "there"), [("auto", "\\d+"), (15, "15")])
def test_more_pairs_than_there_are_are_told_before_the_first_run(swept, tmp_path, limit, there):
    sweep, trained, _ = swept
    with pytest.raises(DataError, match=rf"given; source has {there} training records here"):
        sweep("10,20,30000" if limit == "auto" else "10,20", "0", limit=limit)
    assert not trained


def test_a_signal_goes_to_the_training_and_is_kept(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with runs._passed_on(child) as came:
        os.kill(os.getpid(), signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
    assert came == [signal.SIGTERM]


def test_similarity_is_left_out_where_pairs_are_of_different_sources(tmp_path):
    one = {"pairs": 10, "seed": 0, "language": "deu_Latn", "similarity": 0.5, "scores": [{"pairs": 10}]}
    for sources, shown in ((["a"], ["0.5", "0.5"]), (["b"], ["", ""])):
        other = one | {"language": "ell_Grek", "sources": sources}
        runs._write_table(tmp_path, {"a": one | {"sources": ["a"]}, "b": other})
        assert [row["similarity"] for row in table(tmp_path)] == shown
    cell = cells_of(config(tmp_path), LANGUAGES, [10], [0], tmp_path)[0]
    assert sources_of(cell) == ["phrases"]


@pytest.mark.parametrize("known", [None, 0.0])
def test_similarity_stands_for_all_languages_or_none(tmp_path, known):
    one = {"pairs": 10, "seed": 0, "language": "deu_Latn", "similarity": 0.5, "scores": [{"pairs": 10}]}
    for other, shown in ((0.25, ["0.5", "0.25"]), (known, ["", ""])):
        runs._write_table(tmp_path, {"a": one, "b": one | {"language": "ell_Grek", "similarity": other}})
        assert [row["similarity"] for row in table(tmp_path)] == shown
