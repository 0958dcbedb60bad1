"""Log-likelihood: what the model itself gives, whatever the batch, the padding, the packing and the mesh."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.config import ShardingConfig
from jaxlingua.errors import ConfigError, DataError, ShardingError
from jaxlingua.generate import likelihood
from jaxlingua.generate.likelihood import Continuation, Likelihood, likelihoods
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from tests.generate.reversing import CONFIG, EOS, VOCAB, prompts, trained

FP32_SUM = 1e-4  # of a sum of up to 70 log-probabilities
MESHES = {"one": (1, 1, 1), "fsdp": (1, 8, 1), "all": (2, 2, 2)}


def mesh_of(name: str) -> jax.sharding.Mesh:
    data, fsdp, tensor = MESHES[name]
    config = ShardingConfig.model_validate({"mesh": {"data": data, "fsdp": fsdp, "tensor": tensor}})
    return make_mesh(config, jax.devices()[: data * fsdp * tensor])


def questions(count: int, seed: int) -> list[Continuation]:
    """Half of the answers are right, so that some are the most probable ones; one item is long."""
    rng = np.random.default_rng(seed)
    made = []
    for number, prompt in enumerate(prompts(count, seed)):
        tokens = np.array([*prompt[-2:0:-1], EOS], np.int32)
        if number % 2:
            tokens = rng.permutation(tokens)[: rng.integers(1, len(tokens) + 1)].astype(np.int32)
        made.append(Continuation(prompt, tokens))
    return [*made, Continuation(np.concatenate(prompts(12, seed)), made[0].tokens)]


def scored(items, model, params, mesh_name="one", **changed) -> list[Likelihood]:
    mesh = mesh_of(mesh_name)
    params = jax.device_put(params, param_shardings(model, mesh))
    return likelihoods(model, params, items, mesh=mesh, **({"vocab_size": VOCAB, "batch_rows": 64} | changed))


def assert_equal(given: list[Likelihood], wanted: list[Likelihood]) -> None:
    for one, other in zip(given, wanted, strict=True):
        assert (one.tokens, one.prompt_tokens) == (other.tokens, other.prompt_tokens)
        assert one.is_greedy == other.is_greedy
        sums = (one.logprob, one.prompt_logprob)
        np.testing.assert_allclose(sums, (other.logprob, other.prompt_logprob), rtol=0, atol=FP32_SUM)


def directly(items, model, params, layout: str) -> list[Likelihood]:
    """Through the model alone: all rows at once, padded left or right, or all in one packed row."""
    documents = [np.concatenate([one.prompt, one.tokens]) for one in items]
    if layout == "packed":
        tokens = np.concatenate(documents)[None]
        positions = np.concatenate([np.arange(len(document)) for document in documents])[None]
        segments = np.concatenate([np.full(len(row), number) for number, row in enumerate(documents, 1)])[
            None
        ]
        starts = np.cumsum([0, *map(len, documents[:-1])])
        places = [(0, start) for start in starts]
    else:
        longest = max(map(len, documents))
        tokens, positions, segments = (np.zeros((len(items), longest), int) for _ in range(3))
        places = []
        for row, document in enumerate(documents):
            start = longest - len(document) if layout == "left" else 0
            own = slice(start, start + len(document))
            tokens[row, own], positions[row, own], segments[row, own] = document, np.arange(len(document)), 1
            places.append((row, start))
    inputs = (jnp.asarray(array, jnp.int32) for array in (tokens, positions, segments))
    logits = np.asarray(model.apply({"params": params}, *inputs), np.float64)[..., :VOCAB]
    made = []
    for one, document, (row, start) in zip(items, documents, places, strict=True):
        scores = logits[row, start : start + len(document) - 1]
        of_target = scores[np.arange(len(scores)), document[1:]]
        logprobs = of_target - np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) - scores.max(1)
        cut = len(one.prompt) - 1
        greedy = bool((scores.argmax(1) == document[1:])[cut:].all())
        made.append(Likelihood(logprobs[cut:].sum(), len(one.tokens), logprobs[:cut].sum(), cut, greedy))
    return made


@pytest.mark.parametrize("layout", ["left", "right", "packed"])
def test_likelihoods_are_those_of_the_model_in_any_layout(layout):
    model, params = trained(steps=120)
    items = questions(15, seed=1)
    given = scored(items, model, params)
    assert_equal(given, directly(items, model, params, layout))
    assert {one.is_greedy for one in given} == {True, False}


def test_likelihoods_do_not_depend_on_the_batch_or_the_order():
    model, params = trained(steps=120)
    items = questions(15, seed=2)
    expected = scored(items, model, params, batch_rows=1)
    for batch_rows in (3, 64):
        assert_equal(scored(items, model, params, batch_rows=batch_rows), expected)
    order = np.random.default_rng(0).permutation(len(items))
    shuffled = scored([items[index] for index in order], model, params, batch_rows=3)
    assert_equal(shuffled, [expected[index] for index in order])


@pytest.mark.parametrize("mesh_name", ["fsdp", "all"])
def test_likelihoods_do_not_depend_on_the_mesh(mesh_name):
    model, params = trained(steps=120)
    items = questions(15, seed=3)
    assert_equal(scored(items, model, params, mesh_name), scored(items, model, params))


def test_chunks_of_positions_change_nothing(monkeypatch):
    """Logits are never whole: a chunk of 5 positions does not divide any padded length."""
    model, params = trained(steps=120)
    items = questions(6, seed=4)
    expected = scored(items, model, params, "all", batch_rows=8)
    monkeypatch.setattr(likelihood, "_CHUNK_POSITIONS", 10)  # rows are spread over four devices: 2 on each
    likelihood._scorer.cache_clear()
    assert_equal(scored(items, model, params, "all", batch_rows=8), expected)
    mesh = mesh_of("all")
    rows = [jax.ShapeDtypeStruct((8, 96), jnp.int32)] * 4
    text = likelihood._scorer(model, mesh, VOCAB).lower(params, *rows).as_text()
    likelihood._scorer.cache_clear()
    assert "tensor<8x5x32xf32>" in text
    assert "tensor<8x96x32xf32>" not in text


def test_ids_beyond_the_tokenizer_have_no_share():
    model, params = trained(steps=120)
    items = questions(15, seed=5)
    expected = scored(items, model, params)
    kernel = params["head"]["kernel"]
    params = {**params, "head": {"kernel": kernel.at[:, VOCAB:].set(100 * kernel[:, VOCAB - 32 :])}}
    assert scored(items, model, params) == expected
    unmasked = scored(items, model, params, vocab_size=32)
    assert (
        sum(one.prompt_logprob - other.prompt_logprob for one, other in zip(expected, unmasked, strict=True))
        > 1
    )


def test_bfloat16_is_near():
    """The softmax is in float32 all the same, so that log-probabilities are not rounded to 8 bits."""
    model, params = trained(steps=120)
    items = questions(15, seed=6)
    low = Llama(replace(CONFIG, compute_dtype="bfloat16"))
    given, wanted = (scored(items, each, params) for each in (low, model))
    np.testing.assert_allclose([one.per_token for one in given], [one.per_token for one in wanted], rtol=0.1)
    of_one_token = [one.logprob for one in given if one.tokens == 1]
    assert any(float(jnp.bfloat16(logprob)) != logprob for logprob in of_one_token)
    assert all(one.logprob < 0 for one in given)


def test_the_ways_of_counting():
    model, params = trained(steps=120)
    one = scored(questions(1, seed=7), model, params)[0]
    assert one.per_token == one.logprob / one.tokens
    assert one.per_character("ab") == one.logprob / 2
    assert one.whole_sequence == (one.prompt_logprob + one.logprob) / (one.prompt_tokens + one.tokens)


def test_the_whole_sequence_is_the_loss_of_the_text():
    """The papers' mode: minus the mean cross-entropy over prompt and continuation, wherever it is cut."""
    model, params = trained(steps=120)
    document = np.concatenate(prompts(3, seed=8))
    cuts = [Continuation(document[:cut], document[cut:]) for cut in range(1, len(document))]
    values = [one.whole_sequence for one in scored(cuts, model, params)]
    np.testing.assert_allclose(values, values[0], atol=1e-6)


def test_answers_are_told_as_they_come_and_progress_counts():
    model, params = trained(steps=120)
    items = questions(8, seed=9)
    told, progress = {}, []
    given = scored(
        items, model, params, batch_rows=4,
        on_answer=told.__setitem__, on_progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    assert [told[index] for index in range(len(items))] == given
    assert next(iter(told)) == len(items) - 1  # the longest one
    assert progress == [(4, 9), (8, 9), (9, 9)]
    assert scored([], model, params) == []


def test_a_text_may_fill_the_model_and_no_more():
    """All tokens but the last are read, so one more than model.max_positions can be scored."""
    model, params = trained(steps=120)
    full = Continuation(np.resize(prompts(1, seed=10)[0], 130), np.full(31, EOS, np.int32))
    assert scored([full], model, params)[0].prompt_tokens == 129
    long = Continuation(full.prompt, np.full(32, EOS, np.int32))
    with pytest.raises(
        DataError, match="likelihood: item 1 has 130 prompt and 32 continuation tokens; at most 161"
    ):
        scored([full, long], model, params)


def test_what_cannot_be_scored_is_refused():
    model, params = trained(steps=120)
    good = questions(1, seed=11)[0]
    none = np.empty(0, np.int32)
    with pytest.raises(
        DataError, match="likelihood: item 1 has a prompt without tokens; 1 or more .* put BOS"
    ):
        scored([good, Continuation(none, good.tokens)], model, params)
    with pytest.raises(DataError, match="item 0 has a continuation without tokens"):
        scored([Continuation(good.prompt, none)], model, params)
    with pytest.raises(DataError, match="item 0 has id 20; 0 to 19 are known; encode it with the tokenizer"):
        scored([Continuation(good.prompt, np.array([VOCAB], np.int32))], model, params)
    with pytest.raises(ConfigError, match="likelihood: vocab_size=33 given; the model has 32 rows"):
        scored([good], model, params, vocab_size=33)
    with pytest.raises(ShardingError, match="generate.batch_rows: 12 rows cannot be split"):
        scored([good], model, params, "fsdp", batch_rows=12)


@pytest.mark.parametrize("place", ["prompt", "tokens"])
def test_logits_that_are_not_finite_are_refused(place):
    model, params = trained()
    letter = 9
    broken = {**params, "embed": {"embedding": params["embed"]["embedding"].at[letter].set(np.nan)}}
    good = Continuation(np.array([1, 5, 3], np.int32), np.array([5, EOS], np.int32))
    bad = replace(good, **{place: np.array([1, letter, 5], np.int32)})
    with pytest.raises(
        DataError, match="likelihood: item 1: the model's logits are not finite; .* another step$"
    ):
        scored([good, bad, good], model, broken)
    assert_equal(scored([good, good], model, broken), scored([good, good], model, params))
