"""What stops prompts is told by both pages before data is packed, and before a model answers."""

import dataclasses
from pathlib import Path

import pytest

from jaxlingua.eval import __main__ as eval_page
from jaxlingua.eval import evaluate
from jaxlingua.tokens import stages, tokenizer
from jaxlingua.train import open_model
from tests.eval.in_context.world import write
from tests.flow.small import train, write_config
from tests.flow.test_eval import public, refused

ARMS = {
    "encoder": (["retrieval=[encoder]", "encoder=./nowhere"], "encoder: './nowhere' does not exist"),
    "layer": (["retrieval=[states]", "layer=99"], "layer: 99 given; the model has 0, its embeddings, to"),
    "labels": (["retrieval=[random]"], "choice 'neutral' tokenizes to nothing"),
    "translate": (["exemplars=none", "translate_test=./nowhere"], "translate_test: model.path: './nowhere' does"),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write(folder)
    public(folder / "model")
    return folder


@pytest.fixture(params=ARMS)
def arm(request, home, monkeypatch) -> tuple[list[str], str]:
    """Options of an evaluation that cannot be, and what is told of it."""
    given, message = ARMS[request.param]
    known = tokenizer.load_tokenizer

    def without_neutral(*args, **options):
        found = known(*args, **options)

        def encode(texts, continuation):
            return found.encode_pieces(["" if text == "neutral" else text for text in texts], continuation)

        return dataclasses.replace(found, encode_pieces=encode)

    if request.param == "labels":
        monkeypatch.setattr(tokenizer, "load_tokenizer", without_neutral)
        monkeypatch.setattr(open_model, "load_tokenizer", without_neutral)
    options = [f"eval.in_context.{each}" for each in ("exemplars=mono", *given)]
    where = [f"eval.data_folder={home}", f"eval.task_folder={home / 'tasks'}", "eval.tasks=[mood.ind_Latn]"]
    return [*where, *options], message


def never(*args, **options):
    raise AssertionError("work was spent")


def test_before_data_is_packed(arm, tmp_path, monkeypatch, capsys):
    options, message = arm
    monkeypatch.setattr(stages, "make_stages", never)
    with pytest.raises(SystemExit) as stop:
        train(write_config(tmp_path / "small.yaml"), *options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_before_items_are_compared_with_the_training_data(arm, home, tmp_path, monkeypatch, capsys):
    options, message = arm
    monkeypatch.setattr(evaluate, "overlaps_of", never)
    if "translate_test" in options[-1]:
        monkeypatch.setattr(eval_page, "candidates_of", never)
    assert message in refused(capsys, home / "model", f"run.folder={tmp_path / 'run'}", *options)
