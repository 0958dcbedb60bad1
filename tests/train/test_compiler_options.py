"""Which options the training step is compiled with, by chip; those of another chip are refused."""

import jax
import pytest

from jaxlingua.config import OptimizerConfig
from jaxlingua.errors import ConfigError
from jaxlingua.train.compiler_options import OPTIONS, compiler_options, refuse_unknown_options
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.state import initial_state, shardings_of
from jaxlingua.train.step import make_train_step
from tests.train.world import OBJECTIVE, mesh_of, random_batch, tiny_model

V5E = "xla_enable_async_all_reduce"


def test_auto_is_the_table_of_the_chip_and_nothing_elsewhere():
    assert compiler_options("auto", "TPU v5 lite")[V5E] is True
    assert V5E not in compiler_options("auto", "TPU v6 lite")
    for kind in ("TPU v5", "NVIDIA H100 80GB HBM3", "cpu"):
        assert compiler_options("auto", kind) == {}


def test_given_options_are_taken_as_they_are():
    given = {"xla_of_my_own": 3}
    for kind in (*OPTIONS, "cpu"):
        assert compiler_options(given, kind) == given
    assert compiler_options({}, "TPU v5 lite") == {}


def test_an_option_of_another_chip_is_refused_before_its_compiler_does():
    with pytest.raises(ConfigError) as refusal:
        compiler_options({V5E: True}, "TPU v5")
    assert str(refusal.value) == (
        "train.compiler_options: 'xla_enable_async_all_reduce' given; it is for TPU v5 lite, these devices are "
        "TPU v5; leave it out, or set train.compiler_options=auto"
    )


def test_the_step_is_compiled_with_its_options():
    """One that no compiler knows must be told by the compiler, whether it compiles ahead of time or not."""
    optimizer, schedule = make_optimizer(OptimizerConfig(), 10)
    model, mesh = tiny_model(), mesh_of()
    state = initial_state(model, optimizer, mesh, seed=0)
    options = {"xla_of_my_own": 3}
    step = make_train_step(model, optimizer, schedule, OBJECTIVE, shardings_of(state), 1, options)
    for compiled in (
        lambda: step(state, random_batch()),
        lambda: step.lower(state, random_batch()).compile(),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_of_my_own"):
            compiled()


def test_an_option_that_the_compiler_does_not_know_is_refused_before_the_step_is():
    refuse_unknown_options({})
    refuse_unknown_options({"xla_cpu_enable_fast_math": False})
    for options in ({"xla_of_my_own": 3}, {"xla_cpu_enable_fast_math": "often"}):
        with pytest.raises(ConfigError) as refusal:
            refuse_unknown_options(options)
        told = str(refusal.value)
        assert told.startswith("train.compiler_options: the compiler refuses them (")
        assert next(iter(options)) in told
        assert told.endswith("); leave that one out, or set train.compiler_options=auto")
