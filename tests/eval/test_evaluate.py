"""Evaluation: what is written into the run folder, and that scores belong to the model alone."""

import dataclasses
import functools
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.answer import check_answerable
from jaxlingua.eval.done import is_evaluated
from jaxlingua.eval.evaluate import evaluate, evaluate_floors, overlaps_of
from jaxlingua.eval.metrics.registry import measure
from jaxlingua.eval.score import FLOORS, Score
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from jaxlingua.tokens.interface import Encoding, Tokenizer
from tests.generate.reversing import BOS, CONFIG, EOS, FIRST, LETTERS, PAD, TURN, VOCAB, prompts, trained

pytestmark = pytest.mark.xdist_group("reversing")  # the model that they share is trained once

ALPHABET = "абвгдежзийклмноп"[:LETTERS]


def letters(ids: np.ndarray) -> str:
    return "".join(ALPHABET[i - FIRST] for i in ids if i >= FIRST)


def encode(text: str) -> Encoding:
    ids = [TURN if char == ">" else FIRST + ALPHABET.index(char) for char in text]
    return Encoding(np.array(ids, np.int32), np.stack([np.arange(len(ids)), np.arange(1, len(ids) + 1)], 1))


# One letter, one token; ">" asks for the letters backwards.
TOKENIZER = Tokenizer(
    vocab_size=VOCAB,
    bos_id=BOS,
    eos_id=EOS,
    pad_id=PAD,
    control_ids=frozenset({PAD, BOS, EOS, TURN}),
    fingerprint="letters",
    encode_pieces=lambda texts, continuation: [encode(text) for text in texts],
    decode_pieces=lambda ids: letters(np.array(ids, int)),
    write_files=lambda folder: None,
)


def task(name: str, kind: str, count: int, seed: int) -> Task:
    words = [letters(prompt) for prompt in prompts(count, seed)]
    items = tuple(
        Item(f"{name[0]}{i}", "rus_Cyrl", f"{word}>", (word[::-1],), word) for i, word in enumerate(words)
    )
    return Task(name, kind, name[0], "rus_Cyrl", "all", "short", items, (), count + 3, {"empty answer": 2})


TASKS = [task("a.eng_Latn-rus_Cyrl", "translation", 40, seed=1), task("b.rus_Cyrl", "qa", 25, seed=2)]


def configured(batch_rows: int = 16, mesh: dict | None = None, max_new_tokens: int = 12) -> Config:
    return Config.model_validate(
        {
            "sharding": {"mesh": mesh or {}},
            "generate": {"batch_rows": batch_rows, "max_new_tokens": max_new_tokens},
            "eval": {"bootstrap_samples": 50},
            "run": {"seed": 3},
        }
    )


def run(folder: Path, tasks=TASKS, batch_rows: int = 16, mesh: dict | None = None, **options) -> list[Score]:
    """Scores of the reversing model; a mesh of one device unless another is given."""
    config = options.pop("config", configured(batch_rows, mesh))
    model, params = trained(options.pop("llama", CONFIG))
    params = options.pop("params", params)
    mesh = make_mesh(config.sharding, jax.devices()[: 8 if mesh else 1])
    params = jax.device_put(params, param_shardings(model, mesh))
    facts = {
        "mesh": mesh,
        "config": config,
        "folder": folder,
        "stage": "coit",
        "step": 70,
        "model_name": "tuned",
    }
    return evaluate(model, params, options.pop("tokenizer", TOKENIZER), tasks, **(facts | options))


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[Path, list[Score]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run(folder)


def read_scores(folder: Path) -> list[Score]:
    """What lies in the files of a run folder, newest stage last."""
    files = sorted(folder.glob("evals/*/scores.json"))
    return [Score(**score) for file in files for score in json.loads(file.read_text("utf-8"))["scores"]]


def test_every_item_has_a_line_with_its_prediction_and_scores(evaluated):
    folder, _ = evaluated
    written = lines(folder / "evals/coit-70/a.eng_Latn-rus_Cyrl.jsonl")
    assert [line["id"] for line in written] == [item.id for item in TASKS[0].items]
    for line, item in zip(written, TASKS[0].items, strict=True):
        assert (line["prompt"], line["targets"], line["language"]) == (
            item.prompt,
            list(item.targets),
            "rus_Cyrl",
        )
        assert line["exact_match"] == 100.0 * (line["prediction"] == item.targets[0])
        assert 0 <= line["chrf++"] <= 100
        assert line["new_tokens"] == len(line["prediction"])
        assert line["is_finished"] == (line["new_tokens"] < 12)
    assert "bleu" not in written[0]
    assert {"exact_match", "f1"} < lines(folder / "evals/coit-70/b.rus_Cyrl.jsonl")[0].keys()


def test_scores_are_those_of_the_written_predictions(evaluated):
    folder, scores = evaluated
    for each in TASKS:
        written = lines(folder / f"evals/coit-70/{each.name}.jsonl")
        recomputed = measure(each, [line["prediction"] for line in written], config=configured())
        given = {score.metric: score for score in scores if score.task == each.name}
        assert {one.metric: pytest.approx(one.value, abs=1e-4) for one in recomputed} == {
            metric: score.value for metric, score in given.items()
        }
        assert all(score.low <= score.value <= score.high for score in given.values())
        assert all(score.items == len(each.items) for score in given.values())
    exact = next(score for score in scores if score.metric == "exact_match")
    assert exact.value > 30
    assert exact.low < exact.value


def test_scores_json_tells_all_that_scores_do_not(evaluated):
    folder, scores = evaluated
    content = json.loads((folder / "evals/coit-70/scores.json").read_text("utf-8"))
    assert content["scores"][0].keys() == {
        "stage", "step", "model", "task", "language", "metric", "value", "low", "high", "items", "signature",
        "prompt", "kind", "source_language", "delta", "delta_low", "delta_high", "p_value",
    }  # fmt: skip
    told = content["tasks"]["a.eng_Latn-rus_Cyrl"]
    assert len(told.pop("items_hash")) == len(told.pop("prompt_hash")) == 16
    assert told == {
        "items": 40, "available": 43, "split": "all", "left_out": {"empty answer": 2}, "cut_prompts": 0,
        "cut_prompt_tokens": 0, "unfinished": 0, "prompt": "english.0", "kind": "translation", "is_parallel": False,
        "in_context": "",
        "checked_on": "real files", "overlap": None, "version": 1, "prompt_text": "", "files": [], "files_hash": "",
        "note": "",
    }  # fmt: skip
    assert read_scores(folder) == scores


def test_every_score_carries_its_signature(evaluated):
    _, scores = evaluated
    bleu = next(score for score in scores if score.metric == "bleu")
    for part in ("nrefs:1", "tok:13a", "version:", "task:translation1", "prompt:short.english.0", "split:all", "items:40of43",
                 "decoding:greedy,12", "interval:95%,bootstrap50,seed3"):  # fmt: skip
        assert part in bleu.signature
    assert (bleu.stage, bleu.step, bleu.model, bleu.language) == ("coit", 70, "tuned", "rus_Cyrl")


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_rows": 1},
        {"batch_rows": 64},
        {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}},
        {"tasks": TASKS[::-1]},
        {"tasks": TASKS[1:]},
    ],
    ids=lambda changed: " ".join(changed),
)
def test_scores_do_not_depend_on_how_they_were_computed(evaluated, tmp_path, changed):
    """Scores of others move with the batch size."""
    folder, scores = evaluated
    asked = [each.name for each in changed.get("tasks", TASKS)]
    again = run(tmp_path, **changed)
    by_name = {(score.task, score.metric): score for score in again}
    assert by_name == {(score.task, score.metric): score for score in scores if score.task in asked}
    for name in asked:
        first, second = (home / f"evals/coit-70/{name}.jsonl" for home in (folder, tmp_path))
        assert first.read_bytes() == second.read_bytes()


def test_a_prompt_that_is_too_long_is_cut_behind_its_bos_and_counted(tmp_path):
    word = ALPHABET[:5]
    item = Item("long", "rus_Cyrl", ALPHABET * 20 + f"{word}>", (word[::-1],), "")
    long = Task("c.rus_Cyrl", "qa", "c", "rus_Cyrl", "all", "short", (item,), (), 1, {})
    run(tmp_path, tasks=[long])
    lost = 1 + len(item.prompt) - (CONFIG.max_positions - 12)
    assert lines(tmp_path / "evals/coit-70/c.rus_Cyrl.jsonl")[0]["cut_prompt_tokens"] == lost > 0
    counts = json.loads((tmp_path / "evals/coit-70/scores.json").read_text("utf-8"))["tasks"]["c.rus_Cyrl"]
    assert (counts["cut_prompts"], counts["cut_prompt_tokens"]) == (1, lost)


def test_floors_copy_the_sentence_or_say_the_most_frequent_answer(tmp_path):
    capitals = [
        Item(str(i), "rus_Cyrl", "?", (text,), "") for i, text in enumerate(("да", "да", "нет", "да"))
    ]
    words = [("дом", "дом"), ("лес", "роща")]
    copied = [Item(str(i), "rus_Cyrl", given, (wanted,), given) for i, (given, wanted) in enumerate(words)]
    tasks = [
        Task("q.rus_Cyrl", "qa", "q", "rus_Cyrl", "all", "short", tuple(capitals), (), 4, {}),
        Task("w.bul_Cyrl-rus_Cyrl", "translation", "w", "rus_Cyrl", "all", "short", tuple(copied), (), 2, {}),
    ]
    scores = evaluate_floors(tasks, config=Config(), folder=tmp_path)
    exact = {score.model: score.value for score in scores if score.metric == "exact_match"}
    assert exact == {"majority_answer": 75.0, "copy_source": 50.0}
    assert {(score.stage, score.step) for score in scores} == {("floors", 0)}
    assert read_scores(tmp_path) == scores


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """A run that is killed while it writes leaves no evaluation that looks complete."""
    run(tmp_path, tasks=TASKS[:1], step=1)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, tasks=TASKS[:1], step=2)
    assert {score.step for score in read_scores(tmp_path)} == {1}
    assert not list((tmp_path / "evals/coit-2").glob("[!.]*"))


# ── whether it was done ──────────────────────────────────────────────────────


def test_what_was_evaluated_is_known_by_tasks_and_decoding(evaluated, tmp_path):
    folder, _ = evaluated
    assert is_evaluated(TASKS, "coit", 70, config=configured(batch_rows=3), folder=folder)
    assert not is_evaluated(TASKS, "coit", 71, config=configured(), folder=folder)
    assert is_evaluated(TASKS[:1], "coit", 70, config=configured(), folder=folder), "it has these too"
    assert not is_evaluated(TASKS, "coit", 70, config=configured(max_new_tokens=13), folder=folder)
    assert not is_evaluated(TASKS, "coit", 70, config=configured(), folder=folder, source="another")
    for changed in (
        {"eval": {"bleu_tokenizer": "char"}}, {"eval": {"bootstrap_samples": 51}}, {"eval": {"leak_words": 0}},
        {"eval": {"scorers": {"comet": {"command": ["x"]}}}}, {"eval": {"judge": {"url": "http://127.0.0.1"}}},
        {"eval": {"harness": {"tasks": ["x"]}}}, {"run": {"seed": 4}}, {"model": {"compute_dtype": "float32"}},
        {"generate": {"stop": ["x"]}}, {"generate": {"temperature": 0.5}}, {"eval": {"choice_by": "constrained"}},
    ):  # fmt: skip
        given = configured().model_dump(mode="json", exclude_unset=True)
        ((part, values),) = changed.items()
        given[part] = given.get(part, {}) | values
        there = is_evaluated(TASKS, "coit", 70, config=Config.model_validate(given), folder=folder)
        assert there == (changed == {"eval": {"choice_by": "constrained"}}), changed  # these are no choices
    other_metrics = [dataclasses.replace(TASKS[0], metrics=("chrf++",)), TASKS[1]]
    assert not is_evaluated(other_metrics, "coit", 70, config=configured(), folder=folder)
    other = [task("a.eng_Latn-rus_Cyrl", "translation", 40, seed=9), TASKS[1]]
    assert not is_evaluated(other, "coit", 70, config=configured(), folder=folder)
    assert is_evaluated([], "coit", 70, config=configured(), folder=tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "3", "[]", "null", "{}", '{"scores": 3}', '{"scores": [1]}', '{"scores": [{"task": "b.rus_Cyrl"}]}',
     '{"scores": [{"task": "a.eng_Latn-rus_Cyrl", "signature": null}]}', b"\xff"],
)  # fmt: skip
def test_scores_that_are_damaged_are_made_again(evaluated, tmp_path, content):
    shutil.copytree(evaluated[0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "evals/coit-70/scores.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert not is_evaluated(TASKS, "coit", 70, config=configured(), folder=tmp_path)


def test_scores_torn_anywhere_are_made_again(evaluated, tmp_path):
    shutil.copytree(evaluated[0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "evals/coit-70/scores.json"
    content = path.read_bytes().rstrip()
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        assert not is_evaluated(TASKS, "coit", 70, config=configured(), folder=tmp_path), size


def test_scores_whose_predictions_are_gone_are_made_again(evaluated, tmp_path):
    shutil.copytree(evaluated[0], tmp_path, dirs_exist_ok=True)
    assert is_evaluated(TASKS, "coit", 70, config=configured(), folder=tmp_path)
    (tmp_path / "evals/coit-70/b.rus_Cyrl.jsonl").unlink()
    assert not is_evaluated(TASKS, "coit", 70, config=configured(), folder=tmp_path)


def test_floors_are_there_without_predictions(tmp_path):
    evaluate_floors(TASKS, config=configured(), folder=tmp_path)
    assert [path.name for path in tmp_path.glob("evals/*/*")] == ["scores.json"]
    assert is_evaluated(TASKS, FLOORS, 0, config=configured(), folder=tmp_path)


def test_progress_counts_items(tmp_path):
    seen = []
    run(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (65, 65)
    assert {total for _, total in seen} == {65}


# ── interrupted ──────────────────────────────────────────────────────────────


class Interrupted(Exception):
    pass


def interrupted(folder: Path, after: int, **options) -> dict[str, str]:
    """Run an evaluation that ends after so many answers; what it left, by question."""

    def progress(done: int, total: int) -> None:
        if done >= after:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(folder, on_progress=progress, **options)
    _, *kept = lines(folder / "evals/coit-70/unfinished.jsonl")
    return {line["asked"]: line["prediction"] for line in kept}


def test_an_evaluation_goes_on_where_it_was_and_asks_nothing_twice(evaluated, tmp_path):
    kept = interrupted(tmp_path, after=20)
    assert 20 <= len(kept) < 65
    journal = tmp_path / "evals/coit-70/unfinished.jsonl"
    marked = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    first = marked[1] | {"prediction": "kept as it was"}
    journal.write_text("".join(json.dumps(line) + "\n" for line in [marked[0], first, *marked[2:]]))
    seen = []
    run(tmp_path, on_progress=lambda done, total: seen.append(done))
    assert min(seen) > len(kept) - 1, "it begins with what is known"
    whole = {}
    for each in TASKS:
        new = {line["asked"]: line for line in lines(tmp_path / f"evals/coit-70/{each.name}.jsonl")}
        old = {line["asked"]: line for line in lines(evaluated[0] / f"evals/coit-70/{each.name}.jsonl")}
        assert new.keys() == old.keys()
        whole |= {name: (new[name]["prediction"], old[name]["prediction"]) for name in new}
    changed = {name: new for name, (new, old) in whole.items() if new != old}
    assert changed == {first["asked"]: "kept as it was"}
    assert not journal.exists()


def test_tasks_that_are_added_ask_only_their_own_items_and_keep_the_others(evaluated, tmp_path):
    run(tmp_path, tasks=TASKS[:1])
    seen = []
    run(tmp_path, tasks=TASKS[1:], on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (25, 25)
    assert read_scores(tmp_path) == read_scores(evaluated[0])
    assert is_evaluated(TASKS, "coit", 70, config=configured(), folder=tmp_path)
    seen.clear()
    run(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [], "all is known"
    assert read_scores(tmp_path) == read_scores(evaluated[0])


def test_scoring_again_asks_nothing_again(tmp_path):
    run(tmp_path, tasks=TASKS[:1])
    seen = []
    given = configured().model_dump(mode="json", exclude_unset=True)
    given["eval"]["bleu_tokenizer"] = "char"
    run(
        tmp_path,
        tasks=TASKS[:1],
        config=Config.model_validate(given),
        on_progress=lambda *told: seen.append(told),
    )
    assert seen == []
    assert "tok:char" in next(score for score in read_scores(tmp_path) if score.metric == "bleu").signature


def test_another_base_is_another_comparison(tmp_path):
    """Scores are told anew against a base that came later, or is another one."""
    _, params = trained()
    run(tmp_path, tasks=TASKS[:1])
    for place, factor in enumerate((1.02, 1.05)):
        shutil.rmtree(tmp_path / "evals/base-0", ignore_errors=True)
        before = jax.tree.map(lambda array, factor=factor: array * factor, params)
        run(tmp_path, tasks=TASKS[:1], stage="base", step=0, model_name="base", params=before)
        assert not is_evaluated(TASKS[:1], "coit", 70, config=configured(), folder=tmp_path), place
        run(tmp_path, tasks=TASKS[:1])
        assert is_evaluated(TASKS[:1], "coit", 70, config=configured(), folder=tmp_path)
        exact = {score.stage: score for score in read_scores(tmp_path) if score.metric == "exact_match"}
        assert exact["coit"].delta == pytest.approx(exact["coit"].value - exact["base"].value, abs=2e-4)


@pytest.mark.parametrize("changed", ["fingerprint", "eos_id", "eos_ids"])
def test_answers_with_another_tokenizer_or_other_ends_are_of_another_model(tmp_path, changed):
    run(tmp_path, tasks=TASKS[:1])
    value = {"fingerprint": "others", "eos_id": FIRST}.get(changed)
    other = dataclasses.replace(TOKENIZER, **({changed: value} if value else {}))
    with pytest.raises(DataError, match="predictions of another model"):
        run(
            tmp_path, tasks=TASKS, tokenizer=other, is_owner=False, **({} if value else {"eos_ids": (FIRST,)})
        )


def test_a_choice_longer_than_the_model_is_told_with_its_item(tmp_path):
    item = Item("long", "rus_Cyrl", "а>", ("yes",), "", ("а" * 200, "б"))
    long = Task(
        "c.rus_Cyrl", "choice", "c", "rus_Cyrl", "all", "short", (item,), (), 1, {}, labels=("yes", "no")
    )
    for how in ("label", "constrained"):
        with pytest.raises(
            DataError, match=r"c.rus_Cyrl \(item long\): its longest choice has 20[01] tokens"
        ):
            run(tmp_path / how, tasks=[dataclasses.replace(long, likelihood=how)])


def test_constrained_choices_have_no_beams():
    config = Config.model_validate({"generate": {"beams": 3}})
    with pytest.raises(
        ConfigError, match=r"generate.beams: 3 given, and choices of c.rus_Cyrl are constrained"
    ):
        check_answerable([choosing("constrained")], config)
    check_answerable([choosing("label")], config)


def test_answers_of_another_model_are_made_again_by_their_run_and_refused_elsewhere(tmp_path):
    _, params = trained()
    interrupted(tmp_path, after=5)
    said = []
    other = jax.tree.map(lambda array: array * 1.01, params)
    options = {"params": other, "say": said.append}
    with pytest.raises(DataError, match="predictions of another model"):
        run(tmp_path, is_owner=False, **options)
    run(tmp_path, **options)
    assert "answers of another model, made again" in said[0]


# ── choices ──────────────────────────────────────────────────────────────────


def choosing(likelihood: str = "label") -> Task:
    """Which of three words is the given one backwards."""
    words = [letters(prompt) for prompt in prompts(12, seed=5)]
    items = []
    for i, word in enumerate(words):
        other = words[(i + 1) % len(words)]
        choices = (word[::-1], other[::-1] + "а", word + "б")
        items.append(Item(str(i), "rus_Cyrl", f"{word}>", ("right",), word, choices))
    labels = ("right", "other", "same")
    return Task(
        "c.rus_Cyrl",
        "choice",
        "c",
        "rus_Cyrl",
        "all",
        "short",
        tuple(items),
        (),
        12,
        {},
        labels=labels,
        likelihood=likelihood,
    )


@functools.cache
def direct() -> list[dict[str, dict[str, float]]]:
    """Log-probabilities of all choices straight from the model, each in a row of its own."""
    model, params = trained()
    forward = jax.jit(lambda *row: model.apply({"params": params}, *row))
    found = []
    for item in choosing().items:
        found.append({})
        for label, choice in zip(("right", "other", "same"), item.choices, strict=True):
            ids = np.array([BOS, *encode(item.prompt + choice).ids])
            row, at = np.zeros((2, 1, 24), np.int32)
            row[0, : len(ids)], at[0, : len(ids)] = ids, np.arange(len(ids))
            logits = forward(row, at, (np.arange(24) < len(ids))[None].astype(np.int32))[
                0, : len(ids) - 1, :VOCAB
            ]
            told = np.asarray(jax.nn.log_softmax(logits), np.float64)[np.arange(len(ids) - 1), ids[1:]]
            own = told[-len(choice) :]
            found[-1][label] = {
                "label": own.sum(),
                "per_token": own.mean(),
                "per_character": own.sum() / len(choice),
                "whole_sequence": told.mean(),
            }
    return found


@pytest.mark.parametrize("how", ["label", "per_token", "per_character", "whole_sequence"])
def test_a_choice_is_the_most_likely_label_in_each_mode(tmp_path, how):
    scores = run(tmp_path, tasks=[choosing(how)])
    written = lines(tmp_path / "evals/coit-70/c.rus_Cyrl.jsonl")
    for line, told in zip(written, direct(), strict=True):
        wanted = {label: modes[how] for label, modes in told.items()}
        assert line["scores"] == pytest.approx(wanted, abs=1e-4)
        assert line["prediction"] == max(line["scores"], key=line["scores"].get)
    accuracy = next(score for score in scores if score.metric == "accuracy")
    assert f"decoding:likelihood,{how}" in accuracy.signature
    assert accuracy.value == pytest.approx(
        100 * np.mean([line["prediction"] == "right" for line in written]), abs=1e-3
    )
    assert accuracy.value > 60


def test_a_constrained_choice_is_always_one_of_the_labels(tmp_path):
    scores = run(tmp_path, tasks=[choosing("constrained")])
    written = lines(tmp_path / "evals/coit-70/c.rus_Cyrl.jsonl")
    assert {line["prediction"] for line in written} <= {"right", "other", "same"}
    assert next(score for score in scores if score.metric == "accuracy").value > 60


def test_the_base_model_is_compared_item_by_item(tmp_path):
    """The difference and its interval are those of the written predictions; another base is no base."""
    _, params = trained()
    noisy = jax.tree.map(
        lambda array: array + 0.06 * np.sin(np.arange(array.size)).reshape(array.shape).astype(np.float32),
        params,
    )
    base = run(tmp_path, stage="base", step=0, model_name="base", params=noisy)
    tuned = run(tmp_path)
    assert all(score.delta is None for score in base)
    was = {(score.task, score.metric): score for score in base}
    for score in tuned:
        before = was[score.task, score.metric]
        assert score.delta == pytest.approx(score.value - before.value, abs=2e-4)
        assert score.delta_low <= score.delta <= score.delta_high
        assert 0 < score.p_value <= 1
    exact = next(score for score in tuned if score.metric == "exact_match")
    assert exact.delta > 0
    assert exact.p_value < 0.05
    other = run(tmp_path, step=71, tasks=[task("a.eng_Latn-rus_Cyrl", "translation", 40, seed=9)])
    assert all(score.delta is None for score in other), "other items"


def test_the_score_without_leaked_items_stands_beside(tmp_path):
    items = [
        dataclasses.replace(item, source_text=" ".join(f"{item.source_text}{place}" for place in range(15)))
        for item in TASKS[0].items
    ]
    asked = dataclasses.replace(TASKS[0], items=tuple(items))
    learned = {item.source_text for item in items[:10]}
    run(tmp_path, tasks=[asked], overlaps=overlaps_of([asked], learned, words=13))
    told = json.loads((tmp_path / "evals/coit-70/scores.json").read_text("utf-8"))["tasks"][asked.key][
        "overlap"
    ]
    written = lines(tmp_path / f"evals/coit-70/{asked.key}.jsonl")
    leaked = {item.id for item in items if item.source_text in learned}
    assert set(told["leaked"]) == leaked
    clean = [line["exact_match"] for line in written if line["id"] not in leaked]
    assert told["value_without"]["exact_match"] == pytest.approx(np.mean(clean), abs=1e-4)
