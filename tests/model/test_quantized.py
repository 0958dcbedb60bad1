"""Weights in eight and four bits against bitsandbytes and qwix, at the edges, and split over devices."""

import bitsandbytes.functional
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from qwix._src.core import qarray

from jaxlingua.model import quantized
from jaxlingua.model.quantized import KINDS, NF4

quantize = jax.jit(quantized.quantize, static_argnums=(1, 2))
dequantize = jax.jit(quantized.dequantize, static_argnums=(2, 3))

# Shape, blocked axis, and how many axes are summed over: q, o, down, and one of blocks of 32.
SHAPES = {
    "q": ((128, 4, 16), 0, 1),
    "o": ((4, 128, 48), 1, 2),
    "down": ((192, 80), 0, 1),
    "blocks of 32": ((96, 40), 0, 1),
}


def draw(shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Like a weight: normal numbers, whose spread differs from place to place along the last axis."""
    weight = 0.02 * np.random.default_rng(0).normal(size=shape) * np.linspace(0.5, 2, shape[-1])
    return jnp.asarray(weight, dtype)


def step(scales: jax.Array, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The scale of every number of a weight."""
    return np.repeat(scales, shape[axis] // scales.shape[axis], axis)


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float32") for name in SHAPES), ("o", "bfloat16")])
def test_nf4_has_the_codes_scales_and_values_of_bitsandbytes(name, dtype):
    shape, axis, inputs = SHAPES[name]
    weight = draw(shape, dtype)
    codes, scales = quantize(weight, "nf4", axis)
    columns = int(np.prod(shape[:inputs]))

    def matrix(x) -> np.ndarray:
        """[inputs outputs] as [output, input], which is how PyTorch keeps a weight."""
        x = np.asarray(x).astype(np.float32)
        return x.reshape(int(np.prod(x.shape[:inputs])), -1).T

    packed, state = bitsandbytes.functional.quantize_4bit(
        torch.from_numpy(matrix(weight).copy()), blocksize=32 if columns == 96 else 64, quant_type="nf4"
    )
    pairs = packed.numpy().ravel()
    np.testing.assert_array_equal(matrix(codes).ravel(), np.stack([pairs >> 4, pairs & 15], 1).ravel())
    np.testing.assert_array_equal(matrix(scales).ravel(), state.absmax.numpy())
    values = bitsandbytes.functional.dequantize_4bit(packed, state)
    np.testing.assert_array_equal(matrix(dequantize(codes, scales, jnp.float32, axis)), values.numpy())
    rounded = values.to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(matrix(dequantize(codes, scales, jnp.bfloat16, axis)), rounded)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["q", "o", "blocks of 32"])
def test_codes_and_values_are_those_of_qwix(name, kind):
    """Its int8 spreads 127.5 steps over the largest number of a block, so it is given 127.5 / 127 of that."""
    shape, axis, _ = SHAPES[name]
    weight = draw(shape)
    codes, scales = quantize(weight, kind, axis)
    how = qarray.HowToQuantize(
        qtype=jnp.int8 if kind == "int8" else kind,
        channelwise_axes=[i for i in range(len(shape)) if i != axis],
        tiled_axes={axis: shape[axis] // scales.shape[axis]},
        calibration_method=f"absmax,{127.5 / 127}" if kind == "int8" else "absmax",
    )
    other = jax.jit(lambda weight: qarray.quantize(weight, how))(weight)
    assert codes.dtype == other.qvalue.dtype == (jnp.int8 if kind == "int8" else jnp.uint4)
    np.testing.assert_array_equal(codes, other.qvalue)
    np.testing.assert_allclose(scales, other.scale, rtol=1e-6)
    values = dequantize(codes, scales, jnp.float32, axis)
    np.testing.assert_allclose(values, jax.jit(qarray.dequantize)(other), rtol=1e-6)


@pytest.mark.parametrize(("size", "block"), [(256, 64), (96, 32), (80, 16), (7, 1)])
def test_every_number_becomes_the_nearest_that_its_block_can_say(size, block):
    weight = draw((size, 6))
    whole = np.asarray(weight).reshape(-1, block, 6)
    for kind in KINDS:
        codes, scales = quantize(weight, kind, -2)
        assert (codes.shape, scales.shape, scales.dtype) == ((size, 6), (size // block, 6), jnp.float32)
        levels = np.arange(-127, 128) / 127 if kind == "int8" else NF4
        choices = np.abs(whole).max(1, keepdims=True)[..., None] * levels
        nearest = np.abs(whole[..., None] - choices).min(-1).reshape(size, 6)
        error = np.abs(dequantize(codes, scales, jnp.float32, -2) - np.asarray(weight))
        np.testing.assert_array_less(
            error - nearest, 1e-6 * step(scales, (size, 6), 0) * (127 if kind == "int8" else 1)
        )
        assert np.abs(codes.astype(jnp.int32)).max() == {"int8": 127, "nf4": 15}[kind]


def test_halves_of_an_int8_step_go_to_the_even_code():
    weight = jnp.array([127, 0.5, 1.5, -0.5, -2.5, 3.5, -127, 0.0]).reshape(1, 8)
    codes, scales = quantize(weight, "int8", 1)
    np.testing.assert_array_equal(scales, 1)
    np.testing.assert_array_equal(codes[0], [127, 0, 2, 0, -2, 4, -127, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_zeros_stays_zero_and_one_with_nan_is_not_finite_while_others_are_as_ever(kind):
    weight = draw((256, 3))
    odd = weight.at[64:128].set(0).at[130, 1].set(jnp.nan).at[200, 2].set(jnp.inf).at[192:, 0].set(1e-40)
    codes, scales = quantize(odd, kind, 0)
    found = np.asarray(dequantize(codes, scales, jnp.float32, 0))
    expected = np.asarray(dequantize(*quantize(weight, kind, 0), jnp.float32, 0))
    assert (found[64:128] == 0).all()
    assert (np.asarray(codes)[64:128] == {"int8": 0, "nf4": 7}[kind]).all()
    assert not np.isfinite(found[128:192, 1]).any()
    assert not np.isfinite(found[192:, 2]).any()
    assert (np.abs(found[192:, 0]) < 1e-38).all()
    np.testing.assert_array_equal(found[:64], expected[:64])
    np.testing.assert_array_equal(found[128:192, ::2], expected[128:192, ::2])
    np.testing.assert_array_equal(found[192:, 1], expected[192:, 1])


@pytest.mark.parametrize("embed", [512, 256], ids=["whole blocks", "half a block to a device"])
@pytest.mark.parametrize("kind", KINDS)
def test_split_over_devices_and_layer_by_layer_it_is_the_same_to_the_last_bit(kind, embed):
    weight = draw((3, embed, 16))
    codes, scales = quantize(weight, kind, 1)
    values = dequantize(codes, scales, jnp.float32, 1)

    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    split_scales = split if embed == 512 else NamedSharding(mesh, PartitionSpec())
    stored = jax.jit(quantized.quantize, static_argnums=(1, 2), out_shardings=(split, split_scales))(
        jax.device_put(weight, split), kind, 1
    )

    def layers(codes, scales):
        def layer(carry, xs):
            return carry, quantized.dequantize(*xs, jnp.float32, 0)

        return jax.lax.scan(layer, None, (codes, scales))[1]

    found = jax.jit(layers, out_shardings=split)(*stored)
    for mine, other in zip((*stored, found), (codes, scales, values), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert stored[0].sharding == split
