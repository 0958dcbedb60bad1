"""Choices that share a row get what each gets in a row of its own."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.generate.likelihood import Continuation
from jaxlingua.generate.shared_prefix import Reading, filled, length, places, readings
from jaxlingua.model.llama import Llama
from jaxlingua.model.reference import Ids, visible
from tests.generate.reversing import CONFIG, EOS, TURN, prompts, trained
from tests.generate.test_adapters import adapted
from tests.generate.test_likelihood import assert_equal, scored


def items(seed: int) -> tuple[list[Continuation], list[int]]:
    """Prompts of 3 to 6 words with choices of 1 to 8 tokens, and the group of each choice."""
    rng = np.random.default_rng(seed)
    made, groups = [], []
    for number in range(8):
        prompt = np.concatenate(prompts(int(rng.integers(3, 7)), seed + number))
        answer = np.array([*prompt[-2:0:-1], EOS], np.int32)[-8:]
        choices = [answer, answer[:1], answer[:-1], np.array([EOS], np.int32), answer[::-1]]
        for choice in choices:
            if len(choice):
                made.append(Continuation(prompt, choice))
                groups.append(number)
        # Its first token stands for the end of the prompt too: the prompt is shorter, the choice begins there.
        made.append(Continuation(prompt[:-1], np.array([TURN + 1, *answer], np.int32)))
        groups.append(number)
    return made, groups


def plainly(made: list[Continuation], *world) -> list:
    return scored(made, *world, groups=range(len(made)))


def is_shared(made: list[Continuation], groups: list) -> bool:
    documents = [np.concatenate([one.prompt, one.tokens]) for one in made]
    rows = readings(documents, groups, CONFIG.max_positions)
    return max(len(row.members) for row in rows) > 4


@pytest.mark.parametrize("mesh_name", ["one", "all"])
def test_choices_of_a_row_get_what_they_get_alone(mesh_name):
    world = trained(steps=120)
    made, groups = items(seed=1)
    assert is_shared(made, groups)
    given = scored(made, *world, mesh_name, groups=groups)
    assert_equal(given, plainly(made, *world))
    assert {one.is_greedy for one in given} == {True, False}
    assert len({one.prompt_tokens for one in given}) > 6


@pytest.mark.parametrize("kind", ["dora", "dora beside nf4"])
def test_choices_of_a_row_get_what_they_get_alone_with_adapters(kind):
    made, groups = items(seed=2)
    assert_equal(scored(made, *adapted(kind), groups=groups), plainly(made, *adapted(kind)))


def test_choices_of_a_row_do_not_depend_on_the_batch_or_the_order_or_what_else_is_asked():
    world = trained(steps=120)
    made, groups = items(seed=3)
    expected = scored(made, *world, groups=groups)
    assert_equal(scored(made, *world, groups=groups, batch_rows=3), expected)
    order = np.random.default_rng(0).permutation(len(made))[: len(made) // 2]
    some = scored([made[index] for index in order], *world, groups=[groups[index] for index in order])
    assert_equal(some, [expected[index] for index in order])


def test_blocks_and_windows_of_attention_change_nothing():
    """Blocks of 8 tokens cut prompts and choices; a window that is shorter than an item has its own rows."""
    _, params = trained(steps=120)
    made, groups = items(seed=4)
    blocks = Llama(replace(CONFIG, attention_block_tokens=8))
    assert_equal(scored(made, blocks, params, groups=groups), plainly(made, *trained(steps=120)))
    near, far = (Llama(replace(CONFIG, sliding_window=window)) for window in (6, 150))
    assert_equal(scored(made, near, params, groups=groups), plainly(made, near, params))
    given = scored(made, far, params, groups=groups)
    assert_equal(given, plainly(made, *trained(steps=120)))
    assert [one.logprob for one in given] != [one.logprob for one in plainly(made, near, params)]


def test_under_a_window_a_row_does_not_depend_on_what_else_is_asked():
    """One question that is longer than the window has rows of its own, and all others share theirs."""
    _, params = trained(steps=120)
    model = Llama(replace(CONFIG, sliding_window=60))
    made, groups = items(seed=7)
    assert max(len(one.prompt) + len(one.tokens) for one in made) <= 60
    long = np.concatenate(prompts(12, seed=7))
    more = [Continuation(long, made[0].tokens), Continuation(long, made[1].tokens)]
    assert len(long) > 60
    done: list[int] = []
    given = scored(
        [*made, *more], model, params, groups=[*groups, "long", "long"], batch_rows=64,
        on_answer=lambda index, answer: done.append(index),
    )  # fmt: skip
    wanted = scored(made, model, params, groups=groups, batch_rows=64)
    assert_equal(given[: len(made)], wanted)
    assert_equal(given, plainly([*made, *more], model, params))
    rows = readings([np.concatenate([one.prompt, one.tokens]) for one in made], groups, CONFIG.max_positions)
    shared = [index for row in rows if row.shared for index in row.members]
    assert [given[index] for index in shared] == [wanted[index] for index in shared]
    alone = [row.members[0] for row in rows if not row.shared]
    assert sorted(done[: len(alone) + 2]) == sorted([*alone, len(made), len(made) + 1])


def test_bfloat16_is_as_near_as_in_rows_of_their_own():
    """Against float32: what a shared row adds is no more than what bfloat16 rounds already."""
    model, params = trained(steps=120)
    low = Llama(replace(CONFIG, compute_dtype="bfloat16"))
    made, groups = items(seed=5)
    exact, alone, shared = (
        np.array([one.whole_sequence for one in found])
        for found in (
            plainly(made, model, params), plainly(made, low, params), scored(made, low, params, groups=groups)
        )
    )  # fmt: skip
    assert np.abs(alone - exact).max() > 1e-4
    np.testing.assert_allclose(shared, exact, rtol=0, atol=2 * np.abs(alone - exact).max())


def test_without_groups_those_of_equal_prompts_are_one():
    """Told by the calls: one row holds them all, so they are all known at the same time."""
    world = trained(steps=120)
    prompt = np.concatenate(prompts(6, seed=6))
    made = [Continuation(prompt, np.array([token], np.int32)) for token in (5, EOS, 9, 10)]
    done = []
    given = scored(made, *world, batch_rows=1, on_progress=lambda *counts: done.append(counts))
    assert done == [(4, 4)]
    assert_equal(given, plainly(made, *world))


tokens = st.lists(st.integers(1, 3), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(tokens, st.lists(tokens, min_size=1, max_size=5)), min_size=1, max_size=3))
def test_every_token_of_a_row_sees_its_own_document_and_nothing_else(questions):
    documents, groups = [], []
    for group, (prompt, choices) in enumerate(questions):
        documents += [np.array([0, *prompt, *choice], np.int32) for choice in choices]
        groups += [group] * len(choices)
    rows = readings(documents, groups, longest=12)
    assert sorted(index for row in rows for index in row.members) == list(range(len(documents)))
    assert all(length(row, documents) <= 12 for row in rows)
    made = filled(rows, documents, batch=16, padded=14)
    segments, positions = jnp.asarray(made.segments), jnp.asarray(made.positions)
    own = np.asarray(visible(Ids(segments, segments, positions, positions)))
    read = 0
    for row, reading in enumerate(rows):
        for index, at in zip(reading.members, places(reading, documents), strict=True):
            document = documents[index]
            assert made.tokens[row, at].tolist() == document[:-1].tolist()
            assert made.targets[row, at].tolist() == document[1:].tolist()
            for position, place in enumerate(at):
                seen = np.flatnonzero(own[row, place])
                seen = seen[np.argsort(made.positions[row, seen])]
                assert made.tokens[row, seen].tolist() == document[: position + 1].tolist()
        read += len({int(place) for at in places(reading, documents) for place in at})
    assert read == np.count_nonzero(made.segments), "and nothing is read twice"


def test_what_stands_behind_the_shared_tokens_is_never_longer_than_these():
    prompt = np.arange(1, 9)
    documents = [np.append(prompt, np.full(count, 9 + number)) for number, count in enumerate((1, 4, 4, 4))]
    group = [""] * len(documents)
    assert readings(documents, group, longest=99) == [Reading(7, (0, 1)), Reading(0, (2,)), Reading(0, (3,))]
    assert readings(documents[:2], group[:2], longest=11) == [Reading(0, (0,)), Reading(0, (1,))]
    assert readings(documents[:2], group[:2], longest=0) == [Reading(0, (0,)), Reading(0, (1,))]
