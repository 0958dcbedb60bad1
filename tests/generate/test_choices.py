"""Constrained answers: a member of the set, and the one that a search by hand finds."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxlingua.generate.choices import sizes
from jaxlingua.generate.decoding import Answer, Decoding, Request
from tests.generate.reversing import EOS, FIRST, VOCAB, prompts, trained
from tests.generate.test_engine import answers, generated

LONGEST = 6


def drawn_choices(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Sequences of 1 to 6 letters, often with a common beginning, some the beginning of others."""
    letters = rng.integers(FIRST, FIRST + 4, (rng.integers(1, 9), LONGEST))
    letters[::2, :3] = letters[0, :3]
    cut = [row[: rng.integers(1, LONGEST + 1)] for row in letters]
    distinct = {tuple(row): None for row in [*cut, letters[0, :2]]}
    return tuple(np.array(row, np.int32) for row in distinct)


@pytest.fixture(scope="module")
def scores_after():
    """Scores of the next token after given ones, by the model without a cache."""
    model, params = trained()

    @jax.jit
    def of_row(tokens, length):
        positions = np.arange(32, dtype=np.int32)[None]
        return model.apply({"params": params}, tokens, positions, (positions < length).astype(np.int32))[0]

    def after(tokens: list[int]) -> np.ndarray:
        padded = np.zeros((1, 32), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(of_row(padded, len(tokens)))[len(tokens) - 1, :VOCAB]

    return after


def by_hand(prompt: np.ndarray, choices: tuple[np.ndarray, ...], eos_ids: tuple[int, ...], after) -> int:
    """Greedy through the tree: of the tokens that some choice goes on with, and EOS where one is complete."""
    written: list[int] = []
    while True:
        scores = after([*prompt.tolist(), *written])
        alive = [choice.tolist() for choice in choices if choice.tolist()[: len(written)] == written]
        tokens = {choice[len(written)] for choice in alive if len(choice) > len(written)}
        if written in alive:
            tokens |= set(eos_ids)
        best = max(tokens, key=lambda token: scores[token])
        if best in eos_ids:
            return [choice.tolist() for choice in choices].index(written)
        written.append(best)
        if tokens and [written] == [c for c in alive if c[: len(written)] == written]:
            return [choice.tolist() for choice in choices].index(written)


def check(given: list[Answer], requests: list[Request]) -> None:
    for answer, request in zip(given, requests, strict=True):
        assert answer.ended_by == "choice"
        assert answer.tokens.tolist() == request.choices[answer.choice].tolist()


@pytest.mark.parametrize("eos_ids", [(EOS,), (EOS, FIRST + 9)])
def test_the_choice_is_the_one_that_a_search_by_hand_finds(scores_after, eos_ids):
    rng = np.random.default_rng(0)
    requests = [Request(question, 1, choices=drawn_choices(rng)) for question in prompts(48, seed=30)]
    given = generated(requests, *trained(), eos_ids=eos_ids)
    check(given, requests)
    wanted = [by_hand(one.prompt, one.choices, eos_ids, scores_after) for one in requests]
    assert [answer.choice for answer in given] == wanted
    chosen = [request.choices[answer.choice] for answer, request in zip(given, requests, strict=True)]
    is_beginning = [
        any(len(other) > len(one) and other[: len(one)].tolist() == one.tolist() for other in request.choices)
        for one, request in zip(chosen, requests, strict=True)
    ]
    assert any(is_beginning), "some end although they could go on"
    assert len({len(one) for one in chosen}) > 3


@pytest.mark.slow
def test_constrained_and_free_requests_share_a_call():
    """Neither changes the other, drawn tokens do not change a choice, and limits do not cut one."""
    rng = np.random.default_rng(1)
    questions = prompts(40, seed=31)
    free = [Request(question, 12) for question in questions[::2]]
    bound = [Request(question, 1, choices=drawn_choices(rng)) for question in questions[1::2]]
    mixed = [one for pair in zip(free, bound, strict=True) for one in pair]
    given = generated(mixed, *trained())
    check(given[1::2], bound)
    assert [answer.tokens.tolist() for answer in given[::2]] == answers(questions[::2], *trained())
    assert all(answer.choice is None for answer in given[::2])
    alone = [answer.choice for answer in generated(bound, *trained())]
    assert [answer.choice for answer in given[1::2]] == alone
    drawn = generated(mixed, *trained(), "all", decoding=Decoding(temperature=3.0))
    assert [answer.choice for answer in drawn[1::2]] == alone


def test_the_first_of_equal_choices_is_named_and_one_choice_is_taken():
    [question] = prompts(1, seed=32)
    one, same = np.array([FIRST + 1, FIRST], np.int32), np.array([FIRST + 1, FIRST], np.int64)
    for choices in ((one, same), (one,)):
        [answer] = generated([Request(question, 4, choices=choices)], *trained())
        assert (answer.choice, answer.text) == (0, "ba")


def test_tables_have_few_sizes():
    def of(*lengths: int) -> Request:
        return Request(np.ones(1, np.int32), 1, choices=tuple(np.ones(n, np.int32) for n in lengths))

    assert sizes([]) == sizes([replace(of(), choices=())]) == (0, 0)
    assert sizes([of(1)]) == (1, 2)
    assert sizes([of(3, 1), of(2, 2, 2)]) == (4, 4)
    assert sizes([of(4)]) == (1, 8), "the end has a place too"
