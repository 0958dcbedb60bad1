"""Vectors: nearest by hidden states, and kept so that a model reads each text once."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxlingua.config import ShardingConfig
from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.retrieval import vectors
from jaxlingua.eval.in_context.retrieval.states import states_retriever
from jaxlingua.eval.in_context.retrieval.vectors import KeptVectors, cosines
from jaxlingua.generate.states import sentence_vectors
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from tests.tiny import tiny_llama_config, tiny_parallel, tiny_tokenizer

MODEL = Llama(tiny_llama_config(max_positions=96))
POOL = [text for lines in tiny_parallel().values() for text in lines[:10]]
MESH = {"data": 1, "fsdp": 1, "tensor": 1}


@functools.cache
def world():
    rows = np.zeros((1, 8), np.int32)
    mesh = make_mesh(ShardingConfig.model_validate({"mesh": MESH}), jax.devices()[:1])
    params = nn.unbox(jax.jit(MODEL.init)(jax.random.key(0), rows, rows, rows))["params"]
    return jax.device_put(params, param_shardings(MODEL, mesh)), mesh


def retriever(layer: int | str = "auto", changed: dict | None = None, **kept):
    params, mesh = world()
    model = Llama(dataclasses.replace(MODEL.config, **(changed or {})))
    return states_retriever(model, params, tiny_tokenizer(), layer=layer, mesh=mesh, batch_rows=16, **kept)


class Encoder:
    """Vectors of the letters of a text; counts what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        return np.array([[len(text), text.count("a"), ord(text[0]), 1] for text in texts], np.float32)


# ── states ───────────────────────────────────────────────────────────────────
def test_scores_are_cosines_of_the_middle_layer():
    params, mesh = world()
    mean = sentence_vectors(MODEL, params, tiny_tokenizer(), POOL, batch_rows=16, mesh=mesh).mean
    assert len(mean) == 3  # embeddings and two layers
    for layer, wanted in ((0, 0), ("auto", 1), (2, 2)):
        rows = mean[wanted] / np.linalg.norm(mean[wanted], axis=1, keepdims=True)
        found = retriever(layer).scores(POOL[:7], POOL)
        np.testing.assert_allclose(found, rows[:7] @ rows.T, rtol=0, atol=1e-5)


def test_a_query_finds_itself_first_by_states():
    found = retriever().scores(POOL, POOL)
    assert (found.argmax(axis=1) == np.arange(len(POOL))).all()


def test_a_layer_that_the_model_does_not_have_is_refused():
    with pytest.raises(
        ConfigError, match=r"^eval.in_context.layer: 3 given; the model has 0, its embeddings, to 2;"
    ):
        retriever(3)


def test_states_are_kept_by_model_and_layer(tmp_path, monkeypatch):
    one = {"folder": tmp_path, "fingerprint": "one"}
    wanted = retriever(**one).scores(POOL[:3], POOL)
    monkeypatch.setattr("jaxlingua.eval.in_context.retrieval.states.sentence_vectors", None)
    assert (retriever(**one).scores(POOL[:3], POOL) == wanted).all()
    others = [{"fingerprint": "two"}, {"layer": 2}]
    others += [{"changed": {"compute_dtype": "bfloat16"}}, {"changed": {"max_positions": 64}}]
    for other in others:
        with pytest.raises(TypeError):
            retriever(**{**one, **other}).scores(POOL[:3], POOL)


# ── what is kept ─────────────────────────────────────────────────────────────
def test_each_text_is_read_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "TEXTS_TOGETHER", 3)
    encoder, texts = Encoder(), ["a dog", "cat", "ไป", "a dog", "banana", "\n", "owl"]
    first = KeptVectors(tmp_path, "encoder", "x").of(texts, encoder)
    assert (first == Encoder()(texts)).all()
    assert sorted(encoder.asked) == sorted(set(texts))
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    again = KeptVectors(tmp_path, "encoder", "x")
    assert (again.of([*texts, "emu"], encoder)[:-1] == first).all()
    assert encoder.asked[6:] == ["emu"]
    assert (again.of(["emu", "cat"], None) == Encoder()(["emu", "cat"])).all()


def test_nothing_is_written_without_a_folder():
    encoder, kept = Encoder(), KeptVectors(None, "encoder")
    assert (kept.of(["cat", "owl"], encoder) == kept.of(["cat", "owl"], None)).all()


@pytest.mark.parametrize("whose", [("encoder", "y"), ("states", "x"), ("encoder",), ("encoderx",)])
def test_another_retriever_or_model_shares_nothing(tmp_path, whose):
    KeptVectors(tmp_path, "encoder", "x").of(["cat"], Encoder())
    encoder = Encoder()
    KeptVectors(tmp_path, *whose).of(["cat"], encoder)
    assert encoder.asked == ["cat"]


def test_what_was_cut_off_is_made_again(tmp_path, monkeypatch):
    """Killed before a file is in its place, or the file torn by a disk: all else is still known."""
    monkeypatch.setattr(vectors, "TEXTS_TOGETHER", 2)
    replace, texts = vectors.os.replace, ["a", "bb", "ccc", "dddd"]
    moved = []

    def killed(beside, path):
        if moved:
            raise KeyboardInterrupt
        moved.append(path)
        replace(beside, path)

    monkeypatch.setattr(vectors.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        KeptVectors(tmp_path, "x").of(texts, Encoder())
    monkeypatch.setattr(vectors.os, "replace", replace)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == moved
    encoder = Encoder()
    wanted = KeptVectors(tmp_path, "x").of(texts, encoder)
    assert encoder.asked == ["ccc", "dddd"]

    whole = moved[0].read_bytes()
    for torn in (b"", whole[:40], whole[: len(whole) // 2], whole[:-1], whole[:-30].ljust(len(whole), b"x")):
        moved[0].write_bytes(torn)
        encoder = Encoder()
        assert (KeptVectors(tmp_path, "x").of(texts, encoder) == wanted).all()
        assert encoder.asked == ["a", "bb"]


def test_a_vector_of_length_0_is_near_to_nothing():
    found = cosines(np.array([[0, 0], [3, 4]], np.float32), np.array([[6, 8], [0, 0], [-4, 3]], np.float32))
    assert found.tolist() == [[0, 0, 0], [1, 0, 0]]
