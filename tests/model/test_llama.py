"""Invariances of the model, the axes of its parameters, its cache and its remat policies."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxlingua.model.cache import CACHE_AXES, Cache, empty_cache
from jaxlingua.model.llama import Llama, head_kernel, logits
from jaxlingua.model.remat import ACTIVATIONS, POLICIES, REMAT
from tests.model.families import EVERY_FEATURE, in_use
from tests.tiny import tiny_llama_config

FP32_MODEL = 1e-4


def rows(batch: int = 2, length: int = 24, seed: int = 0):
    """Two documents in each row, then padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 512, (batch, length)).astype(np.int32)
    segments = np.repeat(np.arange(3), [length // 3, length // 2, length - length // 3 - length // 2])
    segments = np.tile(np.array([1, 2, 0])[segments], (batch, 1)).astype(np.int32)
    positions = np.tile(np.r_[np.arange(length // 3), np.arange(length - length // 3)], (batch, 1)).astype(
        np.int32
    )
    return tokens, positions, segments


@functools.cache
def init(model: Llama) -> dict:
    """First parameters; biases that are not zero and norms that are not one where there are features."""
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *rows(1, 6)))["params"]
    return in_use(params) if model.config.qkv_bias else params


@functools.cache
def compiled(model: Llama, method: str = "__call__") -> jax.stages.Wrapped:
    """A method of the model as one program; operation by operation, each is compiled by itself."""
    return jax.jit(functools.partial(model.apply, method=method))


# A test that holds for LLaMA holds for what is made of it.
FEATURES = pytest.mark.parametrize("features", [{}, EVERY_FEATURE], ids=["llama", "every feature"])


def test_first_logits_have_unit_variance():
    """Cross-entropy over all targets is then log(vocabulary) + 1/2: tied and untied, shallow and deep."""
    for changes in ({}, {"tie_embeddings": False}, {"layers": 12}, {"qk_norm": True, "mlp_bias": True}):
        model = Llama(tiny_llama_config(**changes))
        out = compiled(model)({"params": init(model)}, *rows())
        loss = -jax.nn.log_softmax(out).mean()
        assert loss == pytest.approx(np.log(512) + 0.5, rel=0.02)


def test_the_residual_stream_of_an_untrained_model_does_not_grow_with_depth():
    """Output projections are drawn smaller by sqrt(2 × layers), so that 16 layers add no more than 2 do."""
    size = {}
    for layers in (2, 16):
        model = Llama(tiny_llama_config(layers=layers))
        states = compiled(model, "hidden_states")({"params": init(model)}, *rows())
        size[layers] = float(jnp.std(states[-2]))
    assert size[16] < 2 * size[2]


def test_parameters_are_float32_whatever_the_compute_dtype():
    model = Llama(tiny_llama_config(compute_dtype="bfloat16"))
    params = init(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    hidden, _ = jax.eval_shape(compiled(model, "hidden"), {"params": params}, *rows())
    assert hidden.dtype == jnp.bfloat16
    assert jax.eval_shape(compiled(model), {"params": params}, *rows()).dtype == jnp.float32


def test_every_parameter_names_its_logical_axes():
    model = Llama(tiny_llama_config(tie_embeddings=False))
    abstract = jax.eval_shape(model.init, jax.random.key(0), *rows())
    specs = nn.get_partition_spec(abstract)["params"]
    assert specs == {
        "embed": {"embedding": PartitionSpec("vocab", "embed")},
        "layers": {
            "attention_norm": {"scale": PartitionSpec("layers", "norm")},
            "attention": {
                "q": PartitionSpec("layers", "embed", "heads", "head_dim"),
                "k": PartitionSpec("layers", "embed", "kv_heads", "head_dim"),
                "v": PartitionSpec("layers", "embed", "kv_heads", "head_dim"),
                "o": PartitionSpec("layers", "heads", "head_dim", "embed"),
            },
            "mlp_norm": {"scale": PartitionSpec("layers", "norm")},
            "mlp": {
                "gate": PartitionSpec("layers", "embed", "mlp"),
                "up": PartitionSpec("layers", "embed", "mlp"),
                "down": PartitionSpec("layers", "mlp", "embed"),
            },
        },
        "final_norm": {"scale": PartitionSpec("norm")},
        "head": {"kernel": PartitionSpec("embed", "vocab")},
    }


def test_biases_and_norms_of_heads_are_there_only_where_asked_for_and_name_their_axes():
    """Biases begin at zero and scales at one, so that a first model is the one without them."""
    plain, model = Llama(tiny_llama_config()), Llama(tiny_llama_config(**EVERY_FEATURE))
    specs, more = (
        nn.get_partition_spec(jax.eval_shape(m.init, jax.random.key(0), *rows()))["params"]["layers"]
        for m in (plain, model)
    )
    bias, norm = PartitionSpec("layers", "bias"), {"scale": PartitionSpec("layers", "norm")}
    keys = PartitionSpec("layers", "kv_heads", "head_dim")
    specs["attention"] |= {
        "q_bias": PartitionSpec("layers", "heads", "head_dim"), "k_bias": keys, "v_bias": keys, "o_bias": bias,
        "q_norm": norm, "k_norm": norm,
    }  # fmt: skip
    wide = PartitionSpec("layers", "mlp")
    specs["mlp"] |= {"gate_bias": wide, "up_bias": wide, "down_bias": bias}
    assert more == specs
    first = nn.unbox(jax.jit(model.init)(jax.random.key(0), *rows()))["params"]["layers"]
    shapes = {
        "q_bias": (2, 4, 16), "k_bias": (2, 2, 16), "v_bias": (2, 2, 16), "o_bias": (2, 64),
        "gate_bias": (2, 128), "up_bias": (2, 128), "down_bias": (2, 64),
    }  # fmt: skip
    for name, shape in shapes.items():
        leaf = {**first["attention"], **first["mlp"]}[name]
        assert leaf.shape == shape
        assert leaf.dtype == jnp.float32
        assert (leaf == 0).all()
    for name in ("q_norm", "k_norm"):
        assert first["attention"][name]["scale"].shape == (2, 16)
        assert (first["attention"][name]["scale"] == 1).all()


@pytest.mark.parametrize("kind", ["reference", "blockwise"])
@pytest.mark.parametrize(
    ("slides", "reach"), [(None, 8), ((True, True), 8), ((True, False), 23), ((False, True), 23)]
)
def test_each_layer_has_its_own_window(slides, reach, kind):
    """A change in the first token reaches as far as the windows of two layers together let it."""
    tokens, positions, segments = (x[:1] for x in (rows()[0], np.arange(24)[None], np.ones((1, 24), int)))
    changes = {"sliding_window": 5, "sliding_layers": slides, "attention": kind}
    model, params = (
        Llama(tiny_llama_config(**changes, attention_block_tokens=4)),
        init(Llama(tiny_llama_config())),
    )
    logits_of = jax.jit(lambda tokens: model.apply({"params": params}, tokens, positions, segments))
    before, after = (np.asarray(logits_of(x)) for x in (tokens, np.where(positions == 0, 3, tokens)))
    reached = np.flatnonzero((before != after).any(axis=(0, 2)))
    assert reached.tolist() == list(range(reach + 1))


@pytest.mark.parametrize("kind", ["reference", "blockwise"])
def test_a_mesh_leaves_logits_and_gradients_alone(kind):
    """Constraints are in force (tensor and batch are split) and change nothing."""
    model = Llama(tiny_llama_config(attention=kind, attention_block_tokens=8))
    params, batch = init(model), rows(4)
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    rules = [("heads", "tensor"), ("kv_heads", "tensor"), ("mlp", "tensor"), ("vocab", "tensor")]
    rules += [(f"activation_{name}", "tensor") for name in ("heads", "kv_heads", "mlp", "vocab")]
    rules += [("activation_batch", "data")]

    def loss(params):
        return (model.apply({"params": params}, *batch) ** 2).mean()

    alone = jax.jit(jax.value_and_grad(loss))(params)
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        constraints = str(jax.make_jaxpr(loss)(params)).count("sharding_constraint")
        on_mesh = jax.jit(jax.value_and_grad(loss))(params)
    assert constraints >= 9
    for mine, other in zip(jax.tree.leaves(on_mesh), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6, rtol=1e-5)


@FEATURES
@pytest.mark.parametrize("kind", ["reference", "blockwise"])
def test_a_packed_document_gets_the_logits_it_gets_alone(kind, features):
    model = Llama(tiny_llama_config(attention=kind, attention_block_tokens=5, **features))
    params, (tokens, positions, segments) = init(model), rows()
    together = compiled(model)({"params": params}, tokens, positions, segments)
    for number in (1, 2):
        inside = segments[0] == number
        alone = compiled(model)(
            {"params": params}, tokens[:, inside], positions[:, inside], segments[:, inside]
        )
        np.testing.assert_allclose(together[:, inside], alone, atol=FP32_MODEL)
    assert np.isfinite(together).all()


def test_what_stands_in_the_padding_changes_nothing():
    """Neither logits of real tokens nor any gradient of theirs."""
    model = Llama(tiny_llama_config())
    params, (tokens, positions, segments) = init(model), rows()
    other = np.where(segments == 0, 7, tokens)

    def loss(params, tokens):
        out = model.apply({"params": params}, tokens, positions, segments)
        return (out**2 * (segments != 0)[..., None]).mean()

    gradient = jax.jit(jax.grad(loss))
    for mine, theirs in zip(
        jax.tree.leaves(gradient(params, tokens)), jax.tree.leaves(gradient(params, other)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_hidden_states_end_with_what_the_head_reads():
    model = Llama(tiny_llama_config())
    params = init(model)
    states = compiled(model, "hidden_states")({"params": params}, *rows())
    hidden, cache = compiled(model, "hidden")({"params": params}, *rows())
    assert cache is None
    assert states.shape == (3, 2, 24, 64)
    np.testing.assert_array_equal(states[0], params["embed"]["embedding"][rows()[0]])
    np.testing.assert_allclose(states[-1], hidden, atol=1e-6)
    again = logits(hidden, head_kernel(params, model.config), model.config)
    np.testing.assert_allclose(again, compiled(model)({"params": params}, *rows()), atol=1e-6)


@pytest.mark.parametrize("kind", ["reference", "blockwise"])
@pytest.mark.parametrize(
    ("steps", "features"),
    [
        *((steps, {}) for steps in [(24,), (10, 1, 1, 12)]),
        ((10, 1, 1, 12), EVERY_FEATURE),
    ],
)
def test_a_cache_filled_in_pieces_gives_the_hidden_states_of_one_pass(kind, steps, features):
    model = Llama(tiny_llama_config(attention=kind, attention_block_tokens=8, **features))
    params, batch = init(model), rows()
    run = compiled(model, "hidden")
    whole, _ = run({"params": params}, *batch)
    cache = empty_cache(model.config, 2, 30)
    pieces, start = [], 0
    for width in steps:
        piece = (x[:, start : start + width] for x in batch)
        hidden, cache = run({"params": params}, *piece, cache)
        pieces.append(hidden)
        start += width
        assert cache.index == start
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), whole, atol=FP32_MODEL)


@FEATURES
def test_left_padding_changes_no_logits(features):
    model = Llama(tiny_llama_config(**features))
    params = init(model)
    tokens = np.random.default_rng(0).integers(1, 512, (1, 9))
    positions, segments = np.arange(9)[None], np.ones((1, 9), int)
    run = compiled(model, "hidden")
    whole, _ = run({"params": params}, tokens, positions, segments)
    padded = [np.pad(x, ((0, 0), (6, 0))) for x in (tokens, positions, segments)]
    hidden, _ = run({"params": params}, *padded, empty_cache(model.config, 1, 20))
    np.testing.assert_allclose(hidden[:, 6:], whole, atol=1e-5)


def test_decoding_updates_a_donated_cache_in_place():
    """A step's temporary memory is far below the cache, so nothing copies it."""
    config = tiny_llama_config(layers=6)
    model, batch = Llama(config), jax.ShapeDtypeStruct((8, 1), jnp.int32)
    params = jax.eval_shape(lambda: init(model))
    cache = jax.eval_shape(lambda: empty_cache(config, 8, 1024))

    def step(params, cache, tokens, positions, segments):
        return model.apply({"params": params}, tokens, positions, segments, cache, method="hidden")

    compiled = jax.jit(step, donate_argnums=1).lower(params, cache, batch, batch, batch).compile()
    cache_bytes = 2 * cache.k.size * 4
    assert compiled.memory_analysis().temp_size_in_bytes < cache_bytes / 2


def test_a_cache_has_the_compute_dtype_and_axes_for_every_dimension():
    config = tiny_llama_config(compute_dtype="bfloat16")
    cache = empty_cache(config, 2, 10)
    assert cache.k.dtype == jnp.bfloat16
    assert empty_cache(config, 2, 10, "float32").v.dtype == jnp.float32
    for name in Cache._fields:
        assert len(getattr(CACHE_AXES, name)) == getattr(cache, name).ndim


def traced_gradient(remat: str, kind: str, **features) -> jax.stages.Traced:
    config = tiny_llama_config(remat=remat, attention=kind, attention_block_tokens=8, **features)
    return jax.jit(
        jax.grad(lambda params: (Llama(config).apply({"params": params}, *rows()) ** 2).mean())
    ).trace(init(Llama(tiny_llama_config(**features))))


@functools.cache
def gradients(remat: str, kind: str, *, every_feature: bool) -> list[np.ndarray]:
    features = EVERY_FEATURE if every_feature else {}
    params = init(Llama(tiny_llama_config(**features)))
    return jax.tree.leaves(traced_gradient(remat, kind, **features).lower().compile()(params))


@pytest.mark.parametrize(
    ("remat", "kind", "every_feature"),
    [
        *((name, "blockwise", False) for name in REMAT if name != "none"),
        ("minimal", "reference", False),
        ("minimal", "blockwise", True),
    ],
)
def test_a_remat_policy_changes_no_gradient(remat, kind, every_feature):
    expected = gradients("none", kind, every_feature=every_feature)
    for mine, other in zip(gradients(remat, kind, every_feature=every_feature), expected, strict=True):
        assert jnp.abs(other).max() > 0
        np.testing.assert_allclose(mine, other, atol=1e-6 * float(jnp.abs(other).max()), rtol=1e-5)


@FEATURES
def test_policies_repeat_the_matrix_products_that_their_names_leave_out(features):
    """Seven products with weights and two of attention make a layer; the counts are of those repeated."""
    products = {
        name: str(traced_gradient(name, "blockwise", **features).jaxpr).count("dot_general") for name in REMAT
    }
    assert {name: count - products["none"] for name, count in products.items()} == {
        "none": 0,
        "full": 8,  # all but down, whose output the backward pass does not need
        "save_attention": 5,  # q, k, v, gate, up
        "save_qkv": 3,  # o, gate, up
        "save_mlp": 6,  # q, k, v, two of attention, o
        "minimal": 0,
        "dots": 2,  # two of attention
    }


def test_every_named_activation_is_there_to_be_saved():
    model = Llama(tiny_llama_config())
    program = str(jax.make_jaxpr(lambda p: model.apply({"params": p}, *rows()))(init(model)))
    for name in ACTIVATIONS:
        assert f"name={name}" in program
    assert {name for names in POLICIES.values() for name in names} <= set(ACTIVATIONS)
