"""Ordered products have the values and gradients of plain ones, alone and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType

from jaxlingua.model import rope
from jaxlingua.model.products import products
from jaxlingua.sharding.rules import RULES

SIZES = {"d": 16, "n": 4, "k": 2, "h": 8, "f": 32}
CASES = {
    "queries, keys and values": ("d", ("nh", "kh", "kh")),
    "gate and up": ("d", ("f", "f")),
    "output of heads": ("nh", ("d",)),
    "down": ("f", ("d",)),
}


def case(inputs: str, outputs: tuple[str, ...], dtype=jnp.float32):
    keys = iter(jax.random.split(jax.random.key(0), 1 + 2 * len(outputs)))

    def draw(letters: str, *rows: int):
        shape = (*rows, *(SIZES[letter] for letter in letters))
        return jax.random.normal(next(keys), shape).astype(dtype)

    return draw(inputs, 24), [draw(inputs + out) for out in outputs], [draw(out, 24) for out in outputs]


def value_and_grads(inputs, outputs, is_ordered, x, weights, factors):
    precision = "highest" if x.dtype == jnp.float32 else None

    def total(x, weights):
        made = products(x, weights, inputs, outputs, precision=precision, is_ordered=is_ordered)
        return sum(
            (out * factor).astype(jnp.float32).sum() for out, factor in zip(made, factors, strict=True)
        )

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(x, weights)


@pytest.mark.parametrize("mesh", [None, (2, 2, 2), (1, 8, 1)], ids=["no mesh", "data fsdp tensor", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_ordered_products_have_the_values_and_gradients_of_plain_ones(name, mesh):
    inputs, outputs = CASES[name]
    arrays = case(inputs, outputs)
    expected = value_and_grads(inputs, outputs, False, *arrays)
    if mesh is None:
        found = value_and_grads(inputs, outputs, True, *arrays)
    else:
        grid = jax.make_mesh(mesh, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
        with jax.set_mesh(grid), nn.logical_axis_rules(RULES):
            found = value_and_grads(inputs, outputs, True, *arrays)
    for mine, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))


def test_gradients_keep_the_type_of_what_they_belong_to():
    _, (d_x, d_weights) = value_and_grads("d", ("f", "f"), True, *case("d", ("f", "f"), jnp.bfloat16))
    assert {leaf.dtype.name for leaf in (d_x, *d_weights)} == {"bfloat16"}


def test_each_gradient_of_a_weight_comes_before_that_of_the_input_which_waits_for_it():
    """The order that hides communication, in the program: share, barrier, sum, product, barrier, next weight."""
    x, weights, factors = case("d", ("f", "f"))

    def gradients(x, weights):
        return jax.vjp(
            lambda *both: products(*both, "d", ("f", "f"), precision=None, is_ordered=True), x, weights
        )[1](tuple(factors))

    order = [eqn.primitive.name for eqn in jax.make_jaxpr(gradients)(x, weights).jaxpr.eqns]
    kept = [name for name in order if name in ("dot_general", "optimization_barrier", "reduce_sum")]
    one = ["optimization_barrier", "dot_general", "optimization_barrier", "reduce_sum", "dot_general"]
    one += ["optimization_barrier"]
    assert kept == ["dot_general", "dot_general", *one, *one]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rotation_by_a_product_is_rotation_by_halves_forward_and_backward(dtype, monkeypatch):
    x, d_out = (jax.random.normal(jax.random.key(seed), (2, 16, 3, 64)).astype(dtype) for seed in (0, 1))
    cos, sin = rope.rotations(jnp.tile(jnp.arange(16), (2, 1)), None, 64, 10_000.0)

    def both():
        out, back = jax.vjp(lambda x: rope.rotate(x, cos, sin), x)
        return out, back(d_out)[0]

    by_halves = both()
    monkeypatch.setattr(rope, "platform", lambda: "tpu")
    for mine, other in zip(both(), by_halves, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
