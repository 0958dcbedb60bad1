"""What a table of scores may hold."""

from pathlib import Path

import numpy as np
import pytest

from jaxlingua.analysis.scaling.table import is_higher_better, read_similarity, read_table, select
from jaxlingua.errors import ConfigError, DataError

HEADER = "language,pairs,seed,task,metric,value"
ROWS = [
    f"{code},{pairs},{seed},flores.eng_Latn-{code},bleu,{value + seed / 10}"
    for code, start in (("jav_Latn", 10), ("deu_Latn", 20))
    for pairs, value in ((0, 1), (1000, start), (2000, start + 3), (4000, start + 5))
    for seed in (1, 2)
]


def write(folder: Path, rows: list[str], header: str = HEADER, name: str = "table.csv") -> str:
    (folder / name).write_text("\n".join([header, *rows, ""]), "utf-8")
    return str(folder / name)


def test_scores_of_one_metric_are_selected(tmp_path):
    path = write(tmp_path, [*ROWS, "jav_Latn,1000,1,flores.eng_Latn-jav_Latn,loss,2.5"])
    scores = select(read_table(path), path, "bleu")
    assert scores.task == "flores.eng_Latn-*"
    assert (len(scores.points.score), len(scores.base), scores.seeds) == (12, 4, 2)
    assert scores.points.languages == ("jav_Latn", "deu_Latn")
    assert scores.points.pairs.min() == 1000
    assert scores.is_higher_better
    assert not scores.is_similarity_measured
    assert list(scores.points.similarity) == [1, 1]


def test_a_task_may_be_named_as_the_table_or_as_the_law_does(tmp_path):
    path = write(tmp_path, [*ROWS, *(row.replace("flores", "ntrex") for row in ROWS)])
    rows = read_table(path)
    for task in ("ntrex.eng_Latn-deu_Latn", "ntrex.eng_Latn-*"):
        assert select(rows, path, task=task).task == "ntrex.eng_Latn-*"


def test_several_tasks_or_metrics_are_listed(tmp_path):
    path = write(tmp_path, [*ROWS, *(row.replace("flores", "ntrex").replace("bleu", "ter") for row in ROWS)])
    rows = read_table(path)
    with pytest.raises(ConfigError, match=r"--task: .* flores.eng_Latn-\*, ntrex.eng_Latn-\*"):
        select(rows, path)
    with pytest.raises(ConfigError, match="--task: 'flores' given; known: flores"):
        select(rows, path, task="flores")
    path = write(tmp_path, [*ROWS, *(row.replace("bleu", "ter") for row in ROWS)])
    with pytest.raises(ConfigError, match="--metric: not given, and the table has several: bleu, ter"):
        select(read_table(path), path)
    with pytest.raises(ConfigError, match="--metric: 'blue' given; did you mean 'bleu'"):
        select(read_table(path), path, "blue")


def test_similarity_comes_from_the_table_or_from_a_file(tmp_path):
    with_factor = [f"{row},{0.8 if row.startswith('jav') else 0.9}" for row in ROWS]
    path = write(tmp_path, with_factor, f"{HEADER},similarity")
    rows = read_table(path)
    scores = select(rows, path)
    np.testing.assert_array_equal(scores.points.similarity, [0.8, 0.9])
    assert scores.points.log_effective[0] == pytest.approx(np.log(800))
    given = read_similarity(write(tmp_path, ["jav_Latn,0.5", "deu_Latn,2"], "language,similarity", "g.csv"))
    assert list(select(rows, path, similarity=given).points.similarity) == [0.5, 2]
    with pytest.raises(DataError, match="--similarity: no similarity of deu_Latn"):
        select(rows, path, similarity={"jav_Latn": 0.5})
    path = write(tmp_path, [*with_factor[:-1], f"{ROWS[-1]},"], f"{HEADER},similarity")
    with pytest.raises(
        DataError, match=r"table.csv:17: deu_Latn has no similarity, and other lines have one"
    ):
        select(read_table(path), path)
    path = write(tmp_path, [*with_factor[:-1], f"{ROWS[-1]},0.7"], f"{HEADER},similarity")
    with pytest.raises(DataError, match=r"table.csv:17: similarity 0.7 of deu_Latn, which was 0.9 above"):
        select(read_table(path), path)
    for value in ("0", "-1", "nan", "near"):
        path = write(tmp_path, [f"jav_Latn,{value}"], "language,similarity", "g.csv")
        with pytest.raises(DataError, match="g.csv:2: similarity .* are allowed|a finite number is needed"):
            read_similarity(path)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("jav_Latn,1000,1,t,bleu,nan", "table.csv:3: value 'nan' given; a finite number is needed"),
        ("jav_Latn,1000,1,t,bleu,inf", "value 'inf' given"),
        ("jav_Latn,1000,1,t,bleu,", "value '' given"),
        ("jav_Latn,1000,1,t,bleu,good", "value 'good' given"),
        ("jav_Latn,-1,1,t,bleu,3", "table.csv:3: pairs '-1' given; whole numbers from 0 to 10"),
        ("jav_Latn,1.5,1,t,bleu,3", "pairs '1.5' given"),
        ("jav_Latn,1e16,1,t,bleu,3", "pairs '1e16' given; whole numbers from 0 to 10"),
        ("jav_Latn,many,1,t,bleu,3", "pairs 'many' given; a finite number is needed"),
        ("jav,1000,1,t,bleu,3", "table.csv:3: unknown language 'jav'; write 'jav_Latn'"),
        ("jav_Latn,1000,1,,bleu,3", "table.csv:3: task is empty"),
        ("jav_Latn,1000,1,t,bleu", "table.csv:3: 5 cells, and the header has 6"),
        ("jav_Latn,500,1,t,bleu,7", "table.csv:3: the same language, pairs, seed, task and metric as line 2"),
        ('jav_Latn,1000,1,t,bleu,"3', "table.csv:3: not CSV"),
    ],
)  # fmt: skip
def test_a_line_that_is_wrong_is_named(row, told, tmp_path):
    with pytest.raises(DataError, match=told):
        read_table(write(tmp_path, ["jav_Latn,500,1,t,bleu,3", row]))


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="no column 'value' in the header"):
        read_table(write(tmp_path, ROWS, HEADER.replace("value", "score")))
    with pytest.raises(DataError, match="no column 'language' in the header"):
        read_table(write(tmp_path, [row.replace(",", ";") for row in ROWS], HEADER.replace(",", ";")))
    with pytest.raises(DataError, match="a header and no score"):
        read_table(write(tmp_path, []))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="empty.csv: empty; a CSV file with the columns language, pairs"):
        read_table(str(tmp_path / "empty.csv"))
    (tmp_path / "latin.csv").write_bytes(f"{HEADER}\njav_Latn,1,1,caf".encode() + b"\xe9,bleu,2\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        read_table(str(tmp_path / "latin.csv"))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (ROWS[:4] + ROWS[8:], "jav_Latn has scores at 1,000 pairs alone"),
        (ROWS[:2] + ROWS[8:], "jav_Latn has no score at more than 0 pairs"),
        (
            [",".join([*row.split(",")[:-1], "5"]) for row in ROWS],
            "the scores of each language are all equal",
        ),
    ],
)
def test_scores_that_no_law_can_be_fitted_to_are_refused(rows, told, tmp_path):
    path = write(tmp_path, rows)
    with pytest.raises(DataError, match=told):
        select(read_table(path), path)


def test_which_way_is_better_is_told_by_the_evaluation_and_else_by_the_name():
    higher = ("bleu", "chrf++", "comet", "accuracy", "chrf_character", "acc_norm", "judge_win_rate")
    assert [is_higher_better(name) for name in higher] == [True] * len(higher)
    lower = (
        *("off_target", "loss", "held_out_loss", "bits_per_byte", "TER", "perplexity", "wer", "error_rate"),
        *("nll", "ppl", "cross_entropy", "MetricX-24", "judge_loss"),
    )
    assert [is_higher_better(name) for name in lower] == [False] * len(lower)
    assert [is_higher_better(name) for name in ("undecided", "length")] == [None, None]
