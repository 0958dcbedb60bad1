"""`python -m jaxlingua.analysis responses` on predictions as an evaluation writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from jaxlingua.analysis.responses.command import main
from jaxlingua.analysis.responses.read import read_evaluations
from jaxlingua.errors import ConfigError, DataError

GERMAN = "Das Wetter wird morgen schön, und wir gehen alle zusammen an den Fluss."
ENGLISH = "The weather will be fine tomorrow, and we shall all walk to the river."


def line(name: str, language: str, prediction: str, target: str = "", **changes) -> dict:
    return {
        "id": name, "language": language, "prompt": f"Translate: {ENGLISH}", "prediction": prediction,
        "targets": [target or prediction], "new_tokens": 9, "is_finished": True, "cut_prompt_tokens": 0, **changes,
    }  # fmt: skip


def write(
    run: Path, evaluation: str, tasks: dict[str, list[dict]], kinds: dict[str, str] | None = None
) -> Path:
    home = run / "evals" / evaluation
    home.mkdir(parents=True, exist_ok=True)
    for task, lines in tasks.items():
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines)
        (home / f"{task}.jsonl").write_text(text, "utf-8")
    if kinds is not None:
        content = {"scores": [], "tasks": {task: {"kind": kind} for task, kind in kinds.items()}}
        (home / "scores.json").write_text(json.dumps(content))
    return home


def told(run: Path) -> dict:
    main([str(run), "--samples", "200"])
    content = json.loads((run / "analysis" / "responses" / "responses.json").read_text("utf-8"))
    assert (run / "analysis" / "responses" / "responses.md").read_text("utf-8").startswith("# Responses\n")
    return content


def measure(content: dict, name: str, evaluation: str, task: str) -> dict:
    return next(
        row
        for row in content["measures"]
        if (row["measure"], row["evaluation"], row["task"]) == (name, evaluation, task)
    )


def agreement(content: dict, name: str) -> dict:
    return next(row for row in content["agreement"] if row["measure"] == name)


def test_a_base_that_answers_in_english_and_a_model_that_does_not(tmp_path, capsys):
    task = "news.eng_Latn-deu_Latn"
    before = [line(str(n), "deu_Latn", ENGLISH, GERMAN) for n in range(8)]
    before += [line("8", "deu_Latn", "", GERMAN), line("9", "deu_Latn", "ja", GERMAN)]
    after = [line(str(n), "deu_Latn", GERMAN) for n in range(10)]
    write(tmp_path, "coit-40", {task: after}, {task: "translation"})
    write(tmp_path, "base-0", {task: before}, {task: "translation"})
    content = told(tmp_path)
    assert content["evaluations"] == ["base-0", "coit-40"]
    counts = {row["evaluation"]: row["counts"] for row in content["languages"]}
    assert counts["base-0"] == {"eng_Latn": 8, "empty": 1, "too short": 1}
    assert counts["coit-40"] == counts["targets"] == {"deu_Latn": 10}
    assert {(row["question_language"], row["asked_language"]) for row in content["languages"]} == {
        ("eng_Latn", "deu_Latn")
    }
    asked = measure(content, "asked_language", "coit-40", task)
    assert (measure(content, "asked_language", "base-0", task)["value"], asked["value"], asked["change"]) == (
        0,
        1,
        1,
    )
    assert asked["of_targets"] == 1
    assert measure(content, "copied", "base-0", task)["value"] == pytest.approx(
        88 / 89
    )  # 8 × 11 runs, and "ja"
    assert measure(content, "copied", "coit-40", task)["value"] == 0
    assert measure(content, "length_ratio", "coit-40", task)["value"] == 1
    assert "Agreement is not defined: all answers are in one language, deu_Latn." in capsys.readouterr().out


def test_loops_lengths_and_answers_that_do_not_end_are_counted_with_intervals(tmp_path):
    loop = "so on and so on and so on and so on and"
    lines = [
        line(str(n), "eng_Latn", loop if n < 5 else ENGLISH, ENGLISH, is_finished=n >= 5) for n in range(20)
    ]
    write(tmp_path, "base-0", {"chat.eng_Latn": lines}, {"chat.eng_Latn": "open"})
    content = told(tmp_path)
    for name in ("loops", "unfinished"):
        row = measure(content, name, "base-0", "chat.eng_Latn")
        assert row["value"] == 0.25
        assert 0 < row["low"] < 0.25 < row["high"] < 0.6
    repeated = measure(content, "repeated_4grams", "base-0", "chat.eng_Latn")
    assert repeated["value"] == pytest.approx(5 * 6 / (5 * 9 + 15 * 11))
    assert repeated["of_targets"] == 0
    assert measure(content, "words", "base-0", "chat.eng_Latn")["value"] == (5 * 12 + 15 * 14) / 20


def test_choices_agree_as_cohens_kappa_says(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.array(["yes", "no", "maybe"])
    one = rng.integers(3, size=60)
    other = np.where(rng.random(60) < 0.6, one, rng.integers(3, size=60))
    tasks = {
        f"xnli.{language}": [
            line(str(n), language, labels[of], choices=list(labels)) for n, of in enumerate(chosen)
        ]
        for language, chosen in (("eng_Latn", one), ("deu_Latn", other))
    }
    tasks["xnli.deu_Latn"] = tasks["xnli.deu_Latn"][::-1]  # joined by id
    write(tmp_path, "base-0", tasks, dict.fromkeys(tasks, "choice"))
    content = told(tmp_path)
    kappa = agreement(content, "kappa")
    assert kappa["value"] == pytest.approx(cohen_kappa_score(one, other))
    assert kappa["low"] < kappa["value"] < kappa["high"]
    assert agreement(content, "agreement")["value"] == pytest.approx((one == other).mean())
    assert content["languages"] == []  # labels are in no language
    assert content["measures"] == []


def test_kappa_of_one_and_the_same_answer_is_not_defined(tmp_path):
    tasks = {
        f"xnli.{of}": [line(str(n), of, "yes", choices=["yes", "no"]) for n in range(5)]
        for of in ("eng_Latn", "deu_Latn")
    }
    write(tmp_path, "base-0", tasks)
    content = told(tmp_path)
    assert agreement(content, "kappa")["value"] is None
    assert agreement(content, "agreement")["value"] == 1


def test_spans_are_compared_where_both_languages_have_the_same_target(tmp_path):
    """A name that is written in two ways is left out; digits may be those of any script."""
    english = [
        ("a", "In 1848", "1848"),
        ("b", "the Nile", "Nile"),
        ("c", "two", "2"),
        ("d", "7", "7"),
        ("e", "", "9"),
    ]
    hindi = [("a", "में", "१८४८"), ("b", "नील", "नील"), ("c", "2", "२"), ("d", "७", "७"), ("e", "", "9")]
    tasks = {
        f"xquad.{language}": [line(name, language, said, wanted) for name, said, wanted in of]
        for language, of in (("eng_Latn", english), ("hin_Deva", hindi))
    }
    write(tmp_path, "base-0", tasks, dict.fromkeys(tasks, "qa"))
    row = agreement(told(tmp_path), "agreement")
    assert (row["items"], row["left_out"]) == (4, 1)
    assert row["value"] == 0.25  # d alone; two empty answers are no agreement


def test_numbers_agree_by_what_they_are_worth(tmp_path):
    said = {"eng_Latn": ["It is 1,000.", "so 5", "none"], "deu_Latn": ["also 1.000", "also 6", "keine"]}
    tasks = {
        f"mgsm.{of}": [line(str(n), of, text, "1") for n, text in enumerate(texts)]
        for of, texts in said.items()
    }
    write(tmp_path, "base-0", tasks, dict.fromkeys(tasks, "number"))
    assert agreement(told(tmp_path), "agreement")["value"] == pytest.approx(1 / 3)


def test_changes_are_told_only_for_the_same_items(tmp_path):
    task = "chat.eng_Latn"
    write(tmp_path, "base-0", {task: [line("1", "eng_Latn", ENGLISH), line("2", "eng_Latn", "a b")]})
    write(tmp_path, "one-5", {task: [line("1", "eng_Latn", "a"), line("2", "eng_Latn", "a b")]})
    write(tmp_path, "two-9", {task: [line("1", "eng_Latn", "a"), line("3", "eng_Latn", "a b")]})
    content = told(tmp_path)
    assert measure(content, "words", "one-5", task)["change"] == -6.5
    assert "change" not in measure(content, "words", "two-9", task)


def test_one_evaluation_may_be_given_and_one_that_goes_on_is_passed_over(tmp_path):
    home = write(tmp_path, "base-0", {"chat.eng_Latn": [line("1", "eng_Latn", ENGLISH)]})
    (home / "unfinished.jsonl").write_text('{"model": "x"}\n{"asked": "y", "pred')
    said = []
    (name,) = read_evaluations(home, said.append)
    assert name == "base-0"
    assert said == [f"{home}/unfinished.jsonl: an evaluation that has not come to its end; passed over"]


def test_what_cannot_be_told_is_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"no predictions there; .* run python -m jaxlingua\.eval first"):
        main([str(tmp_path)])
    home = write(tmp_path, "base-0", {"chat.eng_Latn": [line("1", "eng_Latn", ENGLISH)]})
    file = home / "chat.eng_Latn.jsonl"
    whole = file.read_text("utf-8")
    file.write_text(whole + whole[: len(whole) // 2], "utf-8")
    with pytest.raises(DataError, match=r"chat\.eng_Latn\.jsonl:2: damaged"):
        main([str(tmp_path)])
    file.write_text(whole.replace('"prompt"', '"asked_so"'), "utf-8")
    with pytest.raises(DataError, match=r"chat\.eng_Latn\.jsonl:1: no prediction \(prompt is missing"):
        main([str(tmp_path)])
    file.write_text(whole + whole.replace("eng_Latn", "deu_Latn"), "utf-8")
    with pytest.raises(DataError, match="answers in eng_Latn, deu_Latn; one task in one language"):
        main([str(tmp_path)])
    for arguments, message in (
        ([str(tmp_path / "none")], "RUN: .* given; a folder on this machine is needed"),
        ([str(tmp_path), "--samples", "0"], "--samples: '0' given; a number above 0"),
        ([str(tmp_path), "--output", str(file)], "--output: .* is no folder"),
        ([str(tmp_path), "two"], "one RUN is needed"),
    ):
        with pytest.raises(ConfigError, match=message):
            main(arguments)


def test_help_tells_its_own_options_alone(capsys):
    for arguments, code in (([], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == code
        told = capsys.readouterr().out
        assert told.startswith(
            "usage: python -m jaxlingua.analysis responses RUN [--output FOLDER] [--samples SAMPLES]\n"
        )
        assert "key=value" not in told
