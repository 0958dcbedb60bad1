"""A sentence encoder of sentence-transformers, made up and tiny, saved as those of the hub are."""

import importlib.util

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sklearn.metrics.pairwise import cosine_similarity
from transformers import BertConfig, BertModel, BertTokenizerFast

from jaxlingua.errors import ConfigError
from jaxlingua.eval.in_context.retrieval.encoder import check_encoder, encoder_retriever
from tests.tiny import tiny_parallel

POOL = [text for lines in tiny_parallel().values() for text in lines[:10]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two layers of width 16 over single characters."""
    inside, outside = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("encoder")
    letters = sorted(set("".join(POOL)) - {" "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (inside / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    BertTokenizerFast(str(inside / "vocab.txt"), strip_accents=False).save_pretrained(inside)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(pieces), **sizes)).save_pretrained(inside)
    transformer = Transformer(str(inside))
    SentenceTransformer(modules=[transformer, Pooling(16)]).save(str(outside))
    return outside


def test_scores_are_cosines_of_its_vectors_and_a_query_finds_itself(folder):
    vectors = SentenceTransformer(str(folder)).encode(POOL)
    found = encoder_retriever(str(folder)).scores(POOL[:9], POOL)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, cosine_similarity(vectors[:9], vectors), rtol=0, atol=1e-5)
    assert (found.argmax(axis=1) == np.arange(9)).all()
    assert np.ptp(found) > 0.01


def test_vectors_are_kept_by_the_encoders_files(folder, tmp_path, monkeypatch):
    wanted = encoder_retriever(str(folder), tmp_path).scores(POOL[:3], POOL)
    monkeypatch.setattr("jaxlingua.eval.in_context.retrieval.encoder._opened", None)
    assert (encoder_retriever(str(folder), tmp_path).scores(POOL[:3], POOL) == wanted).all()
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(TypeError):
            encoder_retriever(str(folder), tmp_path).scores(POOL[:3], POOL)
    finally:
        weights.write_bytes(before)


def test_what_cannot_be_read_is_refused_in_one_line(folder, tmp_path):
    with pytest.raises(
        ConfigError, match=r"^eval.in_context.encoder: '.*' given, which has no modules.json; [^\n]*$"
    ):
        encoder_retriever(str(tmp_path))
    (tmp_path / "modules.json").write_bytes((folder / "modules.json").read_bytes())
    with pytest.raises(
        ConfigError,
        match=r"^eval.in_context.encoder: '.*' given, which sentence-transformers cannot read \([^\n]*$",
    ):
        encoder_retriever(str(tmp_path)).scores(["a"], ["b"])


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"^eval.in_context.encoder: 'a/b' given, .*pip install 'jaxlingua\[encoder\]'"
    ):
        check_encoder("a/b")
