"""`python -m jaxlingua.analysis values` on a run of seconds, and on answers that are there already."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxlingua.analysis.values import command, gather
from jaxlingua.analysis.values.answers import Answer, write_answers
from jaxlingua.analysis.values.command import main
from jaxlingua.analysis.values.measure import FROZEN, Learning, Table, check_measurable, measure, texts_of
from jaxlingua.analysis.values.pictures import colors_of, draw_map, markers_of
from jaxlingua.analysis.values.questions import PIVOT, SETS, held_out, our_questions
from jaxlingua.analysis.values.report import summary_lines, write_report
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.generate.asking import Asker
from jaxlingua.progress import told
from tests.flow.small import CONFIG, train, write_config

SMALL = ("--lambda", "1,2", "--steps", "10", "eval.bootstrap_samples=50", "generate.max_new_tokens=6", "sharding.mesh.data=8")  # fmt: skip
LANGUAGES = "eng_Latn,ell_Grek"
LEARNING = Learning(mosts=(3,), steps=60, seed=0, masks_same_class=False, samples=50)


# ── measured, without a model ─────────────────────────────────────────────────────────────────────────────


def made_answers(classes: tuple[tuple[str, str], ...]) -> list[Answer]:
    return [
        Answer(model, language, question.id, "a", f"{model} {language} {question.id}")
        for question in our_questions()
        for model, language in classes
    ]


CLASSES = tuple((model, language) for model in ("base", "tuned") for language in (PIVOT, "jav_Latn"))


def made_vectors(answers: list[Answer], moved: dict[str, float]) -> np.ndarray:
    """What a question is about, what a class has, and how far the tuned model moved each set."""
    rng = np.random.default_rng(0)
    about = {question.id: rng.normal(size=16) for question in our_questions()}
    of_language = {language: 2 * rng.normal(size=16) for language in (PIVOT, "jav_Latn")}
    way = rng.normal(size=16)
    sets = {question.id: question.set for question in our_questions()}
    rows = [
        about[one.question]
        + of_language[one.language]
        + (one.model == "tuned") * moved[sets[one.question]] * way
        + 0.5 * rng.normal(size=16)
        for one in answers
    ]
    return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def measured() -> tuple:
    answers = made_answers(CLASSES)
    vectors = made_vectors(answers, {"values": 3.0, "facts": 0.5, "neutral": 0.0})
    return measure(answers, our_questions(), vectors, LEARNING, lambda what: told(lambda line: None, what))


def of(rows: list[dict], **wanted: str) -> list[dict]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_what_was_moved_is_told_to_have_moved_more_than_the_controls(measured):
    content, _, _ = measured
    for language in (PIVOT, "jav_Latn"):
        rows = of(content["shifts"], vectors=FROZEN, language=language)
        by = {row["set"]: row for row in rows}
        assert list(by) == list(SETS)
        assert by["values"]["low"] > by["values"]["noise"]
        assert by["neutral"]["value"] < by["neutral"]["noise"] * 1.5
        for control in ("facts", "neutral"):
            assert by[control]["values_more_by"]["low"] > 0
        assert by["values"]["values_more_by"] is None
        assert by["values"]["questions"] == 20


def test_every_score_of_values_has_both_controls_beside(measured):
    content, _, _ = measured
    rows = content["identification"]
    scores = {
        name: {(row["vectors"], row["told"], row["method"], row["measure"]) for row in of(rows, set=name)}
        for name in SETS
    }
    assert scores["values"] == scores["facts"] == scores["neutral"]
    assert {row["told"] for row in rows} == {"model and language", "language"}
    (one,) = of(rows, set="values", vectors=FROZEN, told="model and language", method="probe", measure="accuracy@1")  # fmt: skip
    (beside,) = of(rows, set="neutral", vectors=FROZEN, told="model and language", method="probe", measure="accuracy@1")  # fmt: skip
    assert one["value"] > 0.9 > 0.7 > beside["value"]  # where the models are alike
    assert of(rows, set="neutral", told="language", method="probe", vectors=FROZEN)[0]["value"] > 0.9


def test_pages_and_console_tell_values_and_controls_alike(measured, tmp_path):
    content, vectors, table = measured
    content = content | {
        "encoded_by": {"model": "base", "layer": 1, "cut": 3},
        "pivot": {"language": PIVOT, "untranslated": ["base · jav_Latn"]},
        "translation_problems": {},
    }
    content["classes"] = [
        row | {"pivots": {"equal": 7, "other_language": 8, "empty": 9}} if row["language"] != PIVOT else row
        for row in content["classes"]
    ]
    write_report(tmp_path, content, vectors, table)
    assert json.loads((tmp_path / "values.json").read_text("utf-8")) == json.loads(json.dumps(content))
    page, text = ((tmp_path / name).read_text("utf-8") for name in ("values.html", "values.md"))
    console = "\n".join(summary_lines(content))
    row = next(row for row in content["identification"] if row["measure"] == "accuracy@1")
    for told_in in (page, text.replace("\\", ""), console):
        for name in SETS:
            assert told_in.count(name) >= 4
        assert f"{100 * row['value']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})" in told_in
        assert "Not translated into English are answers of base · jav_Latn: such answers are told" in told_in
        assert "Longer than base reads, and cut: 3 of 560 answers." in told_in
        assert "base · jav_Latn: 7 equal to the answer, 8 in another language and 9 empty of 140" in told_in
    for told_in in (page, text):
        assert "of F1 what guessing in proportion to their shares gets" in told_in
    assert page.count("<svg") == 1
    assert "control: facts" in page
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    for row in content["distances"]:
        np.testing.assert_allclose(np.diag(np.array(row["cosines"])), 1, atol=1e-5)


@pytest.mark.parametrize("count", [1, 8, 9, 25])
def test_no_two_languages_have_a_color_and_no_two_models_a_shape_alike(count):
    names = [f"n{place}" for place in range(count)]
    for looks in (colors_of(names), markers_of(names)):
        assert list(looks) == names
        assert len(set(looks.values())) == count


def test_a_map_of_nine_languages_and_nine_models_tells_each_in_its_legend():
    answers = [
        Answer(f"m{place}", f"l{place}", question, "a", "a")
        for question in ("power-1", "facts-1", "neutral-1")
        for place in range(9)
    ]
    table = Table(answers, our_questions(), 0)
    table.is_test[:] = True
    figure = draw_map(np.eye(len(answers), 4, dtype=np.float32), table, "λ = 1")
    handles = figure.legends[0].legend_handles
    assert len({(one.get_color(), one.get_marker()) for one in handles}) == 18


def test_answers_of_one_class_and_too_few_of_them_are_refused():
    with pytest.raises(DataError, match=r"answers of one class given \(base · eng_Latn\)"):
        check_measurable(made_answers(CLASSES[:1]), our_questions(), LEARNING)
    many = Learning(mosts=(1, 41), steps=1, seed=0, masks_same_class=False, samples=9)
    with pytest.raises(
        DataError, match="--lambda: 41 given, and base · eng_Latn has 40 answers to learn from"
    ):
        check_measurable(made_answers(CLASSES[:2]), our_questions(), many)


# ── the command line ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/b", "--output", "o"], "--languages: not given; those to ask in are needed"),
        (["a/b", "--output", "o", "--languages", "english"], "--languages: unknown language 'english'; write"),
        (["a/b", "--output", "o", "--languages", ","], "--languages: ',' given; codes such as"),
        (["a/b", "--output", "o", "--languages", LANGUAGES], "--languages: ell_Grek given, in which 140 questions have no wording"),
        (["--output", "o", "--languages", LANGUAGES], "no MODEL … given; it is needed"),
        (["a/b", "--output", "o", "--languages", PIVOT, "--lambda", "0"], "--lambda: '0' given; numbers above 0"),
        (["a/b", "--output", "o", "--languages", PIVOT, "--lambda", "1,x"], "--lambda: '1,x' given"),
        (["a/b", "--output", "o", "--languages", PIVOT, "--samples", "0"], "--samples: '0' given; a number from 1"),
        (["a/b", "--output", "o", "--languages", PIVOT, "--steps", "x"], "--steps: 'x' given"),
        (["a/b", "--output", "o", "--languages", PIVOT, "--samples", "2", "generate.temperature=0"], "--samples: 2 given, and generate.temperature=0"),
        (["a/b", "--output", "o", "--languages", PIVOT, "--mask-same-class", "yes"], "--mask-same-class: 'yes' given; true and false"),
        (["a/b", "--output", "o", "--languages", PIVOT, "--format", "csv"], "--format: 'csv' given; text and json"),
        (["a/b", "c/d", "--output", "o", "--answers", "f"], "--answers: given with 2 models; none of them is asked"),
        (["a/b", "--output", "o", "--answers", "f", "--encode", "c/d"], "--answers: given with 1 models and --encode"),
        (["generate.temperature=0.5", "--output", "o", "--answers", "f"], "--answers: given without a MODEL; one is needed"),
        (["generate.temperature=0.5", "--output", "o", "--languages", PIVOT], "values: no MODEL given; one or more are asked"),
        (["a/b", "--output", "o", "--answers", "f", "--translator", "c/d"], "--translator: given beside --answers, which"),
        (["a/b", "--output", "o", "--answers", "f", "--samples", "3"], "--samples: given beside --answers, which"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


def test_a_language_without_answers_and_an_output_that_is_a_file_are_refused(tmp_path):
    write_answers(tmp_path / "a.jsonl", made_answers(CLASSES))
    given = ["a/b", "--answers", str(tmp_path / "a.jsonl")]
    with pytest.raises(
        ConfigError, match=r"--languages: deu_Latn given; .* has answers in eng_Latn, jav_Latn"
    ):
        main([*given, "--languages", "deu_Latn", "--output", str(tmp_path / "out")])
    with pytest.raises(ConfigError, match="which is no folder"):
        main([*given, "--output", str(tmp_path / "a.jsonl")])


def written(path: Path, facts: int) -> str:
    """A file of questions, few of them facts."""
    counts = {"security": 6, "facts": facts, "neutral": 6}
    lines = [
        {
            "id": f"{dimension}{number}",
            "dimension": dimension,
            PIVOT: f"{dimension} {number}?",
            "ell_Grek": "Τι;",
        }
        for dimension, count in counts.items()
        for number in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@pytest.mark.parametrize(
    ("facts", "models", "languages", "most", "message"),
    [
        (6, "mn", PIVOT, "40", "--lambda: 40 given, and m · eng_Latn has 4 "),
        (2, "mn", PIVOT, "1", "--questions: m · eng_Latn has answers to 2 questions of facts to learn from and to 0"),
        (3, "mn", PIVOT, "1", "--questions: m and n have answers to 1 held-out questions of facts in common"),
        (6, "m", PIVOT, "1", r"answers of one class given \(m · eng_Latn\)"),
        (6, "mn", LANGUAGES, "4", ""),
        (3, "m", LANGUAGES, "4", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_a_model_is_asked(
    tmp_path, monkeypatch, facts, models, languages, most, message
):
    class Asked(Exception):
        pass

    def ask(*given):
        raise Asked

    monkeypatch.setattr(
        command, "_candidates", lambda *given: [SimpleNamespace(step=0, name=name) for name in models]
    )
    monkeypatch.setattr(gather, "gathered", ask)
    path = written(tmp_path / "q.jsonl", facts)
    given = ["a/b", "--questions", path, "--languages", languages, "--lambda", most, "sharding.mesh.data=1"]
    with pytest.raises(DataError if message else Asked, match=message or None):
        main([*given, "--output", str(tmp_path / "out")])
    assert (tmp_path / "out").exists() == (not message)


def test_a_run_of_which_no_step_is_wanted_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_candidates", lambda *given: [])
    with pytest.raises(ConfigError, match="eval.steps: none given, and no model beside"):
        main(["a/b", "--languages", PIVOT, "--output", str(tmp_path / "out")])


def test_answers_without_held_out_facts_are_refused_before_a_device_is_asked_for(tmp_path, monkeypatch):
    tests = held_out(our_questions(), 0)
    answers = [
        one
        for one in made_answers(CLASSES)
        if not (one.question.startswith("facts") and one.question in tests)
    ]
    write_answers(tmp_path / "a.jsonl", answers)
    monkeypatch.setattr(command, "_candidates", lambda *given: pytest.fail("models are opened"))
    with pytest.raises(
        DataError, match="--answers: base · eng_Latn has answers to 27 questions of facts to learn"
    ):
        main(["a/b", "--answers", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out"), "run.seed=0"])


def test_texts_that_were_cut_are_counted(monkeypatch):
    """In each lot of texts."""

    def vectors(model, params, tokenizer, texts, **given):
        cut = np.array([int(text == "long") for text in texts]) * 7
        return SimpleNamespace(mean=np.zeros((5, len(texts), 2), np.float32), cut=cut)

    monkeypatch.setattr(gather, "sentence_vectors", vectors)
    monkeypatch.setattr(gather, "TEXTS", 3)
    opened = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(layers=4)), params=None, tokenizer=None
    )
    one = SimpleNamespace(open=lambda telling: opened)
    texts = ["long", "a", "b", "long", "long"]
    quiet = lambda what: told(lambda line: None, what)  # noqa: E731
    found, layer, cut = gather.encoded(texts, one, 8, None, quiet)
    assert (found.shape, layer, cut) == ((5, 2), 2, 3)


# ── a model that was trained ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("values")
    stages = [{"name": "coit", "mixture": {"phrases": {}}, "steps": 2}]
    data = {"template": "short", "sources": {"phrases": CONFIG["data"]["sources"]["phrases"]}}
    config = write_config(folder / "small.yaml", data=data, stages=stages, eval={"tasks": []})
    train(config, "train.optimizer.warmup_steps=1", "train.held_out_documents=0")
    questions = [
        {"id": f"{dimension}{number}", "dimension": dimension, PIVOT: f"How is {dimension} {number}?"}
        for dimension in ("security", "facts", "neutral")
        for number in range(6)
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    return folder / "run"


@pytest.mark.slow
def test_base_and_tuned_model_are_asked_once_and_measured(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    questions = ["--questions", str(run.parent / "questions.jsonl")]
    asked = [str(run), "--languages", LANGUAGES, "--translator", str(run), *questions, *SMALL]

    # A process that ends while answers are written has kept those that it had.
    answers_of, kept = Asker.answers, []

    def stops(self, questions, *, on_progress, on_answer):
        kept.extend(answers_of(self, questions[:5], on_progress=on_progress, on_answer=on_answer))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Asker, "answers", stops)
        with pytest.raises(KeyboardInterrupt):
            main([*asked, "--output", str(out)])
    journal = (out / "answers.jsonl.unfinished" / "unfinished.jsonl").read_text("utf-8").splitlines()
    assert len(journal) == 1 + 5 == 1 + len(kept)

    main([*asked, "--output", str(out)])
    content = json.loads((out / "values.json").read_text("utf-8"))
    classes = [(one["model"], one["language"], one["answers"]) for one in content["classes"]]
    names = ("base", "coit, step 2")
    assert classes == [(name, language, 18) for name in names for language in LANGUAGES.split(",")]
    assert [row["set"] for row in of(content["shifts"], vectors=FROZEN, language=PIVOT)] == list(SETS)
    assert not (out / "answers.jsonl.unfinished").exists()
    first = (out / "answers.jsonl").read_text("utf-8")

    # Again: nothing is asked, and the same is told.
    with monkeypatch.context() as patch:
        patch.setattr(gather, "ask_models", lambda *given: pytest.fail("models are asked again"))
        main([*asked, "--output", str(out)])
    assert json.loads((out / "values.json").read_text("utf-8")) == content
    with pytest.raises(ConfigError, match="which was begun with samples '1'; now '2' is given"):
        main([*asked, "--output", str(out), "--samples", "2"])

    # In one go: the same answers. As a file of answers: the same numbers.
    main([*asked, "--output", str(tmp_path / "again")])
    assert (tmp_path / "again" / "answers.jsonl").read_text("utf-8") == first
    capsys.readouterr()
    given = [str(run), "--answers", str(out / "answers.jsonl"), *questions, *SMALL]
    main([*given, "--output", str(tmp_path / "given"), "--format", "json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["classes"] == content["classes"]
    assert printed["encoded_by"]["model"] == str(run)  # the checkpoint: not the base, which encoded above
    assert texts_of([Answer("m", PIVOT, "facts-1", "a", "b")], our_questions())[0].endswith("water? A: b")


@pytest.mark.slow
def test_a_view_of_means_is_near_to_its_joined_text(run, tmp_path):
    """The mean of the vectors of pairs stands for the vector of the text that they make together."""
    from jaxlingua.command_line import load_config
    from jaxlingua.sharding.mesh import make_mesh
    from jaxlingua.train.open_model import other_model

    config = load_config(str(run))
    mesh = make_mesh(config.sharding)
    model = other_model(config, "m", str(run), mesh, print)
    pairs = [
        f"Q: {text} A: yes, {place}." for place, text in enumerate(["Is it?", "Who?", "Why not?", "Where?"])
    ]
    views = ["\n".join(pairs[start : start + 2]) for start in range(3)]
    quiet = lambda what: told(lambda line: None, what)  # noqa: E731
    (of_pairs, *_), (of_views, *_) = (gather.encoded(them, model, 8, mesh, quiet) for them in (pairs, views))
    means = np.stack([of_pairs[start : start + 2].mean(axis=0) for start in range(3)])
    centered = [each - means.mean(axis=0) for each in (means, of_views)]
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in centered]
    assert (np.argmax(unit[0] @ unit[1].T, axis=1) == np.arange(3)).all()
