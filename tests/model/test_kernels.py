"""The kernels of TPUs and GPUs against brute force and against reference attention, computed on a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

from jaxlingua.errors import ConfigError
from jaxlingua.model.attention import attention
from jaxlingua.model.cudnn import cudnn_attention
from jaxlingua.model.reference import Ids, reference_attention
from jaxlingua.model.splash import block_tokens, splash_attention
from jaxlingua.sharding.rules import RULES
from tests.model.test_attention import FP32_LAYER, packed_row

KERNELS = {
    "splash": functools.partial(splash_attention, interpret=True),
    "cudnn": functools.partial(cudnn_attention, implementation="xla"),
}


def case(length: int, heads: int, kv_heads: int, head_dim: int, rows: int = 2):
    """Rows of several documents and padding, or of one document and padding."""
    made = [packed_row(length, [length // 3, 1, length // 3 + 7]), packed_row(length, [length - 5])]
    segments, positions = (jnp.asarray(np.stack(x)) for x in zip(*(made * (rows // 2)), strict=True))
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(rows, length, *n, head_dim) for n in ((kv_heads, heads // kv_heads), (kv_heads,), (kv_heads,))]
    q, k, v = (jax.random.normal(key, shape) * 2 for key, shape in zip(keys, shapes, strict=False))
    weight = jax.random.normal(keys[3], q.shape)
    return (q, k, v), (segments, positions), weight


def value_and_grads(function, qkv, ids, weight):
    def total(qkv):
        out = function(*qkv, ids)
        return (out * weight).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(qkv)
    return out, *grads


SHAPES = {
    "a head for every key": (256, 4, 4, 128),
    "groups": (256, 4, 2, 128),
    "one key head": (256, 3, 1, 128),
    "narrow heads": (256, 4, 2, 64),
    "several blocks": (1152, 2, 1, 64),
    "a backward kernel apart for queries": (640, 2, 2, 64),
}


WINDOWED = [(name, None) for name in SHAPES] + [("groups", 2), ("groups", 100), ("several blocks", 100)]


@pytest.mark.parametrize(("name", "window"), WINDOWED)
@pytest.mark.parametrize("kind", KERNELS)
def test_output_and_gradients_are_those_of_reference_attention(kind, name, window):
    qkv, (segments, positions), weight = case(*SHAPES[name])
    ids = Ids(segments, segments, positions, positions, window)
    ours = value_and_grads(KERNELS[kind], qkv, ids, weight)
    theirs = value_and_grads(reference_attention, qkv, ids, weight)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=FP32_LAYER * float(jnp.abs(other).max()))


@pytest.mark.parametrize("kind", KERNELS)
def test_padding_sees_nothing_and_gives_no_gradient_even_in_a_row_without_documents(kind):
    qkv, (segments, positions), weight = case(256, 4, 2, 64)
    segments = segments.at[1].set(0)
    ids = Ids(segments, segments, positions, positions)
    padding = np.asarray(segments == 0)
    for array in value_and_grads(KERNELS[kind], qkv, ids, weight):
        assert np.isfinite(array).all()
        assert (np.asarray(array)[padding] == 0).all()


@pytest.mark.parametrize("kind", KERNELS)
def test_bfloat16_keeps_scores_in_float32(kind):
    qkv, (segments, positions), _ = case(256, 4, 2, 128)
    ids = Ids(segments, segments, positions, positions)
    rounded = [x.astype(jnp.bfloat16) for x in qkv]
    exact = reference_attention(*(x.astype(jnp.float32) for x in rounded), ids)
    ours = KERNELS[kind](*rounded, ids)
    theirs = reference_attention(*rounded, ids)
    assert ours.dtype == jnp.bfloat16
    error, allowed = (np.abs(np.asarray(x, np.float32) - exact).mean() for x in (ours, theirs))
    assert error < 2 * allowed


def test_cudnn_s_own_kernels_take_it_forward_and_backward(monkeypatch):
    """Lowered for a GPU that is not here: grouped heads, bfloat16 and the mask of segments are what they can do."""
    checks = "jax._src.cudnn.fused_attention_stablehlo.check_"
    monkeypatch.setattr(f"{checks}cudnn_version", lambda: 91300)
    monkeypatch.setattr(f"{checks}compute_capability", lambda *_: True)
    q = jax.ShapeDtypeStruct((2, 2048, 8, 4, 128), jnp.bfloat16)
    kv = jax.ShapeDtypeStruct((2, 2048, 8, 128), jnp.bfloat16)
    row = jax.ShapeDtypeStruct((2, 2048), jnp.int32)

    def total(q, k, v, segments, positions):
        return cudnn_attention(q, k, v, Ids(segments, segments, positions, positions)).sum()

    traced = jax.jit(jax.grad(total, (0, 1, 2))).trace(q, kv, kv, row, row)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaScaleBiasSoftmax(" in program
    assert "__cudnn$fmhaScaleBiasSoftmaxBackward(" in program


def test_splash_on_a_mesh_is_splash_on_one_device():
    """Rows over data and fsdp, heads over tensor, each device's kernel on its own part."""
    qkv, (segments, positions), weight = case(256, 4, 2, 64, rows=4)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    ids = Ids(segments, segments, positions, positions)
    alone = value_and_grads(KERNELS["splash"], qkv, ids, weight)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        together = value_and_grads(KERNELS["splash"], qkv, ids, weight)
    assert together[0].sharding.spec == PartitionSpec(("data", "fsdp"), None, "tensor")
    for mine, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6 * float(jnp.abs(other).max()))


def test_blocks_divide_the_row_and_are_no_larger_than_fast_memory_holds():
    for length in range(128, 8192 + 1, 128):
        block = block_tokens(length)
        assert length % block == 0
        assert block % 128 == 0
        assert block <= (1024 if length > 1024 else 512)


H100 = "NVIDIA H100 80GB HBM3"
REFUSED = {
    "no TPU": ({}, "it runs on TPUs, and this program is for a cpu"),
    "float32": ({"dtype": jnp.float32}, "it multiplies in bfloat16, and model.compute_dtype is float32"),
    "odd rows": ({"length": 200}, "it takes rows of a multiple of 128 tokens, not of 200"),
    "windows that differ": (
        {"window": jnp.int32(7)},
        "its window is one for all layers, and these differ",
    ),
}


CUDNN_REFUSED = {
    "no GPU": ({}, "cpu", "it runs on GPUs, and this program is for a cpu"),
    "an old GPU": ({}, "Tesla T4", "it needs an NVIDIA GPU of the Ampere generation or later, not Tesla T4"),
    "another maker's": (
        {},
        "AMD Instinct MI300X",
        "it needs an NVIDIA GPU of the Ampere generation or later, not AMD Instinct MI300X",
    ),
    "wide heads": ({"head_dim": 256}, H100, "it takes heads of a multiple of 8, at most 128, not of 256"),
    "odd heads": ({"head_dim": 100}, H100, "it takes heads of a multiple of 8, at most 128, not of 100"),
    "odd rows": ({"length": 101}, H100, "it takes rows of an even number of tokens, not of 101"),
}


def traced(kind: str, *, length=256, keys=None, dtype=jnp.bfloat16, window=None, head_dim=128) -> str:
    """The program of one attention."""
    keys = keys or length
    row, key_row = (jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (length, keys))
    q = jax.ShapeDtypeStruct((1, length, 4, head_dim), dtype)
    kv = jax.ShapeDtypeStruct((1, keys, 2, head_dim), dtype)

    def attend(q, k, v, query_ids, key_ids):
        ids = {"query_segments": query_ids, "key_segments": key_ids}
        ids |= {"query_positions": query_ids, "key_positions": key_ids}
        return attention(q, k, v, **ids, window=window, kind=kind, block_tokens=128)

    return str(jax.make_jaxpr(attend)(q, kv, kv, row, key_row))


@pytest.fixture
def platform(monkeypatch):
    """Makes programs believe that they are traced for another platform."""

    def pretend(name: str, kind: str = H100):
        class Mesh:
            empty = True
            abstract_device = type("Device", (), {"platform": name, "device_kind": kind})

        monkeypatch.setattr(jax.sharding, "get_abstract_mesh", Mesh)

    return pretend


@pytest.mark.parametrize("name", REFUSED)
def test_a_kernel_that_cannot_do_it_is_refused_with_the_reason(name, platform):
    changes, reason = REFUSED[name]
    platform("cpu" if name == "no TPU" else "tpu")
    with pytest.raises(ConfigError) as refusal:
        traced("splash", **changes)
    assert str(refusal.value) == f"model.attention: 'splash' given; {reason}; set model.attention=auto"


@pytest.mark.parametrize("name", CUDNN_REFUSED)
def test_cudnn_where_it_cannot_is_refused_with_the_reason(name, platform):
    changes, kind, reason = CUDNN_REFUSED[name]
    platform("cpu" if name == "no GPU" else "gpu", kind)
    with pytest.raises(ConfigError) as refusal:
        traced("cudnn", **changes)
    assert str(refusal.value) == f"model.attention: 'cudnn' given; {reason}; set model.attention=auto"
    assert traced("auto", **changes)


@pytest.mark.parametrize("kind", KERNELS)
def test_queries_that_follow_a_cache_are_attended_to_by_a_plain_kind(kind, platform):
    platform("tpu" if kind == "splash" else "gpu")
    assert traced(kind, keys=512) == traced("auto", keys=512) == traced("reference", keys=512)


def test_auto_is_the_kernel_of_the_platform_and_where_it_cannot_the_plain_ones(platform, monkeypatch):
    platform("tpu")
    assert "splash" in traced("auto")
    for name, (changes, _) in REFUSED.items():
        if name != "no TPU":
            assert "splash" not in traced("auto", **changes), name
    platform("gpu")
    chosen = []
    monkeypatch.setattr(
        "jaxlingua.model.attention.cudnn_attention", lambda q, *rest: chosen.append("cudnn") or q
    )
    traced("auto")
    assert chosen == ["cudnn"]
    platform("cpu")
    assert "splash" not in traced("auto")
    assert chosen == ["cudnn"]
