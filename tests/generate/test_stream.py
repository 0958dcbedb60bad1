"""Answers while they are written: each text begins the next one, and the last is the answer of `generate`."""

from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import pytest

from jaxlingua.errors import ConfigError
from jaxlingua.generate import engine
from jaxlingua.generate.decoding import Decoding, Request
from jaxlingua.generate.engine import stream
from jaxlingua.generate.programs import programs
from jaxlingua.generate.sampling import Sampling
from jaxlingua.sharding.rules import param_shardings
from jaxlingua.tokens.interface import Encoding
from tests.generate.letters import LETTERS
from tests.generate.reversing import EOS, FIRST, PAD, VOCAB, prompts, trained
from tests.generate.test_engine import generated, mesh_of


def encoded(texts: list[str], continued: bool) -> list[Encoding]:
    ids = [
        np.array([FIRST + ord(letter) - ord("a") for letter in text if letter < "q"], np.int32)
        for text in texts
    ]
    return [Encoding(one, np.zeros((len(one), 2), np.int32)) for one in ids]


READABLE = replace(LETTERS, encode_pieces=encoded)
SAMPLED = Decoding(temperature=1.5, seed=3)


def streamed(requests, model, params, mesh_name="one", **changed):
    mesh = mesh_of(mesh_name)
    params = jax.device_put(params, param_shardings(model, mesh))
    options = {"decoding": Decoding(), "tokenizer": READABLE, "eos_ids": (EOS,), "batch_rows": 16}
    return stream(model, params, requests, mesh=mesh, **(options | changed))


@pytest.mark.parametrize(
    ("decoding", "mesh_name", "batch_rows"),
    [(Decoding(), "one", 3), (SAMPLED, "one", 3), (Decoding(), "all", 8)],
    ids=["greedy", "sampled", "mesh"],
)
def test_the_last_of_each_is_the_answer_and_each_begins_the_next(decoding, mesh_name, batch_rows):
    model, params = trained()
    stops = [(), ("ab", "c"), ("dd",)]
    requests = [
        Request(prompt, 5 + 7 * (key % 3), stop=stops[key % 3], key=key)
        for key, prompt in enumerate(prompts(20, seed=41))
    ]
    wanted = generated(requests, model, params, decoding=decoding)
    seen = {index: [] for index in range(len(requests))}
    for index, answer in streamed(
        requests, model, params, mesh_name, batch_rows=batch_rows, decoding=decoding
    ):
        seen[index].append(answer)
    for answers, whole in zip(seen.values(), wanted, strict=True):
        assert (answers[-1].text, answers[-1].ended_by) == (whole.text, whole.ended_by)
        assert answers[-1].tokens.tolist() == whole.tokens.tolist()
        for earlier, later in pairwise(answers):
            assert earlier.ended_by == ""
            assert later.text.startswith(earlier.text)
            assert later.tokens[: len(earlier.tokens)].tolist() == earlier.tokens.tolist()
    assert {whole.ended_by for whole in wanted} == {"eos", "stop", "length"}
    assert max(len({one.text for one in answers}) for answers in seen.values()) > 2, "text comes in pieces"


def test_the_first_text_comes_after_a_few_tokens_and_nothing_is_computed_once_nobody_reads(monkeypatch):
    model, params = trained()
    looks = []
    decode = engine._Engine._decode
    monkeypatch.setattr(engine._Engine, "_decode", lambda self, at: looks.append(at) or decode(self, at))
    answers = streamed([Request(prompts(1, seed=42)[0], 100)], model, params, eos_ids=(PAD,))
    _, first = next(answers)
    assert (len(first.tokens), first.ended_by, len(looks)) == (3, "", 1)
    answers.close()
    assert len(looks) == 1


def test_questions_one_after_the_other_compile_few_programs():
    """Prompts of 3 to 60 tokens and answers of 2 to 90, which `generate` would pad to many lengths."""
    model, params = trained(
        replace(trained()[0].config, max_positions=1000)
    )  # no other test has these programs
    words = np.concatenate(prompts(20, seed=43))
    now = programs(model, mesh_of("one"), VOCAB, (EOS,), Sampling(0.0, 0, 1.0))
    counted = (now.fill, now.decode, now.shorten)
    before = [one.compile_count() for one in counted]  # JAX counts what other models' have shortened with it
    for length, new in ((3, 2), (20, 90), (60, 40), (40, 64)):
        *_, (_, answer) = streamed([Request(words[:length], new)], model, params)
        assert answer.ended_by
    counts = [one.compile_count() - count for one, count in zip(counted, before, strict=True)]
    assert counts == [1, 1, 0]


def test_beams_are_told_whole():
    model, params = trained()
    requests = [Request(prompt, 6) for prompt in prompts(3, seed=44)]
    told = list(streamed(requests, model, params, decoding=Decoding(beams=2)))
    wanted = generated(requests, model, params, decoding=Decoding(beams=2))
    assert [(index, one.text, one.ended_by) for index, one in told] == [
        (index, one.text, one.ended_by) for index, one in enumerate(wanted)
    ]


def test_what_cannot_be_answered_is_refused_as_by_generate():
    model, params = trained()
    with pytest.raises(ConfigError, match=r"generate\.max_new_tokens: 0 given for request 0"):
        next(streamed([Request(prompts(1, seed=45)[0], 0)], model, params))
    assert list(streamed([], model, params)) == []
