"""Training with biases, norms of heads and windows: on a mesh, under every remat policy, every parameter moving."""

import jax
import numpy as np
import pytest

from jaxlingua.config import OptimizerConfig
from jaxlingua.model.llama import Llama
from jaxlingua.model.remat import REMAT
from jaxlingua.sharding.feed import feed
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import initial_state, shardings_of
from jaxlingua.train.step import make_train_step
from tests.model.families import EVERY_FEATURE, in_use
from tests.train.world import FP32_STEPS, OBJECTIVE, mesh_of, random_batch, tiny_model

STEPS = 12


def train(model: Llama, mesh, steps: int = STEPS, micro_batches: int = 1):
    """Losses, the parameters before and the state after a few steps on batches that repeat."""
    optimizer, schedule = make_optimizer(OptimizerConfig(peak_lr=3e-3, warmup_steps=0), STEPS)
    state = initial_state(model, optimizer, mesh, seed=0)
    shardings = shardings_of(state)
    state = state.replace(params=jax.device_put(in_use(jax.device_get(state.params)), shardings.params))
    before = jax.device_get(state.params)
    step_fn = make_train_step(model, optimizer, schedule, OBJECTIVE, shardings, micro_batches)

    def batch_fn(step, start, stop):
        return jax.tree.map(lambda x: x[start:stop], random_batch(rows=8, seed=step % 2))

    losses = []
    for _, batch in feed(batch_fn, range(steps), 8, mesh):
        state, metrics = step_fn(state, batch)
        losses.append(metrics.loss)
    return np.array(jax.device_get(losses)), before, state


@pytest.fixture(scope="module")
def on_one_device():
    return train(tiny_model(**EVERY_FEATURE), mesh_of())


def test_it_learns_and_every_parameter_moves(on_one_device):
    losses, before, state = on_one_device
    assert losses[-1] < losses[0] - 0.5
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before["layers"]),
        jax.tree.leaves(state.params["layers"]),
        strict=True,
    ):
        moved = np.abs(np.asarray(new) - old).reshape(2, -1).max(axis=1)
        assert (moved > 1e-4).all(), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("axes", "micro_batches", "attention"),
    [
        pytest.param({"fsdp": 4, "tensor": 2}, 1, "blockwise", marks=pytest.mark.slow),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 2, "reference"),
    ],
)
def test_a_mesh_gives_the_losses_of_one_device(on_one_device, axes, micro_batches, attention):
    model = tiny_model(**EVERY_FEATURE, attention=attention, attention_block_tokens=8)
    losses, _, state = train(model, mesh_of(**axes), micro_batches=micro_batches)
    np.testing.assert_allclose(losses, on_one_device[0], rtol=FP32_STEPS)
    q_bias = state.params["layers"]["attention"]["q_bias"]
    assert q_bias.addressable_shards[0].data.shape == (2, 4 // axes.get("tensor", 1), 16)


@pytest.mark.parametrize(
    "remat",
    [
        pytest.param(name, marks=[] if name == "minimal" else pytest.mark.slow)
        for name in REMAT
        if name != "none"
    ],
)
def test_every_remat_policy_gives_the_same_losses(on_one_device, remat):
    model = tiny_model(**EVERY_FEATURE, remat=remat, attention="blockwise", attention_block_tokens=8)
    losses, _, _ = train(model, mesh_of(fsdp=4, tensor=2), steps=3)
    np.testing.assert_allclose(losses, on_one_device[0][:3], rtol=FP32_STEPS)
