"""Vectors of sentences: what the model itself gives, whatever stands beside them in a batch."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy.stats import binom

from jaxlingua.analysis.alignment.measures import cosines, retrieved
from jaxlingua.config import ShardingConfig
from jaxlingua.errors import DataError, ShardingError
from jaxlingua.generate.states import POOLINGS, _pooler, sentence_vectors
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from tests.tiny import tiny_llama_config, tiny_parallel, tiny_tokenizer

FP32 = 1e-5
MODEL = Llama(tiny_llama_config(max_positions=96))
TEXTS = [*tiny_parallel()["eng_Latn"][:5], *tiny_parallel()["tha_Thai"][:4], "a dog " * 8, "x"]
TOKENIZER = tiny_tokenizer()
WITHOUT_BOS = dataclasses.replace(TOKENIZER, bos_id=None)


@functools.cache
def params() -> dict:
    rows = np.zeros((1, 8), np.int32)
    return nn.unbox(jax.jit(MODEL.init)(jax.random.key(0), rows, rows, rows))["params"]


def mesh_of(**sizes: int) -> jax.sharding.Mesh:
    config = ShardingConfig.model_validate({"mesh": {"data": 1, "fsdp": 1, "tensor": 1, **sizes}})
    return make_mesh(config, jax.devices()[: np.prod(list(sizes.values()), dtype=int)])


def made(texts=TEXTS, tokenizer=TOKENIZER, weights=None, *, batch_rows=16, **sizes):
    mesh = mesh_of(**sizes)
    weights = jax.device_put(weights or params(), param_shardings(MODEL, mesh))
    return sentence_vectors(MODEL, weights, tokenizer, texts, batch_rows=batch_rows, mesh=mesh)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WITHOUT_BOS], ids=["BOS", "no BOS"])
def test_vectors_are_those_of_a_sentence_alone_without_padding(tokenizer):
    """The mean is over the sentence's own tokens; the last token is the last one that was read."""
    apply = jax.jit(functools.partial(MODEL.apply, method=Llama.hidden_states))
    found = made(tokenizer=tokenizer)
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    for place, text in enumerate(TEXTS):
        own = tokenizer.encode_batch([text])[0].ids
        tokens = np.array([[*bos, *own]], np.int32)
        states = apply({"params": params()}, tokens, np.arange(tokens.shape[1])[None], np.ones_like(tokens))
        states = np.asarray(states)[:, 0]
        wanted = states[:, len(bos) :].mean(axis=1)
        np.testing.assert_allclose(found.mean[:, place], wanted, rtol=0, atol=FP32)
        np.testing.assert_allclose(found.last[:, place], states[:, -1], rtol=0, atol=FP32)
        assert (found.tokens[place], found.cut[place]) == (len(own), 0)


@pytest.mark.parametrize(
    "changed",
    [{"batch_rows": 2}, {"batch_rows": 64}, {"batch_rows": 16, "fsdp": 8}, {"data": 2, "tensor": 2}],
)
def test_vectors_know_neither_batch_nor_padding_nor_mesh(changed):
    wanted, found = made(), made(**changed)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=0, atol=FP32)
    np.testing.assert_allclose(found.last, wanted.last, rtol=0, atol=FP32)


def test_rows_that_the_mesh_cannot_take_are_refused():
    with pytest.raises(ShardingError, match=r"generate\.batch_rows"):
        made(batch_rows=3, data=2)


def test_identical_sentences_are_found_at_every_layer():
    """In batches of three, in another order. Last tokens are found among those that end alike."""
    english = list(tiny_parallel()["eng_Latn"][:40])
    one, other = made(english), made(english[::-1], batch_rows=3)
    for x, y in zip(one.mean, other.mean[:, ::-1], strict=True):
        assert (retrieved(cosines(x, y)) == 1).all()
    ends = [TOKENIZER.encode_batch([text])[0].ids[-1] for text in english]
    of_embeddings = retrieved(cosines(one.last[0], other.last[0, ::-1]))
    np.testing.assert_allclose(of_embeddings, [1 / ends.count(end) for end in ends])
    for x, y in zip(one.last[1:], other.last[1:, ::-1], strict=True):
        assert (retrieved(cosines(x, y)) == 1).all()


def test_shuffled_sentences_are_found_by_chance_at_every_layer():
    """The same states as in the test above; only which sentence is said to be which is shuffled."""
    english = list(tiny_parallel()["eng_Latn"][:40])
    states, shuffles = made(english), 25
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(english)) for _ in range(shuffles)]
    # A shuffle leaves one sentence in its place on average, and their number varies by one.
    low, high = binom.interval(0.9999, shuffles * len(english), 1 / len(english))
    for pooling in POOLINGS:
        for x in states.of(pooling):
            found = sum(retrieved(cosines(x, x[order])).sum() for order in orders)
            assert low <= found <= high


def test_equal_texts_have_equal_vectors_in_whichever_batch_they_stand():
    found = made([*TEXTS, TEXTS[0]], batch_rows=2)
    assert (found.mean[:, 0] == found.mean[:, -1]).all()
    assert (found.last[:, 0] == found.last[:, -1]).all()


def test_a_program_is_compiled_for_each_length():
    _pooler.cache_clear()
    made(batch_rows=4)
    made(batch_rows=4)
    pool = _pooler(MODEL, mesh_of(), 1)
    assert pool.compile_count() == len({32, 64})  # of TEXTS, of which one is long


def test_sentences_that_are_too_long_are_cut_and_counted():
    long = "a dog " * 80
    count = len(TOKENIZER.encode_batch([long])[0].ids)
    found = made([long, "x"])
    assert found.tokens.tolist() == [95, 1]  # behind the BOS
    assert found.cut.tolist() == [count - 95, 0]


def test_a_model_that_is_broken_is_told_with_layer_and_sentence():
    broken = jax.tree.map(np.asarray, params())
    scale = broken["layers"]["mlp_norm"]["scale"].copy()
    scale[1] = np.nan
    broken = {**broken, "layers": {**broken["layers"], "mlp_norm": {"scale": scale}}}
    with pytest.raises(
        DataError, match=r"states: those of layer 2 are not finite for 'x'; the model's weights"
    ):
        made(["x"], weights=broken)


def test_a_text_without_tokens_is_refused():
    with pytest.raises(DataError, match="'' has no token; a sentence needs one; leave it out"):
        made(["x", ""])
