"""Optimizers against torch and optax, schedules against transformers and numbers worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlingua.config import OptimizerConfig, TrainConfig, check_train
from jaxlingua.errors import ConfigError
from jaxlingua.train.optimizer import decayed, make_optimizer, make_schedule
from jaxlingua.train.state import abstract_state
from tests.model.families import EVERY_FEATURE
from tests.train.world import mesh_of, parameters, tiny_model

torch = pytest.importorskip("torch")


def trees(seed):
    rng = np.random.default_rng(seed)
    return {
        "layers": {"mlp": {"up": rng.normal(size=(2, 130, 140)).astype(np.float32)}},
        "final_norm": {"scale": rng.normal(size=(5,)).astype(np.float32)},
    }


def run(config, steps=10):
    """Parameters after a few steps on gradients that do not depend on them."""
    tx, schedule = make_optimizer(config, steps)
    params = trees(0)
    state = tx.init(params)
    for step in range(steps):
        updates, state = tx.update(trees(step + 1), state, params, learning_rate=schedule(step))
        params = optax.apply_updates(params, updates)
    return params


def torch_run(make, steps=10, clip_norm=None):
    """The same with a torch optimizer; weight decay for all but the norm."""
    start = trees(0)
    up = torch.nn.Parameter(torch.tensor(start["layers"]["mlp"]["up"]))
    scale = torch.nn.Parameter(torch.tensor(start["final_norm"]["scale"]))
    optimizer = make([up], [scale])
    for step in range(steps):
        grads = trees(step + 1)
        up.grad = torch.tensor(grads["layers"]["mlp"]["up"])
        scale.grad = torch.tensor(grads["final_norm"]["scale"])
        if clip_norm:
            torch.nn.utils.clip_grad_norm_([up, scale], clip_norm)
        optimizer.step()
    return {"layers": {"mlp": {"up": up.detach().numpy()}}, "final_norm": {"scale": scale.detach().numpy()}}


@pytest.mark.parametrize("clip_norm", [1.0, "off"])
def test_adamw_is_torch_s(clip_norm):
    config = OptimizerConfig(
        peak_lr=1e-2, schedule="constant", warmup_steps=0, weight_decay=0.1, beta2=0.95, clip_norm=clip_norm
    )
    wanted = torch_run(
        lambda matrices, norms: torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
            lr=1e-2, betas=(0.9, 0.95), eps=1e-8,
        ),
        clip_norm=None if clip_norm == "off" else clip_norm,
    )  # fmt: skip
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, atol=2e-6), run(config), wanted)


def test_lion_is_optax_s_with_decay_for_matrices_only():
    config = OptimizerConfig(
        kind="lion",
        peak_lr=1e-3,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.1,
        beta2=0.99,
        clip_norm="off",
    )
    tx = optax.lion(1e-3, b1=0.9, b2=0.99, weight_decay=0.1, mask=decayed)
    params = trees(0)
    state = tx.init(params)
    for step in range(10):
        updates, state = tx.update(trees(step + 1), state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, atol=1e-6), run(config), params)


def test_adafactor_is_torch_s_formula_on_a_factored_matrix():
    """One step by hand from arXiv:1804.04235, algorithm 4 without relative step size."""
    config = OptimizerConfig(
        kind="adafactor", peak_lr=1e-2, schedule="constant", warmup_steps=0, clip_norm="off"
    )
    tx, schedule = make_optimizer(config, 1)
    params = {"w": np.random.default_rng(0).normal(size=(130, 140)).astype(np.float32)}
    grads = {"w": np.random.default_rng(1).normal(size=(130, 140)).astype(np.float32)}
    updates, state = tx.update(grads, tx.init(params), params, learning_rate=schedule(0))
    square = grads["w"].astype(np.float64) ** 2 + 1e-30
    rows, columns = square.mean(axis=1, keepdims=True), square.mean(axis=0, keepdims=True)
    update = grads["w"] / np.sqrt(rows * columns / rows.mean())
    update /= max(1.0, np.sqrt((update**2).mean()))
    np.testing.assert_allclose(updates["w"], -1e-2 * update, rtol=1e-4)
    assert max(leaf.size for leaf in jax.tree.leaves(state)) == 140  # rows and columns, no full second moment


def first_moment_in(dtype, kind, beta2=0.99):
    return OptimizerConfig(
        kind=kind, peak_lr=1e-3, schedule="constant", warmup_steps=0, beta2=beta2, clip_norm="off",
        first_moment_dtype=dtype,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "same"),
    [
        ("adamw", optax.adam(1e-3, b2=0.99, mu_dtype="bfloat16")),
        ("lion", optax.lion(1e-3, b2=0.99, mu_dtype="bfloat16", weight_decay=0.0)),
    ],
)
def test_a_first_moment_in_bfloat16_is_optax_s_and_not_that_of_float32(kind, same):
    params = trees(0)
    state = same.init(params)
    for step in range(10):
        updates, state = same.update(trees(step + 1), state, params)
        params = optax.apply_updates(params, updates)
    ours = run(first_moment_in("bfloat16", kind))
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, atol=1e-6), ours, params)
    exact = run(first_moment_in("float32", kind))
    difference = jax.tree.map(lambda got, want: np.abs(got - want).max(), ours, exact)
    assert max(jax.tree.leaves(difference)) > 1e-5, "it makes a difference, and a small one"
    assert max(jax.tree.leaves(difference)) < 5e-3


@pytest.mark.parametrize("kind", ["adamw", "lion"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_first_moment_is_bfloat16_and_it_is_split_like_its_parameter(kind, dtype):
    optimizer, _ = make_optimizer(first_moment_in(dtype, kind), 100)
    state = abstract_state(tiny_model(), optimizer, mesh_of(fsdp=4, tensor=2))
    direction = state.opt_state[0]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(direction.mu)} == {dtype}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
    moments = [direction.mu] if kind == "lion" else [direction.mu, direction.nu]
    assert kind == "lion" or {leaf.dtype.name for leaf in jax.tree.leaves(direction.nu)} == {"float32"}
    for moment in moments:
        assert jax.tree.map(lambda leaf: leaf.sharding, moment) == jax.tree.map(
            lambda leaf: leaf.sharding, state.params
        )


def test_a_second_moment_in_bfloat16_would_never_fall():
    """Why there is no option for it: gradients of zero for 1,000 steps should take two thirds of it away."""
    tx, _ = make_optimizer(OptimizerConfig(beta2=0.999, clip_norm="off"), 1000)
    params = {"w": jnp.zeros(3)}
    state = tx.init(params)
    _, state = tx.update({"w": jnp.ones(3)}, state, params, learning_rate=0.0)
    kept, rounded = state[0].nu["w"], state[0].nu["w"].astype(jnp.bfloat16)
    first = rounded
    for _ in range(1000):
        rounded = (0.999 * rounded.astype(jnp.float32)).astype(jnp.bfloat16)
    update = jax.jit(lambda state: tx.update({"w": jnp.zeros(3)}, state, params, learning_rate=0.0)[1])
    for _ in range(1000):
        state = update(state)
    assert (rounded == first).all()
    np.testing.assert_allclose(state[0].nu["w"], kept * 0.999**1000, rtol=1e-4)


def test_a_first_moment_s_type_is_refused_where_there_is_none():
    with pytest.raises(ConfigError) as error:
        check_train(TrainConfig(optimizer=OptimizerConfig(kind="adafactor", first_moment_dtype="bfloat16")))
    assert str(error.value) == (
        "train.optimizer.first_moment_dtype: 'bfloat16' given; Adafactor keeps no first moment; leave it out, "
        "or set train.optimizer.kind=adamw"
    )
    # A run's resolved config.yaml names every field.
    check_train(TrainConfig(optimizer=OptimizerConfig(kind="adafactor", first_moment_dtype="float32")))


@pytest.mark.parametrize("kind", ["adamw", "adafactor", "lion"])
def test_every_optimizer_goes_downhill(kind):
    tx, schedule = make_optimizer(OptimizerConfig(kind=kind, peak_lr=0.05, warmup_steps=0), 100)
    params = {"w": jnp.full((3, 3), 2.0)}
    state = tx.init(params)
    for step in range(100):
        updates, state = tx.update({"w": 2 * params["w"]}, state, params, learning_rate=schedule(step))
        params = optax.apply_updates(params, updates)
    assert float(jnp.abs(params["w"]).max()) < 0.5


def test_an_update_without_its_learning_rate_is_refused():
    tx, _ = make_optimizer(OptimizerConfig(), 10)
    params = {"w": jnp.ones(3)}
    with pytest.raises(TypeError, match="learning_rate"):
        tx.update(params, tx.init(params), params)


def decays(**features):
    """Whether weight decay applies, by the parameter's name."""
    tree = decayed(parameters(tiny_model(tie_embeddings=False, **features)))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): decay
        for path, decay in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_only_scales_of_norms_and_biases_are_exempt_from_decay():
    names, more = decays(), decays(**EVERY_FEATURE)
    norms = {"layers/attention_norm/scale", "layers/mlp_norm/scale", "final_norm/scale"}
    assert {name for name, decay in names.items() if not decay} == norms
    assert len(names) == 12
    added = {name for name in more if name not in names}
    assert added == {
        *(f"layers/attention/{name}_bias" for name in "qkvo"),
        *(f"layers/mlp/{name}_bias" for name in ("gate", "up", "down")),
        "layers/attention/q_norm/scale",
        "layers/attention/k_norm/scale",
    }
    assert {name for name, decay in more.items() if not decay} == norms | added


# ── schedules ────────────────────────────────────────────────────────────────
STEPS = 100


def rates(**config):
    schedule = make_schedule(OptimizerConfig(peak_lr=2.0, **config), STEPS)
    return np.array([float(schedule(step)) for step in range(STEPS + 1)])


def transformers_rates(make, **arguments):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    schedule = make(optimizer, **arguments)
    values = []
    for _ in range(STEPS + 1):
        values.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return np.array(values)


def test_schedules_are_those_of_transformers():
    from transformers import optimization as hf

    for ours, theirs in [
        (
            rates(schedule="cosine", warmup_ratio=0.1),
            transformers_rates(hf.get_cosine_schedule_with_warmup, num_warmup_steps=10, num_training_steps=STEPS),
        ),
        (
            rates(schedule="linear", warmup_steps=7),
            transformers_rates(hf.get_linear_schedule_with_warmup, num_warmup_steps=7, num_training_steps=STEPS),
        ),
        (
            rates(schedule="constant", warmup_steps=7),
            transformers_rates(hf.get_constant_schedule_with_warmup, num_warmup_steps=7),
        ),
        (
            rates(schedule="wsd", warmup_steps=10, decay_ratio=0.3),
            transformers_rates(
                hf.get_wsd_schedule, num_warmup_steps=10, num_decay_steps=30, num_training_steps=STEPS,
                decay_type="linear",
            ),
        ),
    ]:  # fmt: skip
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_cosine_ends_at_the_given_share_of_the_peak():
    values = rates(schedule="cosine", warmup_steps=0, final_lr_ratio=0.1)
    half = 0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2
    np.testing.assert_allclose(values[[0, 50, 100]], [2.0, 2.0 * half, 0.2], rtol=1e-6)


def test_wsd_holds_the_peak_between_rise_and_fall():
    values = rates(schedule="wsd", warmup_steps=10, decay_ratio=0.2, final_lr_ratio=0.5)
    np.testing.assert_allclose(values[[0, 5, 10, 79, 80, 90, 100]], [0, 1, 2, 2, 2, 1.5, 1], atol=1e-6)


def test_a_later_stage_has_a_schedule_of_its_own():
    config = OptimizerConfig(peak_lr=2.0, warmup_steps=10)
    (_, first), (_, second) = make_optimizer(config, STEPS), make_optimizer(config, STEPS, first_step=300)
    assert [float(second(300 + step)) for step in (0, 5, 50)] == [float(first(step)) for step in (0, 5, 50)]


def test_warm_up_and_decay_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError) as error:
        rates(schedule="wsd", warmup_steps=90, decay_ratio=0.2)
    assert str(error.value) == (
        "train.optimizer: 90 steps of warm-up and 20 of decay do not fit into 100 steps; "
        "lower warmup_steps or decay_ratio"
    )
