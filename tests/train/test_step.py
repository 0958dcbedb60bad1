"""One update: the same on every mesh and for every split, and harmless where a number is not finite."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlingua.config import OptimizerConfig
from jaxlingua.errors import ShardingError
from jaxlingua.sharding.feed import feed
from jaxlingua.sharding.rules import count_micro_batches
from jaxlingua.train.objective import summed_loss
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import abstract_state, initial_state, shardings_of
from jaxlingua.train.step import make_train_step
from tests.train.world import (
    FP32_STEPS,
    OBJECTIVE,
    batch_of,
    flat,
    mesh_of,
    parameters,
    random_batch,
    tiny_model,
)

STEPS = 20
MESHES = {
    "one device": {},
    "fsdp=8": {"fsdp": 8},
    "data=2 fsdp=2 tensor=2": {"data": 2, "fsdp": 2, "tensor": 2},
}


@lru_cache
def _prepared(mesh, micro_batches, barriers, optimizer):
    tx, schedule = make_optimizer(
        OptimizerConfig(**{"peak_lr": 3e-3, "warmup_steps": 2, **dict(optimizer)}), STEPS
    )
    model = tiny_model(barriers=barriers)
    state = initial_state(model, tx, mesh, seed=0)
    shardings = shardings_of(state)
    return (
        jax.device_get(state),
        shardings,
        make_train_step(model, tx, schedule, OBJECTIVE, shardings, micro_batches),
    )


def trainer(mesh, micro_batches=1, barriers=False, **optimizer):
    """A new state, and the step of a tiny model, compiled once per kind."""
    state, shardings, step_fn = _prepared(mesh, micro_batches, barriers, tuple(sorted(optimizer.items())))
    copies = jax.tree.map(np.array, state)  # never the cached buffers, which a step would consume
    return jax.device_put(copies, shardings), step_fn


def train(mesh, steps=STEPS, micro_batches=1, barriers=False, **optimizer):
    """Losses, last state and the step function after a few steps on batches that repeat."""

    def batch_fn(step, start, stop):
        return jax.tree.map(lambda x: x[start:stop], random_batch(rows=8, seed=step % 4))

    state, step_fn = trainer(mesh, micro_batches, barriers, **optimizer)
    losses = []
    for _, batch in feed(batch_fn, range(steps), 8, mesh):
        state, metrics = step_fn(state, batch)
        losses.append(metrics.loss)
    return np.array(jax.device_get(losses)), state, step_fn


@pytest.fixture(scope="module")
def on_one_device():
    return train(mesh_of())


@pytest.mark.parametrize(
    "axes", [axes for axes in MESHES.values() if axes], ids=[m for m in MESHES if m != "one device"]
)
def test_eight_devices_give_the_losses_of_one(on_one_device, axes):
    losses, state, _ = train(mesh_of(**axes))
    np.testing.assert_allclose(losses, on_one_device[0], rtol=FP32_STEPS)
    assert losses[-1] < losses[0] - 0.5  # it learns, so that the comparison means something
    assert int(state.step) == STEPS


@pytest.mark.parametrize("axes", MESHES.values(), ids=MESHES)
def test_barriers_change_no_loss(on_one_device, axes):
    """The order of the backward pass that TPUs are given, here on a CPU."""
    losses, _, _ = train(mesh_of(**axes), barriers=True, micro_batches=1 if axes else 2)
    np.testing.assert_allclose(losses, on_one_device[0], rtol=FP32_STEPS)


def test_twenty_steps_compile_one_program(on_one_device):
    assert on_one_device[2].compile_count() == 1


def test_micro_batches_of_unequal_target_counts_equal_the_whole_batch(on_one_device):
    counts = [random_batch(seed=0).target_mask[rows].sum() for rows in np.arange(8).reshape(4, 2)]
    assert len(set(counts)) > 1
    losses, state, _ = train(mesh_of(), micro_batches=4)
    np.testing.assert_allclose(losses, on_one_device[0], rtol=FP32_STEPS)
    whole, split = flat(on_one_device[1].params), flat(state.params)
    assert np.linalg.norm(whole - split) < 1e-4 * np.linalg.norm(whole)


def test_micro_batches_on_a_mesh_equal_the_whole_batch(on_one_device):
    losses, _, _ = train(mesh_of(data=2, fsdp=2, tensor=2), micro_batches=2)
    np.testing.assert_allclose(losses, on_one_device[0], rtol=FP32_STEPS)


@pytest.mark.parametrize("kind", ["adafactor", pytest.param("lion", marks=pytest.mark.slow)])
def test_other_optimizers_too_give_the_losses_of_one_device(kind):
    # Few steps: Lion goes by signs, so that a gradient which is rounded across zero makes a whole step's difference.
    alone, _, _ = train(mesh_of(), steps=4, kind=kind)
    spread, _, _ = train(mesh_of(data=2, fsdp=2, tensor=2), steps=4, micro_batches=2, kind=kind)
    np.testing.assert_allclose(spread, alone, rtol=FP32_STEPS)
    assert alone[-1] != alone[0]


def test_stages_of_other_length_and_rate_are_one_program():
    """So that the persistent cache of JAX has it for every run of a sweep."""
    model, mesh, batch = tiny_model(), mesh_of(), random_batch()

    def program(steps, **optimizer):
        tx, schedule = make_optimizer(OptimizerConfig(**optimizer), steps, first_step=steps // 2)
        state = abstract_state(model, tx, mesh)
        step_fn = make_train_step(model, tx, schedule, OBJECTIVE, shardings_of(state))
        return step_fn.lower(state, batch).as_text()

    first = program(100, peak_lr=1e-3)
    assert program(7000, peak_lr=3e-4, warmup_ratio=0.1, final_lr_ratio=0.1) == first
    assert program(100, peak_lr=1e-3, schedule="constant") != first


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_the_update_is_the_mean_over_target_tokens(micro_batches):
    """Against the gradient of a loss written out here; plain descent makes the update the gradient."""
    batch, model, mesh = random_batch(), tiny_model(), mesh_of()
    descent = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        lambda grads, state, params, **_: (jax.tree.map(jnp.negative, grads), state),
    )
    state = initial_state(model, descent, mesh, seed=0)
    step_fn = make_train_step(
        model, descent, jax.tree_util.Partial(lambda step: 1.0), OBJECTIVE, shardings_of(state), micro_batches
    )
    before = flat(state.params)
    state, metrics = step_fn(state, batch)

    def mean_loss(params):
        logits = model.apply({"params": params}, batch.tokens, batch.positions, batch.segments)
        logits = logits[..., : OBJECTIVE.vocab_size]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return jnp.sum(nll * batch.target_mask) / batch.target_mask.sum()

    loss, grads = jax.jit(jax.value_and_grad(mean_loss))(parameters(model))
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-6)
    wanted = flat(grads)
    np.testing.assert_allclose(metrics.grad_norm, np.linalg.norm(wanted), rtol=1e-5)
    # Differences of float32 parameters carry their rounding, some 1e-7 of the parameters.
    assert np.linalg.norm(before - flat(state.params) - wanted) < 1e-6 * np.linalg.norm(before)
    assert np.linalg.norm(wanted) > 1e-3 * np.linalg.norm(before)


def test_metrics_are_sums_per_group_of_the_whole_batch():
    batch, mesh = random_batch(), mesh_of(data=2, fsdp=2, tensor=2)
    state, step_fn = trainer(mesh, micro_batches=2)
    _, sums = summed_loss(tiny_model(), parameters(tiny_model()), batch, OBJECTIVE)
    _, metrics = step_fn(state, batch)
    assert metrics.target_tokens == batch.target_mask.sum()
    np.testing.assert_array_equal(metrics.group_target_tokens, sums.group_target_tokens)
    np.testing.assert_allclose(metrics.group_loss, sums.group_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.group_loss.sum() / metrics.target_tokens, metrics.loss, rtol=1e-6)


def broken_embedding(state, token):
    """A state in which one token has an embedding that is not a number."""
    embedding = state.params["embed"]["embedding"].at[token].set(jnp.nan)
    return state.replace(params={**state.params, "embed": {"embedding": embedding}})


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(micro_batches):
    state, step_fn = trainer(mesh_of(), micro_batches)
    state, _ = step_fn(state, random_batch(seed=0))  # moments are no longer zero
    token = 2  # in no document
    state = broken_embedding(state, token)
    bad = random_batch(seed=1)
    bad.tokens[3, 0] = token
    kept = jax.device_get((state.params, state.opt_state))

    state, metrics = step_fn(state, bad)
    assert metrics.skipped
    assert np.isnan(metrics.loss)
    assert (int(state.step), int(state.skipped_steps), int(state.nonfinite_in_a_row)) == (2, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get((state.params, state.opt_state)), kept)
    state, metrics = step_fn(state, bad)
    assert (int(metrics.skipped_steps), int(metrics.nonfinite_in_a_row)) == (2, 2)


def test_a_good_step_after_a_bad_one_ends_the_row_of_bad_ones():
    """An infinite target weight makes the gradient infinite for one batch only."""
    state, step_fn = trainer(mesh_of())
    kernel_breaker = state.params["final_norm"]["scale"]
    bad_state = state.replace(params={**state.params, "final_norm": {"scale": kernel_breaker * jnp.inf}})
    bad_state, metrics = step_fn(bad_state, random_batch())
    assert metrics.skipped
    good = bad_state.replace(
        params={
            **bad_state.params,
            "final_norm": {"scale": jnp.ones_like(bad_state.params["final_norm"]["scale"])},
        }
    )
    good, metrics = step_fn(good, random_batch())
    assert not metrics.skipped
    assert (int(good.step), int(good.skipped_steps), int(good.nonfinite_in_a_row)) == (2, 1, 0)


def test_the_learning_rate_follows_the_step_also_after_a_skipped_one():
    state, step_fn = trainer(mesh_of())
    state = state.replace(step=jnp.int32(1), skipped_steps=jnp.int32(1))  # half of the warm-up
    _, metrics = step_fn(state, random_batch())
    np.testing.assert_allclose(metrics.learning_rate, 3e-3 / 2)


def test_a_batch_of_padding_only_is_no_division_by_zero():
    state, step_fn = trainer(mesh_of())
    state = state.replace(step=jnp.int32(5))  # after warm-up
    before = flat(state.params)
    state, metrics = step_fn(state, batch_of([[] for _ in range(8)], length=32))
    assert metrics.loss == 0
    assert not metrics.skipped
    np.testing.assert_array_equal(flat(state.params), before)


def buffers(tree):
    """Addresses of all matrices on all devices."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]
    return {shard.data.unsafe_buffer_pointer() for leaf in leaves for shard in leaf.addressable_shards}


def test_the_state_is_donated():
    """Two copies of parameters and moments would halve the model that fits."""
    state, step_fn = trainer(mesh_of(fsdp=8))
    batch = random_batch()
    state, _ = step_fn(state, batch)
    before = buffers(state)
    new_state, _ = step_fn(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert buffers(new_state.params) <= before
    assert buffers(new_state.opt_state) <= before
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new_state))


@pytest.mark.parametrize(
    ("batch_rows", "micro_batch_rows", "message"),
    [
        (12, 5, "train.micro_batch_rows: 5 rows do not divide train.batch_rows=12; use a divisor of 12"),
        (
            32,
            4,
            "train.micro_batch_rows: 4 rows cannot be split over data=2 x fsdp=4 = 8 devices; use a multiple of 8",
        ),
        (
            12,
            "auto",
            "train.batch_rows: 12 rows cannot be split over data=2 x fsdp=4 = 8 devices; use a multiple of 8",
        ),
    ],
)
def test_rows_that_do_not_divide_are_refused_in_one_line(batch_rows, micro_batch_rows, message):
    with pytest.raises(ShardingError) as error:
        count_micro_batches(batch_rows, micro_batch_rows, mesh_of(data=2, fsdp=4))
    assert str(error.value) == message


def test_micro_batches_are_counted():
    mesh = mesh_of(data=2, fsdp=4)
    assert (count_micro_batches(64, "auto", mesh), count_micro_batches(64, 16, mesh)) == (1, 4)
