"""Both kinds of attention against brute force, against jax.nn and against each other; and what they hold."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxlingua.errors import ConfigError
from jaxlingua.model import blockwise as blockwise_module
from jaxlingua.model.attention import attention

FP32_LAYER = 1e-5
KINDS = ["reference", "blockwise"]


def packed_row(length: int, lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Segments and positions of documents of these lengths, then padding."""
    segments, positions = np.zeros(length, np.int32), np.zeros(length, np.int32)
    start = 0
    for number, n in enumerate(lengths, 1):
        segments[start : start + n], positions[start : start + n] = number, np.arange(n)
        start += n
    return segments, positions


def case(length: int = 37, heads: int = 6, kv_heads: int = 2, head_dim: int = 8, dtype=jnp.float32):
    """Two rows: several documents and padding; one document that fills the row."""
    rows = [packed_row(length, [11, 1, length - 19]), packed_row(length, [length])]
    segments, positions = (jnp.asarray(np.stack(x)) for x in zip(*rows, strict=True))
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(2, length, n, head_dim) for n in (heads, kv_heads, kv_heads)]
    q, k, v = (
        jax.random.normal(key, shape).astype(dtype) * 2 for key, shape in zip(keys, shapes, strict=True)
    )
    ids = {
        "query_segments": segments,
        "key_segments": segments,
        "query_positions": positions,
        "key_positions": positions,
    }
    return q, k, v, ids


def brute_force(q, k, v, ids, window: int = 10**9) -> np.ndarray:
    """One query, one head, one key after another, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    ids = {name: np.asarray(value) for name, value in ids.items()}
    out = np.zeros_like(q)
    for b, t, n in np.ndindex(q.shape[:3]):
        group = n // (q.shape[2] // k.shape[2])
        seen = [
            s
            for s in range(k.shape[1])
            if ids["query_segments"][b, t] == ids["key_segments"][b, s] != 0
            and 0 <= ids["query_positions"][b, t] - ids["key_positions"][b, s] < window
        ]
        if seen:
            scores = np.exp([q[b, t, n] @ k[b, s, group] / np.sqrt(q.shape[3]) for s in seen])
            out[b, t, n] = scores @ v[b, seen, group] / scores.sum()
    return out


def in_jax_nn(q, k, v, ids, window: int = 10**9):
    distance = ids["query_positions"][:, :, None] - ids["key_positions"][:, None]
    own = ids["query_segments"][:, :, None] == ids["key_segments"][:, None]
    mask = own & (distance >= 0) & (distance < window)
    out = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])
    return jnp.where(ids["query_segments"][:, :, None, None] == 0, 0, out)


@pytest.mark.parametrize(
    ("kind", "block_tokens"), [("reference", 1), *(("blockwise", n) for n in (1, 8, 37, 64))]
)
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)])
def test_output_is_that_of_brute_force(kind, block_tokens, heads):
    q, k, v, ids = case(heads=heads[0], kv_heads=heads[1])
    out = jax.jit(lambda *qkv: attention(*qkv, **ids, kind=kind, block_tokens=block_tokens))(q, k, v)
    np.testing.assert_allclose(out, brute_force(q, k, v, ids), atol=FP32_LAYER)


@pytest.mark.parametrize("kind", KINDS)
def test_output_and_gradients_are_those_of_jax_nn(kind):
    q, k, v, ids = case()
    weight = jax.random.normal(jax.random.key(1), q.shape)

    def value_and_grads(function):
        return jax.jit(jax.value_and_grad(lambda qkv: (function(*qkv) * weight).sum(), argnums=0))((q, k, v))

    ours = value_and_grads(lambda *qkv: attention(*qkv, **ids, kind=kind, block_tokens=8))
    theirs = value_and_grads(lambda *qkv: in_jax_nn(*qkv, ids))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=FP32_LAYER)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(mine, other, atol=FP32_LAYER * float(jnp.abs(other).max()))


WINDOWS = [
    1,
    2,
    3,
    8,
    9,
    10,
    36,
    37,
    1000,
]  # of rows of 37 in blocks of 8; a block back begins at 2, two at 10


def with_gaps(ids: dict) -> dict:
    """The same rows with tokens left out: positions jump by up to three within a document."""
    positions = np.asarray(ids["query_positions"])
    jumps = np.random.default_rng(5).integers(1, 4, positions.shape)
    starts = positions == 0
    walked = np.cumsum(jumps, axis=1)
    begun = np.maximum.accumulate(np.where(starts, walked, 0), axis=1)
    positions = jnp.asarray(walked - begun, jnp.int32)
    return ids | {"query_positions": positions, "key_positions": positions}


@pytest.mark.parametrize(("window", "gaps"), [*((n, False) for n in WINDOWS), (3, True), (10, True)])
def test_a_window_is_that_of_brute_force_forward_and_backward(window, gaps):
    """A number when the program is made, and one that differs from layer to layer; gradients as in jax.nn."""
    q, k, v, ids = case()
    ids = with_gaps(ids) if gaps else ids
    weight = jax.random.normal(jax.random.key(1), q.shape)
    expected = brute_force(q, k, v, ids, window)
    _, pull_back = jax.vjp(lambda *qkv: in_jax_nn(*qkv, ids, window), q, k, v)
    expected_grads = pull_back(weight)

    def output_and_grads(kind, window):
        out, pull_back = jax.vjp(
            lambda *qkv: attention(*qkv, **ids, window=window, kind=kind, block_tokens=8), q, k, v
        )
        return out, pull_back(weight)

    for kind in KINDS:
        fixed = jax.jit(output_and_grads, static_argnums=(0, 1))(kind, window)
        traced = jax.jit(output_and_grads, static_argnums=0)(kind, jnp.int32(window))
        for out, grads in (fixed, traced):
            np.testing.assert_allclose(out, expected, atol=FP32_LAYER, err_msg=kind)
            for mine, other in zip(grads, expected_grads, strict=True):
                size = max(1.0, float(jnp.abs(other).max()))  # q and k have none if one key is seen
                np.testing.assert_allclose(mine, other, atol=FP32_LAYER * size, err_msg=kind)


def test_a_window_as_large_as_a_number_can_be_is_none():
    """What a layer without a window gets where others have one."""
    q, k, v, ids = case()
    for kind in KINDS:
        for block_tokens in (1, 8):
            options = {"kind": kind, "block_tokens": block_tokens, **ids}
            out = attention(q, k, v, **options, window=jnp.int32(2**31 - 1))
            np.testing.assert_array_equal(out, attention(q, k, v, **options))


@pytest.mark.parametrize("block_tokens", [1, 5, 37, 64])
@pytest.mark.parametrize("window", [1, 12])
def test_blocks_of_any_size_leave_a_window_alone(window, block_tokens):
    q, k, v, ids = case()
    weight = jax.random.normal(jax.random.key(1), q.shape)

    def gradients(kind):
        options = {"window": window, "kind": kind, "block_tokens": block_tokens, **ids}
        return jax.jit(jax.grad(lambda qkv: (attention(*qkv, **options) * weight).sum()))((q, k, v))

    for mine, other in zip(gradients("blockwise"), gradients("reference"), strict=True):
        np.testing.assert_allclose(mine, other, atol=FP32_LAYER * max(1.0, float(jnp.abs(other).max())))


@pytest.mark.parametrize(
    ("window", "blocks"), [(None, 36), (1, 8), (2, 15), (8, 15), (9, 15), (10, 21), (64, 36), (10**6, 36)]
)
def test_blocks_that_no_query_sees_are_not_computed(window, blocks, monkeypatch):
    """Eight blocks of eight places: 36 pairs are not after the query; counted as they run, both ways."""
    computed = []
    scores = blockwise_module._scores

    def counted(*arguments):
        jax.debug.callback(lambda: computed.append(1))
        return scores(*arguments)

    monkeypatch.setattr(blockwise_module, "_scores", counted)
    q, k, v, _ = case(length=64)
    segments, positions = jnp.ones((2, 64), jnp.int32), jnp.tile(jnp.arange(64, dtype=jnp.int32), (2, 1))
    ids = {"query_segments": segments, "key_segments": segments}
    ids |= {"query_positions": positions, "key_positions": positions}

    def output(q):
        return attention(q, k, v, **ids, window=window, kind="blockwise", block_tokens=8)

    out, pull_back = jax.vjp(output, q)
    jax.block_until_ready(out)
    jax.effects_barrier()
    forward = len(computed)
    jax.block_until_ready(pull_back(out))
    jax.effects_barrier()
    assert (forward, len(computed) - forward) == (blocks, blocks)


@pytest.mark.parametrize("window", [None, 1, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_queries_at_the_end_of_a_longer_cache_see_the_keys_before_them(kind, window):
    """As in generation: three new tokens, a prompt padded on the left, places that are still empty."""
    _, k, v, _ = case(length=20)
    q = jax.random.normal(jax.random.key(3), (2, 3, 6, 8))
    keys = np.stack([np.r_[[0] * 5, [1] * 11, [0] * 4], np.r_[[1] * 16, [0] * 4]])
    places = np.stack([np.r_[[0] * 5, np.arange(11), [0] * 4], np.r_[np.arange(16), [0] * 4]])
    ids = {
        "query_segments": jnp.asarray(keys[:, 13:16]),
        "key_segments": jnp.asarray(keys),
        "query_positions": jnp.asarray(places[:, 13:16]),
        "key_positions": jnp.asarray(places),
    }
    out = attention(q, k, v, **ids, window=window, kind=kind, block_tokens=8)
    np.testing.assert_allclose(out, brute_force(q, k, v, ids, window or 10**9), atol=FP32_LAYER)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_gives_zero_gets_no_gradient_and_is_never_nan(kind, window):
    """A row that is all padding, too: softmax over nothing is where NaN comes from."""
    q, k, v, ids = case()
    segments = ids["query_segments"].at[1].set(0)
    ids |= {"query_segments": segments, "key_segments": segments}
    padding = np.asarray(segments == 0)

    def total(qkv):
        out = attention(*qkv, **ids, window=window, kind=kind, block_tokens=8)
        return (out**2).sum(), out

    (_, out), grads = jax.value_and_grad(total, has_aux=True)((q * 100, k * 100, v))
    assert (np.asarray(out)[padding] == 0).all()
    for grad in grads:
        assert np.isfinite(grad).all()
        assert (np.asarray(grad)[padding] == 0).all()
    assert np.abs(grads[2][0, :5]).min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_inputs_keep_scores_in_float32(kind):
    """Rounding of inputs and output only: with scores in bfloat16 the error would be ten times larger."""
    q, k, v, ids = case(dtype=jnp.bfloat16)
    out = attention(q, k, v, **ids, kind=kind, block_tokens=8)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), brute_force(q, k, v, ids), atol=4e-2)
    assert np.abs(out.astype(jnp.float32) - brute_force(q, k, v, ids)).mean() < 4e-3


def arrays_in(jaxpr: Jaxpr) -> Iterator[tuple[int, ...]]:
    """Shapes of everything that a program computes, in its loops as well."""
    for eqn in jaxpr.eqns:
        yield from (var.aval.shape for var in eqn.outvars)
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)):
            if isinstance(value, ClosedJaxpr):
                yield from arrays_in(value.jaxpr)
            elif isinstance(value, Jaxpr):
                yield from arrays_in(value)


def gradient_of(kind: str, length: int, block_tokens: int = 32):
    row = jax.ShapeDtypeStruct((1, length), jnp.int32)
    q, kv = (jax.ShapeDtypeStruct((1, length, n, 16), jnp.float32) for n in (4, 2))

    def loss(q, k, v, segments, positions):
        ids = {"query_segments": segments, "key_segments": segments}
        ids |= {"query_positions": positions, "key_positions": positions}
        return (attention(q, k, v, **ids, kind=kind, block_tokens=block_tokens) ** 2).sum()

    return jax.grad(loss, (0, 1, 2)), (q, kv, kv, row, row)


@pytest.mark.parametrize(("kind", "holds"), [("reference", True), ("blockwise", False), ("auto", False)])
def test_only_the_reference_holds_scores_of_every_query_and_key(kind, holds):
    """Forward and backward, the inside of loops included. "auto" gives up the reference for long rows."""
    length = 2048
    function, arguments = gradient_of(kind, length)
    largest = max(arrays_in(jax.make_jaxpr(function)(*arguments).jaxpr), key=np.prod)
    assert (np.prod(largest) >= length * length) == holds, largest
    if not holds:
        assert np.prod(largest) <= 4 * 16 * length  # as large as q


def test_memory_of_blockwise_attention_grows_with_the_length_and_not_its_square():
    def temporary_bytes(kind: str, length: int) -> int:
        function, arguments = gradient_of(kind, length)
        return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    growth = {kind: temporary_bytes(kind, 2048) / temporary_bytes(kind, 512) for kind in KINDS}
    assert growth["blockwise"] < 4.5
    assert growth["reference"] > 10


def test_an_unknown_kind_is_refused():
    q, k, v, ids = case()
    with pytest.raises(ConfigError) as refusal:
        attention(q, k, v, **ids, kind="flash", block_tokens=8)
    assert (
        str(refusal.value)
        == "model.attention: unknown kind 'flash'; choose one of auto, reference, blockwise, "
        "splash, cudnn"
    )
