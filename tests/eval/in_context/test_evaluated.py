"""A model answers in an arm: its prompts, what the scores tell, and that another arm is asked anew."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxlingua.config import Config
from jaxlingua.errors import ConfigError
from jaxlingua.eval import answer
from jaxlingua.eval.done import is_evaluated
from jaxlingua.eval.in_context import ask
from jaxlingua.eval.in_context.retrieval import encoder
from jaxlingua.generate.decoding import Answer
from jaxlingua.tokens.interface import Encoding
from tests.eval.in_context.world import asked, write
from tests.eval.test_evaluate import TOKENIZER, lines, run
from tests.generate.reversing import FIRST, LETTERS

pytestmark = pytest.mark.xdist_group("reversing")  # the model that they share is trained once


def encode(text: str) -> Encoding:
    """Any character as one of few letters."""
    ids = np.array([FIRST + ord(char) % LETTERS for char in text], np.int32)
    return Encoding(ids, np.stack([np.arange(len(ids)), np.arange(1, len(ids) + 1)], 1))


ANY_TEXT = dataclasses.replace(
    TOKENIZER, encode_pieces=lambda texts, continuation: [encode(text) for text in texts]
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write(folder)
    return folder


def configured(**arm: object) -> Config:
    in_context = {"count": 2, "align_count": 1, "retrieval": ["overlap"], **arm}
    generate = {"batch_rows": 8, "max_new_tokens": 4}
    return Config.model_validate(
        {"generate": generate, "eval": {"bootstrap_samples": 20, "in_context": in_context}}
    )


def test_an_evaluation_in_an_arm_tells_it_and_another_arm_is_asked_anew(home, tmp_path):
    told = []
    arms = [{"exemplars": "mono"}, {"exemplars": "cross", "format": "table"}, {}]
    for arm in arms:
        config, task = configured(**arm), asked(home, "mood.ind_Latn", **arm)
        where = {"config": config, "folder": tmp_path}
        assert not is_evaluated([task], "coit", 70, **where)
        scores = run(tmp_path, [task], config=config, tokenizer=ANY_TEXT)
        assert is_evaluated([task], "coit", 70, **where)
        written = lines(tmp_path / "evals/coit-70/mood.ind_Latn.jsonl")
        told.append(([line["prompt"] for line in written], scores[0].signature))
    (mono, by_mono), (table, by_table), (plain, by_plain) = told
    assert "Saya suka kebunnya. => positive\nSaya suka supnya. =>" in mono[0]
    assert table[0].endswith("| The soup is cold. | negative |\n| Saya suka supnya. |")
    assert plain[0].endswith("positive?\n\nSaya suka supnya.\n")
    assert "|icl:mono2," in by_mono
    assert "|icl:cross2," in by_table
    assert "icl:" not in by_plain
    tasks = json.loads((tmp_path / "evals/coit-70/scores.json").read_text("utf-8"))["tasks"]
    assert tasks["mood.ind_Latn"]["in_context"] == ""


def test_states_of_the_model_that_answers_choose_the_exemplars(home, tmp_path):
    arm = {"exemplars": "mono", "retrieval": ["states", "tfidf"]}
    config, task = configured(**arm), asked(home, "mood.ind_Latn", **arm)
    scores = run(tmp_path, [task], config=config, tokenizer=ANY_TEXT)
    assert "states-auto+tfidf" in scores[0].signature
    written = lines(tmp_path / "evals/coit-70/mood.ind_Latn.jsonl")
    assert all(line["prompt"].count("=>") == 3 for line in written)
    assert list((tmp_path / "vectors").rglob("*.npz"))
    assert is_evaluated([task], "coit", 70, config=config, folder=tmp_path)


def test_an_encoder_that_is_not_installed_is_told_before_a_model_is_opened(monkeypatch):
    monkeypatch.setattr(encoder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"eval.in_context.encoder: .* is not installed"):
        ask.check_retrieval(configured(exemplars="mono", retrieval=["encoder"]))
    ask.check_retrieval(configured(retrieval=["encoder"]))  # nothing is looked for


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "does not exist; give a folder"), ("", "given, which has no modules.json")],
)
def test_a_name_that_is_no_encoders_is_told_before_a_model_is_opened(tmp_path, name, message):
    given = str(tmp_path / name)
    with pytest.raises(ConfigError, match=f"^eval.in_context.encoder: '{given}' {message}"):
        ask.check_retrieval(configured(exemplars="mono", retrieval=["encoder"], encoder=given))


def test_a_layer_is_compared_with_those_of_a_model_that_is_not_opened():
    two, states = (lambda: 2), {"exemplars": "mono", "retrieval": ["states"]}
    with pytest.raises(ConfigError, match=r"^eval.in_context.layer: 3 given; the model has 0, .* to 2;"):
        ask.check_states(configured(**states, layer=3), two)
    ask.check_states(configured(**states, layer=2), two)
    ask.check_states(configured(**states), two)
    ask.check_states(configured(exemplars="mono", layer=3), two)  # nothing asks for states


def test_an_answer_in_a_table_is_scored_as_it_is_meant(home, tmp_path, monkeypatch):
    def write_cell(*_, on_answer, **__):
        for index in range(2):
            on_answer(index, Answer(np.array([1], np.int32), r" Praune \| anyar. | Sope", "eos"))

    monkeypatch.setattr(answer, "generate", write_cell)
    arm = {"exemplars": "mono", "format": "table"}
    task = asked(home, "say.ind_Latn-jav_Latn", **arm)
    run(tmp_path, [task], config=configured(**arm), tokenizer=ANY_TEXT)
    written = lines(tmp_path / "evals/coit-70/say.ind_Latn-jav_Latn.jsonl")
    assert [line["prediction"] for line in written] == ["Praune | anyar."] * 2
