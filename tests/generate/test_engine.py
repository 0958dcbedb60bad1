"""Generation: equal to the model without cache, whatever the batch, the padding and the mesh."""

import re
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.config import ShardingConfig
from jaxlingua.errors import ConfigError, DataError, ShardingError
from jaxlingua.generate import engine
from jaxlingua.generate.engine import cut_prompts, generate, padded_length, prompt_room
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import batch_sharding, param_shardings
from tests.generate.reversing import CONFIG, EOS, FIRST, PAD, VOCAB, prompts, trained

NEW = 12
MESHES = {"one": (1, 1, 1), "fsdp": (1, 8, 1), "all": (2, 2, 2)}


def mesh_of(name: str) -> jax.sharding.Mesh:
    data, fsdp, tensor = MESHES[name]
    config = ShardingConfig.model_validate({"mesh": {"data": data, "fsdp": fsdp, "tensor": tensor}})
    return make_mesh(config, jax.devices()[: data * fsdp * tensor])


def answers(questions, model, params, mesh_name="one", **changed) -> list[list[int]]:
    mesh = mesh_of(mesh_name)
    params = jax.device_put(params, param_shardings(model, mesh))
    options = {"max_new_tokens": NEW, "eos_id": EOS, "pad_id": PAD, "vocab_size": VOCAB, "batch_rows": 16}
    return [row.tolist() for row in generate(model, params, questions, mesh=mesh, **(options | changed))]


def answers_without_cache(questions, model, params, new: int = NEW) -> list[list[int]]:
    """The whole prompt again for every token, each prompt alone, at the left of a row of one length."""

    @jax.jit
    def logits(tokens, length):
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        segments = (positions < length).astype(jnp.int32)
        return model.apply({"params": params}, tokens, positions, segments)[0, length - 1]

    written = []
    for question in questions:
        row = question.tolist()
        while len(row) < len(question) + new:
            padded = np.zeros((1, 64), np.int32)
            padded[0, : len(row)] = row
            token = int(np.argmax(np.asarray(logits(padded, len(row)))[:VOCAB]))
            if token == EOS:
                break
            row.append(token)
        written.append(row[len(question) :])
    return written


def test_the_trained_model_mostly_answers_right():
    """Otherwise the tests below would compare noise."""
    questions = prompts(64, seed=7)
    given = answers(questions, *trained())
    right = np.mean(
        [answer == question[-2:0:-1].tolist() for answer, question in zip(given, questions, strict=False)]
    )
    assert right > 0.5
    assert len({len(answer) for answer in given}) > 5


@pytest.mark.parametrize("tie_embeddings", [False, True])
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_answers_are_those_of_the_model_without_cache(compute_dtype, tie_embeddings):
    model, params = trained(replace(CONFIG, compute_dtype=compute_dtype, tie_embeddings=tie_embeddings))
    questions = prompts(24, seed=1)
    assert answers(questions, model, params) == answers_without_cache(questions, model, params)


def test_answers_do_not_depend_on_batch_or_order():
    """Others have seen scores move with the batch size: padding was attended to, or shifted the positions."""
    model, params = trained()
    long = np.concatenate(prompts(12, seed=3))
    questions = [*prompts(50, seed=2), long]
    expected = answers(questions, model, params, batch_rows=1)
    for batch_rows in (8, 16, 64):
        assert answers(questions, model, params, batch_rows=batch_rows) == expected
    order = np.random.default_rng(0).permutation(len(questions))
    shuffled = answers([questions[index] for index in order], model, params, batch_rows=8)
    assert shuffled == [expected[index] for index in order]


@pytest.mark.parametrize("mesh_name", ["fsdp", "all"])
def test_answers_do_not_depend_on_the_mesh(mesh_name):
    model, params = trained()
    questions = prompts(20, seed=5)
    assert answers(questions, model, params, mesh_name) == answers(questions, model, params)


def test_an_answer_ends_before_its_eos_or_at_the_limit():
    model, params = trained()
    questions = prompts(40, seed=6)
    free, limited = answers(questions, model, params), answers(questions, model, params, max_new_tokens=3)
    assert all(EOS not in answer for answer in free)
    assert limited == [answer[:3] for answer in free]
    assert max(map(len, limited)) == 3
    assert min(map(len, limited)) < 3


def test_ids_beyond_the_tokenizer_are_never_written():
    model, params = trained()
    kernel = params["head"]["kernel"]
    params = {**params, "head": {"kernel": kernel.at[:, VOCAB:].set(100 * kernel[:, VOCAB - 32 :])}}
    questions = prompts(16, seed=8)
    assert answers(questions, model, params) == answers(questions, *trained())
    unmasked = answers(questions, model, params, vocab_size=32)
    assert max(token for answer in unmasked for token in answer) >= VOCAB


def test_decoding_stops_when_all_rows_have_ended():
    """The same program with a head that writes EOS at once takes a small part of the time."""
    model, params = trained(replace(CONFIG, max_positions=2048))
    seconds = []
    for favored in (EOS, FIRST):
        kernel = jnp.zeros_like(params["head"]["kernel"])
        scale = jnp.zeros_like(params["final_norm"]["scale"]).at[0].set(1.0)
        # The first value of the residual stream is large, and the head looks at nothing else.
        embedding = params["embed"]["embedding"].at[:, 0].set(50.0)
        constant = {"head": {"kernel": kernel.at[0, favored].set(1.0)}, "final_norm": {"scale": scale}}
        changed = {**params, **constant, "embed": {"embedding": embedding}}
        answers(prompts(8, seed=9), model, changed, max_new_tokens=1500, batch_rows=8)
        start = time.perf_counter()
        written = answers(prompts(8, seed=9), model, changed, max_new_tokens=1500, batch_rows=8)
        seconds.append(time.perf_counter() - start)
        assert {len(answer) for answer in written} == ({0} if favored == EOS else {1500})
    assert seconds[0] < seconds[1] / 4


def test_the_same_shapes_are_compiled_once():
    engine._decoder.cache_clear()
    model, params = trained()
    for seed in (10, 11):
        answers(prompts(20, seed=seed), Llama(CONFIG), params)
    decode = engine._decoder(model, mesh_of("one"), NEW, EOS, PAD, VOCAB)
    assert engine._decoder.cache_info().misses == 1
    assert decode.compile_count() == 1


def test_the_cache_is_spread_over_the_mesh():
    """Rows over data and fsdp, key heads over tensor: each of 8 devices holds an eighth of it."""
    model, params = trained()
    largest = {}
    for name in ("one", "all"):
        mesh = mesh_of(name)
        placed = jax.device_put(params, param_shardings(model, mesh))
        rows = jax.device_put(np.ones((256, 128), np.int32), batch_sharding(mesh))
        lengths = jax.device_put(np.full(256, 128, np.int32), batch_sharding(mesh))
        compiled = engine._decoder(model, mesh, 32, EOS, PAD, VOCAB).lower(placed, rows, lengths).compile()
        cache = re.search(r"f32\[2,\d+,160,\d+,16\]", compiled.as_text())
        largest[name] = cache.group(0)
    assert largest == {"one": "f32[2,256,160,2,16]", "all": "f32[2,64,160,1,16]"}


def test_progress_counts_prompts():
    seen = []
    answers(prompts(20, seed=12), *trained(), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 20), (20, 20)]
    assert answers([], *trained()) == []


def test_prompts_are_padded_to_few_lengths():
    assert sorted({padded_length(tokens) for tokens in range(1, 1025)}) == [
        32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024,
    ]  # fmt: skip
    assert all(tokens <= padded_length(tokens) <= max(32, 1.5 * tokens) for tokens in range(1, 1025))


def test_a_cut_prompt_keeps_its_bos_and_its_end():
    short, long = np.array([1, 5, 6]), np.array([1, 5, 6, 7, 8, 9])
    kept, lost = cut_prompts([short, long], room=4, bos_id=1)
    assert [row.tolist() for row in kept] == [[1, 5, 6], [1, 7, 8, 9]]
    assert lost == [0, 2]
    kept, lost = cut_prompts([long], room=4, bos_id=None)
    assert kept[0].tolist() == [6, 7, 8, 9]
    assert lost == [2]


def test_what_cannot_be_answered_is_refused():
    model, params = trained()
    with pytest.raises(DataError, match="generate: prompt 1 has 0 tokens; 1 to 148 leave room"):
        answers([np.array([1], np.int32), np.array([], np.int32)], model, params)
    with pytest.raises(DataError, match="prompt 0 has 149 tokens; .*model.max_positions=160; cut it"):
        answers([np.ones(149, np.int32)], model, params)
    with pytest.raises(ConfigError, match="generate.max_new_tokens: 160 given, .* give at most 159"):
        prompt_room(CONFIG, 160)
    with pytest.raises(ShardingError, match="generate.batch_rows: 12 rows cannot be split .* multiple of 8"):
        answers(prompts(3, seed=0), model, params, "fsdp", batch_rows=12)
