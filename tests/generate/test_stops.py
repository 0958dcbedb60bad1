"""Stop strings: where a text ends an answer, and what is left of text and tokens."""

from dataclasses import replace

import numpy as np
import pytest

from jaxlingua.generate.decoding import Request
from jaxlingua.generate.stops import StopSearch
from tests.generate.letters import LETTERS
from tests.generate.reversing import PAD, prompts, trained
from tests.generate.test_engine import answers, generated
from tests.tiny import tiny_tokenizer

BYTES = replace(LETTERS, vocab_size=256, control_ids=frozenset(), decode_pieces=lambda ids: bytes(ids).decode(errors="replace"))  # fmt: skip


def all_or_nothing(ids: list[int]) -> str:
    """Like the byte fallback of LLaMA's tokenizers: one byte too few or too many, and all are no character."""
    try:
        return bytes(ids).decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(ids)


RUNS = replace(BYTES, decode_pieces=all_or_nothing)


def found(tokenizer, stops: tuple[str, ...], tokens: list[int], look_every: int):
    search = StopSearch(tokenizer, stops)
    for count in range(look_every, len(tokens) + look_every, look_every):
        answer = search.find(tokens[:count], is_whole=count >= len(tokens))
        if answer is not None:
            return answer
    return None


@pytest.mark.parametrize("look_every", [1, 3, 16])
@pytest.mark.parametrize("tokenizer", [BYTES, RUNS])
def test_the_first_stop_string_to_be_complete_ends_the_answer(tokenizer, look_every):
    """Whenever the host looks; a byte is a token here, so every stop string spans several."""
    for text, stops, wanted in (
        ("one\n\ntwo", ("\n\n",), (5, "one")),
        ("one\ntwo", ("\n\n",), None),
        ("a.b", (".", "b"), (2, "a")),
        ("Question: x", ("on: ", "Question"), (8, "")),
        ("xyz", ("yz", "xyz"), (3, "")),
        ("né…ok", ("…",), (6, "né")),
        ("né…", ("é",), (3, "n")),
        ("ยา", ("ย",), (3, "")),
    ):
        assert found(tokenizer, stops, list(text.encode()), look_every) == wanted


@pytest.mark.parametrize("look_every", [1, 2, 5])
@pytest.mark.parametrize("tokenizer", [BYTES, RUNS])
def test_half_a_character_neither_is_a_match_nor_hides_one(tokenizer, look_every):
    half = [*"aé".encode(), "é".encode()[0]]
    assert found(tokenizer, ("é",), half, look_every) == (3, "a"), "in a run of bytes that is not whole"
    growing = [*b"ab", *"é".encode()]
    assert found(tokenizer, ("\ufffd",), growing, look_every) is None, "it was only not yet a character"


def test_pieces_of_a_learned_tokenizer_hide_no_stop_string():
    tokenizer = tiny_tokenizer()
    text = "ตี้ปะมา 中文 king sees ρουλο.\nThe"  # the tiny world has no Chinese: three pieces each
    tokens = tokenizer.encode_batch([text])[0].ids
    assert "\ufffd" in {tokenizer.decode(tokens[:count])[-1:] for count in range(1, len(tokens))}
    for stop in ("ปะ", "文", "中", "sees", "ρο", ".\n", "ng se"):
        for look_every in (1, 4, 16):
            count, before = found(tokenizer, (stop,), tokens, look_every)
            assert before == text[: text.index(stop)]
            assert stop in tokenizer.decode(tokens[:count])
            assert stop not in tokenizer.decode(tokens[: count - 1])


def test_rows_end_at_their_own_stop_strings():
    """Two letters that follow each other in an answer; rows without one go on beside them."""
    model, params = trained()
    questions = prompts(40, seed=33)
    whole = answers(questions, model, params)
    texts = [LETTERS.decode(row) for row in whole]
    stops = [(text[1:3],) if index % 2 and len(text) > 2 else () for index, text in enumerate(texts)]
    requests = [Request(question, 12, stop=stop) for question, stop in zip(questions, stops, strict=True)]
    for batch_rows in (3, 16):
        given = generated(requests, model, params, batch_rows=batch_rows)
        for answer, row, text, stop in zip(given, whole, texts, stops, strict=True):
            if stop:
                assert (answer.text, answer.ended_by) == (text[: text.index(*stop)], "stop")
                assert answer.tokens.tolist() == row[: text.index(*stop) + 2]
            else:
                assert (answer.text, answer.tokens.tolist(), answer.ended_by) == (text, row, "eos")
    assert sum(answer.ended_by == "stop" for answer in given) > 10


def test_a_stopped_row_ends_at_the_next_look_of_the_host(monkeypatch):
    """Of 140 tokens without a stop string, few are written with one."""
    from jaxlingua.generate import engine

    model, params = trained()
    steps = []
    decode = engine._Engine._decode

    def counted(self, pause_at):
        before = self.place
        told = list(decode(self, pause_at))
        steps.append((self.place - before) % self.group.ring)
        return iter(told)

    monkeypatch.setattr(engine._Engine, "_decode", counted)
    [question] = prompts(1, seed=34)
    for stop in ((), (LETTERS.decode(answers([question], model, params)[0][:1]),)):
        steps.clear()
        [answer] = generated([Request(question, 120, stop=stop)], model, params, eos_ids=(PAD,))
        assert answer.ended_by == ("stop" if stop else "length")
        assert np.sum(steps) == (16 if stop else 119)
