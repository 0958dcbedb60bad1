"""`python -m jaxlingua.analysis responses` on predictions as an evaluation writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from jaxlingua.analysis.intervals import newcombe_paired
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
    run: Path,
    evaluation: str,
    tasks: dict[str, list[dict]],
    kinds: dict[str, str] | None = None,
    is_parallel: dict[str, bool] | None = None,
) -> Path:
    home = run / "evals" / evaluation
    home.mkdir(parents=True, exist_ok=True)
    for task, lines in tasks.items():
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines)
        (home / f"{task}.jsonl").write_text(text, "utf-8", errors="backslashreplace")
    if kinds is not None:
        content = {"scores": [], "tasks": {task: {"kind": kind} for task, kind in kinds.items()}}
        for task, flag in (is_parallel or {}).items():
            content["tasks"][task]["is_parallel"] = flag
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


def test_changes_are_against_the_first_evaluation_alone(tmp_path):
    """What the base was not asked has no change, though an earlier checkpoint has it."""
    asked = {"chat.eng_Latn": [line("1", "eng_Latn", ENGLISH)]}
    asked_later = asked | {"mail.eng_Latn": [line("1", "eng_Latn", ENGLISH)]}
    later = {task: [line("1", "eng_Latn", "so it is")] for task in asked_later}
    write(tmp_path, "base-0", asked)
    write(tmp_path, "one-5", asked_later)
    write(tmp_path, "two-9", later)
    content = told(tmp_path)
    assert content["changes_against"] == "base-0"
    assert measure(content, "words", "two-9", "chat.eng_Latn")["change"] == -11
    for name in ("one-5", "two-9"):
        assert "change" not in measure(content, "words", name, "mail.eng_Latn")
    text = (tmp_path / "analysis/responses/responses.md").read_text("utf-8")
    assert "Changes are against base-0, and told where it was asked the same items." in text


def test_a_change_between_shares_of_0_and_1_has_an_interval_with_width(tmp_path):
    """Newcombe's of pairs; in one of words it is that of resamples."""
    loop = "so on and so on and so on and so on and"

    def lines(unfinished: int, prediction: str) -> dict[str, list[dict]]:
        of = [line(str(n), "eng_Latn", prediction, is_finished=n >= unfinished) for n in range(10)]
        return {"chat.eng_Latn": of}

    write(tmp_path, "base-0", lines(0, ENGLISH))
    write(tmp_path, "one-5", lines(10, loop))
    write(tmp_path, "two-9", lines(5, ENGLISH))
    content = told(tmp_path)

    def change(name: str, evaluation: str) -> tuple[float, ...]:
        row = measure(content, name, evaluation, "chat.eng_Latn")
        return row["change"], row["change_low"], row["change_high"]

    assert change("unfinished", "one-5") == pytest.approx((1, 0.6075, 1), abs=5e-5)  # Newcombe 1998, table II
    assert change("loops", "two-9") == pytest.approx((0, -0.2775, 0.2775), abs=5e-5)
    assert change("loops", "one-5") == pytest.approx((1, 0.6075, 1), abs=5e-5)
    assert change("unfinished", "two-9") == pytest.approx((0.5, *newcombe_paired(0, 5, 0, 5)))
    assert change("copied", "one-5") == pytest.approx((-1, -1, -0.6075), abs=5e-5)
    assert change("words", "one-5") == (-2, -2, -2)


def test_a_change_of_a_share_that_no_item_changes_has_width_too(tmp_path):
    lines = [line(str(n), "eng_Latn", ENGLISH, is_finished=n >= 5) for n in range(20)]
    for name in ("base-0", "one-5"):
        write(tmp_path, name, {"chat.eng_Latn": lines})
    row = measure(told(tmp_path), "unfinished", "one-5", "chat.eng_Latn")
    assert row["change"] == 0
    assert (row["change_low"], row["change_high"]) == pytest.approx(newcombe_paired(5, 0, 0, 15))
    assert row["change_high"] > 0.05


def test_a_language_under_another_of_its_codes_is_the_one_that_was_asked(tmp_path):
    said = {
        "fil_Latn": "Magandang umaga sa inyong lahat, kumusta kayo ngayong araw na ito?",
        "ekk_Latn": "Täna on väga ilus ilm ja me läheme jõe äärde jalutama.",
    }
    tasks = {f"chat.{code}": [line("1", code, text)] for code, text in said.items()}
    tasks["chat.zho_Hant"] = [line("1", "zho_Hant", "明天天气很好，我们会去河边散步。", "")]
    write(tmp_path, "base-0", tasks)
    content = told(tmp_path)
    for code in said:
        row = measure(content, "asked_language", "base-0", f"chat.{code}")
        assert (row["value"], row["of_targets"]) == (1, 1)
        assert {code: 1} in [row["counts"] for row in content["languages"]]
    assert measure(content, "asked_language", "base-0", "chat.zho_Hant")["value"] == 0


def test_loops_of_targets_are_not_told_where_there_are_none(tmp_path):
    open_ended = [line(str(n), "eng_Latn", ENGLISH, targets=[]) for n in range(2)]
    write(tmp_path, "base-0", {"chat.eng_Latn": open_ended})
    content = told(tmp_path)
    assert {row["of_targets"] for row in content["measures"]} == {None}


def test_the_transcript_of_a_judge_is_no_prediction(tmp_path):
    home = write(tmp_path, "base-0", {"chat.eng_Latn": [line("1", "eng_Latn", ENGLISH)]})
    (home / "judge.jsonl").write_text('{"key": "ab12", "request": {"model": "x"}, "reply": "8"}\n')
    content = told(tmp_path)
    assert {row["task"] for row in content["measures"]} == {"chat.eng_Latn"}


@pytest.mark.parametrize(
    ("name", "flag", "is_compared"),
    [
        ("mine", True, True),
        ("mine", False, False),
        ("mine", None, False),  # nothing tells
        ("xnli", None, True),  # as the task file says, where scores.json is of an older version
        ("xnli", False, False),
        ("nusaparagraph_topic", None, False),
        ("belebele", None, False),
    ],
)
def test_items_are_joined_in_parallel_sets_alone(tmp_path, capsys, name, flag, is_compared):
    """Row numbers of NusaParagraph are of other texts in each language."""
    tasks = {
        f"{name}.{of}": [line(str(n), of, "yes", choices=["yes", "no"]) for n in range(5)]
        for of in ("jav_Latn", "sun_Latn", "min_Latn")
    }
    flags = {} if flag is None else dict.fromkeys(tasks, flag)
    write(tmp_path, "base-0", tasks, dict.fromkeys(tasks, "choice"), flags)
    content = told(tmp_path)
    assert bool(content["agreement"]) is is_compared
    reason = f"{name}: not compared across languages, since an id is not known to name the same question"
    assert (reason in content["agreement_note"]) is not is_compared
    assert (reason in capsys.readouterr().out) is not is_compared


def test_items_and_pairs_that_are_left_out_of_agreement_are_told_in_words(tmp_path, capsys):
    wanted = {
        "eng_Latn": ["1848", *"abcd"],
        "deu_Latn": ["1848", *"efgh"],
        "hin_Deva": ["१९", *"ijkl"],
    }
    tasks = {
        f"xquad.{of}": [line(str(n), of, "1848", target) for n, target in enumerate(targets)]
        for of, targets in wanted.items()
    }
    tasks["xquad.ell_Grek"] = [line("x", "ell_Grek", "1848")]
    write(tmp_path, "base-0", tasks, dict.fromkeys(tasks, "qa"))
    content = told(tmp_path)
    text = (tmp_path / "analysis/responses/responses.md").read_text("utf-8").replace("\\", "")
    out = capsys.readouterr().out
    assert "xquad.deu_Latn and xquad.eng_Latn: agreement, 1 of 5 items" in text
    assert "xquad.deu_Latn and xquad.eng_Latn: agreement 1.000 (1 of 5 items)" in out
    for said in (text, out, content["agreement_note"]):
        assert (
            "xquad.deu_Latn and xquad.hin_Deva: agreement is not defined, since none of 5 items has the same "
            "target in both." in said
        )
        assert (
            "xquad.deu_Latn and xquad.ell_Grek: agreement is not defined, since no item is in both." in said
        )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("scores.json", '{"tasks": []}'),
        ("scores.json", "[]"),
        ("scores.json", '{"tasks": {"chat.eng_Latn": null}}'),
        ("scores.json", '{"tasks": {"chat.eng_Latn": {"kind": 3}}}'),
        ("scores.json", '{"tasks": '),
        ("scores.json", "\xff"),
        ("chat.eng_Latn.jsonl", {"choices": None}),
        ("chat.eng_Latn.jsonl", {"choices": [1, 2]}),
        ("chat.eng_Latn.jsonl", {"targets": [None]}),
        ("chat.eng_Latn.jsonl", {"targets": "one"}),
        ("chat.eng_Latn.jsonl", {"new_tokens": "9"}),
        ("chat.eng_Latn.jsonl", {"is_finished": "no"}),
        ("chat.eng_Latn.jsonl", {"id": 1}),
        ("chat.eng_Latn.jsonl", "null is no prediction"),
        ("chat.eng_Latn.jsonl", "[1]"),
        ("chat.eng_Latn.jsonl", "\xff\xfe{}"),
        (
            "nothing.jsonl",
            '{"id": "1", "language": "eng_Latn", "prompt": "", "prediction": "", "targets": []}',
        ),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, file, content):
    home = write(tmp_path, "base-0", {"chat.eng_Latn": [line("1", "eng_Latn", ENGLISH)]})
    text = content if isinstance(content, str) else json.dumps(line("1", "eng_Latn", ENGLISH, **content))
    (home / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=file) as refused:
        main([str(tmp_path)])
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "half \ud83d of a character", "\x00", "\u200b", " \n" * 40, "1" * 5000])
def test_any_text_may_be_an_answer(tmp_path, text):
    write(tmp_path, "base-0", {"chat.eng_Latn": [line("1", "eng_Latn", text, ENGLISH, choices=[])]})
    file = tmp_path / "evals/base-0/chat.eng_Latn.jsonl"
    assert measure(told(tmp_path), "unfinished", "base-0", file.stem)["value"] == 0


def test_empty_folders_and_files_hold_no_predictions(tmp_path):
    home = write(tmp_path, "base-0", {"chat.eng_Latn": []})
    (tmp_path / "evals" / "other-²").mkdir()
    (home / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match="no predictions there"):
        main([str(tmp_path)])


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
    with pytest.raises(DataError, match=r"chat\.eng_Latn\.jsonl:1: damaged \(prompt: Field required"):
        main([str(tmp_path)])
    file.write_text(whole + whole.replace("eng_Latn", "deu_Latn"), "utf-8")
    with pytest.raises(DataError, match="answers in eng_Latn, deu_Latn; one task in one language"):
        main([str(tmp_path)])
    for arguments, message in (
        ([str(tmp_path / "none")], "RUN: .* given; a folder on this machine is needed"),
        ([str(tmp_path), "--samples", "0"], "--samples: '0' given; a number above 0"),
        ([str(tmp_path), "--samples", "²"], "--samples: '²' given; a number above 0"),
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
