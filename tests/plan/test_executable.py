"""The schedule of a compiled program, read from its executable where JAX cannot print it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from jaxlingua.plan import executable
from jaxlingua.plan.estimate import estimate
from jaxlingua.plan.executable import schedule_text
from jaxlingua.plan.hlo import parse
from jaxlingua.plan.topology import devices, topology_of
from jaxlingua.sharding.chips import CHIPS
from tests.plan.conftest import compiler_environment

pytestmark = pytest.mark.xdist_group("plan")


def compiled_for(topology: str) -> jax.stages.Compiled:
    """Rows of an embedding through a matrix product, on one chip."""
    with compiler_environment():  # of libtpu, which is loaded here
        chip = devices(topology_of(topology))[0]
    sharding = SingleDeviceSharding(chip)

    def shape(dtype: np.dtype | type, *sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    def look_up(embedding: jax.Array, tokens: jax.Array, kernel: jax.Array) -> jax.Array:
        return embedding[tokens] @ kernel

    arguments = shape(jnp.float32, 32000, 1024), shape(jnp.int32, 8192), shape(jnp.float32, 1024, 1024)
    return jax.jit(look_up).lower(*arguments).compile()


@pytest.fixture(scope="module")
def of_v5e() -> jax.stages.Compiled:
    return compiled_for("v5e:1x1")


@pytest.fixture(scope="module")
def of_v6e() -> jax.stages.Compiled:
    """Its embedding rows are looked up by a SparseCore."""
    return compiled_for("v6e:2x2")


class Unprintable:
    """A compiled program that JAX cannot print."""

    def __init__(self, serialized: bytes):
        self.serialized = serialized

    def as_text(self) -> str:
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

    def runtime_executable(self) -> "Unprintable":
        return self

    def serialize(self) -> bytes:
        return self.serialized


def test_what_jax_prints_is_taken_as_it_is(of_v5e):
    assert schedule_text(of_v5e) == of_v5e.as_text()


def test_the_executable_holds_the_schedule_that_jax_prints(of_v5e):
    """Same as: jax.stages.Compiled.as_text, in all that an estimate reads."""
    found = executable._text_of_executable(of_v5e.runtime_executable().serialize())
    printed = of_v5e.as_text()
    assert estimate(found, CHIPS["v5e"], (1, 1)) == estimate(printed, CHIPS["v5e"], (1, 1))
    assert estimate(found, CHIPS["v5e"], (1, 1)).cal.matmul_seconds > 0
    assert [each.name for each in parse(found).instructions("main")] == [
        each.name for each in parse(printed).instructions("main")
    ]


def test_a_step_that_looks_up_rows_on_a_sparse_core_has_its_schedule(of_v6e):
    """JAX 0.10 says of it: async-update instruction should have 1 operands but sees 3."""
    found = estimate(schedule_text(of_v6e), CHIPS["v6e"], (1, 1))
    assert found.cal.matmul_seconds > 2 * 8192 * 1024 * 1024 / (CHIPS["v6e"].peak_tflops * 1e12)


@pytest.mark.parametrize(
    "damage", [b"", b"not an executable", b"\x05header" + bytes(1 << 17)], ids=["empty", "text", "zeros"]
)
def test_an_executable_in_another_format_leaves_the_message_of_jax(damage):
    with pytest.raises(jax.errors.JaxRuntimeError, match="RET_CHECK failure"):
        schedule_text(Unprintable(damage))


def test_a_damaged_executable_leaves_the_message_of_jax(of_v5e):
    serialized = of_v5e.runtime_executable().serialize()
    for end in range(0, len(serialized), len(serialized) // 20):
        with pytest.raises(jax.errors.JaxRuntimeError, match="RET_CHECK failure"):
            schedule_text(Unprintable(serialized[:end]))
