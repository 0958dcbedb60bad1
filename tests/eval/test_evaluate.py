"""Evaluation: what is written into the run folder, and that scores belong to the model alone."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlingua.config import Config
from jaxlingua.eval.evaluate import FLOORS, Score, answer, evaluate, evaluate_floors, is_evaluated
from jaxlingua.eval.metrics.answers import qa_metrics
from jaxlingua.eval.metrics.translation import translation_metrics
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from jaxlingua.tokens.interface import Encoding, Tokenizer
from jaxlingua.tracking import fetch
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
    config = configured(batch_rows, mesh)
    model, params = trained(options.pop("llama", CONFIG))
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
    return evaluate(model, params, TOKENIZER, tasks, **(facts | options))


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
    for each, metrics in zip(TASKS, (translation_metrics, qa_metrics), strict=True):
        written = lines(folder / f"evals/coit-70/{each.name}.jsonl")
        recomputed = metrics(
            [line["prediction"] for line in written], [line["targets"] for line in written], "rus_Cyrl"
        )
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
    }  # fmt: skip
    assert content["tasks"]["a.eng_Latn-rus_Cyrl"] == {
        "items": 40, "available": 43, "split": "all", "left_out": {"empty answer": 2}, "cut_prompts": 0,
        "cut_prompt_tokens": 0, "unfinished": 0,
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
    assert [score.step for score in read_scores(tmp_path)] == [1, 1, 1]
    assert not list((tmp_path / "evals/coit-2").glob("[!.]*"))


# ── whether it was done ──────────────────────────────────────────────────────


def test_what_was_evaluated_is_known_by_tasks_and_decoding(evaluated, tmp_path):
    folder, _ = evaluated
    assert is_evaluated(TASKS, "coit", 70, config=configured(batch_rows=3), folder=folder)
    assert not is_evaluated(TASKS, "coit", 71, config=configured(), folder=folder)
    assert not is_evaluated(TASKS[:1], "coit", 70, config=configured(), folder=folder)
    assert not is_evaluated(TASKS, "coit", 70, config=configured(max_new_tokens=13), folder=folder)
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


def test_progress_counts_items_and_one_transfer_is_made_per_batch(tmp_path):
    seen, before = [], fetch.calls
    run(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 65), (32, 65), (48, 65), (64, 65), (65, 65)]
    assert fetch.calls - before == 5


def test_no_prompts_have_no_answers():
    mesh = make_mesh(Config().sharding, jax.devices()[:1])
    assert answer(Llama(CONFIG), {}, TOKENIZER, [], mesh=mesh, config=Config.model_validate(
        {"generate": {"max_new_tokens": 12}})) == []  # fmt: skip
