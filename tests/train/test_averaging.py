"""Averages of weights before and after a stage: their formula, and the share that is chosen."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.config import Config
from jaxlingua.errors import ConfigError
from jaxlingua.train.averaging import averaged, holds_out
from jaxlingua.train.method import make_methods
from jaxlingua.train.run import refuse_unmeasured_average
from jaxlingua.train.state import initial_state, shardings_of
from tests.tokens.test_stage_replay import made
from tests.train.world import flat, mesh_of, tiny_model

FIRST = {"name": "a", "mixture": {"de": {}}, "steps": 2}
SECOND = {"name": "b", "mixture": {"es": {}}, "steps": 2}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    fields = {"average": "auto", "frozen": ["embed/*"]}
    return made(tmp_path_factory.mktemp("data"), [FIRST, SECOND | fields], held_out_documents=4)


@pytest.fixture(scope="module")
def method(stages):
    return make_methods(Config(), stages, 384)[1]


@pytest.fixture(scope="module")
def state(method):
    """Weights of ones that were twos before; the embedding is frozen."""
    state = initial_state(tiny_model(), method.optimizer, mesh_of(), seed=0, learned=method.learned)
    ones = jax.tree.map(jnp.ones_like, state.params)
    before = jax.tree.map(lambda leaf: 2 * leaf, method.learned.parts(ones)[0])
    return state.replace(params=ones, anchor={"params": before})


def average(method, state, measure, said):
    return averaged(state, method, shardings_of(state), measure, said.append).params


def down(weights) -> float:
    return float(weights["layers"]["mlp"]["down"][0, 0, 0])


@pytest.mark.parametrize("wanted", [0.1, 0.3, 1.0])
def test_the_share_is_the_one_with_the_lowest_loss_and_the_average_is_what_was_measured(
    method, state, wanted
):
    said: list[str] = []
    params = average(method, state, lambda weights: abs(down(weights) - (2 - wanted)), said)
    trained, held = method.learned.parts(params)
    np.testing.assert_allclose(flat(trained), 2 - wanted, rtol=1e-6)
    np.testing.assert_array_equal(flat(held), 1.0)
    assert said[0].startswith(f"stage b: its weights count {wanted:g} in the average with those before it; ")


def test_what_is_frozen_in_an_array_is_not_even_rounded(method, state):
    """0.9 x + 0.1 x is not x for many numbers."""
    fields = {"average": 0.1, "frozen": ["embed/embedding[:300]", "layers[0]/*"]}
    config = method.stage.config.model_copy(update=fields)
    given = replace(method, stage=replace(method.stage, config=config))
    rng = np.random.default_rng(0)
    first = jax.tree.map(lambda leaf: jnp.asarray(rng.random(leaf.shape, np.float32)), state.params)
    begun = state.replace(params=first, anchor={"params": first})
    params = average(given, begun, lambda weights: 0.0, [])
    arrays = [(tree["layers"]["mlp"]["down"], tree["embed"]["embedding"]) for tree in (first, params)]
    for old, new, frozen in zip(*arrays, (1, 300), strict=True):
        np.testing.assert_array_equal(new[:frozen], old[:frozen])
        assert (new[frozen:] != old[frozen:]).any()


def test_of_equal_losses_the_largest_share_is_taken_and_nan_never(method, state):
    assert down(average(method, state, lambda weights: 1.0, [])) == 1.0
    below_half = average(method, state, lambda w: math.nan if down(w) < 1.55 else -down(w), [])
    assert down(below_half) == pytest.approx(1.9)
    assert down(average(method, state, lambda weights: math.nan, [])) == 1.0


def test_a_share_that_is_given_is_taken_without_measuring(method, state):
    config = method.stage.config.model_copy(update={"average": 0.25})
    given = replace(method, stage=replace(method.stage, config=config))
    said: list[str] = []

    def measure(weights):
        raise AssertionError

    assert down(average(given, state, measure, said)) == pytest.approx(1.75)
    assert said == ["stage b: its weights count 0.25 in the average with those before it"]


def test_without_held_out_text_no_share_can_be_chosen(tmp_path, stages):
    refuse_unmeasured_average(stages)
    replaying = SECOND | {"average": "auto", "replay": 0.2}
    without = made(tmp_path, [FIRST, replaying], held_out_documents=4, es={"held_out_records": 0})
    assert [holds_out(stage) for stage in without] == [True, False]  # what is replayed is not its own
    with pytest.raises(ConfigError, match="stage 'b', average: auto given, and its sources hold nothing out"):
        refuse_unmeasured_average(without)
