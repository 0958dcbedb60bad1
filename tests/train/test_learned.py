"""Frozen parameters: which they are, and that a step leaves them as they were, bit for bit."""

import jax
import numpy as np
import pytest

from jaxlingua.config import OptimizerConfig
from jaxlingua.errors import ConfigError
from jaxlingua.sharding.feed import place_rows
from jaxlingua.sharding.rules import sharding_context
from jaxlingua.train.learned import ALL, Learned
from jaxlingua.train.objective import summed_loss
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import initial_state, shardings_of
from jaxlingua.train.step import make_train_step
from tests.train.world import OBJECTIVE, VOCAB, mesh_of, parameters, random_batch, tiny_model


def names(tree) -> set[str]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.fixture(scope="module")
def params():
    return parameters(tiny_model(tie_embeddings=False))


@pytest.mark.parametrize(
    ("frozen", "held"),
    [
        ((), set()),
        (("embed/*",), {"embed/embedding"}),
        (("head/kernel", "final_norm/*"), {"head/kernel", "final_norm/scale"}),
        (("*norm/scale",), {"final_norm/scale", "layers/attention_norm/scale", "layers/mlp_norm/scale"}),
        (("layers/mlp/*",), {"layers/mlp/gate", "layers/mlp/up", "layers/mlp/down", "layers/mlp/norm/scale"}),
        (("layers[0:1]/*",), set()),  # some layers of an array stay among what is trained
    ],
)
def test_patterns_are_about_names(params, frozen, held):
    trained, rest = Learned(frozen).parts(params)
    assert names(rest) == held & names(params)
    assert names(trained) | names(rest) == names(params)
    joined = Learned(frozen).joined(trained, rest)
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    assert all(a is b for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(params), strict=True))


@pytest.mark.parametrize(
    ("frozen", "layers"),
    [("layers[0:1]/*", [1]), ("layers[1]/*", [0]), ("layers[:1]/mlp/*", [1]), ("layers[1:]/*", [0])],
)
def test_layers_are_counted_from_0(params, frozen, layers):
    learned, whole = Learned((frozen,)), sum(leaf.size for leaf in jax.tree.leaves(params))
    ones = jax.tree.map(np.ones_like, params)
    changed = learned.where_trained(ones, jax.tree.map(np.zeros_like, params))
    down = np.asarray(changed["layers"]["mlp"]["down"])
    assert [layer for layer in range(2) if down[layer].all()] == layers
    assert [layer for layer in range(2) if not down[layer].any()] == [1 - layers[0]]
    assert learned.count(params) == sum(np.sum(leaf) for leaf in jax.tree.leaves(changed)) < whole
    assert ALL.count(params) == whole


@pytest.mark.parametrize(
    ("frozen", "rows"),
    [
        (("embed/embedding[0:300]", "head/kernel[:300]"), range(300, 512)),
        (("*[0:300]",), range(300, 512)),
        (("embed/*[7]", "head/*[7]"), [*range(7), *range(8, 512)]),
        (("*[1:500]",), [0, *range(500, 512)]),
    ],
)
def test_rows_are_those_of_tokens(params, frozen, rows):
    learned = Learned(frozen)
    learned.check(params, "b", VOCAB)
    assert not names(learned.parts(params)[1])
    ones = jax.tree.map(np.ones_like, params)
    changed = learned.where_trained(ones, jax.tree.map(np.zeros_like, params))
    for array in (changed["embed"]["embedding"], changed["head"]["kernel"].T):
        array = np.asarray(array)
        assert array.shape == (512, 64)
        np.testing.assert_array_equal(np.flatnonzero(array.all(1)), list(rows))
        np.testing.assert_array_equal(np.flatnonzero(array.any(1)), list(rows))
    assert changed["layers"]["mlp"]["down"] is ones["layers"]["mlp"]["down"]
    assert learned.count(params) == sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(changed))


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (("embed/embedding[0:501]",), "stage 'b', frozen: 'embed/embedding[0:501]' given; rows 0 to 499 are"),
        (("head/kernel[600]",), "'head/kernel[600]' given; rows 0 to 499 are there; name some of these"),
        (("embed/embedding[9:9]",), "rows 0 to 499 are there; name some of these"),
        (("embed/embedding[0:500]",), "rows 0 to 499 are there; name some of these"),
        (("*norm/scale[0:9]",), "which has no row for each token; embed/embedding and head/kernel can be"),
        (("layers[0:1]",), "which is no parameter's name"),
        (("layers[0:1]/mlp/down[0:9]",), "'layers[0:1]/mlp/down[0:9]' given, which is no parameter's name"),
        (("layers/*", "final*", "head/*", "*[:9]", "*[9:]"), "given, which is all; leave something to train"),
    ],
)
def test_rows_that_are_not_there_and_all_of_them_are_refused(params, frozen, said):
    with pytest.raises(ConfigError) as refused:
        Learned(frozen).check(params, "b", VOCAB)
    assert said in str(refused.value)
    if "rows 0 to" in said:
        Learned(frozen).check(params, "b")  # as long as it is not known how many there are


def test_rows_are_refused_where_no_array_has_them():
    tied = parameters(tiny_model(tie_embeddings=True))
    with pytest.raises(ConfigError, match="no row for each token; embed/embedding can be given so"):
        Learned(("head/kernel[0:9]",)).check(tied, "b", VOCAB)
    adapters = {"lora": {"embed": {"embedding_a": np.zeros((512, 4)), "embedding_b": np.zeros((4, 64))}}}
    with pytest.raises(ConfigError, match="and with model.lora no row of the vocabulary is trained; leave"):
        Learned(("embed/embedding[0:9]",)).check(adapters, "b", VOCAB)


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (("embd/*",), "stage 'b', frozen: 'embd/*' given, which is no parameter's name; "),
        (("layers[7:9]/*",), "'layers[7:9]/*' given; layers 0 to 1 are there; name some of these"),
        (("layers[1:9]/*",), "'layers[1:9]/*' given; layers 0 to 1 are there; name some of these"),
        (("layers[]/*",), "'layers[]/*' given, which is no parameter's name"),
        (("*",), "* given, which is all; leave something to train"),
        (("layers[0:2]/*", "embed/*", "head/*", "final*"), "which is all; leave something to train"),
    ],
)
def test_patterns_that_mean_nothing_or_all_are_refused(params, frozen, said):
    with pytest.raises(ConfigError) as refused:
        Learned(frozen).check(params, "b")
    assert said in str(refused.value)


@pytest.mark.parametrize("mesh", [{}, {"fsdp": 2, "tensor": 2}], ids=["one device", "fsdp=2 tensor=2"])
def test_a_step_trains_some_rows_and_nothing_else(mesh):
    """Its gradient's norm, by which it is clipped, is that of these rows."""
    frozen = ("layers/*", "final_norm/*", "embed/embedding[:300]", "head/kernel[:300]")
    learned, mesh, model = Learned(frozen), mesh_of(**mesh), tiny_model(tie_embeddings=False)
    config = OptimizerConfig(peak_lr=0.1, schedule="constant", warmup_steps=0, weight_decay=0.1)
    optimizer, schedule = make_optimizer(config, 2)
    state = initial_state(model, optimizer, mesh, seed=0, learned=learned)
    step = make_train_step(model, optimizer, schedule, OBJECTIVE, shardings_of(state), learned=learned)
    before, batch = jax.device_get(state.params), random_batch(8, 32)
    rows = place_rows(lambda _, a, b: jax.tree.map(lambda x: x[a:b], batch), 0, 8, mesh)
    state, metrics = step(state, rows)
    state, _ = step(state, rows)

    def loss(params):
        return summed_loss(model, params, batch, OBJECTIVE)[0] / batch.target_mask.sum()

    with sharding_context(mesh_of()):
        grads = jax.device_get(jax.jit(jax.grad(loss))(before))
    own = [grads["embed"]["embedding"][300:], grads["head"]["kernel"][:, 300:]]
    assert float(metrics.grad_norm) == pytest.approx(np.sqrt(sum(np.square(g).sum() for g in own)), rel=1e-5)
    after = jax.device_get(state.params)
    for name in ("layers", "final_norm"):
        jax.tree.map(np.testing.assert_array_equal, after[name], before[name])
    pairs = [(tree["embed"]["embedding"], tree["head"]["kernel"].T) for tree in (before, after)]
    for old, new in zip(*pairs, strict=True):
        np.testing.assert_array_equal(new[:300], old[:300])
        assert (new[300:] != old[300:]).any(1).all()  # by weight decay at least


@pytest.mark.parametrize("mesh", [{}, {"fsdp": 4, "tensor": 2}], ids=["one device", "fsdp=4 tensor=2"])
def test_a_step_moves_what_is_trained_and_nothing_else(mesh):
    """Weight decay and momentum would move the layers that have no gradient."""
    learned, mesh, model = (
        Learned(("embed/*", "layers[1]/*")),
        mesh_of(**mesh),
        tiny_model(tie_embeddings=False),
    )
    optimizer, schedule = make_optimizer(
        OptimizerConfig(peak_lr=0.1, schedule="constant", warmup_steps=0, weight_decay=0.1), 2
    )
    state = initial_state(model, optimizer, mesh, seed=0, learned=learned)
    before = jax.device_get(state.params)
    moments = names(state.opt_state)
    assert not [name for name in moments if "embed/embedding" in name]  # no state for what is frozen
    assert [name for name in moments if "mlp/down" in name]
    step = make_train_step(model, optimizer, schedule, OBJECTIVE, shardings_of(state), learned=learned)
    for number in range(2):
        batch = random_batch(8, 32, seed=number)
        rows = place_rows(lambda _, a, b, batch=batch: jax.tree.map(lambda x: x[a:b], batch), 0, 8, mesh)
        state, _ = step(state, rows)
    after = jax.device_get(state.params)
    np.testing.assert_array_equal(after["embed"]["embedding"], before["embed"]["embedding"])
    for old, new in zip(jax.tree.leaves(before["layers"]), jax.tree.leaves(after["layers"]), strict=True):
        np.testing.assert_array_equal(new[1], old[1])
        assert (new[0] != old[0]).any()
    assert (after["head"]["kernel"] != before["head"]["kernel"]).any()


def test_what_is_trained_takes_the_step_that_it_takes_alone():
    """Freezing changes the gradient of nothing else: one step of plain descent, with clipping off."""
    model, mesh = tiny_model(tie_embeddings=False), mesh_of()
    config = OptimizerConfig(
        peak_lr=0.1, schedule="constant", warmup_steps=0, clip_norm="off", kind="lion", beta1=0.0
    )
    batch, found = random_batch(8, 32), []
    for learned in (ALL, Learned(("embed/*", "layers[0]/*"))):
        optimizer, schedule = make_optimizer(config, 2)
        state = initial_state(model, optimizer, mesh, seed=0, learned=learned)
        step = make_train_step(model, optimizer, schedule, OBJECTIVE, shardings_of(state), learned=learned)
        found.append(jax.device_get(step(state, batch)[0].params))
    free, part = found
    np.testing.assert_array_equal(part["head"]["kernel"], free["head"]["kernel"])
    np.testing.assert_array_equal(part["layers"]["mlp"]["down"][1], free["layers"]["mlp"]["down"][1])
