"""Beam search: the best of all answers where it looks at all, whatever the batch, the padding and the mesh."""

import itertools
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.errors import ConfigError, ShardingError
from jaxlingua.generate import beams
from jaxlingua.generate.beams import beam_search
from jaxlingua.generate.decoding import Answer, Decoding, Request
from jaxlingua.generate.programs import programs
from jaxlingua.generate.prompts import left_padded
from jaxlingua.generate.sampling import Sampling
from jaxlingua.sharding.rules import abstract_sharded_params, batch_sharding, param_shardings
from tests.generate.letters import LETTERS
from tests.generate.reversing import EOS, PAD, VOCAB, prompts, trained
from tests.generate.test_likelihood import mesh_of
from tests.generate.test_memory import abstract_weights

NEW = 10
FOUR = Decoding(beams=4, length_penalty=0.5)


def requests(count: int, seed: int, **fields: object) -> list[Request]:
    return [Request(prompt, **({"max_new_tokens": NEW} | fields)) for prompt in prompts(count, seed)]


def answers(asked: list[Request], mesh_name: str = "one", world=None, **changed) -> list[Answer]:
    model, params = trained(steps=120) if world is None else world
    mesh = mesh_of(mesh_name)
    params = jax.device_put(params, param_shardings(model, mesh))
    options = {"decoding": FOUR, "tokenizer": LETTERS, "eos_ids": (EOS,), "batch_rows": 64, "mesh": mesh}
    return beam_search(model, params, asked, **(options | changed))


def told(given: list[Answer]) -> list[tuple]:
    return [(answer.tokens.tolist(), answer.text, answer.ended_by) for answer in given]


@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.0])
def test_with_a_beam_for_every_token_the_best_of_all_answers_is_found(penalty):
    """Every answer of at most two tokens is scored by the model alone; beams enough lose none of them."""
    model, params = trained(steps=120)
    others = [token for token in range(VOCAB) if token != EOS]
    texts = [(EOS,), *((token, EOS) for token in others), *itertools.product(others, others)]
    asked = requests(4, seed=1, max_new_tokens=2)
    found = answers(asked, decoding=Decoding(beams=VOCAB, length_penalty=penalty))
    for request, answer in zip(asked, found, strict=True):
        rows = np.zeros((len(texts), len(request.prompt) + 2), np.int32)
        for row, text in zip(rows, texts, strict=True):
            row[: len(request.prompt) + len(text)] = [*request.prompt, *text]
        positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
        logits = model.apply({"params": params}, jnp.asarray(rows), positions, jnp.ones_like(positions))
        logprobs = np.asarray(jax.nn.log_softmax(logits[..., :VOCAB]))
        first = len(request.prompt)
        scores = [
            sum(logprobs[row, first - 1 + i, token] for i, token in enumerate(text)) / len(text) ** penalty
            for row, text in enumerate(texts)
        ]
        best = texts[int(np.argmax(scores))]
        assert answer.tokens.tolist() == [token for token in best if token != EOS]


def test_answers_do_not_depend_on_batch_or_order():
    long = Request(np.concatenate(prompts(12, seed=3)), NEW)
    asked = [*requests(11, seed=2), long]
    expected = told(answers(asked, batch_rows=1))
    assert len({text for _, text, _ in expected}) > 9
    assert told(answers(asked, batch_rows=64)) == expected
    order = np.random.default_rng(0).permutation(len(asked))
    shuffled = answers([asked[index] for index in order], batch_rows=64)
    assert told(shuffled) == [expected[index] for index in order]


def test_answers_do_not_depend_on_the_mesh():
    """With rows, and weights, split in both ways; on fsdp alone see tests/reference."""
    asked = requests(20, seed=4)
    assert told(answers(asked, "all")) == told(answers(asked))


def test_beams_are_spread_over_the_mesh_and_reordered_where_they_lie():
    """Each of 8 devices holds an eighth of the cache, which never travels: a row's beams lie together."""
    model, mesh = trained(steps=120)[0], mesh_of("all")
    params = abstract_sharded_params(model, mesh)
    rows = (
        jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch_sharding(mesh))
        for shape in ((16, 32), (16,), (16,))
    )
    search = beams.Search(4, 16, (EOS,), VOCAB, PAD)
    program = programs(model, mesh, VOCAB, (EOS,), Sampling(0.0, 0, 1.0)).weights
    weights = abstract_weights(program, params)
    text = (
        beams._searcher(model, mesh, search)
        .lower(params, weights, *rows, np.ones(16, np.float32))
        .compile()
        .as_text()
    )
    rings = set(re.findall(r"f32\[\d+,\d,48,16\]", text))
    assert "f32[16,1,48,16]" in rings  # of 64 rows, 2 key heads, 32 + 16 places
    assert not {"f32[64,1,48,16]", "f32[16,2,48,16]", "f32[64,2,48,16]"} & rings


def test_ids_beyond_the_tokenizer_are_never_written_and_have_no_share():
    model, params = trained(steps=120)
    asked = requests(16, seed=5)
    kernel = params["head"]["kernel"]
    changed = {**params, "head": {"kernel": kernel.at[:, VOCAB:].set(100 * kernel[:, VOCAB - 32 :])}}
    assert told(answers(asked, world=(model, changed))) == told(answers(asked))
    wider = replace(LETTERS, vocab_size=32)
    unmasked = answers(asked, world=(model, changed), tokenizer=wider)
    assert max(token for answer in unmasked for token in answer.tokens) >= VOCAB


def test_each_request_has_its_own_limit():
    asked = [
        replace(one, max_new_tokens=(2, NEW)[index % 2]) for index, one in enumerate(requests(6, seed=6))
    ]
    given = answers(asked)
    assert told(given) == [told(answers([one]))[0] for one in asked]
    assert {len(answer.tokens) for answer in given if answer.ended_by == "length"} >= {2}


def test_an_answer_is_cut_before_its_first_stop_string():
    asked = requests(12, seed=7)
    for answer, one in zip(answers(asked), asked, strict=True):
        if len(answer.tokens) > 2:
            stop = ("zz", answer.text[2], answer.text[1:3])
            stopped = answers([replace(one, stop=stop)])[0]
            first = min(answer.text.index(answer.text[2]), answer.text.index(answer.text[1:3]))
            assert stopped.ended_by == "stop"
            assert stopped.text == answer.text[:first]
            assert stopped.tokens.tolist() == answer.tokens[: answer.text.index(answer.text[2]) + 1].tolist()
            assert told(answers([replace(one, stop=("zz",))])) == [told([answer])[0]]
            break
    else:
        pytest.fail("no answer is long enough")


def test_nothing_is_compiled_again_for_other_penalties_limits_or_numbers_of_requests():
    beams._searcher.cache_clear()
    for penalty, limit, count in ((0.0, NEW, 8), (1.0, NEW, 8), (1.0, NEW - 3, 7), (1.0, 2 * NEW, 5)):
        asked = requests(count, seed=8, max_new_tokens=limit)
        asked[0] = replace(asked[0], max_new_tokens=1)
        answers(asked, decoding=Decoding(beams=4, length_penalty=penalty))
    search = beams.Search(4, 32, (EOS,), VOCAB, PAD)
    run = beams._searcher(trained(steps=120)[0], mesh_of("one"), search)
    assert beams._searcher.cache_info().misses == 1
    assert run.compile_count() == 1


def test_no_more_rows_are_searched_than_there_are_requests(monkeypatch):
    rows = []
    monkeypatch.setattr(beams, "left_padded", lambda *args: rows.append(args[1]) or left_padded(*args))
    for count, mesh_name, wanted in ((1, "one", 1), (3, "one", 4), (40, "one", 16), (3, "all", 4)):
        answers(requests(count, seed=9), mesh_name)
        assert set(rows) == {wanted}
        rows.clear()


def test_answers_are_told_as_they_come_and_progress_counts():
    asked, found, progress = requests(10, seed=9), {}, []
    given = answers(
        asked, batch_rows=16,
        on_answer=found.__setitem__, on_progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    assert [found[index] for index in range(len(asked))] == given
    assert progress == [(4, 10), (8, 10), (10, 10)]
    assert answers([]) == []


def test_what_beams_cannot_answer_is_refused():
    choice = replace(requests(1, seed=10)[0], choices=(np.array([5], np.int32),) * 2)
    with pytest.raises(
        ConfigError, match=r"generate.beams: 4 given, but request 1 .* one of 2 choices; set .*=label"
    ):
        answers([requests(1, seed=10)[0], choice])
    with pytest.raises(ShardingError, match="generate.batch_rows: 12 rows cannot be split"):
        answers(requests(3, seed=0), "fsdp", batch_rows=12)
    assert len(answers([Request(np.ones(150, np.int32), NEW)])) == 1
