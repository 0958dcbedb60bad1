"""Anchors against brute force: every penalty, its gradient, and the Fisher information token by token."""

import itertools
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlingua.config import AnchorConfig
from jaxlingua.sharding.feed import place_rows
from jaxlingua.train.anchors import FISHER, PARAMS, pulled
from jaxlingua.train.fisher import fisher_information, make_fisher_draw, rows_of_draw
from jaxlingua.train.learned import ALL, Learned
from jaxlingua.train.objective import Objective, summed_loss
from jaxlingua.train.state import initial_state, parted, shardings_of
from jaxlingua.train.step import make_train_step
from tests.tokens.test_stage_replay import made
from tests.train.world import GROUPS, VOCAB, batch_of, flat, mesh_of, parameters, random_batch, tiny_model

torch = pytest.importorskip("torch")

EXACT = 1e-6  # relative to the largest entry
SMALL = {"layers": 1, "embed": 16, "mlp": 16, "heads": 4, "kv_heads": 2, "head_dim": 4}
DESCENT = optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(),
    lambda updates, state, params=None, *, learning_rate, **_: (
        jax.tree.map(lambda u: -learning_rate * u, updates),
        state,
    ),
)


@lru_cache
def model():
    return tiny_model(**SMALL)


def moved(tree, seed, size=0.1):
    """Other parameters, not far away."""
    rng = np.random.default_rng(seed)

    def near(leaf):
        return jnp.asarray(np.asarray(leaf) + size * rng.normal(size=leaf.shape).astype(np.float32))

    return jax.tree.map(near, tree)


def closeness(found, wanted) -> float:
    found, wanted = flat(found), flat(wanted)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@partial(jax.jit, static_argnums=2)
def log_probs(weights, batch, vocab=VOCAB):
    """Of every token at every position, [b t v], with all logits at once."""
    hidden, _ = model().apply(
        {"params": weights}, batch.tokens, batch.positions, batch.segments, method="hidden"
    )
    logits = jnp.einsum("btd,dv->btv", hidden, weights["embed"]["embedding"].T, precision="highest")
    return jax.nn.log_softmax(logits[..., :vocab])


# ── penalties ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "weights", [{"l2_sp": 0.3}, {"ewc": 7.0}, {"l2_sp": 0.3, "ewc": 7.0}], ids=["l2-sp", "ewc", "both"]
)
def test_penalties_are_their_closed_forms_and_their_gradients_those_of_autodiff(weights):
    anchor = AnchorConfig(**weights)
    first = parameters(model())
    params, grads = moved(first, 1), moved(jax.tree.map(jnp.zeros_like, first), 2)
    fisher = jax.tree.map(jnp.abs, moved(jax.tree.map(jnp.zeros_like, first), 3, size=1.0))

    def penalty(params):
        total = 0.0
        for value, before, information in zip(*map(jax.tree.leaves, (params, first, fisher)), strict=True):
            total += weights.get("l2_sp", 0.0) / 2 * jnp.sum((value - before) ** 2)
            total += weights.get("ewc", 0.0) / 2 * jnp.sum(information * (value - before) ** 2)
        return total

    found, value = jax.jit(partial(pulled, anchor))(params, {PARAMS: first, FISHER: fisher}, grads)
    wanted = jax.tree.map(jnp.add, grads, jax.jit(jax.grad(penalty))(params))
    assert closeness(found, wanted) <= EXACT
    exact = sum(
        np.sum((weights.get("l2_sp", 0) + weights.get("ewc", 0) * np.float64(f)) * (np.float64(p) - b) ** 2)
        / 2
        for p, b, f in zip(*map(jax.tree.leaves, (params, first, fisher)), strict=True)
    )
    assert value == pytest.approx(exact, rel=EXACT)


def test_the_divergence_is_that_of_torch_over_target_tokens():
    batch, weights, earlier = random_batch(4, 32), parameters(model()), moved(parameters(model()), 5)
    objective = Objective(VOCAB, GROUPS, loss_chunk_tokens=50, kl_weight=2.5)
    summed = jax.jit(summed_loss, static_argnums=(0, 3))
    total, sums = summed(model(), weights, batch, objective, earlier)
    ours, theirs = (torch.tensor(np.asarray(log_probs(each, batch))) for each in (weights, earlier))
    each = torch.nn.functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    wanted = float(each[torch.tensor(batch.target_mask)].sum())
    assert wanted > 1
    assert sums.divergence == pytest.approx(wanted, rel=1e-5)
    _, plain = summed(model(), weights, batch, objective)
    assert sums.loss == pytest.approx(float(plain.loss), rel=1e-6)
    assert total == pytest.approx(float(plain.loss) + 2.5 * wanted, rel=1e-5)


@pytest.mark.parametrize(("chunk", "micro_batches"), [(1000, 1), (37, 2)])
def test_a_step_goes_down_the_gradient_of_the_whole_objective(chunk, micro_batches):
    """Mean loss, L2-SP, EWC and divergence, all at once, against autodiff of what they are."""
    anchor = AnchorConfig(l2_sp=0.02, ewc=0.5, kl=1.5)
    mesh, batch = mesh_of(), random_batch(4, 32)
    state = initial_state(model(), DESCENT, mesh, seed=0)
    first = moved(state.params, 6)
    fisher = jax.tree.map(lambda leaf: jnp.abs(moved(leaf, 7, size=1.0)), state.params)
    state = state.replace(anchor={PARAMS: first, FISHER: fisher})
    before = jax.tree.map(jnp.copy, state.params)

    def whole(params):
        mask = batch.target_mask
        ours, theirs = log_probs(params, batch), log_probs(first, batch)
        nll = -jnp.take_along_axis(ours, jnp.asarray(batch.targets)[..., None], axis=2)[..., 0]
        divergence = jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=2)
        mean = jnp.sum(jnp.where(mask, nll + 1.5 * divergence, 0)) / mask.sum()
        for value, at, information in zip(*map(jax.tree.leaves, (params, first, fisher)), strict=True):
            mean += jnp.sum((0.02 + 0.5 * information) * (value - at) ** 2) / 2
        return mean

    loss, wanted = jax.jit(jax.value_and_grad(whole))(before)
    objective = Objective(VOCAB, GROUPS, chunk, kl_weight=1.5)
    step = make_train_step(
        model(),
        DESCENT,
        jax.tree_util.Partial(lambda step: 1.0),
        objective,
        shardings_of(state),
        micro_batches,
        anchor=anchor,
    )
    after, metrics = step(
        state, place_rows(lambda step, a, b: jax.tree.map(lambda x: x[a:b], batch), 0, 4, mesh)
    )
    found = jax.tree.map(lambda old, new: old - new, before, jax.device_get(after.params))
    assert closeness(found, wanted) <= 1e-5
    assert metrics.loss + metrics.anchor_loss == pytest.approx(float(loss), rel=1e-6)


# ── Fisher information ───────────────────────────────────────────────────────────────────────────────────────


@lru_cache
def token_gradient(vocab):
    def log_prob(weights, batch, row, column, token):
        return log_probs(weights, batch, vocab)[row, column, token]

    return jax.jit(jax.grad(log_prob))


def one_token_gradients(weights, batch, targets, vocab=VOCAB):
    """∂ log p(target) / ∂ θ of each target token by itself, [tokens, parameters] in float64."""
    each = [
        flat(token_gradient(vocab)(weights, batch, row, column, targets[row, column]))
        for row, column in np.argwhere(batch.target_mask)
    ]
    return np.array(each, np.float64)


@lru_cache
def prepared(mesh, vocab, micro_batches, learned):
    """The program of a draw, compiled once, with parameters and where they lie."""
    state = initial_state(model(), optax.identity(), mesh, seed=0)
    shardings = learned.parts(shardings_of(state).params)[0]
    objective = Objective(vocab, GROUPS, 64)
    return make_fisher_draw(model(), learned, objective, shardings, micro_batches, mesh), state, shardings


def fisher_draw(mesh, batch, uniform, vocab=VOCAB, micro_batches=1, learned=ALL, share=1.0, total=None):
    program, state, shardings = prepared(mesh, vocab, micro_batches, learned)
    trained, held = learned.parts(state.params)
    rows = len(batch.tokens)
    placed = place_rows(lambda _, a, b: jax.tree.map(lambda x: x[a:b], (batch, uniform)), 0, rows, mesh)
    total = jax.device_put(jax.tree.map(np.zeros_like, trained), shardings) if total is None else total
    return program(total, trained, held, {}, *placed, jnp.float32(share))


def test_a_draw_is_the_squared_sum_of_the_gradients_of_the_drawn_tokens():
    """With the tokens that the same numbers draw from the same distribution in float64."""
    batch, weights = random_batch(2, 16), parameters(model())
    uniform = np.random.default_rng(0).random((2, 16), np.float32)
    below = np.cumsum(np.exp(np.float64(log_probs(weights, batch))), axis=2)
    targets = (below <= uniform[..., None]).sum(axis=2)
    assert np.abs(below - uniform[..., None]).min() > 1e-6  # no number lies where rounding decides
    each = one_token_gradients(weights, batch, targets)
    wanted = np.square(each.sum(axis=0)) / len(each)
    found = flat(fisher_draw(mesh_of(), batch, uniform, share=0.25))
    assert len(each) > 5
    assert np.abs(found - 0.25 * wanted).max() <= EXACT * wanted.max()


def test_its_expectation_is_the_fisher_information():
    """Over every way to draw two tokens of six, weighted by how likely it is."""
    vocab, rng = 6, np.random.default_rng(1)
    document = rng.integers(0, vocab, 4).astype(np.int32), np.array([False, False, True, True]), 0
    batch, weights = batch_of([[document]], 4), parameters(model())
    logs = np.float64(log_probs(weights, batch, vocab))
    chance = np.exp(logs)
    (row_a, a), (row_b, b) = np.argwhere(batch.target_mask)
    exact = 0.0
    for token in range(vocab):
        each = one_token_gradients(weights, batch, np.full((1, 4), token), vocab)
        chances = chance[[row_a, row_b], [a, b], token]
        exact = exact + (chances[:, None] * np.square(each)).sum(axis=0) / len(each)
    middles = np.cumsum(chance, axis=2) - chance / 2
    total = None
    for first, second in itertools.product(range(vocab), repeat=2):
        uniform = np.zeros((1, 4), np.float32)
        uniform[row_a, a], uniform[row_b, b] = middles[row_a, a, first], middles[row_b, b, second]
        share = chance[row_a, a, first] * chance[row_b, b, second]
        total = fisher_draw(mesh_of(), batch, uniform, vocab, share=share, total=total)
    assert np.abs(flat(total) - exact).max() <= EXACT * exact.max()


def test_it_is_the_same_on_every_mesh_and_for_every_split():
    batch = random_batch(8, 32)
    uniform = np.random.default_rng(2).random((8, 32), np.float32)
    alone = flat(jax.device_get(fisher_draw(mesh_of(), batch, uniform)))
    for mesh, micro_batches in ((mesh_of(), 4), (mesh_of(data=2, fsdp=2, tensor=2), 2)):
        other = flat(jax.device_get(fisher_draw(mesh, batch, uniform, micro_batches=micro_batches)))
        assert np.abs(other - alone).max() <= 1e-5 * alone.max()


def test_information_is_the_mean_over_draws_and_the_sum_over_stages(tmp_path):
    """Each draw has a batch and numbers of its own; and a second time the same."""
    stages = made(
        tmp_path, [{"name": name, "mixture": {name: {}}, "steps": 3} for name in ("de", "es")]
    )  # rows of 96
    state = initial_state(model(), optax.identity(), mesh_of(), seed=0)
    shardings, objective = shardings_of(state).params, Objective(384, 1, 4096)
    found = [
        fisher_information(
            state.params, {}, ALL, shardings, stages, model=model(), objective=objective, draws=2, seed=seed,
            micro_batches=1, on_progress=lambda done, all_: None,
        )
        for seed in (3, 3, 4)
    ]  # fmt: skip
    wanted = 0.0
    for stage in stages:
        for draw in range(2):
            batch, uniform = rows_of_draw(stage, 3, draw, draw, 0, 8)
            wanted = wanted + flat(fisher_draw(mesh_of(), batch, uniform, vocab=384, share=0.5))
    assert np.abs(flat(found[0]) - wanted).max() <= 1e-5 * wanted.max()
    np.testing.assert_array_equal(flat(found[0]), flat(found[1]))
    assert np.abs(flat(found[0]) - flat(found[2])).max() > 1e-3 * wanted.max()
    numbers = [rows_of_draw(stage, 3, draw, 0, 0, 8)[1].tobytes() for stage in stages for draw in range(2)]
    assert len(set(numbers)) == 4


def test_buffers_are_split_like_what_they_belong_to():
    mesh = mesh_of(data=2, fsdp=2, tensor=2)
    learned = Learned(("embed/*",))
    fisher = fisher_draw(mesh, random_batch(8, 32), np.zeros((8, 32), np.float32), learned=learned)
    state = initial_state(model(), optax.identity(), mesh, seed=0)
    params, _ = parted(state.params)
    wanted = learned.parts(params)[0]
    assert "embed" not in fisher
    assert jax.tree.map(lambda leaf: leaf.sharding, fisher) == jax.tree.map(
        lambda leaf: leaf.sharding, wanted
    )
