"""Items are translated by a public model, once in a run folder, and asked in the other language then."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import jax
import pytest

from jaxlingua.config import Config
from jaxlingua.errors import CheckpointError, ConfigError, Stopped
from jaxlingua.eval.done import asked_of
from jaxlingua.eval.in_context.complete import completed
from jaxlingua.eval.in_context.retrieval.lexical import lexical
from jaxlingua.eval.tasks.item import Task
from jaxlingua.eval.tasks.make import make_tasks
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.train import open_model, translate_test
from tests.eval.in_context.world import SENTENCES, write
from tests.flow.test_eval import public

TASKS = ("mood.ind_Latn", "why.ind_Latn", "sum.ind_Latn", "mood.eng_Latn")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write(folder)
    public(folder / "model")
    return folder


def configured(home: Path, *tasks: str, prompts: str = "english.0", **arm: object) -> Config:
    in_context = {"translate_test": str(home / "model"), "count": 2, **arm}
    places = {"data_folder": str(home), "task_folder": str(home / "tasks")}
    return Config.model_validate(
        {
            "run": {"folder": str(home / "run")},
            "model": {"compute_dtype": "float32"},
            "data": {"template": "raw"},
            "generate": {"max_new_tokens": 6, "batch_rows": 4},
            "eval": {"tasks": list(tasks or TASKS), "prompts": [prompts], "in_context": in_context, **places},
        }
    )


def translated(config: Config, folder: Path, stoppable: Callable = lambda progress: progress) -> list[Task]:
    mesh = make_mesh(config.sharding, jax.devices()[:1])
    return translate_test.translated(
        make_tasks(config, {}), config, folder, mesh,
        say=lambda line: None, telling=lambda what: nullcontext(lambda done, total: None), stoppable=stoppable,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(home) -> tuple[list[Task], Path]:
    folder = home / "done"
    return translated(configured(home), folder), folder


def answers(folder: Path) -> list[dict]:
    [file] = folder.glob("translations/*/answers.jsonl")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def said(answer: dict) -> str:
    """The line that is taken of an answer."""
    return next((line.strip() for line in answer["prediction"].split("\n") if line.strip()), "")


def test_items_are_asked_in_the_words_of_the_model_that_translates(home, done):
    tasks, folder = done
    before = make_tasks(configured(home), {})
    known = {said(answer) for answer in answers(folder)}
    mood, why, total, english = tasks
    for task, was in zip(tasks, before, strict=True):
        assert [(one.id, one.targets) for one in task.items] == [(one.id, one.targets) for one in was.items]
    for task in (mood, why, total):
        was = next(one for one in before if one.name == task.name)
        assert asked_of(task, configured(home), "s", "") != asked_of(was, configured(home), "s", "")
        assert f"texts translated by {home / 'model'}" in task.note
        assert not any(text in item.prompt for item in task.items for _, text, _ in SENTENCES)
        assert all(any(text in item.prompt for text in known if text) for item in task.items)
    assert all(set(item.choices) - {"", "negative"} for item in mood.items), "labels stay"
    assert all(choice[1:] in known or choice in known for item in why.items for choice in item.choices)
    assert english == before[3], "which has nothing to translate"


def test_what_is_translated_already_needs_no_weights(home, done, monkeypatch):
    tasks, folder = done
    there = open_model.other_model

    def refuse(telling):
        raise RuntimeError("weights are read")

    def without_weights(*given):
        return dataclasses.replace(there(*given), open=refuse)

    monkeypatch.setattr(translate_test, "other_model", without_weights)
    again = translated(configured(home), folder)
    assert again == tasks
    with pytest.raises(RuntimeError, match="weights are read"):
        translated(configured(home, source_language="deu_Latn"), folder)


def test_a_stopped_evaluation_goes_on(home, done, tmp_path):
    def stoppable(progress):
        def stop(done: int, total: int) -> None:
            [kept] = tmp_path.glob("translations/*/unfinished.jsonl")
            if kept.read_text("utf-8").count("\n") > 3:
                raise Stopped("told to stop", 0)

        return stop

    with pytest.raises(Stopped):
        translated(configured(home), tmp_path, stoppable)
    [kept] = tmp_path.glob("translations/*/unfinished.jsonl")
    lines = kept.read_text("utf-8").splitlines()[1:]
    assert 3 <= len(lines) < len(answers(done[1]))
    marked = [{**json.loads(line), "prediction": f"mark {n}"} for n, line in enumerate(lines)]
    header = kept.read_text("utf-8").split("\n")[0]
    kept.write_text("\n".join([header, *map(json.dumps, marked), ""]), "utf-8")
    translated(configured(home), tmp_path)
    assert not kept.exists()
    found = {answer["asked"]: answer["prediction"] for answer in answers(tmp_path)}
    assert len(found) == len(answers(done[1]))
    assert sum(text.startswith("mark") for text in found.values()) == len(marked), "these are not asked again"


def test_what_comes_back_empty_stays_and_is_counted(home, done, tmp_path):
    [file] = done[1].glob("translations/*/answers.jsonl")
    copy = tmp_path / file.relative_to(done[1])
    copy.parent.mkdir(parents=True)
    nothing = {"prediction": " \n", "is_finished": True}
    copy.write_text("".join(json.dumps(one | nothing) + "\n" for one in answers(done[1])), "utf-8")
    mood, *_ = translated(configured(home), tmp_path)
    assert SENTENCES[4][1] in mood.items[0].prompt
    assert f"2 texts translated by {home / 'model'} (empty answer 2)" in mood.note


def test_exemplars_are_of_the_language_in_which_is_asked(home, done):
    config = configured(home, exemplars="cross", retrieval=["overlap"])
    mood = translated(config, done[1])[0]
    prompt = completed(mood, [lexical("overlap", 0)]).items[0].prompt
    assert sum(f"{english} => " in prompt for english, *_ in SENTENCES[:4]) == 2
    assert not any(indonesian in prompt for _, indonesian, _ in SENTENCES)
    assert f"translated-eng_Latn-{home / 'model'}" in mood.signature


def test_what_cannot_be_translated_is_refused(home, tmp_path):
    with pytest.raises(ConfigError, match="'river.ind_Latn' is kind qa, whose answers would be in eng_Latn"):
        translated(configured(home, "river.ind_Latn"), tmp_path)
    with pytest.raises(ConfigError, match="'say.ind_Latn-jav_Latn' is kind translation"):
        translated(configured(home, "say.ind_Latn-jav_Latn"), tmp_path)
    with pytest.raises(ConfigError, match="'mood.ind_Latn@native.0' has a prompt in ind_Latn"):
        translated(configured(home, "mood.ind_Latn", prompts="native"), tmp_path)
    absent = configured(home, translate_test=str(home / "absent"))
    with pytest.raises((CheckpointError, ConfigError), match="^eval.in_context.translate_test: .*absent"):
        translated(absent, tmp_path)
    unsaved = tmp_path / "unsaved"
    unsaved.mkdir()
    (unsaved / "config.yaml").write_text("eval: {}\n", "utf-8")
    for config, message in (
        (configured(home, "river.ind_Latn"), "'river.ind_Latn' is kind qa"),
        (absent, ".*absent"),
        (configured(home, translate_test=str(unsaved)), ".*unsaved' given, a run that has saved nothing"),
    ):
        with pytest.raises(
            (CheckpointError, ConfigError), match=f"^eval.in_context.translate_test: {message}"
        ):
            translate_test.check_translate_test(make_tasks(config, {}), config)
    fine = configured(home)
    translate_test.check_translate_test(make_tasks(fine, {}), fine)
    shutil.rmtree(unsaved)
    plain = configured(home, translate_test="")
    assert translated(plain, tmp_path) == make_tasks(plain, {})
    assert not list(tmp_path.iterdir())
