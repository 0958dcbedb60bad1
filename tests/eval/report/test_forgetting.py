"""The forgetting matrix: every number against the published formula, every interval against a brute-force one."""

import csv
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import CHRF
from scipy.stats import binomtest

from jaxlingua.config import EvalConfig
from jaxlingua.errors import DataError
from jaxlingua.eval.metrics.measured import mean_of
from jaxlingua.eval.metrics.translation import translation_metrics
from jaxlingua.eval.report import write_report
from jaxlingua.eval.report.forgetting import forgetting
from jaxlingua.eval.report.groups import make_groups
from jaxlingua.eval.report.resampled import answered_in, exchange_p_values, resampled, values_of
from jaxlingua.eval.significance import difference
from tests.eval.report.staged_run import LEARNED, STAGES, STEPS, TASKS, write_staged_run
from tests.eval.report.test_pages import Page

ABILITIES = {"english questions": ["quiz.eng_Latn"]}
NAMES = ["base", "greek", "thai", "hebrew"]
LEARNED_IN = {"ell_Grek": 1, "tha_Thai": 2, "heb_Hebr": 3}
SAMPLES, SEED = 500, 3  # as the made-up signatures tell


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = write_staged_run(tmp_path_factory.mktemp("staged") / "staged_run", abilities=ABILITIES)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def told(run) -> dict:
    return json.loads((run / "report.json").read_text("utf-8"))["forgetting"]


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page((run / "report.html").read_text("utf-8"))


@functools.cache
def lines_of(run: Path, task: str) -> list[list[dict]]:
    """Row → the predictions of a task."""
    homes = [run / "evals" / f"{name}-{row * STEPS}" for row, name in enumerate(NAMES)]
    return [[json.loads(line) for line in (home / f"{task}.jsonl").open()] for home in homes]


def value_by_hand(task: str, lines: list[dict]) -> float:
    """The score of some predictions, by sacreBLEU or as a mean."""
    if task.startswith("news"):
        texts, targets = [line["prediction"] for line in lines], [line["targets"][0] for line in lines]
        return CHRF(word_order=2).corpus_score(texts, [targets]).score
    if task.startswith("talk"):
        lines = [line for line in lines if not line["undecided"]]
        return sum(line["off_target"] for line in lines) / len(lines)
    return sum(line["f1"] for line in lines) / len(lines)


def matrix_by_hand(run: Path, tasks: list[str], chosen=None) -> np.ndarray:
    """R[i][j], over all items or over those of one resample."""
    columns = []
    for task in tasks:
        rows = lines_of(run, task)
        picked = range(len(rows[0])) if chosen is None else chosen
        columns.append([value_by_hand(task, [lines[item] for item in picked]) for lines in rows])
    return np.array(columns).T


def numbers_by_hand(matrix: np.ndarray, learned: list[int]) -> dict[str, float]:
    """Lopez-Paz and Ranzato 2017 and Chaudhry et al. 2018, with T stages in rows 1 … T and the base in row 0."""
    last = len(matrix) - 1
    old = [j for j, stage in enumerate(learned) if stage < last]
    backward = [matrix[last, j] - matrix[learned[j], j] for j in old]
    best = [max(matrix[i, j] for i in range(learned[j], last)) for j in old]
    ahead = [j for j, stage in enumerate(learned) if stage > 1]
    return {
        "average": sum(matrix[last]) / len(learned),
        "backward_transfer": sum(backward) / len(old),
        "forgetting": sum(-change if change < 0 else 0 for change in backward) / len(old),
        "drop_from_best": sum(top - matrix[last, j] for top, j in zip(best, old, strict=True)) / len(old),
        "cost_of_last_stage": sum(matrix[last, j] - matrix[last - 1, j] for j in old) / len(old),
        "forward_transfer": sum(matrix[learned[j] - 1, j] - matrix[0, j] for j in ahead) / len(ahead),
    }


def line_of(told: dict, measure: str, metric: str) -> dict:
    (line,) = [one for one in told["summary"] if (one["measure"], one["metric"]) == (measure, metric)]
    return line


TASKS_OF = {
    "f1": [f"quiz.{code}" for code in LEARNED],
    "chrf++": [f"news.eng_Latn-{code}" for code in LEARNED],
}


# ── numbers ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("metric", ["f1", "chrf++"])
def test_the_summary_is_that_of_the_published_formulas(run, told, metric):
    learned = [LEARNED_IN[task[-8:]] for task in TASKS_OF[metric]]
    wanted = numbers_by_hand(matrix_by_hand(run, TASKS_OF[metric]), learned)
    for measure, value in wanted.items():
        line = line_of(told, measure, metric)
        assert line["value"] == pytest.approx(value, abs=2e-4), measure  # scores are written with four digits
        assert (line["left_out"], line["reasons"]) == (0, [])
    assert line_of(told, "average", metric)["cells"] == 3
    assert line_of(told, "backward_transfer", metric)["cells"] == 2
    assert line_of(told, "forgetting", metric)["items"] == 80


def test_forgetting_and_the_drop_from_the_best_differ_where_a_later_stage_was_better(tmp_path):
    """Learned at 50, at 80 after another stage, 60 in the end: gained 10 since learned, 20 below the best.

    What a language had before it was learned is not forgotten by these measures.
    """
    told = told_of(
        values={"quiz.ell_Grek": (10.0, 50.0, 80.0, 60.0), "quiz.tha_Thai": (90.0, 70.0, 50.0, 30.0)}
    )
    assert line_of(told, "backward_transfer", "f1")["value"] == pytest.approx((10 - 20) / 2)
    assert line_of(told, "forgetting", "f1")["value"] == pytest.approx(20 / 2)
    assert line_of(told, "drop_from_best", "f1")["value"] == pytest.approx((20 + 20) / 2)
    assert line_of(told, "forgetting", "f1")["lost"] == 1
    assert line_of(told, "drop_from_best", "f1")["lost"] == 2


def test_of_a_metric_that_is_better_low_a_rise_is_a_loss(told):
    column = next(one for one in told["columns"] if one["task"] == "talk.ell_Grek")
    then, now = column["cells"]["greek"]["value"], column["cells"]["hebrew"]["value"]
    assert now > then
    assert column["cells"]["hebrew"]["change"] == pytest.approx(then - now)
    assert line_of(told, "backward_transfer", "off_target")["value"] == pytest.approx(then - now)
    assert line_of(told, "forgetting", "off_target")["value"] == pytest.approx(now - then)
    best = min(column["cells"][name]["value"] for name in ("greek", "thai"))
    assert line_of(told, "drop_from_best", "off_target")["value"] == pytest.approx(now - best)
    assert line_of(told, "average", "off_target")["value"] == pytest.approx(now)


def test_unseen_languages_and_old_abilities_are_held_against_the_base_model(run, told):
    for measure, task in (("unseen_transfer", "quiz.urd_Arab"), ("ability", "quiz.eng_Latn")):
        first, *_, last = matrix_by_hand(run, [task])[:, 0]
        line = line_of(told, measure, "f1")
        assert line["value"] == pytest.approx(last - first, abs=2e-4)
        assert (line["before"], line["after"]) == (
            pytest.approx(first, abs=1e-4),
            pytest.approx(last, abs=1e-4),
        )
        assert line["tasks"] == [task]
        column = next(one for one in told["columns"] if one["task"] == task)
        assert column["since"] == "base"
        assert [cell["against"] for cell in column["cells"].values()] == ["", "base", "base", "base"]
    assert line_of(told, "ability", "f1")["ability"] == "english questions"


def test_an_ability_in_a_language_that_a_stage_learns_counts_from_the_base_model():
    values = {"quiz.ell_Grek": (40.0, 30.0, 20.0, 10.0), "quiz.tha_Thai": (0.0, 0.0, 50.0, 50.0)}
    told = told_of(values=values, abilities={"old greek": ["quiz.ell_Grek"]})
    assert line_of(told, "ability", "f1")["value"] == -30.0
    assert line_of(told, "average", "f1")["tasks"] == ["quiz.tha_Thai"]
    assert told["columns"][-1]["group"] == "old ability: old greek"
    assert [cell["against"] for cell in told["columns"][-1]["cells"].values()] == ["", "base", "base", "base"]


def test_abilities_and_groups_that_an_evaluation_gives_count_instead_of_those_of_the_folder(tmp_path):
    folder = write_staged_run(tmp_path / "run", items=4, abilities=ABILITIES)
    asked = EvalConfig(abilities={"urdu": ["quiz.urd_Arab"]}, groups={"mine": ["urd_Arab"]})
    report = write_report(folder, asked)
    assert line_of(report["forgetting"], "ability", "f1")["ability"] == "urdu"
    assert report["groups"] == asked.groups
    report = write_report(folder)
    assert line_of(report["forgetting"], "ability", "f1")["ability"] == "english questions"


def test_different_metrics_are_never_in_one_mean(told):
    for line in told["summary"]:
        metrics = {column["metric"] for column in told["columns"] if column["task"] in line["tasks"]}
        assert metrics == {line["metric"]}


def test_what_is_only_replayed_is_not_learned(run, told):
    """Hebrew's stage shows Greek again by replay, and an entry of its own name would be another thing."""
    data = json.loads((run / "data.json").read_text())
    assert any(row["entry"] == "replay.greek.text_ell" for row in data["stages"][2]["mixture"])
    assert {one["language"]: one["learned"] for one in told["columns"] if one["column"] == "quiz"} == {
        "ell_Grek": "greek", "tha_Thai": "thai", "heb_Hebr": "hebrew", "urd_Arab": None, "eng_Latn": None,
    }  # fmt: skip
    stages = [{"name": name, "steps": 1, "mixture": []} for name in ("a", "b")]
    for entry, learned in (("replay.a.x", None), ("replay.c.x", "b"), ("replay", "b")):
        stages[1]["mixture"] = [{"entry": entry, "language": "ell_Grek"}]
        scores = [score_of(name, step, 1.0, "quiz.ell_Grek") for name, step in (("a", 1), ("b", 2))]
        assert forgetting(scores, stages)["columns"][0]["learned"] == learned, entry


@pytest.mark.parametrize(
    ("first", "second", "learned"),
    [
        # Each of four tasks: German and Indonesian from English, then into English.
        (("deu_Latn", "eng_Latn"), ("ind_Latn", "eng_Latn"), ("a", "b", "a", "b")),
        (("eng_Latn", "deu_Latn"), ("eng_Latn", "ind_Latn"), ("a", "b", "a", "b")),
        # The direction itself comes before the language on another side.
        (("deu_Latn", "eng_Latn"), ("eng_Latn", "deu_Latn"), ("b", None, "a", None)),
        (("deu_Latn", "ind_Latn"), ("ind_Latn", "eng_Latn"), ("a", "a", "a", "b")),
    ],
)
def test_translations_are_learned_with_their_direction_or_else_with_their_language(first, second, learned):
    codes = ["eng_Latn-deu_Latn", "eng_Latn-ind_Latn", "deu_Latn-eng_Latn", "ind_Latn-eng_Latn"]
    stages = [
        {
            "name": name,
            "steps": 1,
            "mixture": [{"entry": "x", "language": target}],
            "directions": [
                {"entry": "x", "source": "tha_Thai", "target": target},
                {"entry": "x", "source": source, "target": target},
                {"entry": "not shown", "source": "jav_Latn", "target": target},
            ],
        }
        for name, (source, target) in (("a", first), ("b", second))
    ]
    scores = [
        {**score_of(name, step, 1.0, f"news.{code}"), "kind": "translation"}
        for name, step in (("a", 1), ("b", 2))
        for code in codes
    ]
    scores += [score_of(name, step, 1.0, "quiz.eng_Latn") for name, step in (("a", 1), ("b", 2))]
    told = {one["task"]: one for one in forgetting(scores, stages)["columns"]}
    assert tuple(told[f"news.{code}"]["learned"] for code in codes) == learned
    answers = [first[1], second[1]]  # questions are learned with answers in their language
    assert told["quiz.eng_Latn"]["learned"] == dict(zip(answers[::-1], "ba", strict=True)).get("eng_Latn")
    groups = make_groups({}, stages, ["deu_Latn", "ind_Latn", "eng_Latn", "jav_Latn"])
    assert groups["unseen"] == [code for code in ("ind_Latn", "jav_Latn") if code not in (*first, *second)]


def test_runs_that_were_described_without_directions_learned_what_they_answered_in():
    stages = [{"name": name, "steps": 1, "mixture": []} for name in ("a", "b")]
    stages[0]["mixture"] = [{"entry": "x", "language": "eng_Latn"}]
    stages[1]["mixture"] = [{"entry": "x", "language": "deu_Latn"}]
    codes = ("eng_Latn-deu_Latn", "deu_Latn-eng_Latn", "ind_Latn-eng_Latn")
    scores = [score_of(name, n, 1.0, f"news.{code}") for n, name in enumerate("ab", 1) for code in codes]
    scores = [{**score, "kind": ""} for score in scores]
    told = {one["task"]: one["learned"] for one in forgetting(scores, stages)["columns"]}
    assert told == {f"news.{code}": stage for code, stage in zip(codes, ("b", "b", None), strict=True)}


# ── intervals and tests ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("metric", ["f1", "chrf++"])
def test_intervals_of_means_are_those_of_a_brute_force_bootstrap(run, told, metric):
    """All cells draw the same items in each resample, in all rows."""
    rng = np.random.default_rng([SEED, 40])
    learned = [LEARNED_IN[task[-8:]] for task in TASKS_OF[metric]]
    samples = 500 if metric == "f1" else 6
    found = [
        numbers_by_hand(matrix_by_hand(run, TASKS_OF[metric], rng.integers(40, size=40)), learned)
        for _ in range(samples)
    ]
    if metric == "chrf++":  # sacreBLEU is slow: its numbers are those of the first resamples
        scores = json.loads((run / "report.json").read_text())["scores"]
        own = [one for one in scores if one["task"] in TASKS_OF[metric] and one["metric"] == metric]
        measured = {
            (one["task"], one["stage"]): answered_in(run, one).measured
            for one in own
            if one["stage"] in NAMES
        }
        drawn = resampled(measured, samples, SEED)
        matrices = np.array([[drawn[task, name] for task in TASKS_OF[metric]] for name in NAMES])
        for place, wanted in enumerate(found):
            assert numbers_by_hand(matrices[:, :, place], learned) == pytest.approx(wanted)
        return
    for measure in found[0]:
        low, high = np.percentile([one[measure] for one in found], [2.5, 97.5])
        line = line_of(told, measure, metric)
        assert (line["low"], line["high"]) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3)), (
            measure
        )


def test_the_interval_of_a_cell_is_that_of_the_paired_bootstrap(run, told):
    for task, metric in (
        ("quiz.ell_Grek", "f1"),
        ("news.eng_Latn-ell_Grek", "chrf++"),
        ("talk.ell_Grek", "off_target"),
    ):
        column = next(one for one in told["columns"] if one["task"] == task)
        scores = json.loads((run / "report.json").read_text())["scores"]
        now, then = (
            next(one for one in scores if (one["stage"], one["task"], one["metric"]) == (stage, task, metric))
            for stage in ("hebrew", "greek")
        )
        wanted = difference(
            *(answered_in(run, one).measured for one in (now, then)), samples=SAMPLES, seed=SEED
        )
        low, high = (wanted.low, wanted.high) if metric != "off_target" else (-wanted.high, -wanted.low)
        cell = column["cells"]["hebrew"]
        assert (cell["change_low"], cell["change_high"]) == (pytest.approx(low), pytest.approx(high))
        assert (cell["p_value"] is None) == (metric == "off_target")  # whose items are chosen by the answers


def test_p_values_are_those_of_exact_exchanges():
    """Of items that are right or wrong the exchanges are coins: 9 of 10 changes to one side."""
    right = [1.0] * 9 + [0.0] + [1.0] * 20
    before = [0.0] * 9 + [1.0] + [1.0] * 20
    pair = (mean_of("f1", right, ""), mean_of("f1", before, ""))
    (found,) = exchange_p_values({"cell": [pair]}, 20_000, 0).values()
    assert found == pytest.approx(binomtest(9, 10).pvalue, abs=4 * (0.02 / 20_000) ** 0.5)
    same = exchange_p_values({"cell": [(pair[0], pair[0])]}, 100, 0)
    assert same == {"cell": 1.0}


def test_of_several_prompts_the_means_are_compared_and_resampled(tmp_path):
    """Both answers to an item move together: two equal prompts tell no more than one of them."""
    pair = (mean_of("f1", [1.0] * 6 + [0.0] * 4, ""), mean_of("f1", [0.0] * 10, ""))
    one, two = (exchange_p_values({"cell": [pair] * n}, 2000, 0)["cell"] for n in (1, 2))
    assert one == two < 0.05


def test_p_values_are_adjusted_over_the_whole_matrix(told):
    cells = [cell for one in told["columns"] for cell in one["cells"].values() if cell["p_value"] is not None]
    assert told["tests"] == len(cells) > 10
    ranked = sorted(cells, key=lambda cell: cell["p_value"])
    largest = 0.0
    for rank, cell in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * cell["p_value"]))
        assert cell["p_holm"] == pytest.approx(largest)


def test_chrf_of_many_sums_is_that_of_each(run):
    texts, targets = ["the river", "", "a b c", "stone"], [["the rivers"], ["x"], ["a b c"], ["wood"]]
    (chrf,) = [one for one in translation_metrics(texts, targets, "deu_Latn") if one.metric == "chrf++"]
    sums = np.concatenate([chrf.statistics, [chrf.statistics.sum(axis=0), 0 * chrf.statistics[0]]])
    assert values_of(chrf, sums) == pytest.approx([chrf.of_sums(row) for row in sums], abs=1e-9)


def test_forgetting_lies_in_its_interval_where_chance_lifts_all_resamples(tmp_path):
    """Twelve tasks, in each as many items gained as lost: nothing is forgotten, every resample forgets."""
    values = {f"q{n}.ell_Grek": (0.0, 50.0, 50.0) for n in range(12)}
    halves = [100.0 * (n % 2) for n in range(20)]

    def answered(score):
        flip = score["stage"] == "thai"
        items = [100.0 - one for one in halves] if flip else halves
        return Found(tuple(map(str, range(20))), mean_of("f1", [one / 100 for one in items], ""))

    from jaxlingua.eval.report.resampled import Answered as Found

    told = told_of(values=values, answered=answered, stages=STAGES[:2])
    line = line_of(told, "forgetting", "f1")
    assert line["value"] == 0.0
    assert line["low"] == 0.0 < line["high"]


# ── what is not there, or not alike ───────────────────────────────────────────────────────────────────────


def score_of(
    stage: str, step: int, value: float, task: str, *, signature: str = "metric:f1", prompt="english.0"
) -> dict:
    return {
        "stage": stage, "step": step, "model": "base" if stage == "base" else "tuned", "task": task,
        "language": task[-8:], "metric": "f1", "value": value, "low": value - 1, "high": value + 1, "items": 10,
        "signature": signature, "prompt": prompt, "kind": "qa",
    }  # fmt: skip


def told_of(*, values, stages=STAGES, signatures=None, **options) -> dict | None:
    """Of values by task, one for each row; None where it was not evaluated."""
    names = ["base", *(name for name, _ in stages)]
    scores = [
        score_of(name, row * STEPS, value, task, signature=(signatures or {}).get((task, name), "metric:f1"))
        for task, of_rows in values.items()
        for row, (name, value) in enumerate(zip(names, of_rows, strict=True))
        if value is not None
    ]
    told = [
        {"name": name, "steps": STEPS, "mixture": [{"entry": "x", "language": code} for code in codes]}
        for name, codes in stages
    ]
    return forgetting(scores, told, **options)


def test_a_task_that_was_added_later_has_no_cells_before_and_is_left_out_with_the_reason():
    values = {"quiz.ell_Grek": (None, None, 60.0, 40.0), "quiz.tha_Thai": (10.0, None, 70.0, 60.0)}
    told = told_of(values={**values, "quiz.urd_Arab": (1.0, 1.0, 1.0, 1.0)})
    greek, thai, _ = told["columns"]
    assert list(greek["cells"]) == ["thai", "hebrew"]
    assert greek["cells"]["hebrew"]["change"] is None
    assert greek["cells"]["hebrew"]["reason"] == "not evaluated after stage greek"
    assert thai["cells"]["hebrew"]["change"] == -10.0
    line = line_of(told, "backward_transfer", "f1")
    assert (line["value"], line["cells"], line["left_out"]) == (-10.0, 1, 1)
    assert line["reasons"] == ["not evaluated after stage greek"]
    assert line_of(told, "average", "f1")["value"] == 50.0
    ahead = line_of(told, "forward_transfer", "f1")  # Thai after stage greek was not evaluated
    assert (ahead["value"], ahead["cells"], ahead["left_out"]) == (None, 0, 1)
    assert ahead["sentence"] == "Nothing can be told: not evaluated after stage greek."


def test_scores_of_another_signature_are_not_compared():
    values = {"quiz.ell_Grek": (0.0, 60.0, 50.0, 40.0)}
    told = told_of(values=values, signatures={("quiz.ell_Grek", "greek"): "metric:f1|prompt:other"})
    cells = told["columns"][0]["cells"]
    assert [cells[name]["change"] for name in ("thai", "hebrew")] == [None, None]
    assert cells["hebrew"]["reason"] == "prompt: 'other' and none"
    assert line_of(told, "backward_transfer", "f1")["value"] is None


def test_without_predictions_or_with_those_of_other_scores_there_is_no_interval(tmp_path):
    folder = write_staged_run(tmp_path / "run", tasks=("quiz.ell_Grek", "quiz.tha_Thai"), items=8)
    scores = [
        one
        for file in sorted(folder.glob("evals/*/scores.json"))
        for one in json.loads(file.read_text())["scores"]
    ]
    score = next(one for one in scores if (one["stage"], one["task"]) == ("greek", "quiz.ell_Grek"))
    file = folder / "evals" / "greek-100" / "quiz.ell_Grek.jsonl"
    assert answered_in(folder, score).measured.value == pytest.approx(score["value"], abs=1e-4)
    file.write_text("".join(file.open().readlines()[:-1]))
    assert answered_in(folder, score) is None
    told = write_report(folder)["forgetting"]
    line = line_of(told, "backward_transfer", "f1")
    assert (line["low"], line["cells"]) == (None, 2)
    assert line["sentence"].endswith(
        "No interval: the predictions behind some scores are not there or cannot be resampled."
    )
    assert line_of(told, "average", "f1")["low"] is not None  # of the last stage alone
    file.unlink()
    assert answered_in(folder, score) is None
    file.write_text("{")
    with pytest.raises(DataError, match=rf"{file}:1: damaged"):
        write_report(folder)


def test_what_was_counted_in_translations_is_kept_until_they_change(tmp_path, monkeypatch):
    """Counting n-grams takes most of the time of a report."""
    folder = write_staged_run(tmp_path / "run", tasks=("news.eng_Latn-ell_Grek",), items=6)
    first = write_report(folder)["forgetting"]
    counted = []

    def counting(texts, *rest):
        counted.append(len(texts))
        return translation_metrics(texts, *rest)

    monkeypatch.setattr("jaxlingua.eval.report.resampled.translation_metrics", counting)
    assert write_report(folder)["forgetting"] == first
    assert set(counted) == {1}  # none of the predictions
    file = folder / "evals" / "greek-100" / "news.eng_Latn-ell_Grek.jsonl"
    file.write_text(file.read_text().replace('"prediction": "the', '"prediction": "xxx'))
    assert line_of(write_report(folder)["forgetting"], "backward_transfer", "chrf++")["low"] is None
    (file.parent / ".news.eng_Latn-ell_Grek.chrf++.npz").write_bytes(b"PK damaged")
    counted.clear()
    write_report(folder)
    assert sorted(counted) == [1, 1, 1, 6]


def test_one_stage_has_no_matrix_and_two_have_no_drop_from_the_best(tmp_path):
    assert told_of(values={"quiz.ell_Grek": (1.0, 2.0)}, stages=STAGES[:1]) is None
    told = told_of(values={"quiz.ell_Grek": (1.0, 2.0, 3.0)}, stages=STAGES[:2])
    assert [line["measure"] for line in told["summary"]] == ["average", "backward_transfer", "forgetting"]
    assert told["summary"][0]["sentence"].startswith("After stage thai the learned")
    folder = write_staged_run(tmp_path / "run", tasks=("quiz.ell_Grek",), stages=STAGES[:1], items=4)
    assert write_report(folder)["forgetting"] is None
    assert 'id="forgetting"' not in (folder / "report.html").read_text("utf-8")
    assert not (folder / "forgetting.csv").exists()


def test_a_row_within_a_stage_says_how_many_steps_are_left():
    stages = [{"name": name, "steps": 100, "mixture": []} for name in ("greek", "thai")]
    scores = [score_of("greek", 100, 1.0, "quiz.ell_Grek"), score_of("thai", 130, 1.0, "quiz.ell_Grek")]
    scores += [score_of("thai", 120, 5.0, "quiz.ell_Grek")]
    told = forgetting(scores, stages)
    assert [(row["name"], row["step"], row["steps_left"]) for row in told["rows"]] == [
        ("base", 0, 0), ("greek", 100, 0), ("thai", 130, 70),
    ]  # fmt: skip
    assert told["columns"][0]["cells"]["thai"]["value"] == 1.0


def test_pages_say_that_the_last_stage_is_not_at_its_end(tmp_path):
    folder = write_staged_run(tmp_path / "run", tasks=("quiz.ell_Grek",), items=4)
    data = json.loads((folder / "data.json").read_text())
    data["stages"][2]["steps"] = 1 + 3 * STEPS
    (folder / "data.json").write_text(json.dumps(data))
    told = write_report(folder)["forgetting"]
    sentence = line_of(told, "average", "f1")["sentence"]
    assert sentence.startswith("After 100 of 301 steps of stage hebrew the learned languages have ")
    page, markdown, tex = ((folder / f"report.{kind}").read_text("utf-8") for kind in ("html", "md", "tex"))
    assert "quiz.ell_Grek, f1, after 100 of 301 steps of stage hebrew: " in page
    assert "quiz.ell_Grek, f1, after stage thai: " in page
    assert " thai | hebrew: 100 of 301 steps |" in markdown
    assert "\nthai & " in tex
    assert "\nhebrew: 100 of 301 steps & " in tex


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────────────


def matrix_table(page: Page) -> list[list[dict]]:
    (table,) = [
        one for one in page.tables if one[0] and one[0][-1]["text"] == "old ability: english questions"
    ]
    return table


def test_the_page_shows_each_cell_with_its_change_mark_color_and_interval(run, page, told):
    head, names, *rows = matrix_table(page)
    assert [cell["text"] for cell in head[1:]] == [
        "learned in greek", "learned in thai", "learned in hebrew", "learned in no stage", "old ability: english questions",
    ]  # fmt: skip
    assert [row[0]["text"] for row in rows] == NAMES
    stars = 0
    for place, column in enumerate(told["columns"], start=1):
        assert column["metric"] in names[place]["text"]
        for row, name in zip(rows, NAMES, strict=True):
            shown, cell = row[place], column["cells"][name]
            assert shown["text"].startswith(f"{cell['value']:.1f}")
            assert ("learned" in shown["class"].split()) == (name == column["learned"])
            if cell["change"] is None:
                assert "+" not in shown["text"]
                assert "−" not in shown["text"]
                continue
            assert f"{abs(cell['change']):.1f}" in shown["text"]
            if abs(cell["change"]) > 0.05:
                assert shown["class"].split()[0] == ("gain" if cell["change"] > 0 else "loss")
            assert shown["text"].endswith("*") == (cell["p_holm"] is not None and cell["p_holm"] < 0.05)
            stars += shown["text"].endswith("*")
            assert f"{abs(cell['change_high']):.1f}]" in shown["title"]
    assert 0 < stars < told["tests"]
    assert "no star and not pale: not tested" in (run / "report.html").read_text("utf-8")


def test_the_summary_has_a_row_and_a_sentence_per_measure(page, told):
    (table,) = [one for one in page.tables if one[0][-1]["text"] == "in words"]
    for row, line in zip(table[1:], told["summary"], strict=True):
        assert row[1]["text"] == line["metric"]
        assert f"{abs(line['value']):.1f}" in row[2]["text"]
        assert row[-1]["text"] == line["sentence"]
        size = f"{abs(line['value']):.1f}"
        assert size in line["sentence"]
    backward = line_of(told, "backward_transfer", "f1")
    assert "lost" in backward["sentence"]
    assert backward["sentence"].endswith("The interval leaves out 0.")
    ahead = line_of(told, "forward_transfer", "f1")
    assert ahead["low"] < 0 < ahead["high"]
    assert ahead["sentence"].endswith("The interval holds 0.")
    assert not any(re.search(r"(within|more than) chance", line["sentence"]) for line in told["summary"])


def test_a_curve_per_task_over_the_stages_with_a_ring_where_it_was_learned(run, page, told):
    text = (run / "report.html").read_text("utf-8")
    for column in told["columns"]:
        for name, cell in column["cells"].items():
            value = f"{cell['value']:.1f}" if cell["value"] >= 10 else f"{cell['value']:.3g}"
            value = f"{cell['value']:,.0f}" if float(cell["value"]).is_integer() else value
            assert f": {value} at {name}</title>" in text, column["task"]
    assert text.count('r="6"/>') == sum(column["learned"] is not None for column in told["columns"])
    assert "Scores over checkpoints" not in text  # they are the same points
    assert (page.outside, page.scripts) == ([], 0)


def test_many_tasks_are_several_tables_and_stay_a_page(tmp_path):
    stages = [(f"stage_{n}", (code,)) for n, code in enumerate((*LEARNED, "deu_Latn", "jav_Latn", "zho_Hans", "hin_Deva", "arb_Arab"))]  # fmt: skip
    tasks = [f"quiz{n}.{codes[0]}" for _, codes in stages for n in range(3)]
    folder = write_staged_run(tmp_path / "run", stages=stages, tasks=tasks, items=6)
    told = write_report(folder)["forgetting"]
    tables = [
        one for one in Page((folder / "report.html").read_text("utf-8")).tables
        if one[0] and one[0][-1]["text"].startswith("learned in stage")
    ]  # fmt: skip
    assert sum(len(table[1]) - 1 for table in tables) == len(tasks) == len(told["columns"])
    assert all(len(table[1]) <= 11 and len(table) == 2 + 9 for table in tables)
    groups = [cell["text"] for table in tables for cell in table[0][1:]]
    assert len(groups) == len(set(groups)) == 8  # no group is torn


def test_a_hostile_name_of_a_stage_is_shown_as_it_is(tmp_path):
    name = '<b>x</b>|"{{7}}"'
    values = {"quiz.ell_Grek": (1.0, 2.0, 3.0)}
    told = told_of(values=values, stages=[(name, ("ell_Grek",)), ("thai", ("tha_Thai",))])
    assert told["rows"][1]["name"] == name
    told = told_of(values=values, stages=[("greek", ("ell_Grek",)), ("LAO & Thai", ("tha_Thai",))])
    assert told["summary"][0]["sentence"].startswith("After stage LAO & Thai the learned")
    folder = write_staged_run(tmp_path / "run", stages=STAGES[:2], tasks=("quiz.ell_Grek",), items=4)
    for file in (folder / "data.json", *folder.glob("evals/*/scores.json")):
        file.write_text(file.read_text().replace('"greek"', json.dumps(name)))
    write_report(folder)
    text = (folder / "report.html").read_text("utf-8")
    assert "<b>x</b>" not in text
    assert "{{7}}" in text


def test_csv_and_latex_hold_the_matrix(run, told):
    lines = list(csv.DictReader((run / "forgetting.csv").open(newline="")))
    assert len(lines) == len(NAMES) * len(TASKS)
    for line in lines:
        column = next(one for one in told["columns"] if one["task"] == line["task"])
        cell = column["cells"][line["row"]]
        assert float(line["value"]) == cell["value"]
        assert line["change"] == ("" if cell["change"] is None else repr(cell["change"]))
    tex = (run / "report.tex").read_text("utf-8")
    assert "tab:forgetting-1" in tex
    assert "tab:forgetting-2" in tex
    greek = next(one for one in told["columns"] if one["task"] == "quiz.ell_Grek")["cells"]["greek"]["value"]
    assert rf"\textbf{{{greek:.1f}}}" in tex
    value = line_of(told, "backward_transfer", "f1")["value"]
    assert re.search(rf"backward transfer & f1 & \$-\${abs(value):.1f} ", tex)


def test_markdown_has_the_matrix_and_the_summary(run, told):
    text = (run / "report.md").read_text("utf-8")
    for line in told["summary"]:
        assert line["sentence"].split(" (")[0].replace("_", r"\_")[:30] in text.replace("\\_", r"\_")
    greek = next(one for one in told["columns"] if one["task"] == "quiz.ell_Grek")["cells"]
    assert f"**{greek['greek']['value']:.1f}**" in text
    assert f"{greek['hebrew']['value']:.1f} (−{abs(greek['hebrew']['change']):.1f}" in text
