"""Rotary frequencies against transformers, and refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import LlamaConfig as TorchConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from jaxlingua.errors import ConfigError
from jaxlingua.model.llama import Llama
from jaxlingua.model.rope import ROPE, attention_factor, rope_frequencies, rope_scaling, rotate, rotations
from tests.tiny import tiny_llama_config

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
KINDS = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", "factor": 8.0, **LLAMA3},
    {"rope_type": "llama3", "factor": 32.0, **LLAMA3},
    {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048, "truncate": False},
    {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 2048,
        "beta_fast": 16,
        "beta_slow": 2,
    },
    {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "attention_factor": 0.9},
]


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("head_dim", [16, 64, 80, 128])
@pytest.mark.parametrize("fields", KINDS, ids=lambda f: "-".join(map(str, f.values())))
def test_frequencies_and_attention_factor_are_those_of_transformers(fields, head_dim, theta):
    """To a few units in the last place of float32: powers differ by one, the ramp of llama3 doubles it."""
    config = TorchConfig(
        head_dim=head_dim, max_position_embeddings=4096, rope_parameters={"rope_theta": theta, **fields}
    )
    kind = fields["rope_type"]
    init = (
        LlamaRotaryEmbedding.compute_default_rope_parameters
        if kind == "default"
        else ROPE_INIT_FUNCTIONS[kind]
    )
    frequencies, factor = init(config)
    scaling = rope_scaling(fields)
    ours = rope_frequencies(scaling, head_dim, theta)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, frequencies.numpy(), rtol=2e-6)
    assert attention_factor(scaling) == pytest.approx(factor, rel=1e-12)


def test_every_kind_of_the_table_is_compared():
    assert {fields["rope_type"] for fields in KINDS} == set(ROPE)


def test_scores_depend_on_the_distance_alone():
    """What makes the rotation a position: moving both ends by 1,000 leaves the product alone."""
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 64))

    def score(at: int, back: int) -> jax.Array:
        rotated = (
            rotate(x, *rotations(jnp.array([[p]]), None, 64, 1e4)) for x, p in ((q, at), (k, at - back))
        )
        return jnp.vdot(*rotated)

    np.testing.assert_allclose(score(1007, 7), score(7, 7), rtol=1e-3)
    assert abs(score(1007, 7) - score(1007, 8)) > 0.1


def test_rotations_stay_float32_where_bfloat16_would_merge_positions():
    cos, _ = rotations(jnp.array([[256, 257]]), None, 64, 1e4)
    assert cos.dtype == jnp.float32
    np.testing.assert_allclose(cos[0, :, 0], [math.cos(256), math.cos(257)], atol=1e-5)


def test_the_older_name_of_the_kind_is_read():
    assert rope_scaling({"type": "linear", "factor": 2.0}) == rope_scaling(
        {"rope_type": "linear", "factor": 2.0}
    )
    assert rope_scaling({"rope_type": "linear", "type": "linear", "factor": 2.0}).factor == 2.0
    assert rope_scaling(None) is None
    assert rope_scaling({}) is None
    assert rope_scaling({"rope_type": "default"}) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"rope_type": "longrope", "factor": 4.0},
            "config.json: rope_scaling.rope_type='longrope' is not supported (default, linear, dynamic, llama3, yarn); nothing was loaded",
        ),
        (
            {"rope_type": "linear", "facto": 4.0},
            "config.json: rope_scaling: field 'facto' is not understood; did you mean 'factor'?; nothing was loaded",
        ),
        (
            {"rope_type": "linear", "factor": "4x"},
            "config.json: rope_scaling.factor='4x' is not a number or flag; nothing was loaded",
        ),
        (
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            "config.json: rope_scaling: rope_type='llama3' needs 'original_max_position_embeddings'; add it as the model's authors gave it",
        ),
    ],
)
def test_what_is_not_understood_is_refused(fields, message):
    with pytest.raises(ConfigError) as refusal:
        rope_scaling(fields)
    assert str(refusal.value) == message


def test_dynamic_scaling_is_refused_beyond_the_original_length():
    config = tiny_llama_config(
        rope_scaling=rope_scaling({"rope_type": "dynamic", "factor": 2.0}), max_positions=16
    )
    model = Llama(config)
    row = jnp.ones((3, 1, 16), jnp.int32)
    jax.eval_shape(model.init, jax.random.key(0), *row)
    with pytest.raises(
        ConfigError, match=r"a row of 17 tokens, but beyond 16 positions rope_type='dynamic' .* at most 16"
    ):
        jax.eval_shape(model.init, jax.random.key(0), *jnp.ones((3, 1, 17), jnp.int32))
